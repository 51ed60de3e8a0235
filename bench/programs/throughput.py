"""throughput: requests on kept connections, with messages of 64 B to 8 KiB."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from bench.conns import Server, check_privileges, janus, linux, measured
from bench.framework import Options, Program, Row, alternate, make_row

SIZES = (64, 256, 1024, 4096, 8192)
CONNECTIONS = 64
SERVERS: dict[str, Callable[[], AbstractContextManager[Server]]] = {
    "ring": partial(janus, "ring"),
    "veth": partial(janus, "veth"),
    "linux": linux,
}


def measure(make: Callable[[], AbstractContextManager[Server]], seconds: float) -> dict[str, float]:
    """Requests per second of a server's processor, by size."""
    found = {}
    with make() as server:
        for size in SIZES:
            server.load.do("open", count=CONNECTIONS, requests=1, bytes=size)
            result, spent = measured(server, "keep", seconds=seconds, bytes=size)
            found[str(size)] = result["replies"] / spent["cpu"]
            server.load.close_all()
    return found


def run(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """The whole program."""
    check_privileges()
    seconds, runs = options.seconds(1.0, 0.4), options.runs(5, 2)
    contenders = {name: partial(measure, make, seconds) for name, make in SERVERS.items()}
    samples = alternate(contenders, runs, progress)
    rows = []
    for size in SIZES:
        base = samples["linux"][str(size)]
        for wire in ("ring", "veth"):
            ours = samples[wire][str(size)]
            rows.append(make_row(f"{wire} {size} B", "requests/s of CPU", ours, base, higher_is_better=True))
            rows.append(
                make_row(
                    f"{wire} {size} B, each way",
                    "Mbit/s of CPU",
                    [value * size * 8e-6 for value in ours],
                    [value * size * 8e-6 for value in base],
                    higher_is_better=True,
                )
            )
    return rows


PROGRAM = Program(
    "throughput",
    "requests a second on kept connections, messages of 64 B to 8 KiB, against epoll",
    run,
    notes=(
        "64 connections, the next request leaves when the echo is whole; whole server on one CPU, per second of it.",
        "The baseline is epoll on the same veth, for the rows of the ring too: the wires differ.",
    ),
)
