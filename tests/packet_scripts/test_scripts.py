"""Every packet script is a test."""

import re
from pathlib import Path

import pytest

from tests.packet_scripts.grammar import parse
from tests.packet_scripts.runner import run_file, run_text
from tests.packet_scripts.script import ScriptError, Unsupported

HERE = Path(__file__).parent
SCRIPTS = sorted(HERE.rglob("*.pkt"))


def name(path: Path) -> str:
    return str(path.relative_to(HERE)).removesuffix(".pkt")


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_script(path: Path) -> None:
    try:
        run_file(path)
    except ScriptError as e:
        pytest.fail(str(e), pytrace=False)
    except Unsupported as u:
        pytest.fail(f"a script of ours must not ask for what is not there: {u}", pytrace=False)


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_script_names_what_it_shows(path: Path) -> None:
    comment = parse(str(path), path.read_text()).first_comment
    assert re.search(r"(RFC \d{4}|draft-[a-z]+-[a-z0-9-]+) (\d|appendix)", comment), (
        "the first comment names the RFC and section that the script shows"
    )


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_every_expected_packet_can_fail(path: Path) -> None:
    """Each `>` line in turn with an acknowledgment that is off by one: no script may still pass."""
    lines = path.read_text().splitlines()
    for i, line in enumerate(lines):
        wrong = re.sub(r"(>.* ack )(\d+)", lambda m: m[1] + str(int(m[2]) + 1), line, count=1)
        if re.match(r"\S+\s+>", line) and wrong != line:
            with pytest.raises((ScriptError, Unsupported)):
                run_text("\n".join([*lines[:i], wrong, *lines[i + 1 :]]))


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) >= 300
    assert len({p.parent for p in SCRIPTS}) >= 20
