"""Every packet script is a test; one in pending/ must still fail, so that it is moved when its subject is mended."""

import re
from pathlib import Path

import pytest

from tests.packet_scripts.grammar import parse
from tests.packet_scripts.runner import run_file, run_text
from tests.packet_scripts.script import ScriptError, Unsupported

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PENDING = sorted((HERE / "pending").rglob("*.pkt"))
SCRIPTS = sorted(set(HERE.rglob("*.pkt")) - set(PENDING))
TABLE = (ROOT / "docs" / "packet-scripts.md").read_text()


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


@pytest.mark.parametrize("path", PENDING, ids=name)
def test_pending_script_is_listed_and_still_fails(path: Path) -> None:
    assert f"`{name(path)}`" in TABLE, "docs/packet-scripts.md does not say what this script waits for"
    with pytest.raises((ScriptError, Unsupported)):
        run_file(path)


@pytest.mark.parametrize("path", SCRIPTS + PENDING, ids=name)
def test_script_names_what_it_shows(path: Path) -> None:
    comment = parse(str(path), path.read_text()).first_comment
    assert re.search(r"(RFC \d{4}|draft-[a-z]+-[a-z0-9-]+) (\d|appendix)", comment), (
        "the first comment names the RFC and section that the script shows"
    )


def test_the_table_of_pending_scripts_has_no_dead_lines() -> None:
    listed = set(re.findall(r"^\| `(pending/[^`]+)`", TABLE, re.MULTILINE))
    assert listed == {name(p) for p in PENDING}


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
