"""How the unit circle is divided: 4,096 equal slots, each with one owner, so that shares follow weights.

      key 0                                                                          2^32
       |-- slot 0: tid 0 --|-- slot 1: tid 0 --|-- slot 2: tid 1 --| ... |-- slot 4095 --|

Pure. A change of weights moves as few slots as can be: only a connection whose slot moves is affected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

SLOT_COUNT = 4096  # CSB_SLOT_COUNT
SLOT_SHIFT = 20  # CSB_SLOT_SHIFT
NOBODY = -1
WEIGHT_MAX = 1000.0


def quotas(weights: Mapping[int, float]) -> dict[int, int]:
    """Slots of each tid, by largest remainder; at least one for a weight above 0, none for weight 0.

    With no weight above 0, nobody owns anything.
    """
    serving = {tid: weight for tid, weight in sorted(weights.items()) if weight > 0}
    total = sum(serving.values())
    result = dict.fromkeys(sorted(weights), 0)
    if not serving:
        return result
    exact = {tid: SLOT_COUNT * weight / total for tid, weight in serving.items()}
    result |= {tid: int(share) for tid, share in exact.items()}
    left = SLOT_COUNT - sum(result.values())
    for tid in sorted(exact, key=lambda t: (int(exact[t]) - exact[t], t))[:left]:
        result[tid] += 1
    for tid in serving:
        if result[tid] == 0:
            result[max(result, key=lambda t: result[t])] -= 1
            result[tid] = 1
    return result


def divide(
    owners: Sequence[int], weights: Mapping[int, float], homes: Sequence[int] | None = None
) -> list[int]:
    """The owners after weights apply: every quota met exactly, no slot moved without need.

    A tid above its quota gives its last slots, so that what it gave last comes back to it first. With homes,
    where each slot belongs when all is even, it first gives those that are not its own, to their homes if these
    need slots: connections that were moved away are then at home again, and are no exceptions any more.
    """
    quota = quotas(weights)
    if not any(quota.values()):
        return [NOBODY] * SLOT_COUNT
    homes = owners if homes is None else homes
    held: dict[int, list[int]] = {tid: [] for tid in quota}
    for slot, tid in enumerate(owners):
        if tid in held:
            held[tid].append(slot)
    wanted = {tid: quota[tid] - min(quota[tid], len(slots)) for tid, slots in held.items()}
    result = [NOBODY] * SLOT_COUNT
    for tid, slots in held.items():
        for slot in _kept_first(tid, slots, homes, wanted)[: quota[tid]]:
            result[slot] = tid
    for slot, tid in enumerate(result):
        if tid == NOBODY and wanted.get(homes[slot], 0) > 0:
            result[slot] = homes[slot]
            wanted[homes[slot]] -= 1
    needy = iter([tid for tid, count in wanted.items() for _ in range(count)])
    return [next(needy) if tid == NOBODY else tid for tid in result]


def inherit(owners: Sequence[int], weights: Mapping[int, float]) -> list[int]:
    """The owners after those without weight have gone: their slots go to the others by weight, no other slot moves."""
    quota = quotas(weights)
    if not any(quota.values()):
        return [NOBODY] * SLOT_COUNT
    result = [tid if tid in quota else NOBODY for tid in owners]
    lack = {tid: count - result.count(tid) for tid, count in quota.items() if count}
    needy = iter([tid for tid, count in lack.items() for _ in range(count)])
    return [next(needy) if tid == NOBODY else tid for tid in result]


def moved_slots(before: Iterable[int], after: Iterable[int]) -> int:
    """A bit per slot whose owner changes from somebody to another."""
    pairs = enumerate(zip(before, after, strict=True))
    return sum(1 << slot for slot, (was, now) in pairs if was not in (now, NOBODY))


def _kept_first(tid: int, slots: list[int], homes: Sequence[int], wanted: Mapping[int, int]) -> list[int]:
    """What a tid keeps first: its own slots, then others', last those whose home needs them."""
    foreign = [slot for slot in slots if homes[slot] != tid]
    if not foreign:
        return slots
    needy = {tid for tid, count in wanted.items() if count > 0}
    own = [slot for slot in slots if homes[slot] == tid]
    kept = [slot for slot in foreign if homes[slot] not in needy]
    return own + kept + [slot for slot in foreign if homes[slot] in needy]


def points(owners: Sequence[int]) -> list[tuple[int, int]]:
    """The (point, tid) of H_new: a tid owns every key up to and with its point, from the point before."""
    if NOBODY in owners:
        return []
    ends = [slot for slot in range(SLOT_COUNT) if slot + 1 == SLOT_COUNT or owners[slot + 1] != owners[slot]]
    return [(((slot + 1) << SLOT_SHIFT) - 1, owners[slot]) for slot in ends]


def shares(owners: Sequence[int]) -> dict[int, float]:
    """What part of all keys each tid owns."""
    counts = Counter(owners)
    return {tid: counts[tid] / SLOT_COUNT for tid in sorted(counts) if tid != NOBODY}
