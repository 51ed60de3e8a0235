"""Large transfers against the kernel, compared by SHA-256, on a clean wire and on one that harms.

JANUS_BULK_MIB (1024) is the size of a transfer each way, JANUS_BULK_HARMED_MIB (64) of further ones on a wire
that harms.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.rig import Impairment, Janusd
from tests.system.census import at_rest, await_level, logs_are_clean
from tests.system.conftest import HARM, SERVED, StartRig
from tests.system.stream import digest, echo_both_ways, get, put

CLEAN = int(os.environ.get("JANUS_BULK_MIB", "1024")) << 20
HARMED = int(os.environ.get("JANUS_BULK_HARMED_MIB", "64")) << 20
TRANSFER = "tests.system.apps.transfer:handle"


@pytest.mark.timeout(900)
def test_one_gibibyte_each_way(rig: Janusd) -> None:
    app = rig.serve(TRANSFER, port=8000)
    level = at_rest(rig)
    expected = digest(CLEAN)
    with rig.network.connect(8000, timeout=60) as sock:
        assert put(sock, CLEAN) == expected, "kernel to Janus"
        assert get(sock, CLEAN) == expected, "Janus to kernel"
    await_level(rig, level)
    logs_are_clean(rig.process, app)


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("seed", "size", "connections"), [(1, CLEAN, 8), (2, HARMED, 1)])
def test_each_way_over_a_wire_that_harms(start_rig: StartRig, seed: int, size: int, connections: int) -> None:
    """Loss holds one connection to some MB/s, so that the large transfer goes over several at a time."""
    rig = start_rig(SERVED, Impairment(**{**HARM.__dict__, "seed": seed}))
    app = rig.serve(TRANSFER, port=8000)
    level = at_rest(rig)
    share = size // connections
    expected = digest(share)

    def transfer(_: int) -> None:
        with rig.network.connect(8000, timeout=120) as sock:
            assert put(sock, share) == expected, "kernel to Janus"
            assert get(sock, share) == expected, "Janus to kernel"

    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(transfer, range(connections)))
    stats = rig.network.relay_stats()
    assert min(stats["lost"], stats["duplicated"], stats["reordered"], stats["corrupted"]) > 0, stats
    await_level(rig, level)
    logs_are_clean(rig.process, app)


@pytest.mark.timeout(600)
def test_both_ways_at_once_over_such_a_wire(start_rig: StartRig) -> None:
    rig = start_rig(SERVED, HARM)
    rig.serve("examples.echo:handle", port=8000)
    with rig.network.connect(8000, timeout=120) as sock:
        assert echo_both_ways(sock, HARMED // 4) == digest(HARMED // 4)
