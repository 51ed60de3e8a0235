"""The I/O threads: start them, watch their turns."""

from __future__ import annotations

from typing import Any

from dpdk_glue.native import check, ffi, lib, why
from dpdk_glue.values import IoThreadInfo


class IoThreads:
    """The C threads that move packets. They need no Python, and survive its exceptions."""

    def __init__(self, glue: Any, count: int) -> None:
        self._glue = glue
        self.count = count

    def start(self) -> None:
        """Start them all; open the ports first."""
        reason = why()
        check(lib.glue_io_start(self._glue, reason), reason)

    def info(self, io: int) -> IoThreadInfo:
        """Return what one of them has done so far."""
        out = ffi.new("struct glue_io_info *")
        check(lib.glue_io_info(self._glue, io, out))
        return IoThreadInfo(
            turns=out.turns,
            busy_turns=out.busy_turns,
            sleeps=out.sleeps,
            busy_cycles=out.busy_cycles,
            cycles_hz=out.cycles_hz,
            cpu=None if out.cpu < 0 else out.cpu,
            running=bool(out.running),
        )
