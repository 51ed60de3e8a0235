"""dpdk_glue/mbufs.h, which gives back and takes a burst's mbufs together."""

import subprocess
from pathlib import Path

from tests.dpdk.conftest import ROOT

FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-I."]


def test_mbufs_come_and_go_as_one_by_one(tmp_path: Path) -> None:
    cflags, libs = (
        subprocess.run(["pkg-config", what, "libdpdk"], capture_output=True, text=True, check=True).stdout
        for what in ("--cflags", "--libs")
    )
    program = tmp_path / "mbufs"
    words = ["gcc", *FLAGS, *cflags.split(), "tests/dpdk/mbufs.c", "-o", str(program), *libs.split()]
    subprocess.run(words, cwd=ROOT, check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
