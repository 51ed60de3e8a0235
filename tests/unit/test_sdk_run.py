"""run(), its workers and the command line, as far as they go without janusd."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import janus_tcp
import pytest
from janus_tcp.__main__ import main
from janus_tcp.addresses import pack, resolve, unpack
from janus_tcp.loading import load
from janus_tcp.run import drop_privileges
from janus_tcp.workers import Report, supervise


async def handle(conn: janus_tcp.Connection) -> None:
    async for data in conn:
        await conn.send(data)


def test_no_janusd_is_a_clear_error(tmp_path: Path) -> None:
    missing = str(tmp_path / "attach.sock")
    with pytest.raises(
        FileNotFoundError, match=r"no janusd: .* start janusd, or name its socket in JANUS_SOCKET"
    ):
        janus_tcp.run(handle, port=7, socket=missing)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_first_start_fails_as_a_whole(tmp_path: Path, workers: int) -> None:
    with pytest.raises(FileNotFoundError, match="no janusd"):
        janus_tcp.run(handle, port=7, socket=str(tmp_path / "attach.sock"), workers=workers)


def test_a_coroutine_that_cannot_run_is_closed(tmp_path: Path) -> None:
    coro: Coroutine[Any, Any, None] = janus_tcp.tasks.TaskGroup().__aexit__(None, None, None)
    with pytest.raises(FileNotFoundError):
        janus_tcp.run(coro, socket=str(tmp_path / "attach.sock"))


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({}, ValueError, "wants a port"),
        ({"port": 7, "workers": 0}, ValueError, "at least one"),
        ({"port": 7, "user": "no-such-user-here"}, KeyError, "no-such-user-here"),
    ],
    ids=["no port", "no workers", "unknown user"],
)
def test_arguments_that_make_no_sense(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        janus_tcp.run(handle, **arguments)


def test_what_is_no_handler() -> None:
    with pytest.raises(TypeError, match="not int"):
        janus_tcp.run(5, port=7)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "packed"),
    [
        (None, None),
        ("", None),
        ("0.0.0.0", None),
        ("::", None),
        ("10.1.2.3", b"\0" * 10 + b"\xff\xff\x0a\x01\x02\x03"),
        ("::ffff:10.1.2.3", b"\0" * 10 + b"\xff\xff\x0a\x01\x02\x03"),
        ("fd77::1", b"\xfd\x77" + b"\0" * 13 + b"\1"),
    ],
)
def test_hosts(host: str | None, packed: bytes | None) -> None:
    assert pack(host) == packed
    if packed and host:
        assert unpack(packed) == host.removeprefix("::ffff:")


def test_a_host_that_names_nobody() -> None:
    with pytest.raises(ValueError, match=r"not.* appear"):
        pack("no address")
    with pytest.raises(ValueError, match="names no host"):
        resolve("0.0.0.0", 80)
    assert resolve("localhost", 80) in (pack("127.0.0.1"), pack("::1"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")
def test_privileges_are_dropped_for_good() -> None:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            drop_privileges("nobody", None)
            dropped = 0 not in (*os.getresuid(), *os.getresgid()) and 0 not in os.getgroups()
            with pytest.raises(PermissionError):
                os.setuid(0)
            code = 0 if dropped else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- workers ---


def wait_for_end(report: Report) -> None:
    """A worker that serves until SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    report.online()
    signal.sigwait({signal.SIGTERM})


def test_workers_start_together_and_end_with_a_signal(tmp_path: Path) -> None:
    def target(report: Report) -> None:
        (tmp_path / f"early-{os.getpid()}").touch()
        report.online()
        assert len(list(tmp_path.glob("early-*"))) == 3, "go came before all were online"
        (tmp_path / f"late-{os.getpid()}").touch()
        if len(list(tmp_path.glob("late-*"))) == 3:
            os.kill(os.getppid(), signal.SIGTERM)
        signal.pause()

    supervise(3, target, drain_s=5)
    assert len(list(tmp_path.glob("late-*"))) == 3


