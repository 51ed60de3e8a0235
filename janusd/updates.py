"""Updates carried out: plan, lists, drain, seal, view, one update of an app at a time, never a connection lost.

    COLLECT ──> [CHECK] ──> DRAIN ──> SEAL ──> PUBLISH ──> OPEN
    threads     threads     I/O       threads  I/O         threads      docs/csb.md

Which phase is due, and who is waited for, is csb/update.h's word; this module carries messages to the app's threads and
orders to the I/O threads. A thread that does not answer in time ends the attempt, and nothing has changed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from dpdk_glue.balance import Balance, Update
from dpdk_glue.values import CsbBuilt, CsbPhase, CsbValue, GlueError
from janusd.balancer import PUBLISHED, Result, Target
from janusd.log_format import fields
from janusd.messages import AttachType, encode_csb
from janusd.placing import Strangers

log = logging.getLogger("janusd.updates")

LIMIT_S = 2.0  # of an attempt, until it is published; and of opening it
STRANGERS_MAX = 1 << 17  # slots times threads; what is beyond is not known when slots are chosen
LIST_SLACK = 1 << 19  # flows beyond its rows that a thread may list: half-open, in TIME-WAIT, created late


class Member(Protocol):
    """A thread that an update can ask."""

    @property
    def tid(self) -> int:
        """Its number in the app."""

    @property
    def rows(self) -> int:
        """The most connections that it can have."""

    def connections(self) -> int:
        """How many it has, by its own word."""

    def tell(self, message: bytes, fd: int | None) -> None:
        """Send a message, perhaps with a descriptor. A thread that does not read is as good as gone."""


class Clockwork(Protocol):
    """What of an event loop is needed: asyncio's has it."""

    def time(self) -> float:
        """Seconds, monotonic."""

    def call_later(self, delay: float, callback: Callable[[], object]) -> object:
        """A timer; what it returns can cancel()."""


@dataclass
class _Run:
    """The update of one app that runs."""

    target: Target
    done: Callable[[Result], None]
    members: dict[int, Member]
    entered_s: float
    phases_ms: dict[str, float] = field(default_factory=dict)
    phase: CsbPhase = CsbPhase.IDLE
    built: CsbBuilt | None = None


