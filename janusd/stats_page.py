"""The stats page, read: what the I/O threads have counted, by port, app and thread (sdk/shm/page.h).

The page describes itself, so this reader needs the shape of its header, kinds and blocks alone. A block has
one writer; the blocks of one object, one per I/O thread, are added up here. Anyone may map the page;
reading asks nobody for anything.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import posix_ipc

MAGIC = 0x4A535431
VERSION = 1
NAME_BYTES = 32
NO_IO = 255
READ_TRIES = 100
_HEADER = struct.Struct("=10I QQ 4I")
_KIND = struct.Struct(f"={NAME_BYTES}s I 28x")
_BLOCK = struct.Struct(f"=8I {NAME_BYTES}s")
HEADER_BYTES, KIND_BYTES, BLOCK_BYTES = _HEADER.size, _KIND.size, _BLOCK.size


class StatsPageError(Exception):
    """The page is not there, or is not one that this reader understands."""


@dataclass
class Counted:
    """The counters of one object; sub is a thread's tid."""

    kind: str
    number: int
    sub: int
    name: str
    counters: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class PageInfo:
    """Whose page it is."""

    pid: int
    started_us: int


class StatsPage:
    """A mapped page."""

    def __init__(self, data: mmap.mmap | bytes) -> None:
        self._data = data
        if len(data) < HEADER_BYTES:
            raise StatsPageError("the stats page is too short to be one")
        magic, version, *_ = _HEADER.unpack_from(data)
        if magic != MAGIC or version != VERSION:
            raise StatsPageError(f"the stats page has version {version}, this reader knows {VERSION}")
        self._names: dict[int, tuple[str, Sequence[str]]] = {}

    def info(self) -> PageInfo:
        """Whose page it is."""
        fields = _HEADER.unpack_from(self._data)
        return PageInfo(fields[9], fields[10])

    def read(self) -> list[Counted]:
        """Every object's counters, in the order in which their blocks were added."""
        for _ in range(READ_TRIES):
            before = self._seq()
            if before % 2:
                continue
            try:
                counted = self._read_blocks()
            except struct.error:
                raise StatsPageError("the stats page ends within its blocks") from None
            if self._seq() == before:
                return counted
        raise StatsPageError("the stats page changes faster than it can be read")

    def _seq(self) -> int:
        return int.from_bytes(self._data[8:12], "little")

    def _read_blocks(self) -> list[Counted]:
        fields = _HEADER.unpack_from(self._data)
        kind_count, block_count, block_bytes, kinds_at, kind_bytes, blocks_at = fields[3:9]
        found: dict[tuple[int, int, int], Counted] = {}
        for index in range(block_count):
            at = blocks_at + index * block_bytes
            used, kind, number, sub, *_, name = _BLOCK.unpack_from(self._data, at)
            if not used or kind >= kind_count:
                continue
            kind_name, counter_names = self._kind(kind, kinds_at + kind * kind_bytes)
            counted = found.setdefault((kind, number, sub), Counted(kind_name, number, sub, _text(name)))
            values = struct.unpack_from(f"={len(counter_names)}Q", self._data, at + BLOCK_BYTES)
            for counter, value in zip(counter_names, values, strict=True):
                counted.counters[counter] = counted.counters.get(counter, 0) + value
        return list(found.values())

    def _kind(self, kind: int, at: int) -> tuple[str, Sequence[str]]:
        if kind not in self._names:
            name, count = _KIND.unpack_from(self._data, at)
            names_at = at + KIND_BYTES
            counters = [
                _text(self._data[names_at + i * NAME_BYTES : names_at + (i + 1) * NAME_BYTES])
                for i in range(count)
            ]
            self._names[kind] = (_text(name), counters)
        return self._names[kind]


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode(errors="replace")


def create(name: str, mode: int) -> int:
    """A file descriptor of new, empty shared memory under this name; what was there before is unlinked."""
    unlink(name)
    memory = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=mode, size=0)
    os.fchmod(memory.fd, mode)
    os.set_inheritable(memory.fd, False)
    return int(memory.fd)


def unlink(name: str) -> None:
    """Take the name away; who has mapped the page keeps it."""
    try:
        posix_ipc.unlink_shared_memory(name)
    except posix_ipc.ExistentialError:
        return


def open_page(name: str) -> StatsPage:
    """Map the page of this name, read-only."""
    try:
        memory = posix_ipc.SharedMemory(name, read_only=True)
    except posix_ipc.ExistentialError:
        raise StatsPageError(f"there is no stats page {name}: is janusd running?") from None
    except posix_ipc.PermissionsError:
        raise StatsPageError(f"the stats page {name} may not be read") from None
    try:
        return StatsPage(mmap.mmap(memory.fd, 0, prot=mmap.PROT_READ))
    except (OSError, ValueError) as error:
        raise StatsPageError(f"the stats page {name} cannot be mapped: {error}") from error
    finally:
        memory.close_fd()
