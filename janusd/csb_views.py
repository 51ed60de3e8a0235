"""What csb_show shows: circles, weights, loads, the last updates and the automatic mode's last word."""

from __future__ import annotations

from itertools import groupby

from janusd import api_schema as schema
from janusd.api_schema import BadRequest
from janusd.automatic import Automatic, Load
from janusd.balancer import AppState, Balancer, UpdateRecord
from janusd.control import Control


class CsbViews:
    """Reads the balancer; changes nothing."""

    def __init__(
        self, balancer: Balancer, automatic: Automatic, control: Control, apps: tuple[str, ...]
    ) -> None:
        self._balancer = balancer
        self._automatic = automatic
        self._control = control
        self._apps = apps

    def show(self, request: schema.CsbShow) -> list[schema.CsbApp]:
        """One app, or all."""
        if request.app is not None and request.app not in self._apps:
            known = ", ".join(self._apps)
            raise BadRequest("not_found", f'no app "{request.app}" is configured; there are: {known}', "app")
        apps = self._apps if request.app is None else (request.app,)
        return [self._app(app, circle=request.circle) for app in apps]

    def _app(self, app: str, *, circle: bool) -> schema.CsbApp:
        state = self._balancer.state(app)
        owners = self._balancer.circle(app).owners if circle else []
        on, reason, moves = self._automatic.says(app)
        return schema.CsbApp(
            app=app,
            epoch=state.epoch,
            phase=state.phase,
            pending=state.pending,
            rebuilding=state.rebuilding,
            exceptions=state.exceptions,
            auto=schema.Auto(on=on, reason=reason, moves=moves),
            confirm_within_s=self._control.confirm_within_s(app),
            threads=self._threads(app, state),
            updates=[_update(record) for record in state.updates],
            circle=[(tid, len(list(run))) for tid, run in groupby(owners)],
        )

    def _threads(self, app: str, state: AppState) -> list[schema.CsbThread]:
        loads = self._automatic.loads(app)
        return [
            schema.CsbThread(
                tid=tid,
                weight=weight,
                share=round(state.shares.get(tid, 0.0), 4),
                drained=tid in state.drained,
                connections=load.connections,
                busy=round(load.busy, 3),
                queue=round(load.queue, 4),
                drops=load.drops,
            )
            for tid, weight in sorted(state.weights.items())
            for load in [loads.get(tid, Load())]
        ]


def _update(record: UpdateRecord) -> schema.Update:
    return schema.Update(
        epoch=record.epoch,
        reason=record.reason,
        requested_at=round(record.requested_at, 3),
        took_ms=round(sum(record.phases_ms.values()), 3),
        phases_ms=dict(record.phases_ms),
        moved_slots=record.moved_slots,
        kept=record.kept,
        exceptions=record.exceptions,
        outcome=record.outcome,
    )
