"""Python's echo servers with the whole server on one processor: on janusd's rings, and on kernel sockets over a veth.

The load is bench/load on the other processor, the same for all.  A figure is for a second of the server's
processor: of I/O thread and application on rings; of user, system and softirq time on a veth."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from bench.conns import PORT, SERVER_CPU, Server, janus, linux, measured
from bench.framework import Options, Row, alternate, make_row
from bench.rig import Janusd, Process
from bench.rig.processes import python

CONNECTIONS = 256
WINDOW = 256
BURST = 50  # requests of a connection in the open loop
BYTES = 64
METRICS = (
    ("echo", "", "requests/s of CPU", True),
    ("connect", ", connect", "connections/s of CPU", True),
    ("p99", ", p99 at half load", "us", False),
)
NOTES = (
    "'ring': janusd's port is two rings, fed by the load generator without a kernel; uvloop and asyncio are on a",
    "veth, as Linux has no such wire: the wires differ.  The whole server has one CPU and is counted whole:",
    "I/O thread and worker, or user, system and softirq.  64 B; connect: handshake, echo, FIN both ways; half",
    "load: half of the first baseline's requests/s, for all.  On a machine with other work: chrt -r 10.",
)


def pinned(*words: str) -> list[str]:
    """A Python program on the server's processor."""
    return ["taskset", "-c", str(SERVER_CPU), python(), *words]


@contextlib.contextmanager
def application(words: list[str], janusd: Janusd, _path: Path, _mode: str, _cpu: int) -> Iterator[Process]:
    """A Python application, attached."""
    app = janusd.program(*words, app="echo")
    janusd.await_threads(app, "echo", 1)
    yield app


def on_rings(*words: str) -> Callable[[], AbstractContextManager[Server]]:
    """Python with these words on rings."""
    return partial(janus, "ring", start=partial(application, pinned(*words)), counters=lambda page, app: {})


def on_veth(style: str, loop: str) -> Callable[[], AbstractContextManager[Server]]:
    """Its twin on kernel sockets."""
    return partial(linux, pinned("-m", "bench.servers", "echo", style, loop, str(PORT)))


NATIVE = on_rings("-m", "janus_tcp", "run", "examples.echo:handle", "--port", str(PORT), "--app", "echo")
PROTOCOL = on_rings("-m", "bench.asgi", str(PORT))
UVLOOP_PROTOCOL = on_veth("protocol", "uvloop")
UVLOOP_STREAMS = on_veth("streams", "uvloop")


def figures(
    make: Callable[[], AbstractContextManager[Server]], rate: float, seconds: float
) -> dict[str, float]:
    """What one server does in closed loops by second of its processor, and how long replies take at a rate of
    requests, 50 of them to a connection; without a rate, the first alone."""
    with make() as server:
        server.load.do("open", count=CONNECTIONS, requests=1, bytes=BYTES)
        kept, spent = measured(server, "keep", seconds=seconds, bytes=BYTES)
        server.load.close_all()
        found = {"rate": kept["replies"] / kept["seconds"], "echo": kept["replies"] / max(spent["cpu"], 0.01)}
        if rate > 0:
            opened, cost = measured(server, "run", seconds=seconds, window=WINDOW, bytes=BYTES)
            found["connect"] = opened["completed"] / max(cost["cpu"], 0.01)
            timed = server.load.measure(
                "run", seconds=seconds, window=0, rate=rate / BURST, requests=BURST, bytes=BYTES
            )
            found["p99"] = float(timed["reply"]["p99_us"])
        return found


def compare(
    ours: Mapping[str, Callable[[], AbstractContextManager[Server]]],
    baselines: Mapping[str, Callable[[], AbstractContextManager[Server]]],
    options: Options,
    progress: Callable[[str], None],
) -> list[Row]:
    """A row for each of ours against each baseline and metric; half load is half of the first baseline's rate."""
    seconds, runs = options.seconds(2.0, 0.4), options.runs(5, 2)
    first = next(iter(baselines.values()))
    progress("the baseline's rate")
    half = figures(first, 0, seconds)["rate"] / 2
    contenders = {name: partial(figures, make, half, seconds) for name, make in {**ours, **baselines}.items()}
    samples = alternate(contenders, runs, progress)
    return [
        make_row(
            f"{name} against {base}{suffix}",
            unit,
            samples[name][metric],
            samples[base][metric],
            higher_is_better=higher,
        )
        for name in ours
        for base in baselines
        for metric, suffix, unit, higher in METRICS
    ]
