"""The kernel's TCP with each of its options on and off, as client of Janus and as its server.

Every pair of values occurs in the rows of an ordinary run; JANUS_MATRIX=full runs the whole product,
JANUS_MATRIX_MIB (2) is what goes each way in each row, and with JANUS_MATRIX_HARMED=1 the wire harms."""

import itertools
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace

import pytest

from bench.rig import AppPolicy, Janusd, JanusdConfig, Network
from bench.rig.network import (
    CLIENT_ADDRESS,
    CLIENT_ADDRESS_6,
    SERVER_ADDRESS,
    SERVER_ADDRESS_6,
    run,
    set_in,
)
from tests.system.census import at_rest, await_level, logs_are_clean
from tests.system.conftest import HARM, StartRig
from tests.system.stream import digest, echo_both_ways, get, put

SIZE = int(os.environ.get("JANUS_MATRIX_MIB", "2")) << 20
HARMED = os.environ.get("JANUS_MATRIX_HARMED") == "1"
UPSTREAM_PORT = 9000
CONFIG = JanusdConfig(
    apps=(
        AppPolicy(name="web", ports=("80",), source_ports="40000-40999"),
        AppPolicy(name="transfer", ports=("8000",), source_ports="41000-41999"),
        AppPolicy(name="proxy4", ports=("7000",), source_ports="42000-45999"),
        AppPolicy(name="proxy6", ports=("7001",), source_ports="46000-49999"),
    )
)
TIMESTAMPS, SACK, SCALING, ECN = 1, 2, 4, 8  # tcpi_options of the kernel
VALUES = ((False, True), (False, True), (False, True), (False, True), (1500, 1280, 576), (False, True))


@dataclass(frozen=True)
class Combination:
    """What the kernel's side does."""

    sack: bool
    timestamps: bool
    scaling: bool
    ecn: bool
    mtu: int
    ipv6: bool

    def options(self) -> int:
        """What both sides agree on when the kernel asks."""
        return TIMESTAMPS * self.timestamps + SACK * self.sack + SCALING * self.scaling + ECN * self.ecn

    def apply(self, network: Network) -> None:
        """Set the sysctls and the MTU of the client's namespace."""
        for key, on in (
            ("sack", self.sack),
            ("timestamps", self.timestamps),
            ("window_scaling", self.scaling),
        ):
            set_in(network.cli, f"net.ipv4.tcp_{key}", str(int(on)))
        set_in(network.cli, "net.ipv4.tcp_ecn", str(int(self.ecn)))
        run("ip", "-n", network.cli, "link", "set", "v1", "mtu", str(self.mtu))
        if self.mtu >= 1280:  # below, the kernel takes IPv6 off the link
            run(
                "ip",
                "-n",
                network.cli,
                "-6",
                "addr",
                "replace",
                f"{CLIENT_ADDRESS_6}/64",
                "dev",
                "v1",
                "nodad",
            )


def product() -> list[Combination]:
    """All that there are: IPv6 has no link below 1,280 bytes."""
    rows = [Combination(*values) for values in itertools.product(*VALUES)]  # type: ignore[arg-type]
    return [row for row in rows if not (row.ipv6 and row.mtu < 1280)]


def pairs(row: Combination) -> set[tuple[int, object, int, object]]:
    values = astuple(row)
    return {(i, values[i], j, values[j]) for i, j in itertools.combinations(range(len(values)), 2)}


def covering() -> list[Combination]:
    """Few rows in which each pair of values occurs."""
    rows = product()
    missing = set().union(*map(pairs, rows))
    chosen: list[Combination] = []
    while missing:
        chosen.append(max(rows, key=lambda row: len(pairs(row) & missing)))
        missing -= pairs(chosen[-1])
    return chosen


