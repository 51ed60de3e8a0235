"""The files of tests/regressions are whole: each guard stands in the code, once, and its tests exist.

That they fail without it is shown by `python -m tests.regressions`, which builds the core anew for each guard."""

import pytest

from tests.regressions import ROOT, BugClass, classes, locate

CLASSES = classes()
# The historic classes of bugs in parsers, in TCP's state and resources, and in shared memory.
REQUIRED = {
    *(
        "ip-lengths",
        "ip-options",
        "tcp-data-offset",
        "tcp-option-lengths",
        "tcp-option-values",
        "urgent-pointer",
    ),
    *("checksums", "fragments", "icmp", "arp", "land", "encapsulation", "flags-and-states"),
    *("blind-segments", "challenge-counter", "sack", "segment-smack", "overlaps", "syn-flood", "ack-storm"),
    *("optimistic-acks", "vanished-peers", "time-wait", "isn-prediction", "wrap", "windows", "slow-clients"),
    *("ring-indices", "descriptor-bounds", "slot-owners", "double-fetch", "attach-messages"),
    *("page-removal", "stopped-apps", "reachable-asserts"),
    "balancer-updates",
}


def test_every_class_has_its_file() -> None:
    assert {c.name for c in CLASSES} >= REQUIRED


@pytest.mark.parametrize("bug", CLASSES, ids=lambda c: c.name)
def test_a_class_is_whole(bug: BugClass) -> None:
    assert bug.title
    assert bug.known
    assert any(g.shown_by for g in bug.guards) or bug.also
    for guard in bug.guards:
        code = (ROOT / guard.file).read_text()
        assert code.count(guard.text) == 1, (
            f"{guard.name}: in {guard.file} once, not {code.count(guard.text)} times"
        )
        assert guard.without != guard.text
        missing = [p for p in guard.shown_by if locate(p) is None]
        assert not missing, f"{guard.name}: no such test: {missing}"
    assert not [p for p in bug.also if locate(p) is None]
