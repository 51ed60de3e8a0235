"""The slow path: frames that the control plane answers, and frames that it sends."""

from __future__ import annotations

from typing import Any

from dpdk_glue.native import address_of, check, ffi, lib, why
from dpdk_glue.values import SlowFrame, SlowReason


class SlowPath:
    """A bounded queue from each I/O thread, and the way back. What does not fit is dropped and counted."""

    def __init__(self, glue: Any) -> None:
        self._glue = glue
        self._frame = ffi.new("struct glue_slow_frame *")

    def recv(self) -> SlowFrame | None:
        """Return the next frame, or None."""
        frame = self._frame
        if not check(lib.glue_slow_recv(self._glue, frame)):
            return None
        reason = SlowReason(frame.reason)
        return SlowFrame(
            port=frame.port,
            reason=reason,
            next_hop=address_of(frame.next_hop) if reason is SlowReason.NEIGHBOUR else None,
            frame=bytes(ffi.buffer(frame.frame, frame.len)),
        )

    def send(self, port: int, frame: bytes) -> None:
        """Send a whole frame, Ethernet header first. GlueError ENOBUFS: the port cannot take it now."""
        reason = why()
        check(lib.glue_slow_send(self._glue, port, frame, len(frame), reason), reason)
