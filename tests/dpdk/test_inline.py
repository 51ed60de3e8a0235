"""What is inline in headers of dpdk_glue, by programs of its own."""

import subprocess
from pathlib import Path

import pytest

from tests.dpdk.conftest import ROOT

FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-I."]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("mbufs", id="mbufs come and go together as one by one"),
        pytest.param("ahead", id="what is read ahead is taken once and in its order"),
    ],
)
def test_program(name: str, tmp_path: Path) -> None:
    cflags, libs = (
        subprocess.run(["pkg-config", what, "libdpdk"], capture_output=True, text=True, check=True).stdout
        for what in ("--cflags", "--libs")
    )
    program = tmp_path / name
    words = ["gcc", *FLAGS, *cflags.split(), f"tests/dpdk/{name}.c", "-o", str(program), *libs.split()]
    subprocess.run(words, cwd=ROOT, check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
