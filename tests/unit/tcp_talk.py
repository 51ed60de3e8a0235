"""One TCP stack in virtual time, and a scripted peer to talk to it: a test reads as a conversation.

The peer says what it sends in relative sequence numbers (its own SYN is 0, and so is the stack's) and what it
expects; segments are built and taken apart here, not by the code under test.
"""

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from _tcp import ffi, lib

from tests.packets import address, checksum, tcp_packet

FLAG_BITS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32, "E": 64, "C": 128}
EVENTS = {
    "accepted": lib.TCP_EVENT_ACCEPTED,
    "connected": lib.TCP_EVENT_CONNECTED,
    "readable": lib.TCP_EVENT_READABLE,
    "writable": lib.TCP_EVENT_WRITABLE,
    "error": lib.TCP_EVENT_ERROR,
    "sent_all": lib.TCP_EVENT_SENT_ALL,
    "stalled": lib.TCP_EVENT_STALLED,
    "urgent": lib.TCP_EVENT_URGENT,
}
DROPS = {ffi.string(lib.tcp_drop_name(i)).decode(): i for i in range(lib.TCP_DROP_COUNT)}
START_US = 1_000_000_000
HERE4, PEER4 = "10.1.0.1", "10.1.0.2"
HERE6, PEER6 = "fd01::1", "fd01::2"


@dataclass
class Options:
    """TCP options; None: absent."""

    mss: int | None = None
    wscale: int | None = None
    sack_ok: bool = False
    ts: tuple[int, int] | None = None
    sack: list[tuple[int, int]] = field(default_factory=list)
    uto: int | None = None

    def build(self) -> bytes:
        out = b""
        if self.mss is not None:
            out += struct.pack("!BBH", 2, 4, self.mss)
        if self.sack_ok:
            out += b"\x04\x02"
        if self.ts is not None:
            out += struct.pack("!BBII", 8, 10, *(v % 2**32 for v in self.ts))
        if self.wscale is not None:
            out += struct.pack("!BBB", 3, 3, self.wscale)
        if self.uto is not None:
            out += struct.pack("!BBH", 28, 4, self.uto)
        if self.sack:
            out += struct.pack("!BB", 5, 2 + 8 * len(self.sack))
            out += b"".join(struct.pack("!II", a % 2**32, b % 2**32) for a, b in self.sack)
        return out + b"\x01" * (-len(out) % 4)

    @staticmethod
    def parse(data: bytes) -> "Options":
        o = Options()
        while data and data[0] != 0:
            if data[0] == 1:
                data = data[1:]
                continue
            kind, length = data[0], data[1]
            body = data[2:length]
            if kind == 2:
                (o.mss,) = struct.unpack("!H", body)
            elif kind == 3:
                o.wscale = body[0]
            elif kind == 4:
                o.sack_ok = True
            elif kind == 5:
                o.sack = [struct.unpack("!II", body[i : i + 8]) for i in range(0, len(body), 8)]  # type: ignore[misc]
            elif kind == 8:
                o.ts = struct.unpack("!II", body)
            elif kind == 28:
                (o.uto,) = struct.unpack("!H", body)
            data = data[length:]
        return o


@dataclass
class Segment:
    """One TCP segment with its addresses, absolute sequence numbers."""

    src: str
    dst: str
    sport: int
    dport: int
    seq: int
    ack: int
    flags: int
    wnd: int
    options: Options
    data: bytes
    up: int = 0

    def build(self, good: bool = True) -> bytes:
        numbers = (self.sport, self.dport, self.seq, self.ack, self.flags, self.wnd, self.up)
        return tcp_packet(self.src, self.dst, numbers, self.options.build(), self.data, good=good)

    @staticmethod
    def parse(packet: bytes) -> "Segment":
        if packet[0] >> 4 == 4:
            assert checksum(packet[:20]) == 0, "IPv4 header checksum"
            assert struct.unpack("!H", packet[2:4])[0] == len(packet)
            src, dst, tcp = packet[12:16], packet[16:20], packet[20:]
        else:
            assert struct.unpack("!H", packet[4:6])[0] == len(packet) - 40
            src, dst, tcp = packet[8:24], packet[24:40], packet[40:]
        assert checksum(src + dst + struct.pack("!II", len(tcp), 6) + tcp) == 0, "TCP checksum"
        sport, dport, seq, ack, offset, flags, wnd, _, up = struct.unpack("!HHIIBBHHH", tcp[:20])
        assert up == 0 or flags & FLAG_BITS["U"]
        header = (offset >> 4) * 4
        return Segment(
            str(ipaddress.ip_address(src)),
            str(ipaddress.ip_address(dst)),
            sport,
            dport,
            seq,
            ack,
            flags,
            wnd,
            Options.parse(tcp[20:header]),
            tcp[header:],
            up,
        )


