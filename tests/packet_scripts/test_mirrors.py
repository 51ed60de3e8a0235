"""The packet scripts again over IPv6, and as a client, over both."""

from pathlib import Path

import pytest

from tests.packet_scripts.grammar import parse
from tests.packet_scripts.mirrors import as_client, over_ipv6
from tests.packet_scripts.runner import Runner
from tests.packet_scripts.script import Script, ScriptError, Unsupported
from tests.packet_scripts.test_scripts import SCRIPTS, name

OTHER_OVER_IPV6 = {
    "handshake/mss-default": "it is 1220, see ipv6/mss-default",
    "icmp/protocol-unreachable-in-established": "ICMPv6 has no such message",
    "path-mtu/black-hole": "the search begins at 1220",
    "path-mtu/deep-black-hole": "the search begins at 1220",
    "path-mtu/floor": "it is 1280, see path-mtu/floor-ipv6",
    "path-mtu/not-told": "ICMPv6 tells always",
    "path-mtu/search-is-answered": "the search begins at 1220",
}
OTHER_AS_CLIENT = {
    "handshake/mss-of-our-link": "the SYN's options are named",
    "hostile/echo-from-the-future": "the SYN has measured the round trip",
    "ipv6/sack-and-timestamps": "the SYN's options are named",
    "rto/handshake-is-measured": "a setting of a passive open",
    "timestamps-paws/rtt-of-a-retransmission": "the SYN has measured the round trip",
    **dict.fromkeys(
        [
            "ipv6/time-wait",
            "reset/of-half-open-crash",
            "time-wait/new-syn",
            "time-wait/new-syn-by-timestamp",
            "time-wait/same-timestamp",
            "time-wait/timestamp-of-fin",
            "time-wait/without-listener",
        ],
        "a listener takes the next connection",
    ),
}


def mirrored(over6: bool, client: bool) -> list[tuple[Path, Script]]:
    scripts = []
    for path in SCRIPTS:
        text: str | None = path.read_text()
        if client:
            text = as_client(text or "")
        script = parse(str(path), text) if text else None
        if script and over6:
            script = over_ipv6(script)
        if script:
            scripts.append((path, script))
    return scripts


def run_all(scripts: list[tuple[Path, Script]], other: dict[str, str]) -> list[str]:
    """What is not as in the script, of those that should be alike, and who is alike though said to be other."""
    wrong = []
    for path, script in scripts:
        try:
            Runner(script).run()
        except (ScriptError, Unsupported) as e:
            if name(path) not in other:
                wrong.append(f"{name(path)}: {e}")
        else:
            if name(path) in other:
                wrong.append(f"{name(path)}: is alike")
    return wrong


@pytest.mark.parametrize(
    ("over6", "client", "at_least", "other"),
    [
        pytest.param(True, False, 420, OTHER_OVER_IPV6, id="IPv6"),
        pytest.param(False, True, 320, OTHER_AS_CLIENT, id="client"),
        pytest.param(True, True, 310, {**OTHER_OVER_IPV6, **OTHER_AS_CLIENT}, id="client-IPv6"),
    ],
)
def test_the_conversation_is_the_same(
    over6: bool, client: bool, at_least: int, other: dict[str, str]
) -> None:
    scripts = mirrored(over6, client)
    assert len(scripts) >= at_least
    wrong = run_all(scripts, other)
    assert not wrong, "\n".join(wrong)


def test_what_is_missing_in_a_mirror_fails() -> None:
    """The scripts about Nagle's algorithm, without what is written."""
    nagle = [(p, s) for p, s in mirrored(True, True) if p.parent.name == "nagle"]
    for _, script in nagle:
        script.events = [e for e in script.events if "write(" not in e.source]
    assert len(run_all(nagle, {})) == len(nagle)
