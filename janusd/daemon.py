"""janusd, put together: a start-up table of (name, start, stop), undone in reverse.

One control thread with one event loop runs the attach server, the control API, the slow path and the
clockwork; the metrics have a thread of their own; the I/O threads are C. Decisions live elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import ipaddress
import logging
import os
import secrets
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import IO

from dpdk_glue.data_plane import DataPlane
from dpdk_glue.eal import eal_words, free_huge_pages, start_eal
from dpdk_glue.values import EventKind, GlueError, PortConfig, PortInfo, Route
from janusd import checks, state, stats_page, thread_counters
from janusd.attach import AttachServer, open_listener
from janusd.balancer import Balancer
from janusd.checks import EX_NOPERM, EX_TEMPFAIL, StartError
from janusd.config import Config
from janusd.config import PortConfig as ConfiguredPort
from janusd.control_plane import ControlPlane
from janusd.log_format import fields
from janusd.metrics import JanusCollector, MetricsServer, Snapshot
from janusd.neighbours import Link
from janusd.notify import LoopWatch, Notifier
from janusd.registry import Registry
from janusd.runtime_sockets import group_for
from janusd.sessions import Sessions
from janusd.slow_path import SlowPath
from janusd.views import Views, release
from janusd.wishes import Wishes

log = logging.getLogger("janusd.daemon")

TICK_S = 0.25
SNAPSHOT_EVERY_TICKS = 4
STATS_MODE = 0o444


@dataclass(frozen=True)
class Step:
    """One line of the start-up table."""

    name: str
    start: Callable[[], None]
    stop: Callable[[], None]


def _nothing() -> None:
    """There is nothing to undo."""


class Daemon:
    """Everything that runs, in the order in which it starts."""

    # What a step makes is used by the steps after it alone.
    lock: IO[str]
    stats_fd: int
    page: stats_page.StatsPage
    plane: DataPlane
    port_infos: dict[str, PortInfo]
    registry: Registry
    balancer: Balancer
    wishes: dict[str, Wishes]
    sessions: Sessions
    slow_path: SlowPath
    attach: AttachServer
    control: ControlPlane
    metrics: MetricsServer | None

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop, notifier: Notifier) -> None:
        self.config = config
        self.loop = loop
        self.notifier = notifier
        self.started_at = time.monotonic()
        self.huge_pages = False
        self.ports: dict[str, int] = {}
        self._started: list[Step] = []
        self._stopped = asyncio.Event()
        self._ticks = 0
        self._timer: asyncio.TimerHandle | None = None
        self._watch = LoopWatch()
        self._watched_at = 0.0

    def steps(self) -> list[Step]:
        """The start-up table."""
        return [
            Step("machine", self._check_machine, _nothing),
            Step("runtime directory", self._open_runtime_dir, self._close_runtime_dir),
            Step("stats page", self._create_page, self._unlink_page),
            Step("EAL", self._start_eal, _nothing),
            Step("data plane", self._create_plane, self._close_plane),
            Step("ports", self._open_ports, _nothing),
            Step("state", self._load_state, _nothing),
            Step("sessions", self._start_sessions, self._stop_sessions),
            Step("I/O threads", self._start_io, _nothing),
            Step("processors", self._leave_io_cpus, self._return_to_io_cpus),
            Step("slow path", self._start_slow_path, self._stop_slow_path),
            Step("metrics", self._start_metrics, self._stop_metrics),
            Step("control API", self._start_api, self._stop_api),
            Step("attach server", self._start_attach, self._stop_attach),
            Step("clockwork", self._start_clockwork, self._stop_clockwork),
        ]

    def start(self) -> None:
        """Start everything; when a step fails, what has started is stopped and its error raised."""
        for step in self.steps():
            log.debug("starting", extra=fields(step=step.name))
            try:
                step.start()
            except BaseException:
                self.stop()
                raise
            self._started.append(step)

    def stop(self) -> None:
        """Stop what has started, last first. Idempotent."""
        while self._started:
            step = self._started.pop()
            try:
                step.stop()
            except Exception:
                log.exception("stopping failed", extra=fields(step=step.name))

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, self._stopped.set)
        log.info("ready", extra=fields(ports=len(self.ports), apps=len(self.config.apps), release=release()))
        self.notifier.send("READY=1", f"STATUS=serving {len(self.ports)} port(s)")
        await self._stopped.wait()
        self.notifier.send("STOPPING=1")
        log.info("stopping")

    # --- the steps ---

    def _check_machine(self) -> None:
        checks.check_ports(self.config)
        if warning := checks.check_autogroup(self.config.io.mode):
            log.warning(warning)
        huge, warning = checks.choose_huge_pages(
            self.config.eal.huge_pages, self.config.eal.memory_mib, free_huge_pages()
        )
        if warning:
            log.warning(warning)
        self.huge_pages = huge

    def _open_runtime_dir(self) -> None:
        directory = self.config.daemon.runtime_dir
        try:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            self.lock = open(directory / "janusd.lock", "w")  # noqa: SIM115 - held until the end
        except OSError as error:
            mend = "run as root, or let systemd make it (RuntimeDirectory=)"
            text = f"[daemon] runtime_dir {directory}: {error.strerror}: {mend}"
            raise StartError(text, EX_NOPERM) from None
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.lock.close()
            text = (
                f"another janusd runs with runtime_dir {directory}: stop it, or configure another runtime_dir"
            )
            raise StartError(text, EX_TEMPFAIL) from None

    def _close_runtime_dir(self) -> None:
        self.lock.close()

    def _create_page(self) -> None:
        try:
            self.stats_fd = stats_page.create(self.config.daemon.stats_name, STATS_MODE)
        except OSError as error:
            raise StartError(f"stats_name {self.config.daemon.stats_name}: {error}", EX_NOPERM) from None

    def _unlink_page(self) -> None:
        stats_page.unlink(self.config.daemon.stats_name)
        os.close(self.stats_fd)

    def _start_eal(self) -> None:
        eal = self.config.eal
        pci = any(not port.device.startswith(("net_", "eth_")) for port in self.config.ports)
        words = eal_words(huge_pages=self.huge_pages, memory_mib=eal.memory_mib, pci=pci, options=eal.options)
        try:
            start_eal(words)
        except GlueError as error:
            raise StartError(f"[eal] EAL does not start with {' '.join(words)}: {error.strerror}") from None

    def _create_plane(self) -> None:
        io = self.config.io
        try:
            self.plane = DataPlane(
                io_threads=io.threads,
                cpus=io.cpus,
                mode=io.mode,
                stats_fd=self.stats_fd,
            )
        except GlueError as error:
            raise StartError(f"the data plane does not start: {error.strerror}") from None
        self.page = stats_page.open_page(self.config.daemon.stats_name)

    def _close_plane(self) -> None:
        self.plane.close()

    def _open_ports(self) -> None:
        for port in self.config.ports:
            wish = PortConfig(
                name=port.name,
                device=port.device,
                mtu=port.mtu,
                promiscuous=port.promiscuous,
                vlan=port.vlan,
                reassemble=port.reassemble,
                tso=port.tso,
                lro=port.lro,
            )
            try:
                self.ports[port.name] = self.plane.ports.open(wish)
            except GlueError as error:
                raise StartError(f'port "{port.name}": {error.strerror}') from None
        self.port_infos = {name: self.plane.ports.info(number) for name, number in self.ports.items()}
        self.plane.routing.set_addresses(
            {i.ip: self.ports[port.name] for port in self.config.ports for i in port.addresses}
        )
        self.plane.routing.set_routes(route for port in self.config.ports for route in self._routes(port))

    def _routes(self, port: ConfiguredPort) -> list[Route]:
        number = self.ports[port.name]
        everywhere = {4: ipaddress.ip_network("0.0.0.0/0"), 6: ipaddress.ip_network("::/0")}
        connected = [Route(interface.network, number) for interface in port.addresses]
        return connected + [Route(everywhere[g.version], number, g) for g in port.gateways]

    def _load_state(self) -> None:
        self.registry = Registry(self.config, secrets.token_bytes)
        self.balancer = Balancer(secrets.token_bytes)
        self.wishes = {app.name: Wishes() for app in self.config.apps}
        waiting = 0
        try:
            waiting = state.load(self.config.daemon.runtime_dir, self.registry, self.balancer, self.wishes)
        except state.StateError as error:
            log.warning("the saved state is not used", extra=fields(error=error))
        for app in self.config.apps:
            self.wishes[app.name].configure(app.automatic)
        if waiting:
            log.info(
                "apps may resume", extra=fields(sessions=waiting, within_s=self.config.daemon.recovery_s)
            )

    def _save(self) -> None:
        try:
            state.save(self.config.daemon.runtime_dir, self.registry, self.balancer, self.wishes)
        except OSError as error:
            log.error("the state cannot be saved", extra=fields(error=error))

    def _start_sessions(self) -> None:
        self.sessions = Sessions(
            self.config,
            self.plane,
            self.registry,
            self.balancer,
            self._save,
            self.port_infos,
            self.loop,
        )
        self.sessions.start()
        self._save()

    def _stop_sessions(self) -> None:
        self._save()
        self.sessions.stop()

    def _leave_io_cpus(self) -> None:
        """A turn of this loop takes milliseconds: packets shall not wait for it where another processor is allowed."""
        self._cpus = os.sched_getaffinity(0)
        rest = self._cpus - set(self.config.io.cpus)
        if rest:
            os.sched_setaffinity(0, rest)

    def _return_to_io_cpus(self) -> None:
        with contextlib.suppress(OSError):  # they may have gone since
            os.sched_setaffinity(0, self._cpus)

    def _start_io(self) -> None:
        try:
            self.plane.io_threads.start()
        except GlueError as error:
            raise StartError(f"the I/O threads do not start: {error.strerror}") from None

    def _start_slow_path(self) -> None:
        links = {
            self.ports[port.name]: Link(self.port_infos[port.name].mac, port.addresses)
            for port in self.config.ports
        }
        self.slow_path = SlowPath(self.plane, links, time.monotonic)
        self.slow_path.announce()
        self.loop.add_reader(self.plane.wake_fd, self._wake)

    def _stop_slow_path(self) -> None:
        self.loop.remove_reader(self.plane.wake_fd)

    def _start_metrics(self) -> None:
        self.metrics = None
        self.collector = JanusCollector(self.page)
        if self.config.metrics_listen is None:
            return
        self.metrics = MetricsServer(self.config.metrics_listen, self.collector)
        try:
            self.metrics.start()
        except OSError as error:
            host, port = self.config.metrics_listen
            self.metrics.stop()
            why = os.strerror(error.errno) if error.errno else str(error)
            hint = ": another process listens there" if error.errno == errno.EADDRINUSE else ""
            raise StartError(f"[metrics] listen = {host}:{port}: {why}{hint}") from None

    def _stop_metrics(self) -> None:
        if self.metrics is not None:
            self.metrics.stop()

    def _start_api(self) -> None:
        views = Views(
            self.config,
            self.plane,
            self.ports,
            self.registry,
            self.balancer,
            self.sessions,
            self.slow_path,
            self.page,
            os.getpid(),
            self.huge_pages,
            lambda: time.monotonic() - self.started_at,
        )
        self.control = ControlPlane(
            self.config,
            views,
            self.balancer,
            self.sessions,
            self.page,
            self.loop,
            self.wishes,
            self._save,
        )
        self.control.start()

    def _stop_api(self) -> None:
        self.control.stop()

    def _start_attach(self) -> None:
        path = self.config.daemon.runtime_dir / "attach.sock"
        listener = open_listener(path, group_for("group", self.config.daemon.group))
        self.attach = AttachServer(self.sessions, listener, self.loop)
        self.attach.start()

    def _stop_attach(self) -> None:
        self.attach.stop()

    def _start_clockwork(self) -> None:
        if self.sessions.recovering:
            self.loop.call_later(self.config.daemon.recovery_s, self.sessions.end_recovery)
        self._tick()

    def _stop_clockwork(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # --- what the loop calls ---

    def _wake(self) -> None:
        """The data plane has frames or events."""
        self.plane.clear_wake()
        more = self.slow_path.drain()
        for event in self.plane.events():
            if event.kind is EventKind.RESETS_DONE:
                self.sessions.resets_done(event)
            elif (attached := self.sessions.by_event(event)) is not None:
                log.warning("app broke the ring rules", extra=fields(app=attached.session.app, tid=event.tid))
                self.attach.end(attached, "violations")
        if more:
            self.loop.call_soon(self._drain_more)

    def _drain_more(self) -> None:
        if self.slow_path.drain():
            self.loop.call_soon(self._drain_more)

    def _tick(self) -> None:
        self._timer = self.loop.call_later(TICK_S, self._tick)
        self.slow_path.tick()
        self.sessions.save_if_needed()
        if self._ticks % SNAPSHOT_EVERY_TICKS == 0:
            self.collector.snapshot = self._snapshot()
        self._ticks += 1
        self._feed_watchdog()

    def _feed_watchdog(self) -> None:
        now = time.monotonic()
        if not self.notifier.watchdog_s or now - self._watched_at < self.notifier.watchdog_s / 4:
            return
        self._watched_at = now
        threads = self.plane.io_threads
        if self._watch.moved([threads.info(number).turns for number in range(threads.count)]):
            self.notifier.send("WATCHDOG=1")
        else:
            log.error("an I/O thread does not move: the watchdog is not fed")

    def _snapshot(self) -> Snapshot:
        attached = [a for a in self.sessions.attached() if a.sealed]
        slow = self.slow_path
        devices = {}
        for name, number in self.ports.items():
            own = self.plane.ports.stats(number)
            devices[name] = {
                "rx_missed": own.rx_missed,
                "rx_errors": own.rx_errors,
                "rx_no_mbuf": own.rx_no_mbuf,
                "tx_errors": own.tx_errors,
            }
        tcp = {(a.session.app, a.session.tid): tuple(a.plane.counters()) for a in attached}
        rows = {(a.session.app, a.session.tid): a.welcome.sizes.rows for a in attached}
        return Snapshot(
            release=release(),
            recovering=self.sessions.recovering,
            tcp=tcp,
            connections={key: thread_counters.connections(values, rows[key]) for key, values in tcp.items()},
            threads={app.name: sum(a.session.app == app.name for a in attached) for app in self.config.apps},
            small_page_threads=sum(not a.plane.info().huge for a in attached),
            control={
                **{f"slow_path_{name}": count for name, count in asdict(slow.counters).items()},
                **{f"neighbour_{name}": count for name, count in asdict(slow.neighbours.counters).items()},
                "icmp_answered": slow.icmp.answered,
                "icmp_rate_limited": slow.icmp.rate_limited,
                "attach_refused": self.attach.refusals,
                "attach_bad_message": self.attach.bad_messages,
            },
            devices=devices,
            neighbours=len(slow.neighbours),
            csb=self.control.csb_counts.numbers(),
        )
