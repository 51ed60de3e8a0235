"""Hosts as people write them, and the 16 bytes that the stack wants (IPv4 in its mapped form)."""

import ipaddress
import socket


def pack(host: str | None) -> bytes | None:
    """A numeric address; None, '', '0.0.0.0' and '::' mean every address of the lease."""
    if not host:
        return None
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        return None
    return address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed


def unpack(packed: bytes) -> str:
    """The text of 16 bytes, dotted for IPv4."""
    address = ipaddress.IPv6Address(packed)
    return str(address.ipv4_mapped or address)


def resolve(host: str, port: int) -> bytes:
    """The first TCP address of host.  A name asks the system's resolver, which blocks the loop meanwhile."""
    try:
        packed = pack(host)
    except ValueError:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        packed = pack(str(found[0][4][0]))
    if packed is None:
        raise ValueError(f"cannot connect to {host!r}: it names no host")
    return packed
