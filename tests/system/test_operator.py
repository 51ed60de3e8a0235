"""What an operator can rely on without the application's help: lists, silence, a page that others only read."""

import os
import signal
from pathlib import Path

import pytest

from bench.rig import Janusd, JanusdConfig
from tests.system.conftest import StartRig

ECHO = "examples.echo:handle"
NOBODY = 65534


def test_conns_lists_what_a_stopped_app_holds(rig: Janusd) -> None:
    """janusd reads the rows itself: an app that cannot answer is listed like any other."""
    app = rig.serve(ECHO, port=8000)
    with rig.network.connect(8000) as sock:
        sock.sendall(b"hello")
        assert sock.recv(5) == b"hello"
        app.kill(signal.SIGSTOP)
        try:
            host, port = sock.getsockname()
            [conn] = [c for c in rig.ctl("conns")["conns"] if c["remote_port"] == port]
        finally:
            app.kill(signal.SIGCONT)
        assert (conn["app"], conn["state"], conn["remote"]) == ("web", "ESTABLISHED", host)
        assert (conn["local"], conn["local_port"]) == sock.getpeername()
        sock.sendall(b"again")
        assert sock.recv(5) == b"again"


def test_a_port_that_nobody_serves_can_be_silent(start_rig: StartRig) -> None:
    rig = start_rig(JanusdConfig(unknown_port="silent"))
    with pytest.raises(TimeoutError):
        rig.network.connect(81, timeout=1.5)
    drops = {reason: n for row in rig.rows("ports") for reason, n in row["drops"].items()}
    assert drops["unserved"] >= 1


def as_nobody(path: Path, flags: int) -> bool:
    """Whether uid nobody can open path so."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            os.close(os.open(path, flags))
            os._exit(0)
        except OSError:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_stats_page_is_for_everybody_to_read_and_nobody_to_write(rig: Janusd) -> None:
    page = Path("/dev/shm") / rig.config.stats_name.lstrip("/")
    assert as_nobody(page, os.O_RDONLY)
    assert not as_nobody(page, os.O_RDWR)
