"""The verbs that change something: answered when in force, whole or not at all, undone unless confirmed, logged."""

import asyncio
import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from janusd import api, ctl, ctl_client, ctl_commands
from janusd.api import ApiServer
from janusd.autoweights import Sample
from janusd.control import Control
from janusd.csb_metrics import CsbCounts, csb_families
from janusd.ctl_tables import strip
from tests.unit.control_panel import READER, AtOnce, Panel
from tests.unit.test_janusd_balancer import ByHand

EVEN = {0: 1.0, 1: 1.0, 2: 1.0}


def test_a_change_is_answered_when_it_is_in_force() -> None:
    panel = Panel(ByHand())
    replies = panel.send(b'{"version":1,"id":"x","verb":"csb_set","app":"web","weights":{"0":2,"1":1}}')
    assert replies == []
    assert panel.weights() == EVEN
    panel.runner.end(kept=12, exceptions=5)
    [reply] = replies
    result = reply["result"]
    assert reply["id"] == "x"
    assert (result["epoch"], result["kept"], result["exceptions"], result["dry_run"]) == (4, 12, 5, False)
    assert result["weights"] == {"0": 2.0, "1": 1.0, "2": 1.0}
    assert result["shares"] == {"0": 0.5, "1": 0.25, "2": 0.25}
    assert sum(move["slots"] for move in result["moves"]) == result["moved_slots"] > 0
    assert result["phases_ms"] == {"collect": 1.0}
    assert panel.weights() == {0: 2.0, 1: 1.0, 2: 1.0}


def test_an_update_that_is_given_up_changes_nothing_and_says_why() -> None:
    panel = Panel(ByHand())
    replies = panel.send(b'{"version":1,"verb":"csb_drain","app":"web","tid":1}')
    panel.runner.end("thread 2 does not answer")
    assert replies[0]["error"]["code"] == "aborted"
    assert "thread 2 does not answer" in replies[0]["error"]["text"]
    assert panel.weights() == EVEN


def test_dry_run_shows_what_would_move_and_moves_nothing() -> None:
    panel = Panel()
    result = panel.ask("csb_drain", app="web", tid=2, dry_run=True)["result"]
    assert (result["dry_run"], result["epoch"], result["shares"]["2"]) == (True, 3, 0.0)
    assert {(m["source"]) for m in result["moves"]} == {2}
    assert panel.weights() == EVEN
    assert panel.ask("csb_drain", READER, app="web", tid=2, dry_run=True)["result"] == result


def test_drain_and_undrain() -> None:
    panel = Panel()
    panel.ask("csb_set", app="web", weights={"1": 2.5})
    assert panel.ask("csb_drain", app="web", tid=1)["result"]["shares"]["1"] == 0.0
    [shown] = panel.ask("csb_show", app="web")["result"]
    assert [t["drained"] for t in shown["threads"]] == [False, True, False]
    assert panel.ask("csb_undrain", app="web", tid=1)["result"]["weights"]["1"] == 2.5
    assert panel.ask("csb_undrain", app="web", tid=1)["result"]["weights"]["1"] == 2.5  # idempotent


@pytest.mark.parametrize(
    ("verb", "args", "code", "field"),
    [
        ("csb_set", {"app": "nope", "weights": {"0": 1}}, "unknown_app", "app"),
        ("csb_set", {"app": "web", "weights": {"9": 1}}, "unknown_thread", "weights"),
        ("csb_set", {"app": "web", "weights": {"0": 0, "1": 0, "2": 0}}, "bad_weight", "weights"),
        ("csb_set", {"app": "web", "weights": {"0": 1001}}, "bad_field", "weights[...]"),
        ("csb_set", {"app": "web", "weights": {"x": 1}}, "bad_field", "weights"),
        ("csb_set", {"app": "web", "weights": {}}, "bad_field", "weights"),
        ("csb_set", {"app": "web", "weights": {"0": 1}, "confirm_s": 0}, "bad_field", "confirm_s"),
        (
            "csb_set",
            {"app": "web", "weights": {"0": 1}, "expected_epoch": 2},
            "epoch_mismatch",
            "expected_epoch",
        ),
        ("csb_auto", {"app": "web", "on": True, "expected_epoch": 2}, "epoch_mismatch", "expected_epoch"),
        ("csb_drain", {"app": "web", "tid": 5}, "unknown_thread", "tid"),
        ("csb_confirm", {"app": "web"}, "not_found", "app"),
        ("csb_show", {"app": "nope"}, "not_found", "app"),
    ],
)
def test_what_cannot_be_is_refused_by_name_and_changes_nothing(
    verb: str, args: dict[str, object], code: str, field: str
) -> None:
    panel = Panel()
    error = panel.ask(verb, **args)["error"]
    assert (error["code"], error["field"]) == (code, field), error
    assert (panel.weights(), panel.balancer.state("web").epoch) == (EVEN, 3)


