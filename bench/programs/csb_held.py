"""csb-held: how long updates hold the TCP threads of the live system, and how much of that is the updates' own."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.csb_build import build
from bench.csb_build import measure as run_program
from bench.framework import Options, Program, Row, Samples, make_row
from bench.programs.csb_phases import CLIENTS, WORKERS, Visitors, held, updates
from bench.rig import Janusd
from bench.rig.crowd import crowd
from bench.rig.processes import REPO
from janusd.ctl_client import Client

GROUP, CALLS = "janus_held", "raw_syscalls"
PARTS = ("balance_hear", "balance_marker", "balance_turn")  # of a turn, the last of them once
VECTORS = ("local_timer", "reschedule", "call_function", "call_function_single")
INTERRUPTS = ("irq:irq_handler", "irq:softirq", *(f"irq_vectors:{name}" for name in VECTORS))
LONG_US = 100
SPINS = 50_000
HELD = 15_000
LINE = re.compile(r"^\s*(\d+)\s+(\d+\.\d+):\s+(\S+?):?(?:\s|$)")


@dataclass
class Turn:
    """What one turn did for an update, in us."""

    whole: float = 0.0
    own: float = 0.0  # without what interrupted it
    walked: float = 0.0  # of that, outside system calls: messages, and whoever they wake


@dataclass
class Thread:
    """One thread's events, put together in the order of time."""

    turns: list[Turn] = field(default_factory=list)
    turn: Turn = field(default_factory=Turn)
    inside: str = ""
    away: int = 0  # interrupts within each other, and the switch
    in_call: bool = False
    at_us: float = 0.0

    def see(self, at_us: float, event: str) -> None:
        """The time since the last event goes to where the thread was."""
        took = at_us - self.at_us if self.inside else 0.0
        self.turn.whole += took
        self.turn.own += took if self.away == 0 else 0.0
        self.turn.walked += took if self.away == 0 and not self.in_call else 0.0
        self.at_us = at_us
        group, _, name = event.partition(":")
        if group == GROUP:
            self._part(name)
        elif group == CALLS:
            self.in_call = name == "sys_enter"
        elif event == "PERF_RECORD_SWITCH":
            self.away = max(0, self.away - 1)
        elif event == "OUT" or name.endswith("_entry"):
            self.away += 1
        else:
            self.away = max(0, self.away - 1)

    def _part(self, name: str) -> None:
        self.inside = "" if name.endswith("_end") else name
        if self.inside:
            self.away, self.in_call = 0, False  # it runs
        elif name == "balance_turn_end":
            self.turns.append(self.turn)
            self.turn = Turn()


def read_trace(lines: Iterable[str]) -> list[Turn]:
    """What perf script prints (tid, time, event), as turns."""
    threads: dict[str, Thread] = {}
    for line in lines:
        match = LINE.match(line)
        if match is None:
            continue
        event = "OUT" if "PERF_RECORD_SWITCH OUT" in line else match[3].removesuffix("__return")
        threads.setdefault(match[1], Thread()).see(float(match[2]) * 1e6, event)
    return [turn for thread in threads.values() for turn in thread.turns]


