"""asyncio programs as workers of a parent that reloads them: what the loop of a worker tells and is told.

A worker says that it is online when its first server starts.  When its successors serve it leaves the circle, goes on
with the connections that it has, and ends with the last of them by SIGTERM, as its program knows to end.
"""

import os
import signal
import time
from typing import TYPE_CHECKING

from janus_tcp._native import ffi, lib
from janus_tcp.asyncio_types import Poller
from janus_tcp.workers import RETIRE, Report

if TYPE_CHECKING:
    from janus_tcp.asyncio_loop import JanusEventLoop

LOOK_S = 0.25


class Membership:
    """One worker's, made in its process and told of by the first loop that serves there."""

    def __init__(self, report: Report, retire_s: float) -> None:
        self._report = report
        self._retire_s = retire_s
        self._serving: tuple[JanusEventLoop, Poller] | None = None
        self._end_s = 0.0
        signal.signal(RETIRE, self._asked)

    def starting(self, loop: "JanusEventLoop", stack: Poller) -> None:
        """The loop is about to open its first port.  Workers that start together wait for each other here."""
        if self._serving is not None:
            return
        self._serving = loop, stack
        if not self._report.late:
            self._report.online()
        loop.call_soon(self._opened)

    def _opened(self) -> None:
        if self._report.late:
            self._report.announce()
        self._report.serving()

    def _asked(self, *_: object) -> None:
        if self._serving is not None:
            self._serving[0].call_soon_threadsafe(self._leave)

    def _leave(self) -> None:
        assert self._serving is not None
        loop, stack = self._serving
        self._end_s = time.monotonic() + self._retire_s
        lib.thread_leave(ffi.cast("struct janus_thread *", stack.thread))
        loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        assert self._serving is not None
        loop, stack = self._serving
        left = lib.thread_has_left(ffi.cast("struct janus_thread *", stack.thread))
        if (left and not stack.open) or time.monotonic() > self._end_s:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            loop.call_later(LOOK_S, self._look)


__all__ = ["Membership"]
