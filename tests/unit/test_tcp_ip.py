"""IP's header: what stands between it and TCP's is skipped, what is sent has the DSCP and the TTL of its settings."""

import struct
from collections.abc import Iterator

import pytest
from _tcp import ffi, lib
from tcp_talk import Options, Peer, Segment, Stack
from test_tcp_open import connect
from test_tcp_settings import change, settings

from tests.packets import checksum

RECORD_ROUTE, UNKNOWN = b"\x07\x0b\x04" + bytes(8) + b"\x00", b"\x01\x9e\x04\xff\xff\x01\x01\x00"
LOOSE_ROUTE = b"\x83\x07\x04\x0a\x01\x00\x09\x00"
HOP_BY_HOP, DESTINATION = b"\x00\x1e\x04\0\0\0\0", b"\x00\x01\x04\0\0\0\0"
ROUTE_AT_ITS_END, ROUTE = b"\x00\x04\x00\0\0\0\0", b"\x00\x04\x01\0\0\0\0"


def with_options(packet: bytes, options: bytes) -> bytes:
    """An IPv4 packet, with these in its header."""
    ip = bytearray(packet[:20] + options)
    ip[0] = 0x40 | len(ip) // 4
    ip[2:4] = struct.pack("!H", len(packet) + len(options))
    ip[10:12] = bytes(2)
    ip[10:12] = struct.pack("!H", checksum(bytes(ip)))
    return bytes(ip) + packet[20:]


def with_extensions(packet: bytes, extensions: list[tuple[int, bytes]]) -> bytes:
    """An IPv6 packet, with these (its number, and all but the number of the next) between its headers."""
    ip = bytearray(packet[:40])
    kinds = [kind for kind, _ in extensions] + [ip[6]]
    between = b"".join(
        bytes([following]) + body for following, (_, body) in zip(kinds[1:], extensions, strict=True)
    )
    ip[6] = kinds[0]
    ip[4:6] = struct.pack("!H", len(packet) - 40 + len(between))
    return bytes(ip) + between + packet[40:]


def dressed(packet: bytes) -> bytes:
    if packet[0] >> 4 == 4:
        return with_options(packet, RECORD_ROUTE + UNKNOWN)
    return with_extensions(packet, [(0, HOP_BY_HOP), (60, DESTINATION), (43, ROUTE_AT_ITS_END)])


def routed(packet: bytes) -> bytes:
    if packet[0] >> 4 == 4:
        return with_options(packet, LOOSE_ROUTE)
    return with_extensions(packet, [(43, ROUTE)])


@pytest.mark.parametrize("verified", [False, True], ids=["here", "by-the-port"])
@pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("active", [False, True], ids=["server", "client"])
def test_a_conversation_with_options_in_each_packet(active: bool, v6: bool, verified: bool) -> None:
    stack = Stack()
    peer = Peer(stack, v6=v6)

    def tell(flags: str, data: bytes = b"", options: Options | None = None) -> None:
        packet = peer.segment(flags, data, options=options).build()
        assert stack.input(routed(packet), verified) == "malformed"
        peer.silent()
        assert stack.input(dressed(packet), verified) == "none"
        peer.seq += len(data) + ("S" in flags)

    if active:
        conn = connect(stack, peer)
        peer.expect("S")
        tell("SA", options=Options(mss=1000))
        peer.expect("A")
    else:
        stack.listen()
        tell("S", options=Options(mss=1000))
        peer.expect("SA")
        tell("A")
    [(conn, _)] = stack.events()
    tell("A", b"hello")
    assert stack.recv(conn) == b"hello"
    stack.send(conn, b"world")
    peer.expect("A", b"world")
    tell("A")
    assert stack.info(conn).flight_bytes == 0


@pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])
def test_a_bad_checksum_behind_options_is_noticed(v6: bool) -> None:
    stack = Stack()
    stack.listen()
    packet = Peer(stack, v6=v6).segment("S").build(good=False)
    assert stack.input(dressed(packet)) == "checksum"


