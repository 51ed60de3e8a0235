"""The types in C under janus_tcp.asyncio, as the rest of it sees them."""

import asyncio
from asyncio import constants
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import janus_tcp._native  # noqa: F401  the extension's types exist from here on
from janus_tcp._core import asyncio_types


class Poller(Protocol):
    """One TCP thread under a loop; see asyncio_poller.c."""

    thread: int
    open: int
    accepted: int
    clock_s: float
    slow_us: int

    def poll(self) -> int: ...
    def arm(self, timeout: float | None, /) -> float: ...
    def disarm(self) -> None: ...
    def fileno(self) -> int: ...
    def listen(
        self, address: bytes | None, port: int, factory: Callable[..., Any], server: Any, raw: bool, /
    ) -> None: ...
    def unlisten(self, address: bytes | None, port: int, /) -> None: ...
    def online(self) -> None: ...
    def connect(
        self,
        laddr: bytes | None,
        lport: int,
        raddr: bytes,
        rport: int,
        future: asyncio.Future[None],
        /,
    ) -> "Opened": ...
    def enter(self, on: bool, /) -> None: ...
    def drop(self) -> None: ...
    def close(self) -> None: ...


class Opened(Protocol):
    """A Transport, with what the loop does to it beside what asyncio.Transport has."""

    def abort(self) -> None: ...
    def close(self) -> None: ...
    def _start(self, protocol: asyncio.BaseProtocol, /) -> None: ...


make_poller: Callable[..., Poller]
Transport: Any
if TYPE_CHECKING:

    class Ready:
        """Base of the loop: its queue of Handles and its timers."""

        def _ready_is(self, ready: deque[asyncio.Handle] | None) -> None: ...
        def _ready_slow(self, slow: bool) -> None: ...
        def _run_ready(self) -> None: ...
        def _next_timer(self) -> float | None: ...
        def _queue_timers(self, end: float, /) -> None: ...
        def _take_timers(self) -> list[asyncio.TimerHandle]: ...


make_poller, _ready, Transport = asyncio_types()
if not TYPE_CHECKING:
    Ready = _ready
Transport._start_tls_compatible = True
Transport._sendfile_compatible = constants._SendfileMode.TRY_NATIVE

__all__ = ["Opened", "Poller", "Ready", "Transport", "make_poller"]
