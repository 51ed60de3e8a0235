"""The circle and its lookup against brute force: a key belongs to the first point at or after it."""

import random

import mmh3
import pytest
from _csb import ffi, lib
from hypothesis import given
from hypothesis import strategies as st

KEYS = 2**32
SLOT = 2**20
NO_TID = lib.CSB_NO_TID


def point_array(points: list[tuple[int, int]]) -> object:
    return ffi.new("struct csb_point[]", [{"point": p, "tid": t} for p, t in points] or 1)


def build(points: list[tuple[int, int]], epoch: int = 1) -> object:
    csb_map = ffi.new("struct csb_map *")
    assert lib.csb_map_build(csb_map, point_array(points), len(points), epoch)
    return csb_map


def owner(points: list[tuple[int, int]], key: int) -> int:
    """Brute force: the nearest point going up."""
    return min(points, key=lambda p: (p[0] - key) % KEYS)[1] if points else NO_TID


def keys_near(points: list[tuple[int, int]]) -> list[int]:
    """Where an error would show: around points, around the ends of slots that have one, at the wrap."""
    near = {0, 1, KEYS - 1, KEYS - 2}
    for point, _ in points:
        start = point // SLOT * SLOT
        near |= {(k + d) % KEYS for k in (point, start, start + SLOT - 1) for d in (-1, 0, 1)}
    return sorted(near)


def check(points: list[tuple[int, int]], keys: list[int]) -> None:
    csb_map = build(points)
    for key in keys:
        expected = owner(points, key)
        assert lib.native_csb_lookup(csb_map, key) == expected, f"key {key:#x}"


@pytest.mark.parametrize(
    "points",
    [
        pytest.param([], id="no thread"),
        pytest.param([(0, 0)], id="one point at 0"),
        pytest.param([(KEYS - 1, 255)], id="one point at the end"),
        pytest.param([(SLOT - 1, 1), (SLOT, 2)], id="on both sides of a slot's edge"),
        pytest.param([(2 * SLOT - 1, 1), (3 * SLOT - 1, 2)], id="points at slot ends need no array"),
        pytest.param([(5, 0), (6, 1), (7, 2), (8, 3)], id="all points in one slot"),
        pytest.param([(KEYS - 1, 1), (0, 2)], id="across the wrap"),
        pytest.param([(KEYS - 5, 1), (KEYS - 3, 2), (3, 3)], id="the last slot wraps to the first point"),
        pytest.param(
            [(p, t) for p, t in ((3, 0), (5, 2), (9, 2), (12, 1), (14, 0), (17, 2), (21, 3), (23, 0))],
            id="the paper's example",
        ),
    ],
)
def test_lookup(points: list[tuple[int, int]]) -> None:
    check(points, keys_near(points) + list(range(30)))


def test_points_at_slot_ends_leave_no_slot_mixed() -> None:
    csb_map = build([(i * SLOT + SLOT - 1, i % 3) for i in range(4096)])
    assert not any(s & lib.CSB_SLOT_MIXED for s in csb_map.slot)


@given(
    st.lists(st.tuples(st.integers(0, KEYS - 1), st.integers(0, 255)), max_size=40, unique_by=lambda p: p[0]),
    st.lists(st.integers(0, KEYS - 1), max_size=40),
)
def test_lookup_of_any_circle(points: list[tuple[int, int]], keys: list[int]) -> None:
    check(points, keys + keys_near(points))


@given(
    st.lists(st.tuples(st.integers(0, 4 * SLOT), st.integers(0, 255)), max_size=60, unique_by=lambda p: p[0]),
    st.lists(st.integers(0, 4 * SLOT + 10), max_size=40),
)
def test_lookup_of_a_crowded_corner(points: list[tuple[int, int]], keys: list[int]) -> None:
    check(points, keys + keys_near(points))


