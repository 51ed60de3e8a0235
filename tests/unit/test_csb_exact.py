"""The flows of conflicted keys: cells against a dict, and a key's flows each with its own owner."""

import random

import pytest
from _csbup import ffi, lib
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.csb_twin import build_map, build_view

HASH = st.integers(1, 2**64 - 1) | st.integers(1, 20).map(lambda n: n << 32 | 7)


@given(st.lists(st.tuples(HASH, st.integers(0, 255)), max_size=80))
def test_cells_against_a_dict(flows: list[tuple[int, int]]) -> None:
    size = lib.csb_exact_size(len(flows))
    cells = ffi.new("struct csb_exact[]", size or 1)
    for hash_, tid in flows:
        lib.csb_exact_add(cells, size, hash_, tid)
    twin = dict(flows)
    for hash_, tid in twin.items():
        assert lib.native_exact_find(cells, size, hash_) == tid
    for hash_ in (1, 2**64 - 1, 21 << 32 | 7):
        assert lib.native_exact_find(cells, size, hash_) == twin.get(hash_, -1)


@pytest.mark.parametrize(("count", "size"), [(0, 0), (1, 4), (2, 4), (3, 8), (1000, 2048)])
def test_cells_are_at_most_half_used(count: int, size: int) -> None:
    assert lib.csb_exact_size(count) == size


def test_flows_of_one_key_go_each_to_its_owner() -> None:
    draw = random.Random(5)
    key = 0x12345678
    flows = {key | n << 32: draw.randrange(4) for n in range(1, 200)}
    view = build_view(build_map({2**31: 9}), flows)
    assert lib.csb_view_is_conflicted(view, key)
    assert all(lib.native_view_lookup(view, h) == t for h, t in flows.items())
    assert lib.native_view_lookup(view, key | 999 << 32) == 9  # a newcomer follows H_new
    assert not lib.csb_view_is_conflicted(view, key + 1)
    assert view.exception_count == 1
    assert view.exact_count == len(flows)


def test_a_keys_flows_at_h_news_owner_need_no_cell() -> None:
    view = build_view(build_map({2**31: 9}), {1 << 32 | 5: 9, 2 << 32 | 5: 3})
    assert view.exact_count == 1
    assert [lib.native_view_lookup(view, n << 32 | 5) for n in (1, 2, 3)] == [9, 3, 9]
