"""Which TCP thread of an app owns which keys: the circles in force, requests to change them, what became of these.

    set_weights, drain, join, leave ... ──> wanted ──one update at a time──> Runner ──> in force, a record

Every request gives a Ticket. Requests that come while an update runs are merged into the next one, the last word
about a thread wins. A request that is aborted changes nothing, and its ticket says why; threads that came stay so,
and are tried again. What a dead thread owned goes to the others at once, by an update that asks nobody: no living
connection's key moves.

    balancer.set_weights("web", {0: 2.0, 1: 1.0}, expected_epoch=7).then(lambda record: ...)
    balancer.drain("web", 1); balancer.undrain("web", 1)
    balancer.plan("web", {0: 3.0}) -> Preview      what would move; pure
    balancer.state("web") -> AppState              a snapshot; balancer.watch(f) calls f(app) when it changes

Requests raise a BalancerError (UnknownApp, UnknownThread, BadWeight, EpochMismatch) and then change nothing. All of it
belongs to the control thread; nothing here blocks.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from janusd.placing import Strangers, place
from janusd.weights import NOBODY, SLOT_COUNT, WEIGHT_MAX, divide, inherit, moved_slots, points, shares

SECRET_BYTES = 16
JOIN_WEIGHT = 1.0
RECORDS_MAX = 64
RETRY_FIRST_S = 0.5
RETRY_LAST_S = 30.0
PUBLISHED = "published"


class BalancerError(Exception):
    """A request that cannot be; code is one word for programs."""

    code = "error"


class UnknownApp(BalancerError):
    """No app of this name is configured."""

    code = "unknown_app"


class UnknownThread(BalancerError):
    """The app has no thread online with this tid."""

    code = "unknown_thread"


class BadWeight(BalancerError):
    """A weight is not from 0 to WEIGHT_MAX, or no thread would serve."""

    code = "bad_weight"


class EpochMismatch(BalancerError):
    """The circle has changed since the caller looked: compare and set has failed."""

    code = "epoch_mismatch"


@dataclass
class Circle:
    """One app's circle; owners and homes have an entry for each slot.

    homes: where a slot belongs when all weights are equal. flagged: a bit per slot with exceptions in it.
    drained: the weight that a drained thread comes back to.
    """

    secret: bytes
    epoch: int = 0
    weights: dict[int, float] = field(default_factory=dict)
    owners: list[int] = field(default_factory=lambda: [NOBODY] * SLOT_COUNT)
    homes: list[int] = field(default_factory=lambda: [NOBODY] * SLOT_COUNT)
    flagged: int = 0
    drained: dict[int, float] = field(default_factory=dict)

    def points(self) -> list[tuple[int, int]]:
        """What to publish."""
        return points(self.owners)

    def shares(self) -> dict[int, float]:
        """The part of the keys that each thread owns."""
        return shares(self.owners)

    def keys(self) -> tuple[int, int]:
        """The secret as struct csb_secret's k0 and k1."""
        return int.from_bytes(self.secret[:8], "little"), int.from_bytes(self.secret[8:], "little")


@dataclass(frozen=True)
class UpdateRecord:
    """What became of one update."""

    app: str
    epoch: int  # in force when it had ended
    reason: str  # "weights; join 3"
    requested_at: float  # seconds since 1970, of the first request in it
    phases_ms: Mapping[
        str, float
    ]  # "collect", "check", "drain", "seal", "publish", "open": how long each took
    kept: int  # connections whose keys moved and which stay where they are
    exceptions: int  # keys that are exceptions in the view it published
    moved_slots: int
    outcome: str  # PUBLISHED, or why it was aborted

    @property
    def published(self) -> bool:
        """Whether it is in force."""
        return self.outcome == PUBLISHED


class Ticket:
    """The answer to a request, when there is one."""

    def __init__(self, app: str) -> None:
        self.app = app
        self.record: UpdateRecord | None = None
        self._callbacks: list[Callable[[UpdateRecord], None]] = []

    @property
    def done(self) -> bool:
        """Whether the update has ended, well or not."""
        return self.record is not None

    def then(self, callback: Callable[[UpdateRecord], None]) -> None:
        """Call back with the record, at once if it is there."""
        if self.record is not None:
            callback(self.record)
        else:
            self._callbacks.append(callback)

    def resolve(self, record: UpdateRecord) -> None:
        """The update has ended."""
        self.record = record
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(record)


