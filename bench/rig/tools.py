"""Builds the small C programs of the tests and benchmarks when they are asked for, once per source text."""

import os
import subprocess
from pathlib import Path

from bench.rig.processes import REPO

FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-g", "-Wall", "-Wextra", "-Werror"]


LOAD = REPO / "bench" / "load"
LOAD_COMMON = ("pump.c", "control.c", "load.c")


def build_load(name: str, source: str, *flags: str, libs: str = "") -> Path:
    """The load generator around one of its main files, against DPDK, in build/tools."""
    program = REPO / "build" / "tools" / name
    program.parent.mkdir(parents=True, exist_ok=True)
    newest = max(path.stat().st_mtime for path in LOAD.iterdir())
    if program.exists() and program.stat().st_mtime >= newest:
        return program
    cflags, dpdk = (
        subprocess.run(["pkg-config", what, "libdpdk"], capture_output=True, text=True, check=True).stdout
        for what in ("--cflags", "--libs")
    )
    fresh = program.with_suffix(f".{os.getpid()}")
    sources = [str(LOAD / file) for file in (source, *LOAD_COMMON)]
    words = [
        "gcc",
        *FLAGS,
        "-O3",
        "-I.",
        *cflags.split(),
        *flags,
        *sources,
        "-o",
        str(fresh),
        *dpdk.split(),
        *libs.split(),
    ]
    done = subprocess.run(words, cwd=REPO, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the load generator does not compile:\n{done.stderr}")
    fresh.replace(program)
    return program


def build_tool(source: Path) -> Path:
    """The program compiled from one C file, in build/tools."""
    directory = REPO / "build" / "tools"
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / source.stem
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        fresh = program.with_suffix(f".{os.getpid()}")
        done = subprocess.run(
            ["gcc", *FLAGS, str(source), "-o", str(fresh)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"{source.name} does not compile:\n{done.stderr}")
        fresh.replace(program)
    return program
