"""SIGKILL of an app and of janusd: peers learn, memory returns, others and established connections go on."""

import threading
import time
from pathlib import Path

import pytest

from bench.rig import Janusd
from bench.rig.processes import wait_until
from tests.system.census import ask, in_use, logs_are_clean
from tests.system.stream import digest, get, put, receive_all
from tests.system.test_many import crowds, order

CENSUS = "tests.system.apps.census:handle"
TRANSFER = "tests.system.apps.transfer:handle"
SIZE = 256 << 20
PEERS = 2000


@pytest.mark.timeout(300)
def test_a_killed_app_is_reset_and_another_loses_nothing(rig: Janusd, workdir: Path) -> None:
    victim = rig.serve(CENSUS, port=8000, workers=2)
    other = rig.serve(TRANSFER, port=7000, app="other")
    digests: list[str] = []

    def transfer() -> None:
        with rig.network.connect(7000, timeout=60) as sock:
            digests.append(get(sock, SIZE))

    with crowds(rig, workdir, 8000, PEERS, count=1) as clients:
        assert order(clients, "open") == {"ok": PEERS, "bad": 0}
        assert order(clients, "echo 1") == {"ok": PEERS, "bad": 0}
        running = threading.Thread(target=transfer)
        running.start()
        victim.kill()
        assert order(clients, "await-reset") == {"ok": PEERS, "bad": 0}
        running.join(120)
    assert digests == [digest(SIZE)]
    wait_until(lambda: set(in_use(rig)) == {"other/0"}, 10, "the dead app's threads are gone")
    again = rig.serve(CENSUS, port=8000, workers=2)
    assert ask(rig, 8000)["conns"] == 1
    logs_are_clean(rig.process, other, again)


@pytest.mark.timeout(300)
def test_a_killed_app_comes_back_many_times(rig: Janusd) -> None:
    for _ in range(5):
        app = rig.serve(CENSUS, port=8000, workers=2)
        with rig.network.connect(8000, timeout=10) as sock:
            sock.sendall(b"hello")
            assert sock.recv(5) == b"hello"
            app.kill()
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        wait_until(lambda: in_use(rig) == {}, 10, "the dead app's threads are gone")
    logs_are_clean(rig.process)


@pytest.mark.timeout(300)
def test_transfers_survive_a_killed_janusd(rig: Janusd) -> None:
    app = rig.serve(TRANSFER, port=8000)
    expected = digest(SIZE)
    uploaded: list[str] = []

    def upload() -> None:
        with rig.network.connect(8000, timeout=120) as sock:
            uploaded.append(put(sock, SIZE))

    with rig.network.connect(8000, timeout=120) as sock, rig.network.connect(8000, timeout=120) as idle:
        idle.sendall(b"PUT 10\n")
        uploading = threading.Thread(target=upload)
        uploading.start()
        downloaded: list[str] = []
        downloading = threading.Thread(target=lambda: downloaded.append(get(sock, SIZE)))
        downloading.start()
        time.sleep(0.3)  # both transfers are on their way
        assert not uploaded
        assert not downloaded
        rig.kill()
        time.sleep(0.5)
        rig.start()
        uploading.join(120)
        downloading.join(120)
        assert uploaded == [expected], "kernel to Janus"
        assert downloaded == [expected], "Janus to kernel"
        idle.sendall(b"0123456789")
        assert len(idle.makefile("rb").readline()) == 65, "an idle connection lives too"
    assert app.alive()
    with rig.network.connect(8000, timeout=10) as sock:
        sock.sendall(b"GET 100000\n")
        assert receive_all(sock, 100_000) == digest(100_000), "new connections too"
    logs_are_clean(rig.process, app)


@pytest.mark.timeout(300)
def test_janusd_killed_again_and_again(rig: Janusd) -> None:
    app = rig.serve(CENSUS, port=8000, workers=2)
    socks = [rig.network.connect(8000, timeout=60) for _ in range(20)]
    for number in range(3):
        rig.kill()
        rig.start()
        for index, sock in enumerate(socks):
            message = b"round %d of %d" % (number, index)
            sock.sendall(message)
            assert sock.recv(64) == message
    for sock in socks:
        sock.close()
    assert app.alive()
    logs_are_clean(rig.process, app)