def test_compare_and_set_lets_one_of_two_win() -> None:
    panel = Panel(ByHand())
    first = panel.send(b'{"version":1,"verb":"csb_set","app":"web","weights":{"0":2},"expected_epoch":3}')
    panel.runner.end()
    second = panel.ask("csb_set", app="web", weights={"0": 3}, expected_epoch=3)
    assert first[0]["result"]["epoch"] == 4
    assert second["error"]["code"] == "epoch_mismatch"
    assert panel.weights()[0] == 2.0


def test_who_may_only_look_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "janusd.control")
    panel = Panel()
    for verb, args in (
        ("csb_set", {"weights": {"0": 2}}),
        ("csb_auto", {"on": True}),
        ("csb_drain", {"tid": 0}),
    ):
        assert panel.ask(verb, READER, app="web", **args)["error"]["code"] == "not_allowed"
    assert panel.weights() == EVEN
    refused = [record.fields for record in caplog.records]
    assert [(f["outcome"], f["uid"]) for f in refused] == [("refused", 1001)] * 3
    assert "result" in panel.ask("csb_show", READER)


def test_every_change_is_in_the_log_with_the_uid(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "janusd.control")
    panel = Panel()
    panel.ask("csb_set", app="web", weights={"0": 2}, via="alice@gateway")
    asked, done = [record.fields for record in caplog.records]
    for line in (asked, done):
        assert (line["verb"], line["uid"], line["pid"]) == ("csb_set", 1000, 4711)
        assert (line["app"], line["id"], line["via"]) == ("web", "7", "alice@gateway")
    assert (asked["outcome"], asked["weights"]) == ("asked", "0=2")
    assert (done["outcome"], done["epoch"]) == ("published", 4)


# --- confirmation ---


def test_a_change_that_nobody_confirms_is_undone() -> None:
    panel = Panel()
    reply = panel.ask("csb_set", app="web", weights={"0": 3, "1": 0}, confirm_s=30)
    assert reply["result"]["confirm_within_s"] == 30
    panel.clock.advance(29)
    assert panel.weights() == {0: 3.0, 1: 0.0, 2: 1.0}
    assert panel.ask("csb_set", app="web", weights={"2": 2})["error"]["code"] == "unconfirmed"
    panel.clock.advance(1)
    assert panel.weights() == EVEN
    assert panel.balancer.state("web").updates[-1].reason == "not confirmed"
    assert "result" in panel.ask("csb_set", app="web", weights={"2": 2})


def test_a_change_that_is_confirmed_stays() -> None:
    panel = Panel()
    panel.ask("csb_drain", app="web", tid=0, confirm_s=30)
    assert "result" in panel.ask("csb_confirm", app="web")
    panel.clock.advance(60)
    assert panel.weights()[0] == 0.0
    assert panel.ask("csb_confirm", app="web")["error"]["code"] == "not_found"


def test_an_unconfirmed_change_of_a_thread_that_has_gone_is_undone_for_the_others() -> None:
    panel = Panel()
    panel.ask("csb_set", app="web", weights={"0": 3, "1": 4}, confirm_s=5)
    panel.balancer.leave("web", 1)
    panel.clock.advance(5)
    assert panel.weights() == {0: 1.0, 2: 1.0}