def perf(*words: str) -> str:
    """Run it; its output."""
    done = subprocess.run(["perf", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"perf {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def probes() -> Iterator[list[str]]:
    """Events at the begin and end of each part, in the SDK's library."""
    [library] = (REPO / "sdk" / "janus_tcp").glob("_janus.*.so")
    made: list[str] = []
    try:
        for part in PARTS:
            for name, where in ((part, part), (f"{part}_end", f"{part}%return")):
                perf("probe", "-q", "-x", str(library), "--add", f"{GROUP}:{name}={where}")
                made.append(f"{GROUP}:{name}" + ("__return" if where != part else ""))
        yield made
    finally:
        if made:
            perf("probe", "-q", "-d", f"{GROUP}:*")


@contextmanager
def traced(tids: Sequence[int], events: Sequence[str], path: Path) -> Iterator[None]:
    """Record these threads' events for as long as the block lasts."""
    (orders, order), (answer, answers) = os.pipe(), os.pipe()
    words = ["perf", "record", "-D", "-1", "--control", f"fd:{orders},{answers}"]
    words += ["-o", str(path), "--switch-events", "-m", "1024", "-c", "1"]
    words += ["-e", ",".join(events), "-t", ",".join(map(str, tids))]
    fds = (orders, answers)
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, pass_fds=fds) as recorder:
        for fd in fds:
            os.close(fd)
        try:
            with suppress(BrokenPipeError):  # what it complains of is told below
                os.write(order, b"enable\n")
            os.read(answer, 16)  # it records now, or has ended
            yield
        finally:
            recorder.send_signal(signal.SIGINT)
            _, complaint = recorder.communicate(timeout=60)
            os.close(order)
            os.close(answer)
    if not path.exists() or path.stat().st_size == 0:
        raise RuntimeError(f"perf record: {complaint.strip()}")


def measure(
    rig: Janusd, count: int, where: Path, progress: Callable[[str], None]
) -> tuple[list[Turn], dict[str, float], dict[str, Samples]]:
    """The turns of so many updates, the threads' own word for the longest of as many before, a loop beside them."""
    client, visitors, spinner = Client(str(rig.runtime_dir / "ctl.sock")), Visitors(rig), build("csb_hold")
    tids = [
        int(task.name) for row in rig.rows("threads") for task in Path(f"/proc/{row['pid']}/task").iterdir()
    ]
    with crowd([visitors.come_and_go] * CLIENTS):
        progress(f"{count} updates while clients come and go")
        updates(client, count)
        [shown] = client.ask("csb_show", app="web")
        progress("a loop that only looks at the clock")
        spun = run_program([spinner, "spin", str(SPINS)])
        with probes() as parts:
            events = [*parts, f"{CALLS}:sys_enter", f"{CALLS}:sys_exit"]
            events += [f"{name}_{end}" for name in INTERRUPTS for end in ("entry", "exit")]
            progress("as many updates, traced")
            with traced(tids, events, where / "perf.data"):
                updates(client, count)
    if visitors.errors:
        raise RuntimeError(f"{visitors.errors} clients were reset or not answered")
    text = perf(
        "script", "-i", str(where / "perf.data"), "--ns", "--show-switch-events", "-F", "tid,time,event"
    )
    said = {name: max(thread[name] for thread in shown["threads"]) for name in ("held_us", "held_wall_us")}
    return read_trace(text.splitlines()), said, spun


def run(options: Options, progress: Callable[[str], None]) -> Sequence[Row]:
    """Updates of the live system under load, traced."""
    if shutil.which("perf") is None:
        raise RuntimeError("needs perf")
    with held("held", HELD) as rig:
        turns, said, spun = measure(rig, options.runs(500, 100), rig.runtime_dir.parent, progress)
    made = rows(turns)
    for metric, unit in {
        "p50": "us",
        "p99": "us",
        "p99.9": "us",
        "max": "us",
        "long": "of a million",
    }.items():
        text = f"10 us of a loop that only looks at the clock: {metric}"
        values = spun["spin-own"][metric], spun["spin"][metric]
        made.append(make_row(text, unit, *values, higher_is_better=False))
    for name, value in said.items():
        made.append(make_row(f"{name}: most", "us", [value], higher_is_better=False))
    return made


def rows(turns: list[Turn]) -> list[Row]:
    """What interrupted them left out, and their system calls too; whatever happened is the baseline."""
    whole = sorted(turn.whole for turn in turns)
    made = []
    for text, values in (
        ("a turn's part of an update", sorted(turn.own for turn in turns)),
        ("the same outside system calls", sorted(turn.walked for turn in turns)),
    ):
        for name, part in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("most", 1.0)):
            at = min(len(whole) - 1, int(len(whole) * part))
            made.append(make_row(f"{text}: {name}", "us", [values[at]], [whole[at]], higher_is_better=False))
        long = [sum(value > LONG_US for value in those) * 1e6 / len(turns) for those in (values, whole)]
        text = f"{text}: above {LONG_US} us, of {len(turns)}"
        made.append(make_row(text, "of a million", [long[0]], [long[1]], higher_is_better=False))
    return made


PROGRAM = Program(
    "csb-held",
    "how long updates hold the TCP threads of the live system",
    run,
    notes=(
        f"{WORKERS} TCP threads of an echo in Python, {HELD:,} connections held, {CLIENTS} kernel clients in Python",
        "come and go over a veth: two busy processors. Traced with perf: begin and end of what a thread does for an",
        "update (uprobes, about 2 us each), its system calls, interrupts, softirqs and switches between. The value is",
        "without the last three, the baseline with all. A host that takes the processor is not seen.",
        "The loop that only looks at the clock runs beside the same clients, neither probed nor traced: value and",
        "baseline as above, by the kernel's counts. What the machine does to it, it does to a walk. held_us,",
        "held_wall_us: the threads' own word, without a probe: processor time with what interrupts do in it, and by",
        "the clock with whoever had the processor meanwhile.",
    ),
)
