"""Prometheus: the stats page and the control thread's last snapshot as metrics, over an HTTP server.

A scrape reads shared memory; it asks no I/O thread, no app and not the control thread. All clients are
served by one thread; each has 5 s in all, and the oldest makes room when there are too many.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from janusd import thread_counters
from janusd.csb_metrics import CsbNumbers, csb_families
from janusd.stats_page import Counted, StatsPage, StatsPageError

log = logging.getLogger("janusd.metrics")

CLIENTS_MAX = 512
REQUEST_BYTES_MAX = 8192
REQUEST_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Snapshot:
    """What the control thread says, about once a second. tcp: counters by (app, tid)."""

    release: str = ""
    recovering: bool = False
    tcp: Mapping[tuple[str, int], tuple[int, ...]] = field(default_factory=dict)
    connections: Mapping[tuple[str, int], int] = field(default_factory=dict)
    threads: Mapping[str, int] = field(default_factory=dict)
    small_page_threads: int = 0
    control: Mapping[str, int] = field(default_factory=dict)
    devices: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    neighbours: int = 0
    csb: Mapping[str, CsbNumbers] = field(default_factory=dict)


class JanusCollector(Collector):
    """Makes the metrics at each scrape."""

    def __init__(self, page: StatsPage) -> None:
        self._page = page
        self.snapshot = Snapshot()

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        snapshot = self.snapshot
        counted = self._page.read()
        yield from _about_janusd(self._page, snapshot)
        yield from _of_page(counted)
        yield from _drops(counted)
        yield from _tcp(snapshot)
        yield from csb_families(snapshot.csb)


def _about_janusd(page: StatsPage, snapshot: Snapshot) -> Iterator[Metric]:
    info = GaugeMetricFamily("janus_info", "Always 1; the release of janusd.", labels=["release"])
    info.add_metric([snapshot.release], 1)
    yield info
    started = page.info().started_us / 1e6
    yield GaugeMetricFamily(
        "janus_start_time_seconds", "When janusd started, in seconds since 1970.", started
    )
    yield GaugeMetricFamily(
        "janus_recovering", "1 while apps of a former janusd may still come back.", snapshot.recovering
    )
    yield GaugeMetricFamily("janus_neighbours", "Entries of the neighbour table.", snapshot.neighbours)
    yield GaugeMetricFamily(
        "janus_small_page_threads",
        "TCP threads whose regions are not in huge pages.",
        snapshot.small_page_threads,
    )
    threads = GaugeMetricFamily("janus_threads", "Attached TCP threads.", labels=["app"])
    for app, count in snapshot.threads.items():
        threads.add_metric([app], count)
    yield threads
    control = CounterMetricFamily(
        "janus_control_events", "What the control plane has done and dropped.", labels=["event"]
    )
    for name, count in snapshot.control.items():
        control.add_metric([name], count)
    yield control
    device = CounterMetricFamily(
        "janus_port_device_errors", "Errors that the device counts.", labels=["port", "error"]
    )
    for port, errors in snapshot.devices.items():
        for error, count in errors.items():
            device.add_metric([port, error], count)
    yield device


def _of_page(counted: list[Counted]) -> Iterator[Metric]:
    """janus_io_*, janus_port_*, janus_app_* and janus_thread_* from the blocks' own names."""
    labels = {"io": ["io"], "port": ["port"], "app": ["app"], "thread": ["app", "tid"]}
    families: dict[str, CounterMetricFamily] = {}
    for one in counted:
        if one.kind not in labels:
            continue
        values = {
            "io": [str(one.number)],
            "port": [one.name],
            "app": [one.name],
            "thread": [one.name, str(one.sub)],
        }[one.kind]
        for name, count in one.counters.items():
            if name.startswith("drop."):
                continue
            full = f"janus_{one.kind}_{name}"
            if full not in families:
                text = f"{name.replace('_', ' ').capitalize()}, by {' and '.join(labels[one.kind])}."
                families[full] = CounterMetricFamily(full, text, labels=labels[one.kind])
            families[full].add_metric(values, count)
    yield from families.values()


def _drops(counted: list[Counted]) -> Iterator[Metric]:
    drops = CounterMetricFamily(
        "janus_drops", "Packets dropped, by reason.", labels=["reason", "port", "app"]
    )
    for one in counted:
        if one.kind not in ("port", "app"):
            continue
        where = [one.name, ""] if one.kind == "port" else ["", one.name]
        for name, count in one.counters.items():
            if name.startswith("drop.") and name != "drop.none":
                drops.add_metric([name[5:], *where], count)
    yield drops


def _tcp(snapshot: Snapshot) -> Iterator[Metric]:
    connections = GaugeMetricFamily("janus_connections", "Open connections.", labels=["app", "tid"])
    drops = CounterMetricFamily(
        "janus_tcp_drops",
        "Segments that TCP dropped, as the app counts them.",
        labels=["app", "tid", "reason"],
    )
    families = {
        name: CounterMetricFamily(
            f"janus_tcp_{name}",
            f"{name.replace('_', ' ').capitalize()}, as the app counts.",
            labels=["app", "tid"],
        )
        for name in thread_counters.NAMES
    }
    for (app, tid), count in snapshot.connections.items():
        connections.add_metric([app, str(tid)], count)
    for (app, tid), values in snapshot.tcp.items():
        for name, count in thread_counters.by_name(values).items():
            if name.startswith("drop."):
                if count:
                    drops.add_metric([app, str(tid), name[5:]], count)
            else:
                families[name].add_metric([app, str(tid)], count)
    yield connections
    yield drops
    yield from families.values()


class MetricsServer:
    """GET /metrics, and nothing else."""

    def __init__(self, listen: tuple[str, int], collector: JanusCollector) -> None:
        self._listen = listen
        self._registry = CollectorRegistry()
        self._registry.register(collector)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="metrics", daemon=True)
        self._clients: dict[asyncio.Task[None], None] = {}
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port that is listened on."""
        if self._server is None:
            return self._listen[1]
        return int(self._server.sockets[0].getsockname()[1])

    def start(self) -> None:
        """Listen and serve from a thread. OSError: the address cannot be had."""
        self._thread.start()
        listening = asyncio.start_server(self._client, *self._listen, limit=REQUEST_BYTES_MAX, backlog=128)
        self._server = asyncio.run_coroutine_threadsafe(listening, self._loop).result(5)

    def stop(self) -> None:
        """Close everything."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(5)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)
        self._loop.close()

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._clients):
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            return
        if len(self._clients) >= CLIENTS_MAX:
            next(iter(self._clients)).cancel()
        self._clients[task] = None
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                await self._serve(reader, writer)
        except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError):
            pass
        finally:
            self._clients.pop(task, None)
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()
            else:
                writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        status, body = self._respond(head.split(b"\r\n", 1)[0])
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE_LATEST}\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n".encode()
            + body
        )
        await writer.drain()
        while writer.transport.get_write_buffer_size():
            await asyncio.sleep(0.01)

    def _respond(self, request_line: bytes) -> tuple[str, bytes]:
        words = request_line.split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return "400 Bad Request", b"not HTTP\n"
        if words[0] != b"GET":
            return "405 Method Not Allowed", b"GET alone\n"
        if words[1].split(b"?")[0] != b"/metrics":
            return "404 Not Found", b"/metrics alone\n"
        try:
            return "200 OK", generate_latest(self._registry)
        except StatsPageError as error:
            return "503 Service Unavailable", f"{error}\n".encode()
