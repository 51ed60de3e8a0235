"""python-echo: the Python examples on Janus against asyncio and uvloop on kernel sockets, over the same
kind of veth.

One server thread each (Janus: one worker, and the I/O thread of janusd), the same C client on kernel
sockets, all servers up for the whole run and measured in turn.  The server's end of the kernel's veth keeps
its offloads, as a user would have them."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from bench.cpu import cycles_by_name, machine_busy_seconds, thread_seconds
from bench.framework import Options, Program, Row, Samples, alternate, make_row
from bench.machine import cycles_per_second
from bench.python_rings import NATIVE, NATIVE_VETH, NOTES, UVLOOP_PROTOCOL, UVLOOP_STREAMS, compare, half_load
from bench.rig import (
    REPO,
    AppPolicy,
    Janusd,
    JanusdConfig,
    Network,
    Process,
    Workdir,
    build_tool,
    missing_privileges,
)
from bench.rig.network import SERVER_ADDRESS
from bench.rig.processes import python, wait_until

LOAD_SOURCE = REPO / "bench" / "load_client.c"
ECHO_PORT, HTTP_PORT = 7, 80
KERNEL_SERVERS = {
    "asyncio streams": ("streams", "asyncio"),
    "uvloop streams": ("streams", "uvloop"),
    "uvloop protocol": ("protocol", "uvloop"),
}
APP_THREAD = (
    "thread python"  # the application's only busy thread; janusd's I/O threads have names of their own
)


@dataclass(frozen=True)
class Mode:
    """One kind of load."""

    name: str
    what: str  # echo or http: which server
    case: str
    connections: int
    unit: str


MODES = (
    Mode("echo", "echo", "echo 64 B", 64, "requests/s"),
    Mode("http", "http", "HTTP GET keep-alive", 64, "requests/s"),
    Mode("connect", "echo", "connect, echo 64 B, close", 64, "connections/s"),
)


@dataclass(frozen=True)
class Server:
    """Something that serves both protocols."""

    network: Network
    ports: Mapping[str, int]
    pids: Mapping[str, Sequence[int]]  # the processes that do the serving, by protocol
    busy_cycles: Callable[[], int] | None = None  # of polling threads, as they count them themselves


def load(server: Server, mode: Mode, seconds: float, workdir: Workdir) -> Mapping[str, float]:
    """Put one load on one server and say what was seen."""
    words = [
        mode.name,
        SERVER_ADDRESS,
        str(server.ports[mode.what]),
        str(mode.connections),
        f"{seconds:g}",
        "64",
    ]
    polled = server.busy_cycles() if server.busy_cycles else 0
    client = Process(
        [str(build_tool(LOAD_SOURCE)), *words],
        name="load",
        workdir=workdir.path,
        namespace=server.network.cli,
        interactive=True,
    )
    with client:
        client.answer()
        threads, machine = thread_seconds(server.pids[mode.what]), machine_busy_seconds()
        result = json.loads(client.answer())
        busy = machine_busy_seconds() - machine
        cycles = cycles_by_name(threads, thread_seconds(server.pids[mode.what]))
    done = result["operations"]
    if not done:
        raise RuntimeError(f"{mode.case}: no operation completed, {result['errors']} errors")
    measured = {
        "rate": done / result["seconds"],
        "p99": result["p99_us"],
        "errors": float(result["errors"]),
        "server": sum(cycles.values()) / done,
        "machine": max(busy - result["client_cpu_seconds"], 0.0) * cycles_per_second() / done,
    }
    if server.busy_cycles:
        measured["busy"] = (server.busy_cycles() - polled) / result["all_operations"]
    return {**measured, **{f"thread {name}": spent / done for name, spent in cycles.items()}}


@contextlib.contextmanager
def janus_server(workdir: Workdir) -> Iterator[Server]:
    """The examples on Janus, one worker each."""
    policies = [
        AppPolicy(name="echo", ports=(str(ECHO_PORT),), source_ports="40000-44999"),
        AppPolicy(name="http", ports=(str(HTTP_PORT),), source_ports="45000-49999"),
    ]
    with (
        Network("bench", workdir.path) as network,
        Janusd(network, workdir.path, JanusdConfig(apps=policies)) as janusd,
    ):
        apps = {
            "echo": janusd.serve("examples.echo:handle", port=ECHO_PORT, app="echo"),
            "http": janusd.serve("examples.http_server:handle", port=HTTP_PORT, app="http"),
        }
        pids = {what: [janusd.process.pid, app.pid] for what, app in apps.items()}
        yield Server(network, {"echo": ECHO_PORT, "http": HTTP_PORT}, pids, lambda: io_busy_cycles(janusd))


def io_busy_cycles(janusd: Janusd) -> int:
    """Cycles of the I/O threads' turns that had something to do."""
    return sum(row["busy_cycles"] for row in janusd.ctl("status")["io_threads"])


