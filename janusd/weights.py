"""How the unit circle is divided: 4,096 equal slots, each with one owner, so that shares follow weights.

      key 0                                                                          2^32
       |-- slot 0: tid 0 --|-- slot 1: tid 0 --|-- slot 2: tid 1 --| ... |-- slot 4095 --|

Pure. A change of weights moves as few slots as can be: only a connection whose slot moves is affected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


def divide(owners: Sequence[int], weights: Mapping[int, float]) -> list[int]:
    """The owners after weights apply: every quota met exactly, no slot moved without need.

    A tid above its quota gives its last slots, so that what it gave last comes back to it first.
    """
    quota = quotas(weights)
    if not any(quota.values()):
        return [NOBODY] * SLOT_COUNT
    kept = dict.fromkeys(quota, 0)
    result = [NOBODY] * SLOT_COUNT
    for slot, tid in enumerate(owners):
        if tid in kept and kept[tid] < quota[tid]:
            kept[tid] += 1
            result[slot] = tid
    needy = iter([tid for tid in quota for _ in range(quota[tid] - kept[tid])])
    return [next(needy) if tid == NOBODY else tid for tid in result]


def points(owners: Sequence[int]) -> list[tuple[int, int]]:
    """The (point, tid) of H_new: a tid owns every key up to and with its point, from the point before."""
    if NOBODY in owners:
        return []
    ends = [slot for slot in range(SLOT_COUNT) if slot + 1 == SLOT_COUNT or owners[slot + 1] != owners[slot]]
    return [(((slot + 1) << SLOT_SHIFT) - 1, owners[slot]) for slot in ends]


def shares(owners: Sequence[int]) -> dict[int, float]:
    """What part of all keys each tid owns."""
    counts: dict[int, int] = {}
    for tid in owners:
        if tid != NOBODY:
            counts[tid] = counts.get(tid, 0) + 1
    return {tid: count / SLOT_COUNT for tid, count in sorted(counts.items())}
