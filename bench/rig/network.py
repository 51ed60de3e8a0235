"""Namespaces and veth pairs.

    direct     NAME-srv: v0 ======================== v1: NAME-cli
    impaired   NAME-srv: v0 === r0: NAME-rel: r1 === v1: NAME-cli      with the relay between r0 and r1
    rival      NAME-riv: v2 === r2: NAME-rel                           r0 and r2 bridged: one relay for both

v0 belongs to janusd: no address and no IPv6, so that the kernel beside it stays silent.  v1 has kernel
sockets; its offloads are off, because on a veth a kernel that leaves checksums to the device, or sends
frames of 64 KiB, would send what no wire carries."""

import ctypes
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from bench.rig.processes import REPO, Process
from bench.rig.tools import build_tool

SERVER_ADDRESS = "10.77.0.1"
CLIENT_ADDRESS = "10.77.0.2"
RIVAL_ADDRESS = "10.77.0.3"
SERVER_ADDRESS_6 = "fd77::1"
CLIENT_ADDRESS_6 = "fd77::2"
CLONE_NEWNET = 0x40000000
RELAY_SOURCE = REPO / "tests" / "system" / "relay.c"

T = TypeVar("T")


@dataclass(frozen=True)
class Impairment:
    """What the relay does to frames, in parts per million, the delays in microseconds, all drawn from the
    seed; a bottleneck each way when there is a rate; one_way: only what janusd's end sends is harmed."""

    loss_ppm: int = 0
    duplicate_ppm: int = 0
    reorder_ppm: int = 0
    corrupt_ppm: int = 0
    delay_us: int = 0
    reorder_us: int = 1500
    seed: int = 1
    rate_kbps: int = 0
    queue_bytes: int = 0
    one_way: int = 0