def test_undoing_is_tried_until_it_is_done() -> None:
    panel = Panel(AtOnce())
    panel.ask("csb_set", app="web", weights={"0": 3}, confirm_s=5)
    panel.runner.outcome = "thread 2 does not answer"
    panel.clock.advance(5)
    assert panel.weights()[0] == 3.0
    assert panel.ask("csb_confirm", app="web")["error"]["code"] == "not_found", "too late"
    assert panel.ask("csb_set", app="web", weights={"1": 2})["error"]["code"] == "unconfirmed"
    panel.runner.outcome = "published"
    panel.clock.advance(1)
    assert panel.weights() == EVEN
    assert panel.control.confirm_within_s("web") is None


def test_a_change_that_came_to_nothing_need_not_be_confirmed() -> None:
    panel = Panel(AtOnce())
    panel.runner.outcome = "thread 2 does not answer"
    assert panel.ask("csb_set", app="web", weights={"0": 3}, confirm_s=5)["error"]["code"] == "aborted"
    assert panel.wishes["web"].undo == {}
    panel.runner.outcome = "published"
    assert "result" in panel.ask("csb_set", app="web", weights={"0": 3})


def test_a_restart_undoes_what_was_not_confirmed() -> None:
    """What outlives janusd is there before the change can be in force, and gone when it is confirmed or undone."""
    panel = Panel(ByHand())
    panel.send(b'{"version":1,"verb":"csb_set","app":"web","weights":{"0":3},"confirm_s":600}')
    assert panel.wishes["web"].undo == {0: 1.0}
    panel.runner.end()
    assert panel.weights()[0] == 3.0
    panel.control.stop()

    again = Control(panel.balancer, panel.automatic, panel.clock, panel.wishes, lambda: None)  # type: ignore[arg-type]
    again.start()
    panel.runner.end()
    assert panel.weights() == EVEN
    assert panel.wishes["web"].undo == {}


# --- the automatic mode ---


def tell(panel: Panel, costs: dict[int, float], seconds: float = 3.0) -> None:
    """Each thread serves 1,000 connections a second at its cost."""
    for _ in range(round(seconds / 0.25)):
        for tid, cost in costs.items():
            was = panel.told.get(tid, Sample(busy_s=0.0, served=0))
            panel.told[tid] = Sample(
                busy_s=was.busy_s + 250 * cost, served=was.served + 250, connections=50, queue=0.01
            )
        panel.told = dict(panel.told)
        panel.automatic.tick()
        panel.clock.advance(0.25)


def test_the_automatic_mode_moves_weight_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "janusd.automatic")
    panel = Panel()
    skew = {0: 9e-4, 1: 3e-4, 2: 3e-4}
    tell(panel, skew)
    assert panel.weights() == EVEN
    [shown] = panel.ask("csb_show", app="web")["result"]
    assert [t["busy"] for t in shown["threads"]] == pytest.approx([0.9, 0.3, 0.3], abs=0.01)
    assert panel.ask("csb_auto", app="web", on=True)["result"]["auto"] is True
    tell(panel, skew)
    moved = panel.weights()
    assert moved[0] < 0.5 < moved[1]
    assert "a connection costs thread 0" in caplog.records[0].fields["reason"]
    [shown] = panel.ask("csb_show", app="web")["result"]
    assert (shown["auto"]["on"], shown["auto"]["moves"]) == (True, 1)
    panel.ask("csb_set", app="web", weights={"2": moved[2]})
    tell(panel, skew, 0.25)
    [shown] = panel.ask("csb_show", app="web")["result"]  # a change does not hide the load
    assert [t["busy"] for t in shown["threads"]] == pytest.approx([0.9, 0.3, 0.3], abs=0.01)
    panel.ask("csb_auto", app="web", on=False)
    assert panel.weights() == moved


