"""Reassembly against a map from position to the packet that owns the byte."""

import pytest
from _leaf import ffi, lib
from hypothesis import given, settings
from hypothesis import strategies as st

SLOTS = 256


class Twin:
    """`held` maps the position of each byte to the (slot, offset in slot) that is to give it."""

    def __init__(self, position: int = 0) -> None:
        self.r = ffi.new("struct reasm *")
        lib.reasm_init(self.r)
        lib.reasm_skip(self.r, position)
        self.slots = ffi.new("struct reasm_slot[]", SLOTS)
        self.free = list(range(SLOTS))
        self.held: dict[int, tuple[int, int]] = {}
        self.recent: list[int] = []  # one byte of each range touched, latest last

    def ranges(self) -> list[tuple[int, int]]:
        found: list[list[int]] = []
        for at in sorted(self.held):
            if found and found[-1][1] == at:
                found[-1][1] = at + 1
            else:
                found.append([at, at + 1])
        return [(begin, end) for begin, end in found]

    def add(self, offset: int, length: int, data: int) -> str:
        slot = self.free[0]
        added = ffi.new("struct reasm_added *")
        ranges, end = self.ranges(), offset + length
        result = lib.reasm_add(self.r, self.slots, offset, length, slot, data, added)
        held = [at for at in range(offset, end) if at in self.held]
        first = [at for at in held if all(i in self.held for i in range(held[0], at))]
        assert list(range(added.held.begin, added.held.end)) == first
        if len(held) == length:
            assert result == lib.REASM_DUPLICATE
            self.recent.append(offset)
            return "duplicate"
        covered = [r for r in ranges if offset < r[0] and r[1] <= end]
        if result == lib.REASM_FULL:
            assert offset != 0
            assert not covered
            segments = self.r.segments
            full = segments >= lib.REASM_SEGMENTS_MAX and self.r.bytes // segments < lib.REASM_SMALL_BYTES
            joins = any(r[0] <= end and offset <= r[1] for r in ranges)
            assert full or (not joins and self.r.ranges >= lib.REASM_RANGES_MAX)
            return "full"
        assert result == lib.REASM_HELD
        self.free.pop(0)
        assert self.walk(added.covered) == [self.held.pop(at) for r in covered for at in range(*r)]
        for at in range(offset, end):
            self.held.setdefault(at, (slot, data + at - offset))
        self.recent.append(offset)
        return "held"

    def walk(self, chain: object) -> list[tuple[int, int]]:
        """The (slot, offset in slot) of every byte of a chain; its slots are free again."""
        found = []
        slot, last, segments = chain.first, lib.REASM_NO_SLOT, 0  # type: ignore[attr-defined]
        while slot != lib.REASM_NO_SLOT:
            m = self.slots[slot]
            found += [(slot, m.data + i) for i in range(m.len)]
            self.free.append(slot)
            last, slot, segments = slot, m.next, segments + 1
        assert (last, segments, len(found)) == (chain.last, chain.segments, chain.bytes)  # type: ignore[attr-defined]
        return found

    def pop(self) -> None:
        chain = ffi.new("struct reasm_chain *")
        popped = lib.reasm_pop(self.r, self.slots, chain)
        length = next(n for n in range(len(self.held) + 1) if n not in self.held)
        assert popped == (length > 0)
        assert self.walk(chain) == [self.held[at] for at in range(length)]
        self.held = {at - length: owner for at, owner in self.held.items() if at >= length}
        self.recent = [at - length for at in self.recent if at >= length]

    def clear(self) -> None:
        chain = ffi.new("struct reasm_chain *")
        lib.reasm_clear(self.r, self.slots, chain)
        assert self.walk(chain) == [self.held[at] for at in sorted(self.held)]
        self.held, self.recent = {}, []
        assert self.r.first == lib.REASM_NO_SLOT

    def check(self, blocks_max: int) -> None:
        lib.reasm_check(self.r, self.slots)
        ranges = self.ranges()
        assert (self.r.ranges, self.r.bytes) == (len(ranges), len(self.held))
        blocks = ffi.new("struct reasm_block[]", 40)
        count = lib.reasm_sack_blocks(self.r, self.slots, blocks, blocks_max)
        expected: list[tuple[int, int]] = []
        for at in reversed(self.recent):
            block = next(r for r in ranges if r[0] <= at < r[1])
            if block not in expected:
                expected.append(block)
        assert [(b.begin, b.end) for b in blocks[0:count]] == expected[:blocks_max]


