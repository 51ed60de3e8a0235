"""Pools that run dry, peers that do not read, apps that stop: the others' service goes on, and all comes
back."""

import contextlib
import signal
import socket
import threading
import time

import pytest

from bench.rig import AppPolicy, Janusd, JanusdConfig
from bench.rig.network import CLIENT_ADDRESS, SERVER_ADDRESS
from bench.rig.processes import wait_until
from tests.system.census import ask, at_rest, await_level, in_use, logs_are_clean
from tests.system.conftest import StartRig
from tests.system.stream import digest, echo_both_ways, get
from tests.system.test_interop_matrix import UPSTREAM_PORT, Combination, kernel_echo

CENSUS = "tests.system.apps.census:handle"
TRANSFER = "tests.system.apps.transfer:handle"
SLOW = 300


def echo_at_once(rig: Janusd, count: int, size: int) -> list[str]:
    """The digests, or errors, of so many echoes at once."""
    outcomes: list[str] = []

    def one() -> None:
        try:
            with rig.network.connect(8000, timeout=90) as sock:
                outcomes.append(echo_both_ways(sock, size))
        except (OSError, EOFError, AssertionError) as error:
            outcomes.append(repr(error))

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


@pytest.mark.timeout(240)
@pytest.mark.parametrize("slots", [64, 256])
def test_a_dry_pool_is_back_pressure_and_not_a_hang(start_rig: StartRig, slots: int) -> None:
    policy = AppPolicy(name="web", ports=("8000",), rx_slots=slots, tx_slots=slots)
    rig = start_rig(JanusdConfig(apps=(policy,)))
    app = rig.serve(CENSUS, port=8000)
    at_rest(rig)
    held, level = ask(rig, 8000), at_rest(rig)
    assert echo_at_once(rig, 20, 300_000) == [digest(300_000)] * 20
    await_level(rig, level)
    assert ask(rig, 8000) == held
    logs_are_clean(rig.process, app)


@pytest.mark.timeout(240)
def test_a_proxy_whose_slots_are_short_hears_acks_from_the_edge(start_rig: StartRig) -> None:
    """Windows of 64 KiB are filled, and text is dropped for want of slots: what the kernel says then comes from the
    windows' edges, and both sides of each connection wait for it."""
    rig = start_rig(
        JanusdConfig(apps=(AppPolicy("web", ("8000",), source_ports="40000-44999", rx_slots=128),))
    )
    Combination(sack=False, timestamps=True, scaling=False, ecn=False, mtu=576, ipv6=False).apply(rig.network)
    with kernel_echo(rig.network, []):
        rig.serve("examples.proxy:handle", port=8000, env={"UPSTREAM": f"{CLIENT_ADDRESS}:{UPSTREAM_PORT}"})
        assert echo_at_once(rig, 6, 3_000_000) == [digest(3_000_000)] * 6
    drops = {
        reason: rig.metric("janus_tcp_drops_total", reason=reason) for reason in ("no_room", "out_of_window")
    }
    assert drops["no_room"] > 500, "slots were not short"
    assert drops["out_of_window"] < drops["no_room"] / 3, drops


@pytest.mark.timeout(240)
def test_peers_that_do_not_read_hold_up_nobody_else(rig: Janusd) -> None:
    rig.serve(CENSUS, port=8000)
    at_rest(rig)
    held, level = ask(rig, 8000), at_rest(rig)
    slow = [rig.network.client_socket() for _ in range(SLOW)]
    for sock in slow:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect((SERVER_ADDRESS, 8000))
        sock.setblocking(False)
    end = time.monotonic() + 2
    while time.monotonic() < end:
        for sock in slow:
            stuff(sock)
        time.sleep(0.02)
    assert sum(row[1] for row in in_use(rig).values()) > 1000, "they do hold slots"
    assert echo_at_once(rig, 5, 100_000) == [digest(100_000)] * 5
    for sock in slow:
        sock.close()
    await_level(rig, level, seconds=90)
    assert ask(rig, 8000) == held


def stuff(sock: socket.socket) -> None:
    """Send as much as the kernel takes."""
    try:
        while True:
            sock.send(b"x" * 65536)
    except BlockingIOError:
        pass


@pytest.mark.timeout(120)
def test_a_stopped_app_holds_up_no_other_and_goes_on(rig: Janusd) -> None:
    stopped = rig.serve(CENSUS, port=8000)
    rig.serve(TRANSFER, port=7000, app="other")
    with rig.network.connect(8000, timeout=60) as waiting, rig.network.connect(7000, timeout=60) as sock:
        stopped.kill(signal.SIGSTOP)
        waiting.sendall(b"x" * 10_000)
        assert get(sock, 64 << 20) == digest(64 << 20)
        stopped.kill(signal.SIGCONT)
        left = 10_000
        while left > 0:
            left -= len(waiting.recv(65536))
        assert left == 0
    logs_are_clean(rig.process, stopped)


@pytest.mark.timeout(120)
def test_janusd_stops_in_order_and_comes_back(rig: Janusd) -> None:
    app = rig.serve(CENSUS, port=8000, workers=2)
    with rig.network.connect(8000, timeout=60) as sock:
        assert rig.process.stop() == 0, rig.process.tail()
        time.sleep(2)
        rig.start()
        assert echo_both_ways(sock, 100_000) == digest(100_000)
    assert app.alive()
    logs_are_clean(rig.process, app)


@pytest.mark.timeout(120)
def test_an_app_that_ends_in_order_closes_its_connections(rig: Janusd) -> None:
    app = rig.serve(CENSUS, port=8000, workers=2)
    with rig.network.connect(8000, timeout=30) as sock:
        sock.sendall(b"hello")
        assert sock.recv(5) == b"hello"
        began = time.monotonic()
        status = app.stop(seconds=30)
        assert status == 0, f"{status}\n{app.tail()}"
        assert time.monotonic() - began < 20
        sock.settimeout(5)
        with contextlib.suppress(
            ConnectionResetError
        ):  # its handler still waited when the time to drain was over
            assert sock.recv(1) == b""
    wait_until(lambda: in_use(rig) == {}, 10, "the app's threads are gone")
    assert not rig.network.answers(8000)
    logs_are_clean(rig.process, app)
