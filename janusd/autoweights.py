"""The automatic mode, pure: samples of the TCP threads in; weights and a reason out.

Only new connections move, so a weight shows in the load as late as connections live.  What shows at once is what
a connection costs: the time that the thread was busy, for each connection that it served to the end.  This
does not depend on the weights, nor on connections that came by former weights, nor on saturation, which
leaves fewer to be served.  So each thread's part of the arrivals is made inverse to its cost, and is right
before its effect has come: there is nothing to overshoot.  Long connections that burn time add to the cost of
the others, whose part shrinks step by step until all threads are equally busy; two steps in one direction
foretell where that is.

A move is made only when it pays: above a threshold that rises with the connections that it would leave as
exceptions, beyond what chance explains, not more often than once in INTERVAL_S.  When the operator's own
weights would do, they come back as they were, and their slots with them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

INTERVAL_S = 1.0  # between two changes
SETTLE_LIVES = 1.25  # mean lifetimes of a connection, for which nothing is judged after a change
SETTLE_MAX_S = 30.0  # but no longer than this
EVIDENCE_S = 0.5  # at least
HISTORY_S = 40.0  # older evidence is forgotten
SERVED_MIN = 16  # connections of each thread, in the mean, without which there is no evidence
SERVED_ENOUGH = 3000  # with so many of each, older evidence is not needed
PRIOR = 4.0  # connections of the mean cost that every thread is taken to have served as well
ENTER, HOME = 0.06, 0.03  # what max/mean may exceed 1 by before weights change; before they go back
CHANCE = 2.5  # standard deviations that are no evidence
EXCEPTIONS_COST = 2.0  # with every connection an exception, the threshold is so many times higher, and one
BUSY_MIN = 0.1  # no thread is busier than this: there is nothing to gain
QUEUE_HIGH = 0.25  # of the slots for received packets wait in the ring: the thread is behind
STEP_MAX = 4.0  # a thread's part changes by this factor at most
FORETELL_MAX = 0.7  # of a step is taken to remain for the next one
FLOOR = 0.05  # of the even part, so that evidence goes on coming


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What is known of one thread; all but queue and connections count up."""

    busy_s: float
    served: int  # connections that have ended
    drops: int = 0  # packets for which it had no room
    queue: float = 0.0  # part of its slots for received packets that wait in its rings
    connections: int = 0
    exceptions_closed: int = 0  # connections that have ended while the circle gave their keys to others
    held_us: int = 0  # the longest part of a turn that an update took, in processor time
    held_wall_us: int = 0  # and by the clock


Samples = Mapping[int, Sample]


@dataclass(frozen=True)
class History:
    """What was sampled, and the last change."""

    taken: tuple[tuple[float, Samples], ...] = ()
    changed_s: float = -math.inf
    step: Mapping[int, float] = field(default_factory=dict)  # log of each part after the change to before

    def add(self, now_s: float, samples: Samples) -> History:
        """With one more; of other threads than before, or counting backwards: this one alone."""
        if self.taken and not _follows(self.taken[-1][1], samples):
            return History(((now_s, samples),), self.changed_s)
        kept = tuple(t for t in self.taken if t[0] >= now_s - HISTORY_S)
        return replace(self, taken=(*kept, (now_s, samples)))

    def change(self, now_s: float, step: Mapping[int, float]) -> History:
        """After a change of weights."""
        return History(self.taken[-1:], now_s, step)

    def settled_s(self) -> float:
        """When most connections of before the last change have ended: their lifetime by Little's law."""
        (begin_s, first), (end_s, last) = self.taken[0], self.taken[-1]
        served = sum(one.served - first[tid].served for tid, one in last.items())
        if self.changed_s == -math.inf or not served:
            return self.changed_s
        lifetime_s = sum(one.connections for one in last.values()) * (end_s - begin_s) / served
        return self.changed_s + min(SETTLE_MAX_S, SETTLE_LIVES * lifetime_s)


def _follows(before: Samples, after: Samples) -> bool:
    return before.keys() == after.keys() and all(
        after[tid].busy_s >= one.busy_s and after[tid].served >= one.served for tid, one in before.items()
    )


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What is in force. base: the operator's weights; weights: those that are divided by now."""

    base: Mapping[int, float]
    weights: Mapping[int, float]
    exceptions: int = 0


@dataclass(frozen=True)
class Decision:
    """weights None: leave all as it is. load: part of the time that each thread was busy. step: for History.change."""

    weights: dict[int, float] | None
    reason: str
    load: dict[int, float] = field(default_factory=dict)
    step: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """What happened in the last seconds of the history."""

    seconds: float
    busy: dict[int, float]  # seconds
    served: dict[int, int]
    drops: dict[int, int]
    last: Samples

    def behind(self) -> set[int]:
        """Threads that cannot take what they get."""
        return {tid for tid, one in self.last.items() if self.drops[tid] or one.queue >= QUEUE_HIGH}

    def costs(self) -> dict[int, float]:
        """Busy seconds of each thread for a connection served."""
        mean = sum(self.busy.values()) / max(1, sum(self.served.values()))
        return {
            tid: max(1e-9, (busy + PRIOR * mean) / (self.served[tid] + PRIOR))
            for tid, busy in self.busy.items()
        }