@pytest.mark.parametrize("seed", range(5))
def test_a_full_circle(seed: int) -> None:
    draw = random.Random(seed)
    points = [(p, draw.randrange(256)) for p in draw.sample(range(KEYS), 4096)]
    csb_map = build(points)
    assert [p.point for p in csb_map.points] == sorted(p for p, _ in points)
    for key in [draw.randrange(KEYS) for _ in range(200)] + keys_near(points)[:200]:
        assert lib.native_csb_lookup(csb_map, key) == owner(points, key), f"seed {seed}, key {key:#x}"


@pytest.mark.parametrize(
    "points",
    [
        pytest.param([(7, 0), (9, 1), (7, 2)], id="two points equal"),
        pytest.param([(7, 0), (9, 256)], id="tid out of range"),
        pytest.param([(7, 2**32 - 1)], id="tid far out of range"),
        pytest.param([(i, 0) for i in range(4097)], id="too many points"),
    ],
)
def test_a_bad_circle_is_refused_and_the_map_unchanged(points: list[tuple[int, int]]) -> None:
    csb_map = build([(100, 1), (2**31, 2)], epoch=5)
    before = bytes(ffi.buffer(csb_map))
    assert not lib.csb_map_build(csb_map, point_array(points), len(points), 6)
    assert bytes(ffi.buffer(csb_map)) == before


def test_a_map_is_built_from_its_own_points() -> None:
    csb_map = build([(300, 3), (100, 1), (200, 2)], epoch=1)
    assert lib.csb_map_build(csb_map, csb_map.points, 2, 2)
    assert (csb_map.epoch, csb_map.point_count) == (2, 2)
    assert [lib.native_csb_lookup(csb_map, k) for k in (0, 101, 201)] == [1, 2, 1]
    csb_map.points[0].point = csb_map.points[1].point
    before = bytes(ffi.buffer(csb_map))
    assert not lib.csb_map_build(csb_map, csb_map.points, 2, 3)
    assert bytes(ffi.buffer(csb_map)) == before


# --- placing ---

PLACE_SEED = 0x6A616E75


def place(tids: list[tuple[int, int]]) -> list[tuple[int, int]]:
    points = ffi.new("struct csb_point[4096]")
    count = ffi.new("uint32_t *")
    for tid, n in tids:
        assert lib.csb_place_tid(points, count, tid, n)
    return [(points[i].point, points[i].tid) for i in range(count[0])]


def test_placed_points_are_mmh3s() -> None:
    expected = [
        (mmh3.hash((t << 32 | i).to_bytes(8, "little"), PLACE_SEED, signed=False), t)
        for t in (0, 1, 255)
        for i in range(16)
    ]
    assert place([(0, 16), (1, 16), (255, 16)]) == expected


def test_a_full_set_of_tids_can_be_built() -> None:
    points = place([(tid, 16) for tid in range(256)])
    assert len({p for p, _ in points}) == len(points) == 4096
    csb_map = build(points)
    assert {lib.native_csb_lookup(csb_map, p) for p, _ in points} == set(range(256))


def test_more_weight_keeps_the_points_that_were() -> None:
    assert place([(7, 40)])[:16] == place([(7, 16)])


def test_a_point_that_is_taken_is_drawn_anew() -> None:
    points = ffi.new("struct csb_point[4096]")
    count = ffi.new("uint32_t *", 1)
    natural = place([(3, 4)])
    points[0] = {"point": natural[1][0], "tid": 9}
    assert lib.csb_place_tid(points, count, 3, 3)
    placed = [points[i].point for i in range(count[0])]
    assert placed == [natural[1][0], natural[0][0], natural[2][0], natural[3][0]]


@pytest.mark.parametrize(
    ("tid", "n", "there"), [(256, 1, 0), (2**32 - 1, 1, 0), (0, 4097, 0), (0, 2, 4095), (0, 2**32 - 1, 5)]
)
def test_what_cannot_be_placed_is_refused(tid: int, n: int, there: int) -> None:
    points = ffi.new("struct csb_point[4096]")
    count = ffi.new("uint32_t *", there)
    assert not lib.csb_place_tid(points, count, tid, n)
    assert count[0] == there
