"""Which slots move when weights change, by the connections that are there: as many come home as can be.

A connection whose slot is another thread's is an exception in the view. Moving a slot makes exceptions of its
owner's connections and ends those of the new owner's. So a thread that must give slots gives those with the fewest of
its own, to the threads whose connections are in them; then pairs of slots are exchanged while that ends more
exceptions than it makes.

Pure. How many exceptions of which thread are in a slot is the view's; how many connections a slot has is taken to
be the average.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from janusd.weights import NOBODY, SLOT_COUNT, divide, quotas

EXCHANGE_PART = 0.25  # of a slot's connections: what an exchange must bring home at least

Slots = Mapping[int, Mapping[int, int]]


@dataclass(frozen=True)
class Strangers:
    """Exceptions by slot and thread, and the app's connections in all."""

    slots: Slots = field(default_factory=dict)
    connections: int = 0


def place(
    owners: Sequence[int], weights: Mapping[int, float], homes: Sequence[int], strangers: Strangers
) -> list[int]:
    """As divide(): every quota met exactly; what moves is chosen by who is there."""
    quota = quotas(weights)
    if not strangers.slots or not any(quota.values()) or any(tid not in quota for tid in owners):
        return divide(owners, weights, homes)
    held = Counter(owners)
    if all(held[tid] == count for tid, count in quota.items()):
        return list(owners)
    given = _give(owners, quota, homes, strangers.slots)
    return _Exchange(owners, given, quota, strangers).run()


def _give(owners: Sequence[int], quota: Mapping[int, int], homes: Sequence[int], slots: Slots) -> list[int]:
    """No slot moves without need."""
    held = Counter(owners)
    wanted = {tid: quota[tid] - held[tid] for tid in quota if quota[tid] > held[tid]}
    surplus = {tid: held[tid] - quota[tid] for tid in quota if held[tid] > quota[tid]}
    offers: list[tuple[int, int, int, int]] = []  # connections that come or stay home, home's need, slot, to
    for slot, tid in enumerate(owners):
        if tid not in surplus:
            continue
        there, home = slots.get(slot, {}), homes[slot]
        foreign = sum(there.values())
        offers.append((foreign, 0 if home == tid else 2 if home in wanted else 1, slot, NOBODY))
        offers += [(foreign + count, 3, slot, to) for to, count in there.items() if to in wanted]
    result = list(owners)
    for _, _, slot, to in sorted(offers, reverse=True):
        tid = owners[slot]
        if result[slot] != tid or surplus[tid] == 0:
            continue
        if to == NOBODY and wanted.get(homes[slot], 0) > 0:
            to = homes[slot]
        if to != NOBODY:
            if wanted[to] == 0:
                continue
            wanted[to] -= 1
        surplus[tid] -= 1
        result[slot] = to
    needy = iter([tid for tid, count in wanted.items() for _ in range(count)])
    return [next(needy) if tid == NOBODY else tid for tid in result]


class _Exchange:
    """Two threads give each other a slot, the best such pair first."""

    def __init__(
        self, before: Sequence[int], result: list[int], quota: Mapping[int, int], strangers: Strangers
    ) -> None:
        self._before = before
        self._result = result
        self._tids = [tid for tid in sorted(quota) if quota[tid]]
        self._slots = strangers.slots
        self._average = strangers.connections / SLOT_COUNT
        self._least = max(1.0, EXCHANGE_PART * self._average)
        self._offers: dict[tuple[int, int], list[tuple[float, int]]] = {}  # (from, to): (cost, slot), heaps
        self._cheapest: dict[int, list[tuple[float, int]]] = {}  # from: what leaving it costs
        for slot in self._slots:
            self._offer(slot)

    def run(self) -> list[int]:
        """Until no pair brings enough home."""
        tids = self._tids
        pairs = [(-self._gain(a, b), a, b) for i, a in enumerate(tids) for b in tids[i + 1 :]]
        heapify(pairs)
        while pairs:
            gain, a, b = heappop(pairs)
            now = self._gain(a, b)
            if now < self._least:
                continue
            if now == -gain:
                self._swap(a, b)
                now = self._gain(a, b)
            heappush(pairs, (-now, a, b))
        return self._result

    def _offer(self, slot: int) -> None:
        there = dict(self._slots[slot])
        there[self._before[slot]] = round(max(0.0, self._average - sum(there.values())))
        owner = self._result[slot]
        mine = there.pop(owner, 0)
        heappush(self._cheapest.setdefault(owner, []), (mine, slot))
        for tid, count in there.items():
            heappush(self._offers.setdefault((owner, tid), []), (mine - count, slot))

    def _best(self, giver: int, taker: int) -> tuple[float, int] | None:
        """The slot that costs least to give: connections that become exceptions, less those that cease to be."""
        heads: list[tuple[float, int]] = []
        for heap in (self._offers.get((giver, taker)), self._cheapest.get(giver)):
            while heap and self._result[heap[0][1]] != giver:
                heappop(heap)
            if heap:
                heads.append(heap[0])
        return min(heads, default=None)

    def _gain(self, a: int, b: int) -> float:
        there, back = self._best(a, b), self._best(b, a)
        return 0.0 if there is None or back is None else -(there[0] + back[0])

    def _swap(self, a: int, b: int) -> None:
        there, back = self._best(a, b), self._best(b, a)
        assert there is not None
        assert back is not None
        self._result[there[1]], self._result[back[1]] = b, a
        self._offer(there[1])
        self._offer(back[1])
