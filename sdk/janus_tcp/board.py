"""A page that workers write and their parent reads: is a worker alive, and what does it do.

    row of 64 bytes: turns | connections | accepted | failed | bytes in | bytes out | segments in | segments out

Each row has one writer.  The loop in C counts the turns, so a worker that does not come back from a handler shows.
"""

import mmap
import struct
from dataclasses import dataclass

from janus_tcp._native import Loop, ffi, lib

ROWS = 1024
ROW_BYTES = 64
NUMBERS = struct.Struct("8Q")


@dataclass(frozen=True)
class Seen:
    """What a worker has written."""

    turns: int = 0
    connections: int = 0
    accepted: int = 0
    failed: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    segments_in: int = 0
    segments_out: int = 0

    def __add__(self, other: "Seen") -> "Seen":
        return Seen(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


class Board:
    """The page, shared by all that are forked after it is made."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, ROWS * ROW_BYTES)
        self._taken: set[int] = set()
        self._stats = ffi.new("struct janus_stats *")

    def take(self) -> int:
        """A free row, all zero.  The parent's business."""
        row = next(row for row in range(ROWS) if row not in self._taken)
        self._taken.add(row)
        self._page[row * ROW_BYTES : (row + 1) * ROW_BYTES] = bytes(ROW_BYTES)
        return row

    def give(self, row: int) -> None:
        """The row's worker has ended."""
        self._taken.discard(row)

    def read(self, row: int) -> Seen:
        """What the row's worker has written last."""
        return Seen(*NUMBERS.unpack_from(self._page, row * ROW_BYTES))

    def watch(self, row: int, loop: Loop) -> None:
        """The worker's business: from now on the loop counts its turns in the row."""
        loop.beat(memoryview(self._page)[row * ROW_BYTES : row * ROW_BYTES + 8])

    def write(self, row: int, loop: Loop) -> None:
        """The worker's business, now and then: all but the turns."""
        # stats() would make a dict of all of them, which takes 1 ms.
        lib.thread_get_stats(ffi.cast("struct janus_thread *", loop.thread), self._stats)
        tcp = self._stats.tcp
        numbers = (
            self._stats.usage.conns,
            loop.accepted,
            loop.failed,
            tcp.bytes_received,
            tcp.bytes_sent,
            tcp.segments_received,
            tcp.segments_sent,
        )
        struct.pack_into("7Q", self._page, row * ROW_BYTES + 8, *numbers)


def describe(workers: int, now: Seen, before: Seen, seconds: float) -> str:
    """One line about all workers: connections now, the rest by second since before."""

    def rate(name: str) -> str:
        return f"{max(getattr(now, name) - getattr(before, name), 0) / seconds:,.0f}"

    return (
        f"{workers} workers, {now.connections:,} connections, {rate('accepted')} accepted/s,"
        f" {now.failed:,} handlers failed, {rate('segments_in')} segments/s in, {rate('segments_out')} out,"
        f" {rate('bytes_in')} bytes/s in, {rate('bytes_out')} out"
    )
