"""Newcomers while load moves: ports that meet their TIME-WAIT."""

import json
import random
import socket

import pytest

from bench.rig import Janusd
from bench.rig.network import CLIENT_ADDRESS, SERVER_ADDRESS
from tests.system.balance_load import balancer, client, no_harm
from tests.system.census import logs_are_clean
from tests.system.sniffer import Sniffer

UPDATES, PORTS = 12, range(20000, 20030)


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
