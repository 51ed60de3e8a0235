"""The load generator drives an echo server over rings: every connection is accounted for."""

from collections.abc import Iterator

import pytest

from bench.rig import AppPolicy, JanusdConfig, Network, Workdir
from bench.rig.load import RingJanusd

HELD = 3000


@pytest.fixture(scope="module")
def janusd() -> Iterator[RingJanusd]:
    config = JanusdConfig(apps=(AppPolicy(name="echo", ports=("7",)),))
    with (
        Workdir("load") as workdir,
        Network("load", workdir.path) as network,
        RingJanusd(network, workdir.path, config) as running,
    ):
        running.serve("examples.echo:handle", port=7, app="echo")
        yield running


@pytest.mark.parametrize("size", [4, 64, 1448, 8192])
def test_short_connections_are_all_served_and_echoed_right(janusd: RingJanusd, size: int) -> None:
    found = janusd.load.measure("run", seconds=0.3, warm=0, window=32, bytes=size)
    assert found["completed"] > 0
    assert found["bad"] == found["lost"] == found["resets"] == found["unfinished"] == 0
    assert found["handshake"]["count"] >= found["opened"]
    assert 0 < found["handshake"]["p50_us"] <= found["handshake"]["p99_us"] <= found["handshake"]["max_us"]


def test_a_rate_is_not_exceeded(janusd: RingJanusd) -> None:
    found = janusd.load.measure("run", seconds=0.5, warm=0, rate=1000)
    assert 0 < found["opened"] <= 1000 * found["seconds"] + 32  # a burst


def test_held_connections_are_sampled_and_closed(janusd: RingJanusd) -> None:
    opened = janusd.load.do("open", count=HELD, window=256)
    assert opened["established"] == opened["held"] == HELD
    sampled = janusd.load.measure("sample", seconds=0.3, warm=0, sample=1000)
    assert sampled["replies"] > 0
    assert sampled["bad"] == sampled["resets"] == 0
    assert janusd.load.close_all()["completed"] == HELD


def test_kept_connections_exchange_without_end(janusd: RingJanusd) -> None:
    janusd.load.do("open", count=8, requests=1)
    found = janusd.load.measure("keep", seconds=0.3, warm=0)
    assert found["replies"] > 8  # more than one each
    assert found["opened"] == 0
    assert janusd.load.close_all()["completed"] == 8


def test_what_is_not_answered_is_counted_as_unfinished(janusd: RingJanusd) -> None:
    found = janusd.load.measure("run", seconds=0.3, warm=0, rate=200, window=0, port=9)
    assert found["established"] == 0
    assert found["unfinished"] == found["opened"] > 0
    assert found["resets"] >= found["opened"] - 2  # the last may be on its way
    assert janusd.load.answers(7)


def test_each_connection_is_counted_as_lost_or_as_unfinished(janusd: RingJanusd) -> None:
    """Those of the beginning are lost before the end (after 2 s), the others are not."""
    found = janusd.load.measure("run", seconds=2.3, warm=0, rate=200, window=0, port=9)
    assert found["lost"] > 0
    assert found["unfinished"] > 0
    assert found["lost"] + found["unfinished"] == found["opened"]
