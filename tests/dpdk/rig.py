"""A data plane over one end of a veth, an app's side, and the wire's side, all in this process."""

import os
import subprocess
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_network

from dpdk_glue.data_plane import DataPlane
from dpdk_glue.eal import eal_words, start_eal
from dpdk_glue.sessions import Session
from dpdk_glue.values import Address, Lease, PortConfig, Route, RowLayout, Service, SessionConfig
from tests.dpdk.app_side import AppSide
from tests.dpdk.wire_side import IP, TCP, Ether, IPv6, Packet, WireSide, until

OURS, OURS6 = IPv4Address("10.77.0.1"), IPv6Address("fd77::1")
PEER, PEER6 = IPv4Address("10.77.0.2"), IPv6Address("fd77::2")
PEER_MAC = "02:00:00:00:00:0b"
SECRET = (0x0123456789ABCDEF, 0xFEDCBA9876543210)
ROW = RowLayout(stride=64, state=0, rport=2, lport=4, laddr_index=6, snd_nxt=8, rcv_nxt=12, raddr=16)
LEASE = Lease((OURS, OURS6), ((80, 80), (40000, 49999)))
INTERFACE, PEER_INTERFACE = "gluev0", "gluev1"
RUN = os.environ.setdefault("JANUS_DPDK_RUN", str(os.getpid()))  # which the scenarios' processes belong to
NAMESPACE, PEER_NAMESPACE = f"janus-glue-{RUN}-srv", f"janus-glue-{RUN}-cli"


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


