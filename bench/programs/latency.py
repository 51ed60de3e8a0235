"""latency: how long a handshake takes at a tenth, a half and nine tenths of what the kernel's server can
do."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from bench.conns import Server, check_privileges, janus, linux
from bench.framework import Options, Program, Row, alternate, make_row

PARTS = (10, 50, 90)
PERCENTILES = (("p50", "p50_us"), ("p99", "p99_us"), ("p99.9", "p999_us"))
SERVERS: dict[str, Callable[[], AbstractContextManager[Server]]] = {
    "ring": partial(janus, "ring"),
    "veth": partial(janus, "veth"),
    "linux": linux,
}


def measure(
    make: Callable[[], AbstractContextManager[Server]], rate: float, seconds: float
) -> dict[str, float]:
    """A server's percentiles, in microseconds, at parts of the rate."""
    found = {}
    with make() as server:
        for part in PARTS:
            result = server.load.measure("run", seconds=seconds, window=0, rate=rate * part / 100)
            for name, key in PERCENTILES:
                found[f"{part} {name}"] = float(max(result["handshake"][key], 1))
    return found


def highest_rate(seconds: float) -> float:
    """What the kernel's server does in a closed loop."""
    with linux() as server:
        result = server.load.measure("run", seconds=seconds, window=256)
    return float(result["completed"] / result["seconds"])


def run(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """The whole program."""
    check_privileges()
    seconds, runs = options.seconds(1.5, 0.5), options.runs(5, 2)
    progress("the kernel's highest rate")
    rate = highest_rate(seconds)
    contenders = {name: partial(measure, make, rate, seconds) for name, make in SERVERS.items()}
    samples = alternate(contenders, runs, progress)
    rows = [make_row("the kernel's highest rate", "connections/s", [rate], higher_is_better=True)]
    for part in PARTS:
        for name, _ in PERCENTILES:
            base = samples["linux"][f"{part} {name}"]
            for wire in ("ring", "veth"):
                ours = samples[wire][f"{part} {name}"]
                case = f"{wire}, {part} %: {name}"
                rows.append(make_row(case, "us", ours, base, higher_is_better=False))
    return rows


PROGRAM = Program(
    "latency",
    "percentiles of the handshake at 10, 50 and 90 % of the kernel's highest rate",
    run,
    notes=(
        "Open loop, from the SYN's departure to the SYN-ACK's arrival at the load; whole server on one CPU.",
        "The baseline is epoll on the same veth, for the rows of the ring too: the wires differ.",
    ),
)
