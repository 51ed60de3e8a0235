"""The packet path over a veth: each scenario of veth_scenarios in a process of its own."""

import inspect

import pytest

from tests.dpdk.conftest import Scenario

MODULE = "tests.dpdk.veth_scenarios"


def _names() -> list[str]:
    from tests.dpdk import veth_scenarios as m

    return [
        n
        for n, f in inspect.getmembers(m, inspect.isfunction)
        if f.__module__ == MODULE and not n.startswith("_")
    ]


@pytest.mark.parametrize("name", _names())
def test_scenario(name: str, on_veth: Scenario) -> None:
    on_veth(MODULE, name)
