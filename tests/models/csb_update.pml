/*
 * csb_update.pml: the repaired update, one 4-tuple whose key moves, two TCP threads, two I/O threads.
 *
 * Packets of the tuple come to either I/O thread.  A second update moves the key back.  An attempt may be aborted at any
 * time before publication, ABORTS times, and with DEATH one of the threads may die.  With COOKIES a SYN leaves no state, and
 * the packet after it creates the connection.  While it drains, an I/O thread holds one SYN of the tuple and drops more; at
 * the update's end that one goes on by the map in force.  NO_... leaves a rule out; the search must then find an error.
 */
#ifndef PACKETS
#define PACKETS 3 /* that the client sends, at most */
#endif
#ifndef CLOSES
#define CLOSES 0
#endif
#ifndef UPDATES
#define UPDATES 1
#endif
#ifndef ABORTS
#define ABORTS 0
#endif

#ifndef HELD_MAX
#define HELD_MAX 1 /* SYNs that an I/O thread holds, 0 or 1 */
#endif

#define NONE 2 /* no exception */

mtype = { SYN, DATA, SEAL_MARKER, OPEN_MARKER, BEGIN, DRAIN, SEAL, PUBLISH, OPEN, ABORT };
mtype = { CLOSED, HALF, FULL };

chan ring[4] = [6] of { mtype, byte }; /* io * 2 + tid; packets hold their incarnation, markers their attempt */
chan to_thread[2] = [3] of { mtype, byte };
chan to_io[2] = [3] of { mtype, byte };

mtype tcb[2] = CLOSED;
bool is_open;       /* the client has an established connection */
byte incarnation = 1;
bool is_dead[2];
byte died;           /* how many */

byte owner[2], exception[2] = NONE; /* each I/O thread's view: H_new's owner of the key, and the tuple's exception */
bool is_draining[2];
byte held[2];        /* the incarnation of the SYN that is held, 0 for none */
#ifdef NO_HELD_ANEW
byte held_for[2];    /* its owner when it came */
#endif

byte attempt;       /* the controller's */
bool is_updating;
byte next_owner, next_exception;
byte answers;       /* a bit per thread or I/O thread in this phase */

byte begun[2];      /* each thread's attempt, 0 for none */
bool is_reported[2], is_sealed[2];
byte seal_seen[2], open_seen[2];
mtype asked[2];

#define ROUTE(io) (exception[io] != NONE -> exception[io] : owner[io])
#define CONCERNED(t) (begun[t] != 0 && next_owner != t)

#ifdef NO_EVERY_IO
#define ALL_IOS 1
#else
#define ALL_IOS 3
#endif

inline push(io, t, what, number)
{
    if
    :: is_dead[t] -> skip
    :: !is_dead[t] && nfull(ring[io * 2 + t]) -> ring[io * 2 + t]!what, number
    :: !is_dead[t] && full(ring[io * 2 + t]) -> assert(what == SYN || what == DATA)
    fi
}

/* An I/O thread takes a packet from the wire: one step, as it reads its view once. */
inline route(io, what)
{
    byte to = ROUTE(io);
#ifdef NO_OLD_MAP
    if
    :: what == SYN && attempt != 0 && is_updating -> to = next_owner
    :: else -> skip
    fi;
#endif
    if
    :: what == SYN && is_draining[io] && next_owner != to ->
#ifdef NO_HELD_ANEW
        held_for[io] = (held[io] == 0 -> to : held_for[io]);
#endif
        held[io] = (held[io] == 0 && HELD_MAX > 0 -> incarnation : held[io])
    :: else ->
        if
        :: len(ring[io * 2 + to]) < 2 -> push(io, to, what, incarnation)
        :: else -> skip
        fi
    fi;
    to = 0
}

/* What an update's end lets go on: behind the marker, if it has put one into the rings. */
inline release(io)
{
    if
    :: held[io] != 0 ->
#ifdef NO_HELD_ANEW
        target = held_for[io];
        held_for[io] = 0;
#else
        target = ROUTE(io);
#endif
        if
        :: len(ring[io * 2 + target]) < 3 -> push(io, target, SYN, held[io])
        :: else -> skip
        fi;
        target = 0;
        held[io] = 0
    :: else -> skip
    fi
}

active proctype client()
{
    byte budget = PACKETS;
    bool may_close = CLOSES;

    do
    :: budget > 0 -> atomic {
        budget--;
        if
        :: route(0, SYN) /* the first, one sent again, or one spoofed while the connection is live */
        :: route(1, SYN)
        :: is_open -> route(0, DATA)
        :: is_open -> route(1, DATA)
        fi
    }
    :: atomic { may_close && is_open && (tcb[0] == FULL || tcb[1] == FULL) ->
        may_close = false;
        is_open = false;
        incarnation++;
        tcb[0] = CLOSED;
        tcb[1] = CLOSED
    }
    :: budget == 0 -> break
    od
}

