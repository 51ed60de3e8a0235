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


def explain(view, hash_: int) -> tuple[int, int, int]:
    tid, home = ffi.new("uint16_t *"), ffi.new("uint16_t *")
    decider = lib.csb_view_explain(view, hash_, tid, home)
    return decider, tid[0], home[0]


def test_each_structure_is_named_when_it_decides() -> None:
    one, both = 7, 5 << 20 | 9
    flows = {1 << 32 | one: 3, 1 << 32 | both: 4, 2 << 32 | both: 6}
    view = build_view(build_map({2**31: 9, 2**31 + 5: 8, 2**32 - 1: 9}), flows)
    assert explain(view, 1 << 32 | one) == (lib.CSB_BY_EXCEPTION, 3, 9)
    assert explain(view, 77 << 32 | one) == (lib.CSB_BY_EXCEPTION, 3, 9)  # an exception is its key's
    assert explain(view, 1 << 32 | both) == (lib.CSB_BY_EXACT, 4, 9)
    assert explain(view, 3 << 32 | both) == (lib.CSB_BY_SLOT, 9, 9)  # a newcomer of a key with two owners
    assert explain(view, 1 << 32 | one + 1) == (lib.CSB_BY_SLOT, 9, 9)  # in a flagged slot, and no exception
    assert explain(view, 1 << 32 | 2**31 + 3) == (lib.CSB_BY_CIRCLE, 8, 8)
    assert explain(view, 1 << 32 | 2**31 + 6) == (lib.CSB_BY_CIRCLE, 9, 9)


def test_what_is_explained_is_what_is_looked_up() -> None:
    draw = random.Random(8)
    flows = {
        draw.randrange(1, 2**32) << 32 | draw.randrange(2000) << 19: draw.randrange(9) for _ in range(3000)
    }
    view = build_view(build_map({draw.randrange(2**32): draw.randrange(9) for _ in range(64)}), flows)
    for hash_ in [*flows, *(draw.randrange(2**64) for _ in range(2000))]:
        assert explain(view, hash_)[1] == lib.native_view_lookup(view, hash_)
