"""janus_tcp.run(workers=N) grows and shrinks under load by signals to the program, without janusctl: nobody notices."""

import os
import signal
from pathlib import Path

import pytest

from bench.rig import Janusd
from bench.rig.processes import wait_until
from tests.system.balance_load import balancer, client, echo, load, no_harm
from tests.system.census import logs_are_clean

PROGRAM = """
import logging
import janus_tcp

logging.basicConfig(level=logging.INFO)

async def handle(conn):
    async for data in conn:
        await conn.send(data)

janus_tcp.run(handle, port=8000, workers=2)
"""


def shares(rig: Janusd) -> dict[int, float]:
    """Of the threads that get new connections."""
    return {t["tid"]: t["share"] for t in balancer(rig)["threads"] if t["share"] > 0}


@pytest.mark.timeout(60)
def test_run_adds_and_drains_workers_under_load_by_signals_alone(rig: Janusd, workdir: Path) -> None:
    source = workdir / "program.py"
    source.write_text(PROGRAM)
    source.chmod(0o644)
    app = rig.app(str(source), name="program")
    rig.await_threads(app, "web", 2)
    wait_until(lambda: rig.network.answers(8000), 20, f"the program answers:\n{app.tail()}")
    first = min(shares(rig))
    with load(rig, 8000) as running:  # which has sniffed for resets since before it began
        for number, workers in ((signal.SIGTTIN, 3), (signal.SIGTTOU, 2)):
            os.kill(app.pid, number)
            wait_until(lambda n=workers: len(shares(rig)) == n, 20, f"{workers} workers:\n{app.tail()}")
            assert sum(shares(rig).values()) == pytest.approx(1, abs=0.01)
            running.go_on(5)
        client(rig).ask("csb_drain", app="web", tid=first)
        assert first not in shares(rig)
        running.go_on(5)
        fresh = [running.connect() for _ in range(10)]
        for sock in (*running.idle, *fresh):
            echo(sock, b"moved, or held where it was")
        here = {sock.getsockname()[1] for sock in fresh}
        tids = {row["tid"] for row in rig.ctl("conns")["conns"] if row["remote_port"] in here}
        assert first not in tids, "newcomers go to the others"
        client(rig).ask("csb_undrain", app="web", tid=first)
        os.kill(app.pid, signal.SIGTTOU)
        wait_until(lambda: len(shares(rig)) == 1, 20, f"one worker:\n{app.tail()}")
        running.go_on(5)
        idle, running.idle = [*running.idle, *fresh], []
        for sock in idle:  # those of the workers that retire are served until they close
            echo(sock, b"still here")
            sock.close()
        wait_until(lambda: app.text().count("has ended with 0") == 2, 20, f"two have retired:\n{app.tail()}")
    no_harm(rig)
    logs_are_clean(rig.process, app)
