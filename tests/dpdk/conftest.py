"""Each test runs one scenario in a process of its own: EAL starts once per process."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

Scenario = Callable[..., None]


def _run(module: str, name: str, prefix: list[str]) -> None:
    native = ROOT / os.environ.get("JANUS_NATIVE", "build/check/native")
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'sdk'}:{native}"}
    command = [*prefix, sys.executable, "-c", f"import {module} as m; m.{name}()"]
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{name} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="session")
def link() -> Iterator[str]:
    """A namespace with one end of a veth; its peer is in another one."""
    if os.geteuid() != 0:
        pytest.skip("needs root: namespaces and packet sockets")
    from tests.dpdk.rig import NAMESPACE, make_link, remove_link

    make_link()
    yield NAMESPACE
    remove_link()


@pytest.fixture
def on_veth(link: str) -> Scenario:
    """Run a function of a module in its own process inside the namespace."""
    return lambda module, name: _run(module, name, ["ip", "netns", "exec", link])


@pytest.fixture
def on_vdev() -> Scenario:
    """Run a function of a module in its own process; it makes its own devices in memory."""
    return lambda module, name: _run(module, name, [])
