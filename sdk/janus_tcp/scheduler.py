"""One loop under Python: attaching, turning it until something has happened, stopping it in order."""

import logging
import os
from collections.abc import Callable, Coroutine
from typing import Any

from janus_tcp._native import (
    CancelledError,
    Connection,
    Loop,
    Task,
    ffi,
    lib,
    raise_error,
    set_error_handler,
    set_slow_handler,
)
from janus_tcp.addresses import pack, resolve, unpack
from janus_tcp.c_handlers import CHandler
from janus_tcp.tasks import running_loop

Handler = Callable[[Connection], Coroutine[Any, Any, object]]

logger: logging.Logger = logging.getLogger("janus_tcp")

DEFAULT_SOCKET = "/run/janus/attach.sock"
LEAVE_US = 4_000_000  # janusd answers in 3 s at most
TURN_US = 250_000  # the longest sleep in C: signals are looked at in between


def report(owner: object, error: BaseException) -> None:
    """What nobody caught: a peer that goes away is a line, anything else a traceback."""
    where = "a task"
    if isinstance(owner, Connection):
        where = "a handler" if owner.closed else f"the handler of {owner.peername}"
    if isinstance(error, (ConnectionError, TimeoutError)):
        logger.info("%s ended: %s: %s", where, type(error).__name__, error)
    else:
        logger.error("%s failed", where, exc_info=error)


def report_slow(owner: object, code: object, seconds: float) -> None:
    """Somebody has kept the loop: all other connections, timers and acknowledgements have waited."""
    name = getattr(code, "__qualname__", None) or repr(code)
    frame = getattr(code, "cr_frame", None)
    where = f" ({frame.f_code.co_filename}:{frame.f_lineno})" if frame is not None else ""
    if isinstance(owner, Connection) and not owner.closed:
        where += f" with {owner.peername}"
    logger.warning("%s%s kept its worker's loop for %.3f s", name, where, seconds)


def open_thread(
    app: str | None = None,
    *,
    socket: str | None = None,
    connections: int = 0,
    rx_slots: int = 0,
    tx_slots: int = 0,
    recv_buffer: int = 0,
    send_buffer: int = 0,
) -> int:
    """Attach to janusd as one TCP thread of app; zeros mean the policy's or the stack's defaults."""
    name = ffi.new("char[]", (app or os.environ.get("JANUS_APP") or "default").encode())
    path = ffi.new("char[]", (socket or os.environ.get("JANUS_SOCKET") or DEFAULT_SOCKET).encode())
    options = ffi.new(
        "struct janus_options *",
        {
            "app": name,
            "socket_path": path,
            "rows": connections,
            "rx_slots": rx_slots,
            "tx_slots": tx_slots,
            "rcv_buf_bytes": recv_buffer,
            "snd_buf_bytes": send_buffer,
        },
    )
    error = ffi.new("struct janus_error *")
    thread = lib.thread_open(options, error)
    if thread == ffi.NULL:
        raise_error(error)
    return int(ffi.cast("uintptr_t", thread))


def open_loop(app: str | None = None, *, slow_s: float = 0.1, **limits: Any) -> Loop:
    """open_thread() under a Loop.  Who keeps it for slow_s seconds is named in the log, with 0 nobody is."""
    set_error_handler(report)
    set_slow_handler(report_slow)
    return Loop(open_thread(app, **limits), slow_ms=int(slow_s * 1000))


def turn(loop: Loop, timeout_us: int = TURN_US) -> int:
    """One batch; returns how much there was to do."""
    work: int = lib.loop_run(loop.handle, timeout_us)
    if work < 0:
        fatal = loop.take_fatal()
        if fatal is not None:
            raise fatal
    return work


def run_until_complete(loop: Loop, coro: Coroutine[Any, Any, Any]) -> Any:
    """Turn the loop until coro has ended; its result or exception."""
    task: Task[Any] = loop.spawn(coro)
    while not task.done():
        turn(loop)
    return result_of(task)


def result_of(task: Task[Any]) -> Any:
    """What a task that has ended returned or raised."""
    error = task.exception()
    if error is not None:
        raise error
    waiter = task.__await__()
    try:
        next(waiter)
    except StopIteration as stop:
        return stop.value
    raise RuntimeError("the task has not ended")


def stats(loop: Loop) -> dict[str, Any]:
    """What the thread counts: ``tcp`` (with ``dropped`` by reason), ``usage``, and its own numbers."""
    filled = ffi.new("struct janus_stats *")
    lib.thread_get_stats(ffi.cast("struct janus_thread *", loop.thread), filled)
    found = _as_dict(filled[0])
    dropped = found["tcp"]["dropped"]
    found["tcp"]["dropped"] = {
        ffi.string(lib.tcp_drop_name(i)).decode(): n for i, n in enumerate(dropped) if i
    }
    return found


def _as_dict(value: Any) -> dict[str, Any]:
    fields = {}
    for name, field in ffi.typeof(value).fields:
        item = getattr(value, name)
        if field.type.kind == "struct":
            item = _as_dict(item)
        elif field.type.kind == "array":
            item = list(item)
        fields[name] = item
    return fields


def local_addresses(loop: Loop) -> list[str]:
    """The addresses of the lease."""
    found = ffi.new("struct ip_addr[16]")
    count = lib.thread_addresses(ffi.cast("struct janus_thread *", loop.thread), found, 16)
    return [unpack(bytes(ffi.buffer(found[i].b))) for i in range(min(count, 16))]


