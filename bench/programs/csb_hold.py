"""csb-hold: how long an update holds a TCP thread in a turn of its loop, beside a loop that does nothing."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench.csb_build import build, measure, size_name
from bench.framework import Options, Program, Row, make_row

UPDATES = 20
WHEN = {
    "own": ("nothing has interrupted it", "spin-own"),
    "processor": ("processor time", "spin"),
    "any": ("whatever happened", "spin"),
}
COUNTED_FLOWS, COUNTED_UPDATES = 20_000, 2
COUNTED = {
    "part": "between two looks at the clock",
    "turn": "of a turn whose clock stands still",
    "points": "the same, each key looked for among 4,096 points",
}
# callgrind counts each byte of a rep movsb as an instruction.
PLAIN_COPIES = "glibc.cpu.x86_rep_movsb_threshold=100000000:glibc.cpu.x86_rep_stosb_threshold=100000000"


def instructions(program: str, mode: str) -> list[float]:
    """Of each turn, in the process alone: what the kernel does for a message is not in it."""
    with tempfile.TemporaryDirectory() as directory:
        words = ["valgrind", "--tool=callgrind", "--combine-dumps=yes"]
        words += [f"--callgrind-out-file={directory}/out"]
        words += [program, str(COUNTED_FLOWS), str(COUNTED_UPDATES), mode]
        env = os.environ | {"GLIBC_TUNABLES": PLAIN_COPIES}
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
        text = (Path(directory) / "out").read_text()
    parts = re.split(r"^part: ", text, flags=re.MULTILINE)
    turns = [part for part in parts if "Trigger: Client Request" in part]
    return [float(match[1]) for part in turns if (match := re.search(r"^totals: (\d+)", part, re.MULTILINE))]


def counted(program: str, progress: Callable[[str], None]) -> list[Row]:
    """The most that any turn has, which no interrupt and no other process can change."""
    if shutil.which("valgrind") is None:
        progress("instructions need valgrind")
        return []
    rows = []
    for mode, text in COUNTED.items():
        progress(f"instructions {text}")
        most = max(instructions(program, mode))
        rows.append(make_row(f"instructions {text}: most", "", [most], higher_is_better=False))
    return rows


def run(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """The whole program."""
    program = build("csb_hold")
    rows = counted(program, progress)
    for flows in (100_000,) if options.quick else (100_000, 1_000_000):
        size = size_name(flows)
        found: dict[str, dict[str, list[float]]] = {}
        for number in range(options.runs(5, 3)):
            progress(f"{size} flows, run {number}")
            for form, metrics in measure([program, str(flows), str(UPDATES)]).items():
                for metric, values in metrics.items():
                    found.setdefault(form, {}).setdefault(metric, []).extend(values)
        for form, (when, baseline) in WHEN.items():
            for metric in ("p50", "p99", "p99.9", "max", "long"):
                row = make_row(
                    f"turn {size}, {when}: {metric}",
                    "of a million" if metric == "long" else "us",
                    found[form][metric],
                    found[baseline][metric],
                    higher_is_better=False,
                )
                rows.append(row)
        rows.append(make_row(f"walk {size} at once", "us", found["whole"]["max"], higher_is_better=False))
        for form in ("any", "own"):
            text = f"turns {size}, {WHEN[form][0]}"
            rows.append(make_row(text, "", found[form]["turns"], higher_is_better=False))
    return rows


PROGRAM = Program(
    "csb-hold",
    "how long an update holds a TCP thread in one turn, beside a loop that does nothing",
    run,
    notes=(
        "20 updates of a thread's flows, half of which move, each with the check of a draft that has as many",
        "exceptions; sdk/app/balance.c as it is, lists sent and values mapped by the thread beside.",
        "Nothing has interrupted it: no switch, page fault, interrupt or softirq by the kernel's own events; a host",
        "that takes the processor is not seen. The baseline looks at the clock for as long as a turn may take, as many",
        "times, measured alike: what is in its p99.9 and max is the machine's. Long: turns above 100 us. Instructions:",
        "the same code under callgrind, the most of any turn. --quick: 100k flows alone.",
    ),
)
