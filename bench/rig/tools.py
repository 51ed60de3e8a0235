"""Builds the small C programs of the tests and benchmarks when they are asked for, once per source text."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.rig.processes import REPO

FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-g", "-Wall", "-Wextra", "-Werror"]


LOAD = REPO / "bench" / "load"
LOAD_COMMON = ("pump.c", "control.c", "load.c")


def build_load(name: str, source: str, *flags: str, libs: str = "") -> Path:
    """The load generator around one of its main files, against DPDK, in build/tools."""
    program = REPO / "build" / "tools" / name
    program.parent.mkdir(parents=True, exist_ok=True)
    newest = max(path.stat().st_mtime for path in (*LOAD.iterdir(), REPO / "dpdk_glue" / "mbufs.h"))
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


def build_janus_tool(source: Path, *more: Path) -> Path:
    """The program compiled from a C file, and perhaps more, against the SDK, in build/tools."""
    archive = REPO / "build" / "release" / "libjanus.a"
    newest = max(path.stat().st_mtime for path in (archive, *more))
    return _compiled(source, ["-Isdk", "-I."], [*map(str, more), str(archive)], newest)


def build_tool(source: Path) -> Path:
    """The program compiled from one C file and headers beside it, in build/tools."""
    return _compiled(source, ["-I."], [], 0.0)


def _compiled(source: Path, flags: Sequence[str], libraries: Sequence[str], newest: float) -> Path:
    directory = REPO / "build" / "tools"
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / source.stem
    newest = max(newest, *(path.stat().st_mtime for path in (source, *source.parent.glob("*.h"))))
    if not program.exists() or program.stat().st_mtime < newest:
        fresh = program.with_suffix(f".{os.getpid()}")
        words = ["gcc", *FLAGS, *flags, str(source), *libraries, "-o", str(fresh)]
        done = subprocess.run(words, cwd=REPO, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{source.name} does not compile:\n{done.stderr}")
        fresh.replace(program)
    return program


def build_with_sdk(source: Path) -> Path:
    """The program compiled from one C file against the C SDK as released, in build/tools."""
    subprocess.run(
        ["make", "-s", "build/release/sdk-install/libjanus.a"], cwd=REPO, check=True, capture_output=True
    )
    library = REPO / "build" / "release" / "sdk-install" / "libjanus.a"
    program = REPO / "build" / "tools" / source.stem
    program.parent.mkdir(parents=True, exist_ok=True)
    newest = max(source.stat().st_mtime, library.stat().st_mtime)
    if not program.exists() or program.stat().st_mtime < newest:
        fresh = program.with_suffix(f".{os.getpid()}")
        words = ["gcc", *FLAGS, "-Isdk", str(source), str(library), "-pthread", "-o", str(fresh)]
        done = subprocess.run(words, cwd=REPO, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{source.name} does not compile:\n{done.stderr}")
        fresh.replace(program)
    return program
