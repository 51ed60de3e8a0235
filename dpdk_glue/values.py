"""The values that cross between the control plane and the data plane.

Frozen, typed, and free of DPDK: importing this module needs no EAL, so that the control plane's pure
parts and their tests may use it anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class GlueError(OSError):
    """The data plane refused; errno says which way, the text what to mend."""


class Offload(IntFlag):
    """What a port does in hardware and the data plane uses."""

    NONE = 0
    TX_TCP = 1
    RX_TCP = 2
    TX_IPV4 = 4
    TX_TSO_IPV4 = 8
    TX_TSO_IPV6 = 16
    RX_LRO = 32


class SlowReason(IntEnum):
    """Why a frame comes to the control plane."""

    ARP = 1
    ECHO = 2
    ND = 3
    UDP = 4
    NEIGHBOUR = 16


class EventKind(IntEnum):
    """What the data plane has to tell."""

    VIOLATION = 1
    RESETS_DONE = 2


@dataclass(frozen=True, kw_only=True)
class PortConfig:
    """A port as configured; device is a vdev string or a PCI address."""

    name: str
    device: str
    mtu: int = 1500
    promiscuous: bool = False
    vlan: int = 0
    reassemble: bool = False
    tso: bool = True
    lro: bool = False


@dataclass(frozen=True, kw_only=True)
class PortInfo:
    """A port as it was opened, and its link now."""

    name: str
    driver: str
    mac: bytes
    mtu: int
    rx_queues: int
    tx_queues: int
    offloads: Offload
    link_up: bool
    link_mbps: int


@dataclass(frozen=True, kw_only=True)
class PortStats:
    """The port's own counters since it was opened."""

    rx_packets: int
    rx_bytes: int
    rx_missed: int
    rx_errors: int
    rx_no_mbuf: int
    tx_packets: int
    tx_bytes: int
    tx_errors: int


@dataclass(frozen=True, kw_only=True)
class IoThreadInfo:
    """One I/O thread; turns stands still when it hangs (it turns at least every 10 ms)."""

    turns: int
    busy_turns: int
    sleeps: int
    busy_cycles: int
    cycles_hz: int
    cpu: int | None
    running: bool


@dataclass(frozen=True)
class Route:
    """A destination prefix and the way to it; next_hop None means on link."""

    prefix: Network
    port: int
    next_hop: Address | None = None


@dataclass(frozen=True)
class Service:
    """Who gets packets for ports first to last of one of our addresses."""

    address: Address
    first: int
    last: int
    app: int


@dataclass(frozen=True)
class Lease:
    """What one TCP thread may write as source of a packet."""

    addresses: tuple[Address, ...]
    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class RowLayout:
    """Offsets in a connection row, as HELLO gives them (struct shm_row_layout)."""

    stride: int
    state: int
    raddr: int
    rport: int
    lport: int
    laddr_index: int
    snd_nxt: int
    rcv_nxt: int


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """All that decides a session; slots are powers of two, 64 to 2^20."""

    app: int
    tid: int
    generation: int
    lease: Lease
    row: RowLayout
    rows: int = 65536
    rx_slots_per_io: int = 4096
    tx_slots: int = 4096


@dataclass(frozen=True, kw_only=True)
class SessionInfo:
    """A session's regions and health.  The file descriptors are borrowed: send them, never close them."""

    j2a_bytes: int
    a2j_bytes: int
    rows_bytes: int
    j2a_fd: int
    a2j_fd: int
    rows_fd: int
    csb_fd: int
    app_doorbell_fd: int
    io_doorbell_fds: tuple[int, ...]
    huge: bool
    violations: int
    closed: bool
    app_sleeping: bool
    heartbeat: int
    rows_used: int
    busy_us: int
    busy_since_us: int
    csb_closed: int
    csb_held_us: int
    csb_held_wall_us: int
    rx_queued: int

    def welcome_fds(self) -> list[int]:
        """Return the descriptors in WELCOME's order."""
        return [
            self.j2a_fd,
            self.a2j_fd,
            self.rows_fd,
            self.csb_fd,
            self.app_doorbell_fd,
            *self.io_doorbell_fds,
        ]


@dataclass(frozen=True)
class Slots:
    """Where a session's RX slots are; free + held == total."""

    total: int
    free: int
    held: int


@dataclass(frozen=True, kw_only=True)
class Row:
    """A connection as its app's row says; state is enum tcp_state's number, never 0."""

    row: int
    state: int
    local: Address
    local_port: int
    remote: Address
    remote_port: int
    snd_nxt: int
    rcv_nxt: int


@dataclass(frozen=True)
class ResetProgress:
    """How far the resets on behalf of a dead app are."""

    sent: int
    skipped: int
    done: bool


@dataclass(frozen=True)
class Event:
    """Something that happened to the session (app, tid, generation)."""

    kind: EventKind
    app: int
    tid: int
    generation: int


@dataclass(frozen=True)
class SlowFrame:
    """A frame for the control plane; with NEIGHBOUR next_hop is set and the destination MAC is zero."""

    port: int
    reason: SlowReason
    next_hop: Address | None
    frame: bytes = field(repr=False)


@dataclass(frozen=True)
class CsbValue:
    """A plan, draft or view for an app's threads: a sealed memfd, borrowed, and its bytes."""

    fd: int
    bytes: int


@dataclass(frozen=True)
class CsbBuilt:
    """A view that is built and not yet published."""

    value: CsbValue
    flagged: int  # a bit per slot with exceptions
    exceptions: int  # keys
    exact_flows: int  # of conflicted keys
    reported: int  # flows that the threads have listed


class CsbDecider(IntEnum):
    """enum csb_decider: what has decided where a flow goes."""

    SLOT = 0
    CIRCLE = 1
    EXCEPTION = 2
    EXACT = 3


@dataclass(frozen=True)
class CsbExplained:
    """Where a flow goes by the view in force; home: who would get it by the circle alone."""

    decider: CsbDecider
    key: int
    slot: int
    tid: int
    home: int
    epoch: int


class CsbPhase(IntEnum):
    """enum csb_phase."""

    IDLE = 0
    COLLECT = 1
    CHECK = 2
    DRAIN = 3
    SEAL = 4
    PUBLISH = 5
    OPEN = 6
