"""A kernel router between janusd and the client, with a link behind it that is narrower than the rest of the path.

    srv: v0 ==== 1500 ==== v1: cli, the router :n0 ==== NARROW ==== n1: far

The client claims an MSS of a wide link, so that only the path says what fits.  A router whose own end of the link has
the small MTU answers "too big"; one whose end is wide sends frames that the link drops, and nobody tells (RFC 2923)."""

import contextlib
import dataclasses
import socket
from collections.abc import Iterator

import pytest

from bench.rig import Janusd
from bench.rig.network import (
    CLIENT_ADDRESS,
    CLIENT_ADDRESS_6,
    SERVER_ADDRESS,
    SERVER_ADDRESS_6,
    plain_frames,
    run,
    set_in,
)
from bench.rig.processes import wait_until
from tests.system.conftest import SERVED, StartRig
from tests.system.stream import digest, get

NARROW = 1300
SIZE = 4 << 20
ROUTED = dataclasses.replace(SERVED, gateway=f"{CLIENT_ADDRESS} {CLIENT_ADDRESS_6}")


@contextlib.contextmanager
def far_client(rig: Janusd) -> Iterator[str]:
    """The namespace behind the router; the link's MTU is small at its end."""
    router, far = rig.network.cli, f"{rig.network.name}-far"
    run("ip", "netns", "add", far)
    try:
        link = ("link", "add", "n0", "netns", router, "type", "veth", "peer", "name", "n1", "netns", far)
        run("ip", *link)
        for namespace, name, number in ((router, "n0", 1), (far, "n1", 2)):
            plain_frames(namespace, name)
            run("ip", "-n", namespace, "addr", "add", f"10.78.0.{number}/24", "dev", name)
            run("ip", "-n", namespace, "-6", "addr", "add", f"fd78::{number}/64", "dev", name, "nodad")
            run("ip", "-n", namespace, "link", "set", name, "up")
        run("ip", "-n", far, "link", "set", "n1", "mtu", str(NARROW))
        run("ip", "-n", far, "route", "add", "10.77.0.0/24", "via", "10.78.0.1", "advmss", "1460")
        run("ip", "-n", far, "-6", "route", "add", "fd77::/64", "via", "fd78::1", "advmss", "1440")
        set_in(router, "net.ipv4.ip_forward", "1")
        set_in(router, "net.ipv6.conf.all.forwarding", "1")
        yield far
    finally:
        run("ip", "netns", "del", far)


def transfer(rig: Janusd, far: str, address: str, awaited: str) -> tuple[str, dict[str, float]]:
    """The digest of what comes, and how the counters of path MTU discovery went up."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    names = ("icmp_errors", "pmtu_reductions", "pmtu_probes", "pmtu_raises")

    def counted() -> dict[str, float]:
        return {name: rig.metric(f"janus_tcp_{name}_total") for name in names}

    before = counted()
    with rig.network.inside(far, lambda: socket.socket(family, socket.SOCK_STREAM)) as sock:
        sock.settimeout(30)
        sock.connect((address, 8000))
        came = get(sock, SIZE)
    with contextlib.suppress(TimeoutError):  # what is scraped is a moment old
        wait_until(lambda: counted()[awaited] > before[awaited], 5, awaited)
    return came, {name: value - before[name] for name, value in counted().items()}


@pytest.mark.timeout(120)
def test_a_router_tells_and_a_router_does_not(start_rig: StartRig) -> None:
    rig = start_rig(ROUTED)
    rig.serve("tests.system.apps.transfer:handle", port=8000)
    with far_client(rig) as far:
        run("ip", "-n", rig.network.cli, "link", "set", "n0", "mtu", str(NARROW))
        for address in (SERVER_ADDRESS, SERVER_ADDRESS_6):
            came, went_up = transfer(rig, far, address, "pmtu_reductions")
            assert came == digest(SIZE)
            assert went_up["icmp_errors"] >= 1, (address, went_up)
            assert went_up["pmtu_reductions"] == 1, (address, went_up)
            assert went_up["pmtu_probes"] == 0, (address, went_up)
        run("ip", "-n", rig.network.cli, "link", "set", "n0", "mtu", "1500")
        came, went_up = transfer(rig, far, SERVER_ADDRESS, "pmtu_raises")
        assert came == digest(SIZE)
        assert went_up["pmtu_reductions"] >= 1, went_up
        assert went_up["pmtu_raises"] >= 1, "the search found more than the base size"
