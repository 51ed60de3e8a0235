"""The verbs that change something: who may, what would move, when it is in force, what is undone again.

A change is one request to the balancer and so takes effect whole or not at all; its answer comes when it is in force
or has been given up. A change that is to be confirmed remembers the weights of before, and they come back when nobody
confirms in time; until then no other change is taken, the automatic mode's included. Every change is written to the
log with the peer's uid, as the kernel tells it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from janusd import api_schema as schema
from janusd.api_schema import BadRequest
from janusd.automatic import Automatic
from janusd.balancer import JOIN_WEIGHT, Balancer, BalancerError, Preview, UpdateRecord
from janusd.log_format import fields
from janusd.wishes import Wishes

log = logging.getLogger("janusd.control")

PENDING_MAX = 64
UNDO_AGAIN_S = 1.0

Reply = Callable[[schema.Result | schema.Error], None]


@dataclass(frozen=True)
class Peer:
    """Who has asked: the process at the other end of the socket, and whether that socket is for changes."""

    uid: int
    gid: int
    pid: int
    may_change: bool


@dataclass
class Unconfirmed:
    """A change that is undone unless it is confirmed. until_s: of its time, when it is in force."""

    until_s: float
    timer: asyncio.TimerHandle | None = None  # None: not in force yet
    is_undone: bool = False  # it is too late to confirm it


class Control:
    """Carries out changes. All of it belongs to the control thread."""

    def __init__(
        self,
        balancer: Balancer,
        automatic: Automatic,
        loop: asyncio.AbstractEventLoop,
        wishes: Mapping[str, Wishes],
        save: Callable[[], None],
    ) -> None:
        """save: keeps the wishes for the next janusd."""
        self._balancer = balancer
        self._automatic = automatic
        self._loop = loop
        self._wishes = wishes
        self._save = save
        self._unconfirmed: dict[str, Unconfirmed] = {}
        self._pending = 0

    def confirm_within_s(self, app: str) -> float | None:
        """How long a change still waits to be confirmed; None: there is none."""
        waiting = self._unconfirmed.get(app)
        return None if waiting is None else round(max(0.0, waiting.until_s - self._loop.time()), 3)

    def start(self) -> None:
        """What a former janusd has left unconfirmed is undone."""
        for app, wish in self._wishes.items():
            if wish.undo:
                self._hold(app, wish.undo, 0)
                self._revert(app)

    def stop(self) -> None:
        """No more timers."""
        for waiting in self._unconfirmed.values():
            if waiting.timer is not None:
                waiting.timer.cancel()

    def change(self, request: schema.Change, peer: Peer, reply: Reply) -> None:
        """Do it; reply is called once, now or when the update has ended. BadRequest: nothing was done."""
        dry = isinstance(request, schema.Move) and request.dry_run
        if not peer.may_change and not dry:
            self._audit(request, peer, "refused")
            raise BadRequest("not_allowed", "this socket is for reading: changes go to ctl.sock", "verb")
        try:
            self._change(request, peer, reply)
        except BalancerError as error:
            self._audit(request, peer, error.code)
            field = {"unknown_app": "app", "epoch_mismatch": "expected_epoch"}.get(error.code)
            if field is None:
                field = "weights" if isinstance(request, schema.CsbSet) else "tid"
            raise BadRequest(error.code, str(error), field) from None
        except BadRequest as error:
            self._audit(request, peer, error.error.code)
            raise

    def _change(self, request: schema.Change, peer: Peer, reply: Reply) -> None:
        state = self._balancer.state(request.app)
        if request.expected_epoch not in (None, state.epoch):
            text = f'app "{request.app}" is at epoch {state.epoch}, not {request.expected_epoch}'
            raise BadRequest("epoch_mismatch", text, "expected_epoch")
        if isinstance(request, schema.CsbAuto):
            self._automatic.switch(request.app, on=request.on)
            self._save()
            self._audit(request, peer, "done", on=request.on)
            reply(schema.AutoResult(app=request.app, epoch=state.epoch, auto=request.on))
        elif isinstance(request, schema.CsbConfirm):
            self._confirm(request)
            self._audit(request, peer, "done")
            on = self._automatic.is_on(request.app)
            reply(schema.AutoResult(app=request.app, epoch=state.epoch, auto=on))
        elif isinstance(request, schema.Move):
            self._move(request, peer, reply)

    # --- moves ---

    def _move(self, request: schema.Move, peer: Peer, reply: Reply) -> None:
        app, weights = request.app, self._weights_of(request)
        preview = self._balancer.plan(app, weights)
        if request.dry_run:
            reply(_previewed(app, preview))
            return
        if app in self._unconfirmed:
            text = f'a change of app "{app}" waits to be confirmed: confirm it, or let its time run out'
            raise BadRequest("unconfirmed", text, "app")
        if self._pending >= PENDING_MAX:
            raise BadRequest("busy", f"{PENDING_MAX} changes wait to be in force already", "app")
        before = dict(self._balancer.state(app).weights)
        began_s = time.monotonic()
        if request.confirm_s is not None:  # before it can be in force: a janusd that dies must leave word
            self._hold(app, {tid: before.get(tid, JOIN_WEIGHT) for tid in weights}, request.confirm_s)
        ticket = self._balancer.set_weights(app, weights, request.expected_epoch, _reason(request))
        self._audit(request, peer, "asked", weights=_text(weights), moved_slots=preview.moved_slots)
        self._pending += 1

        def ended(record: UpdateRecord) -> None:
            self._pending -= 1
            took_ms = round((time.monotonic() - began_s) * 1e3, 3)
            self._audit(request, peer, record.outcome, epoch=record.epoch, took_ms=took_ms, kept=record.kept)
            if not record.published:
                if request.confirm_s is not None:
                    self._release(app)
                text = f"the update was given up, nothing has changed: {record.outcome}"
                reply(schema.Error(code="aborted", text=text))
                return
            self._automatic.rebase(app, weights)
            self._save()
            if request.confirm_s is not None:
                waiting = self._unconfirmed[app]
                waiting.until_s = self._loop.time() + request.confirm_s
                waiting.timer = self._loop.call_later(request.confirm_s, self._revert, app)
            reply(self._changed(app, record, preview, took_ms))

        ticket.then(ended)

    def _weights_of(self, request: schema.Move) -> dict[int, float]:
        if isinstance(request, schema.CsbSet):
            return dict(request.weights)
        if isinstance(request, schema.CsbDrain):
            return {request.tid: 0.0}
        assert isinstance(request, schema.CsbUndrain)
        state = self._balancer.state(request.app)
        if state.weights.get(request.tid, 0.0) > 0:
            return {request.tid: state.weights[request.tid]}
        return {request.tid: self._balancer.circle(request.app).drained.get(request.tid, JOIN_WEIGHT)}

    def _changed(
        self, app: str, record: UpdateRecord, preview: Preview, took_ms: float
    ) -> schema.ChangeResult:
        state = self._balancer.state(app)
        return schema.ChangeResult(
            app=app,
            epoch=record.epoch,
            dry_run=False,
            weights=_named(state.weights),
            shares=_named({tid: state.shares.get(tid, 0.0) for tid in state.weights}),
            moved_slots=record.moved_slots,
            moves=_moves(preview),
            took_ms=took_ms,
            phases_ms=dict(record.phases_ms),
            kept=record.kept,
            exceptions=record.exceptions,
            confirm_within_s=self.confirm_within_s(app),
        )

    # --- confirmation ---

    def _hold(self, app: str, undo: Mapping[int, float], seconds: float) -> None:
        """Until it is released nothing else is changed."""
        self._unconfirmed[app] = Unconfirmed(self._loop.time() + seconds)
        self._wishes[app].undo = dict(undo)
        self._automatic.hold(app, held=True)

    def _release(self, app: str) -> None:
        waiting = self._unconfirmed.pop(app)
        if waiting.timer is not None:
            waiting.timer.cancel()
        self._wishes[app].undo = {}
        self._save()
        self._automatic.hold(app, held=False)

    def _confirm(self, request: schema.CsbConfirm) -> None:
        waiting = self._unconfirmed.get(request.app)
        if waiting is None or waiting.timer is None or waiting.is_undone:
            raise BadRequest("not_found", f'no change of app "{request.app}" waits to be confirmed', "app")
        self._release(request.app)

    def _revert(self, app: str) -> None:
        """Undo it, as often as it takes."""
        waiting, state = self._unconfirmed[app], self._balancer.state(app)
        waiting.is_undone = True
        weights = {tid: weight for tid, weight in self._wishes[app].undo.items() if tid in state.weights}
        about = fields(app=app, weights=_text(weights))

        def ended(record: UpdateRecord) -> None:
            if not record.published:
                self._revert_later(app)
                return
            self._automatic.rebase(app, weights)
            self._release(app)
            log.warning("a change was not confirmed and is undone", extra=about)

        if state.rebuilding:
            self._revert_later(app)
            return
        try:
            if weights:
                self._balancer.set_weights(app, weights, reason="not confirmed").then(ended)
                return
        except BalancerError as error:
            log.error("a change was not confirmed and cannot be undone: %s", error, extra=about)
        self._release(app)

    def _revert_later(self, app: str) -> None:
        self._unconfirmed[app].timer = self._loop.call_later(UNDO_AGAIN_S, self._revert, app)

    def _audit(self, request: schema.Change, peer: Peer, outcome: str, **more: object) -> None:
        who = fields(
            verb=schema.verb_name(type(request)),
            app=request.app,
            outcome=outcome,
            uid=peer.uid,
            pid=peer.pid,
            id=request.id,
            via=request.via,
            **more,
        )
        log.info("change", extra=who)


def _reason(request: schema.Move) -> str:
    if isinstance(request, schema.CsbDrain):
        return f"drain {request.tid}"
    if isinstance(request, schema.CsbUndrain):
        return f"undrain {request.tid}"
    return "weights"


def _text(weights: Mapping[int, float]) -> str:
    return " ".join(f"{tid}={weight:g}" for tid, weight in sorted(weights.items()))


def _named(values: Mapping[int, float]) -> dict[str, float]:
    return {str(tid): round(value, 4) for tid, value in sorted(values.items())}


def _moves(preview: Preview) -> list[schema.SlotMove]:
    return [
        schema.SlotMove(source=source, target=target, slots=slots)
        for (source, target), slots in sorted(preview.moves.items())
    ]


def _previewed(app: str, preview: Preview) -> schema.ChangeResult:
    return schema.ChangeResult(
        app=app,
        epoch=preview.epoch,
        dry_run=True,
        weights=_named(preview.weights),
        shares=_named({tid: preview.shares.get(tid, 0.0) for tid in preview.weights}),
        moved_slots=preview.moved_slots,
        moves=_moves(preview),
        took_ms=0.0,
        phases_ms={},
        kept=0,
        exceptions=0,
        confirm_within_s=None,
    )
