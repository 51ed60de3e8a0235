"""Ethernet, ARP, ICMP and neighbour discovery: tables of what is refused, scapy as the independent twin."""

import ipaddress
from typing import Any

import pytest
from _wire import ffi, lib
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
)
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw

OURS, PEER = "02:00:00:00:00:01", "02:00:00:00:00:02"
V4 = {"src": "192.0.2.1", "dst": "192.0.2.2"}
V6 = {"src": "2001:db8::1", "dst": "2001:db8::2"}


def mapped(text: str) -> bytes:
    packed = ipaddress.ip_address(text).packed
    return packed if len(packed) == 16 else b"\0" * 10 + b"\xff\xff" + packed


def address(text: str) -> object:
    a = ffi.new("struct ip_addr *")
    a.b = mapped(text)
    return a


def mac(text: str) -> object:
    a = ffi.new("struct ether_addr *")
    a.b = bytes.fromhex(text.replace(":", ""))
    return a


def text(ether_addr: Any) -> str:
    return bytes(ether_addr.b).hex(":")


def name(enum: str, value: int) -> str:
    return ffi.typeof(f"enum {enum}").elements[value]


def exact(data: bytes) -> object:
    return ffi.new("uint8_t[]", data or b"\0")


# --- Ethernet ---


@pytest.mark.parametrize(
    ("frame", "expected", "vlan_id", "offset"),
    [
        pytest.param(Ether(src=PEER, dst=OURS) / IP(), "ETHER_OK", 0, 14, id="untagged"),
        pytest.param(Ether(src=PEER, dst=OURS) / Dot1Q(vlan=7) / IP(), "ETHER_OK", 7, 18, id="tagged"),
        pytest.param(
            Ether(src=PEER, dst=OURS) / Dot1Q(vlan=4095, prio=7, dei=1) / IP(),
            "ETHER_OK",
            4095,
            18,
            id="priority and DEI are not the VLAN",
        ),
        pytest.param(
            Ether(src=PEER, dst=OURS) / Dot1Q(vlan=1) / Dot1Q(vlan=2) / IP(),
            "ETHER_DOUBLE_TAG",
            0,
            0,
            id="two tags",
        ),
        pytest.param(
            Ether(src=PEER, dst=OURS) / Dot1AD(vlan=1) / IP(), "ETHER_DOUBLE_TAG", 0, 0, id="provider's tag"
        ),
        pytest.param(Ether(src=PEER, dst=OURS, type=0x05FF), "ETHER_NO_TYPE", 0, 0, id="802.3 length"),
        pytest.param(Ether(src=PEER, dst=OURS, type=0x0600), "ETHER_OK", 0, 14, id="the smallest type"),
        pytest.param(
            Ether(src="ff:ff:ff:ff:ff:ff", dst=OURS) / IP(), "ETHER_BAD_ADDRESS", 0, 0, id="source broadcast"
        ),
        pytest.param(
            Ether(src="01:00:5e:00:00:01", dst=OURS) / IP(), "ETHER_BAD_ADDRESS", 0, 0, id="source multicast"
        ),
        pytest.param(
            Ether(src="00:00:00:00:00:00", dst=OURS) / IP(), "ETHER_BAD_ADDRESS", 0, 0, id="source zero"
        ),
    ],
)
def test_ether(frame: Packet, expected: str, vlan_id: int, offset: int) -> None:
    out = ffi.new("struct ether_frame *")
    data = bytes(frame)
    verdict = name("ether_verdict", lib.wire_ether_parse(exact(data), len(data), out))
    assert verdict == expected
    if verdict == "ETHER_OK":
        assert (out.vlan_id, out.offset) == (vlan_id, offset)
        assert (bytes(out.dst.b), bytes(out.src.b)) == (data[:6], data[6:12])


@pytest.mark.parametrize(
    "frame", [Ether(src=PEER, dst=OURS, type=0x800), Ether(src=PEER, dst=OURS) / Dot1Q(type=0x800)]
)
def test_ether_truncated_anywhere(frame: Packet) -> None:
    data = bytes(frame)
    out = ffi.new("struct ether_frame *")
    for length in range(len(data)):
        verdict = lib.wire_ether_parse(exact(data[:length]), length, out)
        assert name("ether_verdict", verdict) == "ETHER_TRUNCATED"


