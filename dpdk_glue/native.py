"""The only importer of the extension: errors, texts and addresses between Python and C."""

from __future__ import annotations

import os
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from dpdk_glue._dpdk import ffi, lib
from dpdk_glue.values import Address, GlueError

__all__ = ["address_of", "check", "ffi", "lib", "name_bytes", "pack_address", "text_of", "why"]

_MAPPED = bytes(10) + b"\xff\xff"


def why() -> Any:
    """Make room for a refusal's sentence."""
    return ffi.new("struct glue_text *")


def text_of(chars: Any) -> str:
    """Read a NUL-terminated C array of chars."""
    raw: bytes = ffi.string(chars)
    return raw.decode("utf-8", "replace")


def check(result: int, reason: Any = None) -> int:
    """Return result, or raise what it means when it is a negative errno."""
    if result >= 0:
        return result
    text = text_of(reason.text) if reason is not None else ""
    raise GlueError(-result, text or os.strerror(-result))


def name_bytes(text: str, limit: int) -> bytes:
    """Encode a name for a C array of limit bytes, or raise when it is too long."""
    raw = text.encode()
    if len(raw) >= limit or b"\0" in raw:
        raise ValueError(f"{text!r} is longer than {limit - 1} bytes or has a NUL in it")
    return raw


def pack_address(address: Address) -> bytes:
    """Return struct ip_addr: 16 bytes, IPv4 in its mapped form."""
    return _MAPPED + address.packed if isinstance(address, IPv4Address) else address.packed


def address_of(chars: Any) -> Address:
    """Read a struct ip_addr."""
    raw = bytes(ffi.buffer(chars, 16))
    return IPv4Address(raw[12:]) if raw[:12] == _MAPPED else IPv6Address(raw)
