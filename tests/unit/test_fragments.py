"""TCP in IP fragments, put together: against what scapy cuts."""

import random
from collections.abc import Iterable

import pytest
from _classify import ffi, lib
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP, IPOption, fragment
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    fragment6,
)
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

ETHER = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01")
V4 = {"src": "10.0.0.2", "dst": "10.0.0.1"}
V6 = {"src": "fd00::2", "dst": "fd00::1"}


class Table:
    """One I/O thread's."""

    def __init__(self) -> None:
        self.f = ffi.gc(lib.native_fragments_new(), lib.native_fragments_free)
        self.now_ms = 0xFFFFFFF0
        self.buffer = ffi.new("uint8_t[]", 4096)

    def add(self, packet: Packet) -> bytes:
        data = bytes(packet)
        n = lib.native_fragment(self.f, data, len(data), self.now_ms % 2**32, self.buffer)
        assert n >= 0, "it is a fragment"
        return bytes(ffi.buffer(self.buffer, n))

    def add_all(self, packets: Iterable[Packet]) -> bytes:
        whole = [frame for frame in map(self.add, packets) if frame]
        assert len(whole) <= 1
        return whole[0] if whole else b""

    @property
    def lost(self) -> int:
        return int(self.f.lost)


def segment(size: int, version: int = 4, ident: int = 77, tag: bool = False, **ip: object) -> Packet:
    ether = ETHER / Dot1Q(vlan=5) if tag else ETHER
    payload = TCP(sport=4000, dport=80, flags="A", seq=9) / Raw(random.Random(size).randbytes(size))
    if version == 4:
        return ether / IP(**{**V4, "id": ident, "flags": 0, **ip}) / payload
    return ether / IPv6(**{**V6, **ip}) / IPv6ExtHdrFragment(id=ident) / payload


def cut(packet: Packet, size: int) -> list[Packet]:
    """Fragments with size bytes of payload each, a multiple of 8."""
    if IP in packet:
        head = packet.copy()
        head.remove_payload()
        if Dot1Q in packet:
            head = ETHER / Dot1Q(vlan=5)
        return [head / piece for piece in fragment(packet[IP], fragsize=size)]
    head = ETHER / Dot1Q(vlan=5) if Dot1Q in packet else ETHER
    return [head / piece for piece in fragment6(packet[IPv6], size + 48)]


def without_fragment_header(packet: Packet) -> bytes:
    """The frame as if it had never been cut."""
    if IP in packet:
        return bytes(packet)
    plain = packet.copy()
    inner = plain[IPv6ExtHdrFragment].payload
    plain[IPv6].remove_payload()
    plain[IPv6].nh = 6
    plain[IPv6].plen = None
    return bytes(plain / inner)


@pytest.mark.parametrize("tag", [False, True], ids=["untagged", "tagged"])
@pytest.mark.parametrize("version", [4, 6])
@given(size=st.integers(30, 1800), unit=st.integers(3, 100), seed=st.integers(0, 99))
def test_a_segment_in_any_order_of_its_fragments(
    version: int, tag: bool, size: int, unit: int, seed: int
) -> None:
    packet = segment(size, version, tag=tag)
    pieces = cut(packet, 8 * unit)
    if len(pieces) < 2:
        return
    random.Random(seed).shuffle(pieces)
    table = Table()
    assert table.add_all(pieces) == without_fragment_header(packet)
    assert table.lost == 0


@pytest.mark.parametrize("tag", [False, True], ids=["untagged", "tagged"])
@pytest.mark.parametrize("version", [4, 6])
def test_options_of_fragments_are_left_out(version: int, tag: bool) -> None:
    """Those of IPv4's first one, and extension headers before the fragment header (RFC 8200 4.5)."""
    packet = segment(600, version, tag=tag)
    pieces = cut(packet, 200)
    for piece in pieces if version == 6 else pieces[:1]:
        if version == 4:
            piece[IP].options = [IPOption(b"\x07\x0b\x04" + bytes(8)), IPOption(b"\x94\x04\0\0")]
            piece[IP].ihl = piece[IP].len = piece[IP].chksum = None
        else:
            skipped = IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / piece[IPv6].payload
            piece[IPv6].remove_payload()
            piece[IPv6].nh = 0
            piece[IPv6].plen = None
            piece[IPv6].add_payload(skipped)
    table = Table()
    assert table.add_all(pieces[::-1]) == without_fragment_header(packet)
    assert table.lost == 0


