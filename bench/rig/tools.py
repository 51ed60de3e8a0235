"""Builds the small C programs of the tests and benchmarks when they are asked for, once per source text."""

import os
import subprocess
from pathlib import Path

from bench.rig.processes import REPO

FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-g", "-Wall", "-Wextra", "-Werror"]


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
