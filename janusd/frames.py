"""The frames that the control plane reads and writes: ARP, ICMP echo and neighbour discovery.

Pure. Every length comes from the bytes that are there; a frame with anything odd in it is None, which the
caller counts. Layouts: RFC 826, 792, 4443, 4861.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from janusd.config import IpAddress

BROADCAST = b"\xff" * 6
ETHER_BYTES = 14
ETHER_IPV4, ETHER_ARP, ETHER_IPV6 = 0x0800, 0x0806, 0x86DD
IPV4_BYTES, IPV6_BYTES = 20, 40
FRAME_MIN = 60  # without FCS
ICMP_ECHO, ICMP_ECHO_REPLY, ICMP_UNREACHABLE = 8, 0, 3
ICMPV6_UNREACHABLE, ICMPV6_ECHO, ICMPV6_ECHO_REPLY, ND_SOLICIT, ND_ADVERT = 1, 128, 129, 135, 136
UDP = 17
QUOTE_MAX = (
    512  # of the packet that an ICMP error is about; with both headers below 576 bytes (RFC 1812 4.3.2.3)
)
ALL_NODES = ipaddress.IPv6Address("ff02::1")

_ARP = struct.Struct("!HHBBH6s4s6s4s")


@dataclass(frozen=True)
class Arp:
    """An ARP packet for IPv4 over Ethernet."""

    request: bool
    sender_mac: bytes
    sender: ipaddress.IPv4Address
    target: ipaddress.IPv4Address


@dataclass(frozen=True)
class Solicit:
    """A neighbour solicitation; source unspecified: duplicate address detection."""

    source: ipaddress.IPv6Address
    target: ipaddress.IPv6Address
    mac: bytes | None


@dataclass(frozen=True)
class Advert:
    """A neighbour advertisement."""

    source: ipaddress.IPv6Address
    target: ipaddress.IPv6Address
    mac: bytes | None
    solicited: bool


@dataclass(frozen=True)
class Echo:
    """An echo request; body is what comes after type, code and checksum: identifier, number and data."""

    source: IpAddress
    destination: IpAddress
    source_mac: bytes
    body: bytes


@dataclass(frozen=True)
class Datagram:
    """A UDP packet for one of our addresses; packet begins with its IP header."""

    source: IpAddress
    destination: IpAddress
    source_mac: bytes
    packet: bytes


def is_unicast_mac(mac: bytes) -> bool:
    """True for a MAC that one host can have."""
    return len(mac) == 6 and not mac[0] & 1 and any(mac)


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071), as it is written into a header."""
    if len(data) % 2:
        data += b"\0"
    total = int.from_bytes(data, "big") % 0xFFFF
    return 0xFFFF - total if total or not any(data) else 0


def parse(frame: bytes) -> Arp | Solicit | Advert | Echo | Datagram | None:
    """What a frame says; None: nothing that the control plane has to do with, or malformed."""
    if len(frame) < ETHER_BYTES or not is_unicast_mac(frame[6:12]):
        return None
    kind = int.from_bytes(frame[12:14], "big")
    if kind == ETHER_ARP:
        return _parse_arp(frame[ETHER_BYTES:])
    if kind == ETHER_IPV4:
        return _parse_ipv4(frame)
    if kind == ETHER_IPV6:
        return _parse_ipv6(frame)
    return None


def _parse_arp(data: bytes) -> Arp | None:
    if len(data) < _ARP.size:
        return None
    hardware, protocol, hardware_len, protocol_len, op, mac, sender, _, target = _ARP.unpack_from(data)
    if (hardware, protocol, hardware_len, protocol_len) != (1, ETHER_IPV4, 6, 4) or op not in (1, 2):
        return None
    if not is_unicast_mac(mac):
        return None
    return Arp(op == 1, mac, ipaddress.IPv4Address(sender), ipaddress.IPv4Address(target))


