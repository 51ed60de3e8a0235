"""Workers as processes: start, wait until all are online, restart the fallen, stop in order.

The parent attaches nowhere, so forking it is safe.  Each worker has a socket pair with it::

    worker                      parent
      | online ------------------->|   when all have said so:
      |<------------------------ go|   ports open only now: no connection's way changes
      | refused (errno, text) ---->|   the first start fails as a whole
"""

import contextlib
import errno
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from janus_tcp._native import lib
from janus_tcp.scheduler import logger

BACKOFF_FIRST_S = 0.1
BACKOFF_LAST_S = 10.0
STEADY_S = 10.0  # a worker that lived so long starts again at once
STOP_MARGIN_S = 3.0  # beyond the drain, before SIGKILL


class Report:
    """The worker's end of the pair."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def online(self) -> None:
        """Tell the parent, and wait until all workers are online."""
        self._channel.send(b"online")
        if self._channel.recv(16) != b"go":
            raise SystemExit(0)

    def refused(self, error: OSError) -> None:
        """Tell the parent why this worker cannot start."""
        self._channel.send(json.dumps([error.errno or errno.EIO, error.strerror or str(error)]).encode())


@dataclass
class Worker:
    """One worker process, as the parent sees it."""

    number: int
    pid: int = 0
    channel: socket.socket | None = None
    started_s: float = 0.0
    online: bool = False
    released: bool = False  # it has been told to open its ports, or to end
    backoff_s: float = BACKOFF_FIRST_S
    retry_s: float = 0.0


@dataclass
class Supervisor:
    """The parent's loop over its workers."""

    target: Callable[[Report], None]
    workers: list[Worker]
    drain_s: float
    opened: bool = False  # all have been online once: a worker that comes later need not wait
    stop_asked: bool = False  # by a signal, which may come between a fork and the note of its pid
    stopping_s: float | None = None
    failure: OSError | None = None
    wake: list[socket.socket] = field(default_factory=list)

    def start(self, worker: Worker) -> None:
        """Fork one worker."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            ours.close()
            for end in [w.channel for w in self.workers if w.channel is not None] + self.wake:
                end.close()  # a pair must break when the parent dies
            _worker_main(self.target, Report(theirs), parent)
        theirs.close()
        worker.pid, worker.channel, worker.online, worker.released = pid, ours, False, False
        worker.started_s = time.monotonic()

    def hear(self, worker: Worker) -> None:
        """One message of a worker."""
        assert worker.channel is not None
        try:
            message = worker.channel.recv(4096)
        except ConnectionResetError:  # it ended without reading; what it said before is still there
            message = worker.channel.recv(4096)
        if message == b"online":
            worker.online = True
        elif message:
            code, text = json.loads(message)
            error = OSError(code, text)
            if self.opened:
                logger.error("worker %d cannot start: %s", worker.number, error)
            elif self.failure is None:
                self.failure = error
                self.stop()
        else:
            worker.channel.close()
            worker.channel = None

    def release(self) -> None:
        """Let the workers that are online open their ports, once all are."""
        self.opened = self.opened or all(w.online for w in self.workers)
        for worker in self.workers:
            if self.opened and worker.online:
                self._tell(worker, b"go")

    def _tell(self, worker: Worker, word: bytes) -> None:
        if worker.channel is None or worker.released:
            return
        worker.released = True
        with contextlib.suppress(OSError):  # it is dying; reap() sees it
            worker.channel.send(word)

    def reap(self) -> None:
        """Note which workers have ended."""
        for worker in self.workers:
            if not worker.pid:
                continue
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid == 0:
                continue
            worker.pid, worker.online = 0, False
            if self.stopping_s is None:
                lived_s = time.monotonic() - worker.started_s
                worker.backoff_s = (
                    BACKOFF_FIRST_S if lived_s > STEADY_S else min(worker.backoff_s * 2, BACKOFF_LAST_S)
                )
                worker.retry_s = time.monotonic() + worker.backoff_s
                code = os.waitstatus_to_exitcode(status)
                logger.warning(
                    "worker %d ended with %s; restart in %.1f s", worker.number, code, worker.backoff_s
                )

    def stop(self) -> None:
        """Ask all workers to drain and end."""
        if self.stopping_s is None:
            self.stopping_s = time.monotonic()
            for worker in self.workers:
                self._tell(worker, b"end")
            self.kill(signal.SIGTERM)

    def kill(self, number: int) -> None:
        """Send a signal to all workers."""
        for worker in self.workers:
            if worker.pid:
                os.kill(worker.pid, number)

    def step(self) -> None:
        """Wait for something to happen, and act on it."""
        channels = {w.channel: w for w in self.workers if w.channel is not None}
        readable, _, _ = select.select([*channels, *self.wake], [], [], 0.25)
        for source in readable:
            if source in channels:
                self.hear(channels[source])
            else:
                source.recv(4096)
        self.reap()
        if self.stop_asked:
            self.stop()
        now_s = time.monotonic()
        if self.stopping_s is not None:
            if now_s > self.stopping_s + self.drain_s + STOP_MARGIN_S:
                self.kill(signal.SIGKILL)
            return
        self.release()
        for worker in self.workers:
            if not worker.pid and now_s >= worker.retry_s:
                self.start(worker)


def _worker_main(target: Callable[[Report], None], report: Report, parent: int) -> None:
    """The child's life; never returns."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        lib.face_end_with_parent()
        if os.getppid() != parent:
            raise SystemExit(1)  # it died before the line above
        target(report)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except OSError as error:
        report.refused(error)
    except BaseException:
        logger.exception("a worker failed")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def supervise(count: int, target: Callable[[Report], None], drain_s: float) -> None:
    """Run count workers until SIGTERM or SIGINT.  Raises the OSError that keeps them from starting."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    supervisor = Supervisor(target, [Worker(n) for n in range(count)], drain_s, wake=[ours])
    before_fd = signal.set_wakeup_fd(theirs.fileno())

    def ask(*_: object) -> None:
        supervisor.stop_asked = True

    before = {n: signal.signal(n, ask) for n in (signal.SIGTERM, signal.SIGINT)}
    before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        for worker in supervisor.workers:
            supervisor.start(worker)
        while supervisor.stopping_s is None or any(w.pid for w in supervisor.workers):
            supervisor.step()
    finally:
        supervisor.kill(signal.SIGKILL)
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before_fd)
        ours.close()
        theirs.close()
    if supervisor.failure is not None:
        raise supervisor.failure
