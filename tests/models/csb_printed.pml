/*
 * csb_printed.pml: the paper's update as printed, in the situation of csb_update.pml with one I/O thread: it must fail.
 *
 * Step 2 sends SYNs by H_new(n), and into Set_fly; steps 3 to 5 walk the threads' tables, one after the other; step 6
 * publishes.  BF is exact here: its false positives are not what breaks the update.
 */
mtype = { SYN, DATA };
mtype = { CLOSED, OPENED };

chan ring[2] = [2] of { mtype };

mtype tcb[2] = CLOSED;
bool is_open;
byte owner, exception = 2, next_owner;
bool is_updating, is_flying; /* between steps 2 and 6; in Set_fly */

#ifdef KEEPS_UNDISTURBED
#define MAY_SEND (!is_updating) /* with no packet during an update, and none in a ring, it is right */
#else
#define MAY_SEND true
#endif

inline route(what)
{
    byte to = (exception != 2 -> exception : owner);
    if
    :: is_updating && what == SYN -> is_flying = true; to = next_owner
    :: is_updating && what != SYN && is_flying -> to = next_owner
    :: else -> skip
    fi;
    if
    :: nfull(ring[to]) -> ring[to]!what
    :: full(ring[to]) -> skip
    fi;
    to = 0
}

active proctype client()
{
    byte budget = 3;

    do
    :: atomic { budget > 0 && MAY_SEND -> budget--;
        if
        :: route(SYN)
        :: is_open -> route(DATA)
        fi
    }
    :: budget == 0 -> break
    od
}

active [2] proctype thread()
{
    byte t = _pid - 1;
    mtype got;

end:
    do
    :: atomic { ring[t]?got ->
        if
        :: got == SYN && tcb[t] == CLOSED ->
            assert(tcb[1 - t] == CLOSED);
            tcb[t] = OPENED;
            is_open = true
        :: got == DATA && tcb[t] == CLOSED -> assert(!(is_open && tcb[1 - t] == OPENED))
        :: else -> skip
        fi
    }
    od
}

active proctype controller()
{
    byte found = 2;

#ifdef KEEPS_UNDISTURBED
    atomic { empty(ring[0]) && empty(ring[1]) -> next_owner = 1; is_updating = true };
#else
    atomic { next_owner = 1; is_updating = true }; /* steps 1 and 2 */
#endif
    if
    :: atomic { tcb[0] == OPENED -> found = 0 } /* steps 3 and 4 */
    :: atomic { tcb[0] == CLOSED -> skip }
    fi;
    atomic {
        exception = found; /* steps 5 and 6 */
        owner = next_owner;
        is_updating = false;
        assert(tcb[0] == CLOSED || exception == 0)
    }
}