@pytest.mark.parametrize(("vlan_id", "length"), [(0, 14), (1, 18), (4094, 18)])
def test_ether_built_is_scapys(vlan_id: int, length: int) -> None:
    buffer = ffi.new("uint8_t[18]")
    assert lib.wire_ether_build(buffer, mac(OURS), mac(PEER), vlan_id, 0x86DD) == length
    tag = Dot1Q(vlan=vlan_id, type=0x86DD) if vlan_id else None
    twin = Ether(dst=OURS, src=PEER) / tag if tag else Ether(dst=OURS, src=PEER, type=0x86DD)
    assert bytes(ffi.buffer(buffer, length)) == bytes(twin)


# --- ARP ---

ASK = {"op": 1, "hwsrc": PEER, "psrc": "192.0.2.1", "hwdst": "00:00:00:00:00:00", "pdst": "192.0.2.2"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({}, "ARP_OK", id="request"),
        pytest.param({"op": 2}, "ARP_OK", id="reply"),
        pytest.param({"psrc": "0.0.0.0"}, "ARP_OK", id="probe, RFC 5227"),
        pytest.param({"psrc": "192.0.2.2", "op": 2}, "ARP_OK", id="gratuitous: the neighbour table's matter"),
        pytest.param({"hwtype": 6}, "ARP_BAD_FORMAT", id="hardware not Ethernet"),
        pytest.param({"ptype": 0x86DD}, "ARP_BAD_FORMAT", id="protocol not IPv4"),
        pytest.param({"hwlen": 5}, "ARP_BAD_FORMAT", id="hardware length 5"),
        pytest.param({"hwlen": 255}, "ARP_BAD_FORMAT", id="hardware length 255"),
        pytest.param({"plen": 16}, "ARP_BAD_FORMAT", id="protocol length 16"),
        pytest.param({"plen": 0}, "ARP_BAD_FORMAT", id="protocol length 0"),
        pytest.param({"op": 0}, "ARP_BAD_OP", id="operation 0"),
        pytest.param({"op": 3}, "ARP_BAD_OP", id="reverse request"),
        pytest.param({"op": 65535}, "ARP_BAD_OP", id="operation 65535"),
        pytest.param({"hwsrc": "ff:ff:ff:ff:ff:ff"}, "ARP_BAD_ADDRESS", id="sender is broadcast"),
        pytest.param({"hwsrc": "00:00:00:00:00:00"}, "ARP_BAD_ADDRESS", id="sender is zero"),
        pytest.param({"hwsrc": "01:00:5e:00:00:01"}, "ARP_BAD_ADDRESS", id="sender is multicast"),
        pytest.param({"psrc": "255.255.255.255"}, "ARP_BAD_ADDRESS", id="sender's address is broadcast"),
        pytest.param({"psrc": "224.0.0.1"}, "ARP_BAD_ADDRESS", id="sender's address is multicast"),
        pytest.param({"psrc": "127.0.0.1"}, "ARP_BAD_ADDRESS", id="sender's address is loopback"),
        pytest.param({"psrc": "0.0.0.1"}, "ARP_BAD_ADDRESS", id="sender's address is in this network"),
    ],
)
def test_arp(change: dict[str, object], expected: str) -> None:
    # Lengths other than 6 and 4 make scapy move the fields: take the usual bytes and change the length alone.
    lengths = {k: v for k, v in change.items() if k in {"hwlen", "plen"}}
    data = bytearray(bytes(ARP(**{**ASK, **{k: v for k, v in change.items() if k not in lengths}})))
    for key, value in lengths.items():
        data[4 if key == "hwlen" else 5] = value  # type: ignore[call-overload]
    out = ffi.new("struct arp_packet *")
    padded = bytes(data) + b"\0" * 18
    assert name("arp_verdict", lib.arp_parse(exact(padded), len(padded), out)) == expected
    if expected == "ARP_OK":
        twin = ARP(bytes(data))
        assert (out.op, text(out.sha), text(out.tha)) == (twin.op, twin.hwsrc, twin.hwdst)
        assert bytes(out.spa.b)[12:] == ipaddress.ip_address(twin.psrc).packed
        assert bytes(out.tpa.b)[12:] == ipaddress.ip_address(twin.pdst).packed


def test_arp_truncated_anywhere() -> None:
    data = bytes(ARP(**ASK))
    out = ffi.new("struct arp_packet *")
    for length in range(len(data)):
        assert name("arp_verdict", lib.arp_parse(exact(data[:length]), length, out)) == "ARP_TRUNCATED"


# --- ICMP ---


def ip_of(packet: Packet) -> tuple[object, bytes]:
    """The parsed IP header and the bytes behind it."""
    data = bytes(packet)
    out = ffi.new("struct ip_packet *")
    verdict = lib.ip_parse(data, len(data), out)
    assert name("ip_verdict", verdict) in {
        "IP_OK",
        "IP_BAD_ADDRESS",
    }  # the latter: from the unspecified address
    return out, data[out.l4_offset : out.total_len]


