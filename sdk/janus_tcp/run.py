"""run(): serve a handler, or run a coroutine to its end, as an application on janusd."""

import gc
import inspect
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from janus_tcp._native import Loop, lib
from janus_tcp.c_handlers import CHandler
from janus_tcp.loading import load
from janus_tcp.scheduler import (
    Handler,
    Listener,
    Watch,
    drain,
    leave,
    listen_on,
    logger,
    open_loop,
    run_until_complete,
    turn,
)
from janus_tcp.workers import RETIRE, Report, supervise

DRAIN_S = 5.0
RETIRE_S = 300.0
WAIT_STEP_S = 0.2
WAIT_US = 10_000  # while others start: the loop goes on, as an update of the balancer may ask it
LOOK_US = 250_000  # between looks at janusd and the board


class Stop:
    """Set by SIGTERM and SIGINT; retiring by the parent, when successors serve."""

    def __init__(self) -> None:
        self.requested: bool = False
        self.at_once: bool = False
        self.retiring: bool = False

    def request(self, *_: object) -> None:
        """A signal handler; the second signal wants no waiting."""
        self.at_once = self.requested
        self.requested = True

    def retire(self, *_: object) -> None:
        """A signal handler."""
        self.retiring = True


@contextmanager
def _signals(stop: Stop) -> Iterator[None]:
    """SIGTERM and SIGINT ask for a stop; only the main thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted = {signal.SIGTERM: stop.request, signal.SIGINT: stop.request, RETIRE: stop.retire}
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
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
    """What exists now is never collected; young objects are walked twice, in steps of some 30 ms at most, and all of
    them after 200 million more.

    With CPython's thresholds a full collection walks all coroutines over and over while connections open.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 2000)


@dataclass(frozen=True)
class Plan:
    """What one worker is to do."""

    open: Callable[[], Loop]
    services: list[tuple[Handler | CHandler | str, int, str | None]]
    drain_s: float
    retire_s: float
    wait_s: float


def _open(plan: Plan, stop: Stop) -> Loop:
    """Attach; for wait_s seconds a janusd that is not there is waited for.  SystemExit(0): stopped meanwhile."""
    end_s = time.monotonic() + plan.wait_s
    said = False
    while True:
        try:
            return plan.open()
        except (FileNotFoundError, ConnectionRefusedError) as error:
            if time.monotonic() >= end_s:
                raise
            if not said:
                logger.info("waiting for janusd: %s", error.strerror)
            said = True
        time.sleep(WAIT_STEP_S)
        if stop.requested:
            raise SystemExit(0)


def _come_online(
    loop: Loop, services: list[tuple[Handler | CHandler, int, str | None]], report: Report | None
) -> list[Listener]:
    """Workers that start together open their ports when all are attached.  A worker is online when its ports are open,
    as it gets connections at once."""
    if report is not None and not report.late:
        report.online()
    listeners = [listen_on(loop, handle, port, host) for handle, port, host in services]
    loop.online()
    if report is not None and report.late:
        report.online(partial(turn, loop, WAIT_US))
    return listeners


def _turn_until(done: Callable[[], bool], loop: Loop, watch: Watch, report: Report | None) -> None:
    """Serve; now and then look after what is not the loop's business."""
    look_us = 0
    while not done():
        turn(loop)
        if loop.clock_us >= look_us:
            look_us = loop.clock_us + LOOK_US
            watch.look()
            if report is not None:
                report.board.write(report.row, loop)


def _serve(plan: Plan, report: Report | None) -> None:
    """One worker: attach, listen, come online, serve until a signal, leave the circle; retire or drain."""
    stop = Stop()
    with _signals(stop):
        services = [(load(h) if isinstance(h, str) else h, port, host) for h, port, host in plan.services]
        loop = _open(plan, stop)
        try:
            listeners = _come_online(loop, services, report)
            tune_gc()
            watch = Watch(loop)
            if report is not None:
                report.serving()
                report.board.watch(report.row, loop)
            _turn_until(lambda: stop.requested or stop.retiring, loop, watch, report)
            leave(loop, lambda: stop.at_once)
            if stop.retiring and not stop.requested:
                end_us = loop.clock_us + int(plan.retire_s * 1e6)
                _turn_until(
                    lambda: stop.requested or not loop.handlers or loop.clock_us >= end_us,
                    loop,
                    watch,
                    report,
                )
            for listener in listeners:
                with suppress(OSError):  # janusd went away just now: then nobody comes anyway
                    listener.close()
            drain(loop, plan.drain_s, lambda: stop.at_once)
        finally:
            loop.close()


def run(
    handle: Handler | Coroutine[Any, Any, Any] | str,
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
    retire_s: float = RETIRE_S,
    wait_s: float = 0.0,
    stats_s: float = 0.0,
    slow_s: float = 0.1,
    connections: int = 0,
    recv_buffer: int = 0,
    send_buffer: int = 0,
    huge_arenas: bool = False,
) -> Any:
    """Serve ``handle(connection)`` on port until SIGTERM or SIGINT; or run a coroutine and return its result.

    host None: every address of the app; services: further (handler, port, host); app: the name in janusd's policy
    (else $JANUS_APP, "default"); socket: janusd's (else $JANUS_SOCKET, /run/janus/attach.sock).  As root, user and
    group are taken on first.

    With workers above 1 each worker is a process with a TCP thread of its own; one that dies is started again.
    A handler by name, "module:handler", "path.py:handler", or "path.so:handler" in C (janus.h), is loaded by each
    worker, has a parent even when there is one worker, and is loaded anew on SIGHUP: new workers take over, the
    former have retire_s seconds to end with their last connection.  After SIGTERM handlers have drain_s seconds.

    wait_s: seconds that a missing janusd is waited for.  stats_s: seconds between lines about all workers in the
    log, 0: none.  slow_s: who keeps the loop for so many seconds is named in the log, 0: nobody.  connections,
    recv_buffer and send_buffer (bytes) bound what one worker holds; 0 is the policy's or the stack's default.
    huge_arenas: Python's objects lie in huge pages, which is quicker with very many connections.

    Raises OSError with janusd's reason: no janusd (ENOENT, ECONNREFUSED), policy (EACCES), port taken
    (EADDRINUSE); ValueError and TypeError for arguments that make no sense.

    >>> janus_tcp.run(echo, port=7, socket="/nowhere/attach.sock")
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] no janusd: ...
    """
    drop_privileges(user, group)
    if huge_arenas:
        lib.face_huge_arenas()

    bounds = {"connections": connections, "recv_buffer": recv_buffer, "send_buffer": send_buffer}
    open_ = partial(open_loop, app, socket=socket, slow_s=slow_s, **bounds)

    if inspect.iscoroutine(handle):
        return _run_coroutine(open_, handle, drain_s)
    if not callable(handle) and not isinstance(handle, str):
        raise TypeError(f"run() takes a function, its name or a coroutine, not {type(handle).__name__}")
    wanted = list(services or [])
    if port is not None:
        wanted.insert(0, (handle, port, host))
    if not wanted:
        raise ValueError("run() wants a port to serve the handler on")
    if workers < 1:
        raise ValueError(f"workers={workers}: at least one is needed")
    plan = Plan(open_, [*wanted], drain_s, retire_s, wait_s)
    if workers == 1 and not isinstance(handle, str):
        return _serve(plan, None)
    return supervise(
        workers, lambda report: _serve(plan, report), drain_s, retire_s=retire_s + drain_s, stats_s=stats_s
    )


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
