"""CPython's own asyncio tests pass on the Janus loop, those that tests/asyncio_suite/skipped.py names excepted; and
docs/asyncio.md says the same of them."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.asyncio_suite.skipped import LEFT_OUT, NOT_RUN, RUN

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "asyncio.md").read_text()
SLOW = {"events", "ssl", "sslproto", "subprocess"}  # much of it sleeping: each beside the others
SUITE = find_spec("test.test_asyncio")

installed = pytest.mark.skipif(
    SUITE is None, reason="needs libpython3.11-testsuite: tools/install-packages tests"
)


@pytest.mark.slow
@installed
def test_cpythons_own_tests_pass() -> None:
    running: list[tuple[list[str], subprocess.Popen[str]]] = []
    for mode, modules in RUN.items():
        alone = [[name] for name in modules.split() if name in SLOW]
        for names in [*alone, [name for name in modules.split() if name not in SLOW]]:
            words = [sys.executable, "-m", "tests.asyncio_suite", mode, *names]
            started = subprocess.Popen(
                words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            running.append((words[3:], started))
    said = {" ".join(words): (one.communicate(timeout=240)[0], one.returncode) for words, one in running}
    assert {words: text[-6000:] for words, (text, code) in said.items() if code} == {}


@installed
def test_every_module_is_run_or_named_with_a_reason() -> None:
    assert SUITE is not None
    assert SUITE.origin is not None
    there = {path.stem.removeprefix("test_") for path in Path(SUITE.origin).parent.glob("test_*.py")}
    assert there == set(" ".join([*RUN.values(), *NOT_RUN]).split())


def rows(heading: str) -> list[list[str]]:
    """The cells of the table on the page that begins so."""
    table = PAGE.split(f"\n| {heading} |", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_page_has_the_modules_that_are_run_and_why_others_are_not() -> None:
    run = {mode: set[str]() for mode in RUN}
    reasons = {}
    for modules, kernel, memory, why in rows("module of test_asyncio"):
        for mode, cell in (("kernel", kernel), ("memory", memory)):
            run[mode] |= set(modules.split(", ")) if cell == "run" else set()
        if not kernel:
            reasons[modules.replace(",", "")] = why
    assert run == {mode: set(modules.split()) for mode, modules in RUN.items()}
    assert reasons == NOT_RUN


def test_the_page_has_the_tests_that_are_left_out_and_why() -> None:
    shown = {
        (modes.replace(",", ""), pattern, why)
        for patterns, modes, why in rows("tests")
        for pattern in re.findall(r"`([^`]+)`", patterns)
    }
    assert shown == set(LEFT_OUT)
