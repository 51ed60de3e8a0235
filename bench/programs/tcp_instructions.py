"""tcp-instructions: how many instructions the TCP core alone takes, counted by callgrind.

A C driver feeds the core through tcp.h with packets of a stateless peer; what counts is what runs inside the
functions of tcp.h, the difference of two run lengths, so that opening and warming up cancel out.  A count
is exact and the same in every run of one build, on a busy machine too.  The baseline takes the very same
packets, received and sent, apart (headers and options) and sums them, and does nothing else."""

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.framework import Options, Program, Row, alternate, make_row
from bench.machine import REPO

FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-g", "-DNDEBUG", "-Isdk", "-I.")
SOURCES = ("bench/tcp_instructions.c", "sdk/tcp/*.c", "sdk/wire/*.c", "sdk/csb/*.c")
SHORT, LONG = 320, 1600


@dataclass(frozen=True)
class Case:
    """One load and what it is counted by."""

    word: str
    text: str
    unit: str


CASES = (
    Case("receive", "receive 1448 B, each second one acknowledged", "instructions/packet"),
    Case("batch", "receive 1448 B, 32 at a time, acknowledged once", "instructions/packet"),
    Case("send", "send 1448 B, each second one acknowledged", "instructions/packet"),
    Case("request", "64 B request and reply on a kept connection", "instructions/request"),
    Case("short", "short connection: SYN, 64 B request and reply, FINs", "instructions/connection"),
)


def build(directory: Path, name: str, *flags: str) -> Path:
    """The driver with the core compiled as it is released, and these flags more."""
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / name
    sources = [str(path) for pattern in SOURCES for path in sorted(REPO.glob(pattern))]
    words = ["gcc", *FLAGS, *flags, *sources, "-o", str(program)]
    done = subprocess.run(words, cwd=REPO, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the TCP core does not compile:\n{done.stderr}")
    return program


def functions() -> list[str]:
    """The core's interface: every function that tcp.h declares and the driver may call."""
    text = (REPO / "sdk" / "tcp" / "tcp.h").read_text()
    found = re.findall(r"^[a-z].*?\b(tcp_\w+)\(", text, re.MULTILINE)
    return sorted({name for name in found if name not in ("tcp_init", "tcp_check")})


def count(program: Path, word: str, operations: int, *, baseline: bool) -> int:
    """Instructions within the core, or within the baseline, of a run of so many operations."""
    names = ["baseline"] if baseline else functions()
    words = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    words += [f"--toggle-collect={name}" for name in names]
    words += [str(program), word, str(operations), *(["baseline"] if baseline else [])]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    match = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or match is None:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
    return int(match[1])


def measure(program: Path, case: Case, *, baseline: bool) -> dict[str, float]:
    """Instructions of one operation."""
    short, long = (count(program, case.word, n, baseline=baseline) for n in (SHORT, LONG))
    return {"instructions": (long - short) / (LONG - SHORT)}


def run(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """The whole program; a count needs no second run."""
    if shutil.which("valgrind") is None:
        raise RuntimeError("needs valgrind")
    program = build(REPO / "build" / "tools", "tcp_instructions")
    rows = []
    for case in CASES:
        samples = alternate(
            {
                "core": partial(measure, program, case, baseline=False),
                "bare": partial(measure, program, case, baseline=True),
            },
            1,
            lambda text, case=case: progress(f"{case.word}, {text}"),  # type: ignore[misc]
        )
        core, bare = (samples[name]["instructions"] for name in ("core", "bare"))
        rows.append(make_row(case.text, case.unit, core, bare, higher_is_better=False))
    return rows


PROGRAM = Program(
    "tcp-instructions",
    "instructions of the TCP core alone, against a bare parse and checksum of the same packets",
    run,
    notes=(
        "Received packets come with their hash and verified, as from janusd: the core sums what it sends only,",
        "the baseline sums both. The driver's environment functions count as the core's.",
    ),
)
