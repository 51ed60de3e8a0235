"""What csb_show shows: circles, weights, loads, the last updates and the automatic mode's last word."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from itertools import groupby
from typing import TYPE_CHECKING

from dpdk_glue.values import CsbDecider
from janusd import api_schema as schema
from janusd.api_schema import BadRequest
from janusd.automatic import Automatic, Load
from janusd.balancer import AppState, Balancer, UpdateRecord
from janusd.config import IpAddress
from janusd.control import Control
from janusd.registry import Registry

if TYPE_CHECKING:
    from dpdk_glue.balance import Balance


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
                held_us=load.held_us,
                held_wall_us=load.held_wall_us,
            )
            for tid, weight in sorted(state.weights.items())
            for load in [loads.get(tid, Load())]
        ]


class Explainer:
    """Asks the view in force which thread gets a flow."""

    def __init__(self, registry: Registry, app_ids: Mapping[str, int], balance: Balance) -> None:
        self._registry = registry
        self._app_ids = app_ids
        self._balance = balance

    def explain(self, request: schema.CsbExplain) -> schema.Explained:
        """Which thread, and what decides."""
        src, dst = _address(request.src, "src"), _address(request.dst, "dst")
        if src.version != dst.version:
            raise BadRequest("bad_field", "src and dst are of different versions of IP", "src")
        app = next(
            (s.app for s in self._registry.services() if s.address == dst and request.dport in s.ports), None
        )
        if app is None:
            text = f"nobody serves port {request.dport} of {dst}: janusctl services lists who serves what"
            raise BadRequest("not_found", text, "dport")
        found = self._balance.explain(self._app_ids[app], (src, request.sport), (dst, request.dport))
        if found is None:
            raise BadRequest("not_found", f'app "{app}" has no thread on its circle', "dport")
        tid, home = (None if t == NO_TID else t for t in (found.tid, found.home))
        return schema.Explained(
            app=app,
            epoch=found.epoch,
            decider=found.decider.name.lower(),
            key=f"{found.key:08x}",
            slot=found.slot,
            tid=tid,
            home=home,
            text=_DECIDERS[found.decider].format(slot=found.slot, tid=tid, home=home),
        )


NO_TID = 0x7FFF  # CSB_NO_TID
_DECIDERS = {
    CsbDecider.SLOT: "all of slot {slot} is thread {tid}'s",
    CsbDecider.CIRCLE: "the first point at or after the key is thread {tid}'s",
    CsbDecider.EXCEPTION: "the key stands in an exception line: thread {tid} had it before it was given to {home}",
    CsbDecider.EXACT: "the key has several owners, and the exact table gives this flow to thread {tid}",
}


def _address(text: str, field: str) -> IpAddress:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise BadRequest("bad_field", f'"{text}" is no IP address', field) from None


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
