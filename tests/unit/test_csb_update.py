"""The walk and the three roles of an update, one question at a time."""

import random
from typing import Any

import pytest
from _csbup import ffi, lib
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.csb_twin import KEYS, Twin, build_map, build_view, key_of

SPLIT_OLD = {KEYS // 2 - 1: 0, KEYS - 1: 1}  # thread 0 has the lower half
SPLIT_NEW = {KEYS // 4 - 1: 0, KEYS - 1: 1}  # the second quarter moves to thread 1
STAYS, MOVES = 1 << 32 | 5, 2 << 32 | (KEYS // 2 - 5)


def plan_of(points: dict[int, int], now: Any = ffi.NULL) -> Any:
    plan = ffi.new("struct csb_plan *")
    lib.csb_plan_init(plan, build_map(points, 2), now)
    return plan


# --- the walk ---

POINTS = st.dictionaries(st.integers(0, KEYS - 1), st.integers(0, 5), min_size=1, max_size=30)
HASHES = st.lists(st.integers(0, 2**64 - 1) | st.just(0), max_size=300)


@given(POINTS, HASHES, st.integers(1, 100), st.integers(0, 5))
def test_the_walk_finds_what_moves_whatever_its_budget(
    points: dict[int, int], column: list[int], budget: int, tid: int
) -> None:
    plan, rows = plan_of(points), len(column)
    array, cursor = ffi.new("uint64_t[]", column or 1), ffi.new("uint32_t *")
    out = ffi.new("uint64_t[]", rows + 1)
    found, calls = 0, 0
    while cursor[0] < rows:
        before = cursor[0]
        found += lib.csb_walk(plan, ffi.NULL, tid, array, rows, cursor, budget, out + found, rows - found)
        assert cursor[0] - before <= budget
        calls += 1
    assert calls == -(-rows // budget)
    twin = Twin(points, {})
    assert list(out)[:found] == [h for h in column if h and twin.by_circle(key_of(h)) != tid]


def test_a_conflicted_keys_flows_are_walked_wherever_they_are() -> None:
    flows = {1 << 32 | 5: 1, 2 << 32 | 5: 2}
    now = build_view(build_map({KEYS - 1: 0}), flows)
    plan = plan_of({KEYS - 1: 0}, now)
    assert lib.native_plan_concerns(plan, now, 0, 3 << 32 | 5)
    assert not lib.native_plan_concerns(plan, now, 0, 3 << 32 | 6)
    assert not lib.native_plan_concerns(plan, ffi.NULL, 0, 3 << 32 | 5)


@pytest.mark.parametrize("room", [0, 1, 63, 64, 65, 199, 200])
def test_a_walk_stops_before_its_room_is_over(room: int) -> None:
    column = ffi.new("uint64_t[]", [MOVES + (n << 40) for n in range(200)])
    out, cursor = ffi.new("uint64_t[]", 201), ffi.new("uint32_t *")
    out[room] = 0xEE
    plan = plan_of(SPLIT_NEW)
    assert lib.csb_walk(plan, ffi.NULL, 0, column, 200, cursor, 1000, out, room) == room == cursor[0]
    assert out[room] == 0xEE


@pytest.mark.parametrize("seed", range(4))
def test_the_check_finds_what_a_draft_would_misdirect(seed: int) -> None:
    draw = random.Random(seed)
    keys = [draw.randrange(KEYS) for _ in range(50)]
    points = {draw.randrange(KEYS): draw.randrange(4) for _ in range(9)}
    twin = Twin(
        points, {draw.choice(keys) | draw.randrange(1, 2**32) << 32: draw.randrange(4) for _ in range(70)}
    )
    draft = build_view(build_map(points), twin.flows)
    column = [draw.choice(keys) | draw.randrange(1, 2**32) << 32 for _ in range(300)] + [0, 0]
    out, cursor = ffi.new("uint64_t[]", 302), ffi.new("uint32_t *")
    found = lib.csb_walk_check(draft, 2, ffi.new("uint64_t[]", column), 302, cursor, 302, out, 302)
    assert list(out)[:found] == [h for h in column if h and twin.lookup(h) != 2]


# --- the controller ---


def started(*, members: int = 0b111, ios: int = 0b11, checked: bool = False) -> Any:
    u = ffi.new("struct csb_update *")
    assert lib.csb_update_start(u, [members, 0, 0, 0], ios, checked, 1000, 500)
    return u


def answer(u: Any, *, members: int = 3, ios: int = 2) -> None:
    if u.phase in (lib.CSB_DRAIN, lib.CSB_PUBLISH):
        for io in range(ios):
            assert lib.csb_update_io_done(u, u.attempt, u.phase, io)
    else:
        for tid in range(members):
            assert lib.csb_update_member_done(u, u.attempt, u.phase, tid)


@pytest.mark.parametrize("checked", [False, True])
def test_an_update_takes_its_phases_in_order(checked: bool) -> None:
    u, seen = started(checked=checked), []
    while u.phase != lib.CSB_IDLE:
        seen.append(u.phase)
        assert not lib.csb_update_advance(u)
        answer(u)
        assert lib.csb_update_advance(u)
    check = [lib.CSB_CHECK] if checked else []
    assert seen == [
        lib.CSB_COLLECT,
        *check,
        lib.CSB_DRAIN,
        lib.CSB_SEAL,
        lib.CSB_PUBLISH,
        lib.CSB_OPEN,
    ]
    assert not lib.csb_update_advance(u)


def test_one_update_at_a_time() -> None:
    u = started()
    assert not lib.csb_update_start(u, [1, 0, 0, 0], 1, False, 0, 0)
    assert u.attempt == 1
    assert u.members[0] == 0b111


def test_answers_count_once_and_for_their_attempt_and_phase_alone() -> None:
    u = started()
    assert lib.csb_update_member_done(u, 1, lib.CSB_COLLECT, 0)
    assert not lib.csb_update_member_done(u, 1, lib.CSB_COLLECT, 0)
    assert not lib.csb_update_member_done(u, 2, lib.CSB_COLLECT, 1)
    assert not lib.csb_update_member_done(u, 1, lib.CSB_SEAL, 1)
    assert not lib.csb_update_member_done(u, 1, lib.CSB_COLLECT, 3)
    assert not lib.csb_update_member_done(u, 1, lib.CSB_COLLECT, 65535)
    assert not lib.csb_update_io_done(u, 1, lib.CSB_COLLECT, 0)
    assert not lib.csb_update_io_done(u, 1, lib.CSB_COLLECT, 4000)


@pytest.mark.parametrize("steps", range(6))
def test_abort_until_it_is_published(steps: int) -> None:
    u = started()
    for _ in range(steps):
        answer(u)
        assert lib.csb_update_advance(u)
    aborted = steps < 3
    assert not lib.csb_update_tick(u, 1499)
    assert lib.csb_update_tick(u, 1500) is aborted
    assert (u.phase == lib.CSB_IDLE) is (aborted or steps == 5)
    if aborted:
        assert lib.csb_update_start(u, [1, 0, 0, 0], 1, False, 0, 0)
        assert u.attempt == 2


def test_a_death_aborts_before_publication_and_is_not_waited_for_after() -> None:
    u = started()
    assert not lib.csb_update_lost(u, 9)  # no member
    assert lib.csb_update_lost(u, 1)
    assert u.phase == lib.CSB_IDLE
    u = started()
    while u.phase != lib.CSB_OPEN:
        answer(u)
        lib.csb_update_advance(u)
    assert not lib.csb_update_lost(u, 1)
    assert lib.csb_update_member_done(u, 1, lib.CSB_OPEN, 0)
    assert lib.csb_update_member_done(u, 1, lib.CSB_OPEN, 2)
    assert lib.csb_update_advance(u)
    assert u.phase == lib.CSB_IDLE


# --- a thread ---


class Member:
    """Thread 0 of two, in an update that moves the second quarter away from it."""

    def __init__(self, room: int = 10) -> None:
        self.view = build_view(build_map(SPLIT_OLD), {})
        self.plan = plan_of(SPLIT_NEW, self.view)
        self.list = ffi.new("uint64_t[]", room)
        self.m = ffi.new("struct csb_member *", {"tid": 0, "view": self.view})
        lib.csb_member_begin(self.m, 4, self.plan, 0b11, self.list, room)

    def listed(self) -> list[int]:
        return list(self.list)[: self.m.list_count]

    def seal(self) -> None:
        assert not lib.csb_member_marker(self.m, 4, lib.CSB_MARKER_SEAL, 0)
        assert lib.csb_member_marker(self.m, 4, lib.CSB_MARKER_SEAL, 1)


def test_a_member_walks_and_lists_what_comes_late() -> None:
    member = Member()
    column = ffi.new("uint64_t[]", [STAYS, 0, MOVES])
    assert not lib.csb_member_walk(member.m, column, 3, 2)
    assert lib.csb_member_walk(member.m, column, 3, 2)
    late = MOVES + (1 << 40)
    assert lib.csb_member_create(member.m, late)
    assert lib.csb_member_create(member.m, STAYS + (1 << 40))
    assert member.listed() == [MOVES, late]


def test_a_sealed_member_creates_nothing_concerned_and_resets_nothing() -> None:
    member = Member()
    assert lib.csb_member_answers_miss(member.m, MOVES)
    member.seal()
    assert not lib.csb_member_create(member.m, MOVES)
    assert not lib.csb_member_connect(member.m, MOVES)
    assert not lib.csb_member_answers_miss(member.m, MOVES)
    assert lib.csb_member_create(member.m, STAYS)
    assert lib.csb_member_connect(member.m, STAYS)
    assert lib.csb_member_answers_miss(member.m, STAYS)
    assert member.listed() == []


def test_markers_of_other_attempts_and_io_threads_seal_nothing() -> None:
    member = Member()
    for attempt, io in ((3, 0), (3, 1), (0, 0), (4, 2), (4, 64), (4, 0), (4, 0)):
        assert not lib.csb_member_marker(member.m, attempt, lib.CSB_MARKER_SEAL, io)
    assert not member.m.is_sealed


def test_the_last_open_marker_opens_with_the_next_view() -> None:
    member = Member()
    member.seal()
    following = build_view(build_map(SPLIT_NEW), {})
    assert not lib.csb_member_marker(member.m, 4, lib.CSB_MARKER_OPEN, 1)
    assert lib.csb_member_marker(member.m, 4, lib.CSB_MARKER_OPEN, 0)
    lib.csb_member_open(member.m, following)
    assert lib.csb_member_answers_miss(member.m, MOVES)
    assert not lib.csb_member_connect(member.m, MOVES)  # the published map gives it to the other
    assert lib.csb_member_connect(member.m, STAYS)


def test_an_abort_undoes_the_seal() -> None:
    member = Member()
    member.seal()
    lib.csb_member_abort(member.m)
    assert lib.csb_member_connect(member.m, MOVES)
    assert lib.csb_member_answers_miss(member.m, MOVES)
    assert not lib.csb_member_marker(member.m, 4, lib.CSB_MARKER_OPEN, 0)


def test_a_list_that_is_too_short_is_said() -> None:
    member = Member(room=1)
    column = ffi.new("uint64_t[]", [MOVES, MOVES + (1 << 40)])
    assert lib.csb_member_walk(member.m, column, 2, 100)
    assert member.m.is_full
    member = Member(room=0)
    assert lib.csb_member_create(member.m, MOVES)
    assert member.m.is_full


def test_after_a_restart_no_miss_is_reset_until_a_view_is_opened() -> None:
    m = ffi.new("struct csb_member *", {"tid": 0, "is_rebuilding": True})
    assert not lib.csb_member_answers_miss(m, STAYS)
    assert not lib.csb_member_connect(m, STAYS)
    view = build_view(build_map(SPLIT_OLD), {})
    lib.csb_member_abort(m)
    assert not lib.csb_member_answers_miss(m, STAYS)
    lib.csb_member_open(m, view)
    assert lib.csb_member_answers_miss(m, STAYS)


def test_a_checked_update_lists_and_seals_what_the_draft_misdirects() -> None:
    """A newcomer with the key of an exception that the draft has just learnt."""
    member = Member()
    elsewhere = build_view(build_map(SPLIT_NEW), {STAYS + (7 << 40): 1})
    lib.csb_member_check(member.m, elsewhere)
    assert lib.csb_member_create(member.m, STAYS)
    column = ffi.new("uint64_t[]", [STAYS + (1 << 40), STAYS + (1 << 10)])
    assert lib.csb_member_walk(member.m, column, 2, 5)
    assert member.listed() == [STAYS, STAYS + (1 << 40)]
    member.seal()
    assert not lib.csb_member_create(member.m, STAYS)


# --- an I/O thread ---


def test_an_io_thread_drops_syns_of_moved_flows_while_it_drains() -> None:
    now, following = build_view(build_map(SPLIT_OLD), {}), build_view(build_map(SPLIT_NEW), {})
    io, plan = ffi.new("struct csb_io *", {"view": now}), plan_of(SPLIT_NEW, now)
    assert lib.native_io_route(io, MOVES, True) == 0
    lib.csb_io_drain(io, plan)
    assert lib.native_io_route(io, MOVES, True) == lib.CSB_DROP_SYN
    assert lib.native_io_route(io, MOVES, False) == 0
    assert lib.native_io_route(io, STAYS, True) == 0
    lib.csb_io_abort(io)
    assert lib.native_io_route(io, MOVES, True) == 0
    lib.csb_io_drain(io, plan)
    lib.csb_io_publish(io, following)
    assert lib.native_io_route(io, MOVES, True) == 1


# --- a death ---


@pytest.mark.parametrize("seed", range(30))
def test_a_death_moves_what_the_dead_had_and_nothing_else(seed: int) -> None:
    draw = random.Random(seed)
    tids, dead = range(5), {draw.randrange(5)}
    points = {draw.randrange(KEYS): draw.choice(tids) for _ in range(draw.choice([1, 5, 40]))}
    points |= {KEYS - 1: (min(dead) + 1) % 5}
    keys = [draw.randrange(KEYS) for _ in range(40)]
    flows = {
        draw.choice(keys) | draw.randrange(1, 2**32) << 32: draw.choice(tids)
        for _ in range(draw.choice([0, 60, 500]))
    }
    by_now = Twin(points, flows)
    now = build_view(build_map(points), flows)
    others = {p: t if t not in dead else (t + 1) % 5 for p, t in points.items()}
    room = now.bytes
    view = ffi.gc(lib.native_view_new(room), lib.native_view_free)
    bits = ffi.new("uint64_t[4]", [sum(1 << t for t in dead), 0, 0, 0])
    assert lib.csb_view_inherit(view, 64, build_map(others, 2), now, bits) == room, "not enough room"
    assert lib.csb_view_inherit(view, room, build_map(others, 2), now, bits) == room
    for hash_ in [*flows, *(draw.choice(keys) | draw.randrange(2**32) << 32 for _ in range(200))]:
        before, after = by_now.lookup(hash_), lib.native_view_lookup(view, hash_)
        assert after not in dead
        if before not in dead:
            assert after == before
