"""Workers as processes: start, wait until all are attached, restart the fallen, replace them, stop in order.

The parent attaches nowhere, so forking it is safe.  Each worker has a socket pair with it::

    worker                      parent
      | online ------------------->|   it is attached; when all have said so:
      |<------------------------ go|   ports open only now, so that none serves if one is refused
      | serving ------------------>|
      | refused (errno, text) ---->|   the first start fails as a whole

A reload starts a second generation beside the first.  When all of it is online the first one retires: it leaves the
circle and ends with its last connection.  A generation that cannot start changes nothing.

SIGTTIN asks for one worker more, SIGTTOU for one less: the last one retires.
"""

import contextlib
import errno
import faulthandler
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from janus_tcp._native import lib
from janus_tcp.board import Board, Seen, describe
from janus_tcp.scheduler import logger

BACKOFF_FIRST_S = 0.1
BACKOFF_LAST_S = 10.0
STEADY_S = 10.0  # a worker that lived so long starts again at once
STOP_MARGIN_S = 3.0  # beyond the drain, before SIGKILL
STUCK_S = 2.0  # without a turn of the loop
LOOK_S = 1.0  # between looks at the board, when nothing happens
AGAIN_S = 0.02  # what was due has been done, and is not yet seen to have happened
RETIRE = signal.SIGUSR1  # to a worker: its successors serve
TRACEBACK = signal.SIGUSR2  # to a worker: say on stderr where you are
SCALE = {signal.SIGTTIN: 1, signal.SIGTTOU: -1}  # to the parent


class Report:
    """The worker's end of the pair."""

    def __init__(self, channel: socket.socket, board: Board, row: int, late: bool) -> None:
        self._channel = channel
        self.board = board
        self.row = row
        self.late = late  # others serve already: be ready before anything can come

    def online(self, idle: Callable[[], object] | None = None) -> None:
        """Tell the parent that all is well, and wait until the other workers have said so; idle is called meanwhile."""
        self._channel.send(b"online")
        while idle is not None and not select.select([self._channel], [], [], 0)[0]:
            idle()
        if self._channel.recv(16) != b"go":
            raise SystemExit(0)

    def announce(self) -> None:
        """online() without the wait, for one that comes late."""
        self._channel.send(b"online")

    def serving(self) -> None:
        """Tell the parent that all ports are open."""
        self._channel.send(b"serving")

    def refused(self, error: OSError) -> None:
        """Tell the parent why this worker cannot start."""
        self._channel.send(json.dumps([error.errno or errno.EIO, error.strerror or str(error)]).encode())


@dataclass
class Worker:
    """One worker process, as the parent sees it."""

    number: int
    pid: int = 0
    row: int = -1  # of the board
    channel: socket.socket | None = None
    started_s: float = 0.0
    online: bool = False
    released: bool = False  # it has been told to open its ports, or to end
    backoff_s: float = BACKOFF_FIRST_S
    retry_s: float = 0.0
    retire_by_s: float | None = None
    turns: int = 0  # at the last look, and when they had changed
    turned_s: float = 0.0
    stuck: bool = False


