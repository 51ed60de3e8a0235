"""janusd is killed and started again under the load of servers that know only asyncio: their connections go on."""

import socket
import threading
from pathlib import Path

import pytest

from bench.rig import Janusd
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