def parse_icmp(packet: Packet) -> tuple[str, object, bytes]:
    ip, message = ip_of(packet)
    out = ffi.new("struct icmp_message *")
    return name("icmp_verdict", lib.icmp_parse(ip, exact(message), out)), out, message


QUOTED4 = IP(src="192.0.2.2", dst="192.0.2.1") / TCP(sport=80, dport=40000, seq=77)
QUOTED6 = IPv6(src="2001:db8::2", dst="2001:db8::1") / TCP(sport=80, dport=40000, seq=77)


@pytest.mark.parametrize(
    ("packet", "kind", "said"),
    [
        pytest.param(IP(**V4) / ICMP(id=5, seq=6) / b"abc", "ICMP_ECHO_REQUEST", (5, 6, 0), id="echo"),
        pytest.param(IP(**V4) / ICMP(type=0, id=5, seq=6), "ICMP_ECHO_REPLY", (5, 6, 0), id="echo reply"),
        pytest.param(
            IP(**V4) / ICMP(type=3, code=3) / QUOTED4, "ICMP_UNREACHABLE", (0, 0, 0), id="port unreachable"
        ),
        pytest.param(
            IP(**V4) / ICMP(type=3, code=4, nexthopmtu=1400) / QUOTED4,
            "ICMP_TOO_BIG",
            (0, 0, 1400),
            id="fragmentation needed",
        ),
        pytest.param(IP(**V4) / ICMP(type=11) / QUOTED4, "ICMP_TIME_EXCEEDED", (0, 0, 0), id="time exceeded"),
        pytest.param(
            IP(**V4) / ICMP(type=12, ptr=1) / QUOTED4,
            "ICMP_PARAMETER_PROBLEM",
            (0, 0, 0),
            id="parameter problem",
        ),
        pytest.param(IP(**V4) / ICMP(type=5) / QUOTED4, "ICMP_OTHER", (0, 0, 0), id="redirect"),
        pytest.param(IP(**V4) / ICMP(type=13), "ICMP_OTHER", (0, 0, 0), id="timestamp"),
        pytest.param(
            IPv6(**V6) / ICMPv6EchoRequest(id=5, seq=6, data=b"abc"),
            "ICMP_ECHO_REQUEST",
            (5, 6, 0),
            id="echo 6",
        ),
        pytest.param(
            IPv6(**V6) / ICMPv6EchoReply(id=5, seq=6), "ICMP_ECHO_REPLY", (5, 6, 0), id="echo reply 6"
        ),
        pytest.param(
            IPv6(**V6) / ICMPv6DestUnreach(code=4) / QUOTED6,
            "ICMP_UNREACHABLE",
            (0, 0, 0),
            id="unreachable 6",
        ),
        pytest.param(
            IPv6(**V6) / ICMPv6PacketTooBig(mtu=1280) / QUOTED6, "ICMP_TOO_BIG", (0, 0, 1280), id="too big 6"
        ),
        pytest.param(
            IPv6(**V6) / ICMPv6TimeExceeded() / QUOTED6, "ICMP_TIME_EXCEEDED", (0, 0, 0), id="time exceeded 6"
        ),
        pytest.param(
            IPv6(**V6) / ICMPv6ParamProblem(code=1, ptr=6) / QUOTED6,
            "ICMP_PARAMETER_PROBLEM",
            (0, 0, 0),
            id="parameter problem 6",
        ),
        pytest.param(
            IPv6(**V6) / ICMPv6ND_NS(tgt="2001:db8::2"), "ICMP_NEIGHBOUR", (0, 0, 0), id="solicitation"
        ),
    ],
)
def test_icmp(packet: Packet, kind: str, said: tuple[int, int, int]) -> None:
    verdict, out, message = parse_icmp(packet)
    assert verdict == "ICMP_OK"
    assert name("icmp_kind", out.kind) == kind
    assert (out.id, out.seq, out.mtu) == said
    assert out.body_len == len(message) - 8


@pytest.mark.parametrize(
    ("network", "message"),
    [(IP(**V4), ICMP(id=5, seq=6) / b"abc"), (IPv6(**V6), ICMPv6EchoRequest(id=5, seq=6, data=b"abc"))],
    ids=["4", "6"],
)
def test_icmp_every_flip_is_noticed_and_every_truncation_refused(network: Packet, message: Packet) -> None:
    ip, good = ip_of(network / message)
    out = ffi.new("struct icmp_message *")
    for byte in range(len(good)):
        bad = bytearray(good)
        bad[byte] ^= 0x04
        assert name("icmp_verdict", lib.icmp_parse(ip, exact(bytes(bad)), out)) == "ICMP_BAD_CHECKSUM"
    for length in range(8):
        ip.l4_len = length
        assert name("icmp_verdict", lib.icmp_parse(ip, exact(good[:length]), out)) == "ICMP_TRUNCATED"


