"""What a packet script says, as values: events in their order, each with its time and its line."""

from dataclasses import dataclass, field
from typing import Any

Value = Any  # of a call's argument: int, str, Symbol, Or, Apply, list, dict, ELLIPSIS


class ScriptError(Exception):
    """The script cannot be read, or what happened is not what it says."""

    def __init__(self, path: str, line: int, message: str) -> None:
        super().__init__(f"{path}:{line}: {message}")
        self.path, self.line, self.message = path, line, message


class Unsupported(Exception):
    """The script asks for something that has no counterpart here; the name says what."""


class Ellipsis_:
    """The `...` of the language: whatever it is."""

    def __repr__(self) -> str:
        return "..."


ELLIPSIS = Ellipsis_()


@dataclass(frozen=True)
class Symbol:
    """A constant by name, as AF_INET."""

    name: str


@dataclass(frozen=True)
class Apply:
    """A constant made by a function, as htons(8080)."""

    name: str
    args: tuple[Value, ...]


@dataclass(frozen=True)
class Or:
    """Flags joined by |."""

    parts: tuple[Value, ...]


@dataclass(frozen=True)
class When:
    """The time of an event: `1.5`, `+.1`, `*`, `1~2`, `+1~+2`; `~+1` is any time up to then."""

    begin_us: int = 0
    end_us: int | None = None  # of a range
    relative: bool = False
    any_time: bool = False


@dataclass(frozen=True)
class Call:
    """A socket call and what it must return."""

    name: str
    args: list[Value]
    result: Value
    errno: str | None
    blocks_until_us: int | None  # on the same scale as the event's own time


@dataclass(frozen=True)
class Option:
    """One TCP option: mss, nop, eol, sackOK, wscale, TS or sack, with its numbers; None stands for any."""

    kind: str
    numbers: tuple[int | None, ...] = ()

    def __str__(self) -> str:
        n = ["*" if v is None else str(v) for v in self.numbers]
        if self.kind == "TS":
            return f"TS val {n[0]} ecr {n[1]}"
        if self.kind == "sack":
            return "sack " + " ".join(f"{a}:{b}" for a, b in zip(n[::2], n[1::2], strict=True))
        return " ".join([self.kind, *n])


@dataclass(frozen=True)
class Packet:
    """A TCP packet in the script's own sequence numbers."""

    flags: str
    seq: int
    length: int
    ack: int | None = None
    win: int | None = None
    urg: int | None = None
    options: tuple[Option, ...] | None = ()  # None: whatever they are
    ports: tuple[int, int] | None = None
    ecn: str | None = None
    bad_checksum: bool = False

    def __str__(self) -> str:
        text = f"[{self.ecn}] " if self.ecn else ""
        text += f"{self.ports[0]} > {self.ports[1]} " if self.ports else ""
        text += f"{self.flags} {self.seq}:{self.seq + self.length}({self.length})"
        text += f" ack {self.ack}" if self.ack is not None else ""
        text += f" win {self.win}" if self.win is not None else ""
        text += f" urg {self.urg}" if self.urg is not None else ""
        if self.options is None:
            return text + " <...>"
        return text + (f" <{','.join(map(str, self.options))}>" if self.options else "")


@dataclass(frozen=True)
class Inject:
    """`<`: a packet that the stack receives."""

    packet: Packet


@dataclass(frozen=True)
class Expect:
    """`>`: a packet that the stack sends."""

    packet: Packet


@dataclass(frozen=True)
class Icmp:
    """An ICMP message, in or out."""

    inbound: bool
    kind: str
    code: str
    mtu: int | None
    seq: int
    length: int


@dataclass(frozen=True)
class Code:
    """`%{ ... }%`: Python with the tcp_info values of the connection as variables."""

    text: str


@dataclass(frozen=True)
class Command:
    """A shell command in backticks."""

    text: str


@dataclass(frozen=True)
class Event:
    line: int
    when: When
    body: Call | Inject | Expect | Icmp | Code | Command
    source: str


@dataclass
class Script:
    path: str
    options: dict[str, str] = field(default_factory=dict)
    init: list[Command] = field(default_factory=list)  # before the first event
    events: list[Event] = field(default_factory=list)
    first_comment: str = ""
