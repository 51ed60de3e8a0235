"""short-conn-cycles: what one short connection costs on each thread, and what the hop between them costs."""

import json
import subprocess
from collections.abc import Callable

from bench.conns import BENCH, check_privileges, condition_rows, conditions, janus, linux, measured
from bench.framework import Options, Program, Row, alternate, make_row
from bench.machine import cycles_per_second
from bench.rig import REPO
from bench.rig.tools import build_janus_tool

WINDOW = 512


def on_rings(seconds: float) -> dict[str, float]:
    """Busy cycles of the TCP thread and of the I/O thread, by the connections that the first has accepted, and the
    median of samples of the TCP thread's, as of one process."""
    with janus("ring") as server:
        assert server.app is not None
        server.app.ask("sample")
        _, spent = measured(server, "run", seconds=seconds, window=WINDOW)
        sampled = float(json.loads(server.app.ask("sample"))["cycles"])
    granted = conditions()
    count = max(spent["tcp_accepted"], 1)
    return {
        "tcp": spent["tcp_busy_cycles"] / count,
        "io": spent["io_busy_cycles"] / count,
        "sampled": sampled,
        **granted,
    }


def in_one_process(seconds: float) -> dict[str, float]:
    """Cycles of the stack and its user, packets handed over by function calls."""
    program = build_janus_tool(BENCH / "one_process.c", BENCH / "load" / "load.c")
    done = subprocess.run([program, f"{seconds:g}"], cwd=REPO, capture_output=True, text=True, check=True)
    return {"tcp": float(json.loads(done.stdout)["cycles"])}


def in_one_thread(seconds: float) -> dict[str, float]:
    """The same with the rings between the two, both ends in one thread: what their bookkeeping takes, without a
    cache line that moves or another thread on the processor."""
    more = BENCH / "load" / "load.c", REPO / "dpdk_glue" / "ledger.c"
    program = build_janus_tool(BENCH / "one_thread_rings.c", *more)
    done = subprocess.run([program, f"{seconds:g}"], cwd=REPO, capture_output=True, text=True, check=True)
    return {"tcp": float(json.loads(done.stdout)["cycles"])}


def on_linux(seconds: float) -> dict[str, float]:
    """Cycles of the processor of the kernel's server."""
    with linux() as server:
        result, spent = measured(server, "run", seconds=seconds, window=WINDOW)
    return {"all": spent["cpu"] * cycles_per_second() / max(result["completed"], 1)}


def run(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """The whole program."""
    check_privileges()
    seconds, runs = options.seconds(2.0, 0.5), options.runs(5, 2)
    samples = alternate(
        {
            "rings": lambda: on_rings(seconds),
            "one process": lambda: in_one_process(seconds),
            "one thread": lambda: in_one_thread(seconds),
            "linux": lambda: on_linux(seconds),
        },
        runs,
        progress,
    )
    rings, one, kernel = samples["rings"], samples["one process"]["tcp"], samples["linux"]["all"]
    both = [tcp + io for tcp, io in zip(rings["tcp"], rings["io"], strict=True)]
    unit = "cycles/connection"
    return [
        make_row("tcp thread", unit, rings["tcp"], kernel, higher_is_better=False),
        make_row("io thread", unit, rings["io"], kernel, higher_is_better=False),
        make_row("both", unit, both, kernel, higher_is_better=False),
        make_row(
            "ring-hop: tcp thread, rings / one process", unit, rings["sampled"], one, higher_is_better=False
        ),
        make_row(
            "ring bookkeeping: rings in one thread / one process",
            unit,
            samples["one thread"]["tcp"],
            one,
            higher_is_better=False,
        ),
        *condition_rows(rings),
    ]


PROGRAM = Program(
    "short-conn-cycles",
    "busy cycles of a short connection by thread, over rings, against epoll; the hop against one process",
    run,
    notes=(
        "Handshake, 64 B request and echo, FIN both ways; both threads on one CPU, turns that had something to do:",
        "all of them, and for ring-hop and bookkeeping the median of samples of 1,024.",
        "Linux: user, system and softirq of the server's CPU over a veth; the paper had about 13,000 for the TCP",
        "thread. ring-hop: the same stack and user fed with the same packets by function calls in one process; the",
        "bookkeeping: by rings whose other end is worked in the same thread; each stack is configured as an app's is.",
        "The ratio of these two is the share of a thread's connections/s that is left; 0.85 is wanted of the hop.",
    ),
)
