"""Bytes of IP and TCP, both ways, apart from the code under test; options keep their order and their padding."""

import ipaddress
import struct
from dataclasses import dataclass

from tests.packet_scripts.script import Option
from tests.packets import PROTOCOL_TCP, checksum, tcp_packet

FLAG_BITS = {"F": 1, "S": 2, "R": 4, "P": 8, ".": 16, "U": 32, "E": 64, "C": 128}
FLAG_ORDER = "FSREPUC."  # any order is read; this one is printed
ECN_BITS = {"noecn": 0, "nce": 0, "ect1": 1, "ect0": 2, "ect01": 2, "ce": 3}


def flags_to_bits(flags: str) -> int:
    return 0 if flags == "-" else sum(FLAG_BITS[f] for f in set(flags))


def bits_to_flags(bits: int) -> str:
    return "".join(f for f in FLAG_ORDER if bits & FLAG_BITS[f]) or "-"


def build_options(options: tuple[Option, ...]) -> bytes:
    out = b""
    for o in options:
        n = [v or 0 for v in o.numbers]
        if o.kind in ("nop", "eol"):
            out += b"\x01" if o.kind == "nop" else b"\x00"
        elif o.kind == "mss":
            out += struct.pack("!BBH", 2, 4, n[0])
        elif o.kind == "wscale":
            out += struct.pack("!BBB", 3, 3, n[0])
        elif o.kind == "sackOK":
            out += b"\x04\x02"
        elif o.kind == "TS":
            out += struct.pack("!BBII", 8, 10, *(v % 2**32 for v in n))
        else:
            out += struct.pack("!BB", 5, 2 + 4 * len(n)) + b"".join(struct.pack("!I", v % 2**32) for v in n)
    return out


def parse_options(data: bytes) -> tuple[Option, ...]:
    options: list[Option] = []
    while data:
        kind = data[0]
        if kind < 2:
            options.append(Option("nop" if kind else "eol"))
            data = data[1:]
            continue
        length = data[1]
        assert 2 <= length <= len(data), "an option longer than the header"
        body = data[2:length]
        if kind == 2:
            options.append(Option("mss", struct.unpack("!H", body)))
        elif kind == 3:
            options.append(Option("wscale", (body[0],)))
        elif kind == 4:
            options.append(Option("sackOK"))
        elif kind == 5:
            options.append(Option("sack", struct.unpack(f"!{len(body) // 4}I", body)))
        elif kind == 8:
            options.append(Option("TS", struct.unpack("!II", body)))
        else:
            options.append(Option(f"option-{kind}"))
        data = data[length:]
    return tuple(options)


@dataclass
class Segment:
    """One TCP segment with its addresses, in absolute numbers."""

    src: str
    dst: str
    sport: int
    dport: int
    seq: int
    ack: int
    flags: int
    wnd: int
    urg: int
    options: tuple[Option, ...]
    data: bytes
    ecn: int = 0
    bad_checksum: bool = False
    at_us: int = 0  # when it was sent

    def build(self) -> bytes:
        numbers = (self.sport, self.dport, self.seq, self.ack, self.flags, self.wnd, self.urg)
        options, good = build_options(self.options), not self.bad_checksum
        return tcp_packet(self.src, self.dst, numbers, options, self.data, ecn=self.ecn, good=good)


ICMP_TYPES = {
    (4, "unreachable"): (3, {
        "net_unreachable": 0, "host_unreachable": 1, "protocol_unreachable": 2, "port_unreachable": 3, "frag_needed": 4,
        "source_route_failed": 5, "net_unknown": 6, "host_unknown": 7, "admin_prohibited": 13,
    }),
    (4, "parameter_problem"): (12, {"": 0}),
    (4, "time_exceeded"): (11, {"exc_ttl": 0, "exc_fragtime": 1, "": 0}),
    (6, "unreachable"): (1, {
        "no_route": 0, "admin_prohibited": 1, "not_neighbour": 2, "addr_unreachable": 3, "port_unreachable": 4,
    }),
    (6, "packet_too_big"): (2, {"": 0}),
    (6, "parameter_problem"): (4, {"": 0}),
    (6, "time_exceeded"): (3, {"exceed_hoplimit": 0, "exceed_frag": 1, "": 0}),
}  # fmt: skip


def build_icmp(quoted: Segment, kind: str, code: str, mtu: int, router: str | None = None) -> bytes | None:
    """An ICMP error about a segment of quoted's source, to that source; None: no such message is known."""
    version = ipaddress.ip_address(quoted.src).version
    number, codes = ICMP_TYPES.get((version, kind.rpartition("/")[2]), (0, {}))
    if code not in codes:
        return None
    src = ipaddress.ip_address(router or quoted.dst).packed
    dst = ipaddress.ip_address(quoted.src).packed
    rest = struct.pack("!I", mtu) if version == 6 else struct.pack("!HH", 0, mtu)
    body = rest + quoted.build()[: 528 if version == 4 else 1232]
    message = bytearray(struct.pack("!BBH", number, codes[code], 0) + body)
    if version == 6:
        pseudo = src + dst + struct.pack("!II", len(message), 58)
        message[2:4] = struct.pack("!H", checksum(pseudo + message))
        return struct.pack("!IHBB", 6 << 28, len(message), 58, 64) + src + dst + bytes(message)
    message[2:4] = struct.pack("!H", checksum(bytes(message)))
    ip = bytearray(struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(message), 0, 0x4000, 64, 1, 0) + src + dst)
    ip[10:12] = struct.pack("!H", checksum(bytes(ip)))
    return bytes(ip + message)


def parse(packet: bytes, at_us: int = 0) -> Segment:
    """What the stack sent; an AssertionError says what is malformed in it."""
    if packet[0] >> 4 == 4:
        assert packet[0] == 0x45, "IPv4 options"
        assert checksum(packet[:20]) == 0, "IPv4 header checksum"
        assert struct.unpack("!H", packet[2:4])[0] == len(packet), "IPv4 total length"
        src, dst, tcp, ecn = packet[12:16], packet[16:20], packet[20:], packet[1] & 3
    else:
        assert struct.unpack("!H", packet[4:6])[0] == len(packet) - 40, "IPv6 payload length"
        src, dst, tcp, ecn = packet[8:24], packet[24:40], packet[40:], packet[1] >> 4 & 3
    assert checksum(src + dst + struct.pack("!II", len(tcp), PROTOCOL_TCP) + tcp) == 0, "TCP checksum"
    sport, dport, seq, ack, offset, flags, wnd, _, urg = struct.unpack("!HHIIBBHHH", tcp[:20])
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
        urg,
        parse_options(tcp[20:header]),
        tcp[header:],
        ecn,
        at_us=at_us,
    )
