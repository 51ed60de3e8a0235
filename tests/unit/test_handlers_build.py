"""C handlers as released: what a waiting one stores, in the calls of janus.h themselves."""

import platform
import subprocess
from pathlib import Path

import pytest
from _coro import lib

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [
    pytest.mark.skipif(
        lib.built_with_asan(), reason="a program of its own, not under AddressSanitizer's preload"
    ),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="sizes of x86-64"),
]


def test_a_waiting_handler_stores_at_most_96_bytes_and_none_with_templates(tmp_path: Path) -> None:
    subprocess.run(["make", "-s", "build/release/libjanus.a"], cwd=ROOT, check=True, capture_output=True)
    program = tmp_path / "handlers_sizes"
    command = ["gcc", "-std=c11", "-D_GNU_SOURCE", "-O2", "-DNDEBUG", "-Isdk", "-I.", "-o", str(program)]
    command += ["tests/native/handlers_sizes.c", "build/release/libjanus.a", "-pthread"]
    subprocess.run(command, cwd=ROOT, check=True)
    done = subprocess.run([program], check=True, capture_output=True, text=True, timeout=60)
    found = {
        name: tuple(map(int, rest)) for name, *rest in (line.split() for line in done.stdout.splitlines())
    }
    assert found.keys() == {"copy", "copy_by_template", "view", "view_by_template"}
    for name, (waiting, live, stored) in found.items():
        assert waiting == 300, name
        assert live <= 96, name
        assert stored == (0 if name.endswith("template") else 96), name
