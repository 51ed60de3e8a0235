"""Every packet script is a test."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.packet_scripts.grammar import parse
from tests.packet_scripts.runner import Runner, run_file
from tests.packet_scripts.script import Expect, ScriptError, Unsupported

HERE = Path(__file__).parent
SCRIPTS = sorted(HERE.rglob("*.pkt"))


def name(path: Path) -> str:
    return str(path.relative_to(HERE)).removesuffix(".pkt")


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_script(path: Path) -> None:
    try:
        script = run_file(path)
    except ScriptError as e:
        pytest.fail(str(e), pytrace=False)
    except Unsupported as u:
        pytest.fail(f"a script of ours must not ask for what is not there: {u}", pytrace=False)
    assert re.search(r"(RFC \d{4}|draft-[a-z]+-[a-z0-9-]+) (\d|appendix)", script.first_comment), (
        "the first comment names the RFC and section that the script shows"
    )


@pytest.mark.thorough
@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_every_expected_packet_can_fail(path: Path) -> None:
    """Each `>` line in turn with an acknowledgment that is off by one: no script may still pass."""
    script = parse(str(path), path.read_text())
    for i, event in enumerate(script.events):
        if isinstance(event.body, Expect) and event.body.packet.ack is not None:
            packet = replace(event.body.packet, ack=event.body.packet.ack + 1)
            wrong = replace(event, body=Expect(packet))
            with pytest.raises((ScriptError, Unsupported)):
                Runner(replace(script, events=[*script.events[:i], wrong, *script.events[i + 1 :]])).run()


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) >= 300
    assert len({p.parent for p in SCRIPTS}) >= 20
