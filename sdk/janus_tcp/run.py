"""run(): serve a handler, or run a coroutine to its end, as an application on janusd."""

import gc
import inspect
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from janus_tcp._native import Loop
from janus_tcp.c_handlers import CHandler, load_c
from janus_tcp.scheduler import Handler, Watch, drain, listen_on, open_loop, run_until_complete, turn
from janus_tcp.workers import Report, supervise

DRAIN_S = 5.0


class Stop:
    """Set by SIGTERM and SIGINT."""

    def __init__(self) -> None:
        self.requested = False
        self.at_once = False

    def request(self, *_: object) -> None:
        """A signal handler; the second signal wants no waiting."""
        self.at_once = self.requested
        self.requested = True


@contextmanager
def _signals(stop: Stop) -> Iterator[None]:
    """SIGTERM and SIGINT ask for a stop; only the main thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop.request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def drop_privileges(user: str | int | None, group: str | int | None) -> None:
    """Become user and group for good, supplementary groups included; nothing when both are None."""
    import grp
    import pwd

    if user is None and group is None:
        return
    entry = None
    if user is not None:
        entry = pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
    if group is not None:
        gid = grp.getgrgid(group).gr_gid if isinstance(group, int) else grp.getgrnam(group).gr_gid
    else:
        gid = entry.pw_gid if entry else os.getgid()
    if entry:
        os.initgroups(entry.pw_name, gid)
    else:
        os.setgroups([gid])
    os.setresgid(gid, gid, gid)
    if entry:
        os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)


def tune_gc() -> None:
    """What exists now is never collected, and collections of many connections are rare.

    With CPython's thresholds a full collection walks all coroutines over and over while connections open.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def _serve(
    open_: Callable[[], Loop],
    services: list[tuple[Handler | CHandler, int, str | None]],
    drain_s: float,
    report: Report | None,
) -> None:
    """One worker: attach, come online, wait for the others, listen, serve until a signal, drain."""
    stop = Stop()
    with _signals(stop):
        loop = open_()
        try:
            loop.online()
            if report is not None:
                report.online()
            listeners = [listen_on(loop, handle, port, host) for handle, port, host in services]
            tune_gc()
            watch = Watch(loop)
            while not stop.requested:
                turn(loop)
                watch.look()
            for listener in listeners:
                with suppress(OSError):  # janusd went away just now: then nobody comes anyway
                    listener.close()
            drain(loop, drain_s, lambda: stop.at_once)
        finally:
            loop.close()


def run(
    handle: Handler | str | Coroutine[Any, Any, Any],
    *,
    port: int | None = None,
    host: str | None = None,
    services: list[tuple[Handler | str, int, str | None]] | None = None,
    app: str | None = None,
    socket: str | None = None,
    workers: int = 1,
    user: str | int | None = None,
    group: str | int | None = None,
    drain_s: float = DRAIN_S,
    connections: int = 0,
    recv_buffer: int = 0,
    send_buffer: int = 0,
) -> Any:
    """Serve ``handle(connection)`` on port until SIGTERM or SIGINT; or run a coroutine and return its result.

    handle may be a handler in C, as "./handler.so:name": a function of a shared object made with janus.h.
    host None means every address of the app; services adds further (handler, port, host).  app is the name
    in janusd's policy (else $JANUS_APP, "default"), socket janusd's attach socket (else $JANUS_SOCKET,
    /run/janus/attach.sock).  With workers above 1 each worker is a process with a TCP thread of its own; one
    that dies is started again.  As root, user and group are taken on first.  After a signal handlers have
    drain_s seconds to end.  connections, recv_buffer and send_buffer (bytes) bound what one worker holds; 0
    is the policy's or the stack's default.

    Raises OSError with janusd's reason: no janusd (ENOENT, ECONNREFUSED), policy (EACCES), port taken
    (EADDRINUSE).

    >>> janus_tcp.run(echo, port=7, socket="/nowhere/attach.sock")
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] no janusd: ...
    """
    drop_privileges(user, group)

    def open_() -> Loop:
        return open_loop(
            app, socket=socket, connections=connections, recv_buffer=recv_buffer, send_buffer=send_buffer
        )

    if inspect.iscoroutine(handle):
        return _run_coroutine(open_, handle, drain_s)
    if not callable(handle) and not isinstance(handle, str):
        raise TypeError(f"run() takes an async function or a coroutine, not {type(handle).__name__}")
    wanted = list(services or [])
    if port is not None:
        wanted.insert(0, (handle, port, host))
    if not wanted:
        raise ValueError("run() wants a port to serve the handler on")
    if workers < 1:
        raise ValueError(f"workers={workers}: at least one is needed")
    loaded = [(load_c(h) if isinstance(h, str) else h, port, host) for h, port, host in wanted]
    if workers == 1:
        return _serve(open_, loaded, drain_s, None)
    return supervise(workers, lambda report: _serve(open_, loaded, drain_s, report), drain_s)


def _run_coroutine(open_: Callable[[], Loop], coro: Coroutine[Any, Any, Any], drain_s: float) -> Any:
    try:
        loop = open_()
    except BaseException:
        coro.close()
        raise
    try:
        loop.online()
        result = run_until_complete(loop, coro)
        drain(loop, drain_s)
        return result
    finally:
        loop.close()


__all__ = ["drop_privileges", "run", "tune_gc"]