class Watch:
    """Says in the log when janusd goes and comes back, and what keeps it away."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._attached = True
        self._said = ""

    def look(self) -> None:
        """Compare with the last look; cheap."""
        if self._loop.attached:
            if not self._attached:
                logger.warning("attached to janusd again")
            self._attached = True
            return
        if self._attached:
            self._attached, self._said = False, ""
            logger.warning("janusd is away; connections go on, attaching again")
        error = ffi.new("struct janus_error *")
        lib.thread_attached(ffi.cast("struct janus_thread *", self._loop.thread), error)
        text = ffi.string(error.text).decode(errors="replace")
        if text and text != self._said:
            self._said = text
            logger.warning("%s", text)


def leave(loop: Loop, hurry: Callable[[], bool] = lambda: False) -> None:
    """Let new connections go to the app's other threads; what is half open here completes."""
    loop.leave()
    end_us = loop.clock_us + LEAVE_US
    while not hurry() and loop.clock_us < end_us:
        turn(loop, 10_000)
        if loop.has_left() and not stats(loop)["usage"]["half_open"]:
            return


def drain(loop: Loop, seconds: float, hurry: Callable[[], bool] = lambda: False) -> None:
    """Let handlers end by themselves, cancel those that have not after seconds, close after the last FIN.

    hurry() ends the first wait.
    """
    end_us = loop.clock_us + int(seconds * 1e6)
    while (loop.handlers or loop.tasks) and loop.clock_us < end_us and not hurry():
        turn(loop, min(TURN_US, max(end_us - loop.clock_us, 0)))
    if loop.handlers or loop.tasks:
        logger.info(
            "cancelling %d handlers and tasks that did not end within %g s",
            loop.handlers + loop.tasks,
            seconds,
        )
        loop.cancel_all()
    end_us = loop.clock_us + 1_000_000
    while (loop.handlers or loop.tasks or stats(loop)["usage"]["conns"]) and loop.clock_us < end_us:
        turn(loop, 10_000)
    if loop.handlers or loop.tasks:
        logger.warning("%d handlers and tasks did not end when cancelled", loop.handlers + loop.tasks)
    loop.close()


class Listener:
    """A port that is listened on; listen() makes it and raises what keeps it from that.

    close() stops accepting, connections go on.

    >>> with Pair() as pair:
    ...     listener = pair.serve(echo, port=7)
    ...     listener.port, listener.closed
    (7, False)
    """

    def __init__(self, loop: Loop, address: bytes | None, port: int) -> None:
        self._loop = loop
        self._address = address
        self.port = port
        self.closed: bool = False

    def close(self) -> None:
        """Stop accepting; harmless when it is closed.  Raises OSError when janusd cannot be told.

        >>> with Pair() as pair:
        ...     listener = pair.serve(echo, port=7)
        ...     listener.close()
        ...     listener.closed
        True
        """
        if not self.closed:
            self.closed = True
            self._loop.unlisten(self._address, self.port)


def listen(
    handle: Handler,
    port: int,
    host: str | None = None,
    *,
    congestion: str | None = None,
    dscp: int | None = None,
    ttl: int | None = None,
) -> Listener:
    """Accept connections on port and run ``handle(connection)`` for each; host None: every address.

    congestion names the congestion control of what is sent on them, "cubic", "newreno", "dctcp" or
    "bbr"; None: the app's.  dscp and ttl are what set_dscp() and set_ttl() of its connections would set, from the
    SYN-ACK on.

    Raises OSError: EADDRINUSE, EADDRNOTAVAIL, EACCES with janusd's reason; ValueError for a port, a
    congestion control, a dscp or a ttl that is none.

    >>> async def client(conn):
    ...     listener = janus_tcp.listen(echo, 8080)
    ...     listener.close()
    ...     return listener.closed
    >>> talk(echo, client)
    True
    """
    return listen_on(running_loop(), handle, port, host, congestion, dscp, ttl)


def listen_on(
    loop: Loop,
    handle: Handler | CHandler,
    port: int,
    host: str | None = None,
    congestion: str | None = None,
    dscp: int | None = None,
    ttl: int | None = None,
) -> Listener:
    """listen() on a loop that need not run."""
    if not 1 <= port <= 65535:
        raise ValueError(f"port {port} is not one of 1 to 65535")
    address = pack(host)
    if isinstance(handle, CHandler):
        if (congestion, dscp, ttl) != (None, None, None):
            raise ValueError("the settings of a C handler's service are the app's")
        loop.listen_c(address, port, handle.address, handle.accept, handle.flags)
    else:
        loop.listen(address, port, handle, congestion, dscp, ttl)
    return Listener(loop, address, port)


async def connect(host: str, port: int, *, local_host: str | None = None, local_port: int = 0) -> Connection:
    """Open a connection to host and port.

    Raises ConnectionRefusedError, TimeoutError, or OSError: EADDRNOTAVAIL when the app has no address of that
    family or no source ports.  A host name asks the system's resolver, which blocks.

    >>> async def client(conn):
    ...     host, port = conn.peername
    ...     second = await janus_tcp.connect(host, port)
    ...     await second.send(b"x")
    ...     answer = await second.recv()
    ...     second.close()
    ...     return answer
    >>> talk(echo, client)
    b'x'
    """
    connection = running_loop().connect(pack(local_host), local_port, resolve(host, port), port)
    try:
        return await connection._connected()
    except BaseException:
        connection.abort()
        raise


__all__ = ["CancelledError", "Handler", "Listener", "connect", "listen"]
