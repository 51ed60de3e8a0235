"""coro-switch: the time from one event to the next when each continues a blocking handler in C.

Every measurement is a process of its own, contenders in turn, CPU time of the thread (the machine may be
busy); a sample is the median of the process's passes.  The handlers do nothing but count, so that a figure is
that of load, switch in, return, wait, switch out and save.  Instructions are exact."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.framework import Options, Program, Row, alternate, make_row
from bench.machine import REPO

FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-g", "-DNDEBUG", "-Wall", "-Wextra", "-Isdk", "-I.")
PASSES = 5
BYTES_PER_CONNECTION = 300  # row, image, order; more than that is asked to be free


@dataclass(frozen=True)
class Setup:
    """How one contender is run."""

    method: str
    count: int
    live: int
    order: str
    events: int

    def words(self, program: Path, passes: int = PASSES) -> list[str]:
        """Its command line."""
        numbers = (self.count, self.live, self.order, self.events, passes)
        return [str(program), self.method, *map(str, numbers)]


def build(directory: Path) -> Path:
    """The program with the coroutines compiled as they are released."""
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / "coro_switch"
    machine = subprocess.run(["uname", "-m"], capture_output=True, text=True, check=True).stdout.strip()
    sources = ["bench/coro_switch.c", "bench/coro_switch_peers.c", f"sdk/coro/switch_{machine}.S"]
    sources += [str(path) for path in sorted(REPO.glob("sdk/coro/*.c"))]
    words = ["gcc", *FLAGS, *sources, "-o", str(program), "-pthread"]
    done = subprocess.run(words, cwd=REPO, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"coro_switch does not compile:\n{done.stderr}")
    return program


def measure(program: Path, setup: Setup) -> Mapping[str, float]:
    """One process."""
    words = setup.words(program)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: exit {done.returncode} {done.stderr.strip()}")
    return {name: float(value) for name, value in json.loads(done.stdout).items()}


def instructions(program: Path, setup: Setup) -> Mapping[str, float]:
    """Of one event: the difference of two numbers of passes over the same events."""
    counts = []
    for passes in (2, 12):
        words = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
        done = subprocess.run(
            [*words, *setup.words(program, passes)], capture_output=True, text=True, check=False
        )
        match = re.search(r"Collected : (\d+)", done.stderr)
        if done.returncode != 0 or match is None:
            raise RuntimeError(f"callgrind of {setup.method}: {done.stderr.strip()}")
        counts.append(int(match[1]))
    return {"instructions": (counts[1] - counts[0]) / (10 * setup.events)}


def compare(
    case: str,
    program: Path,
    setups: Mapping[str, Setup],
    baseline: str,
    runs: int,
    progress: Callable[[str], None],
) -> list[Row]:
    """A row for each contender against the baseline, and one for the baseline itself."""
    contenders = {name: partial(measure, program, setup) for name, setup in setups.items()}
    samples = alternate(contenders, runs, lambda text: progress(f"{case}, {text}"))
    base = samples[baseline]["ns"]
    rows = [
        make_row(f"{case}: {name}" if name else case, "ns", samples[name]["ns"], base, higher_is_better=False)
        for name in setups
        if name != baseline
    ]
    rows.append(make_row(f"{case}: {baseline}", "ns", base, higher_is_better=False))
    for name in ("", "templates"):
        if baseline == "callback" and name in samples:
            label = f"{case}: stored for an idle handler, {name or 'images'}"
            rows.append(make_row(label, "bytes", samples[name]["stored"], higher_is_better=False))
    return rows


def handler_setups(count: int, order: str, events: int, *, all_methods: bool) -> dict[str, Setup]:
    """The usual handler, and what others would do in its place; the name of the case's own row is empty."""
    names = {"": "shared", "templates": "templates", "callback": "callback"}
    if all_methods:
        names |= {"separate stacks": "separate", "copying library": "copying", "swapcontext": "swapcontext"}
    return {name: Setup(method, count, 0, order, events) for name, method in names.items()}


def available_bytes() -> int:
    """Memory that a process may take now."""
    match = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def run(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """The whole program."""
    program = build(REPO / "build" / "tools")
    runs, events = options.runs(9, 3), 100_000 if options.quick else 300_000
    many, name = (1_000_000, "1M") if options.quick else (10_000_000, "10M")
    if available_bytes() < many * BYTES_PER_CONNECTION:
        raise RuntimeError(f"{name} handlers need {many * BYTES_PER_CONNECTION >> 20} MiB of free memory")
    kib = Setup("shared", 1000, 1024, "seq", events)
    rows = []
    for what, method in (("a call", "call"), ("memcpy", "memcpy")):
        setups = {"": kib, method: Setup(method, 1000, 1024, "seq", events)}
        if method == "memcpy":
            setups["copying library"] = Setup("copying", 1000, 1024, "seq", events)
        rows += compare(f"1 KiB against {what}", program, setups, method, runs, progress)
    in_cache = handler_setups(1000, "seq", events, all_methods=True)
    rows += compare("handler in cache", program, in_cache, "callback", runs, progress)
    cold = handler_setups(many, "prefetch", 1_000_000, all_methods=False)
    rows += compare(f"handler {name}", program, cold, "callback", options.runs(5, 3), progress)
    if shutil.which("valgrind") is None:
        progress("valgrind is not installed: instructions are not counted")
        return rows
    for label, setup in {**in_cache, "1 KiB": kib}.items():
        if setup.method != "swapcontext":
            short = Setup(setup.method, 100, setup.live, setup.order, 2000)
            progress(f"instructions, {setup.method}")
            counted = instructions(program, short)["instructions"]
            case = f"instructions: {label or 'handler'}"
            rows.append(make_row(case, "instructions", [counted], higher_is_better=False))
    return rows


PROGRAM = Program(
    "coro-switch",
    "continuing a blocking C handler, against a call, the two copies of its stack alone, and other switches",
    run,
    notes=(
        "handler: receives and counts, keeps 80 B on its stack. In cache: 1,000 of them in turn. 10M (--quick: 1M): in",
        "random order, rows and then images of 64 events fetched before these run. 1 KiB: 1,024 B live, 1,000 in turn.",
        "Goals: 1 KiB at least 0.45 of a call and 0.77 of memcpy; handler 20 ns in cache, 60 ns at 10M; 96 B and 0 B.",
    ),
)
