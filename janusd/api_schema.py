"""The control API's messages (docs/control-api.md): typed, versioned, the same for janusd and its clients.

A request is one JSON object: version, id, verb and the verb's own fields. A reply repeats version and id,
and has either result or error. An unknown or bad field is answered by its name. Verbs that change something are
those of Change.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from janusd.weights import WEIGHT_MAX

VERSION = 1
REQUEST_BYTES_MAX = 64 * 1024
PAGE_MAX = 1000

Id = Annotated[str, msgspec.Meta(max_length=64)]
Name = Annotated[str, msgspec.Meta(max_length=64)]
Tid = Annotated[int, msgspec.Meta(ge=0, le=255)]
Limit = Annotated[int, msgspec.Meta(ge=1, le=PAGE_MAX)]
Cursor = Annotated[str, msgspec.Meta(max_length=128)]
Weight = Annotated[float, msgspec.Meta(ge=0, le=WEIGHT_MAX)]
Weights = Annotated[dict[Tid, Weight], msgspec.Meta(min_length=1, max_length=256)]
Epoch = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
ConfirmSeconds = Annotated[float, msgspec.Meta(ge=1, le=3600)]
Address = Annotated[str, msgspec.Meta(max_length=45)]
PortNumber = Annotated[int, msgspec.Meta(ge=0, le=65535)]


def _verb(name: str) -> str:
    """CsbShow: "csb_show"."""
    return re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()


class Request(msgspec.Struct, tag_field="verb", tag=_verb, forbid_unknown_fields=True, kw_only=True):
    """What every request has. via: who has asked the client to ask, for the log alone."""

    version: Annotated[int, msgspec.Meta(ge=VERSION, le=VERSION)]
    id: Id = ""
    via: Id = ""


class Status(Request):
    """How janusd is."""


class Ports(Request):
    """The ports and their counters."""


class Apps(Request):
    """The configured apps and what runs of them."""


class Services(Request):
    """Which (address, port) belongs to whom."""


class Threads(Request):
    """The attached TCP threads; app: of this one alone."""

    app: Name | None = None


class Conns(Request):
    """Connections, a page at a time; cursor: of the last reply."""

    app: Name | None = None
    tid: Tid | None = None
    limit: Limit = 100
    cursor: Cursor | None = None


class Stats(Request):
    """All counters."""


class Neighbours(Request):
    """The neighbour table."""


class CsbShow(Request, kw_only=True):
    """The balancer of each app; app: of this one alone; circle: with the owner of every slot."""

    app: Name | None = None
    circle: bool = False


class CsbExplain(Request, kw_only=True):
    """Which thread gets packets from src, sport to dst, dport, and what decides."""

    src: Address
    sport: PortNumber
    dst: Address
    dport: PortNumber


class Change(Request, kw_only=True):
    """What changes something. expected_epoch: compare and set."""

    app: Name
    expected_epoch: Epoch | None = None


class Move(Change, kw_only=True):
    """What moves keys. dry_run: say what would move; confirm_s: undo it unless csb_confirm comes in time."""

    dry_run: bool = False
    confirm_s: ConfirmSeconds | None = None


class CsbSet(Move, kw_only=True):
    """New weights for the named threads; the others keep theirs."""

    weights: Weights


class CsbDrain(Move, kw_only=True):
    """No new connections for a thread."""

    tid: Tid


class CsbUndrain(Move, kw_only=True):
    """A drained thread gets its former weight back."""

    tid: Tid


class CsbConfirm(Change, kw_only=True):
    """What was changed with confirm_s stays."""


class CsbAuto(Change, kw_only=True):
    """The automatic mode on or off."""

    on: bool


AnyRequest = (
    Status
    | Ports
    | Apps
    | Services
    | Threads
    | Conns
    | Stats
    | Neighbours
    | CsbShow
    | CsbExplain
    | CsbSet
    | CsbDrain
    | CsbUndrain
    | CsbConfirm
    | CsbAuto
)


class Error(msgspec.Struct, kw_only=True):
    """Why there is no result; field: the path of the field that is wrong, such as "limit"."""

    code: str
    text: str
    field: str = ""


class IoThread(msgspec.Struct, kw_only=True):
    """One I/O thread."""

    number: int
    cpu: int | None
    running: bool
    turns: int
    busy_turns: int
    sleeps: int
    busy_cycles: int
    cycles_hz: int


class StatusResult(msgspec.Struct, kw_only=True):
    """Reply to status."""

    release: str
    pid: int
    uptime_s: float
    config: str
    abi: str
    huge_pages: bool
    recovering: bool
    ports: int
    apps: int
    threads: int
    services: int
    neighbours: int
    connections: int
    io_threads: list[IoThread]


class Port(msgspec.Struct, kw_only=True):
    """One port; counters of the port itself and of janusd for it."""

    name: str
    device: str
    driver: str
    mac: str
    addresses: list[str]
    mtu: int
    link_up: bool
    link_mbps: int
    rx_queues: int
    tx_queues: int
    offloads: list[str]
    rx_packets: int
    rx_bytes: int
    rx_missed: int
    tx_packets: int
    tx_bytes: int
    drops: dict[str, int]


class App(msgspec.Struct, kw_only=True):
    """One app; share: part of the keys by tid."""

    name: str
    addresses: list[str]
    ports: list[str]
    source_ports: str
    threads: int
    threads_max: int
    connections: int
    epoch: int
    shares: dict[str, float]


class Service(msgspec.Struct, kw_only=True):
    """One (address, ports); kind "listen" or "source"."""

    address: str
    ports: str
    app: str
    kind: str
    tids: list[int]


class Thread(msgspec.Struct, kw_only=True):
    """One TCP thread; state "mapping", "attached", "online", or "waiting" for its app to resume it."""

    app: str
    tid: int
    state: str
    pid: int
    uid: int
    generation: int
    share: float
    leaving: bool
    listens: int
    connections: int
    rx_slots: int
    rx_slots_held: int
    violations: int
    huge_pages: bool
    counters: dict[str, int]


class Conn(msgspec.Struct, kw_only=True):
    """One connection, as its app's row says."""

    app: str
    tid: int
    row: int
    state: str
    local: str
    local_port: int
    remote: str
    remote_port: int
    snd_nxt: int
    rcv_nxt: int


