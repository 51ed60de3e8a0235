"""An idle janusd and an idle app use under 2 % of a core each (adaptive mode), also an app whose janusd is
gone: processor time from /proc over some seconds of silence."""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench.rig import Janusd
from bench.rig.processes import descendants
from tests.system.conftest import SERVED, StartRig

pytestmark = pytest.mark.alone
SECONDS = 4.0
SETTLE_SECONDS = 1.0
PERCENT_MAX = 2.0
TRIES = 2  # the machine has other work: one bad measurement is none


def spent(pids: Sequence[int]) -> float:
    """Seconds of processor time of processes and all their threads; a count of ticks is too coarse for this little."""
    ran = (
        path.read_text().split()[0] for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/schedstat")
    )
    return sum(map(int, ran)) / 1e9


def measure(what: dict[str, list[int]]) -> dict[str, float]:
    """Per cent of a core by name."""
    time.sleep(SETTLE_SECONDS)
    before, begin = {name: spent(pids) for name, pids in what.items()}, time.monotonic()
    time.sleep(SECONDS)
    elapsed = time.monotonic() - begin
    return {name: 100 * (spent(pids) - before[name]) / elapsed for name, pids in what.items()}


def assert_idle(what: dict[str, list[int]]) -> None:
    for _ in range(TRIES):
        found = measure(what)
        print("idle, % of a core:", {name: round(percent, 2) for name, percent in found.items()})
        if all(percent < PERCENT_MAX for percent in found.values()):
            return
    raise AssertionError(f"idle processes use {found} % of a core; the most is {PERCENT_MAX}")


@pytest.mark.timeout(60)
def test_idle_processes_sleep(rig: Janusd) -> None:
    app = rig.serve("examples.echo:handle", port=8000, workers=2)
    with rig.network.connect(8000) as held:
        held.sendall(b"then silence")
        assert held.recv(100)
        assert_idle({"janusd": [rig.process.pid], "app": descendants(app.pid)})


@pytest.mark.timeout(60)
def test_an_app_without_janusd_sleeps(rig: Janusd) -> None:
    app = rig.serve("examples.echo:handle", port=8000)
    rig.kill()
    assert_idle({"app": descendants(app.pid)})
    assert app.alive()


def test_the_control_plane_leaves_the_processor_of_an_io_thread(start_rig: StartRig) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two processors")
    cpu = min(os.sched_getaffinity(0))
    rig = start_rig(replace(SERVED, cpus=(cpu,)))
    tasks = {
        int(path.name): (path / "comm").read_text().strip()
        for path in Path(f"/proc/{rig.process.pid}/task").iterdir()
    }
    io = [task for task, name in tasks.items() if name == "janus-io0"]
    assert [os.sched_getaffinity(task) for task in io] == [{cpu}]
    assert os.sched_getaffinity(rig.process.pid) == os.sched_getaffinity(0) - {cpu}
