"""The messages on the attach socket as values, and their bytes: the twin of sdk/shm/attach.h.

Host byte order, fixed layouts. Decoding never trusts: another length, another type or a byte that must be
zero and is not gives None, and the caller ends the session.
"""

from __future__ import annotations

import enum
import ipaddress
import re
import struct
from dataclasses import dataclass

from dpdk_glue.values import RowLayout
from janusd.config import APP_NAME, IpAddress

MAGIC = 0x4A414E55
ABI_MAJOR, ABI_MINOR = 2, 2
APP_NAME_BYTES = 32
TEXT_BYTES = 224
ADDRESSES_MAX = 16
TOKEN_BYTES = 16
CSB_HASHES_MAX = 4096  # of one LIST
MESSAGE_MAX = (
    16 + 8 * CSB_HASHES_MAX + 8
)  # longer than any: a longer message is cut and so has a wrong length


class AttachType(enum.IntEnum):
    """enum attach_type."""

    HELLO = 1
    WELCOME = 2
    REFUSED = 3
    MAPPED = 4
    READY = 5
    LISTEN = 6
    UNLISTEN = 7
    ONLINE = 8
    BYE = 9
    REPLY = 10
    LEAVE = 11
    CSB_BEGIN = 12
    CSB_CHECK = 13
    CSB_ABORT = 14
    CSB_VIEW = 15
    CSB_LIST = 16
    CSB_DONE = 17


class AttachStatus(enum.IntEnum):
    """enum attach_status."""

    OK = 0
    BAD_MESSAGE = 1
    ABI_MISMATCH = 2
    NOT_ALLOWED = 3
    QUOTA = 4
    NO_MEMORY = 5
    ADDRESS_NOT_LEASED = 6
    PORT_NOT_LEASED = 7
    PORT_TAKEN = 8
    BAD_TOKEN = 9
    SHUTTING_DOWN = 10
    BUSY = 11


@dataclass(frozen=True)
class Sizes:
    """struct shm_sizes."""

    io_count: int
    rx_slots_per_io: int
    tx_slots: int
    rows: int
    row_stride: int


@dataclass(frozen=True)
class Hello:
    """struct attach_hello; sizes of 0 ask for as much as the policy gives."""

    abi_major: int
    abi_minor: int
    app: str
    resume: bytes | None  # the token of the session to go on with
    rows: int
    rx_slots_per_io: int
    tx_slots: int
    row: RowLayout


@dataclass(frozen=True)
class Welcome:
    """struct attach_welcome."""

    tid: int
    generation: int
    sizes: Sizes
    token: bytes
    source_ports: tuple[int, int]
    mtu: int
    tx_checksum_offload: bool
    addresses: tuple[IpAddress, ...]


@dataclass(frozen=True)
class Plain:
    """struct attach_plain: MAPPED, READY, ONLINE, LEAVE, BYE."""

    type: AttachType
    seq: int
    generation: int


@dataclass(frozen=True)
class Listen:
    """struct attach_listen; address None: every address of the lease; on False: UNLISTEN."""

    on: bool
    seq: int
    address: IpAddress | None
    port: int


@dataclass(frozen=True)
class CsbList:
    """struct attach_csb_list: flows that the thread has and an update concerns."""

    attempt: int
    hashes: bytes  # of uint64_t


@dataclass(frozen=True)
class CsbDone:
    """struct attach_csb as the app sends it: the phase is done, 0: it cannot be."""

    attempt: int
    phase: int


Control = Plain | Listen | CsbList | CsbDone

_ROW = ("stride", "state", "raddr", "rport", "lport", "laddr_index", "snd_nxt", "rcv_nxt")
_HELLO = struct.Struct(f"=II HHHH {APP_NAME_BYTES}s {TOKEN_BYTES}s IIII 8H")
_WELCOME = struct.Struct(f"=II HHHH I 5I {TOKEN_BYTES}s HHHH {ADDRESSES_MAX * 16}s")
_REFUSED = struct.Struct(f"=II {TEXT_BYTES}s")
_PLAIN = struct.Struct("=IIII")
_LISTEN = struct.Struct("=II 16s HHHH")
_REPLY = struct.Struct(f"=IIII {TEXT_BYTES}s")
_CSB = struct.Struct("=II QQQ")
_CSB_LIST = struct.Struct("=II Q")

_CSB_TYPES = tuple(struct.pack("=I", type_) for type_ in (AttachType.CSB_LIST, AttachType.CSB_DONE))

STRUCT_BYTES = {
    "attach_hello": _HELLO.size,
    "attach_welcome": _WELCOME.size,
    "attach_refused": _REFUSED.size,
    "attach_plain": _PLAIN.size,
    "attach_listen": _LISTEN.size,
    "attach_reply": _REPLY.size,
    "attach_csb": _CSB.size,
    "attach_csb_list": _CSB_LIST.size + 8 * CSB_HASHES_MAX,
}


