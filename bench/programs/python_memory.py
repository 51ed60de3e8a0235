"""python-memory: bytes of an idle connection whose handler waits, user and kernel side together.

Janus: examples/echo.py under janusd, each connection opened by a real handshake through its rings.  The baselines
are the same echo on kernel sockets over loopback: growth of the server's process, and of the slab for one end."""

import contextlib
import resource
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial

from bench.framework import Options, Program, Row, alternate, make_row
from bench.rig.holding import Holding, meminfo, memory_of
from bench.rig.processes import Process, Workdir, python, wait_until

CONNECTIONS = 10_000
PORT = 17_007
SAMPLE = 1000.0
BASELINES = {"uvloop protocol": ("protocol", "uvloop"), "asyncio streams": ("streams", "asyncio")}


@contextlib.contextmanager
def kernel_server(style: str, loop: str) -> Iterator[Process]:
    """The baseline's process; it may open as many descriptors as we may."""
    words = [python(), "-m", "bench.servers", "echo", style, loop, str(PORT)]
    with Workdir("memory") as workdir, Process(words, name=style, workdir=workdir.path) as process:
        wait_until(lambda: process.alive() and answers(), 10, f"{style} on {loop} answers:\n{process.tail()}")
        yield process


def answers() -> bool:
    """Whether the server accepts connections."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", PORT), 1):
        return True
    return False


def kernel_bytes(style: str, loop: str) -> dict[str, float]:
    """Bytes that a connection costs the server's process and the kernel at its end."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(CONNECTIONS, hard - 100)
    with contextlib.ExitStack() as stack, kernel_server(style, loop) as process:
        user, kernel = memory_of(process.pid), meminfo("Slab")
        socks = [stack.enter_context(socket.create_connection(("127.0.0.1", PORT))) for _ in range(count)]
        for sock in socks:
            sock.sendall(b"x")
            sock.recv(1)
        time.sleep(0.5)
        user, kernel = memory_of(process.pid) - user, meminfo("Slab") - kernel
        return {"bytes": user / count + kernel / (2 * count)}


def janus_bytes(language: str, count: int) -> dict[str, float]:
    """The same of a native handler; janusd keeps nothing per connection."""
    with Holding(language, count) as holding:
        holding.open(count, SAMPLE)
        return {"bytes": holding.bytes_per_connection()}


def run(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """The whole program."""
    count = 250_000 if options.quick else 2_000_000
    contenders = {
        "native": partial(janus_bytes, "python", count),
        "huge": partial(janus_bytes, "python huge arenas", count),
    }
    contenders.update({name: partial(kernel_bytes, *words) for name, words in BASELINES.items()})
    samples = alternate(contenders, options.runs(3, 1), progress)
    native, huge = samples["native"]["bytes"], samples["huge"]["bytes"]
    rows = [
        make_row(
            "native with huge arenas / without", "bytes/connection", huge, native, higher_is_better=False
        )
    ]
    return rows + [
        make_row(
            f"native / {name}",
            "bytes/connection",
            native,
            samples[name]["bytes"],
            higher_is_better=False,
        )
        for name in BASELINES
    ]


PROGRAM = Program(
    "python-memory",
    "bytes of an idle connection with a Python handler, kernel and user side, against uvloop and asyncio",
    run,
    notes=(
        "Janus: growth of the application's memory, huge pages and shared rows included, by connections.",
        "Baselines: growth of the server's process and half of the slab's growth, since both ends are this machine's.",
    ),
)
