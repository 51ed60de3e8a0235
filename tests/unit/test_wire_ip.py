"""IP headers: tables of what is refused, scapy as the independent builder and parser."""

import ipaddress

import pytest
from _wire import ffi, lib
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
    RouterAlert,
)
from scapy.packet import Packet, Raw

VERDICTS = ffi.typeof("enum ip_verdict").elements
V4 = {"src": "192.0.2.1", "dst": "198.51.100.7"}
V6 = {"src": "2001:db8::1", "dst": "2001:db8::7"}
PAYLOAD = Raw(b"12345678")
HOP = IPv6ExtHdrHopByHop(options=[RouterAlert(value=0), PadN(optdata=b"\0\0")])
DST = IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0\0\0\0")])


def mapped(text: str) -> bytes:
    packed = ipaddress.ip_address(text).packed
    return packed if len(packed) == 16 else b"\0" * 10 + b"\xff\xff" + packed


def address(text: str) -> object:
    a = ffi.new("struct ip_addr *")
    a.b = mapped(text)
    return a


def parse(data: bytes, length: int | None = None) -> tuple[str, object]:
    """Parses a copy that ends where data ends, so that a sanitizer sees the first byte too far."""
    out = ffi.new("struct ip_packet *")
    buffer = ffi.new("uint8_t[]", data or b"\0")
    return VERDICTS[lib.ip_parse(buffer, len(data) if length is None else length, out)], out


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        pytest.param(IP(**V4) / TCP(), "IP_OK", id="ipv4"),
        pytest.param(IP(**V4, flags="DF", tos=0xFF) / TCP(), "IP_OK", id="ipv4 with DF and all of TOS"),
        pytest.param(IP(**V4, flags="evil") / TCP(), "IP_OK", id="reserved flag (RFC 3514) is ignored"),
        pytest.param(IP(**V4, proto=6), "IP_OK", id="ipv4 without payload"),
        pytest.param(IP(**V4, len=19) / TCP(), "IP_BAD_HEADER", id="total length below the header"),
        pytest.param(IP(**V4, len=0) / TCP(), "IP_BAD_HEADER", id="total length 0"),
        pytest.param(IP(**V4, len=41) / TCP(), "IP_TRUNCATED", id="total length one too long"),
        pytest.param(IP(**V4, len=65535) / TCP(), "IP_TRUNCATED", id="total length 65535"),
        pytest.param(IP(**V4, ihl=4) / TCP(), "IP_BAD_HEADER", id="IHL 4"),
        pytest.param(IP(**V4, ihl=0) / TCP(), "IP_BAD_HEADER", id="IHL 0"),
        pytest.param(IP(**V4, ihl=15, proto=6), "IP_BAD_HEADER", id="IHL beyond total length"),
        pytest.param(IP(**V4, chksum=1) / TCP(), "IP_BAD_CHECKSUM", id="checksum"),
        pytest.param(IP(**V4, options=[b"\x01\x01\x01\x00"]) / TCP(), "IP_OK", id="NOPs as options"),
        pytest.param(IP(**V4, options=[b"\x94\x04\0\0"]) / TCP(), "IP_OK", id="router alert"),
        pytest.param(IP(**V4, options=[b"\x9e\x02\x83\x03"]) / TCP(), "IP_OPTIONS", id="source route"),
        pytest.param(IP(**V4, options=[b"\x9e\x05\0\0"]) / TCP(), "IP_OPTIONS", id="option beyond header"),
        pytest.param(IP(**V4, flags="MF") / TCP(), "IP_FRAGMENT", id="first fragment"),
        pytest.param(IP(**V4, frag=1) / TCP(), "IP_FRAGMENT", id="later fragment"),
        pytest.param(IP(**V4, frag=8191) / TCP(), "IP_FRAGMENT", id="ping of death's offset"),
        pytest.param(IP(**V4, version=5) / TCP(), "IP_BAD_VERSION", id="version 5"),
        pytest.param(IP(src="0.0.0.0", dst="192.0.2.1") / TCP(), "IP_BAD_ADDRESS", id="source unspecified"),
        pytest.param(
            IP(src="0.1.2.3", dst="192.0.2.1") / TCP(), "IP_BAD_ADDRESS", id="source in this network"
        ),
        pytest.param(IP(src="127.0.0.1", dst="192.0.2.1") / TCP(), "IP_BAD_ADDRESS", id="source loopback"),
        pytest.param(IP(src="224.0.0.1", dst="192.0.2.1") / TCP(), "IP_BAD_ADDRESS", id="source multicast"),
        pytest.param(
            IP(src="255.255.255.255", dst="192.0.2.1") / TCP(), "IP_BAD_ADDRESS", id="source broadcast"
        ),
        pytest.param(IP(src="192.0.2.1", dst="192.0.2.1") / TCP(), "IP_BAD_ADDRESS", id="LAND"),
        pytest.param(IPv6(**V6) / TCP(), "IP_OK", id="ipv6"),
        pytest.param(IPv6(**V6, nh=6), "IP_OK", id="ipv6 without payload"),
        pytest.param(IPv6(**V6, tc=0xFF, fl=0xFFFFF) / TCP(), "IP_OK", id="ipv6 with all of class and label"),
        pytest.param(IPv6(**V6, plen=21) / TCP(), "IP_TRUNCATED", id="payload length one too long"),
        pytest.param(IPv6(**V6) / HOP / TCP(), "IP_OK", id="hop-by-hop options"),
        pytest.param(IPv6(**V6) / HOP / DST / TCP(), "IP_OK", id="hop-by-hop and destination options"),
        pytest.param(IPv6(**V6) / DST / HOP / TCP(), "IP_EXTENSIONS", id="hop-by-hop not first"),
        pytest.param(IPv6(**V6) / IPv6ExtHdrRouting(segleft=0) / TCP(), "IP_OK", id="route at its end"),
        pytest.param(
            IPv6(**V6) / IPv6ExtHdrRouting(segleft=1, addresses=["2001:db8::9"]) / TCP(),
            "IP_EXTENSIONS",
            id="route that goes on, RFC 5095",
        ),
        pytest.param(IPv6(**V6) / IPv6ExtHdrFragment(m=1) / TCP(), "IP_FRAGMENT", id="ipv6 first fragment"),
        pytest.param(
            IPv6(**V6) / IPv6ExtHdrFragment(offset=5) / TCP(), "IP_FRAGMENT", id="ipv6 later fragment"
        ),
        pytest.param(IPv6(**V6) / IPv6ExtHdrFragment() / TCP(), "IP_FRAGMENT", id="ipv6 atomic fragment"),
        pytest.param(
            IPv6(**V6, nh=0) / Raw(b"\x06\x01\x01\x04\0\0\0\0"), "IP_EXTENSIONS", id="extension beyond packet"
        ),
        pytest.param(IPv6(**V6, nh=0) / Raw(b"\x06\x00"), "IP_EXTENSIONS", id="extension of two bytes"),
        pytest.param(
            IPv6(**V6, nh=60) / Raw(b"\x06\x00\x01\x05\0\0\0\0"),
            "IP_EXTENSIONS",
            id="option beyond extension",
        ),
        pytest.param(
            IPv6(**V6, nh=60) / Raw(b"\x06\x00\0\0\0\0\0\x01"), "IP_EXTENSIONS", id="option kind at last byte"
        ),
        pytest.param(
            IPv6(**V6, nh=60) / Raw(b"\x06\x00\xc2\x04\0\0\0\0"), "IP_EXTENSIONS", id="jumbo payload option"
        ),
        pytest.param(
            IPv6(**V6, nh=60) / Raw(b"\x06\x00\x1e\x04\0\0\0\0"), "IP_OK", id="unknown option, to be skipped"
        ),
        pytest.param(
            IPv6(**V6, nh=60) / Raw(b"\x3c\0\x01\x04\0\0\0\0" * 7 + b"\x06\0\x01\x04\0\0\0\0"),
            "IP_OK",
            id="eight extension headers",
        ),
        pytest.param(
            IPv6(**V6, nh=60) / Raw(b"\x3c\0\x01\x04\0\0\0\0" * 8 + b"\x06\0\x01\x04\0\0\0\0"),
            "IP_EXTENSIONS",
            id="nine extension headers",
        ),
        pytest.param(
            IPv6(src="::", dst="2001:db8::7") / TCP(), "IP_BAD_ADDRESS", id="ipv6 source unspecified"
        ),
        pytest.param(IPv6(src="::1", dst="2001:db8::7") / TCP(), "IP_BAD_ADDRESS", id="ipv6 source loopback"),
        pytest.param(
            IPv6(src="ff02::1", dst="2001:db8::7") / TCP(), "IP_BAD_ADDRESS", id="ipv6 source multicast"
        ),
        pytest.param(
            IPv6(src="::ffff:192.0.2.1", dst="2001:db8::7") / TCP(),
            "IP_BAD_ADDRESS",
            id="an IPv4-mapped source would be another flow",
        ),
        pytest.param(
            IPv6(src="2001:db8::7", dst="::ffff:192.0.2.1") / TCP(),
            "IP_BAD_ADDRESS",
            id="an IPv4-mapped destination would be another service",
        ),
        pytest.param(IPv6(src="2001:db8::7", dst="2001:db8::7") / TCP(), "IP_BAD_ADDRESS", id="ipv6 LAND"),
    ],
)
def test_verdict(packet: Packet, expected: str) -> None:
    assert parse(bytes(packet))[0] == expected


