"""Builds the C programs of the system tests that stand on the SDK's library."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.rig import REPO

FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-Isdk", "-I.", "-pthread"]
LIBRARY = "build/release/libjanus.a"


def build_linked(name: str, sources: Sequence[Path]) -> Path:
    """The program compiled from these files and the library, in build/tools."""
    program = REPO / "build" / "tools" / name
    program.parent.mkdir(parents=True, exist_ok=True)
    words = ["gcc", *FLAGS, *map(str, sources), LIBRARY, "-o", str(program)]
    done = subprocess.run(words, cwd=REPO, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{name} does not compile:\n{done.stderr}")
    return program
