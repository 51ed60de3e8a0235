"""SIGHUP replaces the workers under load: new code serves, and no connection is lost."""

import os
import signal
from pathlib import Path

import pytest

from bench.rig import Janusd
from bench.rig.processes import wait_until
from tests.system.balance_load import load, no_harm
from tests.system.census import logs_are_clean

HANDLER = """
async def handle(conn):
    async for data in conn:
        await conn.send(b"{version}:" + data)
"""


def ask(sock: object, word: bytes) -> bytes:
    sock.sendall(word)  # type: ignore[attr-defined]
    return bytes(sock.recv(100))  # type: ignore[attr-defined]


@pytest.mark.timeout(120)
def test_a_reload_serves_new_code_and_loses_no_connection(rig: Janusd, workdir: Path) -> None:
    source = workdir / "service.py"
    source.write_text(HANDLER.format(version="old"))
    source.chmod(0o644)
    app = rig.serve(f"{source}:handle", port=8000, workers=2)
    former = [rig.network.connect(8000, timeout=30) for _ in range(50)]
    for sock in former:
        assert ask(sock, b"1") == b"old:1"
    source.write_text(HANDLER.format(version="new"))
    os.kill(app.pid, signal.SIGHUP)
    for number in range(100):  # some come while both generations serve
        with rig.network.connect(8000, timeout=30) as sock:
            assert ask(sock, b"%d" % number) in (b"old:%d" % number, b"new:%d" % number)
    wait_until(lambda: "the former ones retire" in app.text(), 20, f"the reload:\n{app.tail()}")
    wait_until(lambda: is_new(rig), 20, "new connections go to the new workers")
    for sock in former:
        assert ask(sock, b"2") == b"old:2"
        sock.close()
    wait_until(
        lambda: app.text().count("of before the reload has ended with 0") == 2, 20, f"the end:\n{app.tail()}"
    )
    assert is_new(rig)
    logs_are_clean(rig.process, app)


ASYNCIO = """
import asyncio

async def handle(reader, writer):
    while data := await reader.read(100):
        writer.write(b"{version}:" + data)
    writer.close()

async def main():
    async with await asyncio.start_server(handle, None, 8000) as server:
        await server.serve_forever()

asyncio.run(main())
"""


@pytest.mark.timeout(120)
def test_an_asyncio_program_is_reloaded_and_loses_no_connection(rig: Janusd, workdir: Path) -> None:
    source = workdir / "program.py"
    source.write_text(ASYNCIO.format(version="old"))
    source.chmod(0o644)
    app = rig.app("-m", "janus_tcp.asyncio", "--workers", "2", str(source))
    rig.await_threads(app, "web", 2)
    wait_until(lambda: rig.network.answers(8000), 20, f"the program answers:\n{app.tail()}")
    former = [rig.network.connect(8000, timeout=30) for _ in range(20)]
    for sock in former:
        assert ask(sock, b"1") == b"old:1"
    source.write_text(ASYNCIO.format(version="new"))
    os.kill(app.pid, signal.SIGHUP)
    wait_until(lambda: "the former ones retire" in app.text(), 20, f"the reload:\n{app.tail()}")
    wait_until(lambda: is_new(rig), 20, "new connections go to the new workers")
    for sock in former:
        assert ask(sock, b"2") == b"old:2"
        sock.close()
    wait_until(lambda: app.text().count("of before the reload has ended") == 2, 20, f"the end:\n{app.tail()}")
    assert is_new(rig)
    app.child.terminate()
    assert app.wait(15) == 0, app.tail()


@pytest.mark.timeout(120)
def test_a_rolling_restart_under_load_loses_nothing_and_sends_no_reset(rig: Janusd) -> None:
    """Streams, short connections and idle ones live through two generations of workers."""
    app = rig.serve("tests.system.apps.census:handle", port=8000, workers=1)
    with load(rig, 8000) as running:
        for generation in (1, 2):
            os.kill(app.pid, signal.SIGHUP)
            wait_until(
                lambda n=generation: app.text().count("the former ones retire") == n,
                30,
                f"the reload:\n{app.tail()}",
            )
            running.go_on(40)
    wait_until(
        lambda: app.text().count("of before the reload has ended with 0") == 2, 30, f"the end:\n{app.tail()}"
    )
    no_harm(rig)
    logs_are_clean(rig.process, app)


def is_new(rig: Janusd) -> bool:
    """Whether ten connections in a row meet the new code."""
    answers = []
    for _ in range(10):
        with rig.network.connect(8000, timeout=30) as sock:
            answers.append(ask(sock, b"x"))
    return set(answers) == {b"new:x"}


@pytest.mark.timeout(60)
def test_a_reload_of_broken_code_changes_nothing(rig: Janusd, workdir: Path) -> None:
    source = workdir / "service.py"
    source.write_text(HANDLER.format(version="old"))
    source.chmod(0o644)
    app = rig.serve(f"{source}:handle", port=8000, workers=1)
    source.write_text("this is no Python\n")
    os.kill(app.pid, signal.SIGHUP)
    wait_until(lambda: "reload failed" in app.text(), 20, f"the refusal:\n{app.tail()}")
    with rig.network.connect(8000, timeout=30) as sock:
        assert ask(sock, b"x") == b"old:x"