@dataclass(frozen=True)
class Preview:
    """What a change of weights would do."""

    epoch: int  # that it is compared with
    weights: Mapping[int, float]
    shares: Mapping[int, float]
    moved_slots: int  # of SLOT_COUNT
    moves: Mapping[tuple[int, int], int]  # slots by (from, to)


@dataclass(frozen=True)
class AppState:
    """A snapshot of one app."""

    app: str
    epoch: int
    weights: Mapping[int, float]
    shares: Mapping[int, float]
    drained: tuple[int, ...]
    phase: str  # of the update that runs; "" for none
    pending: bool  # another one is due behind it, or will be tried again
    exceptions: int
    rebuilding: bool  # after a restart, until the exceptions are known again
    updates: tuple[UpdateRecord, ...]  # the last ones, the newest last


@dataclass(frozen=True)
class Target:
    """What an update is to bring into force."""

    app: str
    epoch: int
    reason: str
    weights: Mapping[int, float]
    owners: list[int]
    homes: list[int]
    rebuild: bool = False  # owners are as they were, the exceptions are to be collected again
    dead: frozenset[int] = frozenset()  # their slots alone have moved: nobody need be asked
    before: frozenset[int] = frozenset()  # threads of the circle in force
    rebuilding: bool = False  # in flagged slots there are exceptions that nobody knows

    def points(self) -> list[tuple[int, int]]:
        """H_new(n)."""
        return points(self.owners)


@dataclass(frozen=True)
class Result:
    """How an update has ended."""

    outcome: str  # PUBLISHED, or why not
    phases_ms: Mapping[str, float] = field(default_factory=dict)
    kept: int = 0
    exceptions: int = 0
    flagged: int = 0


class Runner(Protocol):
    """Carries out one update of an app at a time."""

    def start(self, target: Target, done: Callable[[Result], None]) -> None:
        """Begin; done is called once, perhaps at once."""

    def abort(self, app: str, why: str) -> None:
        """End the update that runs, by done, unless it is published already: then it goes on to its end."""

    def strangers(self, app: str) -> Strangers:
        """The exceptions in force, and how many connections there are."""

    def phase(self, app: str) -> str:
        """Of the update that runs; "" for none."""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        """A timer of the control thread."""


@dataclass
class _App:
    """One app: what is in force and what is wanted."""

    app: str
    circle: Circle
    members: set[int]
    dead: set[int] = field(default_factory=set)  # on the circle still
    overrides: dict[int, float] = field(default_factory=dict)  # asked for and not yet in force
    reasons: list[str] = field(default_factory=list)
    requested_at: float = 0.0
    left_at: float = 0.0
    waiting: list[Ticket] = field(default_factory=list)  # for the next update
    running: Target | None = None
    running_tickets: list[Ticket] = field(default_factory=list)
    running_since: float = 0.0
    kept: Circle | None = None  # what the next janusd must know of the update that runs
    rebuild: bool = False
    held: bool = False  # after a restart: no update until the threads are back
    exceptions: int = 0
    retry_s: float = RETRY_FIRST_S
    retry_due: bool = False
    records: deque[UpdateRecord] = field(default_factory=lambda: deque(maxlen=RECORDS_MAX))

    def out_of_step(self) -> bool:
        """Whether the circle does not follow the threads."""
        return self.rebuild or set(self.circle.weights) != self.members

    def target(
        self, reason: str, weights: Mapping[int, float], owners: list[int], homes: list[int]
    ) -> Target:
        """What an update from here brings."""
        return Target(
            app=self.app,
            epoch=self.circle.epoch + 1,
            reason=reason,
            weights=weights,
            owners=owners,
            homes=homes,
            before=frozenset(self.circle.weights),
            rebuilding=self.held or self.rebuild,
        )

    def wanted(self) -> dict[int, float]:
        """The weights that the next update brings."""
        now = self.circle.weights
        return {t: self.overrides.get(t, now.get(t, JOIN_WEIGHT)) for t in sorted(self.members)}