def test_the_automatic_mode_waits_for_confirmation_and_leaves_drained_threads_alone() -> None:
    panel = Panel()
    panel.ask("csb_auto", app="web", on=True)
    panel.ask("csb_drain", app="web", tid=2, confirm_s=60)
    skew = {0: 9e-4, 1: 3e-4, 2: 3e-4}
    tell(panel, skew)
    assert panel.weights() == {0: 1.0, 1: 1.0, 2: 0.0}
    panel.ask("csb_confirm", app="web")
    tell(panel, skew)
    assert panel.weights()[0] < panel.weights()[1]
    assert panel.weights()[2] == 0.0


# --- over ZeroMQ, by janusctl ---


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, Panel]]:
    """ctl.sock and read.sock, served by a thread with a loop of its own."""
    loop = asyncio.new_event_loop()
    panel = Panel(AtOnce())
    ready = threading.Event()

    async def serve() -> None:
        panel.control._loop = loop  # time passes by itself here
        servers = [
            ApiServer(tmp_path / name, None, panel.answer, loop, may_change=name == "ctl.sock")
            for name in ("ctl.sock", "read.sock")
        ]
        for server in servers:
            server.start()
        ready.set()
        await done.wait()
        for server in servers:
            server.stop()

    done = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(5)
    yield tmp_path / "ctl.sock", panel
    loop.call_soon_threadsafe(done.set)
    thread.join(5)
    loop.close()


