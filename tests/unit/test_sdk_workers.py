"""Workers that are replaced, that cannot be, that get stuck, and what their parent says of them."""

import errno
import logging
import os
import signal
import time
from pathlib import Path

import janus_tcp
import pytest
from janus_tcp import workers
from janus_tcp.board import Board, Seen, describe
from janus_tcp.scheduler import stats
from janus_tcp.testing import Pair
from janus_tcp.workers import RETIRE, Report, Supervisor, supervise


def stand_by(report: Report) -> int:
    """Online, then the signal that ends the wait."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, RETIRE})
    report.online()
    return signal.sigwait({signal.SIGTERM, RETIRE})


def test_a_reload_replaces_the_workers_once_the_new_ones_are_online(tmp_path: Path) -> None:
    def target(report: Report) -> None:
        (tmp_path / f"{'late' if report.late else 'early'}-{os.getpid()}").touch()
        if len(list(tmp_path.glob("early-*"))) == 2 and not report.late:
            os.kill(os.getppid(), signal.SIGHUP)
        if stand_by(report) == RETIRE:
            assert not report.late
            assert len(list(tmp_path.glob("late-*"))) == 2, "retired before its successors were there"
            (tmp_path / f"retired-{os.getpid()}").touch()
            if len(list(tmp_path.glob("retired-*"))) == 2:
                os.kill(os.getppid(), signal.SIGTERM)

    supervise(2, target, drain_s=5, retire_s=5)
    found = sorted(path.name.split("-")[0] for path in tmp_path.iterdir())
    assert found == ["early"] * 2 + ["late"] * 2 + ["retired"] * 2


def test_a_reload_that_cannot_start_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def target(report: Report) -> None:
        if report.late:
            (tmp_path / "tried").touch()
            raise PermissionError(errno.EDQUOT, "no more threads for you")
        os.kill(os.getppid(), signal.SIGHUP)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, RETIRE})
        report.online()
        while not (tmp_path / "tried").exists():
            time.sleep(0.01)
        time.sleep(0.1)
        assert not signal.sigpending(), "the former worker was told to go"
        os.kill(os.getppid(), signal.SIGTERM)
        signal.sigwait({signal.SIGTERM})
        (tmp_path / "ended in order").touch()

    supervise(1, target, drain_s=5)
    assert (tmp_path / "ended in order").exists()
    assert "reload failed, the former workers go on: [Errno 122] no more threads for you" in caplog.text


def test_a_worker_that_does_not_retire_in_time_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "STOP_MARGIN_S", 0.3)

    def target(report: Report) -> None:
        if report.late:
            report.online()
            former = int((tmp_path / "former").read_text())
            while Path(f"/proc/{former}").exists():
                time.sleep(0.02)
            os.kill(os.getppid(), signal.SIGTERM)
            signal.pause()
        (tmp_path / "former").write_text(str(os.getpid()))
        signal.signal(RETIRE, lambda *_: None)
        os.kill(os.getppid(), signal.SIGHUP)
        report.online()
        while True:
            signal.pause()

    began = time.monotonic()
    supervise(1, target, drain_s=5, retire_s=0.1)
    assert time.monotonic() - began < 5


@pytest.mark.timeout(30)
def test_what_happens_wakes_the_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signals, the end of a worker and its restart: none waits for the next look."""
    monkeypatch.setattr(workers, "LOOK_S", 60.0)

    def started() -> int:
        return len(list(tmp_path.iterdir()))

    def target(report: Report) -> None:
        (tmp_path / str(os.getpid())).touch()
        if started() == 1:
            report.online()
            for count in (2, 3):
                os.kill(os.getppid(), signal.SIGTTIN)
                while started() < count:
                    time.sleep(0.01)
            raise SystemExit(1)
        if started() == 4:
            os.kill(os.getppid(), signal.SIGTERM)
        stand_by(report)

    began = time.monotonic()
    supervise(1, target, drain_s=5)
    assert started() == 4
    assert time.monotonic() - began < 5


def test_a_worker_that_fails_before_it_serves_ends_the_first_start() -> None:
    def target(report: Report) -> None:
        raise RuntimeError("a module that cannot be imported")

    with pytest.raises(ChildProcessError, match="ended with 1 before it served"):
        supervise(2, target, drain_s=5)


def test_a_handler_that_never_comes_back_is_noticed_from_outside(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "STUCK_S", 0.3)
    monkeypatch.setattr(workers, "LOOK_S", 0.25)

    def endless() -> None:
        end = time.monotonic() + 1.2
        while time.monotonic() < end:
            pass

    async def stuck(conn: janus_tcp.Connection) -> None:
        endless()

    async def client(host: str) -> None:
        conn = await janus_tcp.connect(host, 7)
        await conn.recv()
        conn.close()

    def target(report: Report) -> None:
        report.online()
        with Pair() as pair:
            report.board.watch(report.row, pair.server)
            pair.serve(stuck, 7)
            pair.run(client(pair.host))
            for _ in range(30):  # the parent looks four times a second here
                pair.step()
                time.sleep(0.02)
        os.kill(os.getppid(), signal.SIGTERM)
        signal.pause()

    supervise(1, target, drain_s=1)
    assert "has not turned its loop for" in caplog.text
    assert "worker 0 goes on after" in caplog.text
    assert "in endless" in capfd.readouterr().err