@dataclass
class Rig:
    """One app (id 1) with one thread per session, serving port 80."""

    io_threads: int = 1
    tids: tuple[int, ...] = (0,)
    mode: str = "adaptive"
    device: str = f"net_af_packet0,iface={INTERFACE}"
    huge_pages: bool = False
    rx_slots: int = 64
    neighbour: bool = True
    stats_fd: int = -1
    reassemble: bool = False
    vlan: int = 0
    lro: bool = False
    plane: DataPlane = field(init=False)
    sessions: dict[int, Session] = field(default_factory=dict)
    apps: dict[int, AppSide] = field(default_factory=dict)

    def __post_init__(self) -> None:
        start_eal(eal_words(huge_pages=self.huge_pages, memory_mib=64))
        self.plane = DataPlane(io_threads=self.io_threads, mode=self.mode, stats_fd=self.stats_fd)  # type: ignore[arg-type]
        wan = PortConfig(
            name="wan", device=self.device, reassemble=self.reassemble, vlan=self.vlan, lro=self.lro
        )
        self.port = self.plane.ports.open(wan)
        self.mac = self.plane.ports.info(self.port).mac.hex(":")
        self.plane.io_threads.start()
        routing = self.plane.routing
        routing.set_addresses({OURS: self.port, OURS6: self.port})
        routing.set_routes(
            [Route(ip_network("10.77.0.0/24"), self.port), Route(ip_network("fd77::/64"), self.port)]
        )
        if self.neighbour:
            routing.set_neighbour(self.port, PEER, mac_bytes(PEER_MAC))
            routing.set_neighbour(self.port, PEER6, mac_bytes(PEER_MAC))
        self.plane.apps.add(1, "web", SECRET)
        addresses: tuple[Address, ...] = (OURS, OURS6)
        self.plane.services.publish(
            [Service(a, first, last, 1) for a in addresses for first, last in LEASE.ranges]
        )
        for tid in self.tids:
            self.attach(tid)
        self.circle(self.tids)

    def config(self, tid: int) -> SessionConfig:
        return SessionConfig(
            app=1,
            tid=tid,
            generation=7,
            lease=LEASE,
            row=ROW,
            rows=1024,
            rx_slots_per_io=self.rx_slots,
            tx_slots=64,
        )

    def attach(self, tid: int) -> None:
        config = self.config(tid)
        session = self.plane.sessions.create(config)
        self.apps[tid] = AppSide(session.info(), config, self.io_threads)
        session.seal()
        session.start()
        self.sessions[tid] = session

    def circle(self, tids: tuple[int, ...], epoch: int = 1) -> None:
        step = (1 << 32) // (4 * max(len(tids), 1))
        points = [(step * (4 * i + k) + 17, tid) for k in range(4) for i, tid in enumerate(tids)]
        self.plane.balance.build_without(1, points, epoch, ())
        self.plane.balance.publish(1)

    def wire(self) -> WireSide:
        return WireSide(PEER_NAMESPACE, PEER_INTERFACE)

    def frame(
        self,
        sport: int = 1234,
        dport: int = 80,
        flags: str = "S",
        payload: bytes = b"",
        seq: int = 1000,
        ack: int = 0,
        six: bool = False,
        src: str | None = None,
    ) -> Packet:
        """A frame from the peer to us."""
        ip = IPv6(src=src or str(PEER6), dst=str(OURS6)) if six else IP(src=src or str(PEER), dst=str(OURS))
        tcp = TCP(sport=sport, dport=dport, flags=flags, seq=seq, ack=ack)
        return Ether(src=PEER_MAC, dst=self.mac) / ip / tcp / payload

    def packet(
        self,
        sport: int = 80,
        dport: int = 1234,
        flags: str = "SA",
        payload: bytes = b"",
        six: bool = False,
        src: str | None = None,
        dst: str | None = None,
    ) -> bytes:
        """An IP packet from us to the peer, as an app builds it."""
        ip: Packet
        if six:
            ip = IPv6(src=src or str(OURS6), dst=dst or str(PEER6))
        else:
            ip = IP(src=src or str(OURS), dst=dst or str(PEER))
        return bytes(ip / TCP(sport=sport, dport=dport, flags=flags, seq=5000, ack=1001) / payload)

    def received(self, tid: int, count: int = 1) -> list:
        got: list = []
        until(
            lambda: got.extend(self.apps[tid].recv()) or len(got) >= count,
            f"{count} packets in the app's ring",
        )
        return got

    def completed(self, tid: int, count: int = 1) -> list[tuple[int, int]]:
        done: list[tuple[int, int]] = []
        until(lambda: done.extend(self.apps[tid].completions()) or len(done) >= count, f"{count} completions")
        return done

    def close(self) -> None:
        for tid, session in self.sessions.items():
            slots = session.stop()
            assert slots.free == slots.total, f"tid {tid}: {slots}"
            assert slots.held == 0
            session.free()
            self.apps[tid].close()
        self.plane.close()


def run(*command: str) -> None:
    subprocess.run(command, check=True)


def make_link() -> None:
    """Make two namespaces and a veth between them, without addresses: a test sends and sees raw frames."""
    remove_link()
    run("ip", "netns", "add", NAMESPACE)
    run("ip", "netns", "add", PEER_NAMESPACE)
    run(
        "ip",
        "link",
        "add",
        INTERFACE,
        "netns",
        NAMESPACE,
        "type",
        "veth",
        "peer",
        "name",
        PEER_INTERFACE,
        "netns",
        PEER_NAMESPACE,
    )
    run("ip", "-n", PEER_NAMESPACE, "link", "set", PEER_INTERFACE, "address", PEER_MAC)
    for namespace, interface in ((NAMESPACE, INTERFACE), (PEER_NAMESPACE, PEER_INTERFACE)):
        run("ip", "netns", "exec", namespace, "sysctl", "-qw", f"net.ipv6.conf.{interface}.disable_ipv6=1")
        run("ip", "netns", "exec", namespace, "ethtool", "-K", interface, "tx", "off", "gro", "off")
        run("ip", "-n", namespace, "link", "set", interface, "up")


def remove_link() -> None:
    for namespace in (NAMESPACE, PEER_NAMESPACE):
        subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)
