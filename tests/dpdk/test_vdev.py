"""EAL, ports and regions without a network: each scenario of vdev_scenarios in a process of its own."""

import inspect

import pytest

from tests.dpdk import vdev_scenarios
from tests.dpdk.conftest import Scenario

MODULE = "tests.dpdk.vdev_scenarios"
NAMES = [
    name
    for name, function in inspect.getmembers(vdev_scenarios, inspect.isfunction)
    if function.__module__ == MODULE and not name.startswith("_")
]


@pytest.mark.parametrize("name", NAMES)
def test_scenario(name: str, on_vdev: Scenario) -> None:
    on_vdev(MODULE, name)