@st.composite
def operations(draw: st.DrawFn) -> list[tuple[str, int, int]]:
    size = draw(st.sampled_from([8, 60, 600]))
    add = st.tuples(st.just("add"), st.integers(0, size), st.integers(1, draw(st.sampled_from([20, 200]))))
    other = st.tuples(st.sampled_from(["pop", "clear", "pop"]), st.just(0), st.just(0))
    return draw(st.lists(st.one_of(add, add, add, add, other), max_size=80))


@given(st.sampled_from([0, 1, 2**31 - 20, 2**32 - 300, 2**32 - 1]), operations(), st.integers(0, 4))
@settings(max_examples=300)
def test_reasm_is_a_map_of_bytes(position: int, steps: list[tuple[str, int, int]], blocks_max: int) -> None:
    twin = Twin(position)
    for number, (what, offset, length) in enumerate(steps):
        if what == "add":
            twin.add(offset, length, 40 + number % 100)
        elif what == "pop":
            twin.pop()
        else:
            twin.clear()
        twin.check(blocks_max)
    twin.clear()
    assert sorted(twin.free) == list(range(SLOTS))


def test_ranges_are_bounded_but_what_joins_still_fits() -> None:
    twin = Twin()
    for i in range(lib.REASM_RANGES_MAX):
        assert twin.add(10 + 10 * i, 5, 0) == "held"
    assert twin.add(2000, 5, 0) == "full"
    assert twin.add(15, 5, 0) == "held"  # closes a hole
    assert twin.add(2000, 5, 0) == "held"
    twin.check(4)


def test_segments_are_bounded_but_the_one_at_rcv_nxt_is_always_held() -> None:
    twin = Twin()
    for i in range(lib.REASM_SEGMENTS_MAX):
        assert twin.add(1 + i, 1, 0) == "held"
    assert twin.add(101, 1, 0) == "full"
    assert twin.add(0, 1, 0) == "held"
    twin.pop()
    assert not twin.held


def test_what_covers_held_ones_takes_their_place_whatever_the_bounds() -> None:
    twin = Twin()
    for i in range(lib.REASM_RANGES_MAX):
        assert twin.add(10 + 10 * i, 5, 0) == "held"
    assert twin.add(1, 2, 0) == "full"
    assert twin.add(9, 20, 0) == "held"  # two go, one comes
    assert (twin.r.ranges, twin.r.segments) == (lib.REASM_RANGES_MAX - 1, lib.REASM_RANGES_MAX - 1)
    assert twin.add(32, 290, 0) == "held"  # meets one at each end: their bytes stay
    assert (twin.r.ranges, twin.r.segments) == (2, 4)
    twin.check(4)
    assert twin.add(0, 1000, 0) == "held"
    assert twin.r.segments == 1
    twin.pop()
    assert sorted(twin.free) == list(range(SLOTS))


@pytest.mark.parametrize("edge", [2**30 - 1, 2**30 - 1448])
def test_the_far_end_of_the_largest_window(edge: int) -> None:
    twin = Twin(2**32 - 77)
    length = 2**30 - edge
    added = ffi.new("struct reasm_added *")
    assert lib.reasm_add(twin.r, twin.slots, edge, length, 0, 40, added) == lib.REASM_HELD
    lib.reasm_check(twin.r, twin.slots)
    assert lib.reasm_add(twin.r, twin.slots, edge, length, 1, 40, added) == lib.REASM_DUPLICATE
