"""A port that joins segments, and says of text that it is good though its sum is not there: scenarios of
virtio_scenarios, each in a process of its own, with another process behind the port."""

import inspect
import subprocess
from pathlib import Path

import pytest

from tests.dpdk import virtio_scenarios
from tests.dpdk.conftest import ROOT, Scenario
from tests.dpdk.test_inline import FLAGS

MODULE = "tests.dpdk.virtio_scenarios"
NAMES = [
    name
    for name, function in inspect.getmembers(virtio_scenarios, inspect.isfunction)
    if function.__module__ == MODULE and not name.startswith("_")
]


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The process behind the port."""
    program = tmp_path_factory.mktemp("joined") / "joined"
    cflags, libs = (
        subprocess.run(["pkg-config", what, "libdpdk"], capture_output=True, text=True, check=True).stdout
        for what in ("--cflags", "--libs")
    )
    words = ["gcc", *FLAGS, *cflags.split(), "tests/dpdk/joined.c", "-o", str(program), *libs.split()]
    subprocess.run(words, cwd=ROOT, check=True)
    return program


@pytest.mark.parametrize("name", NAMES)
def test_scenario(
    name: str, joined: Path, tmp_path: Path, on_vdev: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(virtio_scenarios.PROGRAM, str(joined))
    monkeypatch.setenv(virtio_scenarios.SOCKET, str(tmp_path / "port.sock"))
    on_vdev(MODULE, name)