def icmp_error(quoted: Segment, kind: int, code: int, mtu: int, router: bytes | None = None) -> bytes:
    """An error about a segment that the stack is said to have sent."""
    v6 = ":" in quoted.src
    built = quoted.build()
    body = struct.pack("!I", mtu) + built[: 1000 if v6 else 28]
    addresses = built[8:40] if v6 else built[12:20]
    half = len(addresses) // 2
    src, dst = router or addresses[half:], addresses[:half]
    message = bytearray(struct.pack("!BBH", kind, code, 0) + body)
    pseudo = src + dst + struct.pack("!II", len(message), 58) if v6 else b""
    message[2:4] = struct.pack("!H", checksum(pseudo + bytes(message)))
    if v6:
        return struct.pack("!IHBB", 6 << 28, len(message), 58, 64) + src + dst + bytes(message)
    ip = bytearray(struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(message), 0, 0, 64, 1, 0) + src + dst)
    ip[10:12] = struct.pack("!H", checksum(bytes(ip)))
    return bytes(ip + message)


class Stack:
    """A stack with its recording driver; now_us is the time that all calls get."""

    def __init__(self, **config: Any) -> None:
        settings: dict[str, Any] = {
            "conn_max": 16,
            "half_open_max": 8,
            "time_wait_max": 4,
            "extension_max": 16,
            "rx_slots": 64,
            "tx_slots": 64,
            "mtu": 1500,
            "source_port_first": 40000,
            "source_port_last": 40999,
            "flow_secret": {"k0": 1, "k1": 2},
            "reset_unknown": True,
            "congestion_control": lib.TCP_CC_NEWRENO,
        }
        settings.update(config)
        self.now_us = START_US
        self.config = ffi.new("struct tcp_config *", settings)
        native = lib.native_new(self.config, self.now_us)
        assert native != ffi.NULL, "the configuration is refused"
        self.native = ffi.gc(native, lib.native_free)
        self.tcp = native.stack
        self.drop = ""
        self.mail: list[Segment] = []  # sent, for peers that have not looked yet
        for a in (HERE4, HERE6):
            assert lib.tcp_add_address(self.tcp, self.ip(a))

    @staticmethod
    def ip(text: str) -> Any:
        return ffi.new("struct ip_addr *", {"b": address(text)})

    def listen(self, port: int = 80, user: int = 7) -> int:
        return int(lib.tcp_listen(self.tcp, ffi.new("struct ip_addr *"), port, user))

    def input(self, packet: bytes, verified: bool = False, offset: int = 14) -> str:
        """Gives one packet; returns the drop reason."""
        reason = lib.native_input(self.native, packet, len(packet), offset, verified, self.now_us)
        lib.tcp_check(self.tcp)
        self.drop = "no_slot" if reason < 0 else ffi.string(lib.tcp_drop_name(reason)).decode()
        return self.drop

    def output(self) -> list[Segment]:
        """Runs tcp_output() and takes all that was sent."""
        lib.tcp_output(self.tcp, self.now_us)
        lib.tcp_check(self.tcp)
        return list(self.taken())

    def taken(self) -> Iterator[Segment]:
        buf = ffi.new("uint8_t[]", 2048)
        while (n := lib.native_take(self.native, buf)) >= 0:
            yield Segment.parse(bytes(ffi.buffer(buf, n)))

    def advance(self, us: int) -> None:
        """Lets time pass, deadline by deadline, without output."""
        end = self.now_us + us
        while (at := lib.tcp_next_deadline(self.tcp)) <= end:
            self.now_us = max(self.now_us, at)
            lib.tcp_advance(self.tcp, self.now_us)
            lib.tcp_check(self.tcp)
            assert lib.tcp_next_deadline(self.tcp) > self.now_us
        self.now_us = end
        lib.tcp_advance(self.tcp, self.now_us)
        lib.tcp_check(self.tcp)

    def events(self) -> list[tuple[int, set[str]]]:
        """All news, by connection."""
        event = ffi.new("struct tcp_event *")
        out = []
        while lib.tcp_next_event(self.tcp, event):
            out.append((event.conn, {name for name, bit in EVENTS.items() if event.kinds & bit}))
        lib.tcp_check(self.tcp)
        return out

    def send(self, conn: int, data: bytes) -> int:
        n = int(lib.tcp_send(self.tcp, conn, data, len(data)))
        lib.tcp_check(self.tcp)
        return n

    def send_urgent(self, conn: int, data: bytes) -> int:
        n = int(lib.tcp_send_urgent(self.tcp, conn, data, len(data)))
        lib.tcp_check(self.tcp)
        return n

    def recv(self, conn: int, count: int = 1 << 20) -> bytes:
        buf = ffi.new("uint8_t[]", count)
        n = lib.tcp_recv(self.tcp, conn, buf, count)
        lib.tcp_check(self.tcp)
        return bytes(ffi.buffer(buf, n))

    def eof(self, conn: int) -> bool:
        return bool(lib.tcp_recv_eof(self.tcp, conn))

    def shutdown(self, conn: int) -> None:
        lib.tcp_shutdown(self.tcp, conn, self.now_us)
        lib.tcp_check(self.tcp)

    def close(self, conn: int) -> None:
        lib.tcp_close(self.tcp, conn, self.now_us)
        lib.tcp_check(self.tcp)

    def abort(self, conn: int) -> None:
        lib.tcp_abort(self.tcp, conn, self.now_us)
        lib.tcp_check(self.tcp)

    def state(self, conn: int) -> str:
        name = ffi.string(ffi.cast("enum tcp_state", lib.tcp_conn_state(self.tcp, conn)))
        return str(name).removeprefix("TCP_STATE_")

    def error(self, conn: int) -> int:
        return int(lib.tcp_error(self.tcp, conn))

    def info(self, conn: int) -> Any:
        info = ffi.new("struct tcp_info *")
        lib.tcp_get_info(self.tcp, conn, info)
        return info

    @property
    def counters(self) -> Any:
        return lib.tcp_counters(self.tcp)

    @property
    def usage(self) -> dict[str, int]:
        usage = ffi.new("struct tcp_usage *")
        lib.tcp_usage(self.tcp, usage)
        return {name: getattr(usage, name) for name, _ in ffi.typeof("struct tcp_usage").fields}

    def dropped(self, reason: str) -> int:
        return int(self.counters.dropped[DROPS[reason]])

    def is_empty(self) -> bool:
        """Nothing is held: no row, block, extension or slot, and no timer waits."""
        return (
            not any(self.usage.values())
            and self.native.tx_used == 0
            and self.native.rx_used == 0
            and self.is_idle()
        )

    def is_idle(self) -> bool:
        """No timer waits."""
        return bool(lib.tcp_next_deadline(self.tcp) == 2**64 - 1)