def address_bytes(address: IpAddress) -> bytes:
    """struct ip_addr: an IPv4 address in its IPv4-mapped form (RFC 4291 2.5.5.2)."""
    if isinstance(address, ipaddress.IPv4Address):
        return bytes(10) + b"\xff\xff" + address.packed
    return address.packed


def address_from_bytes(data: bytes) -> IpAddress:
    """The address of a struct ip_addr."""
    address = ipaddress.IPv6Address(data)
    return address.ipv4_mapped or address


def _text_bytes(text: str) -> bytes:
    """At most TEXT_BYTES - 1 bytes of UTF-8, cut between characters; struct adds the zero bytes."""
    return text.encode()[: TEXT_BYTES - 1].decode(errors="ignore").encode()


def decode_hello(data: bytes) -> Hello | None:
    """A HELLO, whatever its ABI version says; None: not a HELLO of this layout."""
    if len(data) != _HELLO.size:
        return None
    type_, magic, major, minor, resume, reserved, name, token, rows, rx, tx, reserved2, *row = _HELLO.unpack(
        data
    )
    app, zero, rest = name.partition(b"\0")
    if (
        type_ != AttachType.HELLO
        or magic != MAGIC
        or resume > 1
        or reserved
        or reserved2
        or not zero
        or rest.strip(b"\0")
    ):
        return None
    if not re.fullmatch(APP_NAME.encode(), app):
        return None
    return Hello(
        major,
        minor,
        app.decode(),
        token if resume else None,
        rows,
        rx,
        tx,
        RowLayout(**dict(zip(_ROW, row, strict=True))),
    )


def _decode_csb(data: bytes) -> CsbList | CsbDone | None:
    if len(data) == _CSB.size:
        type_, phase, attempt, size, ios = _CSB.unpack(data)
        if type_ == AttachType.CSB_DONE and not (size or ios):
            return CsbDone(attempt, phase)
    if len(data) > _CSB_LIST.size:
        type_, count, attempt = _CSB_LIST.unpack_from(data)
        if (
            type_ == AttachType.CSB_LIST
            and count <= CSB_HASHES_MAX
            and len(data) == _CSB_LIST.size + 8 * count
        ):
            return CsbList(attempt, data[_CSB_LIST.size :])
    return None


def decode_control(data: bytes) -> Control | None:
    """A message that an app may send after HELLO; None: there is none such."""
    if data[:4] in _CSB_TYPES:
        return _decode_csb(data)
    if len(data) == _PLAIN.size:
        type_, seq, generation, reserved = _PLAIN.unpack(data)
        if type_ in (AttachType.MAPPED, AttachType.ONLINE, AttachType.LEAVE, AttachType.BYE) and not reserved:
            return Plain(AttachType(type_), seq, generation)
    elif len(data) == _LISTEN.size:
        type_, seq, address, port, *reserved = _LISTEN.unpack(data)
        if type_ in (AttachType.LISTEN, AttachType.UNLISTEN) and not any(reserved):
            any_address = not any(address)
            return Listen(
                type_ == AttachType.LISTEN, seq, None if any_address else address_from_bytes(address), port
            )
    return None


def encode_welcome(welcome: Welcome) -> bytes:
    """The bytes of WELCOME."""
    sizes = welcome.sizes
    return _WELCOME.pack(
        AttachType.WELCOME, MAGIC, ABI_MAJOR, ABI_MINOR, welcome.tid, len(welcome.addresses),
        welcome.generation, sizes.io_count, sizes.rx_slots_per_io, sizes.tx_slots, sizes.rows,
        sizes.row_stride, welcome.token, *welcome.source_ports, welcome.mtu,
        int(welcome.tx_checksum_offload), b"".join(address_bytes(address) for address in welcome.addresses),
    )  # fmt: skip


def encode_refused(status: AttachStatus, text: str) -> bytes:
    """The bytes of REFUSED."""
    return _REFUSED.pack(AttachType.REFUSED, status, _text_bytes(text))


def encode_ready(generation: int) -> bytes:
    """The bytes of READY."""
    return _PLAIN.pack(AttachType.READY, 0, generation, 0)


def encode_csb(type_: AttachType, attempt: int, *, phase: int = 0, size: int = 0, ios: int = 0) -> bytes:
    """The bytes of CSB_BEGIN, CSB_CHECK, CSB_ABORT or CSB_VIEW; all but ABORT go with a descriptor."""
    return _CSB.pack(type_, phase, attempt, size, ios)


def encode_reply(seq: int, status: AttachStatus, text: str = "") -> bytes:
    """The bytes of REPLY."""
    return _REPLY.pack(AttachType.REPLY, seq, status, 0, _text_bytes(text))
