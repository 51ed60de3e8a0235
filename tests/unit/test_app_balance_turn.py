"""A turn's part of an update is bounded: by the clock, and by what its steps may do when the clock stands still."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from _balance import ffi, lib

HALF = 2**31
COLLECT, SEAL, OPEN = 1, 4, 6
SEAL_MARKER, OPEN_MARKER = 0, 1


def flows(count: int, *, seed: int = 1) -> list[int]:
    """Hashes, about half of them with keys that an update from HALF on moves."""
    draw = random.Random(seed)
    return [draw.randrange(1, 2**64) for _ in range(count)]


def moves(hash_: int) -> bool:
    return (hash_ & 0xFFFFFFFF) > HALF


Make = Callable[..., Any]


@pytest.fixture
def make() -> Iterator[Make]:
    beds: list[Any] = []

    def bed(column: list[int], *, half_open: int = 0, time_wait: int = 0, tick_us: int = 0) -> Any:
        rows = len(column) - half_open - time_wait
        beds.append(lib.bed_new(column, half_open, rows, time_wait))
        beds[0].tick_us = tick_us
        return beds[0]

    yield bed
    if beds:
        lib.bed_free()


def listed(bed: Any) -> list[int]:
    return list(ffi.unpack(bed.listed, bed.listed_count)) if bed.listed_count else []


@pytest.mark.parametrize("tick_us", [0, 1, 7, 1000])
def test_a_turn_walks_no_more_than_its_steps_and_ends_when_its_time_is_over(make: Make, tick_us: int) -> None:
    column = flows(40_000)
    bed = make(column, half_open=3000, time_wait=2000, tick_us=tick_us)
    lib.say_begin(1, HALF)
    most, turns = 0, 0
    while bed.answers == 0:
        before = lib.walked()
        lib.balance_turn(ffi.addressof(bed.b))
        most = max(most, lib.walked() - before)
        turns += 1
        assert turns < 1000
    in_time = lib.TURN_STEPS if tick_us == 0 else -(-lib.TURN_US // tick_us)
    assert 0 < most <= min(in_time, lib.TURN_STEPS) * lib.STEP_ROWS
    assert listed(bed) == [h for h in column if moves(h)]
    assert bed.last_phase == COLLECT


def test_the_longest_turn_is_kept_with_its_message_by_either_clock(make: Make) -> None:
    """By the clock others are in it that had the processor; the thread's own time is what it worked."""
    bed = make(flows(10_000), tick_us=2)
    lib.say_begin(1, HALF)
    turns(bed)
    held = bed.b.held
    assert held.wall_us > lib.TURN_US
    assert held.own_ns == 2000, "one message and one turn"
    longest = held.wall_us
    lib.say_abort(1)
    turns(bed)
    assert (held.wall_us, held.own_ns) == (longest, 2000)
    bed.tick_us = 500
    lib.say_begin(2, HALF)
    lib.balance_turn(ffi.addressof(bed.b))
    assert held.wall_us >= 1000
    assert held.own_ns == 2000


def test_a_step_is_done_however_late_the_thread_is(make: Make) -> None:
    """A thread that is preempted in each turn still comes to the end."""
    bed = make(flows(1000), tick_us=10**6)
    lib.say_begin(1, HALF)
    for _ in range(40):
        lib.balance_turn(ffi.addressof(bed.b))
    assert bed.answers == 1


@pytest.mark.parametrize("seed", range(3))
def test_with_a_socket_that_is_often_full_all_is_listed_once(make: Make, seed: int) -> None:
    draw, column = random.Random(seed), flows(100_000, seed=seed)
    bed = make(column, half_open=40_000, time_wait=10_000, tick_us=draw.choice([0, 3, 30]))
    bed.room = 0
    lib.say_begin(1, HALF)
    late: list[int] = []
    for _ in range(60):  # the walk comes to its limit
        lib.balance_turn(ffi.addressof(bed.b))
    while bed.answers == 0:
        bed.room += draw.choice([0, 0, 1, 3])
        if len(late) < 20_000:
            late += flows(draw.choice([0, 0, 64]), seed=len(late) + 10**6)
            for hash_ in late[-64:]:
                lib.balance_may_create(ffi.addressof(bed.b), hash_)
        lib.balance_turn(ffi.addressof(bed.b))
    assert bed.last_phase == COLLECT
    found = Counter(listed(bed))
    assert set(found) == {h for h in [*column, *late] if moves(h)}
    assert all(found[h] == 1 for h in column if moves(h))


def test_a_walk_waits_while_its_list_is_full(make: Make) -> None:
    bed = make([h | 1 << 31 for h in flows(100_000)])
    bed.room = 0
    lib.say_begin(1, HALF)
    for _ in range(100):
        assert lib.balance_turn(ffi.addressof(bed.b))
    assert lib.walked() == lib.WALK_ROOM
    bed.room = 1
    lib.balance_turn(ffi.addressof(bed.b))
    assert bed.messages == 1
    assert bed.answers == 0