@pytest.mark.parametrize("version", [4, 6])
def test_an_exact_duplicate_does_no_harm(version: int) -> None:
    packet = segment(600, version)
    first, *rest = cut(packet, 200)
    table = Table()
    assert table.add_all([first, first, *rest]) == without_fragment_header(packet)
    assert table.lost == 1


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("shift", [-8, 0])
def test_overlap_discards_the_whole(version: int, shift: int) -> None:
    pieces = cut(segment(600, version), 200)
    other = pieces[1].copy()
    if version == 4:
        other[IP].frag += shift // 8
        other[IP].chksum = None
    else:
        other[IPv6ExtHdrFragment].offset += shift // 8
    other[Raw].load = bytes(len(other[Raw].load))
    table = Table()
    assert table.add_all([pieces[0], pieces[1], other, *pieces[2:]]) == b""
    assert table.add_all(pieces) == b"", "nor is anything made of what still comes"
    assert table.lost == 3 + len(pieces[2:]) + len(pieces)


def test_two_ends_discard_the_whole() -> None:
    pieces = cut(segment(600), 200)
    early = pieces[1].copy()
    early[IP].flags = 0
    early[IP].chksum = None
    assert Table().add_all([pieces[0], early, *pieces[1:]]) != without_fragment_header(segment(600))
    table = Table()
    assert table.add_all([pieces[-1], early, *pieces[:-1]]) == b""
    assert table.lost == 1 + len(pieces)


def test_the_first_fragment_has_the_header() -> None:
    table = Table()
    assert table.add_all(cut(segment(100), 8)) == b""
    assert table.lost > 0


@pytest.mark.parametrize("version", [4, 6])
def test_only_tcp_is_put_together(version: int) -> None:
    table = Table()
    ip = IP(**V4, flags="MF") if version == 4 else IPv6(**V6) / IPv6ExtHdrFragment(m=1, id=1)
    assert table.add(ETHER / ip / UDP() / Raw(bytes(64))) == b""
    assert table.lost == 1


def test_what_no_slot_would_hold_is_dropped() -> None:
    table = Table()
    assert table.add_all(cut(segment(3000), 1000)) == b""
    assert table.add(ETHER / IP(**V4, proto=6, frag=8189) / Raw(bytes(100))) == b"", "the ping of death"
    assert table.lost > 0


def test_an_atomic_fragment_stands_for_itself() -> None:
    packet = segment(300, 6)
    table = Table()
    pieces = cut(segment(600, 6), 200)
    table.add(pieces[0])
    assert table.add(packet) == without_fragment_header(packet), "whatever else has its number"
    assert table.add_all(pieces[1:]) == without_fragment_header(segment(600, 6))


def test_time_is_limited() -> None:
    packet = segment(600)
    first, *rest = cut(packet, 200)
    table = Table()
    table.add(first)
    table.now_ms += lib.FRAGMENTS_LIFE_MS
    assert table.add_all(rest) == b""
    assert table.lost == 1
    assert table.add(first) == without_fragment_header(packet), "they are a datagram of their own now"


def test_a_source_has_its_share_and_no_more() -> None:
    table = Table()
    packet = segment(600, src="10.0.0.9")
    honest = cut(packet, 200)
    table.add(honest[0])
    for ident in range(500):
        table.now_ms += 1
        table.add(cut(segment(600, ident=ident), 200)[0])
    assert table.lost == 500 - lib.FRAGMENTS_OF_A_SOURCE
    assert table.add_all(honest[1:]) == without_fragment_header(packet)


def test_when_all_is_taken_the_oldest_makes_room() -> None:
    table = Table()
    for i in range(lib.FRAGMENTS_DATAGRAMS + 5):
        table.now_ms += 1
        table.add(cut(segment(600, src=f"10.0.1.{i + 1}"), 200)[0])
    assert table.lost == 5
    packet = segment(600, src="10.0.1.6")
    assert table.add_all(cut(packet, 200)[1:]) == without_fragment_header(packet)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("marks", "expected"), [((2, 3), 3), ((1, 3), 3), ((0, 3), None), ((2, 2), 2), ((0, 0), 0)]
)
def test_congestion_of_a_fragment_is_the_datagrams(
    version: int, marks: tuple[int, int], expected: int | None
) -> None:
    pieces = cut(segment(300, version), 168)
    assert len(pieces) == 2
    for piece, mark in zip(pieces, marks, strict=True):
        if version == 4:
            piece[IP].tos = mark
            piece[IP].chksum = None
        else:
            piece[IPv6].tc = mark
    whole = Table().add_all(pieces)
    if expected is None:
        assert whole == b""
    else:
        got = Ether(whole)
        assert (got[IP].tos if version == 4 else got[IPv6].tc) == expected
        if version == 4:
            assert IP(bytes(got[IP])).chksum == got[IP].chksum
