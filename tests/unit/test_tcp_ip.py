"""What stands between IP's fixed header and TCP's: skipped, whoever opened the connection."""

import struct

import pytest
from tcp_talk import Options, Peer, Stack
from test_tcp_open import connect

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