def decide(history: History, now: Situation) -> Decision:
    """What to do with the evidence so far."""
    tids = sorted(tid for tid, weight in now.base.items() if weight > 0)
    if len(tids) < 2 or not history.taken or not set(tids) <= history.taken[-1][1].keys():
        return Decision(None, "there are not two threads to choose between")
    evidence = gather(history, tids)
    if evidence is None:
        return Decision(None, "too few connections have ended, or too few since the last change")
    load = {tid: busy / evidence.seconds for tid, busy in evidence.busy.items()}
    urgent = evidence.behind()
    if history.taken[-1][0] - history.changed_s < INTERVAL_S:
        return Decision(None, "the last change is too recent", load)
    if max(load.values()) < BUSY_MIN and not urgent:
        return Decision(None, "no thread is busy", load)
    costs = evidence.costs()
    have = _parts(now.weights, tids)
    if (home := _parts(now.base, tids)) != have and _excess(costs, home) < HOME and not urgent:
        return Decision(dict(now.base), "costs are even again: the operator's weights", load)
    excess, threshold = _excess(costs, have), _threshold(evidence, now, costs, have)
    if excess <= threshold:
        return Decision(None, f"max/mean {1 + excess:.2f} is within {1 + threshold:.2f}", load)
    wanted = _limited(costs, have, urgent, history.step)
    step = {tid: math.log(part / max(have[tid], 1e-6)) for tid, part in wanted.items()}
    return Decision(_weights(wanted), _why(costs, have, wanted, excess), load, step)


def gather(history: History, tids: list[int]) -> Evidence | None:
    """The shortest part of the history that has enough connections, else all; None: even that is too little."""
    end_s, last = history.taken[-1]
    settled_s = history.settled_s()
    found = None
    for start_s, first in reversed(history.taken):
        if start_s < settled_s or (found is not None and min(found[2].values()) >= SERVED_ENOUGH):
            break
        if end_s - start_s >= EVIDENCE_S:
            found = start_s, first, {tid: last[tid].served - first[tid].served for tid in tids}
    if found is None or sum(found[2].values()) < SERVED_MIN * len(tids):
        return None
    start_s, first, served = found
    return Evidence(
        end_s - start_s,
        {tid: last[tid].busy_s - first[tid].busy_s for tid in tids},
        served,
        {tid: max(0, last[tid].drops - first[tid].drops) for tid in tids},
        {tid: last[tid] for tid in tids},
    )


def _parts(weights: Mapping[int, float], tids: list[int]) -> dict[int, float]:
    total = sum(weights.get(tid, 0.0) for tid in tids) or 1.0
    return {tid: weights.get(tid, 0.0) / total for tid in tids}


def _excess(costs: Mapping[int, float], parts: Mapping[int, float]) -> float:
    """How far the busiest thread will be above the mean when these parts have had their effect."""
    loads = [costs[tid] * part for tid, part in parts.items()]
    return max(loads) * len(loads) / max(1e-12, sum(loads)) - 1


def _inverse(costs: Mapping[int, float]) -> dict[int, float]:
    total = sum(1 / cost for cost in costs.values())
    return {tid: 1 / cost / total for tid, cost in costs.items()}


def _threshold(
    evidence: Evidence, now: Situation, costs: Mapping[int, float], have: Mapping[int, float]
) -> float:
    wanted = _inverse(costs)
    moved = sum(max(0.0, part - wanted[tid]) for tid, part in have.items())
    connections = max(1, sum(one.connections for one in evidence.last.values()))
    exceptions = min(1.0, now.exceptions / connections + moved)
    if evidence.behind():
        return ENTER * (1 + EXCEPTIONS_COST * exceptions)
    fewest = min(evidence.served.values()) + PRIOR
    return max(ENTER * (1 + EXCEPTIONS_COST * exceptions), CHANCE / math.sqrt(fewest))


def _limited(
    costs: Mapping[int, float], have: Mapping[int, float], behind: set[int], last: Mapping[int, float]
) -> dict[int, float]:
    """Parts inverse to the costs, within STEP_MAX and FLOOR; a thread that is behind gets no more than it has."""
    floor = FLOOR / len(have)
    inverse = _inverse(costs)
    wanted = {}
    for tid, part in have.items():
        step = _foretold(math.log(inverse[tid] / max(part, 1e-6)), last.get(tid, 0.0))
        wanted[tid] = max(floor, part / STEP_MAX, min(part * math.exp(step), max(part, floor) * STEP_MAX))
    capped = {tid: min(wanted[tid], have[tid]) for tid in behind} if len(behind) < len(have) else {}
    room = (1 - sum(capped.values())) / sum(part for tid, part in wanted.items() if tid not in capped)
    return {tid: capped.get(tid, part * room) for tid, part in wanted.items()}


def _foretold(step: float, last: float) -> float:
    """A part that has to fall twice carries load that no new connection brings: the sum of this step and those that
    would follow, when each is to the one before as this is to the last.  Of a step back, half."""
    if step * last < 0:
        return step / 2
    if step >= 0 or step <= last or last == 0:
        return step
    return step / (1 - min(FORETELL_MAX, step / last))


def _weights(parts: Mapping[int, float]) -> dict[int, float]:
    return {tid: max(0.001, round(part * len(parts), 3)) for tid, part in parts.items()}


def _why(
    costs: Mapping[int, float], have: Mapping[int, float], wanted: Mapping[int, float], excess: float
) -> str:
    mean = sum(costs.values()) / len(costs)
    tid = max(have, key=lambda t: abs(math.log((wanted[t] + 1e-6) / (have[t] + 1e-6))))
    return (
        f"max/mean {1 + excess:.2f}: a connection costs thread {tid} {costs[tid] * 1e3:.3g} ms, the mean thread "
        f"{mean * 1e3:.3g} ms; its part goes from {have[tid]:.1%} to {wanted[tid]:.1%}"
    )