def _parse_ipv4(frame: bytes) -> Echo | Datagram | None:
    packet = frame[ETHER_BYTES:]
    if len(packet) < IPV4_BYTES + 8 or packet[0] != 0x45:
        return None
    total = int.from_bytes(packet[2:4], "big")
    if not IPV4_BYTES + 8 <= total <= len(packet) or int.from_bytes(packet[6:8], "big") & 0x3FFF:
        return None
    source, destination = ipaddress.IPv4Address(packet[12:16]), ipaddress.IPv4Address(packet[16:20])
    if checksum(packet[:IPV4_BYTES]) or not _is_host(source):
        return None
    if packet[9] == UDP:
        return Datagram(source, destination, frame[6:12], packet[:total])
    icmp = packet[IPV4_BYTES:total]
    if packet[9] != 1 or icmp[:2] != bytes([ICMP_ECHO, 0]) or checksum(icmp):
        return None
    return Echo(source, destination, frame[6:12], icmp[4:])


def _is_host(address: IpAddress) -> bool:
    if address.is_multicast or address.is_unspecified or address.is_loopback:
        return False
    return address.version == 6 or address.packed != b"\xff" * 4


def _parse_ipv6(frame: bytes) -> Echo | Solicit | Advert | Datagram | None:
    packet = frame[ETHER_BYTES:]
    if len(packet) < IPV6_BYTES + 8 or packet[0] >> 4 != 6:
        return None
    length = int.from_bytes(packet[4:6], "big")
    if not 8 <= length <= len(packet) - IPV6_BYTES:
        return None
    source, destination = ipaddress.IPv6Address(packet[8:24]), ipaddress.IPv6Address(packet[24:40])
    if packet[6] == UDP and _is_host(source):
        return Datagram(source, destination, frame[6:12], packet[: IPV6_BYTES + length])
    icmp = packet[IPV6_BYTES : IPV6_BYTES + length]
    if packet[6] != 58 or icmp[1] or checksum(_pseudo(packet[8:24], packet[24:40], length) + icmp):
        return None
    if icmp[0] == ICMPV6_ECHO:
        return Echo(source, destination, frame[6:12], icmp[4:]) if _is_host(source) else None
    if icmp[0] in (ND_SOLICIT, ND_ADVERT) and length >= 24 and packet[7] == 255:
        return None if source.is_multicast or source.is_loopback else _parse_nd(icmp, source, destination)
    return None


def _parse_nd(
    icmp: bytes, source: ipaddress.IPv6Address, destination: ipaddress.IPv6Address
) -> Solicit | Advert | None:
    target = ipaddress.IPv6Address(icmp[8:24])
    options = _nd_options(icmp[24:])
    if options is None or target.is_multicast or target.is_unspecified:
        return None
    if icmp[0] == ND_SOLICIT:
        mac = options.get(1)
        if source.is_unspecified and (mac is not None or not destination.is_multicast):
            return None
        return Solicit(source, target, mac)
    solicited = bool(icmp[4] & 0x40)
    if source.is_unspecified or (solicited and destination.is_multicast):
        return None
    return Advert(source, target, options.get(2), solicited)


def _nd_options(data: bytes) -> dict[int, bytes] | None:
    """Link-layer addresses by option type; None: an option is malformed (length 0 above all)."""
    found: dict[int, bytes] = {}
    while data:
        if len(data) < 8 or not 8 <= data[1] * 8 <= len(data):
            return None
        if data[0] in (1, 2) and data[1] == 1:
            if not is_unicast_mac(data[2:8]):
                return None
            found[data[0]] = data[2:8]
        data = data[data[1] * 8 :]
    return found


def _pseudo(source: bytes, destination: bytes, length: int) -> bytes:
    return source + destination + length.to_bytes(4, "big") + b"\0\0\0\x3a"


def _ethernet(destination: bytes, source: bytes, kind: int, payload: bytes) -> bytes:
    frame = destination + source + kind.to_bytes(2, "big") + payload
    return frame.ljust(FRAME_MIN, b"\0")


def build_arp(
    *,
    request: bool,
    sender_mac: bytes,
    sender: ipaddress.IPv4Address,
    target_mac: bytes | None,
    target: ipaddress.IPv4Address,
) -> bytes:
    """A frame with an ARP packet; target_mac None: broadcast."""
    op = 1 if request else 2
    hardware_target = bytes(6) if target_mac is None else target_mac
    packet = _ARP.pack(1, ETHER_IPV4, 6, 4, op, sender_mac, sender.packed, hardware_target, target.packed)
    return _ethernet(target_mac or BROADCAST, sender_mac, ETHER_ARP, packet)


def multicast_mac(group: ipaddress.IPv6Address) -> bytes:
    """The Ethernet address of an IPv6 group (RFC 2464 7)."""
    return b"\x33\x33" + group.packed[12:]


