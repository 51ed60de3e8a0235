"""Slabs against sets: lowest block first, memory that is spare, memory that is not there."""

import pytest
from _leaf import ffi, lib
from hypothesis import given, settings
from hypothesis import strategies as st

STRIDE = 8
BLOCK = lib.SLAB_BLOCK


class Slab:
    """A slab in memory of its own, and what is taken."""

    def __init__(self, capacity: int) -> None:
        self.objects = ffi.new("uint8_t[]", capacity * STRIDE)
        self.memory = ffi.new("uint64_t[]", lib.slab_memory_bytes(capacity) // 8)
        self.s = ffi.new("struct slab *")
        lib.slab_init(self.s, self.objects, STRIDE, capacity, self.memory)
        self.taken: set[int] = set()

    def take(self) -> int:
        index = int(lib.native_slab_take(self.s))
        if index != lib.SLAB_NONE:
            assert index not in self.taken
            self.taken.add(index)
        return index

    def give(self, index: int) -> None:
        self.taken.remove(index)
        lib.native_slab_give(self.s, index)

    def spare(self) -> list[int]:
        """The blocks that one look gives out, their memory made unreadable as a link."""
        first, count = ffi.new("uint32_t *"), ffi.new("uint32_t *")
        found = []
        while lib.slab_next_spare(self.s, first, count):
            assert first[0] % BLOCK == 0
            assert not self.taken & set(range(first[0], first[0] + count[0]))
            ffi.memmove(self.objects + first[0] * STRIDE, b"\xff" * (count[0] * STRIDE), count[0] * STRIDE)
            found.append(first[0] // BLOCK)
        return found


def lowest_with_room(taken: set[int], capacity: int) -> int:
    return min(set(range(capacity)) - taken) // BLOCK


@given(
    st.integers(1, 9 * BLOCK),
    st.lists(st.tuples(st.sampled_from("ttttggggs"), st.integers(0, 2**16)), max_size=300),
)
@settings(max_examples=200)
def test_a_slab_is_a_set_and_fills_its_lowest_block(capacity: int, operations: list[tuple[str, int]]) -> None:
    slab = Slab(capacity)
    for what, pick in operations:
        if what == "t" and len(slab.taken) == capacity:
            assert slab.take() == lib.SLAB_NONE
        elif what == "t":
            lowest = lowest_with_room(slab.taken, capacity)
            assert slab.take() // BLOCK == lowest
        elif what == "g" and slab.taken:
            slab.give(sorted(slab.taken)[pick % len(slab.taken)])
        elif what == "s":
            slab.spare()
        lib.slab_check(slab.s)
        assert slab.s.used == len(slab.taken)


def full(blocks: int) -> Slab:
    slab = Slab(blocks * BLOCK)
    assert sorted(slab.take() for _ in range(blocks * BLOCK)) == list(range(blocks * BLOCK))
    return slab


def test_what_is_empty_at_two_looks_is_spare_once() -> None:
    slab = full(4)
    for index in sorted(slab.taken - {2 * BLOCK}):
        slab.give(index)
    assert slab.s.spare == 2
    assert slab.spare() == []
    assert slab.spare() == [1, 3]  # not the first, which is taken from first, and not the third
    assert slab.spare() == []
    assert slab.s.spare == 0


def test_what_was_used_between_two_looks_is_not_spare() -> None:
    slab = full(2)
    for index in sorted(slab.taken):
        slab.give(index)
    assert slab.spare() == []
    for _ in range(BLOCK + 1):
        slab.take()
    slab.give(BLOCK)
    assert slab.spare() == []
    assert slab.spare() == [1]


def test_a_walk_leaves_out_empty_blocks() -> None:
    slab = full(5)
    for block in (0, 2, 4):
        for index in range(block * BLOCK, (block + 1) * BLOCK):
            slab.give(index)
    walked, index = [], lib.native_slab_next(slab.s, 0)
    while index != lib.SLAB_NONE:
        walked.append(index)
        index = lib.native_slab_next(slab.s, index + 1)
    assert walked == sorted(slab.taken)


def test_objects_move_and_what_is_empty_is_clean() -> None:
    slab = full(3)
    for index in sorted(slab.taken):
        slab.objects[index * STRIDE + 7] = index % 251
        if index // BLOCK == 1:
            slab.give(index)
    other = ffi.new("uint8_t[]", 3 * BLOCK * STRIDE)
    lib.slab_move(slab.s, other)
    lib.slab_check(slab.s)
    ffi.buffer(slab.objects)[:] = b"\xff" * len(ffi.buffer(slab.objects))
    assert all(other[index * STRIDE + 7] == index % 251 for index in slab.taken)
    assert not any(other[BLOCK * STRIDE : 2 * BLOCK * STRIDE])
    assert slab.s.spare == 0
    assert {slab.take() for _ in range(BLOCK)} == set(range(BLOCK, 2 * BLOCK))


@pytest.mark.parametrize("left", [0, 1, 2])
def test_without_memory_for_a_block_what_is_there_is_used(left: int) -> None:
    slab = Slab(4 * BLOCK)
    calls = ffi.new("int *", left)
    lib.native_slab_populate(slab.s, calls)
    for _ in range(left * BLOCK):
        assert slab.take() != lib.SLAB_NONE
    assert slab.take() == lib.SLAB_NONE
    if left == 2:
        slab.give(BLOCK + 3)
        for index in range(BLOCK):
            slab.give(index)
        slab.give(2 * BLOCK - 1)
        assert slab.take() < BLOCK  # the first is never spare
    lib.slab_check(slab.s)


def test_a_spare_block_without_memory_is_passed_over_until_there_is_some() -> None:
    slab = full(3)
    calls = ffi.new("int *", 0)
    lib.native_slab_populate(slab.s, calls)
    for index in range(BLOCK, 2 * BLOCK):
        slab.give(index)
    assert slab.spare() + slab.spare() == [1]
    slab.give(2 * BLOCK + 1)
    assert slab.take() == 2 * BLOCK + 1
    assert slab.take() == lib.SLAB_NONE
    calls[0] = 1
    assert slab.take() == BLOCK
    lib.slab_check(slab.s)