def turns(bed: Any) -> None:
    """Until nothing is left to do."""
    while lib.balance_turn(ffi.addressof(bed.b)):
        pass


def sealed(bed: Any, count: int) -> list[int]:
    """So many flows are created late, and then the marker comes."""
    late = [h | 1 << 31 for h in flows(count, seed=2)]
    for hash_ in late:
        assert lib.balance_may_create(ffi.addressof(bed.b), hash_)
    lib.balance_marker(ffi.addressof(bed.b), 1, SEAL_MARKER, 0, 0)
    return late


@pytest.mark.parametrize("count", [0, 1, lib.PROMPT_HASHES, lib.PROMPT_HASHES + 1, 10_000])
def test_late_ones_are_sent_before_the_seal_is_answered(make: Make, count: int) -> None:
    bed = make([])
    lib.say_begin(1, HALF)
    turns(bed)
    late = sealed(bed, count)
    for room in range(10):
        assert bed.answers == 1
        bed.room = 1
        lib.balance_turn(ffi.addressof(bed.b))
        if bed.answers == 2:
            break
        assert bed.listed_count == min(len(late), (room + 1) * lib.ATTACH_CSB_HASHES_MAX)
    assert (bed.answers, bed.last_phase) == (2, SEAL)
    assert listed(bed) == late


@pytest.mark.parametrize("late", [0, 5, 5000])
def test_no_answer_overtakes_its_lists(make: Make, late: int) -> None:
    """A socket may have no room for a list, and have it for an answer."""
    bed = make([h | 1 << 31 for h in flows(10)])
    bed.only_small = late == 0
    lib.say_begin(1, HALF)
    for _ in range(20):
        lib.balance_turn(ffi.addressof(bed.b))
    if late > 0:
        bed.only_small = True
        sealed(bed, late)
        for _ in range(20):
            lib.balance_turn(ffi.addressof(bed.b))
    assert bed.answers == (late > 0)
    bed.only_small = False
    lib.balance_turn(ffi.addressof(bed.b))
    assert (bed.listed_count, bed.answers) == (10 + late, 1 + (late > 0))


@pytest.mark.parametrize("count", [10, 100_000])
def test_a_turn_that_walks_sends_nothing_and_wakes_the_other_thread_once(make: Make, count: int) -> None:
    column = [h | 1 << 31 for h in flows(count)]
    bed = make(column)
    lib.map_later()
    lib.say_begin(1, HALF)
    assert lib.wakes() == 0, "the turn that follows does it"
    while bed.answers == 0:
        before = lib.wakes(), bed.messages
        for _ in range(300):
            lib.balance_turn(ffi.addressof(bed.b))
        assert lib.wakes() == before[0] + 1
        assert bed.messages == before[1]
        lib.map_all()
    assert listed(bed) == column


def test_a_seal_is_answered_at_once_however_slow_the_other_thread_is(make: Make) -> None:
    bed = make([])
    lib.say_begin(1, HALF)
    turns(bed)
    lib.map_later()
    late = sealed(bed, 3)
    lib.balance_turn(ffi.addressof(bed.b))
    assert (listed(bed), bed.last_phase, lib.wakes()) == (late, SEAL, 0)


def test_a_seal_does_not_overtake_what_is_being_sent(make: Make) -> None:
    bed = make([])
    lib.say_begin(1, HALF)
    turns(bed)
    bed.only_small = True
    late = [h | 1 << 31 for h in flows(lib.WALK_ROOM, seed=3)]
    for hash_ in late:
        assert lib.balance_may_create(ffi.addressof(bed.b), hash_)
    lib.balance_turn(ffi.addressof(bed.b))
    late += sealed(bed, 3)
    for _ in range(5):
        lib.balance_turn(ffi.addressof(bed.b))
    assert bed.answers == 1
    bed.only_small = False
    turns(bed)
    assert (listed(bed), bed.last_phase) == (late, SEAL)


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_list_stays_until_it_is_sent(make: Make, is_lost: bool) -> None:
    """Its update is over meanwhile, and nobody asks for it."""
    column = [h | 1 << 31 for h in flows(10_000)]
    bed = make(column)
    bed.room = 1
    lib.say_begin(1, HALF)
    for _ in range(10):
        lib.balance_turn(ffi.addressof(bed.b))
    if is_lost:
        lib.balance_lost(ffi.addressof(bed.b))
    else:
        lib.say_abort(1)
    lib.say_begin(2, 2**32 - 2)
    turns(bed)
    bed.room = 10
    for _ in range(10):
        lib.balance_turn(ffi.addressof(bed.b))
    assert listed(bed) == column
    assert (bed.answers, bed.last_attempt) == (2, 2)


