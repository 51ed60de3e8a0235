"""The data plane as one object: ports, I/O threads, routing, apps, services, sessions, slow path.

    control plane --calls--> DataPlane --snapshots--> I/O threads --frames, events, wake_fd--> control plane

Start EAL first (dpdk_glue.eal). Calls may come from any thread; none of them blocks on an app.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Literal

from dpdk_glue.balance import Balance
from dpdk_glue.io_threads import IoThreads
from dpdk_glue.native import check, ffi, lib, why
from dpdk_glue.ports import Ports
from dpdk_glue.routing import Routing
from dpdk_glue.services import Apps, Services
from dpdk_glue.sessions import Sessions
from dpdk_glue.slow_path import SlowPath
from dpdk_glue.values import Event, EventKind


class DataPlane:
    """All that the control plane has of the data plane. One per process."""

    def __init__(
        self,
        *,
        io_threads: int = 1,
        cpus: Sequence[int] = (),
        mode: Literal["adaptive", "poll", "yield"] = "adaptive",
        mbufs: int = 0,
        stats_fd: int = -1,
    ) -> None:
        """Make it, with no ports and its I/O threads not yet started.

        stats_fd is shared memory for the stats page (sdk/shm/page.h), sized here; -1 keeps the page private.
        """
        if not 1 <= io_threads <= lib.GLUE_IO_MAX:
            raise ValueError(f"io_threads must be 1 to {lib.GLUE_IO_MAX}, not {io_threads}")
        if cpus and len(cpus) != io_threads:
            raise ValueError(f"cpus names {len(cpus)} processors for {io_threads} I/O threads")
        options = ffi.new("struct glue_options *")
        options.io_count = io_threads
        options.cpus = [*cpus, *([-1] * (lib.GLUE_IO_MAX - len(cpus)))]
        options.mode = getattr(lib, f"GLUE_MODE_{mode.upper()}")
        options.mbufs = mbufs
        options.stats_fd = stats_fd
        reason = why()
        glue = lib.glue_create(options, reason)
        if glue == ffi.NULL:
            check(-reason.code, reason)
        self._glue = glue
        self.wake_fd: int = lib.glue_wake_fd(glue)
        self.ports = Ports(glue)
        self.io_threads = IoThreads(glue, io_threads)
        self.routing = Routing(glue)
        self.apps = Apps(glue)
        self.services = Services(glue)
        self.balance = Balance(glue)
        self.sessions = Sessions(glue)
        self.slow_path = SlowPath(glue)

    def clear_wake(self) -> None:
        """Read wake_fd down. Then take slow_path.recv() and events() until they give nothing more."""
        try:
            os.read(self.wake_fd, 8)
        except BlockingIOError:
            return

    def events(self) -> Iterator[Event]:
        """Take the events that wait."""
        out = ffi.new("struct glue_event *")
        while check(lib.glue_event_next(self._glue, out)):
            yield Event(EventKind(out.kind), out.app, out.tid, out.generation)

    def close(self) -> None:
        """Stop the I/O threads and give everything back. Sessions must have been freed before. Idempotent."""
        if self._glue is not None:
            glue, self._glue = self._glue, None
            lib.glue_destroy(glue)
