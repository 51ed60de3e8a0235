"""The SDK on aarch64: built whole by the cross compiler, run under qemu-user, the same packets as here."""

import shutil
import subprocess
from pathlib import Path

import pytest
from _coro import lib

from tests.sim import runner

ROOT = Path(__file__).resolve().parents[2]
SMALL = "-DJANUS_SLAB_BLOCK_SHIFT=3"  # as in make native
CROSS, QEMU = "aarch64-linux-gnu-gcc", ["qemu-aarch64-static", "-cpu", "max,pauth-impdef=on"]
SEEDS = range(1, 41)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        lib.built_with_asan(), reason="a program of its own, not under AddressSanitizer's preload"
    ),
    pytest.mark.skipif(
        shutil.which(CROSS) is None or shutil.which(QEMU[0]) is None,
        reason=f"{CROSS} or {QEMU[0]} not installed",
    ),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """libjanus.a for aarch64, asserts included."""
    build = tmp_path_factory.mktemp("aarch64")
    archive = build / "libjanus.a"
    subprocess.run(
        ["make", "-s", f"CC={CROSS}", f"BUILD={build}", f"CFLAGS=-O2 -g {SMALL}", str(archive)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    return archive


def output(library: Path, source: str, *arguments: str) -> list[list[str]]:
    """What the program of one file prints, in words a line."""
    program = library.with_name(Path(source).stem)
    command = [
        CROSS,
        "-static",
        "-std=c11",
        "-D_GNU_SOURCE",
        "-O2",
        SMALL,
        "-Isdk",
        "-I.",
        "-o",
        str(program),
    ]
    subprocess.run([*command, source, str(library), "-pthread"], cwd=ROOT, check=True)
    done = subprocess.run(
        [*QEMU, program, *arguments], check=True, capture_output=True, text=True, timeout=120
    )
    return [line.split() for line in done.stdout.splitlines()]


def test_the_same_seed_gives_the_same_packets(library: Path) -> None:
    """Trace hashes of whole simulated worlds are those of this machine's processor."""
    found = output(library, "tests/native/sim_main.c", str(SEEDS.start), str(len(SEEDS)))
    here = [[str(o.seed), f"{o.trace_hash:016x}"] for o in runner.run_many(SEEDS)]
    assert found == here


def test_a_waiting_handler_stores_nothing_with_templates(library: Path) -> None:
    """Handlers of janus.h over the stack; without templates a handler keeps ten registers more than on x86-64."""
    for name, waiting, live, stored in output(library, "tests/native/handlers_sizes.c"):
        assert int(waiting) == 300, name
        assert int(live) <= 208, name
        assert int(stored) == (0 if name.endswith("template") else 224), name