def test_a_thread_beside_the_loop_sends_when_there_is_room(make: Make) -> None:
    column = [h | 1 << 31 for h in flows(20_000)]
    bed = make(column)
    lib.map_beside()
    bed.room = 0
    lib.say_begin(1, HALF)
    while bed.answers == 0:
        lib.balance_turn(ffi.addressof(bed.b))
        bed.room += bed.room == 0
    assert listed(bed) == column


def test_a_late_marker_of_an_aborted_attempt_seals_nothing(make: Make) -> None:
    bed = make([])
    for attempt in (1, 2):
        lib.say_begin(attempt, HALF)
    while lib.balance_turn(ffi.addressof(bed.b)):
        pass
    before = bed.answers
    moved = 1 << 40 | HALF + 5
    for attempt, sealed in ((1, False), (2 + 2**31, False), (2, True)):
        lib.balance_marker(ffi.addressof(bed.b), attempt, SEAL_MARKER, 0, 0)
        lib.balance_turn(ffi.addressof(bed.b))
        assert (bed.answers > before) is sealed
        assert lib.balance_may_create(ffi.addressof(bed.b), moved) is not sealed


def test_values_are_mapped_beside_the_loop_and_what_is_over_is_dropped(make: Make) -> None:
    column = flows(1000)
    bed = make(column)
    lib.map_later()
    for attempt in (1, 2):
        lib.say_begin(attempt, HALF)
    for _ in range(5):
        lib.balance_turn(ffi.addressof(bed.b))
    assert (lib.walked(), bed.answers) == (0, 0)
    lib.map_all()
    turns(bed)
    lib.map_all()
    assert (bed.answers, bed.last_attempt, bed.last_phase) == (1, 2, COLLECT)
    assert listed(bed) == [h for h in column if moves(h)]


def test_a_plan_that_is_mapped_after_its_attempt_has_ended_is_nothing(make: Make) -> None:
    """Neither does it begin what was aborted, nor are its flows listed for the attempt that followed."""
    column = flows(1000)
    bed = make(column)
    lib.map_later()
    lib.say_begin(1, HALF)
    lib.say_abort(1)
    lib.map_all()
    turns(bed)
    assert (lib.walked(), bed.answers) == (0, 0)
    lib.say_begin(2, 2**32 - 2)  # nothing moves
    lib.say_begin(3, HALF)
    lib.map_one()
    turns(bed)
    assert (bed.answers, bed.listed_count) == (0, 0)
    lib.map_all()
    turns(bed)
    lib.map_all()
    assert (bed.answers, bed.last_attempt) == (1, 3)
    assert listed(bed) == [h for h in column if moves(h)]


def published(make: Make) -> Any:
    """A thread whose second half is moved by update 1: sealed, its view heard of, the open marker still to come."""
    bed = make(flows(1000))
    lib.say_view(lib.ATTACH_CSB_VIEW, 0, 2**32 - 2, [], 0, 0)
    lib.say_begin(1, HALF)
    turns(bed)
    lib.balance_marker(ffi.addressof(bed.b), 1, SEAL_MARKER, 0, 0)
    turns(bed)
    assert bed.last_phase == SEAL
    lib.say_view(lib.ATTACH_CSB_VIEW, 1, HALF, [], 0, 0)
    return bed


MOVED = 1 << 40 | HALF + 5


def test_an_update_that_begins_before_the_last_one_is_opened_waits(make: Make) -> None:
    """A thread hung while it should have opened, and janusd went on: the rings still have packets of the former map."""
    bed = published(make)
    lib.say_begin(2, 2**32 - 2)
    turns(bed)
    assert not lib.balance_may_create(ffi.addressof(bed.b), MOVED), "another thread may have it by now"
    assert lib.balance_miss(ffi.addressof(bed.b), MOVED) == lib.TCP_MISS_SILENT
    assert (bed.last_phase, bed.answers) == (SEAL, 2)
    lib.balance_marker(ffi.addressof(bed.b), 1, OPEN_MARKER, 0, 0)
    assert lib.balance_miss(ffi.addressof(bed.b), MOVED) == lib.TCP_MISS_FOREIGN, "view 1 is in force"
    turns(bed)
    assert (bed.last_phase, bed.last_attempt) == (COLLECT, 2)
    lib.balance_marker(ffi.addressof(bed.b), 2, SEAL_MARKER, 0, 0)
    turns(bed)
    assert (bed.last_phase, bed.last_attempt) == (SEAL, 2)


