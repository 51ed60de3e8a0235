"""The servers and wires of the benchmarks of connections: whole server on one processor, load on the other.

    ring    janusd's port is two rings, the load a thread of its process
    memif   a shared-memory port between two processes, as DPDK has it
    veth    af_packet on both ends of a veth
    linux   the same veth and load, kernel sockets and epoll

On the veth receive packet steering gives each end's kernel work to its own side's processor, so that the
server's processor pays for the server alone."""

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench.framework import Row, make_row
from bench.rig import REPO, AppPolicy, Janusd, JanusdConfig, Network, Process, Workdir, missing_privileges
from bench.rig.load import GATEWAY, Load, Result, RingJanusd, load_process
from bench.rig.network import deafen, run, set_in
from bench.rig.processes import wait_until
from bench.rig.tools import build_janus_tool, build_tool
from janusd.stats_page import StatsPage, open_page

LOAD_CPU, SERVER_CPU = 0, 1
PORT = 7
ROWS = 262144
SLOTS = 8192
BENCH = REPO / "bench"
AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")
Start = Callable[[Janusd, Path, str, int], AbstractContextManager[Process]]  # workdir, mode, CPU


@dataclass(frozen=True)
class Server:
    """A server under load."""

    load: Load
    counters: Callable[[], Mapping[str, float]]  # that go up, to be subtracted
    app: Process | None = None  # of Janus


def policy() -> AppPolicy:
    """The app's, roomy."""
    return AppPolicy(name="echo", ports=(str(PORT),), connections_max=ROWS, rx_slots=SLOTS, tx_slots=SLOTS)


def steer(network: Network) -> None:
    """Let the server's processor do the server's part of the kernel's work, and the load's the load's."""
    for namespace, link, cpu in ((network.srv, "v0", SERVER_CPU), (network.cli, "v1", LOAD_CPU)):
        command = f"echo {1 << cpu:x} > /sys/class/net/{link}/queues/rx-0/rps_cpus"
        run("ip", "netns", "exec", namespace, "sh", "-c", command)


@contextlib.contextmanager
def echo_app(janusd: Janusd, workdir: Path, mode: str, cpu: int) -> Iterator[Process]:
    """The C echo server, attached."""
    program = build_janus_tool(BENCH / "echo_janus.c")
    words = [str(program), str(janusd.attach_socket), "echo", str(PORT), str(cpu), mode]
    with Process(words, name="echo", workdir=workdir, user="nobody", interactive=True) as app:
        janusd.await_threads(app, "echo", 1)
        yield app


def janus_counters(page: StatsPage, app: Process) -> dict[str, float]:
    """What I/O thread and TCP thread have counted so far.  Quick, since the load does not wait."""
    io = next(counted.counters for counted in page.read() if counted.kind == "io")
    found = {f"tcp_{key}": float(value) for key, value in json.loads(app.ask("?")).items()}
    app_packets = sum(counted.counters["rx_packets"] for counted in page.read() if counted.kind == "app")
    return {
        **found,
        **{f"io_{key}": float(value) for key, value in io.items()},
        "rx_packets": float(app_packets),
    }


@contextlib.contextmanager
def janus(
    wire: str,
    mode: str = "yield",
    cpus: tuple[int, int] = (SERVER_CPU, SERVER_CPU),
    start: Start = echo_app,
    counters: Callable[[StatsPage, Process], dict[str, float]] = janus_counters,
) -> Iterator[Server]:
    """janusd and a server on one wire; cpus: of I/O thread and TCP thread."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(one_scheduling_group())
        path = stack.enter_context(Workdir("conns")).path
        network = stack.enter_context(Network("conns", path))
        config = JanusdConfig(apps=(policy(),), mode=mode, cpus=(cpus[0],))
        if wire == "ring":
            ring = stack.enter_context(RingJanusd(network, path, config, load_cpu=LOAD_CPU, port=PORT))
            app = stack.enter_context(start(ring, path, mode, cpus[1]))
            load = ring.load
            janusd: Janusd = ring
        else:
            memif = f"net_memif0,socket={path / 'memif.sock'},socket-abstract=no,rsize=11"
            device, peer, namespace = (
                (f"{memif},role=server", f"{memif},role=client", None)
                if wire == "memif"
                else (config.device, "net_af_packet0,iface=v1", network.cli)
            )
            if wire == "veth":
                quiet_client(network)
                deafen(network.srv, "v0")
            settings = JanusdConfig(
                apps=config.apps, mode=mode, cpus=config.cpus, device=device, gateway=GATEWAY
            )
            janusd = stack.enter_context(Janusd(network, path, settings))
            load = stack.enter_context(load_process(path, peer, namespace=namespace, cpu=LOAD_CPU, port=PORT))
            app = stack.enter_context(start(janusd, path, mode, cpus[1]))
        wait_until(lambda: load.answers(PORT), 10, f"{wire} answers:\n{janusd.process.tail()}")
        page = open_page(config.stats_name)
        yield Server(load, lambda: counters(page, app), app)


@contextlib.contextmanager
def one_scheduling_group() -> Iterator[None]:
    """As docs/operating.md has it for processors that are shared: no group for each session of processes."""
    if not AUTOGROUP.exists():
        yield
        return
    before = AUTOGROUP.read_text()
    AUTOGROUP.write_text("0")
    try:
        yield
    finally:
        AUTOGROUP.write_text(before)


def quiet_client(network: Network) -> None:
    """Have the kernel at the load's end drop at once what the load receives, and say nothing itself."""
    deafen(network.cli, "v1")
    set_in(network.cli, "net.ipv6.conf.v1.disable_ipv6", "1")
    steer(network)