class Network:
    """The namespaces of one rig, from enter to exit."""

    def __init__(
        self,
        purpose: str,
        workdir: Path,
        impairment: Impairment | None = None,
        *,
        kernel_server: bool = False,
        rival: bool = False,
    ) -> None:
        """kernel_server: give the server's end an address, for kernel sockets in janusd's place.  rival: a
        second host of the kernel's beside the server, behind the same relay."""
        self.name = f"janus-{purpose}-{os.getpid()}"
        self.srv = f"{self.name}-srv"
        self.cli = f"{self.name}-cli"
        self.rel = f"{self.name}-rel"
        self.riv = f"{self.name}-riv"
        self._workdir = workdir
        self._impairment = impairment
        self._kernel_server = kernel_server
        self._rival = rival
        self._relay: Process | None = None
        self._made: list[str] = []

    def __enter__(self) -> "Network":
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._relay is not None:
            self._relay.stop()
            self._relay = None
        while self._made:
            subprocess.run(["ip", "netns", "del", self._made.pop()], check=False, capture_output=True)

    def server_mac(self) -> str:
        """The Ethernet address of janusd's end."""
        links = json.loads(run("ip", "-n", self.srv, "-j", "link", "show", "v0"))
        return str(links[0]["address"])

    def inside(self, namespace: str, action: Callable[[], T]) -> T:
        """Run action in a thread inside a namespace: sockets that it makes stay there and can be used
        anywhere."""
        outcome: list[T] = []
        trouble: list[BaseException] = []

        def enter() -> None:
            try:
                _setns(namespace)
                outcome.append(action())
            except BaseException as error:
                trouble.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if trouble:
            raise trouble[0]
        return outcome[0]

    def client_socket(self, *, family: int = socket.AF_INET, timeout: float = 30.0) -> socket.socket:
        """An unconnected TCP socket of the client's kernel."""
        made = self.inside(self.cli, lambda: socket.socket(family, socket.SOCK_STREAM))
        made.settimeout(timeout)
        return made

    def connect(self, port: int, *, address: str = SERVER_ADDRESS, timeout: float = 30.0) -> socket.socket:
        """A TCP connection from the client's kernel."""
        made = self.client_socket(
            family=socket.AF_INET6 if ":" in address else socket.AF_INET, timeout=timeout
        )
        try:
            made.connect((address, port))
        except BaseException:
            made.close()
            raise
        return made

    def answers(self, port: int, *, address: str = SERVER_ADDRESS) -> bool:
        """Whether a connection to the port opens within a second."""
        try:
            self.connect(port, address=address, timeout=1.0).close()
        except OSError:
            return False
        return True

    def relay_stats(self) -> dict[str, int]:
        """What the relay has passed and harmed so far."""
        assert self._relay is not None
        stats: dict[str, int] = json.loads(self._relay.ask("stats"))
        return stats

    def _build(self) -> None:
        for namespace in (self.srv, self.cli) if self._impairment is None else (self.srv, self.cli, self.rel):
            run("ip", "netns", "add", namespace)
            self._made.append(namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        if self._impairment is None:
            _veth(self.srv, "v0", self.cli, "v1")
        else:
            _veth(self.srv, "v0", self.rel, "r0")
            _veth(self.rel, "r1", self.cli, "v1")
        self._quiet(self.srv, "v0")
        plain_frames(self.cli, "v1")
        run("ip", "-n", self.cli, "addr", "add", f"{CLIENT_ADDRESS}/24", "dev", "v1")
        run("ip", "-n", self.cli, "-6", "addr", "add", f"{CLIENT_ADDRESS_6}/64", "dev", "v1", "nodad")
        set_in(self.cli, "net.ipv4.ip_local_port_range", "1024 65535")
        set_in(self.cli, "net.ipv4.tcp_tw_reuse", "1")
        if self._kernel_server:
            if self._impairment is not None:
                plain_frames(self.srv, "v0")
            run("ip", "-n", self.srv, "addr", "add", f"{SERVER_ADDRESS}/24", "dev", "v0")
            set_in(self.srv, "net.core.somaxconn", "4096")
        for namespace, link in ((self.srv, "v0"), (self.cli, "v1")):
            run("ip", "-n", namespace, "link", "set", link, "up")
        if self._rival:
            self._add_rival()
        if self._impairment is not None:
            self._start_relay(self._impairment)

    def _add_rival(self) -> None:
        run("ip", "netns", "add", self.riv)
        self._made.append(self.riv)
        _veth(self.riv, "v2", self.rel, "r2")
        plain_frames(self.riv, "v2")
        plain_frames(self.rel, "r2")
        run("ip", "-n", self.riv, "addr", "add", f"{RIVAL_ADDRESS}/24", "dev", "v2")
        run("ip", "-n", self.riv, "link", "set", "v2", "up")
        run("ip", "-n", self.rel, "link", "add", "br0", "type", "bridge")
        for link in ("r0", "r2"):
            self._quiet(self.rel, link)
            run("ip", "-n", self.rel, "link", "set", link, "master", "br0", "up")
        self._quiet(self.rel, "br0")
        run("ip", "-n", self.rel, "link", "set", "br0", "up")

    def impair(self, **settings: int) -> dict[str, int]:
        """Change what the relay does, by fields of Impairment; its counters."""
        assert self._relay is not None
        words = " ".join(f"{key}={value}" for key, value in settings.items())
        stats: dict[str, int] = json.loads(self._relay.ask(words))
        return stats

    def _start_relay(self, impairment: Impairment) -> None:
        for link in ("r0", "r1"):
            self._quiet(self.rel, link)
            plain_frames(self.rel, link)
            run("ip", "-n", self.rel, "link", "set", link, "up")
        words = [f"{key}={value}" for key, value in asdict(impairment).items()]
        self._relay = Process(
            [str(build_tool(RELAY_SOURCE)), "br0" if self._rival else "r0", "r1", *words],
            name="relay",
            workdir=self._workdir,
            namespace=self.rel,
            interactive=True,
        )
        self._relay.answer()

    def _quiet(self, namespace: str, link: str) -> None:
        set_in(namespace, f"net.ipv6.conf.{link}.disable_ipv6", "1")


def plain_frames(namespace: str, link: str) -> None:
    """A link whose kernel puts whole checksums into frames, cuts and joins none, as a wire has them."""
    off = [word for feature in ("tx", "tso", "gso", "gro") for word in (feature, "off")]
    run("ip", "netns", "exec", namespace, "ethtool", "-K", link, *off)


def deafen(namespace: str, link: str) -> None:
    """Have the kernel drop what comes on a link, behind packet sockets, as docs/operating.md has it."""
    hook = f'type filter hook ingress device "{link}" priority 0; policy drop;'
    rules = f"table netdev janus {{ chain ingress {{ {hook} }}; }}"
    run("ip", "netns", "exec", namespace, "nft", rules)


def run(*words: str) -> str:
    """Run a command that must succeed; its output, or an error with its complaint."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def set_in(namespace: str, key: str, value: str) -> None:
    """Set a sysctl in a network namespace."""
    run("ip", "netns", "exec", namespace, "sysctl", "-qw", f"{key}={value}")


def _veth(namespace: str, link: str, peer_namespace: str, peer: str) -> None:
    run(
        "ip",
        "link",
        "add",
        link,
        "netns",
        namespace,
        "type",
        "veth",
        "peer",
        "name",
        peer,
        "netns",
        peer_namespace,
    )


def _setns(namespace: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter the namespace {namespace}")
    finally:
        os.close(descriptor)
