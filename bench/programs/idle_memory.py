"""idle-memory: bytes of an idle connection, all in: TCB, table, coroutine, what allocators waste.

An application is measured before its first connection and with all of them, each opened by a real handshake
through janusd's rings, each with a handler that has begun and waits.  The baseline is the kernel's memory for a
socket of an idle connection, opened over loopback in the same run."""

import contextlib
import resource
import socket
from collections.abc import Callable

from bench.framework import Options, Program, Row, make_row
from bench.rig.holding import Holding, meminfo

KERNEL_CONNECTIONS = 15_000
SAMPLE = 1000.0
FULL = (("c", 10_000_000), ("c", 40_000_000), ("python", 10_000_000))
QUICK = (("c", 1_000_000), ("python", 250_000))
NAMES = {"c": "C handler", "python": "Python handler"}


def case_name(language: str, count: int) -> str:
    """A case as the table names it: C handler 10M."""
    number = f"{count // 1_000_000}M" if count % 1_000_000 == 0 else f"{count // 1000}k"
    return f"{NAMES[language]} {number}"


def kernel_bytes() -> float:
    """What the kernel's slab grows by, per socket: both ends of a connection are its own."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    pairs = min(KERNEL_CONNECTIONS, (hard - 100) // 2)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
        before = meminfo("Slab")
        for _ in range(pairs):
            stack.enter_context(socket.create_connection(listener.getsockname()))
            stack.enter_context(listener.accept()[0])
        return (meminfo("Slab") - before) / (2 * pairs)


def measure(language: str, count: int, progress: Callable[[str], None]) -> float:
    """Bytes of one of so many connections."""

    def grown(upto: int, result: dict[str, float]) -> None:
        progress(
            f"{case_name(language, count)}: {upto:,} open, {result['established'] / result['seconds']:,.0f}/s"
        )

    with Holding(language, count) as holding:
        holding.open_growing(4, SAMPLE, grown)
        found = holding.bytes_per_connection()
        if language == "c":
            counts = holding.counts()
            progress(
                f"handlers {counts['handlers']:,}, of these stored as a template {counts['templated']:,}"
            )
            if counts["handlers"] < count:
                raise RuntimeError(f"only {counts['handlers']:,} handlers wait")
        return found


def run(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """One measurement a case: memory does not vary from run to run."""
    progress("kernel sockets")
    kernel = [kernel_bytes()]
    return [
        make_row(
            case_name(language, count),
            "bytes/connection",
            [measure(language, count, progress)],
            kernel,
            higher_is_better=False,
        )
        for language, count in (QUICK if options.quick else FULL)
    ]


PROGRAM = Program(
    "idle-memory",
    "bytes of an idle connection all in, with a waiting handler in C and in Python, against a kernel socket",
    run,
    notes=(
        "Growth of the application's resident memory and huge pages, divided by connections.",
        "janusd keeps nothing per connection.",
        "The kernel's figure is its slab for one end of an idle connection, without any application's memory for it.",
    ),
)