@pytest.mark.parametrize(
    "packet", [IP(**V4) / TCP() / PAYLOAD, IPv6(**V6) / HOP / DST / TCP() / PAYLOAD], ids=["4", "6"]
)
def test_every_truncation_is_refused(packet: Packet) -> None:
    whole = bytes(packet)
    assert parse(whole)[0] == "IP_OK"
    for length in range(len(whole)):
        assert parse(whole[:length])[0] == "IP_TRUNCATED"


@pytest.mark.parametrize("packet", [IP(**V4) / TCP() / PAYLOAD, IPv6(**V6) / TCP() / PAYLOAD], ids=["4", "6"])
def test_padding_is_not_part_of_the_packet(packet: Packet) -> None:
    whole = bytes(packet)
    verdict, out = parse(whole + b"\xee" * 46)
    assert verdict == "IP_OK"
    assert out.total_len == len(whole)
    assert out.l4_len == 28


@pytest.mark.parametrize("byte", range(20))
def test_every_flipped_bit_of_an_ipv4_header_is_noticed(byte: int) -> None:
    whole = bytes(IP(**V4) / TCP())
    for bit in range(8):
        flipped = bytearray(whole)
        flipped[byte] ^= 1 << bit
        assert parse(bytes(flipped))[0] != "IP_OK"


