"""CPython's own asyncio tests pass on the Janus loop, those that tests/asyncio_suite/skipped.py names excepted."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = {
    "kernel": "base_events buffered_proto context locks pep492 runners selector_events sendfile streams unix_events",
    "memory": "buffered_proto sendfile sslproto streams",
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("test.test_asyncio") is None,
        reason="needs libpython3.11-testsuite: tools/install-packages tests",
    ),
]


@pytest.mark.parametrize("mode", MODULES)
def test_cpythons_own_tests_pass(mode: str) -> None:
    modules = [f"test_{name}" for name in MODULES[mode].split()]
    words = [sys.executable, "-m", "tests.asyncio_suite", mode, *modules]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