def solicited_node(target: ipaddress.IPv6Address) -> ipaddress.IPv6Address:
    """The group on which a host is asked for its address (RFC 4291 2.7.1)."""
    return ipaddress.IPv6Address(b"\xff\x02" + bytes(9) + b"\x01\xff" + target.packed[13:])


def build_icmpv6(
    *,
    mac: bytes,
    destination_mac: bytes,
    source: ipaddress.IPv6Address,
    destination: ipaddress.IPv6Address,
    hop_limit: int,
    message: bytes,
) -> bytes:
    """A frame with an ICMPv6 message, whose checksum is filled in here."""
    pseudo = _pseudo(source.packed, destination.packed, len(message))
    sum_ = checksum(pseudo + message[:2] + b"\0\0" + message[4:])
    packet = struct.pack("!IHBB", 6 << 28, len(message), 58, hop_limit) + source.packed + destination.packed
    return _ethernet(
        destination_mac, mac, ETHER_IPV6, packet + message[:2] + sum_.to_bytes(2, "big") + message[4:]
    )


def build_solicit(
    *, mac: bytes, source: ipaddress.IPv6Address, target: ipaddress.IPv6Address, target_mac: bytes | None
) -> bytes:
    """A neighbour solicitation; target_mac None: to the solicited-node group."""
    group = solicited_node(target)
    message = bytes([ND_SOLICIT, 0, 0, 0, 0, 0, 0, 0]) + target.packed + b"\x01\x01" + mac
    return build_icmpv6(
        mac=mac,
        destination_mac=target_mac or multicast_mac(group),
        source=source,
        destination=group if target_mac is None else target,
        hop_limit=255,
        message=message,
    )


def build_advert(
    *,
    mac: bytes,
    target: ipaddress.IPv6Address,
    destination: ipaddress.IPv6Address | None,
    destination_mac: bytes | None,
) -> bytes:
    """A neighbour advertisement for an address of ours; destination None: to all nodes, unsolicited."""
    flags = 0x20 if destination is None else 0x60
    message = bytes([ND_ADVERT, 0, 0, 0, flags, 0, 0, 0]) + target.packed + b"\x02\x01" + mac
    to = destination or ALL_NODES
    return build_icmpv6(
        mac=mac,
        destination_mac=destination_mac or multicast_mac(ALL_NODES),
        source=target,
        destination=to,
        hop_limit=255,
        message=message,
    )


def build_echo_reply(echo: Echo, mac: bytes) -> bytes:
    """The reply to an echo request to an address of ours: the same body, back to where it came from."""
    kind = ICMP_ECHO_REPLY if echo.destination.version == 4 else ICMPV6_ECHO_REPLY
    return _build_icmp(echo, mac, bytes([kind, 0, 0, 0]) + echo.body)


def build_port_unreachable(datagram: Datagram, mac: bytes) -> bytes:
    """The answer to a UDP packet, which nobody here takes (RFC 1122 4.1.3.1, RFC 4443 3.1)."""
    head = (
        bytes([ICMP_UNREACHABLE, 3]) if datagram.destination.version == 4 else bytes([ICMPV6_UNREACHABLE, 4])
    )
    return _build_icmp(datagram, mac, head + bytes(6) + datagram.packet[:QUOTE_MAX])


def _build_icmp(about: Echo | Datagram, mac: bytes, message: bytes) -> bytes:
    """A frame back to where something came from; the message's checksum is filled in here."""
    source, destination = about.destination, about.source
    if isinstance(source, ipaddress.IPv6Address) and isinstance(destination, ipaddress.IPv6Address):
        return build_icmpv6(
            mac=mac,
            destination_mac=about.source_mac,
            source=source,
            destination=destination,
            hop_limit=64,
            message=message,
        )
    icmp = message[:2] + checksum(message).to_bytes(2, "big") + message[4:]
    head = struct.pack("!BBHHHBB", 0x45, 0, IPV4_BYTES + len(icmp), 0, 0x4000, 64, 1)
    addresses = source.packed + destination.packed
    header = head + checksum(head + b"\0\0" + addresses).to_bytes(2, "big") + addresses
    return _ethernet(about.source_mac, mac, ETHER_IPV4, header + icmp)
