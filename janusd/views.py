"""What the control API shows: registry, circles, data plane and neighbours as the schema's values.

Reads and counts, changes nothing, and asks no app: connections come from the rows in shared memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from itertools import islice
from typing import TYPE_CHECKING

from dpdk_glue.values import GlueError, Offload
from janusd import api_schema as schema
from janusd import thread_counters
from janusd.api_schema import BadRequest
from janusd.balancer import Balancer
from janusd.config import Config, PortConfig
from janusd.messages import ABI_MAJOR, ABI_MINOR
from janusd.registry import Registry, Session
from janusd.sessions import Attached, Sessions
from janusd.slow_path import SlowPath
from janusd.stats_page import Counted, StatsPage

if TYPE_CHECKING:
    from dpdk_glue.data_plane import DataPlane

TCP_STATES = (
    "FREE",
    "CLOSED",
    "LISTEN",
    "SYN-SENT",
    "SYN-RECEIVED",
    "ESTABLISHED",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "CLOSE-WAIT",
    "CLOSING",
    "LAST-ACK",
    "TIME-WAIT",
)


@cache
def release() -> str:
    """The version of the distribution."""
    try:
        return metadata.version("janus-tcp")
    except metadata.PackageNotFoundError:
        return "unknown"


@dataclass
class Views:
    """Everything that is looked at."""

    config: Config
    plane: DataPlane
    ports: Mapping[str, int]  # number by name
    registry: Registry
    balancer: Balancer
    sessions: Sessions
    slow_path: SlowPath
    page: StatsPage
    pid: int
    huge_pages: bool
    uptime_s: Callable[[], float]

    def answer(self, request: schema.AnyRequest) -> schema.Result:
        """The result of a request."""
        match request:
            case schema.Status():
                return self.status()
            case schema.Ports():
                return self.port_list()
            case schema.Apps():
                return self.apps()
            case schema.Services():
                return self.services()
            case schema.Threads(app=app):
                return [self._thread(session) for session in self.registry.sessions(self._known(app))]
            case schema.Conns():
                return self.conns(request)
            case schema.Stats():
                return self.stats()
            case schema.Neighbours():
                return self.neighbours()
            case _:
                raise BadRequest("internal", "this is no verb of the views")

    def status(self) -> schema.StatusResult:
        """How janusd is."""
        threads = self.plane.io_threads
        return schema.StatusResult(
            release=release(),
            pid=self.pid,
            uptime_s=round(self.uptime_s(), 3),
            config=self.config.path,
            abi=f"{ABI_MAJOR}.{ABI_MINOR}",
            huge_pages=self.huge_pages,
            recovering=self.sessions.recovering,
            ports=len(self.ports),
            apps=len(self.config.apps),
            threads=len(self.sessions.attached()),
            services=len(self.registry.services()),
            neighbours=len(self.slow_path.neighbours),
            connections=sum(map(_connections, self.sessions.attached())),
            io_threads=[
                schema.IoThread(number=number, **asdict(threads.info(number)))
                for number in range(threads.count)
            ],
        )

    def port_list(self) -> list[schema.Port]:
        """The ports and their counters."""
        page = {counted.number: counted for counted in self.page.read() if counted.kind == "port"}
        return [self._port(port, page.get(self.ports[port.name])) for port in self.config.ports]

    def _port(self, port: PortConfig, counted: Counted | None) -> schema.Port:
        info = self.plane.ports.info(self.ports[port.name])
        own = self.plane.ports.stats(self.ports[port.name])
        counters = counted.counters if counted is not None else {}
        drops = {name[5:]: n for name, n in counters.items() if name.startswith("drop.") and n}
        device = {"rx_missed": own.rx_missed, "rx_errors": own.rx_errors, "rx_no_mbuf": own.rx_no_mbuf}
        return schema.Port(
            name=port.name,
            device=port.device,
            driver=info.driver,
            mac=info.mac.hex(":"),
            addresses=[str(address) for address in port.addresses],
            mtu=info.mtu,
            link_up=info.link_up,
            link_mbps=info.link_mbps,
            rx_queues=info.rx_queues,
            tx_queues=info.tx_queues,
            offloads=[
                offload.name.lower() for offload in Offload if offload in info.offloads and offload.name
            ],
            rx_packets=counters.get("rx_packets", own.rx_packets),
            rx_bytes=counters.get("rx_bytes", own.rx_bytes),
            rx_missed=own.rx_missed,
            tx_packets=counters.get("tx_packets", own.tx_packets),
            tx_bytes=counters.get("tx_bytes", own.tx_bytes),
            drops={**drops, **{name: n for name, n in device.items() if n}},
        )

    def apps(self) -> list[schema.App]:
        """The configured apps and what runs of them."""
        return [
            schema.App(
                name=app.name,
                addresses=[str(address) for address in app.addresses],
                ports=[str(range_) for range_ in app.ports],
                source_ports=str(app.source_ports or ""),
                threads=sum(s.attached for s in self.registry.sessions(app.name)),
                threads_max=app.threads_max,
                connections=sum(
                    _connections(a) for a in self.sessions.attached() if a.session.app == app.name
                ),
                epoch=self.balancer.circle(app.name).epoch,
                shares={
                    str(t): round(share, 4) for t, share in self.balancer.circle(app.name).shares().items()
                },
            )
            for app in self.config.apps
        ]

    def services(self) -> list[schema.Service]:
        """Which (address, port) belongs to whom."""
        sources = {app.name: app.source_ports for app in self.config.apps}
        result = []
        for service in self.registry.services():
            source = service.ports == sources[service.app]
            tids = [
                s.tid
                for s in self.registry.sessions(service.app)
                if s.online and (source or (service.address, service.ports.first) in s.listens)
            ]
            result.append(
                schema.Service(
                    address=str(service.address),
                    ports=str(service.ports),
                    app=service.app,
                    kind="source" if source else "listen",
                    tids=tids,
                )
            )
        return result

    def _known(self, app: str | None) -> str | None:
        if app is not None and app not in self.sessions.app_ids:
            known = ", ".join(self.sessions.app_ids)
            raise BadRequest("not_found", f'no app "{app}" is configured; there are: {known}', "app")
        return app

    def _thread(self, session: Session) -> schema.Thread:
        attached = self.sessions.by_thread(session.app, session.tid) if session.attached else None
        state = (
            "online"
            if session.online
            else "attached"
            if attached is not None and attached.sealed
            else "mapping"
        )
        slots = attached.plane.slots() if attached is not None and attached.sealed else None
        info = attached.plane.info() if attached is not None else None
        return schema.Thread(
            app=session.app,
            tid=session.tid,
            state=state if session.attached else "waiting",
            pid=session.pid,
            uid=session.uid,
            generation=session.generation,
            share=round(self.balancer.circle(session.app).shares().get(session.tid, 0.0), 4),
            leaving=attached is not None and attached.leaving,
            listens=len(session.listens),
            connections=_connections(attached) if attached is not None else 0,
            rx_slots=slots.total if slots is not None else 0,
            rx_slots_held=slots.held if slots is not None else 0,
            violations=info.violations if info is not None else 0,
            huge_pages=info is not None and info.huge,
            counters=_counters(attached) if attached is not None else {},
        )

    def conns(self, request: schema.Conns) -> schema.ConnsResult:
        """One page of connections."""
        app, tid, row = self._cursor(request.cursor)
        self._known(request.app)
        conns: list[schema.Conn] = []
        for attached in sorted(self.sessions.attached(), key=lambda a: (a.session.app, a.session.tid)):
            session = attached.session
            here = (session.app, session.tid)
            if not attached.sealed or here < (app, tid) or (request.app or session.app) != session.app:
                continue
            if request.tid is not None and request.tid != session.tid:
                continue
            start = row if here == (app, tid) else 0
            for found in islice(attached.plane.rows(start), request.limit + 1 - len(conns)):
                if len(conns) == request.limit:
                    return schema.ConnsResult(conns=conns, cursor=f"{session.app}/{session.tid}/{found.row}")
                conns.append(
                    schema.Conn(
                        app=session.app,
                        tid=session.tid,
                        row=found.row,
                        state=TCP_STATES[found.state] if found.state < len(TCP_STATES) else str(found.state),
                        local=str(found.local),
                        local_port=found.local_port,
                        remote=str(found.remote),
                        remote_port=found.remote_port,
                        snd_nxt=found.snd_nxt,
                        rcv_nxt=found.rcv_nxt,
                    )
                )
        return schema.ConnsResult(conns=conns, cursor=None)

    @staticmethod
    def _cursor(cursor: str | None) -> tuple[str, int, int]:
        if cursor is None:
            return ("", 0, 0)
        match = re.fullmatch(r"([a-z][a-z0-9-]*)/([0-9]{1,3})/([0-9]{1,10})", cursor)
        if match is None or int(match[3]) >= 2**32:
            raise BadRequest("bad_field", "cursor is not one that a reply has given", "cursor")
        return (match[1], int(match[2]), int(match[3]))

    def stats(self) -> list[schema.Counters]:
        """All counters: of the stats page, of the TCP threads, of the control plane."""
        result = [_of_page(counted) for counted in self.page.read()]
        for attached in self.sessions.attached():
            if attached.sealed:
                session = attached.session
                counters = _counters(attached)
                result.append(
                    schema.Counters(kind="tcp", name=session.app, number=session.tid, counters=counters)
                )
        slow = self.slow_path
        control = {
            **{f"slow_path_{name}": n for name, n in asdict(slow.counters).items()},
            **{f"neighbour_{name}": n for name, n in asdict(slow.neighbours.counters).items()},
            "icmp_answered": slow.icmp.answered,
            "icmp_rate_limited": slow.icmp.rate_limited,
        }
        result.append(schema.Counters(kind="control", name="janusd", number=0, counters=control))
        return result

    def neighbours(self) -> list[schema.Neighbour]:
        """The neighbour table."""
        names = {number: name for name, number in self.ports.items()}
        return [
            schema.Neighbour(
                port=names[entry.port],
                address=str(entry.address),
                mac=entry.mac.hex(":") if entry.mac is not None else "",
                state=entry.state.value,
            )
            for entry in self.slow_path.neighbours.entries()
        ]


def _of_page(counted: Counted) -> schema.Counters:
    number = counted.sub if counted.kind == "thread" else counted.number
    return schema.Counters(kind=counted.kind, name=counted.name, number=number, counters=counted.counters)


def _counters(attached: Attached) -> dict[str, int]:
    try:
        return thread_counters.by_name(attached.plane.counters()) if attached.sealed else {}
    except GlueError:
        return {}


def _connections(attached: Attached) -> int:
    if not attached.sealed:
        return 0
    return thread_counters.connections(attached.plane.counters(), attached.welcome.sizes.rows)
