"""csb-share: how well shares follow weights, and how much of the circle a change of weights moves."""

import random
import statistics
from bisect import bisect_left
from collections.abc import Callable, Mapping

import mmh3

from bench.framework import Options, Program, Row, make_row
from janusd.weights import NOBODY, SLOT_COUNT, divide, quotas, shares

TIDS = range(16)
POINTS = 16  # of a tid with weight 1
PLACE_SEED = 0x6A616E75  # circle.c
KEYS = 2**32
Weights = Mapping[int, float]
Circle = list[tuple[int, int]]


def wander(seed: int, steps: int) -> list[dict[int, float]]:
    """Weights that wander around 1, between 0.5 and 1.5; each fifth step drains one tid, which comes back."""
    draw = random.Random(seed)
    weights = dict.fromkeys(TIDS, 1.0)
    result = [dict(weights)]
    for step in range(steps):
        weights = {t: min(1.5, max(0.5, w + draw.uniform(-0.1, 0.1))) for t, w in weights.items()}
        result.append(weights | ({draw.randrange(16): 0.0} if step % 5 == 4 else {}))
    return result


def random_points(weights: Weights) -> Circle:
    """The paper's placing: as many murmur3 points as the weight says, the same ones each time."""
    placed: dict[int, int] = {}
    for tid, weight in sorted(weights.items()):
        wanted, number = (max(1, round(POINTS * weight)) if weight > 0 else 0), 0
        while wanted:
            point = mmh3.hash((tid << 32 | number).to_bytes(8, "little"), PLACE_SEED, signed=False)
            number += 1
            if point not in placed:
                placed[point] = tid
                wanted -= 1
    return sorted(placed.items())


def edited_points(circle: Circle, weights: Weights, draw: random.Random) -> Circle:
    """The paper's step 1 and no more: a tid gets points drawn anew, or loses some of its own, whichever."""
    of_tid: dict[int, list[int]] = {tid: [] for tid in weights}
    for point, tid in circle:
        of_tid[tid].append(point)
    for tid, placed in of_tid.items():
        wanted = max(1, round(POINTS * weights[tid])) if weights[tid] > 0 else 0
        draw.shuffle(placed)
        del placed[wanted:]
        placed.extend(draw.randrange(KEYS) for _ in range(wanted - len(placed)))
    return sorted({point: tid for tid, placed in of_tid.items() for point in placed}.items())


def shares_of_points(circle: Circle) -> dict[int, float]:
    """What part of all keys each tid owns."""
    found: dict[int, float] = {}
    for (before, _), (point, tid) in zip([circle[-1], *circle], circle, strict=False):
        found[tid] = found.get(tid, 0.0) + ((point - before) % KEYS or KEYS) / KEYS
    return found


def owner(circle: Circle, key: int) -> int:
    """The first point at or after key, wrapping."""
    return circle[bisect_left(circle, (key, -1)) % len(circle)][1]


def moved(one: Circle, two: Circle) -> float:
    """The part of all keys that two circles give to different tids."""
    ends = sorted({point for point, _ in (*one, *two)})
    before = [ends[-1] - KEYS, *ends]
    parts = [e - b for b, e in zip(before, ends, strict=False) if owner(one, e) != owner(two, e)]
    return sum(parts) / KEYS


def errors(found: Mapping[int, float], weights: Weights) -> list[float]:
    """How far each serving tid's share is from its weight, in percent of it."""
    total = sum(weights.values())
    return [100 * abs(found.get(t, 0.0) * total / w - 1) for t, w in weights.items() if w > 0]


def run(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """The whole program."""
    worst: dict[str, list[float]] = {"janus": [], "random": []}
    typical: dict[str, list[float]] = {"janus": [], "random": []}
    parts: dict[str, list[float]] = {"janus": [], "random": [], "must": []}
    for seed in range(options.runs(20, 5)):
        progress(f"weights {seed}")
        steps = wander(seed, 20)
        homes = owners = divide([NOBODY] * SLOT_COUNT, steps[0])
        circle = random_points(steps[0])
        for weights in steps[1:]:
            after, points = divide(owners, weights, homes), random_points(weights)
            for form, found in (("janus", shares(after)), ("random", shares_of_points(points))):
                wrong = errors(found, weights)
                worst[form].append(max(wrong))
                typical[form].append(statistics.fmean(e * e for e in wrong) ** 0.5)
            parts["janus"].append(100 * sum(a != b for a, b in zip(owners, after, strict=True)) / SLOT_COUNT)
            parts["random"].append(100 * moved(circle, points))
            quota = quotas(weights)
            must = sum(max(0, owners.count(t) - quota[t]) for t in TIDS)
            parts["must"].append(100 * must / SLOT_COUNT)
            owners, circle = after, points
    return [
        make_row("share error, worst tid", "%", worst["janus"], worst["random"], higher_is_better=False),
        make_row("share error, r.m.s.", "%", typical["janus"], typical["random"], higher_is_better=False),
        make_row(
            "moved per update / random points", "%", parts["janus"], parts["random"], higher_is_better=False
        ),
        make_row(
            "moved per update / what must move", "%", parts["janus"], parts["must"], higher_is_better=False
        ),
    ]


PROGRAM = Program(
    "csb-share",
    "shares against weights: slots by quota and the paper's random points",
    run,
    notes=(
        "16 tids, weights that wander between 0.5 and 1.5, each fifth update drains a tid; random: 16 points at",
        "weight 1. Error: of a tid's share, relative to its weight. Medians over updates; an average bucket with",
        "16 random points is off by 25 %, which the paper's figure divides by the root of 16.",
    ),
)
