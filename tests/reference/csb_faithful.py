"""The paper's Consistent Stream Balancer as printed: H_new, BF, H_diff, Set_fly, the update in six steps.

It is the baseline and the form that the product's repairs are shown against, not what the product runs: as
printed, an update can reset live connections. What the prose leaves open is decided here once: a lookup asks
Set_fly, then H_diff if BF says yes, else H_new; a successor on a circle is inclusive and wraps.
"""

from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

import mmh3

Key = int
Tid = int
Connection = tuple[Key, Tid]


class Circle:
    """H_new or H_diff: points in order, each with the thread that owns the keys up to it."""

    def __init__(self, points: Mapping[Key, Tid] | None = None) -> None:
        self.points = sorted((points or {}).items())
        self._keys = [point for point, _ in self.points]

    def __getitem__(self, key: Key) -> Tid:
        """The owner: the first point at or after key, else the first of all. KeyError when there is none."""
        if not self.points:
            raise KeyError(key)
        return self.points[bisect_left(self._keys, key) % len(self.points)][1]

    def as_dict(self) -> dict[Key, Tid]:
        return dict(self.points)


class Bloom(Container[Key]):
    """BF: hash_count bits of bit_count for each key, by murmur3 with as many seeds."""

    def __init__(self, bit_count: int = 1 << 16, hash_count: int = 13) -> None:
        self.bit_count, self.hash_count = bit_count, hash_count
        self.bits = bytearray((bit_count + 7) // 8)

    def _positions(self, key: Key) -> Iterable[int]:
        data = key.to_bytes(4, "little")
        return (mmh3.hash(data, seed, signed=False) * self.bit_count >> 32 for seed in range(self.hash_count))

    def add(self, key: Key) -> None:
        for at in self._positions(key):
            self.bits[at >> 3] |= 1 << (at & 7)

    def __contains__(self, key: object) -> bool:
        assert isinstance(key, int)
        return all(self.bits[at >> 3] >> (at & 7) & 1 for at in self._positions(key))


@dataclass
class BloomWithFalsePositives(Container[Key]):
    """BF as a worked example gives it: exactly what was added, and the false positives that are said."""

    false_positives: frozenset[Key]
    added: set[Key] = field(default_factory=set)

    def add(self, key: Key) -> None:
        self.added.add(key)

    def __contains__(self, key: object) -> bool:
        return key in self.added or key in self.false_positives


Filter = Bloom | BloomWithFalsePositives


def merge(set_diff: Iterable[Connection]) -> Circle:
    """Step 5: Set_diff in order of keys; neighbours of one thread become one point, the last of them."""
    merged: dict[Key, Tid] = {}
    last: Connection | None = None
    for key, tid in sorted(set_diff):
        if last is not None and last[1] == tid:
            del merged[last[0]]
        merged[key] = tid
        last = (key, tid)
    return Circle(merged)


class Step(Enum):
    """Where an update stands: the step that has been taken last."""

    IDLE = 0
    PLACED = 1  # H_new(n) is known
    OPENED = 2  # SYNs go by H_new(n) into Set_fly
    FILTERED = 3  # BF(n) holds every key that H_new(n) gives to another thread
    COLLECTED = 4  # Set_diff holds every live connection that BF(n) has
    MERGED = 5  # H_diff(n) is made


class FaithfulCsb:
    """One balancer. tables: each thread's live connections, which steps 3 and 4 walk."""

    def __init__(self, h_new: Mapping[Key, Tid], *, make_bloom: Callable[[], Filter] = Bloom) -> None:
        self.h_new = Circle(h_new)
        self.bf: Container[Key] = frozenset()
        self.h_diff = Circle()
        self.set_fly: set[Key] = set()  # of the last update, as equation 1 left it
        self.step = Step.IDLE
        self._make_bloom = make_bloom
        self._begin(self.h_new)

    def _begin(self, h_new: Circle) -> None:
        self.next_h_new = h_new
        self.next_bf = self._make_bloom()
        self.set_diff: set[Connection] = set()
        self.next_h_diff = Circle()
        self.flying: set[Key] = set()  # Set_fly of the update that runs

    def lookup(self, key: Key, *, syn: bool = False) -> Tid:
        """The thread of a packet; a SYN while an update runs is noted in Set_fly."""
        if syn and self.step.value >= Step.OPENED.value:
            self.flying.add(key)
        if key in self.flying:
            return self.next_h_new[key]
        if key in self.set_fly:
            return self.h_new[key]
        return self.h_diff[key] if self.h_diff.points and key in self.bf else self.h_new[key]

    def step_1_place(self, h_new: Mapping[Key, Tid]) -> None:
        """Points of the overloaded thread's neighbours move: H_new(n)."""
        assert self.step is Step.IDLE
        self._begin(Circle(h_new))
        self.step = Step.PLACED

    def step_2_open(self) -> None:
        """From here SYNs follow H_new(n), and their keys are in flight."""
        assert self.step is Step.PLACED
        self.step = Step.OPENED

    def step_3_filter(self, tables: Iterable[Connection]) -> None:
        """Each thread adds to BF(n) the keys of its connections that H_new(n) gives to another."""
        assert self.step is Step.OPENED
        for key, tid in tables:
            if self.next_h_new[key] != tid:
                self.next_bf.add(key)
        self.step = Step.FILTERED

    def step_4_collect(self, tables: Iterable[Connection]) -> None:
        """Each thread gives the connections that BF(n) has, false positives too: Set_diff."""
        assert self.step is Step.FILTERED
        self.set_diff = {(key, tid) for key, tid in tables if key in self.next_bf}
        self.step = Step.COLLECTED

    def step_5_merge(self) -> None:
        """Set_diff becomes the circle H_diff(n)."""
        assert self.step is Step.COLLECTED
        self.next_h_diff = merge(self.set_diff)
        self.step = Step.MERGED

    def step_6_publish(self) -> None:
        """Map n is in force; of Set_fly stays what it would send elsewhere, equation 1."""
        assert self.step is Step.MERGED
        self.h_new, self.bf, self.h_diff = self.next_h_new, self.next_bf, self.next_h_diff
        if self.h_diff.points:
            self.set_fly = {k for k in self.flying if k in self.bf and self.h_diff[k] != self.h_new[k]}
        else:
            self.set_fly = set()
        self.flying = set()
        self.step = Step.IDLE

    def update(self, h_new: Mapping[Key, Tid], tables: Iterable[Connection]) -> None:
        """All six steps with nothing arriving between them."""
        live = list(tables)
        self.step_1_place(h_new)
        self.step_2_open()
        self.step_3_filter(live)
        self.step_4_collect(live)
        self.step_5_merge()
        self.step_6_publish()