@contextlib.contextmanager
def kernel_servers(workdir: Workdir) -> Iterator[dict[str, Server]]:
    """Their twins on kernel sockets, each on ports of its own."""
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network("benchk", workdir.path, kernel_server=True))
        servers: dict[str, Server] = {}
        for index, (name, (style, loop)) in enumerate(KERNEL_SERVERS.items()):
            ports = {"echo": 7000 + index, "http": 8000 + index}
            pids: dict[str, list[int]] = {}
            for what, port in ports.items():
                process = Process(
                    [python(), "-m", "bench.servers", what, style, loop, str(port)],
                    name=f"{name} {what}".replace(" ", "-"),
                    workdir=workdir.path,
                    namespace=network.srv,
                )
                stack.enter_context(process)
                wait_until(partial(network.answers, port), 10, f"{name} answers:\n{process.tail()}")
                pids[what] = [process.pid]
            servers[name] = Server(network, ports, pids)
        yield servers


def rows_of_mode(mode: Mode, samples: Mapping[str, Samples]) -> list[Row]:
    """One mode's figures, the rates against each baseline, the cycles against the best of them."""
    janus = samples["janus"]
    rows = [
        make_row(
            f"{mode.case} / {name}", mode.unit, janus["rate"], samples[name]["rate"], higher_is_better=True
        )
        for name in KERNEL_SERVERS
    ]
    best = samples["uvloop protocol"]
    per = mode.unit.removesuffix("s/s")
    for metric, what, unit in (
        ("p99", "latency p99", "us"),
        ("server", "server threads", f"cycles/{per}"),
        ("machine", "machine but client", f"cycles/{per}"),
    ):
        rows.append(
            make_row(
                f"{mode.case}: {what} / uvloop protocol",
                unit,
                janus[metric],
                best[metric],
                higher_is_better=False,
            )
        )
    for metric, values in sorted(janus.items()):
        if metric.startswith("thread ") and max(values) >= 1:
            base = best["server"] if metric == APP_THREAD else None
            vs = " / uvloop protocol" if base else ""
            rows.append(
                make_row(f"{mode.case}: {metric}{vs}", f"cycles/{per}", values, base, higher_is_better=False)
            )
    rows.append(
        make_row(
            f"{mode.case}: I/O threads, busy turns", f"cycles/{per}", janus["busy"], higher_is_better=False
        )
    )
    if any(janus["errors"]):
        rows.append(make_row(f"{mode.case}: errors", "count", janus["errors"], higher_is_better=False))
    return rows


def report(progress: Callable[[str], None], mode: Mode, text: str) -> None:
    """Progress within one mode."""
    progress(f"{mode.case}, {text}")


def run(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """The whole program."""
    if missing := missing_privileges():
        raise RuntimeError(missing)
    seconds, runs = options.seconds(3.0, 0.5), options.runs(7, 2)
    rows: list[Row] = []
    with contextlib.ExitStack() as stack:
        workdir = stack.enter_context(Workdir("bench"))
        progress("starting the servers")
        servers = {"janus": stack.enter_context(janus_server(workdir))}
        servers.update(stack.enter_context(kernel_servers(workdir)))
        for mode in MODES:
            contenders = {
                name: partial(load, server, mode, seconds, workdir) for name, server in servers.items()
            }
            samples = alternate(contenders, runs, partial(report, progress, mode))
            rows.extend(rows_of_mode(mode, samples))
    rows += half_load("native", NATIVE_VETH, options, progress)
    return rows + compare(
        {"native ring": NATIVE, "native veth": NATIVE_VETH},
        {"uvloop protocol": UVLOOP_PROTOCOL, "uvloop streams": UVLOOP_STREAMS},
        options,
        progress,
    )


PROGRAM = Program(
    "python-echo",
    "the Python echo and HTTP examples against asyncio and uvloop on kernel sockets, over a veth and over rings",
    run,
    notes=(
        "This machine's kernel networking decides both sides of a veth: no ratio here is one of a real NIC.",
        "A thread's cycles are all its CPU time, an adaptive I/O thread's spinning included; its busy turns",
        "are elapsed cycles, preemption included. On a veth the sending thread also does the receiving",
        "kernel's work, on both sides of the comparison: compare 'machine but client' too (10 ms ticks;",
        "other load on the machine counts).",
        *NOTES,
    ),
)