@given(
    st.ip_addresses(v=4),
    st.ip_addresses(v=4),
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 255),
    st.binary(max_size=100),
)
def test_ipv4_values_are_scapys(
    src: object, dst: object, tos: int, ttl: int, protocol: int, payload: bytes
) -> None:
    packet = IP(src=str(src), dst=str(dst), tos=tos, ttl=ttl, proto=protocol) / Raw(payload)
    verdict, out = parse(bytes(packet))
    bad = src.is_multicast or src.is_loopback or int(src) >> 24 in {0, *range(224, 256)} or src == dst  # type: ignore
    assert verdict == ("IP_BAD_ADDRESS" if bad else "IP_OK")
    assert bytes(out.src.b) == mapped(str(src))
    assert bytes(out.dst.b) == mapped(str(dst))
    assert (out.version, out.ecn, out.ttl, out.protocol) == (4, tos & 3, ttl, protocol)
    assert (out.l4_offset, out.l4_len, out.total_len) == (20, len(payload), 20 + len(payload))


@given(
    st.integers(0, 255),
    st.integers(0, 255),
    st.binary(max_size=100),
    st.lists(st.sampled_from([DST, IPv6ExtHdrRouting(segleft=0)]), max_size=7),
    st.booleans(),
)
def test_ipv6_values_are_scapys(
    tc: int, hlim: int, payload: bytes, extensions: list[Packet], hop: bool
) -> None:
    packet = IPv6(**V6, tc=tc, hlim=hlim)
    for extension in [HOP, *extensions] if hop else extensions:
        packet = packet / extension.copy()
    header_len = len(packet)
    verdict, out = parse(bytes(packet / TCP() / Raw(payload)))
    assert verdict == "IP_OK"
    assert (out.version, out.ecn, out.ttl, out.protocol) == (6, tc & 3, hlim, 6)
    assert (out.l4_offset, out.l4_len, out.total_len) == (
        header_len,
        20 + len(payload),
        header_len + 20 + len(payload),
    )


@given(st.binary(max_size=120))
def test_any_bytes_are_safe(data: bytes) -> None:
    verdict, out = parse(data)
    if verdict == "IP_OK":
        assert out.l4_offset + out.l4_len == out.total_len <= len(data)


@given(st.binary(min_size=0, max_size=80), st.integers(0, 255))
def test_any_extension_bytes_are_safe(data: bytes, next_header: int) -> None:
    verdict, out = parse(bytes(IPv6(**V6, nh=next_header, plen=len(data))) + data)
    if verdict == "IP_OK":
        assert out.l4_offset + out.l4_len == out.total_len == 40 + len(data)


@pytest.mark.parametrize(
    ("src", "dst", "header_len"), [("192.0.2.1", "198.51.100.7", 20), ("2001:db8::1", "2001:db8::7", 40)]
)
@pytest.mark.parametrize(("tos", "ttl"), [(0, 64), (1, 1), (2, 255), (0xB8, 64), (0xFF, 128)])
def test_built_header_is_what_scapy_reads(src: str, dst: str, header_len: int, tos: int, ttl: int) -> None:
    buffer = ffi.new("uint8_t[60]", b"\xee" * 60)
    assert lib.ip_header_len(address(dst)) == header_len
    lib.wire_ip_build(buffer, address(src), address(dst), 6, 20, tos, ttl)
    data = bytes(ffi.buffer(buffer))
    assert data[header_len:] == b"\xee" * (60 - header_len)
    packet = IP(data) if header_len == 20 else IPv6(data)
    assert (packet.src, packet.dst) == (src, dst)
    if header_len == 20:
        assert (packet.len, packet.flags, packet.frag, packet.id, packet.tos, packet.ttl) == (
            40,
            "DF",
            0,
            0,
            tos,
            ttl,
        )
        good = packet.chksum
        del packet.chksum
        assert IP(bytes(packet)).chksum == good
    else:
        assert (packet.plen, packet.nh, packet.tc, packet.fl, packet.hlim) == (20, 6, tos, 0, ttl)
    assert parse(data)[0] == "IP_OK"


@pytest.mark.parametrize(
    ("text", "is_ipv4"),
    [
        ("192.0.2.1", True),
        ("::ffff:1.2.3.4", True),
        ("2001:db8::1", False),
        ("::1.2.3.4", False),
        ("::fffe:1.2.3.4", False),
    ],
)
def test_the_family_of_an_address(text: str, is_ipv4: bool) -> None:
    assert lib.wire_ip_addr_is_ipv4(address(text)) == is_ipv4