inline create(t, state)
{
    if
#ifndef NO_SEAL
    :: CONCERNED(t) && is_sealed[t] -> skip
    :: !(CONCERNED(t) && is_sealed[t]) ->
#else
    :: true ->
#endif
        assert(tcb[1 - t] == CLOSED); /* one connection, one thread */
        tcb[t] = state;
        if
        :: state == HALF -> is_open = true
        :: state == HALF /* the SYN-ACK is lost */
        :: state == FULL
        fi;
#ifndef NO_LATE
        if
        :: CONCERNED(t) && !is_sealed[t] -> is_reported[t] = true
        :: else -> skip
        fi
#endif
    fi
}

inline miss(t, number)
{
    if
#ifndef NO_SILENCE
    :: CONCERNED(t) && is_sealed[t] -> skip
    :: !(CONCERNED(t) && is_sealed[t]) ->
#else
    :: true ->
#endif
        assert(!(number == incarnation && is_open && tcb[1 - t] != CLOSED)) /* no live connection is reset */
    fi
}

inline marker(t, what, number, io)
{
    if
    :: number != begun[t] -> skip
    :: number == begun[t] && what == SEAL_MARKER ->
        seal_seen[t] = seal_seen[t] | (1 << io);
        is_sealed[t] = is_sealed[t] || ((seal_seen[t] & ALL_IOS) == ALL_IOS)
    :: number == begun[t] && what == OPEN_MARKER ->
        open_seen[t] = open_seen[t] | (1 << io);
        if
        :: (open_seen[t] & ALL_IOS) == ALL_IOS -> begun[t] = 0; is_sealed[t] = false
        :: else -> skip
        fi
    fi
}

inline packet(t, what, number, io)
{
    if
    :: is_dead[t] -> skip
    :: !is_dead[t] && (what == SEAL_MARKER || what == OPEN_MARKER) ->
#ifndef NO_FENCE
        marker(t, what, number, io)
#else
        skip
#endif
    :: !is_dead[t] && what == SYN && tcb[t] == CLOSED && number == incarnation ->
#ifdef COOKIES
        is_open = true
#else
        create(t, HALF)
#endif
    :: !is_dead[t] && what == DATA && tcb[t] == HALF && number == incarnation -> tcb[t] = FULL
    :: !is_dead[t] && what == DATA && tcb[t] == CLOSED ->
#ifdef COOKIES
        if
        :: number == incarnation -> create(t, FULL)
        :: else -> skip
        fi
#else
        miss(t, number)
#endif
    :: else -> skip
    fi
}

inline obey(t, what, number)
{
    asked[t] = what;
    if
    :: what == BEGIN ->
        begun[t] = number;
        is_reported[t] = false;
        is_sealed[t] = false;
        seal_seen[t] = 0;
        open_seen[t] = 0
    :: what == ABORT -> begun[t] = 0; is_sealed[t] = false
#ifdef NO_FENCE
    :: what == SEAL -> is_sealed[t] = true
    :: what == OPEN -> begun[t] = 0; is_sealed[t] = false
#endif
    :: else -> skip
    fi
}

#ifdef NO_STATES
#define WALKED(t) (tcb[t] == FULL)
#else
#define WALKED(t) (tcb[t] != CLOSED)
#endif

proctype thread(byte t)
{
    mtype got;
    byte tag;

end:
    do
    :: is_dead[t] -> break
    :: atomic { to_thread[t]?got, tag -> obey(t, got, tag); tag = 0; got = SYN }
    :: atomic { !is_dead[t] && asked[t] == BEGIN && begun[t] != 0 ->
        is_reported[t] = is_reported[t] || (WALKED(t) && CONCERNED(t));
        asked[t] = ABORT;
        if
        :: begun[t] == attempt -> answers = answers | (1 << t)
        :: else -> skip
        fi
    }
    :: atomic { !is_dead[t] && asked[t] == SEAL && is_sealed[t] ->
        asked[t] = ABORT;
        if
        :: begun[t] == attempt -> answers = answers | (1 << t)
        :: else -> skip
        fi
    }
    :: atomic { !is_dead[t] && asked[t] == OPEN && begun[t] == 0 -> asked[t] = ABORT; answers = answers | (1 << t) }
    :: atomic { ring[t]?got, tag -> packet(t, got, tag, 0); tag = 0; got = SYN }
    :: atomic { ring[2 + t]?got, tag -> packet(t, got, tag, 1); tag = 0; got = SYN }
    od
}