async def hold(conn: janus_tcp.Connection) -> None:
    await conn.recv()
    await conn.send(b"abc")
    await conn.recv()


async def ask(host: str) -> None:
    conn = await janus_tcp.connect(host, 7)
    await conn.send(b"ab")
    assert await conn.recv_exactly(3) == b"abc"
    await janus_tcp.sleep(0.1)


def test_the_board_adds_up_what_workers_write() -> None:
    board = Board()
    rows = [board.take(), board.take()]
    with Pair() as pair:
        board.watch(rows[0], pair.server)
        pair.settle()
        pair.step()
        board.write(rows[0], pair.server)
        pair.serve(hold, 7)
        task = pair.client.spawn(ask(pair.host))
        pair.run_until(task.done)
        board.write(rows[0], pair.server)
        seen, told = board.read(rows[0]), stats(pair.server)
    assert seen.turns > 0
    assert (seen.connections, seen.accepted, seen.failed) == (1, 1, 0)
    assert (seen.bytes_in, seen.bytes_out) == (2, 3)
    assert seen.segments_in == told["tcp"]["segments_received"] > 0
    assert seen.segments_out == told["tcp"]["segments_sent"] > 0
    assert board.read(rows[1]) == Seen()
    board.give(rows[0])
    assert board.take() == rows[0]
    assert board.read(rows[0]) == Seen()
    assert Seen(1, 2, 3) + Seen(4, 5, 6) == Seen(5, 7, 9)


def test_stats_are_a_line_about_all_workers(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)

    def target(report: Report) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        report.online()
        if signal.sigtimedwait({signal.SIGTERM}, 30) is None:
            os.kill(os.getppid(), signal.SIGTERM)  # no line came

    class Ending(Supervisor):
        def say(self, now_s: float) -> None:
            super().say(now_s)
            self.stop_asked = "2 workers" in caplog.text

    monkeypatch.setattr(workers, "Supervisor", Ending)
    supervise(2, target, drain_s=1, stats_s=0.01)
    assert "2 workers, 0 connections, 0 accepted/s" in caplog.text
    line = describe(3, Seen(9, 5, 300, 1, 10_000), Seen(1, 4, 100, 0, 4_000), 2.0)
    assert line.startswith("3 workers, 5 connections, 100 accepted/s, 1 handlers failed,")
    assert "3,000 bytes/s in" in line


# --- attaching ---


async def handle(conn: janus_tcp.Connection) -> None:
    await conn.recv()


def test_a_missing_janusd_is_waited_for_so_long(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    began = time.monotonic()
    with pytest.raises(FileNotFoundError, match="no janusd"):
        janus_tcp.run(handle, port=7, socket=str(tmp_path / "attach.sock"), wait_s=0.3)
    assert time.monotonic() - began >= 0.3
    assert caplog.text.count("waiting for janusd: no janusd") == 1


@pytest.mark.parametrize("count", [1, 2])
def test_a_stop_ends_the_wait(tmp_path: Path, count: int) -> None:
    child = os.fork()
    if child == 0:
        code = 9
        try:
            janus_tcp.run(handle, port=7, socket=str(tmp_path / "no.sock"), wait_s=60, workers=count)
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            os._exit(code)
    time.sleep(0.5)
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- who keeps the loop ---


def test_who_keeps_the_loop_is_named_and_for_how_long(caplog: pytest.LogCaptureFixture) -> None:
    async def slow(conn: janus_tcp.Connection) -> None:
        await conn.recv()
        time.sleep(0.15)
        await conn.send(b"late")

    async def quick(conn: janus_tcp.Connection) -> None:
        await conn.send(await conn.recv())

    async def client(host: str) -> None:
        for port in (7, 8):
            conn = await janus_tcp.connect(host, port)
            await conn.send(b"x")
            await conn.recv()
            conn.close()

    with Pair() as pair:
        pair.serve(slow, 7)
        pair.serve(quick, 8)
        pair.run(client(pair.host))
        pair.settle()
    warnings = [record.message for record in caplog.records]
    assert len(warnings) == 1
    assert "slow" in warnings[0]
    assert "kept its worker's loop for 0.1" in warnings[0]


def test_a_task_and_a_timer_that_keep_the_loop_are_named(caplog: pytest.LogCaptureFixture) -> None:
    async def busy() -> None:
        await janus_tcp.sleep(0)
        time.sleep(0.15)

    def late() -> None:
        time.sleep(0.15)

    async def client() -> None:
        timer = janus_tcp.tasks.running_loop().call_later(1, late)
        await janus_tcp.spawn(busy())
        await janus_tcp.sleep(2)
        timer.cancel()

    with Pair() as pair:
        pair.run(client())
    warnings = [record.message for record in caplog.records]
    assert len(warnings) == 2
    assert "busy" in warnings[0]
    assert "late" in warnings[1]