def agreed(sock: socket.socket) -> tuple[int, int]:
    """Options and segment size, as the kernel has them."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return info[5] & 15, int.from_bytes(info[16:20], "little")


@contextmanager
def kernel_echo(network: Network, seen: list[tuple[int, int]]) -> Iterator[None]:
    """A server of the kernel's, for active opens; what it has agreed on goes to seen."""

    def listen() -> socket.socket:
        return socket.create_server(("::", UPSTREAM_PORT), family=socket.AF_INET6, dualstack_ipv6=True)

    def serve(sock: socket.socket) -> None:
        with sock:
            while data := sock.recv(1 << 18):
                sock.sendall(data)

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            seen.append(agreed(sock))
            threading.Thread(target=serve, args=(sock,), daemon=True).start()

    listener = network.inside(network.cli, listen)
    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()


@contextmanager
def told(rig: Janusd, row: Combination) -> Iterator[None]:
    """What fails within says which row it was, and what both sides know of their connections and of drops."""
    try:
        yield
    except (OSError, EOFError, AssertionError) as error:
        error.add_note(f"{row}\n{run('ip', 'netns', 'exec', rig.network.cli, 'ss', '-tinoem')}")
        error.add_note(f"{rig.ctl('conns')}")
        drops = {name: samples for name, samples in rig.metrics().items() if "drop" in name}
        error.add_note("\n".join(f"{name} {s}" for name, samples in drops.items() for s in samples if s[1]))
        raise


def check_row(rig: Janusd, row: Combination, seen: list[tuple[int, int]]) -> None:
    """Transfers each way with the kernel as client, and through Janus to the kernel as server."""
    row.apply(rig.network)
    address = SERVER_ADDRESS_6 if row.ipv6 else SERVER_ADDRESS
    largest = row.mtu - (60 if row.ipv6 else 40)
    expected = digest(SIZE)
    with rig.network.connect(8000, address=address, timeout=300) as sock, told(rig, row):
        options, mss = agreed(sock)
        asked = row.options() & ~(ECN * HARMED)  # a SYN that is sent again asks without (RFC 3168 6.1.1.1)
        assert options & (asked | ~ECN) == asked, f"{row}: agreed on {options:#x} as client"
        assert mss <= largest, row
        assert put(sock, SIZE) == expected, f"{row}: kernel to Janus"
        assert get(sock, SIZE) == expected, f"{row}: Janus to kernel"
    port = 7001 if row.ipv6 else 7000
    with rig.network.connect(port, address=address, timeout=300) as sock, told(rig, row):
        assert echo_both_ways(sock, SIZE) == expected, f"{row}: through Janus to the kernel and back"
    options, mss = seen[-1]
    assert options & ~ECN == row.options() & ~ECN, f"{row}: agreed on {options:#x} as server"
    assert mss <= largest, row


def test_every_pair_of_values_is_in_the_covering_rows() -> None:
    rows = covering()
    assert set().union(*map(pairs, rows)) == set().union(*map(pairs, product()))
    assert len(rows) < 15


@pytest.mark.timeout(24 * 3600 if os.environ.get("JANUS_MATRIX") == "full" else 300)
def test_options_of_the_kernel(start_rig: StartRig) -> None:
    rig = start_rig(CONFIG, HARM if HARMED else None)
    seen: list[tuple[int, int]] = []
    rows = product() if os.environ.get("JANUS_MATRIX") == "full" else covering()
    with kernel_echo(rig.network, seen):
        apps = [rig.serve("tests.system.apps.transfer:handle", port=8000, app="transfer")]
        for port, app, upstream in ((7000, "proxy4", CLIENT_ADDRESS), (7001, "proxy6", CLIENT_ADDRESS_6)):
            env = {"UPSTREAM": f"{upstream}:{UPSTREAM_PORT}"}
            apps.append(rig.serve("examples.proxy:handle", port=port, app=app, env=env))
        level = at_rest(rig)
        for row in rows:
            check_row(rig, row, seen)
        replace(rows[-1], mtu=1500, ipv6=True).apply(rig.network)  # the last FINs may have to be sent again
    await_level(rig, level, seconds=90)
    logs_are_clean(rig.process, *apps)