@pytest.mark.parametrize(
    ("version", "quoted"),
    [
        pytest.param(4, QUOTED4, id="4"),
        pytest.param(6, QUOTED6, id="6"),
        pytest.param(
            4,
            IP(src="192.0.2.2", dst="192.0.2.1", options=[b"\x01\x01\x01\x00"])
            / TCP(sport=80, dport=40000, seq=77),
            id="4 with options",
        ),
    ],
)
def test_quote(version: int, quoted: Packet) -> None:
    body = bytes(quoted)
    out = ffi.new("struct icmp_quote *")
    enough = len(body) - 20 + 8
    assert lib.icmp_quote_parse(version, exact(body[:enough]), enough, out)
    assert (bytes(out.flow.laddr.b), bytes(out.flow.raddr.b)) == (mapped(quoted.src), mapped(quoted.dst))
    assert (out.flow.lport, out.flow.rport, out.seq, out.protocol) == (80, 40000, 77, 6)
    for length in range(enough):
        assert not lib.icmp_quote_parse(version, exact(body[:length]), length, out)


@pytest.mark.parametrize(
    ("version", "quoted"),
    [
        pytest.param(6, QUOTED4, id="other family"),
        pytest.param(4, QUOTED6, id="other family 6"),
        pytest.param(4, IP(**V4, ihl=4) / TCP(), id="IHL 4"),
        pytest.param(4, IP(**V4, ihl=15) / TCP(), id="IHL beyond the quote"),
        pytest.param(4, IP(**V4, frag=1) / TCP(), id="later fragment"),
        pytest.param(4, IP(**V4, proto=47) / Raw(b"12345678"), id="GRE"),
        pytest.param(6, IPv6(**V6, nh=44) / Raw(b"12345678"), id="fragment header"),
        pytest.param(6, IPv6(src="::ffff:192.0.2.1", dst="2001:db8::1") / TCP(), id="IPv4-mapped"),
    ],
)
def test_quote_is_refused(version: int, quoted: Packet) -> None:
    body = bytes(quoted)
    assert not lib.icmp_quote_parse(version, exact(body), len(body), ffi.new("struct icmp_quote *"))


def test_quote_of_udp_and_of_echo() -> None:
    out = ffi.new("struct icmp_quote *")
    body = bytes(IP(**V4) / UDP(sport=53, dport=5353))
    assert lib.icmp_quote_parse(4, body, len(body), out)
    assert (out.flow.lport, out.flow.rport, out.protocol, out.seq) == (53, 5353, 17, 0)
    body = bytes(IP(**V4) / ICMP())
    assert lib.icmp_quote_parse(4, body, len(body), out)
    assert (out.flow.lport, out.flow.rport, out.protocol) == (0, 0, 1)


@given(st.sampled_from([4, 6]), st.binary(max_size=90))
def test_any_quote_is_safe(version: int, body: bytes) -> None:
    lib.icmp_quote_parse(version, exact(body), len(body), ffi.new("struct icmp_quote *"))


# --- neighbour discovery ---

TARGET = "2001:db8::2"
NODE = "ff02::1:ff00:2"
SLL, TLL = ICMPv6NDOptSrcLLAddr(lladdr=PEER), ICMPv6NDOptDstLLAddr(lladdr=PEER)


