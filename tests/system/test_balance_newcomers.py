"""Newcomers while load moves: SYN cookies when half-open connections are scarce, ports that meet their TIME-WAIT."""

import json
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from bench.rig import Janusd
from bench.rig.network import CLIENT_ADDRESS, SERVER_ADDRESS
from bench.rig.processes import wait_until
from tests.system.balance_load import balancer, client, load, no_harm
from tests.system.census import logs_are_clean
from tests.system.conftest import SERVED, StartRig
from tests.system.sniffer import Sniffer
from tests.system.spoof import frame

NOBODYS = "10.77.0.99"
UPDATES, PORTS = 12, range(20000, 20030)


@contextmanager
def half_open(rig: Janusd, port: int) -> Iterator[None]:
    """SYNs of a host that is not there, as many as keep the half-open blocks scarce."""
    stop, draw = threading.Event(), random.Random(11)
    raw = rig.network.inside(rig.network.cli, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
    raw.bind(("v1", 0))
    macs = bytes.fromhex(rig.network.server_mac().replace(":", "")), raw.getsockname()[4]

    def flood() -> None:
        while not stop.wait(0.3):
            for _ in range(300):
                raw.send(frame(*macs, draw.randrange(1024, 65536), port, draw, NOBODYS))

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        raw.close()


def counted(rig: Janusd, counter: str) -> int:
    """Of all threads."""
    return sum(row["counters"].get(counter, 0) for row in rig.rows("threads"))


@pytest.mark.timeout(120)
def test_handshakes_by_syn_cookie_while_load_moves(start_rig: StartRig) -> None:
    web, other = SERVED.apps
    rig = start_rig(replace(SERVED, apps=(replace(web, connections_max=512), other)))
    app = rig.serve("tests.system.apps.census:handle", port=8000, workers=2)
    with load(rig, 8000) as running, half_open(rig, 8000):
        wait_until(
            lambda: counted(rig, "syn_cookies_accepted") > 0 or running.errors, 30, "a cookie comes back"
        )
        for number in range(UPDATES):
            client(rig).ask("csb_set", app="web", weights={"0": (3.0, 0.0, 1.0)[number % 3]})
            running.go_on(10)
    print(counted(rig, "syn_cookies_accepted"), "by cookie")
    assert counted(rig, "syn_cookies_accepted") > 20
    assert all(u["outcome"] == "published" for u in balancer(rig)["updates"])
    no_harm(rig)
    logs_are_clean(rig.process, app)


@pytest.mark.timeout(120)
def test_ports_that_meet_their_time_wait_while_load_moves(rig: Janusd) -> None:
    """The server closes first and keeps TIME-WAIT; the client comes again from the same port, wherever that is now."""
    app = rig.serve("tests.system.apps.census:once", port=8000, workers=3)
    draw, waiting = random.Random(4), 0
    with Sniffer(rig.network, None) as resets:
        for _ in range(UPDATES):
            weights = {str(tid): float(draw.choice((1, 2, 5))) for tid in range(3)}
            client(rig).ask("csb_set", app="web", weights=weights)
            for port in PORTS:
                waiting = max(waiting, ask_from(rig, port)["time_wait"])
        assert resets.bad() == []
    assert waiting > 0
    assert sum(u["kept"] for u in balancer(rig)["updates"]) > 0, "what waits was on keys that moved"
    no_harm(rig)
    logs_are_clean(rig.process, app)


def ask_from(rig: Janusd, port: int) -> dict[str, int]:
    """A connection from this port of the client: what its thread has in use."""
    with rig.network.client_socket(timeout=20) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((CLIENT_ADDRESS, port))
        sock.connect((SERVER_ADDRESS, 8000))
        sock.sendall(b"hello")
        with sock.makefile("rb") as answer:
            found = json.loads(answer.readline())
            assert answer.read() == b""
    return dict(found)
