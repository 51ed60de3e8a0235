"""H_diff's lines and the view built of them, against dicts."""

import random

import pytest
from _csbup import ffi, lib
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.csb_twin import KEYS, Twin, build_map, build_view, lists_of, lookup_batch

KEY = st.integers(0, KEYS - 1)
CROWDED = st.integers(0, 40)  # keys that meet in a table of one or two lines


def new_diff(lines: int) -> tuple[object, object]:
    memory = lib.native_view_new(lines * 64)
    owner = ffi.gc(memory, lib.native_view_free)
    ffi.memmove(memory, bytes(lines * 64), lines * 64)
    return ffi.new(
        "struct csb_diff *", {"lines": ffi.cast("struct csb_line *", memory), "line_count": lines}
    ), owner


@given(st.lists(st.tuples(KEY | CROWDED, st.integers(0, 255)), max_size=60), st.integers(5, 20))
def test_lines_against_a_dict(entries: list[tuple[int, int]], lines: int) -> None:
    diff, _owner = new_diff(lines)
    twin: dict[int, list[int]] = {}
    for key, tid in entries:
        added = lib.csb_diff_add(diff, key, tid)
        if key not in twin:
            assert added == lib.CSB_ADDED
            twin[key] = [tid]
        elif twin[key][0] == tid:
            assert added == lib.CSB_ADDED_BEFORE
        else:
            assert added == lib.CSB_ADDED_CONFLICT
            twin[key].append(tid)
    for key, tids in twin.items():
        assert lib.native_diff_find(diff, key) == tids[0] | (256 if len(tids) > 1 else 0)
    for key in {(k + 1) % KEYS for k in twin} - twin.keys():
        assert lib.native_diff_find(diff, key) == -1


def test_full_lines_spill_until_none_is_left() -> None:
    diff, _owner = new_diff(3)
    keys = random.Random(1).sample(range(KEYS), 37)
    assert [lib.csb_diff_add(diff, k, 7) for k in keys[:36]] == [lib.CSB_ADDED] * 36
    assert lib.csb_diff_add(diff, keys[36], 7) == lib.CSB_ADDED_NONE
    assert all(lib.native_diff_find(diff, k) == 7 for k in keys[:36])
    assert lib.native_diff_find(diff, keys[36]) == -1


def test_an_empty_line_holds_no_key_0() -> None:
    diff, _owner = new_diff(1)
    assert lib.native_diff_find(diff, 0) == -1


@pytest.mark.parametrize("seed", range(8))
def test_a_view_against_its_twin(seed: int) -> None:
    draw = random.Random(seed)
    points = {draw.randrange(KEYS): draw.randrange(16) for _ in range(draw.choice((0, 1, 30, 256)))}
    keys = [draw.randrange(KEYS) for _ in range(300)]
    flows = {draw.choice(keys) | draw.randrange(1, 2**32) << 32: draw.randrange(16) for _ in range(900)}
    twin = Twin(points, flows)
    view = build_view(build_map(points), flows)
    for hash_, tid in flows.items():
        assert lib.native_view_lookup(view, hash_) == tid == twin.lookup(hash_)
    others = [draw.choice(keys) | draw.randrange(1, 2**32) << 32 for _ in range(500)]
    others += [draw.randrange(1, 2**64) for _ in range(500)]
    for hash_ in others:
        assert lib.native_view_lookup(view, hash_) == twin.lookup(hash_)
    mixed = [*flows, *others]
    draw.shuffle(mixed)
    for count in (0, 1, 63, 64, 65, len(mixed)):
        assert lookup_batch(view, mixed[:count]) == [twin.lookup(h) for h in mixed[:count]]
    slots = {(h & 0xFFFFFFFF) >> 20 for h in flows}
    assert view.flagged_count == len(slots)
    assert view.exception_count == len({h & 0xFFFFFFFF for h in flows})


def test_a_view_says_how_much_room_it_needs() -> None:
    csb_map = build_map({5: 1})
    hashes = ffi.new("uint64_t[]", [1 << 32 | 9, 2 << 32 | 9])
    lists = ffi.new("struct csb_list[]", [(hashes, 1, 2), (hashes + 1, 1, 3)])  # one key, two owners
    enough = lib.csb_view_bytes(2, 2)
    memory = ffi.gc(lib.native_view_new(enough), lib.native_view_free)
    assert lib.csb_view_build(memory, 64, csb_map, lists, 2) == lib.csb_view_bytes(2, 0)
    assert lib.csb_view_build(memory, lib.csb_view_bytes(2, 0), csb_map, lists, 2) == enough
    assert lib.csb_view_build(memory, enough, csb_map, lists, 2) == enough == memory.bytes
    lists[1].tid = 256
    assert lib.csb_view_build(memory, enough, csb_map, lists, 2) == 0


def test_a_hash_of_0_is_no_flow() -> None:
    view = build_view(build_map({5: 1}), {0: 9})
    assert lib.native_view_lookup(view, 0) == 1
    assert view.exception_count == view.flagged_count == 0


def test_exceptions_stay_in_force_when_nobody_has_points() -> None:
    view = build_view(build_map({}), {7 | 1 << 32: 3})
    assert lib.native_view_lookup(view, 7 | 1 << 32) == 3
    assert lib.native_view_lookup(view, 8 | 1 << 32) == lib.CSB_NO_TID
    assert lib.native_view_lookup(view, 1 << 31 | 1 << 32) == lib.CSB_NO_TID


@pytest.mark.parametrize("seed", range(20))
def test_a_view_amended_is_the_view_built_of_all(seed: int) -> None:
    draw = random.Random(seed)
    points = {draw.randrange(KEYS): draw.randrange(16) for _ in range(30)}
    keys = draw.sample(range(KEYS), 260)
    flows = {key | draw.randrange(1, 2**32) << 32: draw.randrange(16) for key in keys}
    hashes = list(flows)
    early, late = ({h: flows[h] for h in part} for part in (hashes[:220], hashes[220:]))
    late |= {h: flows[h] for h in hashes[:10]}  # said twice
    view = build_view(build_map(points), early)
    lists, arrays = lists_of(late)
    assert lib.csb_view_amend(view, lists, len(arrays))
    whole = build_view(build_map(points), flows)
    for field in ("exception_count", "flagged_count", "exact_count"):
        assert getattr(view, field) == getattr(whole, field)
    for hash_ in (*flows, *(draw.randrange(1, 2**64) for _ in range(500))):
        assert lib.native_view_lookup(view, hash_) == lib.native_view_lookup(whole, hash_)


def test_an_amendment_that_needs_more_than_a_line_is_refused() -> None:
    csb_map = build_map({5: 1})
    flows = {1 << 32 | 7: 2, 2 << 32 | 7: 3, 1 << 32 | 9: 2}
    for late in (
        {3 << 32 | 9: 4},  # the key's other owner
        {3 << 32 | 7: 2},  # a key of two owners
        {n << 32 | 100 + n: 2 for n in range(1, 12)},  # more than the line holds
        {3 << 32 | 11: 256},  # no thread
    ):
        lists, arrays = lists_of(late)
        assert not lib.csb_view_amend(build_view(csb_map, flows), lists, len(arrays))