class Balancer:
    """The circles of all apps."""

    def __init__(self, random: Callable[[int], bytes], wall: Callable[[], float] = time.time) -> None:
        self._random = random
        self._wall = wall
        self._apps: dict[str, _App] = {}
        self._runner: Runner | None = None
        self._known: Collection[str] | None = None
        self._watchers: list[Callable[[str], None]] = []

    def use(self, runner: Runner, apps: Collection[str]) -> None:
        """Carry updates out by runner from now on; apps are those that requests may name."""
        self._runner = runner
        self._known = apps

    def watch(self, callback: Callable[[str], None]) -> None:
        """Call back with the app's name after each update, and when one has been asked for."""
        self._watchers.append(callback)

    # --- questions ---

    def circle(self, app: str) -> Circle:
        """The app's circle in force, made with a fresh secret when it is first asked for."""
        return self._app(app).circle

    def state(self, app: str) -> AppState:
        """What is in force, what runs, what has been."""
        a = self._requested(app)
        return AppState(
            app=app,
            epoch=a.circle.epoch,
            weights=dict(a.circle.weights),
            shares=a.circle.shares(),
            drained=tuple(sorted(t for t, weight in a.circle.weights.items() if weight == 0)),
            phase=self._runner.phase(app) if self._runner is not None else "",
            pending=bool(a.reasons),
            exceptions=a.exceptions,
            rebuilding=a.rebuild or a.held,
            updates=tuple(a.records),
        )

    def plan(self, app: str, weights: Mapping[int, float]) -> Preview:
        """What set_weights would do now. Changes nothing."""
        a = self._requested(app)
        self._check(a, weights)
        wanted = a.wanted() | dict(weights)
        before = a.circle.owners
        after = place(before, wanted, a.circle.homes, self._strangers(app))
        moves: dict[tuple[int, int], int] = {}
        for was, now in zip(before, after, strict=True):
            if was != now:
                moves[was, now] = moves.get((was, now), 0) + 1
        return Preview(a.circle.epoch, wanted, shares(after), sum(moves.values()), moves)

    # --- requests of operators and of the automatic mode ---

    def set_weights(
        self,
        app: str,
        weights: Mapping[int, float],
        expected_epoch: int | None = None,
        reason: str = "weights",
    ) -> Ticket:
        """Give the named threads new weights; 0 drains, threads that are not named keep theirs."""
        a = self._requested(app)
        if expected_epoch is not None and expected_epoch != a.circle.epoch:
            text = f'app "{app}" is at epoch {a.circle.epoch}, not {expected_epoch}'
            raise EpochMismatch(text)
        self._check(a, weights)
        for tid, weight in weights.items():
            if weight == 0:
                before = a.overrides.get(tid, a.circle.weights.get(tid, JOIN_WEIGHT))
                if before > 0:
                    a.circle.drained[tid] = before
            a.overrides[tid] = float(weight)
        return self._ask(app, a, reason)

    def drain(self, app: str, tid: int, expected_epoch: int | None = None) -> Ticket:
        """Give the thread no new connections; those that it has stay until they close."""
        return self.set_weights(app, {tid: 0.0}, expected_epoch, f"drain {tid}")

    def undrain(self, app: str, tid: int, expected_epoch: int | None = None) -> Ticket:
        """Give a drained thread its former weight back."""
        former = self._requested(app).circle.drained.get(tid, JOIN_WEIGHT)
        return self.set_weights(app, {tid: former}, expected_epoch, f"undrain {tid}")

    def refresh(self, app: str, reason: str = "refresh") -> Ticket:
        """An update with the circle as it is: exceptions of connections that have closed go."""
        return self._ask(app, self._requested(app), reason)

    # --- threads that come and go ---

    def join(self, app: str, tid: int, weight: float | None = None) -> Ticket | None:
        """A thread is online: it gets its part of the keys. None: it had it already."""
        a = self._app(app)
        if tid in a.members and tid in a.circle.weights and weight in (None, a.circle.weights[tid]):
            return None
        a.members.add(tid)
        if weight is not None:
            a.overrides[tid] = weight
        return self._ask(app, a, f"join {tid}")

    def leave(self, app: str, tid: int) -> None:
        """A thread is gone: its part goes to the others. Idempotent."""
        a = self._app(app)
        if tid not in a.members:
            return
        a.members.discard(tid)
        a.overrides.pop(tid, None)
        a.dead.add(tid)
        a.left_at = self._wall()
        if a.running is None:
            self._begin(app, a)
        elif self._runner is not None and tid not in a.running.dead:
            self._runner.abort(app, f"thread {tid} has gone")

    # --- restart ---

    def restore(self, app: str, circle: Circle) -> None:
        """Go on with the circle of a former janusd; no update is begun until rebuild()."""
        self._apps[app] = _App(app, circle, set(circle.weights), held=bool(circle.weights))

    def forget(self, app: str, tid: int) -> None:
        """A thread of the former janusd's circle is not there any more."""
        a = self._app(app)
        a.members.discard(tid)
        self._in_force(a, self._without(a, {tid}, "restart"), Result(PUBLISHED, flagged=a.circle.flagged))

    def rebuild(self, app: str) -> Ticket | None:
        """The threads of a former janusd are back, or have been given up: collect their exceptions."""
        a = self._app(app)
        if not a.held:
            return None
        a.held = False
        a.rebuild = bool(a.circle.weights)
        return self._ask(app, a, "restart") if a.rebuild or a.reasons else None

    def is_held(self, app: str) -> bool:
        """Whether the app's threads are waited for after a restart."""
        return self._app(app).held

    def keep(self, target: Target) -> None:
        """The target may be in force soon: what to_save() gives is right whether it comes to that or not."""
        a = self._app(target.app)
        moved = 0 if target.dead else moved_slots(a.circle.owners, target.owners)
        a.kept = replace(
            a.circle,
            epoch=target.epoch,
            weights=dict(target.weights),
            owners=target.owners,
            homes=target.homes,
            flagged=a.circle.flagged | moved,
        )

    def to_save(self, app: str) -> Circle:
        """The circle that a next janusd goes on with."""
        a = self._app(app)
        return a.kept or a.circle

    # --- its parts ---

    def _app(self, app: str) -> _App:
        if app not in self._apps:
            self._apps[app] = _App(app, Circle(self._random(SECRET_BYTES)), set())
        return self._apps[app]

    def _requested(self, app: str) -> _App:
        if self._known is not None and app not in self._known:
            raise UnknownApp(f'no app "{app}" is configured')
        return self._app(app)

    @staticmethod
    def _check(a: _App, weights: Mapping[int, float]) -> None:
        for tid, weight in weights.items():
            if tid not in a.members:
                online = ", ".join(map(str, sorted(a.members))) or "none"
                raise UnknownThread(f"no thread {tid} is online; there are: {online}")
            if not (math.isfinite(weight) and 0 <= weight <= WEIGHT_MAX):
                raise BadWeight(f"weight {weight} of thread {tid}: a weight is 0 to {WEIGHT_MAX:g}")
        if weights and not any((a.wanted() | dict(weights)).values()):
            raise BadWeight("no thread would serve: at least one weight must be above 0")

    def _ask(self, app: str, a: _App, reason: str) -> Ticket:
        ticket = Ticket(app)
        if not a.reasons:
            a.requested_at = self._wall()
        if reason not in a.reasons:
            a.reasons.append(reason)
        a.waiting.append(ticket)
        self._begin(app, a)
        self._changed(app)
        return ticket

    def _begin(self, app: str, a: _App) -> None:
        """Start the next update, unless one runs or none is due: first what the dead have left."""
        if a.running is not None:
            return
        dead = a.dead & set(a.circle.weights)
        a.dead.clear()
        if dead:
            a.running_since = a.left_at
            a.running = self._without(a, dead, "; ".join(f"leave {tid}" for tid in sorted(dead)))
        elif a.reasons and not a.held:
            a.running_since = a.requested_at
            a.running_tickets, a.waiting = a.waiting, []
            reason, a.reasons = "; ".join(a.reasons), []
            a.running = self._target(a, reason, self._strangers(app))
        else:
            return
        if self._runner is None:
            self._ended(app, a, Result(PUBLISHED))
        else:
            self._runner.start(a.running, lambda result: self._ended(app, a, result))

    def _strangers(self, app: str) -> Strangers:
        return Strangers() if self._runner is None else self._runner.strangers(app)

    @staticmethod
    def _without(a: _App, dead: set[int], reason: str) -> Target:
        circle = a.circle
        weights = {tid: weight for tid, weight in circle.weights.items() if tid not in dead}
        homes = inherit(circle.homes, dict.fromkeys(weights, 1.0))
        owners = inherit(circle.owners, weights)
        return replace(a.target(reason, weights, owners, homes), dead=frozenset(dead))

    @staticmethod
    def _target(a: _App, reason: str, strangers: Strangers) -> Target:
        circle = a.circle
        if a.rebuild:
            return replace(a.target(reason, circle.weights, circle.owners, circle.homes), rebuild=True)
        weights = a.wanted()
        homes = divide(circle.homes, dict.fromkeys(weights, 1.0))
        return a.target(reason, weights, place(circle.owners, weights, homes, strangers), homes)

    def _ended(self, app: str, a: _App, result: Result) -> None:
        target, tickets = a.running, a.running_tickets
        assert target is not None
        a.running, a.running_tickets, a.kept = None, [], None
        record = self._record(a, target, result)
        a.records.append(record)
        if record.published:
            self._in_force(a, target, result)
        elif a.dead:  # it was no fault of those who asked: once more, without the dead
            a.waiting, tickets = tickets + a.waiting, []
            a.reasons.insert(0, target.reason)
        elif not a.waiting:
            a.overrides.clear()  # what operators asked for is void
        for ticket in tickets:
            ticket.resolve(record)
        self._changed(app)
        self._begin(app, a)
        if a.running is None and not record.published and a.out_of_step():
            self._retry(app, a)

    @staticmethod
    def _record(a: _App, target: Target, result: Result) -> UpdateRecord:
        published = result.outcome == PUBLISHED
        return UpdateRecord(
            app=target.app,
            epoch=target.epoch if published else a.circle.epoch,
            reason=target.reason,
            requested_at=a.running_since,
            phases_ms=dict(result.phases_ms),
            kept=result.kept,
            exceptions=result.exceptions,
            moved_slots=sum(was != now for was, now in zip(a.circle.owners, target.owners, strict=True)),
            outcome=result.outcome,
        )

    @staticmethod
    def _in_force(a: _App, target: Target, result: Result) -> None:
        a.circle.epoch = target.epoch
        a.circle.weights = dict(target.weights)
        a.circle.owners, a.circle.homes = target.owners, target.homes
        a.circle.flagged = result.flagged
        a.exceptions = result.exceptions
        a.overrides = {t: w for t, w in a.overrides.items() if a.circle.weights.get(t) != w}
        a.circle.drained = {t: w for t, w in a.circle.drained.items() if a.circle.weights.get(t) == 0}
        a.retry_s = RETRY_FIRST_S
        if target.rebuild:
            a.rebuild = False
            if a.out_of_step() and not a.reasons:
                a.reasons.append("threads came or went")

    def _retry(self, app: str, a: _App) -> None:
        """Threads came or went, and the circle must follow: try again later."""
        if a.retry_due or self._runner is None:
            return
        a.retry_due = True
        delay_s, a.retry_s = a.retry_s, min(a.retry_s * 2, RETRY_LAST_S)
        self._runner.call_later(delay_s, lambda: self._retry_now(app, a))

    def _retry_now(self, app: str, a: _App) -> None:
        a.retry_due = False
        if a.running is None and not a.reasons and a.out_of_step():
            self._ask(app, a, "again")

    def _changed(self, app: str) -> None:
        for callback in self._watchers:
            callback(app)
