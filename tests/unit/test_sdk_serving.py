"""What run() does around a loop: the end of serving, the garbage collector, huge arenas, and the command line."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import janus_tcp
import pytest
from janus_tcp import __main__ as command
from janus_tcp._native import Loop
from janus_tcp.memory import CLIENT_HOST, HOST, Wire
from janus_tcp.scheduler import drain, listen_on, turn

PORT = 7


@pytest.fixture
def loops() -> Iterator[tuple[Loop, Loop]]:
    """A server's and a client's, in real time."""
    wire = Wire((HOST, CLIENT_HOST), virtual_time=False)
    made = Loop(wire.thread(0), owns=False), Loop(wire.thread(1), owns=False)
    yield made
    for one in made:
        one.close()
    wire.close()


def test_who_does_not_end_in_time_is_cancelled_and_cleans_up(
    loops: tuple[Loop, Loop], caplog: pytest.LogCaptureFixture
) -> None:
    server, client = loops
    events: list[str] = []
    ended_us: list[int] = []

    async def handle(conn: janus_tcp.Connection) -> None:
        try:
            events.append((await conn.recv()).decode())
            await conn.recv()
        finally:
            ended_us.append(server.clock_us)
            await janus_tcp.sleep(0.01)
            events.append("cleaned up")

    async def patient() -> None:
        conn = await janus_tcp.connect(HOST, PORT)
        await conn.send(b"hello")
        with pytest.raises(ConnectionResetError):
            await conn.recv()
        conn.close()

    listen_on(server, handle, PORT)
    task = client.spawn(patient())
    while events != ["hello"]:
        turn(server, 0)
        turn(client, 0)
    began_us = server.clock_us
    with caplog.at_level(logging.INFO, "janus_tcp"):
        drain(server, 0.1)
    assert ended_us[0] - began_us >= 100_000
    assert events == ["hello", "cleaned up"]
    assert "cancelling 1 handlers and tasks that did not end within 0.1 s" in caplog.text
    while not task.done():
        turn(client, 1000)
    assert task.exception() is None


SERVING = """
import gc, os, signal
from janus_tcp._native import Loop
from janus_tcp.memory import CLIENT_HOST, HOST, Wire
from janus_tcp.run import Plan, _serve

def look(*_):
    if gc.get_freeze_count():
        print(gc.get_threshold())
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.kill(os.getpid(), signal.SIGTERM)

async def handle(conn):
    await conn.recv()

wire = Wire((HOST, CLIENT_HOST), virtual_time=False)
signal.signal(signal.SIGALRM, look)
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
_serve(Plan(lambda: Loop(wire.thread(0), owns=False), [(handle, 7, None)], 1, 1, 0), None)
"""


def test_the_garbage_collector_looks_seldom_while_serving() -> None:
    words = [sys.executable, "-c", SERVING]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "(10000, 10, 2000)\n"), done.stderr


def test_huge_arenas_hold_what_is_made_from_then_on() -> None:
    script = """
import re
from janus_tcp._native import lib
assert lib.face_huge_arenas() == 0
kept = [[i] for i in range(500_000)]
text = open("/proc/self/smaps").read()
parts = re.findall(r"Rss: +(\\d+) kB(?:.|\\n)*?VmFlags:([a-z ]*)", text)
print(sum(int(rss) for rss, flags in parts if " hg" in flags) // 1024)
"""
    environment = {**os.environ, "PYTHONMALLOC": "pymalloc"}
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 40


def test_the_command_line_reaches_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
    monkeypatch.setattr(command, "run", lambda *args, **kwargs: asked.append((args, kwargs)))
    plain = ["run", "service:handle", "--port", "7"]
    given = [
        *("--host", "10.0.0.1", "--app", "web", "--socket", "/s", "--workers", "3", "--user", "nobody"),
        *("--group", "nogroup", "--connections", "9", "--drain", "1", "--retire", "2", "--wait", "3"),
        *("--stats", "4", "--slow", "5", "--huge-arenas"),
    ]
    assert command.main([*plain, "--wait", "--stats"]) == 0
    assert command.main([*plain, *given]) == 0
    (first, defaults), (_, all_of_them) = asked
    assert first == ("service:handle",)
    assert (defaults["wait_s"], defaults["stats_s"], defaults["workers"]) == (float("inf"), 10.0, 1)
    assert all_of_them == {
        "port": 7,
        "host": "10.0.0.1",
        "app": "web",
        "socket": "/s",
        "workers": 3,
        "user": "nobody",
        "group": "nogroup",
        "connections": 9,
        "drain_s": 1,
        "retire_s": 2,
        "wait_s": 3,
        "stats_s": 4,
        "slow_s": 5,
        "huge_arenas": True,
    }
