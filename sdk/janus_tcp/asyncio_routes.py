"""Which addresses are Janus's and which are the kernel's, and which arguments go together; decisions only."""

import ipaddress
import os
from collections.abc import Iterable, Sequence
from typing import Any

from janus_tcp.addresses import pack, unpack

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def hosts_of(host: Any) -> list[str | None]:
    """The hosts that create_server() was given: one, several, or None for all."""
    if host is None or host == "":
        return [None]
    if isinstance(host, str):
        return [host]
    if isinstance(host, Iterable):
        return [one or None for one in host]
    return [host]


def numeric(host: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that host spells; None when it is a name."""
    try:
        return ipaddress.ip_address(host or "0.0.0.0")
    except ValueError:
        return None


def is_any(host: str | None) -> bool:
    """Every address is meant."""
    address = numeric(host)
    return address is not None and address.is_unspecified


def is_loopback(host: str | None) -> bool:
    """127.0.0.0/8 and ::1 are always the kernel's."""
    address = numeric(host)
    return address is not None and address.is_loopback


def networks(text: str | Sequence[str] | None) -> list[Network]:
    """Networks that are reached through Janus: "10.0.0.0/8, fd00::/8", or "all"; None: $JANUS_CONNECT.

    Raises ValueError for what is not a network.
    """
    if text is None:
        text = os.environ.get("JANUS_CONNECT", "")
    words = text.replace(",", " ").split() if isinstance(text, str) else list(text)
    found: list[Network] = []
    for word in words:
        if word == "all":
            found += [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
        else:
            found.append(ipaddress.ip_network(word, strict=False))
    return found


def reached(packed: bytes, through: Iterable[Network]) -> bool:
    """Whether one of the networks holds the address."""
    address = ipaddress.ip_address(unpack(packed))
    return not address.is_loopback and any(address in network for network in through)


def tls_only(context: object, **given: object) -> None:
    """ValueError, as asyncio's, for what is given and has no meaning without TLS."""
    for name, value in given.items():
        if value is not None and not context:
            raise ValueError(f"{name} is only meaningful with ssl")


__all__ = [
    "hosts_of",
    "is_any",
    "is_loopback",
    "networks",
    "numeric",
    "pack",
    "reached",
    "tls_only",
    "unpack",
]
