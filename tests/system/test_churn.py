"""Threads come and go, of their own will and by SIGKILL, under load: nothing adds up, on no side."""

import json
import os
import random
import signal
import socket
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bench.rig import REPO, Janusd, Network, Process
from bench.rig.crowd import Stop, crowd
from bench.rig.processes import wait_until
from tests.system.census import in_use, logs_are_clean, workers_hold
from tests.system.linked import build_linked
from tests.system.stream import digest, echo_both_ways

CENSUS = "tests.system.apps.census:handle"
CYCLES = 100
KILLS = 3
CLIENTS = 8


@dataclass(frozen=True)
class Footprint:
    """What janusd keeps in the kernel and on its stats page."""

    descriptors: int
    eventfds: int
    mappings: int
    shared_names: tuple[str, ...]
    blocks: int

    @classmethod
    def of(cls, rig: Janusd) -> "Footprint":
        proc = Path(f"/proc/{rig.process.pid}")
        links = [os.readlink(entry) for entry in (proc / "fd").iterdir() if entry.is_symlink()]
        maps = [line for line in (proc / "maps").read_text().splitlines() if "janus" in line]
        names = sorted(
            path.name for path in Path("/dev/shm").iterdir() if rig.config.stats_name[1:] in path.name
        )
        blocks = len(rig.rows("stats"))
        return cls(len(links), sum("eventfd" in link for link in links), len(maps), tuple(names), blocks)


def await_footprint(rig: Janusd, before: Footprint) -> None:
    """Wait until it is what it was; the error shows what it is."""
    try:
        wait_until(lambda: Footprint.of(rig) == before, 10, "all is back", step=0.2)
    except TimeoutError:
        raise AssertionError(f"{Footprint.of(rig)}, at the start: {before}") from None


@pytest.mark.timeout(60)
def test_a_hundred_threads_come_and_go(rig: Janusd, workdir: Path) -> None:
    steady = rig.serve("examples.echo:handle", port=7000, app="other")
    program = build_linked("cycles", [REPO / "tests/system/cycles.c"])
    words = [str(program), str(rig.attach_socket), "web", "8000"]

    def cycles(count: int) -> dict[str, Any]:
        (workdir / "cycles.log").unlink(missing_ok=True)
        with Process([*words, str(count)], name="cycles", workdir=workdir, user="nobody") as app:
            assert app.wait(30) == 0, app.text() + rig.process.tail()
            done: dict[str, Any] = json.loads(app.text().splitlines()[-1])
        return done

    cycles(3)  # what is made once: threads that seal, caches
    wait_until(lambda: set(in_use(rig)) == {"other/0"}, 10, "the cycles' threads are gone")
    before = Footprint.of(rig)
    assert cycles(CYCLES) == {"cycles": CYCLES, "fds": 0, "maps": 0}
    await_footprint(rig, before)
    assert set(in_use(rig)) == {"other/0"}
    with rig.network.connect(7000) as sock:
        assert echo_both_ways(sock, 100_000) == digest(100_000)
    logs_are_clean(rig.process, steady)


def pools(workers: dict[int, dict[str, Any]]) -> list[tuple[int, ...]]:
    """RX and TX slots of each worker, free or in a connection's hands.

    A connection whose key has moved to a newcomer keeps what it has sent until its own time-out.
    """
    names = ("rx_slots", "tx_slots")
    return sorted(tuple(held[f"{n}_free"] + held[f"{n}_held"] for n in names) for held in workers.values())


class Load:
    """Clients that connect, echo a while and close, and begin again when they are reset."""

    def __init__(self, network: Network, port: int) -> None:
        self.good = self.failed = 0
        self.wrong: list[str] = []
        self._network, self._port = network, port

    def run(self, seed: int, stop: Stop) -> None:
        """One client after the other."""
        draw = random.Random(seed)
        while not stop.wait(0.01):
            try:
                with self._network.connect(self._port, timeout=5) as sock:
                    for _ in range(draw.randrange(1, 20)):
                        self._echo(sock, draw.randbytes(draw.randrange(1, 4000)))
                    self.good += 1
            except OSError:
                self.failed += 1

    def _echo(self, sock: socket.socket, data: bytes) -> None:
        sock.sendall(data)
        got = b""
        while len(got) < len(data):
            if not (more := sock.recv(len(data) - len(got))):
                raise ConnectionResetError
            got += more
        if got != data:
            self.wrong.append(f"{len(data)} bytes came back otherwise")


def online(rig: Janusd) -> dict[int, int]:
    """Process ids of the app's threads by tid."""
    return {row["tid"]: row["pid"] for row in rig.rows("threads") if row["state"] == "online"}


def kill_and_await(rig: Janusd, load: Load, victim: int) -> None:
    """SIGKILL a worker; the other one serves, and its successor comes."""
    good = load.good
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: load.good > good + 20, 20, "the other worker serves")

    def is_back() -> bool:
        now = online(rig)
        return len(now) == 2 and victim not in now.values()

    wait_until(is_back, 20, "the worker is back")


@pytest.mark.timeout(60)
def test_a_killed_worker_comes_back_under_load_and_nothing_leaks(rig: Janusd) -> None:
    app = rig.serve(CENSUS, port=8000, workers=2)
    level = pools(workers_hold(rig, 8000, 2))
    before = Footprint.of(rig)
    load = Load(rig.network, 8000)
    with crowd([partial(load.run, seed) for seed in range(CLIENTS)]):
        for number in range(KILLS):
            kill_and_await(rig, load, online(rig)[number % 2])
    assert not load.wrong
    assert load.good > 50
    assert load.failed < load.good, "only who was connected to a killed worker may notice"
    await_footprint(rig, before)
    wait_until(lambda: all(row["rx_slots_held"] == 0 for row in rig.rows("threads")), 10, "slots are back")
    assert pools(workers_hold(rig, 8000, 2)) == level
    assert all(row["violations"] == 0 for row in rig.rows("threads"))
    assert app.alive()
    assert rig.process.alive()
    assert "Traceback" not in rig.process.text() + app.text()