@dataclass
class Supervisor:
    """The parent's loop over its workers."""

    target: Callable[[Report], None]
    workers: list[Worker]
    drain_s: float
    retire_s: float = 0.0
    stats_s: float = 0.0
    successors: list[Worker] = field(default_factory=list)  # a reload that is under way
    retired: list[Worker] = field(default_factory=list)
    opened: bool = False  # all have been online once: a worker that comes later need not wait
    served: bool = False  # one has opened its ports: what refuses another may pass
    stop_asked: bool = False  # by a signal, which may come between a fork and the note of its pid
    reload_asked: bool = False
    more_asked: int = 0  # workers to start, or below 0 to retire
    stopping_s: float | None = None
    failure: OSError | None = None
    wake: list[socket.socket] = field(default_factory=list)
    board: Board = field(default_factory=Board)
    said_s: float = field(default_factory=time.monotonic)
    said: Seen = field(default_factory=Seen)

    def all(self) -> Iterator[Worker]:
        """Workers of every generation."""
        yield from [*self.workers, *self.successors, *self.retired]

    def start(self, worker: Worker) -> None:
        """Fork one worker."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        worker.row = self.board.take()
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            ours.close()
            for end in [w.channel for w in self.all() if w.channel is not None] + self.wake:
                end.close()  # a pair must break when the parent dies
            _worker_main(self.target, Report(theirs, self.board, worker.row, self.opened), parent)
        theirs.close()
        worker.pid, worker.channel, worker.online, worker.released = pid, ours, False, False
        worker.started_s = worker.turned_s = time.monotonic()
        worker.turns, worker.stuck = 0, False

    def hear(self, worker: Worker) -> None:
        """One message of a worker."""
        assert worker.channel is not None
        try:
            message = worker.channel.recv(4096)
        except ConnectionResetError:  # it ended without reading; what it said before is still there
            message = worker.channel.recv(4096)
        if message == b"online":
            worker.online = True
        elif message == b"serving":
            self.served = True
        elif message:
            code, text = json.loads(message)
            error = OSError(code, text)
            if worker in self.successors:
                self.give_up_reload(str(error))
            elif self.served:
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
        for worker in [*self.workers, *self.successors]:
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
        for worker in list(self.all()):
            if not worker.pid:
                continue
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid == 0:
                continue
            worker.pid, worker.online = 0, False
            self.board.give(worker.row)
            code = os.waitstatus_to_exitcode(status)
            if worker in self.retired:
                self.retired.remove(worker)
                logger.info("worker %d of before the reload has ended with %s", worker.number, code)
            elif worker in self.successors:
                self.give_up_reload(f"worker {worker.number} ended with {code}")
            elif self.stopping_s is None and not self.opened and code:
                text = f"worker {worker.number} ended with {code} before it served"
                self.failure = ChildProcessError(errno.ECHILD, text)
                self.stop()
            elif self.stopping_s is None:
                self._back_off(worker, code)

    def _back_off(self, worker: Worker, code: int) -> None:
        lived_s = time.monotonic() - worker.started_s
        worker.backoff_s = (
            BACKOFF_FIRST_S if lived_s > STEADY_S else min(worker.backoff_s * 2, BACKOFF_LAST_S)
        )
        worker.retry_s = time.monotonic() + worker.backoff_s
        logger.warning("worker %d ended with %s; restart in %.1f s", worker.number, code, worker.backoff_s)

    # --- reloading ---

    def reload(self) -> None:
        """Start a second generation; while one is under way, later."""
        if not self.opened or self.successors:
            return  # asked again when that is over
        self.reload_asked = False
        logger.info("reload: starting %d new workers", len(self.workers))
        self.successors = [Worker(worker.number) for worker in self.workers]
        for worker in self.successors:
            self.start(worker)

    def give_up_reload(self, reason: str) -> None:
        """The second generation cannot live: the first goes on as if nothing had been."""
        logger.error("reload failed, the former workers go on: %s", reason)
        failed, self.successors = self.successors, []
        for worker in failed:
            self._end(worker)
            if worker.pid:
                worker.retire_by_s = time.monotonic() + STOP_MARGIN_S
                self.retired.append(worker)

    def replace(self) -> None:
        """Once the whole second generation is online, the first retires."""
        if not self.successors or not all(worker.online for worker in self.successors):
            return
        former, self.workers, self.successors = self.workers, self.successors, []
        logger.info("reload: the new workers serve, the former ones retire")
        for worker in former:
            self._retire(worker)

    def _retire(self, worker: Worker) -> None:
        """It leaves the circle and ends with its last connection."""
        if worker.pid:
            worker.retire_by_s = time.monotonic() + self.retire_s + STOP_MARGIN_S
            self.retired.append(worker)
            os.kill(worker.pid, RETIRE if worker.released else signal.SIGTERM)

    # --- scaling ---

    def rescale(self) -> None:
        """One worker more, or one less, but never none."""
        if not self.more_asked or not self.opened or self.successors:
            return
        if self.more_asked > 0:
            self.more_asked -= 1
            self.workers.append(Worker(1 + max(worker.number for worker in self.workers)))
            logger.info("scale: %d workers", len(self.workers))
            self.start(self.workers[-1])
            return
        self.more_asked += 1
        if len(self.workers) > 1:
            self._retire(self.workers.pop())
            logger.info("scale: %d workers", len(self.workers))

    # --- watching ---

    def watch(self, now_s: float) -> None:
        """Name a worker whose loop does not turn; have it say where it is."""
        for worker in self.all():
            turns = self.board.read(worker.row).turns if worker.pid else 0
            if turns != worker.turns or not worker.online:
                if worker.stuck:
                    logger.warning("worker %d goes on after %.1f s", worker.number, now_s - worker.turned_s)
                worker.turns, worker.turned_s, worker.stuck = turns, now_s, False
            elif turns and not worker.stuck and now_s - worker.turned_s > STUCK_S:
                worker.stuck = True
                logger.warning(
                    "worker %d (process %d) has not turned its loop for %.1f s: a handler does not come back",
                    worker.number,
                    worker.pid,
                    now_s - worker.turned_s,
                )
                os.kill(worker.pid, TRACEBACK)

    def say(self, now_s: float) -> None:
        """Every stats_s seconds a line about all workers."""
        if not self.stats_s or now_s < self.said_s + self.stats_s:
            return
        alive = [worker for worker in self.all() if worker.pid]
        now = sum((self.board.read(worker.row) for worker in alive), Seen())
        logger.info("%s", describe(len(alive), now, self.said, now_s - self.said_s))
        self.said, self.said_s = now, now_s

    # --- stopping ---

    def _end(self, worker: Worker) -> None:
        self._tell(worker, b"end")
        if worker.pid:
            os.kill(worker.pid, signal.SIGTERM)

    def stop(self) -> None:
        """Ask all workers to drain and end."""
        if self.stopping_s is None:
            self.stopping_s = time.monotonic()
            for worker in self.all():
                self._end(worker)

    def kill(self, number: int) -> None:
        """Send a signal to all workers."""
        for worker in self.all():
            if worker.pid:
                os.kill(worker.pid, number)

    def _wait_s(self) -> float:
        """How long nothing is due: signals, ends of workers and their messages wake select()."""
        now_s = time.monotonic()
        due = [now_s + LOOK_S]
        if self.stopping_s is not None:
            due.append(self.stopping_s + self.drain_s + STOP_MARGIN_S)
        else:
            if self.opened and not self.successors and (self.reload_asked or self.more_asked):
                return 0.0  # put off while a reload was under way, or one of many
            due += [worker.retry_s for worker in self.workers if not worker.pid]
            due += [w.retire_by_s for w in self.retired if w.retire_by_s is not None]
            if self.stats_s:
                due.append(self.said_s + self.stats_s)
        return max(AGAIN_S, min(due) - now_s)

    def step(self) -> None:
        """Wait for something to happen, and act on it."""
        channels = {w.channel: w for w in self.all() if w.channel is not None}
        readable, _, _ = select.select([*channels, *self.wake], [], [], self._wait_s())
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
        if self.reload_asked:
            self.reload()
        self.replace()
        self.rescale()
        self.watch(now_s)
        self.say(now_s)
        for worker in self.workers:
            if not worker.pid and now_s >= worker.retry_s:
                self.start(worker)
        for worker in self.retired:
            if worker.pid and worker.retire_by_s is not None and now_s > worker.retire_by_s:
                os.kill(worker.pid, signal.SIGKILL)

    def ask(self, number: int, *_: object) -> None:
        """A signal handler."""
        if number == signal.SIGHUP:
            self.reload_asked = True
        elif number in SCALE:
            self.more_asked += SCALE[signal.Signals(number)]
        else:
            self.stop_asked = True


def _worker_main(target: Callable[[Report], None], report: Report, parent: int) -> None:
    """The child's life; never returns."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGHUP, *SCALE):  # a terminal's; these are the parent's business
            signal.signal(number, signal.SIG_IGN)
        with contextlib.suppress(ValueError, OSError, RuntimeError):  # stderr is no file
            faulthandler.register(TRACEBACK, all_threads=False)
        lib.face_end_with_parent()
        if os.getppid() != parent:
            raise SystemExit(1)  # it died before the line above
        target(report)
        code = 0
    except SystemExit as error:
        if error.code and not isinstance(error.code, int):
            logger.error("%s", error.code)
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except OSError as error:
        report.refused(error)
    except BaseException:
        logger.exception("a worker failed")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def supervise(
    count: int,
    target: Callable[[Report], None],
    drain_s: float,
    *,
    retire_s: float = 0.0,
    stats_s: float = 0.0,
) -> None:
    """Run count workers until SIGTERM or SIGINT; SIGHUP replaces them, SCALE adds or retires one.

    Raises the OSError that keeps them from starting.
    """
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    supervisor = Supervisor(
        target, [Worker(n) for n in range(count)], drain_s, retire_s, stats_s, wake=[ours]
    )
    before_fd = signal.set_wakeup_fd(theirs.fileno())
    heard = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, *SCALE)
    before = {n: signal.signal(n, supervisor.ask) for n in heard}
    before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        for worker in supervisor.workers:
            supervisor.start(worker)
        while supervisor.stopping_s is None or any(w.pid for w in supervisor.all()):
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
