"""The connection table against a multiset of (hash, handle)."""

from collections.abc import Iterator

import pytest
from _leaf import ffi, lib
from hypothesis import given, settings
from hypothesis import strategies as st


class Table:
    """A table in aligned zero memory."""

    def __init__(self, capacity: int) -> None:
        self.memory = ffi.gc(lib.native_table_memory(capacity), lib.native_table_memory_free)
        address = int(ffi.cast("uintptr_t", self.memory))
        self.t = ffi.new("struct table *")
        lib.table_init(self.t, ffi.cast("void *", (address + 63) & ~63), capacity)

    def find(self, value: int) -> Iterator[int]:
        cursor = ffi.new("struct table_cursor *")
        handle = lib.table_first(self.t, value, cursor)
        while handle != lib.TABLE_NONE:
            yield handle
            handle = lib.table_next(self.t, cursor)


HASHES = st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 3).map(lambda n: n * 2**30), st.integers(0, 40))
OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["insert", "insert", "insert", "remove", "replace"]), HASHES, st.integers(0, 2**16)
    ),
    max_size=400,
)


@given(st.integers(1, 2000), OPERATIONS)
@settings(max_examples=150)
def test_table_is_a_multiset(capacity: int, operations: list[tuple[str, int, int]]) -> None:
    table = Table(capacity)
    twin: dict[int, list[int]] = {}
    used: list[int] = []
    for number, (what, value, pick) in enumerate(operations):
        count = sum(map(len, twin.values()))
        if what == "insert":
            taken = lib.table_insert(table.t, value, number)
            assert not (taken and count >= capacity)
            if taken:
                twin.setdefault(value, []).append(number)
                used.append(value)
        elif used:
            value = used[pick % len(used)]
            handles = twin[value]
            if not handles:
                assert not lib.table_remove(table.t, value, 0)
            elif what == "remove":
                assert lib.table_remove(table.t, value, handles.pop(pick % len(handles)))
            else:
                old = pick % len(handles)
                assert lib.table_replace(table.t, value, handles[old], 2**31 + number)
                handles[old] = 2**31 + number
        lib.table_check(table.t)
        assert sorted(table.find(value)) == sorted(twin.get(value, []))
    for value, handles in twin.items():
        assert sorted(table.find(value)) == sorted(handles)


def test_same_hash_for_all_fills_the_probe_bound_and_then_fails_cleanly() -> None:
    table = Table(5000)
    taken = 0
    while lib.table_insert(table.t, 0xABCDEF, taken):
        taken += 1
    assert taken == 64 * 8
    lib.table_check(table.t)
    assert sorted(table.find(0xABCDEF)) == list(range(taken))
    for handle in range(taken):
        assert lib.table_remove(table.t, 0xABCDEF, handle)
    lib.table_check(table.t)
    assert table.t.count == 0


@pytest.mark.parametrize("capacity", [1, 7, 1000, 100_000, 300_000])
def test_table_fills_to_its_capacity_at_under_twelve_bytes_each(capacity: int) -> None:
    table = Table(capacity)
    assert lib.native_table_fill(table.t, 0, capacity) == capacity
    assert not lib.table_insert(table.t, 1, 1)
    lib.table_check(table.t)
    assert lib.native_table_missing(table.t, 0, capacity) == 0
    assert lib.native_table_longest(table.t) < 32
    if capacity >= 100_000:
        assert lib.table_memory_bytes(capacity) / capacity < 12


def test_what_is_not_needed_yet_is_untouched() -> None:
    capacity = 400_000
    table = Table(capacity)
    for count in range(0, capacity // 4, 20_000):
        assert lib.native_table_fill(table.t, count, 20_000) == 20_000
        touched = lib.native_table_buckets_touched(table.t, lib.table_memory_bytes(capacity))
        assert touched * 64 <= (count + 20_000) * 26 + 64 * 64


def look(table: Table) -> list[tuple[int, int]]:
    """What one look at it gives out; that memory is overwritten as a machine would."""
    first, count = ffi.new("uint32_t *"), ffi.new("uint32_t *")
    found = []
    while lib.table_next_spare(table.t, first, count):
        found.append((first[0], count[0]))
        lib.native_table_forget(table.t, first[0], count[0])
    return found


def test_a_table_shrinks_as_it_grew_and_gives_its_memory_back() -> None:
    capacity = 400_000
    table = Table(capacity)
    assert lib.native_table_fill(table.t, 0, capacity) == capacity
    at_most = table.t.touched
    assert look(table) == look(table) == []
    for kept in range(capacity - 20_000, 0, -20_000):
        assert lib.native_table_drain(table.t, kept, 20_000) == 20_000
        lib.table_check(table.t)
        assert lib.native_table_missing(table.t, 0, kept) == 0
    assert lib.table_has_spare(table.t)
    assert look(table) == []
    found = look(table)
    assert found[0][0] + found[0][1] == at_most
    assert all(count <= 32768 for _, count in found)
    assert found[-1][0] * 64 <= 20_000 * 26 + 64 * 64 + 1024 * 64
    assert look(table) == []
    assert not lib.table_has_spare(table.t)
    assert lib.native_table_fill(table.t, capacity, capacity - 20_000) == capacity - 20_000
    lib.table_check(table.t)
    assert lib.native_table_missing(table.t, 0, 20_000) == 0
    assert lib.native_table_missing(table.t, capacity, capacity - 20_000) == 0


def test_what_was_in_reach_between_two_looks_is_kept() -> None:
    table = Table(400_000)
    assert lib.native_table_fill(table.t, 0, 200_000) == 200_000
    look(table)
    assert lib.native_table_drain(table.t, 0, 200_000) == 200_000
    assert look(table) == []
    assert lib.native_table_fill(table.t, 0, 200_000) == 200_000
    assert lib.native_table_drain(table.t, 0, 200_000) == 200_000
    assert look(table) == []
    assert look(table) != []


@pytest.mark.parametrize("capacity", [0, 2**30 + 1, 2**32 - 1])
def test_capacity_out_of_range_needs_no_memory(capacity: int) -> None:
    assert lib.table_memory_bytes(capacity) == 0
