"""Segments that go to the port as one: net_tap cuts them, in software, and the kernel behind it hears the result.

net_tap cuts what fits its MTU with the Ethernet header, and IPv4 alone; so the port's MTU leaves room for that."""

import contextlib
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.utils import RawPcapReader

from bench.rig import Janusd, Network
from bench.rig.janusd import AppPolicy, JanusdConfig
from bench.rig.network import SERVER_ADDRESS_6, run
from bench.rig.processes import Process, wait_until
from tests.packets import checksum
from tests.system.stream import digest, get, put
from tests.system.test_interop_capture import need, tshark

MTU = 1400
SIZE = 4 << 20
FIELDS = (
    "ip.len",
    "ip.id",
    "ip.checksum.status",
    "tcp.len",
    "tcp.checksum.status",
    "tcp.checksum",
    "tcp.flags.push",
    "tcp.srcport",
)


class TapNetwork(Network):
    """The client is janusd's own namespace's kernel, behind the tap that net_tap makes."""

    def __enter__(self) -> "TapNetwork":
        super().__enter__()
        self.cli = self.srv
        return self


class TapJanusd(Janusd):
    """janusd, with addresses for the kernel's end of its tap."""

    def start(self) -> None:
        super().start()
        namespace = self.network.srv
        run("ip", "-n", namespace, "addr", "add", "10.77.0.9/24", "dev", "tap0")
        run("ip", "-n", namespace, "-6", "addr", "add", "fd77::9/64", "dev", "tap0", "nodad")
        run("ip", "-n", namespace, "link", "set", "tap0", "up")


@contextlib.contextmanager
def tap_janusd(workdir: Path, tso: bool) -> Iterator[Janusd]:
    config = JanusdConfig(
        apps=(AppPolicy(name="web", ports=("8000",)),),
        device="net_tap0,iface=tap0",
        port_keys=f"mtu = {MTU}\ntso = {str(tso).lower()}",
    )
    with TapNetwork("tso", workdir) as network, TapJanusd(network, workdir, config) as daemon:
        daemon.serve("tests.system.apps.transfer:handle", port=8000)
        yield daemon


@contextlib.contextmanager
def captured(rig: Janusd, path: Path) -> Iterator[None]:
    """What janusd sends, as the kernel gets it."""
    words = ["dumpcap", "-q", "-i", "tap0", "-f", "tcp src port 8000", "-B", "64", "-w", str(path)]
    with Process(words, name=path.stem, workdir=path.parent, namespace=rig.network.srv) as dumpcap:
        wait_until(lambda: "File:" in dumpcap.text(), 20, "dumpcap captures")
        yield
        dumpcap.kill(signal.SIGINT)
        dumpcap.wait(20)


def segments(path: Path) -> list[dict[str, str]]:
    """What tshark says of each segment with data."""
    fields = [word for name in FIELDS for word in ("-e", name)]
    lines = tshark(path, "-Y", "tcp.len > 0", "-T", "fields", *fields)
    return [dict(zip(FIELDS, line.split("\t"), strict=True)) for line in lines]


def sums(path: Path) -> list[int]:
    """The checksum over each captured segment and its pseudo header: 0 if its own is good, be that 0 or 0xffff."""
    found = []
    with RawPcapReader(str(path)) as frames:
        for frame, _ in frames:
            packet = frame[14 : 14 + struct.unpack_from("!H", frame, 16)[0]]
            segment = packet[4 * (packet[0] & 15) :]
            found.append(checksum(packet[12:20] + struct.pack("!II", len(segment), 6) + segment))
    return found


@pytest.mark.parametrize("tso", [True, False], ids=["the port cuts", "janusd cuts"])
def test_a_stream_over_a_port_that_cuts(workdir: Path, tso: bool) -> None:
    need("tshark")
    with tap_janusd(workdir, tso) as rig:
        [port] = rig.rows("ports")
        assert ("tx_tso_ipv4" in port["offloads"]) == tso
        assert "tx_tso_ipv6" not in port["offloads"]
        path = workdir / "sent.pcap"
        with captured(rig, path), rig.network.connect(8000, timeout=60) as sock:
            assert put(sock, SIZE) == digest(SIZE)
            assert get(sock, SIZE) == digest(SIZE)
        joined = rig.metric("janus_port_tx_joined_total")
        seen = segments(path)
        assert sum(int(s["tcp.len"]) for s in seen) > SIZE // 2, "a capture may miss some"
        assert {s["ip.checksum.status"] for s in seen} == {"1"}
        assert set(sums(path)) == {0}
        # The port writes 0xffff for 0: the same number to who adds up (RFC 1071), as above; not to tshark.
        assert {s["tcp.checksum.status"] for s in seen if s["tcp.checksum"] != "0xffff"} == {"1"}
        assert max(int(s["ip.len"]) for s in seen) == MTU
        if not tso:
            assert joined == 0
            return
        assert joined > SIZE / MTU / 2
        with rig.network.connect(8000, address=SERVER_ADDRESS_6, timeout=60) as sock:
            assert sock.family == socket.AF_INET6
            assert put(sock, SIZE) == digest(SIZE)
            assert get(sock, SIZE) == digest(SIZE)
        assert rig.metric("janus_port_tx_joined_total") == joined, "the driver would pass IPv6 on uncut"