class ConnsResult(msgspec.Struct, kw_only=True):
    """Reply to conns; cursor None: there are no more."""

    conns: list[Conn]
    cursor: str | None


class Counters(msgspec.Struct, kw_only=True):
    """The counters of one object: kind "io", "port", "app", "thread" or "control"."""

    kind: str
    name: str
    number: int
    counters: dict[str, int]


class Neighbour(msgspec.Struct, kw_only=True):
    """One neighbour."""

    port: str
    address: str
    mac: str
    state: str


class CsbThread(msgspec.Struct, kw_only=True):
    """One thread on the circle; busy, queue: parts, from 0 to 1, in about the last second."""

    tid: int
    weight: float
    share: float
    drained: bool
    connections: int
    busy: float
    queue: float
    drops: int
    held_us: int
    held_wall_us: int


class Update(msgspec.Struct, kw_only=True):
    """What became of one update."""

    epoch: int
    reason: str
    requested_at: float
    took_ms: float
    phases_ms: dict[str, float]
    moved_slots: int
    kept: int
    exceptions: int
    outcome: str


class Auto(msgspec.Struct, kw_only=True):
    """The automatic mode of one app: its last word, and why."""

    on: bool
    reason: str
    moves: int


class CsbApp(msgspec.Struct, kw_only=True):
    """One app's balancer; circle: runs of (tid, slots), empty unless asked for."""

    app: str
    epoch: int
    phase: str
    pending: bool
    rebuilding: bool
    exceptions: int
    auto: Auto
    confirm_within_s: float | None
    threads: list[CsbThread]
    updates: list[Update]
    circle: list[tuple[int, int]]


class Explained(msgspec.Struct, kw_only=True):
    """Reply to csb_explain; decider: "slot", "circle", "exception" or "exact"; tid and home null: nobody."""

    app: str
    epoch: int
    decider: str
    key: str
    slot: int
    tid: int | None
    home: int | None
    text: str


class SlotMove(msgspec.Struct, kw_only=True):
    """Slots that go from one thread to another."""

    source: int
    target: int
    slots: int


class ChangeResult(msgspec.Struct, kw_only=True):
    """Reply to a change: when it is in force, or with dry_run when nothing has happened."""

    app: str
    epoch: int
    dry_run: bool
    weights: dict[str, float]
    shares: dict[str, float]
    moved_slots: int
    moves: list[SlotMove]
    took_ms: float
    phases_ms: dict[str, float]
    kept: int
    exceptions: int
    confirm_within_s: float | None


class AutoResult(msgspec.Struct, kw_only=True):
    """Reply to csb_auto and csb_confirm: app and what is on now."""

    app: str
    epoch: int
    auto: bool


Result = (
    StatusResult
    | list[CsbApp]
    | Explained
    | ChangeResult
    | AutoResult
    | list[Port]
    | list[App]
    | list[Service]
    | list[Thread]
    | ConnsResult
    | list[Counters]
    | list[Neighbour]
)


class BadRequest(Exception):
    """A request that gets an error for an answer."""

    def __init__(self, code: str, text: str, field: str = "") -> None:
        super().__init__(text)
        self.error = Error(code=code, text=text, field=field)


_DECODER = msgspec.json.Decoder(AnyRequest)
_ENCODER = msgspec.json.Encoder()


def decode_request(data: bytes) -> AnyRequest:
    """A request; BadRequest names the field that is wrong."""
    if len(data) > REQUEST_BYTES_MAX:
        raise BadRequest("too_long", f"a request has at most {REQUEST_BYTES_MAX} bytes")
    try:
        request: AnyRequest = _DECODER.decode(data)
    except msgspec.ValidationError as error:
        raise _bad_field(str(error)) from None
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise BadRequest("not_json", f"the request is not JSON: {error}") from None
    return request


def _bad_field(text: str) -> BadRequest:
    path = re.search(r"`\$\.?([^`]*)`$", text)
    named = re.search(r"field `([^`]*)`", text)
    field = path[1] if path is not None else named[1] if named is not None else ""
    return BadRequest("bad_field", text, field)


def verb_name(struct: type[Request]) -> str:
    """The verb of a kind of request."""
    return _verb(struct.__name__)


def id_of(data: bytes) -> str:
    """The id of a request that may be bad, as far as it has one."""
    try:
        value = msgspec.json.decode(data).get("id", "")
    except (msgspec.MsgspecError, RecursionError, ValueError, AttributeError):
        return ""
    return value[:64] if isinstance(value, str) else ""


def encode_result(id_: str, result: Result) -> bytes:
    """The bytes of a reply."""
    return _ENCODER.encode({"version": VERSION, "id": id_, "result": result})


def encode_error(id_: str, error: Error) -> bytes:
    """The bytes of a reply that says why not."""
    return _ENCODER.encode({"version": VERSION, "id": id_, "error": error})