def test_what_begins_while_the_view_is_still_being_mapped_waits(make: Make) -> None:
    bed = make([])
    lib.say_view(lib.ATTACH_CSB_VIEW, 0, 2**32 - 2, [], 0, 0)
    lib.say_begin(1, HALF)
    turns(bed)
    lib.map_later()
    lib.say_view(lib.ATTACH_CSB_VIEW, 1, HALF, [], 0, 0)
    for marker in (SEAL_MARKER, OPEN_MARKER):
        lib.balance_marker(ffi.addressof(bed.b), 1, marker, 0, 0)
    lib.say_begin(2, HALF)
    lib.map_all()
    turns(bed)
    assert not lib.balance_may_connect(ffi.addressof(bed.b), MOVED), "view 1 is in force"
    lib.map_all()
    turns(bed)
    lib.map_all()
    assert (bed.last_phase, bed.last_attempt) == (COLLECT, 2)


def test_what_waits_may_be_aborted_or_followed(make: Make) -> None:
    bed = published(make)
    for attempt in (2, 3):
        lib.say_begin(attempt, HALF)
    lib.say_abort(2)
    lib.say_abort(3)
    lib.say_begin(4, HALF)
    lib.balance_marker(ffi.addressof(bed.b), 1, OPEN_MARKER, 0, 0)
    turns(bed)
    assert (bed.last_phase, bed.last_attempt) == (COLLECT, 4)


def test_a_view_without_an_update_waits_too_and_is_the_one_that_is_opened(make: Make) -> None:
    """A thread died meanwhile, and its slots went to the others at once."""
    bed = published(make)
    lib.say_view(lib.ATTACH_CSB_VIEW, 0, HALF + 2, [], 0, 0)
    turns(bed)
    assert not lib.balance_may_create(ffi.addressof(bed.b), MOVED)
    lib.balance_marker(ffi.addressof(bed.b), 1, OPEN_MARKER, 0, 0)
    assert lib.balance_may_connect(ffi.addressof(bed.b), 1 << 40 | HALF + 1)
    assert not lib.balance_may_connect(ffi.addressof(bed.b), MOVED)


def test_what_was_asked_for_before_janusd_was_lost_is_nothing(make: Make) -> None:
    bed = make(flows(10))
    lib.map_later()
    lib.say_begin(1, HALF)
    lib.say_view(lib.ATTACH_CSB_VIEW, 0, HALF, [], 0, 1)
    lib.balance_lost(ffi.addressof(bed.b))
    lib.map_all()
    turns(bed)
    assert bed.answers == 0
    assert not lib.balance_may_connect(ffi.addressof(bed.b), 1), "no view is known"


def test_behind_the_last_marker_flows_begin_while_the_view_is_mapped(make: Make) -> None:
    """Nothing is reset or called misdirected meanwhile, and an active open waits for the view."""
    bed = make([])
    kept, moved = 1 << 40 | HALF - 5, 1 << 40 | HALF + 5
    lib.say_view(lib.ATTACH_CSB_VIEW, 0, 2**32 - 2, [], 0, 0)
    lib.say_begin(1, HALF)
    turns(bed)
    lib.balance_marker(ffi.addressof(bed.b), 1, SEAL_MARKER, 0, 0)
    turns(bed)
    assert not lib.balance_may_create(ffi.addressof(bed.b), moved)
    lib.map_later()
    lib.balance_marker(ffi.addressof(bed.b), 1, OPEN_MARKER, 0, 0)
    assert not lib.balance_may_create(ffi.addressof(bed.b), moved), "its view has not been heard of"
    lib.say_view(lib.ATTACH_CSB_VIEW, 1, HALF, [], 0, 0)
    assert lib.balance_may_create(ffi.addressof(bed.b), moved)
    assert lib.balance_miss(ffi.addressof(bed.b), kept) == lib.TCP_MISS_SILENT
    lib.balance_turn(ffi.addressof(bed.b))
    assert bed.last_phase == SEAL, "the update is over when the view is mapped"
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(lib.balance_may_connect, ffi.addressof(bed.b), h) for h in (moved,)]
        assert not asked[0].done()
        lib.map_all()
        assert not asked[0].result(10), "by the new view it is another thread's"
    turns(bed)
    assert bed.last_phase == OPEN
    assert lib.balance_may_connect(ffi.addressof(bed.b), kept)
    assert lib.balance_miss(ffi.addressof(bed.b), kept) == lib.TCP_MISS_RESET
    assert lib.balance_miss(ffi.addressof(bed.b), moved) == lib.TCP_MISS_FOREIGN


@pytest.mark.parametrize("type_", ["ATTACH_CSB_CHECK", "ATTACH_CSB_VIEW"])
def test_a_value_that_is_none_ends_the_attempt(make: Make, type_: str) -> None:
    bed = make([])
    lib.say_begin(1, HALF)
    turns(bed)
    lib.say_rubbish(getattr(lib, type_), 1)
    turns(bed)
    assert (bed.answers, bed.last_attempt, bed.last_phase) == (2, 1, 0)
