"""IP and TCP as bytes, made apart from the code under test."""

import ipaddress
import struct
from functools import cache

PROTOCOL_TCP = 6


def address(text: str) -> bytes:
    """The 16 bytes of struct ip_addr."""
    ip = ipaddress.ip_address(text)
    return ip.packed if ip.version == 6 else bytes(10) + b"\xff\xff" + ip.packed


def checksum(data: bytes) -> int:
    """The Internet checksum of data (RFC 1071)."""
    number = int.from_bytes(data + b"\0" * (len(data) % 2), "big")
    total = number % 0xFFFF  # as 2**16 is 1 modulo 0xffff, that of the number is that of the sum of its words
    if number and not total:
        total = 0xFFFF  # a sum with end-around carry is 0 only if all words are
    return 0xFFFF - total


@cache
def packed(text: str) -> bytes:
    """4 or 16 bytes."""
    return ipaddress.ip_address(text).packed


def tcp_packet(
    src: str,
    dst: str,
    fields: tuple[int, int, int, int, int, int, int],
    options: bytes,
    data: bytes,
    *,
    ecn: int = 0,
    good: bool = True,
) -> bytes:
    """One segment in IPv4 or IPv6.

    fields: ports of both, sequence and acknowledgment number (any integers), flags, window, urgent pointer. options:
    a multiple of 4 bytes. ecn: the two bits. good: False spoils the checksum.
    """
    sport, dport, seq, ack, flags, wnd, up = fields
    offset = (20 + len(options)) // 4 << 4
    head = struct.pack("!HHIIBBHHH", sport, dport, seq % 2**32, ack % 2**32, offset, flags, wnd, 0, up)
    tcp = bytearray(head + options + data)
    ends = packed(src) + packed(dst)
    total = checksum(ends + struct.pack("!II", len(tcp), PROTOCOL_TCP) + tcp)
    tcp[16:18] = struct.pack("!H", total ^ (not good))
    if len(ends) == 32:
        return struct.pack("!IHBB", 6 << 28 | ecn << 20, len(tcp), PROTOCOL_TCP, 64) + ends + tcp
    ip = bytearray(struct.pack("!BBHHHBBH", 0x45, ecn, 20 + len(tcp), 0, 0x4000, 64, PROTOCOL_TCP, 0) + ends)
    ip[10:12] = struct.pack("!H", checksum(bytes(ip)))
    return bytes(ip + tcp)
