"""A data plane made of lists: what janusd told it, and nothing behind it."""

import os
import struct
from collections.abc import Iterable, Iterator, Sequence

from dpdk_glue.values import (
    CsbBuilt,
    CsbValue,
    Event,
    GlueError,
    IoThreadInfo,
    Offload,
    PortInfo,
    PortStats,
    ResetProgress,
    Row,
    Service,
    SessionConfig,
    SessionInfo,
    Slots,
)
from janusd import config

CONFIG = f"""
[daemon]
recovery_s = 1.0
[[port]]
name = "p0"
device = "net_null0"
addresses = ["10.77.0.1/24", "fd77::1/64"]
[[app]]
name = "web"
users = [{os.getuid()}]
ports = ["80", "8000-8099"]
source_ports = "40000-49999"
threads_max = 3
connections_max = 1000
rx_slots = 256
tx_slots = 128
[[app]]
name = "api"
users = [{os.getuid()}]
ports = ["443"]
[[app]]
name = "other"
users = [{os.getuid() + 1}]
ports = ["9"]
"""

PORT = PortInfo(
    name="p0",
    driver="net_null",
    mac=bytes.fromhex("020000000001"),
    mtu=1500,
    rx_queues=1,
    tx_queues=1,
    offloads=Offload.NONE,
    link_up=True,
    link_mbps=10000,
)


def parse_config(text: str = CONFIG) -> config.Config:
    return config.parse(text, "j.toml")


class FakeSession:
    """A session whose descriptors are all /dev/null."""

    def __init__(self, wish: SessionConfig, io_count: int) -> None:
        self.config = wish
        self.calls: list[str] = []
        self.seal_error: GlueError | None = None
        self.connections: list[Row] = []
        self.busy_us = self.rx_queued = 0
        self._io_count = io_count
        self._fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(5 + io_count)]

    def info(self) -> SessionInfo:
        j2a, a2j, rows, csb, doorbell, *io = self._fds
        return SessionInfo(
            j2a_bytes=1 << 21,
            a2j_bytes=1 << 21,
            rows_bytes=1 << 21,
            j2a_fd=j2a,
            a2j_fd=a2j,
            rows_fd=rows,
            csb_fd=csb,
            app_doorbell_fd=doorbell,
            io_doorbell_fds=tuple(io),
            huge=False,
            violations=0,
            closed=False,
            app_sleeping=True,
            heartbeat=7,
            rows_used=len(self.connections),
            busy_us=self.busy_us,
            busy_since_us=0,
            csb_closed=0,
            csb_held_us=0,
            csb_held_wall_us=0,
            rx_queued=self.rx_queued,
        )

    def seal(self) -> None:
        self.calls.append("seal")
        if self.seal_error is not None:
            raise self.seal_error

    def start(self) -> None:
        self.calls.append("start")

    def stop(self) -> Slots:
        self.calls.append("stop")
        return Slots(256, 256, 0)

    def free(self) -> None:
        if "free" not in self.calls:
            self.calls.append("free")
            for fd in self._fds:
                os.close(fd)

    def slots(self) -> Slots:
        return Slots(256, 200, 56)

    def counters(self) -> list[int]:
        return list(range(64))

    def rows(self) -> Iterator[Row]:
        return iter(self.connections)

    def reset_peers(self, rate_per_s: int = 0) -> None:
        self.calls.append("reset_peers")

    def reset_progress(self) -> ResetProgress:
        return ResetProgress(3, 1, True)