class Updates:
    """The balancer's Runner over the data plane and the attached threads."""

    def __init__(
        self,
        balance: Balance,
        app_ids: dict[str, int],
        io_threads: int,
        clock: Clockwork,
        members: Callable[[str], Iterable[Member]],
        before_drain: Callable[[Target], None],
    ) -> None:
        """members: the app's sealed threads that are online. before_drain: keeps the target for the next janusd."""
        self._balance = balance
        self._app_ids = app_ids
        self._io_threads = io_threads
        self._clock = clock
        self._members = members
        self._before_drain = before_drain
        self._updates = {app: Update() for app in app_ids}
        self._runs: dict[str, _Run] = {}

    # --- janusd.balancer.Runner ---

    def start(self, target: Target, done: Callable[[Result], None]) -> None:
        """Begin; done is called once, at once when nobody need be asked."""
        app = target.app
        try:
            members = self._askable(target)
            if members is None:
                done(self._publish_at_once(target))
                return
            self._runs[app] = _Run(target, done, members, self._clock.time())
            self._begin(app)
        except GlueError as error:
            self._runs.pop(app, None)
            done(Result(f"data plane: {error.strerror}"))

    def abort(self, app: str, why: str) -> None:
        """End the update that runs, unless it is published already: then only the threads that are gone are waited
        for no longer."""
        run = self._runs.get(app)
        if run is None:
            return
        gone = set(run.members) - {m.tid for m in self._members(app)}
        for tid in gone:
            self._updates[app].lost(tid)
        if self._updates[app].phase is CsbPhase.IDLE or self._updates[app].abort():
            self._end(app, why)
        else:
            self._advance(app)

    def strangers(self, app: str) -> Strangers:
        """What the view in force says, and what the threads say of themselves."""
        slots: dict[int, dict[int, int]] = {}
        for slot, tid, count in self._balance.strangers(self._app_ids[app], STRANGERS_MAX):
            slots.setdefault(slot, {})[tid] = count
        return Strangers(slots, sum(m.connections() for m in self._members(app))) if slots else Strangers()

    def phase(self, app: str) -> str:
        """Of the update that runs; "" for none."""
        run = self._runs.get(app)
        return "" if run is None else run.phase.name.lower()

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        """A timer of the control thread."""
        self._clock.call_later(delay_s, callback)

    # --- what threads say ---

    def awaits(self, app: str, attempt: int) -> bool:
        """Whether lists of this attempt are wanted."""
        return app in self._runs and attempt == self._updates[app].attempt

    def hear_list(self, app: str, member: Member, attempt: int, hashes: bytes) -> bool:
        """A list of a thread. False: it has gone beyond every bound."""
        if not self.awaits(app, attempt):
            return True  # it is over
        return self._balance.add_list(self._app_ids[app], member.tid, hashes, 2 * member.rows + LIST_SLACK)

    def hear_done(self, app: str, member: Member, attempt: int, phase: int) -> bool:
        """A thread has done what the phase asks, or cannot (0). False: nobody has asked it."""
        if not self.awaits(app, attempt):
            return False
        if phase == 0:
            self.abort(app, f"thread {member.tid} has no room for its list")
            return False
        if not self._updates[app].member_done(attempt, phase, member.tid):
            return False
        self._advance(app)
        return True

    def welcome(self, app: str, member: Member, *, rebuilding: bool) -> None:
        """A thread that the circle names is back: give it the view in force."""
        view = self._balance.view(self._app_ids[app])
        if view is not None:
            _tell_view(member, view, 0, rebuilding=rebuilding)

    # --- its parts ---

    def _askable(self, target: Target) -> dict[int, Member] | None:
        """Who takes part: threads that the view in force names. None: nobody need be asked."""
        if target.dead or self._balance.view(self._app_ids[target.app]) is None:
            return None
        members = {m.tid: m for m in self._members(target.app) if m.tid in target.before}
        return members or None

    def _publish_at_once(self, target: Target) -> Result:
        """No living connection's key moves: the view in force, with other owners."""
        app, started = self._app_ids[target.app], self._clock.time()
        if not target.weights:
            self._before_drain(target)
            self._balance.forget(app)
            return Result(PUBLISHED)
        built = self._balance.build_without(app, target.points(), target.epoch, target.dead)
        self._before_drain(target)
        for member in self._members(target.app):
            _tell_view(member, built.value, 0, rebuilding=target.rebuilding)
        self._balance.publish(app)
        phases = {"publish": (self._clock.time() - started) * 1000}
        return Result(PUBLISHED, phases, 0, built.exceptions, built.flagged)

    def _begin(self, app: str) -> None:
        run, update = self._runs[app], self._updates[app]
        plan = self._balance.plan(self._app_ids[app], run.target.points(), run.target.epoch)
        now_us, limit_us = int(self._clock.time() * 1e6), int(LIMIT_S * 1e6)
        if not update.start(
            run.members, self._io_threads, checked=run.target.rebuild, now_us=now_us, limit_us=limit_us
        ):
            raise RuntimeError(f"an update of {app} runs already")
        run.phase = update.phase
        ios = (1 << self._io_threads) - 1
        message = encode_csb(AttachType.CSB_BEGIN, update.attempt, size=plan.bytes, ios=ios)
        for member in list(run.members.values()):
            member.tell(message, plan.fd)
        self._clock.call_later(LIMIT_S, lambda: self._tick(app, run))

    def _advance(self, app: str) -> None:
        """Enter the phases that are due, each with its orders."""
        while (run := self._runs.get(app)) is not None and self._updates[app].advance():
            update = self._updates[app]
            now = self._clock.time()
            run.phases_ms[run.phase.name.lower()] = (now - run.entered_s) * 1000
            run.phase, run.entered_s = update.phase, now
            try:
                self._enter(app, run, update)
            except GlueError as error:
                update.abort()
                self._end(app, f"data plane: {error.strerror}")

    def _enter(self, app: str, run: _Run, update: Update) -> None:
        number = self._app_ids[app]
        if run.phase is CsbPhase.CHECK:
            draft = self._balance.draft(number)
            message = encode_csb(AttachType.CSB_CHECK, update.attempt, size=draft.bytes)
            for member in list(run.members.values()):
                member.tell(message, draft.fd)
        elif run.phase is CsbPhase.DRAIN:
            self._before_drain(run.target)
            self._balance.prepare(number)  # what takes long is done before newcomers wait
            run.entered_s = self._clock.time()
            self._balance.drain(number, update.attempt)
            update.io_threads_done()
        elif run.phase is CsbPhase.PUBLISH:
            run.built = self._balance.build(number)
            for member in self._members(app):
                if member.tid in run.members:
                    _tell_view(member, run.built.value, update.attempt)
                else:
                    _tell_view(member, run.built.value, 0)
            self._balance.publish(number, update.attempt)
            update.io_threads_done()
            self._clock.call_later(LIMIT_S, lambda: self._tick_open(app, run))
        elif run.phase is CsbPhase.IDLE:
            self._runs.pop(app)
            assert run.built is not None
            built = run.built
            run.done(Result(PUBLISHED, run.phases_ms, built.reported, built.exceptions, built.flagged))

    def _tick(self, app: str, run: _Run) -> None:
        if self._runs.get(app) is not run:
            return
        waiting = self._updates[app].waiting()
        if self._updates[app].tick(int(self._clock.time() * 1e6) + 1000):
            who = ", ".join(map(str, waiting)) or "none"
            self._end(app, f"no answer in {LIMIT_S:g} s to {run.phase.name.lower()} from thread {who}")

    def _tick_open(self, app: str, run: _Run) -> None:
        """It is in force; a thread that hangs meanwhile opens it when it goes on."""
        if self._runs.get(app) is not run:
            return
        for tid in self._updates[app].waiting():
            log.warning("thread does not open its view", extra=fields(app=app, tid=tid))
            self._updates[app].lost(tid)
        self._advance(app)

    def _end(self, app: str, why: str) -> None:
        """The attempt is aborted: everybody forgets it."""
        run = self._runs.pop(app)
        attempt = self._updates[app].attempt
        self._balance.abort(self._app_ids[app])
        for member in self._members(app):
            if member.tid in run.members:
                member.tell(encode_csb(AttachType.CSB_ABORT, attempt), None)
        log.info("update aborted", extra=fields(app=app, phase=run.phase.name.lower(), why=why))
        run.done(Result(why, run.phases_ms))


def _tell_view(member: Member, value: CsbValue, attempt: int, *, rebuilding: bool = False) -> None:
    message = encode_csb(AttachType.CSB_VIEW, attempt, phase=int(rebuilding), size=value.bytes)
    member.tell(message, value.fd)
