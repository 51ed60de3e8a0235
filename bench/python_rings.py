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
    "veth, as Linux has no such wire: the wires differ.  'veth' is that very veth, each end's kernel on its own CPU.",
    "The whole server has one CPU and is counted whole: I/O thread and worker, user, system and softirq.  64 B;",
    "connect: handshake, echo, FIN both ways; half load: half of the first baseline's requests/s, for all.",
    "On a machine with other work: chrt -r 10.",
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


def on_janus_veth(*words: str) -> Callable[[], AbstractContextManager[Server]]:
    """The same words on the wire that the kernel's servers have."""
    return partial(
        janus, "veth", "adaptive", start=partial(application, pinned(*words)), counters=lambda page, app: {}
    )


def on_veth(style: str, loop: str) -> Callable[[], AbstractContextManager[Server]]:
    """Its twin on kernel sockets."""
    return partial(linux, pinned("-m", "bench.servers", "echo", style, loop, str(PORT)))


NATIVE_WORDS = ("-m", "janus_tcp", "run", "examples.echo:handle", "--port", str(PORT), "--app", "echo")
PROTOCOL_WORDS = ("-m", "bench.asgi", str(PORT))
NATIVE, NATIVE_VETH = on_rings(*NATIVE_WORDS), on_janus_veth(*NATIVE_WORDS)
PROTOCOL, PROTOCOL_VETH = on_rings(*PROTOCOL_WORDS), on_janus_veth(*PROTOCOL_WORDS)
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
        found = {"rate": kept["replies"] / kept["seconds"], "echo": kept["replies"] / spent["cpu"]}
        if rate > 0:
            opened, cost = measured(server, "run", seconds=seconds, window=WINDOW, bytes=BYTES)
            found["connect"] = opened["completed"] / cost["cpu"]
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


def highest(make: Callable[[], AbstractContextManager[Server]], seconds: float) -> dict[str, float]:
    """What one server does in closed loops: requests/s on kept connections, and connections/s."""
    with make() as server:
        server.load.do("open", count=CONNECTIONS, requests=1, bytes=BYTES)
        kept = server.load.measure("keep", seconds=seconds, bytes=BYTES)
        server.load.close_all()
        opened = server.load.measure("run", seconds=seconds, window=WINDOW, bytes=BYTES)
        return {
            "requests": kept["replies"] / kept["seconds"],
            "connections": opened["completed"] / opened["seconds"],
        }


def waits(
    make: Callable[[], AbstractContextManager[Server]], rates: Mapping[str, float], seconds: float
) -> dict[str, float]:
    """How long replies and handshakes of one server take in open loops at these rates."""
    with make() as server:
        rate = rates["requests"] / BURST
        kept = server.load.measure("run", seconds=seconds, window=0, rate=rate, requests=BURST, bytes=BYTES)
        opened = server.load.measure("run", seconds=seconds, window=0, rate=rates["connections"], bytes=BYTES)
        timed = {
            "requests": kept["reply"],
            "connect: handshake": opened["handshake"],
            "connect: reply": opened["reply"],
        }
        return {
            f"{what}, {percentile}": float(max(times[f"{percentile}_us"], 1))
            for what, times in timed.items()
            for percentile in ("p50", "p99")
        }


def half_load(
    name: str,
    ours: Callable[[], AbstractContextManager[Server]],
    options: Options,
    progress: Callable[[str], None],
) -> list[Row]:
    """Rows of one of ours against uvloop's protocol on the same wire, under half of what the slower one does."""
    seconds, runs = options.seconds(2.0, 0.5), options.runs(7, 3)
    servers = {name: ours, "uvloop protocol": UVLOOP_PROTOCOL}
    most = {key: highest(make, seconds) for key, make in servers.items()}
    rates = {what: min(found[what] for found in most.values()) / 2 for what in most[name]}
    samples = alternate(
        {key: partial(waits, make, rates, seconds) for key, make in servers.items()}, runs, progress
    )
    rows = [
        make_row(f"half load: {what}", f"{what}/s", [rate], higher_is_better=True)
        for what, rate in rates.items()
    ]
    for what, values in samples[name].items():
        case = f"{name} veth against uvloop protocol, half load, {what}"
        rows.append(make_row(case, "us", values, samples["uvloop protocol"][what], higher_is_better=False))
    return rows
