"""Exhaustive search with Spin: the repaired update holds; the printed one, and each omission of a rule, do not."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

MODELS = Path(__file__).resolve().parents[1] / "models"
MEMORY_MIB = 1024

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("spin"), reason="spin is not installed: no model is searched"),
]


def search(model: str, flags: str, tmp_path: Path, optimize: str = "-O1") -> tuple[int, int]:
    """Errors (0 or 1) and states of a search that came to its end.  To compile it takes longer than to search a little:
    so `optimize` as is quickest for both."""

    def run(*words: str) -> str:
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("spin", "-a", *flags.split(), str(MODELS / model))
    options = ["-DSAFETY", "-DNOCLAIM", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MIB}"]
    run("gcc", "-w", optimize, *options, "-o", "pan", "pan.c")
    out = run("./pan", "-m100000", "-w23")
    print(out)
    errors = re.search(r"errors: (\d+)", out)
    states = re.search(r"(\d+) states, stored", out)
    assert errors, out
    assert states, out
    assert "max search depth too small" not in out
    assert int(errors[1]) or "Search not completed" not in out
    return int(errors[1]), int(states[1])


@pytest.mark.parametrize(
    "flags",
    [
        pytest.param("-DPACKETS=4 -DUPDATES=2", id="two updates, SYNs sent again and spoofed"),
        pytest.param("-DPACKETS=4 -DUPDATES=2 -DCOOKIES", id="two updates, SYN cookies"),
        pytest.param("-DPACKETS=3 -DCLOSES=1", id="closed and opened anew"),
        pytest.param("-DPACKETS=2 -DABORTS=1", id="aborted once"),
        pytest.param("-DPACKETS=2 -DABORTS=1 -DCOOKIES", id="aborted once, SYN cookies"),
        pytest.param("-DPACKETS=2 -DDEATH", id="a thread dies"),
        pytest.param(
            "-DPACKETS=2 -DDEATH -DUPDATES=2 -DHELD_MAX=0", id="two updates, a thread dies, SYNs dropped"
        ),
    ],
)
def test_the_repaired_update_holds(flags: str, tmp_path: Path) -> None:
    errors, states = search("csb_update.pml", flags, tmp_path)
    assert errors == 0
    assert states > 5000  # there was something to search


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param("NO_FENCE", id="markers in the rings"),
        pytest.param("NO_STATES", id="half-open connections are walked"),
        pytest.param("NO_OLD_MAP", id="SYNs by the old map"),
        pytest.param("NO_ONE_SWAP", id="circle and exceptions swapped as one"),
        pytest.param("NO_EVERY_IO", id="every I/O thread is waited for"),
        pytest.param("NO_LATE", id="late lists"),
        pytest.param("NO_SEAL -DCOOKIES", id="a sealed thread creates nothing"),
        pytest.param("NO_SILENCE", id="a sealed thread resets nothing"),
        pytest.param("NO_HELD_ANEW", id="a SYN that was held goes by the new map"),
        pytest.param("NO_HELD_ABORT -DPACKETS=2 -DABORTS=1", id="what is held is let go when it is given up"),
    ],
)
def test_each_rule_is_needed(rule: str, tmp_path: Path) -> None:
    assert search("csb_update.pml", f"-D{rule}", tmp_path, "-O0")[0] == 1


def test_the_printed_update_fails(tmp_path: Path) -> None:
    assert search("csb_printed.pml", "", tmp_path, "-O0")[0] == 1


def test_the_printed_update_holds_while_no_packet_moves(tmp_path: Path) -> None:
    assert search("csb_printed.pml", "-DKEEPS_UNDISTURBED", tmp_path)[0] == 0
