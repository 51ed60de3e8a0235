"""python-asyncio: unchanged asyncio servers on the Janus loop against uvloop on kernel sockets, over the same kind of
veth; and what their idle connections take.

The echo is one asyncio.Protocol and the page one ASGI application, the same file on both sides; only the event loop
differs.  Idle connections are opened through janusd's rings by clients that nobody remembers."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from bench.framework import Options, Program, Row, Samples, alternate, make_row
from bench.programs.python_echo import APP_THREAD, Mode, Server, io_busy_cycles, load
from bench.python_rings import NOTES, PROTOCOL, PROTOCOL_VETH, UVLOOP_PROTOCOL, compare, half_load
from bench.rig import AppPolicy, Janusd, JanusdConfig, Network, Process, Workdir, missing_privileges
from bench.rig.holding import Holding
from bench.rig.processes import python, wait_until

ECHO_PORT, HTTP_PORT = 7000, 8000
JANUS_LOOP = "janus_tcp.asyncio:new_event_loop"
MODES = (
    Mode("echo", "echo", "Protocol echo 64 B", 64, "requests/s"),
    Mode("http", "http", "uvicorn, raw ASGI, keep-alive", 64, "requests/s"),
    Mode("connect", "echo", "connect, Protocol echo, close", 64, "connections/s"),
)
IDLE = {"asyncio protocol": (1_000_000, 100_000), "uvicorn": (200_000, 20_000)}  # full, quick


def words_of(what: str, loop: str) -> list[str]:
    """The command of one server."""
    if what == "echo":
        launcher = (
            ["-m", "janus_tcp.asyncio", "bench.servers"] if loop == "janus" else ["-m", "bench.servers"]
        )
        return [*launcher, "echo", "protocol", "asyncio" if loop == "janus" else loop, str(ECHO_PORT)]
    chosen = JANUS_LOOP if loop == "janus" else loop
    uvicorn = [
        "-m",
        "uvicorn",
        "--loop",
        chosen,
        "--http",
        "httptools",
        "--lifespan",
        "off",
        "--no-access-log",
    ]
    return [
        *uvicorn,
        "--host",
        "0.0.0.0",
        "--port",
        str(HTTP_PORT),
        "--log-level",
        "warning",
        "bench.asgi:app",
    ]


@contextlib.contextmanager
def janus_servers(workdir: Workdir) -> Iterator[Server]:
    """Both on Janus."""
    policies = [
        AppPolicy(name="echo", ports=(str(ECHO_PORT),), source_ports="40000-44999"),
        AppPolicy(name="http", ports=(str(HTTP_PORT),), source_ports="45000-49999"),
    ]
    with (
        Network("bench", workdir.path) as network,
        Janusd(network, workdir.path, JanusdConfig(apps=policies)) as janusd,
    ):
        pids: dict[str, Sequence[int]] = {}
        for what, port in (("echo", ECHO_PORT), ("http", HTTP_PORT)):
            app = janusd.app(*words_of(what, "janus"), app=what)
            wait_until(partial(network.answers, port), 30, f"{what} answers:\n{app.tail()}")
            pids[what] = [janusd.process.pid, app.pid]
        yield Server(network, {"echo": ECHO_PORT, "http": HTTP_PORT}, pids, lambda: io_busy_cycles(janusd))


@contextlib.contextmanager
def kernel_servers(workdir: Workdir) -> Iterator[Server]:
    """Both on uvloop and the kernel."""
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network("benchk", workdir.path, kernel_server=True))
        pids: dict[str, Sequence[int]] = {}
        for what, port in (("echo", ECHO_PORT), ("http", HTTP_PORT)):
            process = Process(
                [python(), *words_of(what, "uvloop")],
                name=f"uvloop-{what}",
                workdir=workdir.path,
                namespace=network.srv,
            )
            stack.enter_context(process)
            wait_until(partial(network.answers, port), 30, f"{what} answers:\n{process.tail()}")
            pids[what] = [process.pid]
        yield Server(network, {"echo": ECHO_PORT, "http": HTTP_PORT}, pids)


def rows_of_mode(mode: Mode, samples: dict[str, Samples]) -> list[Row]:
    """Rates, latency and cycles of one mode against uvloop's."""
    janus, uvloop = samples["janus"], samples["uvloop"]
    per = mode.unit.removesuffix("s/s")
    rows = [make_row(mode.case, mode.unit, janus["rate"], uvloop["rate"], higher_is_better=True)]
    for metric, base, what, unit in (
        (APP_THREAD, "server", "the application's thread", f"cycles/{per}"),
        ("server", "server", "all server threads", f"cycles/{per}"),
        ("machine", "machine", "machine but client", f"cycles/{per}"),
        ("p99", "p99", "latency p99", "us"),
    ):
        rows.append(
            make_row(f"{mode.case}: {what}", unit, janus[metric], uvloop[base], higher_is_better=False)
        )
    return rows


def idle_bytes(language: str, count: int, progress: Callable[[str], None]) -> float:
    """Bytes of the application's process for each of so many idle connections."""
    with Holding(language, count) as holding:
        holding.open_growing(4, 0.0, lambda upto, _: progress(f"{language}: {upto:,} open"))
        return holding.bytes_per_connection()


def run(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """The whole program."""
    if missing := missing_privileges():
        raise RuntimeError(missing)
    seconds, runs = options.seconds(3.0, 0.5), options.runs(7, 2)
    rows: list[Row] = []
    with contextlib.ExitStack() as stack:
        workdir = stack.enter_context(Workdir("bench"))
        progress("starting the servers")
        servers = {
            "janus": stack.enter_context(janus_servers(workdir)),
            "uvloop": stack.enter_context(kernel_servers(workdir)),
        }
        for mode in MODES:
            contenders = {
                name: partial(load, server, mode, seconds, workdir) for name, server in servers.items()
            }

            def report(text: str, case: str = mode.case) -> None:
                progress(f"{case}, {text}")

            rows += rows_of_mode(mode, dict(alternate(contenders, runs, report)))
    rows += half_load("protocol", PROTOCOL_VETH, options, progress)
    ours = {"protocol ring": PROTOCOL, "protocol veth": PROTOCOL_VETH}
    rows += compare(ours, {"uvloop protocol": UVLOOP_PROTOCOL}, options, progress)
    for language, (full, quick) in IDLE.items():
        count = quick if options.quick else full
        measured = [idle_bytes(language, count, progress)]
        rows.append(
            make_row(f"{language}, {count:,} idle", "bytes/connection", measured, higher_is_better=False)
        )
    return rows


PROGRAM = Program(
    "python-asyncio",
    "unchanged asyncio servers on the Janus loop against uvloop on kernel sockets, and their idle connections",
    run,
    notes=(
        "This machine's kernel networking decides both sides of a veth: no ratio here is one of a real NIC.",
        "'all server threads' has the I/O thread's af_packet system calls in it, which a NIC does not need.",
        *NOTES,
    ),
)
