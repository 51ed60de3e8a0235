"""Builds and runs the balancer's C benchmarks: sources of the product and of the printed form, in one program."""

import subprocess
from collections.abc import Sequence

from bench.framework import Samples
from bench.rig.processes import REPO

FLAGS = [
    "-std=c11",
    "-D_GNU_SOURCE",
    "-O2",
    "-DNDEBUG",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-pthread",
    "-Isdk",
    "-I.",
]


def build(name: str) -> str:
    """The path of bench/NAME.c as a program."""
    program = REPO / "build" / "tools" / name
    program.parent.mkdir(parents=True, exist_ok=True)
    sources = [f"bench/{name}.c", *(str(p) for p in sorted((REPO / "sdk" / "csb").glob("*.c")))]
    done = subprocess.run(
        ["gcc", *FLAGS, *sources, "-o", str(program)], cwd=REPO, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{name} does not compile:\n{done.stderr}")
    return str(program)


def measure(words: Sequence[str], text: str = "") -> dict[str, Samples]:
    """Run a program that prints FORM METRIC VALUE; samples by form and metric."""
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{words[0]} ended with {done.returncode}: {done.stderr}")
    samples: dict[str, Samples] = {}
    for line in done.stdout.splitlines():
        form, metric, value = line.split()
        samples.setdefault(form, {}).setdefault(metric, []).append(float(value))
    return samples


def size_name(streams: int) -> str:
    """1M for a million."""
    return f"{streams // 1_000_000}M" if streams >= 1_000_000 else f"{streams // 1000}k"