def run(path: Path, *words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(ctl.main, ["--socket", str(path), *words])
    return result.exit_code, result.stdout, result.stderr


def test_janusctl_csb_does_it_all(served: tuple[Path, Panel]) -> None:
    path, panel = served
    code, out, err = run(path, "csb", "set", "web", "0=2", "1=0.5", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["weights"] == {"0": 2.0, "1": 0.5, "2": 1.0}
    for words in (
        ("csb", "show"),
        ("csb", "show", "web", "--circle"),
        ("csb", "set", "web", "0=3", "--dry-run"),
        ("csb", "drain", "web", "1", "--wait", "--confirm", "60"),
        ("csb", "confirm", "web"),
        ("csb", "undrain", "web", "1"),
        ("csb", "auto", "on"),
        ("csb", "auto", "off", "web"),
    ):
        code, out, err = run(path, *words)
        assert (code, err) == (0, ""), words
        assert out.strip(), words
        code, out, err = run(path, *words[:2], "--json", *words[2:])
        assert code in (0, 65, 75), (words, err)
        if code == 0:
            assert isinstance(json.loads(out), dict | list)
    assert panel.weights() == {0: 2.0, 1: 0.5, 2: 1.0}


def test_how_long_updates_hold_a_thread_is_shown() -> None:
    panel = Panel()
    panel.told = {1: Sample(busy_s=0.0, served=0, held_us=70, held_wall_us=900)}
    panel.automatic.tick()
    [web] = panel.ask("csb_show", app="web")["result"]
    assert [(t["held_us"], t["held_wall_us"]) for t in web["threads"]] == [(0, 0), (70, 900), (0, 0)]
    values = {
        family.name: [(s.labels["tid"], s.value) for s in family.samples]
        for family in csb_families(CsbCounts(panel.balancer, panel.automatic, ("web",)).numbers())
        if "held" in family.name
    }
    assert values["janus_csb_held_seconds"] == [("1", 70e-6)]
    assert values["janus_csb_held_wall_seconds"] == [("1", 900e-6)]


def test_janusctls_exit_codes_mean_something(served: tuple[Path, Panel], tmp_path: Path) -> None:
    path, panel = served
    assert run(path, "csb", "set", "web", "0:2")[0] == 2
    assert run(path, "csb", "set", "web")[0] == 2
    assert run(path, "csb", "set", "nope", "0=1")[0] == 65
    assert run(path, "csb", "drain", "web", "9")[0] == 65
    assert run(path, "csb", "set", "web", "0=2", "--epoch", "99")[0] == 75
    panel.told = {1: Sample(busy_s=0.0, served=0, connections=5)}
    panel.automatic.tick()
    code, _, err = run(path, "csb", "drain", "web", "1", "--wait", "--timeout", "0")
    assert (code, err) == (75, "janusctl: thread 1 still has 5 connections\n")
    panel.runner.outcome = "thread 2 does not answer"
    assert run(path, "csb", "undrain", "web", "1")[0] == 1
    assert run(tmp_path / "none", "csb", "show")[0] == 69


def test_who_may_only_read_is_led_to_read_sock(
    served: tuple[Path, Panel], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, panel = served
    monkeypatch.setattr(ctl_client.os, "access", lambda p, mode: not str(p).endswith("ctl.sock"))
    assert run(path, "csb", "show")[0] == 0
    assert run(path, "csb", "set", "web", "0=2", "--dry-run")[0] == 0
    code, _, err = run(path, "csb", "set", "web", "0=2")
    assert (code, "no permission" in err) == (77, True)
    assert run(path.with_name("read.sock"), "csb", "auto", "on")[0] == 77
    assert panel.weights() == EVEN


def test_the_kernel_says_who_asks(served: tuple[Path, Panel], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "janusd.control")
    assert run(served[0], "csb", "auto", "on", "web")[0] == 0
    [line] = [record.fields for record in caplog.records]
    assert (line["uid"], line["pid"]) == (os.getuid(), os.getpid())


def test_connections_have_a_limit(served: tuple[Path, Panel], monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are cut off; those that were there go on."""
    monkeypatch.setattr(api, "CONNECTIONS_MAX", 4)
    path, _ = served
    held = []
    for _ in range(12):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(5)
        sock.connect(str(path))
        sock.recv(64)  # ZeroMQ's greeting, or the end
        held.append(sock)
    ends = [sock.recv(1) for sock in held[4:]]  # whatever else of the greeting, then the end
    while any(ends):
        ends = [sock.recv(64) if end else b"" for sock, end in zip(held[4:], ends, strict=True)]
    for sock in held:
        sock.close()
    assert run(path, "csb", "show")[0] == 0


def test_a_circle_as_a_line() -> None:
    assert strip([[0, 2048], [1, 2048]]) == "0" * 32 + "1" * 32
    assert strip([[-1, 4096]]) == "." * 64


class Apps:
    """A client that knows which apps there are."""

    def ask(self, verb: str) -> list[dict[str, str]]:
        assert verb == "apps"
        return [{"name": "web"}, {"name": "api"}]


def test_completion_knows_the_shells_and_the_apps(
    served: tuple[Path, Panel], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = run(served[0], "completion", "bash")
    assert (code, "_JANUSCTL_COMPLETE" in out) == (0, True)
    assert {"show", "drain", "auto"} <= completed(served[0], "csb ", 4)
    monkeypatch.setattr(ctl_commands, "connect", lambda params: Apps())
    assert completed(served[0], "csb drain ", 5) == {"web", "api"}
    assert completed(served[0], "app scale w", 5) == {"web"}


def completed(path: Path, line: str, word: int) -> set[str]:
    """What a shell would offer behind the line."""
    result = CliRunner().invoke(
        ctl.main,
        [],
        prog_name="janusctl",
        complete_var="_JANUSCTL_COMPLETE",
        env={
            "_JANUSCTL_COMPLETE": "bash_complete",
            "COMP_WORDS": f"janusctl --socket {path} {line}",
            "COMP_CWORD": str(word),
        },
    )
    return {found.split(",")[1] for found in result.output.split()}


def leaves(group: click.Group) -> Iterator[click.Command]:
    """All commands that do something."""
    for command in group.commands.values():
        if isinstance(command, click.Group):
            yield from leaves(command)
        else:
            yield command


def test_every_command_takes_json() -> None:
    found = {
        command.name: any("--json" in option.opts for option in command.params)
        for command in leaves(ctl.main)
    }
    assert {name for name, takes in found.items() if not takes} == {"completion"}
    assert {"scale", "set", "drain", "undrain", "auto", "explain", "watch", "confirm", "show"} <= found.keys()
