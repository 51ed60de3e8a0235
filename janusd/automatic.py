"""The automatic mode at work: samples the threads of each app, asks autoweights, moves, and says in the log why.

The operator's weights are the base: they come back when the load is even, and a thread that is drained stays so.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from janusd.autoweights import Decision, History, Samples, Situation, decide
from janusd.balancer import JOIN_WEIGHT, Balancer, BalancerError, UpdateRecord
from janusd.log_format import fields
from janusd.wishes import Wishes

log = logging.getLogger("janusd.automatic")

EVERY_S = 0.25
LOAD_OVER_S = 1.0


@dataclass(frozen=True)
class Load:
    """One thread in about the last second; busy and queue from 0 to 1."""

    busy: float = 0.0
    queue: float = 0.0
    drops: int = 0  # since it attached
    connections: int = 0
    busy_s: float = 0.0  # since it attached
    exceptions_closed: int = 0  # the same
    held_us: int = 0
    held_wall_us: int = 0


@dataclass
class _App:
    wish: Wishes
    held: bool = False
    moving: bool = False
    history: History = field(default_factory=History)
    recent: tuple[tuple[float, Samples], ...] = ()  # what the loads are seen in; no change forgets it
    loads: dict[int, Load] = field(default_factory=dict)
    reason: str = ""
    moves: int = 0


class Automatic:
    """All apps; sample(app) gives what is known of its threads, by tid."""

    def __init__(
        self,
        balancer: Balancer,
        sample: Callable[[str], Samples],
        apps: Mapping[str, Wishes],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """apps: whether the mode is on for each, and the base."""
        self._balancer = balancer
        self._sample = sample
        self._clock = clock
        self._apps = {app: _App(wish) for app, wish in apps.items()}

    def is_on(self, app: str) -> bool:
        """Whether it moves weight for the app."""
        return self._apps[app].wish.on

    def switch(self, app: str, *, on: bool) -> None:
        """On: the weights of now become the base. Off: the weights stay as they are."""
        a = self._apps[app]
        if on and not a.wish.on:
            a.wish.base = dict(self._balancer.state(app).weights)
        a.wish.on = on
        a.reason = "" if on else "off"

    def rebase(self, app: str, weights: Mapping[int, float]) -> None:
        """The operator has given threads other weights."""
        a = self._apps[app]
        a.wish.base.update(weights)
        a.history = a.history.change(self._clock(), {})

    def hold(self, app: str, *, held: bool) -> None:
        """Move nothing while a change waits to be confirmed."""
        self._apps[app].held = held

    def loads(self, app: str) -> dict[int, Load]:
        """What each thread does, whether the mode is on or not."""
        return self._apps[app].loads

    def says(self, app: str) -> tuple[bool, str, int]:
        """Whether it is on, its last word, and how often it has moved weight."""
        a = self._apps[app]
        return a.wish.on, a.reason, a.moves

    def tick(self) -> None:
        """Look at all apps; called every EVERY_S."""
        for app, a in self._apps.items():
            now_s = self._clock()
            a.history = a.history.add(now_s, _steadied(a.history, self._sample(app)))
            a.recent = (
                *(t for t in a.recent if t[0] > now_s - LOAD_OVER_S - 2 * EVERY_S),
                a.history.taken[-1],
            )
            a.loads = _loads(a.recent)
            if a.wish.on and not a.held and not a.moving:
                self._consider(app, a, now_s)

    def _consider(self, app: str, a: _App, now_s: float) -> None:
        state = self._balancer.state(app)
        if state.phase or state.pending or state.rebuilding:
            return
        a.wish.base = {tid: a.wish.base.get(tid, JOIN_WEIGHT) for tid in state.weights}
        situation = Situation(base=a.wish.base, weights=state.weights, exceptions=state.exceptions)
        decision = decide(a.history, situation)
        a.reason = decision.reason
        if decision.weights is not None:
            self._move(app, a, decision, state.epoch, now_s)

    def _move(self, app: str, a: _App, decision: Decision, epoch: int, now_s: float) -> None:
        weights = decision.weights or {}
        try:
            ticket = self._balancer.set_weights(app, weights, epoch, "automatic")
        except BalancerError as error:  # threads have come or gone just now
            a.reason = str(error)
            return
        a.moving = True
        load = " ".join(f"{tid}={busy:.2f}" for tid, busy in sorted(decision.load.items()))
        text = " ".join(f"{tid}={weight:g}" for tid, weight in sorted(weights.items()))
        log.info("weight moved", extra=fields(app=app, reason=decision.reason, busy=load, weights=text))

        def ended(record: UpdateRecord) -> None:
            a.moving = False
            if record.published:
                a.moves += 1
                a.history = a.history.change(self._clock(), decision.step)

        ticket.then(ended)


def _steadied(history: History, samples: Samples) -> Samples:
    """A turn that ends while it is read may count for nothing once: no thread was busy for less time than before."""
    if not history.taken:
        return samples
    last = history.taken[-1][1]
    return {
        tid: replace(one, busy_s=last[tid].busy_s)
        if tid in last and last[tid].busy_s - LOAD_OVER_S < one.busy_s < last[tid].busy_s
        else one
        for tid, one in samples.items()
    }


def _loads(recent: tuple[tuple[float, Samples], ...]) -> dict[int, Load]:
    """What has happened between about a second ago and now."""
    end_s, last = recent[-1]
    begin = next((t for t in reversed(recent) if t[0] <= end_s - LOAD_OVER_S), recent[0])
    span_s = max(1e-3, end_s - begin[0])
    return {
        tid: Load(
            busy=max(0.0, min(1.0, (one.busy_s - begin[1].get(tid, one).busy_s) / span_s)),
            queue=one.queue,
            drops=one.drops,
            connections=one.connections,
            busy_s=one.busy_s,
            exceptions_closed=one.exceptions_closed,
            held_us=one.held_us,
            held_wall_us=one.held_wall_us,
        )
        for tid, one in last.items()
    }


def busy_us(total: int, since: int, now: int) -> int:
    """Microseconds that a thread says it was busy, with the turn that runs now; since 0: none does."""
    return total + (now - since if 0 < since < now else 0)