def nd_packet(message: Packet, src: str = "2001:db8::1", dst: str = TARGET, hlim: int = 255) -> Packet:
    return IPv6(src=src, dst=dst, hlim=hlim) / message


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        pytest.param(nd_packet(ICMPv6ND_NS(tgt=TARGET) / SLL), "ND_OK", id="solicitation"),
        pytest.param(nd_packet(ICMPv6ND_NS(tgt=TARGET)), "ND_OK", id="solicitation without address"),
        pytest.param(
            nd_packet(ICMPv6ND_NS(tgt=TARGET) / SLL, dst=NODE), "ND_OK", id="to the solicited node group"
        ),
        pytest.param(
            nd_packet(ICMPv6ND_NS(tgt=TARGET), src="::", dst=NODE), "ND_OK", id="duplicate address detection"
        ),
        pytest.param(
            nd_packet(ICMPv6ND_NS(tgt=TARGET) / SLL, src="::", dst=NODE),
            "ND_BAD_ADDRESS",
            id="DAD with address",
        ),
        pytest.param(
            nd_packet(ICMPv6ND_NS(tgt=TARGET), src="::", dst="ff02::1"),
            "ND_BAD_ADDRESS",
            id="DAD to all nodes",
        ),
        pytest.param(nd_packet(ICMPv6ND_NA(tgt=TARGET, S=1, O=1) / TLL), "ND_OK", id="advertisement"),
        pytest.param(nd_packet(ICMPv6ND_NA(tgt=TARGET, S=0) / TLL, dst="ff02::1"), "ND_OK", id="unsolicited"),
        pytest.param(
            nd_packet(ICMPv6ND_NA(tgt=TARGET, S=1) / TLL, dst="ff02::1"),
            "ND_BAD_ADDRESS",
            id="solicited advertisement to a group",
        ),
        pytest.param(
            nd_packet(ICMPv6ND_NA(tgt=TARGET) / TLL, src="::"),
            "ND_BAD_ADDRESS",
            id="advertisement from nobody",
        ),
        pytest.param(
            nd_packet(ICMPv6ND_NS(tgt=TARGET), hlim=254), "ND_BAD_HOP_LIMIT", id="has passed a router"
        ),
        pytest.param(nd_packet(ICMPv6ND_NS(tgt=TARGET, code=1)), "ND_BAD_CODE", id="code"),
        pytest.param(nd_packet(ICMPv6ND_NS(tgt="ff02::1")), "ND_BAD_ADDRESS", id="target multicast"),
        pytest.param(nd_packet(ICMPv6ND_NS(tgt="::")), "ND_BAD_ADDRESS", id="target unspecified"),
        pytest.param(
            nd_packet(ICMPv6ND_NS(tgt="::ffff:192.0.2.1")), "ND_BAD_ADDRESS", id="target IPv4-mapped"
        ),
        pytest.param(
            nd_packet(ICMPv6ND_NA(tgt=TARGET) / ICMPv6NDOptDstLLAddr(lladdr="ff:ff:ff:ff:ff:ff")),
            "ND_BAD_ADDRESS",
            id="link-layer address is broadcast",
        ),
        pytest.param(
            nd_packet(ICMPv6ND_NS(tgt=TARGET) / Raw(b"\x01\x00" + b"\0" * 6)),
            "ND_BAD_OPTION",
            id="option length 0",
        ),
        pytest.param(
            nd_packet(ICMPv6ND_NS(tgt=TARGET) / Raw(b"\x01\x02" + b"\0" * 6)),
            "ND_BAD_OPTION",
            id="option too long",
        ),
        pytest.param(
            nd_packet(ICMPv6ND_NS(tgt=TARGET) / Raw(b"\x01")), "ND_BAD_OPTION", id="option of one byte"
        ),
        pytest.param(
            nd_packet(ICMPv6ND_NS(tgt=TARGET) / Raw(b"\x0e\x01abcdef") / SLL),
            "ND_OK",
            id="unknown option first",
        ),
        pytest.param(nd_packet(ICMPv6EchoRequest(data=b"x" * 16)), "ND_OTHER_TYPE", id="echo"),
        pytest.param(nd_packet(ICMPv6EchoRequest(data=b"x" * 15)), "ND_TRUNCATED", id="short"),
    ],
)
def test_nd(packet: Packet, expected: str) -> None:
    ip, message = ip_of(packet)
    out = ffi.new("struct nd_message *")
    assert name("nd_verdict", lib.nd_parse(ip, exact(message), out)) == expected
    if expected != "ND_OK" or b"abcdef" in message:
        return
    twin = packet.payload
    assert bytes(out.target.b) == ipaddress.ip_address(twin.tgt).packed
    assert out.solicitation == isinstance(twin, ICMPv6ND_NS)
    if isinstance(twin, ICMPv6ND_NA):
        assert (out.router, out.solicited, out.override) == (twin.R, twin.S, twin.O)
    assert out.has_lladdr == hasattr(twin.payload, "lladdr")
    if out.has_lladdr:
        assert text(out.lladdr) == twin.payload.lladdr


@given(st.binary(min_size=24, max_size=80), st.booleans())
def test_any_neighbour_message_is_safe(data: bytes, solicitation: bool) -> None:
    ip = ffi.new("struct ip_packet *", {"version": 6, "ttl": 255, "l4_len": len(data)})
    message = bytes([135 if solicitation else 136, 0]) + data[2:]
    lib.nd_parse(ip, exact(message), ffi.new("struct nd_message *"))