class FakeBalance:
    """Views that are /dev/null; lists and orders are written down."""

    def __init__(self) -> None:
        self.circles: dict[int, tuple[list[tuple[int, int]], int]] = {}
        self.flagged: dict[int, int] = {}
        self.lists: dict[int, list[bytes]] = {}
        self.orders: list[tuple[str, int]] = []
        self._next: dict[int, tuple[list[tuple[int, int]], int]] = {}
        self.counted: list[tuple[int, int, int]] = []  # strangers()
        self.has_views = False  # else nobody need be asked
        self._null = os.open("/dev/null", os.O_RDONLY)

    def plan(self, app: int, points: Sequence[tuple[int, int]], epoch: int) -> CsbValue:
        self._next[app] = (list(points), epoch)
        self.lists.clear()
        return CsbValue(self._null, 1000)

    def add_list(self, app: int, tid: int, hashes: bytes, limit: int) -> bool:
        self.lists.setdefault(tid, []).append(hashes)
        return sum(map(len, self.lists[tid])) <= 8 * limit

    def draft(self, app: int) -> CsbValue:
        return CsbValue(self._null, 2000)

    def prepare(self, app: int) -> None:
        self.orders.append(("prepare", 0))

    def build(self, app: int) -> CsbBuilt:
        reported = sum(len(part) // 8 for parts in self.lists.values() for part in parts)
        return CsbBuilt(CsbValue(self._null, 3000), 0b101, reported, 0, reported)

    def build_without(
        self, app: int, points: Sequence[tuple[int, int]], epoch: int, dead: Iterable[int]
    ) -> CsbBuilt:
        self._next[app] = (list(points), epoch)
        return CsbBuilt(CsbValue(self._null, 3000), 0, 0, 0, 0)

    def build_flagged(
        self, app: int, points: Sequence[tuple[int, int]], epoch: int, flagged: int
    ) -> CsbBuilt:
        self.flagged[app] = flagged
        return self.build_without(app, points, epoch, ())

    def drain(self, app: int, attempt: int) -> None:
        self.orders.append(("drain", attempt))

    def publish(self, app: int, attempt: int = 0) -> None:
        self.orders.append(("publish", attempt))
        self.circles[app] = self._next[app]

    def abort(self, app: int) -> None:
        self.orders.append(("abort", 0))

    def forget(self, app: int) -> None:
        self.circles[app] = ([], self.circles[app][1] + 1)

    def strangers(self, app: int, room: int) -> list[tuple[int, int, int]]:
        return self.counted

    def view(self, app: int) -> CsbValue | None:
        return CsbValue(self._null, 3000) if self.has_views and app in self.circles else None


class FakePlane:
    """The parts of DataPlane that janusd uses; each part is the plane itself."""

    def __init__(self, io_threads: int = 1) -> None:
        self.apps = self.services = self.sessions = self.io_threads = self.ports = self.routing = self
        self.slow_path = self
        self.count = io_threads
        self.added: dict[int, tuple[str, tuple[int, int]]] = {}
        self.balance = FakeBalance()
        self.published: list[Service] = []
        self.policy: dict[str, bool] = {}
        self.created: list[FakeSession] = []
        self.create_error: GlueError | None = None
        self.sent: list[tuple[int, bytes]] = []
        self.neighbours: dict[object, bytes] = {}
        self.pending_events: list[Event] = []
        self.turns = 0

    def add(self, app: int, name: str, secret: tuple[int, int]) -> None:
        self.added[app] = (name, secret)

    def publish(self, services: Iterable[Service]) -> None:
        self.published = list(services)

    def set_policy(self, *, reset: bool, recovery: bool) -> None:
        self.policy = {"reset": reset, "recovery": recovery}

    def create(self, wish: SessionConfig) -> FakeSession:
        if self.create_error is not None:
            raise self.create_error
        self.created.append(FakeSession(wish, self.count))
        return self.created[-1]

    def info(self, number: int) -> PortInfo | IoThreadInfo:
        return PORT

    def stats(self, number: int) -> PortStats:
        return PortStats(
            rx_packets=10,
            rx_bytes=1000,
            rx_missed=1,
            rx_errors=0,
            rx_no_mbuf=0,
            tx_packets=20,
            tx_bytes=2000,
            tx_errors=2,
        )

    def send(self, port: int, frame: bytes) -> None:
        self.sent.append((port, frame))

    def set_neighbour(self, port: int, address: object, mac: bytes) -> None:
        self.neighbours[port, address] = mac

    def delete_neighbour(self, port: int, address: object) -> bool:
        return self.neighbours.pop((port, address), None) is not None


HELLO = struct.Struct("=II HHHH 32s 16s IIII 8H")
ROW = (128, 0, 8, 24, 26, 28, 32, 36)


def hello(
    app: str = "web",
    *,
    type_: int = 1,
    magic: int = 0x4A414E55,
    major: int = 2,
    minor: int = 0,
    resume: int = 0,
    reserved: int = 0,
    token: bytes = bytes(16),
    rows: int = 0,
    rx: int = 0,
    tx: int = 0,
    reserved2: int = 0,
    row: Sequence[int] = ROW,
) -> bytes:
    """The bytes of a HELLO, written down a second time."""
    return HELLO.pack(
        type_, magic, major, minor, resume, reserved, app.encode(), token, rows, rx, tx, reserved2, *row
    )


KINDS = {
    "io": ["turns", "busy_turns", "sleeps", "busy_cycles"],
    "port": ["rx_packets", "rx_bytes", "tx_packets", "tx_bytes", "drop.none", "drop.runt"],
    "app": ["rx_packets", "drop.none", "drop.ring_full"],
    "thread": ["rx_packets", "drop.none", "drop.ring_full"],
}
COUNTERS_MAX = 88
BlockSpec = tuple[str, int, int, int, str, list[int]]  # kind, number, sub, io, name, counters


def stats_page(
    blocks: Sequence[BlockSpec], *, seq: int = 2, version: int = 1, magic: int = 0x4A535431
) -> bytes:
    """A page as sdk/shm/page.h lays it out, written down a second time."""
    kind_bytes, block_bytes, kinds_at = 64 + COUNTERS_MAX * 32, 64 + COUNTERS_MAX * 8, 128
    blocks_at = kinds_at + 8 * kind_bytes
    size = blocks_at + (len(blocks) + 1) * block_bytes
    header = struct.pack(
        "=10I QQ 16x",
        magic,
        version,
        seq,
        len(KINDS),
        len(blocks) + 1,
        block_bytes,
        kinds_at,
        kind_bytes,
        blocks_at,
        4711,
        1_700_000_000_000_000,
        size,
    )
    page = bytearray(header.ljust(size, b"\0"))
    for index, (kind, names) in enumerate(KINDS.items()):
        at = kinds_at + index * kind_bytes
        struct.pack_into("=32sI", page, at, kind.encode(), len(names))
        for number, name in enumerate(names):
            struct.pack_into("32s", page, at + 64 + number * 32, name.encode())
    for index, (kind, number, sub, io, name, counters) in enumerate(blocks):
        at = blocks_at + index * block_bytes
        struct.pack_into(
            "=8I32s", page, at, 1, list(KINDS).index(kind), number, sub, io, 0, 0, 0, name.encode()
        )
        struct.pack_into(f"={len(counters)}Q", page, at + 64, *counters)
    return bytes(page)


A_PAGE = stats_page(
    [
        ("io", 0, 0, 0, "", [100, 10, 5, 12345]),
        ("port", 0, 0, 0, "p0", [7, 700, 8, 800, 0, 2]),
        ("port", 0, 0, 1, "p0", [3, 300, 2, 200, 0, 1]),
        ("app", 1, 0, 0, "web", [5, 0, 4]),
        ("thread", 1, 2, 0, "web", [5, 0, 4]),
    ]
)
