"""Frames that nobody should send, at the speed of the wire for 10 s: counted, and service goes on."""

import json
import subprocess
import time

import pytest

from bench.rig import REPO, Janusd, build_tool
from bench.rig.network import SERVER_ADDRESS
from tests.system.census import at_rest, await_level, logs_are_clean
from tests.system.stream import digest, echo_both_ways

pytestmark = pytest.mark.alone  # at the speed of the wire
SOURCE = REPO / "tests" / "system" / "garbage.c"
SECONDS = 10


def dropped(rig: Janusd) -> int:
    """All frames that janusd and the app's TCP have counted as dropped."""
    by_port: int = sum(sum(row["drops"].values()) for row in rig.rows("ports"))
    by_thread: int = sum(
        value
        for row in rig.rows("threads")
        for name, value in row["counters"].items()
        if name.startswith("drop")
    )
    return by_port + by_thread


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", [1])
def test_garbage_is_counted_and_service_goes_on(rig: Janusd, seed: int) -> None:
    app = rig.serve("examples.echo:handle", port=8000)
    level = at_rest(rig)
    before = dropped(rig)
    target = ["v1", rig.network.server_mac(), SERVER_ADDRESS, "8000"]
    words = [str(build_tool(SOURCE)), *target, str(SECONDS), str(seed)]
    held = rig.network.connect(8000)
    with subprocess.Popen(
        ["ip", "netns", "exec", rig.network.cli, *words], stdout=subprocess.PIPE, text=True
    ) as flood:
        served = 0
        while flood.poll() is None:
            with rig.network.connect(8000, timeout=SECONDS * 2) as sock:
                assert echo_both_ways(sock, 10_000) == digest(10_000)
            served += 1
            time.sleep(0.1)
        assert flood.stdout is not None
        sent = json.loads(flood.stdout.read())
    assert flood.returncode == 0
    assert sent["total"] > 100_000, sent
    assert served > 0
    assert echo_both_ways(held, 100_000) == digest(100_000), "a connection from before the flood"
    held.close()
    assert rig.process.alive()
    assert app.alive()
    # What the port's own queue could not hold never reached janusd.
    assert dropped(rig) - before > sent["total"] / 10
    await_level(rig, level)
    logs_are_clean(rig.process, app)