proctype io(byte n)
{
    byte number, target;

end:
    do
    :: atomic { to_io[n]?DRAIN, number ->
        if
        :: number == attempt && is_updating -> is_draining[n] = true
        :: else -> skip
        fi;
        push(n, 0, SEAL_MARKER, number);
        push(n, 1, SEAL_MARKER, number);
        if
        :: number == attempt -> answers = answers | (1 << n)
        :: else -> skip
        fi;
        number = 0
    }
#ifdef NO_ONE_SWAP
    :: atomic { to_io[n]?PUBLISH, number -> owner[n] = next_owner; exception[n] = NONE };
        atomic {
#else
    :: atomic { to_io[n]?PUBLISH, number -> owner[n] = next_owner;
#endif
        exception[n] = next_exception;
        is_draining[n] = false;
        push(n, 0, OPEN_MARKER, number);
        push(n, 1, OPEN_MARKER, number);
        release(n);
        answers = answers | (1 << n);
        number = 0
    }
    :: atomic { to_io[n]?ABORT, number ->
        is_draining[n] = false;
#ifndef NO_HELD_ABORT
        release(n);
#endif
        assert(held[n] == 0); /* nobody would let it go */
        number = 0
    }
    od
}

#define ALIVE_DONE ((answers & 1 || is_dead[0]) && (answers & 2 || is_dead[1]))

inline tell_threads(what)
{
    answers = 0;
    if :: is_dead[0] -> skip :: else -> to_thread[0]!what, attempt fi;
    if :: is_dead[1] -> skip :: else -> to_thread[1]!what, attempt fi
}

inline tell_ios(what)
{
    answers = 0;
    to_io[0]!what, attempt;
    to_io[1]!what, attempt
}

inline give_up()
{
    atomic {
        is_updating = false;
        tell_threads(ABORT);
        to_io[0]!ABORT, attempt;
        to_io[1]!ABORT, attempt
    };
    goto again
}

#define MAY_ABORT (aborts > 0 || deaths != died)

active proctype controller()
{
    byte updates = UPDATES, aborts = ABORTS, deaths = 0;

    atomic { run thread(0); run thread(1); run io(0); run io(1) };
again:
    do
    :: updates == 0 -> break
    :: updates > 0 ->
        atomic {
            deaths = died;
            attempt++;
            is_updating = true;
            next_owner = (is_dead[0] -> 1 : (is_dead[1] -> 0 : 1 - owner[0]));
            tell_threads(BEGIN)
        };
        if
        :: atomic { ALIVE_DONE && deaths == died -> tell_ios(DRAIN) }
        :: atomic { MAY_ABORT -> aborts = (deaths == died -> aborts - 1 : aborts) }; give_up()
        fi;
        if
        :: atomic { (answers & ALL_IOS) == ALL_IOS && deaths == died -> tell_threads(SEAL) }
        :: atomic { MAY_ABORT -> aborts = (deaths == died -> aborts - 1 : aborts) }; give_up()
        fi;
        if
        :: atomic { ALIVE_DONE && deaths == died ->
            next_exception = NONE;
            if
            :: is_reported[0] && next_owner != 0 && !is_dead[0] -> next_exception = 0
            :: is_reported[1] && next_owner != 1 && !is_dead[1] -> next_exception = 1
            :: else -> skip
            fi;
            tell_ios(PUBLISH)
        }
        :: atomic { MAY_ABORT -> aborts = (deaths == died -> aborts - 1 : aborts) }; give_up()
        fi;
        atomic { (answers & ALL_IOS) == ALL_IOS -> tell_threads(OPEN) };
        atomic { ALIVE_DONE ->
            answers = 0;
            is_updating = false;
            updates--;
            /* A live connection's packets find it, whichever I/O thread they come to. */
            assert(tcb[0] == CLOSED || is_dead[0] || (ROUTE(0) == 0 && ROUTE(1) == 0));
            assert(tcb[1] == CLOSED || is_dead[1] || (ROUTE(0) == 1 && ROUTE(1) == 1))
        }
    od
}

#ifdef DEATH
active proctype death()
{
    if
    :: atomic { tcb[0] = CLOSED; is_dead[0] = true; is_open = false; incarnation++; died = 1 }
    :: atomic { tcb[1] = CLOSED; is_dead[1] = true; is_open = false; incarnation++; died = 1 }
    :: skip
    fi
}
#endif
