"""Fixtures of the system tests: a working directory, a rig with janusd, and what makes them skip."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import pytest

from bench.rig import AppPolicy, Impairment, Janusd, JanusdConfig, Network, Workdir, missing_privileges

SERVED = JanusdConfig(
    apps=(
        AppPolicy(name="web", ports=("80", "8000-8099"), source_ports="40000-44999"),
        AppPolicy(name="other", ports=("7000-7099",), source_ports="45000-49999"),
    )
)
HARM = Impairment(
    loss_ppm=10_000, duplicate_ppm=10_000, reorder_ppm=20_000, corrupt_ppm=100, delay_us=200, reorder_us=1500
)
StartRig = Callable[..., Janusd]


def pytest_configure(config: pytest.Config) -> None:
    """SIGTERM, such as a time limit's, ends the run as Ctrl-C does, and the processes of `-n`, which else are killed:
    what the fixtures have made is taken down."""
    runs_others = bool(config.getoption("numprocesses", None)) and not hasattr(config, "workerinput")

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # timeout(1) tells the workers, too
        workers = Path(f"/proc/self/task/{os.getpid()}/children").read_text() if runs_others else ""
        for pid in workers.split():
            os.kill(int(pid), signal.SIGTERM)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGTERM, end)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """System tests are slow, and skip with the reason where a rig cannot be built."""
    reason = missing_privileges()
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
            if reason is not None and "without_root" not in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def workdir() -> Iterator[Path]:
    """A directory that every user may enter."""
    with Workdir("test") as made:
        yield made.path


@pytest.fixture
def start_rig(workdir: Path) -> Iterator[StartRig]:
    """Builds a network with janusd on it; on a failing test janusd's log is printed."""
    with ExitStack() as stack:

        def start(config: JanusdConfig = SERVED, impairment: Impairment | None = None) -> Janusd:
            network = stack.enter_context(Network("test", workdir, impairment))
            return stack.enter_context(Janusd(network, workdir, config))

        yield start
        for log in sorted(workdir.glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()[-60:]
            print(f"--- {log.name}", *lines, sep="\n")


@pytest.fixture
def rig(start_rig: StartRig) -> Janusd:
    """janusd on a direct veth pair, with the apps web and other in its policy and none running."""
    return start_rig()