def test_a_fallen_worker_is_started_again(tmp_path: Path) -> None:
    def target(report: Report) -> None:
        lives = len(list(tmp_path.iterdir()))
        (tmp_path / str(os.getpid())).touch()
        report.online()
        if lives == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        os.kill(os.getppid(), signal.SIGTERM)
        signal.pause()

    supervise(1, target, drain_s=5)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_refusal_reaches_the_caller_until_one_worker_serves() -> None:
    def target(report: Report) -> None:
        report.online()
        raise PermissionError(errno.EACCES, "janusd refuses: not this port")

    with pytest.raises(PermissionError, match="not this port"):
        supervise(2, target, drain_s=5)


def test_a_refusal_after_that_is_tried_again(tmp_path: Path) -> None:
    def target(report: Report) -> None:
        lives = len(list(tmp_path.iterdir()))
        (tmp_path / str(os.getpid())).touch()
        report.online()
        if lives == 0:
            report.serving()
        if lives < 2:
            raise PermissionError(errno.EACCES, "janusd refuses: not now")
        os.kill(os.getppid(), signal.SIGTERM)
        signal.pause()

    supervise(1, target, drain_s=5)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_refusal_reaches_the_caller() -> None:
    def target(report: Report) -> None:
        raise PermissionError(errno.EACCES, "janusd refuses: not you")

    with pytest.raises(PermissionError, match="not you"):
        supervise(2, target, drain_s=5)


def test_a_stop_while_workers_wait_for_each_other(tmp_path: Path) -> None:
    def target(report: Report) -> None:
        (tmp_path / str(os.getpid())).touch()
        if len(list(tmp_path.iterdir())) == 2:
            os.kill(os.getppid(), signal.SIGTERM)
            signal.pause()
        wait_for_end(report)

    supervise(2, target, drain_s=5)


def test_a_stop_during_the_fork_reaches_the_worker(tmp_path: Path) -> None:
    told = tmp_path / "told"

    def tell(*_: object) -> None:
        told.touch()
        os._exit(0)

    def target(report: Report) -> None:
        signal.signal(signal.SIGTERM, tell)
        os.kill(os.getppid(), signal.SIGTERM)  # as a rule before the parent has noted our pid
        while True:
            time.sleep(0.01)  # pause() would miss a signal that came just before it

    supervise(1, target, drain_s=60)
    assert told.exists()


def test_signal_handlers_are_as_before() -> None:
    before = (
        signal.getsignal(signal.SIGTERM),
        signal.getsignal(signal.SIGINT),
        signal.getsignal(signal.SIGCHLD),
    )

    def target(report: Report) -> None:
        os.kill(os.getppid(), signal.SIGTERM)
        while True:
            time.sleep(0.01)  # pause() would miss a signal that came just before it

    supervise(1, target, drain_s=5)
    after = (
        signal.getsignal(signal.SIGTERM),
        signal.getsignal(signal.SIGINT),
        signal.getsignal(signal.SIGCHLD),
    )
    assert before == after


# --- the command line ---


def test_load_finds_a_module_and_a_file(tmp_path: Path) -> None:
    assert load("janus_tcp.run:run") is janus_tcp.run
    source = tmp_path / "service.py"
    source.write_text("async def serve(conn): ...\n")
    assert load(f"{source}:serve").__name__ == "serve"


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("nothing", "is not module:handler"),
        (":f", "is not module:handler"),
        ("no_such_module_here:f", "there is no module no_such_module_here"),
        ("janus_tcp.run:no_such", "janus_tcp.run has no no_such"),
        ("/no/such.py:f", "there is no file /no/such.py"),
    ],
)
def test_load_names_what_is_wrong(target: str, text: str) -> None:
    with pytest.raises(OSError, match=text):
        load(target)


def test_the_command_line_says_an_error_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "service.py"
    source.write_text("async def serve(conn): ...\n")
    code = main(["run", f"{source}:serve", "--port", "7", "--socket", str(tmp_path / "no.sock")])
    assert code == 1
    assert capsys.readouterr().err.startswith("janus: no janusd: ")


def test_python_dash_m() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "janus_tcp", "run", "--help"], capture_output=True, text=True, check=True
    )
    assert "--workers" in done.stdout