@contextlib.contextmanager
def linux(words: Sequence[str] | None = None) -> Iterator[Server]:
    """A kernel server over a veth, words its command line; None: epoll in C."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(one_scheduling_group())
        path = stack.enter_context(Workdir("connsk")).path
        network = stack.enter_context(Network("connsk", path, kernel_server=True))
        quiet_client(network)
        run(
            "ip", "netns", "exec", network.srv, "ethtool", "-K", "v0", "tx", "off", "tso", "off", "gso", "off"
        )
        run("ip", "-n", network.srv, "route", "add", "default", "via", GATEWAY)
        for key, value in (("core.somaxconn", 65535), ("ipv4.tcp_max_syn_backlog", 65535)):
            set_in(network.srv, f"net.{key}", str(value))
        words = words or [str(build_tool(BENCH / "echo_linux.c")), str(PORT), str(SERVER_CPU)]
        stack.enter_context(Process(words, name="linux", workdir=path, namespace=network.srv))
        load = stack.enter_context(
            load_process(path, "net_af_packet0,iface=v1", namespace=network.cli, cpu=LOAD_CPU, port=PORT)
        )
        wait_until(lambda: load.answers(PORT), 10, "the kernel's server answers")
        yield Server(load, dict)


def cpu_busy_seconds(cpu: int) -> float:
    """Seconds that one processor has not been idle."""
    line = next(x for x in Path("/proc/stat").read_text().splitlines() if x.startswith(f"cpu{cpu} "))
    fields = [int(word) for word in line.split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / 100.0


def measured(server: Server, command: str, **arguments: float) -> tuple[Result, dict[str, float]]:
    """A command's result, and by how much the server's counters and its processor's time went up.

    The load does not wait while the counters are read, so their span is shorter: counters are for ratios
    among themselves, and the processor's time is that of its share of the span in the command's seconds."""
    before: dict[str, float] = {}
    began: list[float] = []

    def begin() -> None:
        before.update(server.counters())
        began.extend((cpu_busy_seconds(SERVER_CPU), time.monotonic()))

    result = server.load.measure(command, begin, **arguments)
    busy = cpu_busy_seconds(SERVER_CPU) - began[0]
    if busy <= 0:
        raise RuntimeError(f"processor {SERVER_CPU} shows no busy time: others keep it from the server")
    share = busy / (time.monotonic() - began[1])
    after = server.counters()
    spent = {key: after[key] - value for key, value in before.items()}
    return result, {**spent, "cpu": share * float(result["seconds"])}


def conditions() -> dict[str, float]:
    """What the host grants at the moment.  trip: cycles of a cache line from the load's processor to the server's and
    back: with the host's placement of the two it changes fivefold, and what a server on rings spends for packets with
    it.  share: of the core that the server's processor is a thread of, as cycles of what takes more beside a busy
    neighbour."""
    commands = {
        "trip": ("line_trip.c", str(LOAD_CPU), str(SERVER_CPU)),
        "share": ("core_share.c", str(SERVER_CPU)),
    }
    return {
        key: float(subprocess.check_output([str(build_tool(BENCH / source)), *words], text=True))
        for key, (source, *words) in commands.items()
    }


def condition_rows(samples: Mapping[str, Sequence[float]]) -> list[Row]:
    """What they were beside the runs."""
    return [
        make_row("a line to the load's CPU and back", "cycles", samples["trip"], higher_is_better=False),
        make_row("four additions on the server's CPU", "cycles", samples["share"], higher_is_better=False),
    ]


def check_privileges() -> None:
    """An error when a rig cannot be built here."""
    if missing := missing_privileges():
        raise RuntimeError(missing)
