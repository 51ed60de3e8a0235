"""The ledger of slots against a set of ints: whatever an app gives back, free + lent is all there is."""

import pytest
from _shm import ffi, lib
from hypothesis import given
from hypothesis import strategies as st

FIRST, COUNT = 64, 16
NONE, SLOT, OWNER, GENERATION = (
    lib.test_drop(name) for name in (b"none", b"return_slot", b"return_owner", b"return_generation")
)

STEP = st.one_of(
    st.just(("lend",)),
    st.tuples(st.just("back"), st.integers(0, COUNT - 1)),
    st.tuples(st.just("forge"), st.integers(0, 2**32 - 1), st.integers(0, 65535)),
)


@given(steps=st.lists(STEP, max_size=200))
def test_twin_of_a_set(steps: list[tuple]) -> None:
    ledger = ffi.gc(lib.test_ledger_new(FIRST, COUNT), lib.test_ledger_free)
    generation = ffi.new("uint16_t *")
    lent: dict[int, int] = {}
    for step in steps:
        if step[0] == "lend":
            slot = lib.test_ledger_lend(ledger, generation)
            assert (slot == 2**32 - 1) == (len(lent) == COUNT)
            if len(lent) < COUNT:
                assert FIRST <= slot < FIRST + COUNT
                assert slot not in lent
                lent[slot] = generation[0]
        elif step[0] == "back":
            if lent:
                slot = sorted(lent)[step[1] % len(lent)]
                wrong = (lent[slot] + 1) % 65536
                assert lib.ledger_take_back(ledger, slot, wrong) == GENERATION
                assert lib.ledger_take_back(ledger, slot, lent[slot]) == NONE
                assert lib.ledger_take_back(ledger, slot, lent.pop(slot)) == OWNER
        else:
            _, slot, forged = step
            got = lib.ledger_take_back(ledger, slot, forged)
            if not FIRST <= slot < FIRST + COUNT:
                assert got == SLOT
            elif slot not in lent:
                assert got == OWNER
            elif lent[slot] != forged:
                assert got == GENERATION
            else:
                assert got == NONE
                del lent[slot]
        assert lib.ledger_lent(ledger) == len(lent)
        assert lib.test_ledger_free_count(ledger) == COUNT - len(lent)
    lib.ledger_take_all(ledger)
    assert lib.ledger_lent(ledger) == 0
    taken = {lib.test_ledger_lend(ledger, generation) for _ in range(COUNT)}
    assert taken == set(range(FIRST, FIRST + COUNT))


def test_last_in_first_out() -> None:
    ledger = ffi.gc(lib.test_ledger_new(FIRST, COUNT), lib.test_ledger_free)
    generation = ffi.new("uint16_t *")
    a, b = (lib.test_ledger_lend(ledger, generation) for _ in range(2))
    assert lib.ledger_take_back(ledger, a, 1) == NONE
    assert lib.test_ledger_lend(ledger, generation) == a
    assert generation[0] == 2
    assert b != a


def test_newcomers_wait_when_half_of_the_slots_do_and_then_from_an_eighth_on_until_it_is_over() -> None:
    overload = ffi.new("struct overload *")

    def sheds(waiting: int, now: int) -> bool:
        return bool(lib.test_overload_sheds(overload, waiting, 8192, now, 100))

    assert not sheds(4095, 1000)  # a burst
    assert sheds(4096, 1001)
    assert not sheds(1023, 1050)
    assert sheds(1024, 1100)
    assert sheds(1024, 1199)  # it lasts as long as somebody is turned away
    assert not sheds(4095, 1299)  # nobody was, for a tenth
    assert sheds(4096, 1300)
    assert sheds(2000, 1399)


def test_an_overload_neither_starves_newcomers_nor_lets_the_queue_stay_long() -> None:
    """Arrivals of twice what is served, a quarter of them SYNs: about as many SYNs are let in as leave
    room for what follows them, and the queue is short nearly all of the time."""
    overload = ffi.new("struct overload *")
    waiting, taken, shed, long = 0, 0, 0, 0
    for now in range(200_000):  # ten times as long as an overload is remembered
        if lib.test_overload_sheds(overload, waiting, 8192, now, 20_000):
            shed += 1
        else:
            taken += 1
            waiting += 5
        waiting = max(0, waiting - 3)
        long += waiting > 1100
    assert 0.55 < taken / (taken + shed) < 0.65  # 3 of 5
    assert long / (taken + shed) < 0.03


# --- how long an I/O thread goes on in mode yield ---


@pytest.mark.parametrize("slots", [256, 1024, 8192])
def test_who_shares_a_processor_stops_reading_before_packets_find_no_slot(slots: int) -> None:
    """A port that always has a full burst, and a thread that gives nothing back until its turn."""
    free, turns = slots, 0
    while not lib.test_turns_are_enough(turns, True, lib.test_turns_is_full(free, slots)):
        free -= 64
        turns += 1
        assert free >= 0, "what was read is lost"
    assert turns == min(64, slots * 3 // 4 // 64 + 1), "but it takes from the port what it can"


@pytest.mark.parametrize("full", [False, True])
def test_or_as_soon_as_a_switch_is_paid_for_when_the_port_has_no_more(full: bool) -> None:
    assert [lib.test_turns_are_enough(turns, False, full) for turns in (3, 4)] == [False, True]
    assert lib.test_turns_are_enough(64, True, False), "nor does a port that never ends keep the processor"
    assert not lib.test_turns_are_enough(63, True, False)