class Watched(Stack):
    """With the Differentiated Services field and the TTL of all that was sent."""

    fields: list[tuple[int, int]]

    def taken(self) -> Iterator[Segment]:
        buf = ffi.new("uint8_t[]", 2048)
        while (n := lib.native_take(self.native, buf)) >= 0:
            packet = bytes(ffi.buffer(buf, n))
            v4 = packet[0] >> 4 == 4
            self.fields.append(
                (packet[1], packet[8]) if v4 else (packet[0] << 4 & 0xF0 | packet[1] >> 4, packet[7])
            )
            yield Segment.parse(packet)

    def sent(self) -> set[tuple[int, int]]:
        """What was in them since the last call."""
        self.output()
        fields, self.fields = set(self.fields), []
        return fields


def watched(**config: int) -> Watched:
    stack = Watched(**config)
    stack.fields = []
    any_address = ffi.new("struct ip_addr *")
    assert lib.tcp_listen_with(stack.tcp, any_address, 80, 7, settings(stack, dscp=46, ttl=255)) == 0
    return stack


@pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("active", [False, True], ids=["server", "client"])
def test_a_connection_sends_with_its_dscp_and_ttl(active: bool, v6: bool) -> None:
    stack = watched(ecn=lib.TCP_ECN_ON)
    peer = Peer(stack, v6=v6)
    if active:
        conn = connect(stack, peer)
        assert stack.sent() == {(0, 64)}, "it was asked for at once"
        assert change(stack, conn, dscp=46, ttl=255) == 0
        peer.expect("SEC")
        stack.advance(1_000_000)
        assert stack.sent() == {(46 << 2, 255)}, "and of the SYN that is repeated"
        peer.send("SA")
    else:
        peer.send("SEC", options=Options(mss=1460))
        peer.expect("SAE")
        peer.send("A")
        [(conn, _)] = stack.events()
    stack.send(conn, b"data")
    assert stack.sent() == ({(46 << 2, 255)} if active else {(46 << 2, 255), (46 << 2 | 2, 255)}), (
        "ECT(0) beside it"
    )
    stack.advance(2_000_000)
    assert stack.sent() == {(46 << 2, 255)}, "what is sent again"
    assert change(stack, conn, dscp=8, ttl=1) == 0
    stack.send(conn, b"more")
    stack.advance(2_000_000)
    assert {(tos & 0xFC, ttl) for tos, ttl in stack.sent()} == {(8 << 2, 1)}
    stack.abort(conn)
    assert stack.sent() == {(8 << 2, 1)}, "RST"


@pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])
def test_what_no_row_sends_has_them_too(v6: bool) -> None:
    stack = watched(half_open_max=4)
    for port in (1, 2, 3):
        peer = Peer(stack, port, v6=v6)
        peer.send("S")
        assert stack.sent() == {(46 << 2, 255)}, "SYN-ACK, the third one of a cookie"
    assert stack.counters.syn_cookies_sent == 1
    stack.advance(1_000_000)
    assert stack.sent() == {(46 << 2, 255)}, "SYN-ACK again"
    Peer(stack, 1, v6=v6).send("S", seq=9)
    assert stack.sent() == {(46 << 2, 255)}, "challenge"
    Peer(stack, 1, stack_port=81, v6=v6).send("S")
    assert stack.sent() == {(0, 64)}, "nobody listens there"


@pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])
def test_time_wait_has_them_too(v6: bool) -> None:
    stack = watched()
    peer = Peer(stack, v6=v6)
    conn = peer.open()
    stack.close(conn)
    peer.expect("FA")
    peer.send("FA")
    stack.sent()
    assert stack.usage["time_wait"] == 1
    peer.send("FA", seq=peer.seq - 1)
    assert stack.sent() == {(46 << 2, 255)}
    assert lib.tcp_unlisten(stack.tcp, ffi.new("struct ip_addr *"), 80) == 0
    peer.send("FA", seq=peer.seq - 1)
    assert stack.sent() == {(46 << 2, 255)}
    stack.advance(120_000_000)
    assert stack.is_empty()


@pytest.mark.parametrize(("dscp", "ttl"), [(64, 64), (255, 64), (0, 0)])
def test_what_no_header_can_say_is_refused(dscp: int, ttl: int) -> None:
    stack = Stack()
    stack.listen()
    peer = Peer(stack)
    assert change(stack, peer.open(), dscp=dscp, ttl=ttl) < 0
