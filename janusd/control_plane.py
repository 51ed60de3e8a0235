"""What operators speak to, put together: the control sockets, the verbs, the automatic mode, what it samples.

ctl.sock is for admin_group, who may change something; read.sock, when there is a read_group, for those who may look.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from janusd import api_schema as schema
from janusd import thread_counters
from janusd.api import ApiServer
from janusd.automatic import EVERY_S, Automatic, busy_us
from janusd.autoweights import Sample
from janusd.balancer import Balancer
from janusd.config import Config
from janusd.control import Control, Peer, Reply
from janusd.csb_metrics import CsbCounts
from janusd.csb_views import CsbViews, Explainer
from janusd.log_format import fields
from janusd.refreshing import Refresher
from janusd.runtime_sockets import group_for
from janusd.sessions import Attached, Sessions
from janusd.stats_page import StatsPage, StatsPageError
from janusd.views import Views
from janusd.wishes import Wishes

log = logging.getLogger("janusd.control_plane")


class ControlPlane:
    """Everything from a request's bytes to its answer."""

    def __init__(
        self,
        config: Config,
        views: Views,
        balancer: Balancer,
        sessions: Sessions,
        page: StatsPage,
        loop: asyncio.AbstractEventLoop,
        wishes: Mapping[str, Wishes],
        save: Callable[[], None],
    ) -> None:
        """wishes: by app. save: keeps them for the next janusd."""
        self._views = views
        self._sessions = sessions
        self._page = page
        self._loop = loop
        self._drops: dict[tuple[str, int], int] = {}
        self._timer: asyncio.TimerHandle | None = None
        apps = tuple(app.name for app in config.apps)
        self.automatic = Automatic(balancer, self.samples, wishes)
        self.control = Control(balancer, self.automatic, loop, wishes, save)
        self.refresher = Refresher(balancer, self.automatic, self.control, apps)
        self.csb_counts = CsbCounts(balancer, self.automatic, apps)
        self.csb_views = CsbViews(balancer, self.automatic, self.control, apps)
        self._explainer = Explainer(views.registry, sessions.app_ids, views.plane.balance)
        directory, admins, readers = (
            config.daemon.runtime_dir,
            config.daemon.admin_group,
            config.daemon.read_group,
        )
        gid = group_for("admin_group", admins)
        self._servers = [ApiServer(directory / "ctl.sock", gid, self.answer, loop, may_change=True)]
        if readers:
            gid = group_for("read_group", readers)
            self._servers.append(ApiServer(directory / "read.sock", gid, self.answer, loop, may_change=False))

    def start(self) -> None:
        """Serve from now on."""
        for server in self._servers:
            server.start()
        self.control.start()
        self._tick()

    def stop(self) -> None:
        """Close the sockets."""
        if self._timer is not None:
            self._timer.cancel()
        self.control.stop()
        for server in self._servers:
            server.stop()

    def answer(self, request: schema.AnyRequest, peer: Peer, reply: Reply) -> None:
        """Answer a request, now or later. BadRequest: nothing was done."""
        if isinstance(request, schema.Change):
            self.control.change(request, peer, reply)
        elif isinstance(request, schema.CsbExplain):
            reply(self._explainer.explain(request))
        elif isinstance(request, schema.CsbShow):
            reply(self.csb_views.show(request))
        else:
            reply(self._views.answer(request))

    def samples(self, app: str) -> dict[int, Sample]:
        """What is known of the app's threads: their own words, and what they could not take."""
        now_us = time.monotonic_ns() // 1000
        return {
            a.session.tid: self._sample(a, now_us)
            for a in self._sessions.attached()
            if a.sealed and a.session.app == app
        }

    def _sample(self, attached: Attached, now_us: int) -> Sample:
        info, values = attached.plane.info(), attached.plane.counters()
        session, slots = attached.session, max(1, attached.plane.slots().total)
        return Sample(
            busy_s=busy_us(info.busy_us, info.busy_since_us, now_us) / 1e6,
            served=thread_counters.by_name(values).get("connections_closed", 0),
            drops=self._drops.get((session.app, session.tid), 0),
            queue=min(1.0, info.rx_queued / slots),
            connections=thread_counters.connections(values, attached.welcome.sizes.rows),
            exceptions_closed=info.csb_closed,
            held_us=info.csb_held_us,
            held_wall_us=info.csb_held_wall_us,
        )

    def _tick(self) -> None:
        self._timer = self._loop.call_later(EVERY_S, self._tick)
        try:
            self._drops = {
                (one.name, one.sub): sum(n for name, n in one.counters.items() if name in _NO_ROOM)
                for one in self._page.read()
                if one.kind == "thread"
            }
        except StatsPageError as error:
            log.debug("no drops this time", extra=fields(error=error))
        self.automatic.tick()
        self.refresher.tick()


_NO_ROOM = ("drop.ring_full", "drop.no_slot")