class Peer:
    """The other end of one connection.  seq and ack count from the SYNs, which are 0."""

    def __init__(
        self, stack: Stack, port: int = 5000, stack_port: int = 80, v6: bool = False, iss: int = 0xFFFFFF00
    ) -> None:
        self.stack = stack
        self.here, self.there = (PEER6, HERE6) if v6 else (PEER4, HERE4)
        self.port, self.stack_port = port, stack_port
        self.iss = iss
        self.irs: int | None = None
        self.seq = 0  # next to send
        self.ack = 0  # next expected
        self.wnd = 65535
        self.ts: int | None = None  # our clock, when timestamps are agreed
        self.tsecr = 0
        self.conn = -1
        self.queue: list[Segment] = []

    def segment(
        self,
        flags: str,
        data: bytes = b"",
        *,
        seq: int | None = None,
        ack: int | None = None,
        wnd: int | None = None,
        options: Options | None = None,
    ) -> Segment:
        options = options or Options()
        if self.ts is not None and options.ts is None and "R" not in flags:
            options.ts = (self.ts, self.tsecr)
        return Segment(
            self.here,
            self.there,
            self.port,
            self.stack_port,
            self.iss + (self.seq if seq is None else seq),
            (self.irs or 0) + (self.ack if ack is None else ack) if "A" in flags else 0,
            sum(FLAG_BITS[f] for f in flags),
            self.wnd if wnd is None else wnd,
            options,
            data,
        )

    def send(
        self,
        flags: str,
        data: bytes = b"",
        *,
        seq: int | None = None,
        ack: int | None = None,
        wnd: int | None = None,
        options: Options | None = None,
    ) -> str:
        """Sends a segment; one without seq goes on from the last one.  Returns the stack's drop reason."""
        reason = self.stack.input(
            self.segment(flags, data, seq=seq, ack=ack, wnd=wnd, options=options).build()
        )
        if seq is None and "R" not in flags:
            self.seq += len(data) + ("S" in flags) + ("F" in flags)
        return reason

    def collect(self) -> None:
        mail = self.stack.mail
        mail += self.stack.output()
        mine = [s for s in mail if (s.dport, s.sport) == (self.port, self.stack_port)]
        mail[:] = [s for s in mail if s not in mine]
        self.queue += mine

    def expect(
        self, flags: str, data: bytes | int = b"", *, seq: int | None = None, ack: int | None = None
    ) -> Segment:
        """Takes the stack's next segment, which has these flags (PSH aside) and data (or as many bytes)."""
        self.collect()
        assert self.queue, f"expected {flags}, nothing was sent"
        s = self.queue.pop(0)
        got = "".join(f for f, bit in FLAG_BITS.items() if s.flags & bit and f != "P")
        assert set(got) == set(flags), f"expected {flags}, got {got} seq {s.seq} {s.data!r}"
        if "S" in flags and self.irs is None:
            self.irs = s.seq
        irs = self.irs or 0
        assert (len(s.data) if isinstance(data, int) else s.data) == data
        if seq is not None:
            assert (s.seq - irs) % 2**32 == seq
        if "A" in flags:
            assert (s.ack - self.iss) % 2**32 == (self.seq if ack is None else ack)
        if "R" not in flags:
            end = (s.seq - irs) % 2**32 + len(s.data) + ("S" in flags) + ("F" in flags)
            if end < 2**31:
                self.ack = max(self.ack, end)
        if s.options.ts is not None:
            self.tsecr = s.options.ts[0]
        return s

    def silent(self) -> None:
        """The stack has nothing to say."""
        self.collect()
        assert not self.queue, f"unexpected {self.queue[0]}"

    def open(self, options: Options | None = None, **syn: Any) -> int:
        """The handshake from this side; returns the stack's connection."""
        options = options if options is not None else Options(mss=1460)
        self.send("S", options=options, **syn)
        self.expect("SA", seq=0)
        if options.ts is not None:
            self.ts = options.ts[0]
        self.send("A")
        events = self.stack.events()
        assert len(events) == 1
        assert "accepted" in events[0][1]
        self.conn = events[0][0]
        assert self.stack.state(self.conn) == "ESTABLISHED"
        return self.conn

    def read(self) -> bytes:
        return self.stack.recv(self.conn)


def established(
    stack: Stack | None = None, options: Options | None = None, port: int = 5000, **kwargs: Any
) -> tuple[Stack, Peer]:
    """A listening stack and a peer that is connected to it."""
    if stack is None:
        stack = Stack(**kwargs)
        assert stack.listen() == 0
    peer = Peer(stack, port)
    peer.open(options)
    return stack, peer
