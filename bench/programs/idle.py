"""idle: what janusd and an application cost while nothing happens, and how soon the first packet after a silence is
answered."""

import contextlib
import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

from bench.conns import BENCH, PORT, SERVER_CPU, check_privileges, echo_app, policy
from bench.cpu import thread_seconds
from bench.framework import Options, Program, Row, alternate, make_row
from bench.rig import Janusd, JanusdConfig, Network, Process, Workdir, build_tool
from bench.rig.processes import wait_until

MESSAGE = b"stamp me" + b"x" * 56  # bench/stamp.h
CLOCK_AT = 8
SILENCE_SECONDS = 0.25  # longer than any thread's longest sleep
WARM = 200


@dataclass(frozen=True)
class Server:
    """One echo server: the client's way to it, and the processes to be charged by name."""

    connect: Callable[[], socket.socket]
    pids: dict[str, int]


@contextlib.contextmanager
def janus() -> Iterator[Server]:
    """janusd and the C echo server, both in adaptive mode, on no certain processor."""
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(Workdir("idle")).path
        network = stack.enter_context(Network("idle", path))
        janusd = stack.enter_context(Janusd(network, path, JanusdConfig(apps=(policy(),))))
        app = stack.enter_context(echo_app(janusd, path, "adaptive", -1))
        wait_until(lambda: network.answers(PORT), 10, "the echo server answers")
        yield Server(lambda: network.connect(PORT), {"janusd": janusd.process.pid, "app": app.pid})


@contextlib.contextmanager
def kernel(source: str, *words: str) -> Iterator[Server]:
    """A server in C on kernel sockets: epoll in one thread, or one process that wakes another."""
    with contextlib.ExitStack() as stack:
        path = stack.enter_context(Workdir("idlek")).path
        network = stack.enter_context(Network("idlek", path, kernel_server=True))
        command = [str(build_tool(BENCH / source)), str(PORT), *words]
        server = stack.enter_context(Process(command, name="kernel", workdir=path, namespace=network.srv))
        wait_until(lambda: network.answers(PORT), 10, "the kernel's server answers")
        yield Server(lambda: network.connect(PORT), {"app": server.pid})


@dataclass(frozen=True)
class Trip:
    """One message: microseconds from before its send until the server's program had it, and until the whole echo."""

    there: float
    back: float


def trip(conn: socket.socket) -> Trip:
    """Sends a message and takes its echo."""
    begin = time.monotonic_ns()
    conn.sendall(MESSAGE)
    echo = b""
    while len(echo) < len(MESSAGE):
        got = conn.recv(len(MESSAGE) - len(echo))
        if not got:
            raise RuntimeError("the echo server has closed the connection")
        echo += got
    end = time.monotonic_ns()
    (there,) = struct.unpack_from("=Q", echo, CLOCK_AT)
    return Trip((there - begin) / 1000, (end - begin) / 1000)


def measure(server: Server, trips: int, seconds: float) -> dict[str, float]:
    """Round trips in a row and after silence, in microseconds; processor time of silence, in % of a core."""
    with server.connect() as conn:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        in_a_row = [trip(conn) for _ in range(2 * WARM)][WARM:]
        after = []
        for _ in range(trips):
            time.sleep(SILENCE_SECONDS)
            after.append(trip(conn))
        time.sleep(SILENCE_SECONDS)
        before, begin = {name: thread_seconds([pid]) for name, pid in server.pids.items()}, time.monotonic()
        time.sleep(seconds)
        elapsed = time.monotonic() - begin
    found = {
        "there in a row": statistics.median(one.there for one in in_a_row),
        "there": statistics.median(one.there for one in after),
        "in a row": statistics.median(one.back for one in in_a_row),
        "after silence": statistics.median(one.back for one in after),
        "after silence, worst": max(one.back for one in after),
    }
    found["woken"] = found["after silence"] - found["in a row"]
    for name, pid in server.pids.items():
        now = thread_seconds([pid])
        ran = sum(spent - before[name].get(key, 0.0) for key, spent in now.items())
        found[f"% {name}"] = 100 * ran / elapsed
    return found


def one_run(
    make: Callable[[], AbstractContextManager[Server]], trips: int, seconds: float
) -> dict[str, float]:
    """A server of its own for each run: where the host has its two processors then counts once for all three."""
    with make() as server:
        return measure(server, trips, seconds)


def run(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """The whole program."""
    check_privileges()
    trips, seconds, runs = 12 if options.quick else 40, options.seconds(4, 2), options.runs(5, 2)
    servers: dict[str, Callable[[], AbstractContextManager[Server]]] = {
        "janus": janus,
        "linux": partial(kernel, "echo_linux.c", str(SERVER_CPU)),
        "handed": partial(kernel, "echo_handed.c"),
    }
    samples = alternate(
        {name: partial(one_run, make, trips, seconds) for name, make in servers.items()}, runs, progress
    )
    ours, theirs, handed = (samples[name] for name in servers)
    rows = [
        make_row(f"{name}, idle", "% of a core", ours[f"% {name}"], higher_is_better=False)
        for name in ("janusd", "app")
    ]
    for case, key in (
        ("64 B until the server has it, one after the other: p50", "there in a row"),
        ("64 B until the server has it, after silence: p50", "there"),
        ("64 B and echo, one after the other: p50", "in a row"),
        ("64 B and echo after silence: p50", "after silence"),
        ("64 B and echo after silence: worst", "after silence, worst"),
        ("what silence adds: p50", "woken"),
    ):
        rows.append(make_row(case, "us", ours[key], theirs[key], higher_is_better=False))
    for case, key in (
        ("the same until the server has it, against two kernel processes", "there"),
        ("what silence adds, against two kernel processes", "woken"),
    ):
        rows.append(make_row(case, "us", ours[key], handed[key], higher_is_better=False))
    return rows


PROGRAM = Program(
    "idle",
    "processor time of silence in adaptive mode, and how soon the first packet after it is answered",
    run,
    notes=(
        "janusd and a C echo server in adaptive mode over af_packet and a veth, a Python client on kernel sockets; "
        f"{SILENCE_SECONDS:g} s of silence before each packet. The baseline is epoll in C on a veth of its own.",
        "Two kernel processes: one with the sockets in epoll wakes another by a socket pair, as janusd an application.",
        "Goals: under 2 % of a core each; the first packet after silence within 100 us.",
    ),
)
