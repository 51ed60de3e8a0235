"""janusd is killed and started again under the load of servers that know only asyncio: their connections go on."""

import signal
import socket
import threading
from pathlib import Path

import pytest

from bench.rig import Janusd
from bench.rig.processes import wait_until
from tests.system.census import logs_are_clean
from tests.system.test_asyncio_servers import PORT, PROGRAMS, started
from tests.system.test_many import crowds, order

CROWD = 500
KEPT = 50
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.timeout(120)
def test_connections_of_a_protocol_go_on(rig: Janusd, workdir: Path) -> None:
    words = ["-m", "janus_tcp.asyncio", "bench.servers", "echo", "protocol", "asyncio", str(PORT)]
    app = started(rig, *words)
    with crowds(rig, workdir, PORT, CROWD, count=1) as clients:
        assert order(clients, "open") == {"ok": CROWD, "bad": 0}
        answers: list[dict[str, int]] = []
        restarted = threading.Event()

        def load() -> None:
            while not restarted.is_set() or len(answers) < 3:
                answers.append(order(clients, f"echo {len(answers)}"))

        loading = threading.Thread(target=load)
        loading.start()
        rig.kill()
        rig.start()
        restarted.set()
        loading.join(60)
        assert not loading.is_alive()
        assert answers == [{"ok": CROWD, "bad": 0}] * len(answers)
        assert order(clients, "close") == {"ok": CROWD, "bad": 0}
    assert app.alive()
    logs_are_clean(rig.process, app)


def page(sock: socket.socket) -> bytes:
    """One answer, whose end its length tells."""
    data = sock.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), data
    return body


@pytest.mark.timeout(120)
def test_what_uvicorn_is_asked_while_janusd_is_away_is_answered(rig: Janusd) -> None:
    app = started(rig, *PROGRAMS["uvicorn"])
    kept = [rig.network.connect(PORT, timeout=30) for _ in range(KEPT)]
    for sock in kept:
        sock.sendall(REQUEST)
    assert all(page(sock).startswith(b"hello") for sock in kept)
    rig.kill()
    for sock in kept:
        sock.sendall(REQUEST)
    rig.start()
    assert all(page(sock).startswith(b"hello") for sock in kept)
    for sock in kept:
        sock.close()
    assert app.alive()
    logs_are_clean(rig.process, app)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_launcher_that_comes_before_janusd_waits_for_it(rig: Janusd, workers: int) -> None:
    rig.kill()
    words = ["--workers", str(workers), "--wait", "60", "tests.system.apps.asyncio_servers", "websockets"]
    app = rig.app("-m", "janus_tcp.asyncio", *words, str(PORT))
    wait_until(lambda: app.text().count("waiting for janusd") == max(workers, 1), 20, "it says so once each")
    assert app.alive()
    rig.start()
    wait_until(lambda: rig.network.answers(PORT), 30, f"it serves:\n{app.tail()}")
    logs_are_clean(rig.process)
    app.child.terminate()
    assert app.wait(15) in (0, -signal.SIGTERM), app.tail()


def test_a_launcher_that_waits_ends_by_a_signal_and_in_time(rig: Janusd) -> None:
    rig.kill()
    program = ["bench.servers", "echo", "protocol", "asyncio", str(PORT)]
    app = rig.app("-m", "janus_tcp.asyncio", "--wait", "inf", *program, name="stopped")
    wait_until(lambda: "waiting for janusd" in app.text(), 20, "it waits")
    app.child.terminate()
    assert app.wait(5) == -signal.SIGTERM
    late = rig.app("-m", "janus_tcp.asyncio", "--wait", "0.5", *program, name="late")
    assert late.wait(20) == 1
    assert "no janusd" in late.text(), late.tail()
