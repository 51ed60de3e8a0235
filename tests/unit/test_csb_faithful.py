"""The printed form: the paper's worked example, its agreement with csb_lookup on H_new, and where it fails.

Of the example the paper gives: four threads, keys 0 to 23, the point 9 that goes to thread 2, the connections
with keys 7, 8 and 20, the false positives, BF's new keys, Set_diff, H_diff, Set_fly before and after.
Assumed, such that every given fact holds: the other points and the other connections.
"""

import itertools
import random

import pytest
from _csb import ffi, lib
from hypothesis import given
from hypothesis import strategies as st

from tests.reference.csb_faithful import Bloom, BloomWithFalsePositives, Circle, FaithfulCsb, merge

ASSUMED_POINTS = {3: 0, 5: 2, 12: 1, 14: 0, 17: 2, 21: 3, 23: 0}
GIVEN_POINT = {9: 2}
GIVEN_LIVE = [(7, 1), (8, 1), (20, 3)]
ASSUMED_LIVE = [(10, 1), (11, 1), (12, 1), (2, 0), (13, 0), (4, 2), (16, 2), (18, 3)]
GIVEN_FALSE_POSITIVES = frozenset({9, 19, 20})
LIVE = GIVEN_LIVE + ASSUMED_LIVE


def example() -> FaithfulCsb:
    csb = FaithfulCsb(ASSUMED_POINTS, make_bloom=lambda: BloomWithFalsePositives(GIVEN_FALSE_POSITIVES))
    csb.step_1_place(ASSUMED_POINTS | GIVEN_POINT)
    csb.step_2_open()
    return csb


def finish(csb: FaithfulCsb, live: list[tuple[int, int]]) -> None:
    csb.step_3_filter(live)
    csb.step_4_collect(live)
    csb.step_5_merge()
    csb.step_6_publish()


def test_the_assumed_connections_are_where_the_first_map_sends_them() -> None:
    csb = FaithfulCsb(ASSUMED_POINTS)
    assert all(csb.lookup(key) == tid for key, tid in LIVE)
    counts = [sum(1 for _, t in LIVE if t == tid) for tid in range(4)]
    assert max(counts) == counts[1] == 5
    assert counts.count(5) == 1  # given: thread 1 has the most


def test_the_papers_example_step_by_step() -> None:
    csb = example()
    assert (csb.lookup(9, syn=True), csb.lookup(19, syn=True)) == (2, 3)
    assert csb.flying == {9, 19}
    csb.step_3_filter(LIVE)
    assert isinstance(csb.next_bf, BloomWithFalsePositives)
    assert csb.next_bf.added == {7, 8}
    csb.step_4_collect(LIVE)
    assert csb.set_diff == {(7, 1), (8, 1), (20, 3)}
    csb.step_5_merge()
    assert csb.next_h_diff.as_dict() == {8: 1, 20: 3}
    csb.step_6_publish()
    assert csb.set_fly == {9}
    assert (csb.h_new[9], csb.h_diff[9], csb.lookup(9)) == (2, 3, 2)
    assert (csb.h_new[19], csb.h_diff[19], csb.lookup(19)) == (3, 3, 3)
    assert all(csb.lookup(key) == tid for key, tid in LIVE)


def test_a_newcomer_follows_the_merged_range_to_the_overloaded_thread() -> None:
    csb = example()
    finish(csb, LIVE)
    assert csb.h_new[7] == 2
    assert csb.lookup(7, syn=True) == 1


KEY = st.integers(0, 2**32 - 1)
POINTS = st.dictionaries(KEY, st.integers(0, 255), min_size=1, max_size=60)


@given(POINTS, st.lists(KEY, max_size=40))
def test_h_new_agrees_with_the_product(points: dict[int, int], keys: list[int]) -> None:
    csb_map = ffi.new("struct csb_map *")
    array = ffi.new("struct csb_point[]", [{"point": p, "tid": t} for p, t in points.items()])
    assert lib.csb_map_build(csb_map, array, len(points), 1)
    circle = Circle(points)
    for key in [*keys, *points, *((p + 1) % 2**32 for p in points), 0, 2**32 - 1]:
        assert lib.native_csb_lookup(csb_map, key) == circle[key]


@given(st.dictionaries(st.integers(0, 100), st.integers(0, 3), max_size=40))
def test_merging_changes_no_recorded_owner(connections: dict[int, int]) -> None:
    merged = merge(connections.items())
    assert all(merged[key] == tid for key, tid in connections.items())
    neighbours = [tid for _, tid in merged.points]
    assert all(a != b for a, b in itertools.pairwise(neighbours))


@given(st.sets(KEY, max_size=200))
def test_the_filter_has_no_false_negative(keys: set[int]) -> None:
    bloom = Bloom(bit_count=1024, hash_count=4)
    for key in keys:
        bloom.add(key)
    assert all(key in bloom for key in keys)


@pytest.mark.parametrize("seed", range(10))
def test_updates_in_silence_move_no_live_connection(seed: int) -> None:
    """With no packet during an update, and no two connections of one key, the printed form is right."""
    draw = random.Random(seed)
    points = {draw.randrange(2**32): tid for tid in range(8) for _ in range(4)}
    csb = FaithfulCsb(points)
    live: dict[int, int] = {}
    for _ in range(6):
        live.update({k: csb.lookup(k) for k in draw.sample(range(2**32), 200) if k not in live})
        for key in draw.sample(sorted(live), 50):
            del live[key]
        points = {p: (draw.randrange(8) if draw.random() < 0.2 else t) for p, t in points.items()}
        csb.update(points, live.items())
        assert all(csb.lookup(k) == t for k, t in live.items()), f"seed {seed}"


# --- where the printed update fails; the product's update closes each of these ---


def test_a_syn_that_waits_in_a_ring_while_its_thread_walks_is_lost() -> None:
    csb = FaithfulCsb(ASSUMED_POINTS)
    waiting = (6, csb.lookup(6, syn=True))  # sent to thread 1 before the update, not yet in its table
    csb.update(ASSUMED_POINTS | GIVEN_POINT, LIVE)
    assert waiting[1] == 1
    assert csb.lookup(6) == 2  # its data go to a thread that does not know it, and is answered by RST


def test_a_syn_sent_again_across_step_2_makes_two_connections() -> None:
    csb = FaithfulCsb(ASSUMED_POINTS)
    first = csb.lookup(6, syn=True)
    csb.step_1_place(ASSUMED_POINTS | GIVEN_POINT)
    csb.step_2_open()
    assert csb.lookup(6, syn=True) != first


def test_one_spoofed_syn_moves_a_live_connection() -> None:
    csb = example()
    assert csb.lookup(7) == 1
    csb.lookup(7, syn=True)  # anyone who knows the four-tuple can send it
    assert csb.lookup(7) == 2


def test_two_connections_of_one_key_with_two_owners_cannot_both_be_kept() -> None:
    csb = FaithfulCsb(ASSUMED_POINTS)
    live = [*LIVE, (7, 2)]  # a second four-tuple with key 7, once placed by H_new(n) in a window
    csb.update(ASSUMED_POINTS | GIVEN_POINT, live)
    assert not all(csb.lookup(key) == tid for key, tid in live)
