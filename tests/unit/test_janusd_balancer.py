"""janusd.balancer: requests, their tickets, and updates one at a time, over a runner that the test turns by hand."""

import secrets
from collections.abc import Callable

import pytest

from janusd.balancer import (
    PUBLISHED,
    BadWeight,
    Balancer,
    EpochMismatch,
    Result,
    Target,
    UnknownApp,
    UnknownThread,
)
from janusd.placing import Strangers


class ByHand:
    """A runner that waits for the test to say how an update ends."""

    def __init__(self) -> None:
        self.target: Target | None = None
        self.begun: list[Target] = []
        self.known = Strangers()
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self._done: Callable[[Result], None] | None = None

    def start(self, target: Target, done: Callable[[Result], None]) -> None:
        assert self.target is None, "one at a time"
        self.target, self._done = target, done
        self.begun.append(target)

    def end(self, outcome: str = PUBLISHED, **more: int) -> None:
        done, self.target, self._done = self._done, None, None
        assert done is not None
        done(Result(outcome, {"collect": 1.0}, **more))

    def abort(self, app: str, why: str) -> None:
        self.end(why)

    def strangers(self, app: str) -> Strangers:
        return self.known

    def phase(self, app: str) -> str:
        return "" if self.target is None else "collect"

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        self.timers.append((delay_s, callback))


def a_pair() -> tuple[Balancer, ByHand]:
    """Threads 0 and 1 of web, online and in force at epoch 2."""
    balancer, runner = Balancer(secrets.token_bytes, lambda: 1000.0), ByHand()
    balancer.use(runner, ["web", "api"])
    for tid in (0, 1):
        assert balancer.join("web", tid) is not None
        runner.end()
    assert balancer.state("web").shares == {0: 0.5, 1: 0.5}
    return balancer, runner


def test_weights_are_in_force_when_the_ticket_says_so() -> None:
    balancer, runner = a_pair()
    ticket = balancer.set_weights("web", {0: 3.0}, expected_epoch=2)
    assert not ticket.done
    assert balancer.state("web").phase == "collect"
    assert balancer.state("web").weights == {0: 1.0, 1: 1.0}
    heard = []
    ticket.then(heard.append)
    runner.end(kept=5, exceptions=7)
    assert ticket.record is not None
    assert ticket.record.published
    assert (ticket.record.epoch, ticket.record.kept, ticket.record.moved_slots) == (3, 5, 1024)
    assert heard == [ticket.record]
    assert balancer.state("web").updates[-1] is ticket.record
    assert balancer.state("web").shares == {0: 0.75, 1: 0.25}
    assert balancer.state("web").exceptions == 7


@pytest.mark.parametrize(
    ("weights", "epoch", "error"),
    [
        pytest.param({2: 1.0}, None, UnknownThread, id="no such thread"),
        pytest.param({0: -1.0}, None, BadWeight, id="negative"),
        pytest.param({0: float("nan")}, None, BadWeight, id="not a number"),
        pytest.param({0: 1001.0}, None, BadWeight, id="too much"),
        pytest.param({0: 0.0, 1: 0.0}, None, BadWeight, id="nobody would serve"),
        pytest.param({0: 2.0}, 1, EpochMismatch, id="the circle has changed since"),
    ],
)
def test_a_request_that_cannot_be_changes_nothing(
    weights: dict[int, float], epoch: int | None, error: type[Exception]
) -> None:
    balancer, runner = a_pair()
    before = balancer.state("web")
    with pytest.raises(error):
        balancer.set_weights("web", weights, epoch)
    assert balancer.state("web") == before
    assert runner.target is None


def test_an_app_that_is_not_configured() -> None:
    balancer, _ = a_pair()
    with pytest.raises(UnknownApp):
        balancer.state("nope")


def test_a_plan_says_what_would_move_and_moves_nothing() -> None:
    balancer, runner = a_pair()
    preview = balancer.plan("web", {0: 3.0})
    assert preview.shares == {0: 0.75, 1: 0.25}
    assert (preview.moved_slots, dict(preview.moves)) == (1024, {(1, 0): 1024})
    assert runner.target is None
    assert balancer.state("web").shares == {0: 0.5, 1: 0.5}


def test_requests_during_an_update_are_merged_and_the_last_word_wins() -> None:
    balancer, runner = a_pair()
    first = balancer.set_weights("web", {0: 3.0})
    later = [balancer.set_weights("web", {0: w, 1: 1.0}) for w in (5.0, 7.0)]
    joined = balancer.join("web", 2)
    runner.end()
    assert first.done
    assert not any(t.done for t in later)
    assert runner.target is not None
    assert runner.target.weights == {0: 7.0, 1: 1.0, 2: 1.0}
    runner.end()
    assert joined is not None
    assert all(t.record is joined.record for t in later)
    assert len(runner.begun) == 4


def test_an_abort_voids_the_request_and_says_why() -> None:
    balancer, runner = a_pair()
    ticket = balancer.set_weights("web", {0: 3.0})
    runner.end("thread 1 did not answer in time")
    assert ticket.record is not None
    assert not ticket.record.published
    assert ticket.record.outcome == "thread 1 did not answer in time"
    assert balancer.state("web").weights == {0: 1.0, 1: 1.0}
    assert balancer.state("web").epoch == 2
    again = balancer.set_weights("web", {1: 3.0})
    runner.end()
    assert again.done
    assert balancer.state("web").weights == {0: 1.0, 1: 3.0}


def test_a_join_that_is_aborted_is_tried_again() -> None:
    balancer, runner = a_pair()
    balancer.join("web", 2)
    runner.end("thread 1 did not answer in time")
    delays = []
    for _ in range(3):
        delay_s, again = runner.timers.pop()
        delays.append(delay_s)
        again()
        assert runner.target is not None
        assert set(runner.target.weights) == {0, 1, 2}
        runner.end("thread 1 did not answer in time")
    assert delays == [0.5, 1.0, 2.0]
    runner.timers.pop()[1]()
    runner.end()
    assert set(balancer.state("web").weights) == {0, 1, 2}


def test_what_the_dead_owned_goes_to_the_others_and_no_other_slot_moves() -> None:
    balancer, runner = a_pair()
    balancer.join("web", 2)
    runner.end()
    before = balancer.circle("web").owners
    balancer.leave("web", 1)
    assert runner.target is not None
    assert runner.target.dead == {1}
    runner.end()
    after = balancer.circle("web").owners
    assert all(now == was for was, now in zip(before, after, strict=True) if was != 1)
    assert 1 not in after


def test_a_death_ends_the_update_which_is_then_made_without_the_dead() -> None:
    balancer, runner = a_pair()
    balancer.join("web", 2)
    runner.end()
    ticket = balancer.set_weights("web", {0: 3.0})
    balancer.leave("web", 1)
    assert runner.target is not None
    assert runner.target.dead == {1}
    runner.end()
    assert runner.target is not None
    assert runner.target.weights == {0: 3.0, 2: 1.0}
    assert not ticket.done
    runner.end()
    assert ticket.record is not None
    assert ticket.record.published
    assert [r.outcome for r in balancer.state("web").updates[-3:]] == [
        "thread 1 has gone",
        PUBLISHED,
        PUBLISHED,
    ]


def test_drain_and_back() -> None:
    balancer, runner = a_pair()
    balancer.set_weights("web", {0: 3.0})
    runner.end()
    balancer.drain("web", 0)
    runner.end()
    assert balancer.state("web").drained == (0,)
    assert balancer.state("web").shares == {1: 1.0}
    balancer.undrain("web", 0)
    runner.end()
    assert balancer.state("web").weights == {0: 3.0, 1: 1.0}
    assert balancer.state("web").drained == ()


def test_connections_go_home_when_weights_are_even_again() -> None:
    balancer, runner = a_pair()
    homes = balancer.circle("web").owners
    for weights in ({0: 3.0, 1: 1.0}, {0: 1.0, 1: 5.0}, {0: 1.0, 1: 1.0}):
        balancer.set_weights("web", weights)
        runner.end()
    assert balancer.circle("web").owners == homes


def test_after_a_restart_nothing_moves_before_the_exceptions_are_known() -> None:
    before, runner = a_pair()
    balancer, runner = Balancer(secrets.token_bytes), ByHand()
    balancer.use(runner, ["web"])
    balancer.restore("web", before.circle("web"))
    owners = balancer.circle("web").owners
    joined = balancer.join("web", 2)
    assert joined is not None
    assert runner.target is None
    assert balancer.state("web").rebuilding
    balancer.rebuild("web")
    assert runner.target is not None
    assert runner.target.rebuild
    assert runner.target.owners == owners
    runner.end(flagged=5)
    assert balancer.circle("web").flagged == 5
    assert runner.target is not None
    assert set(runner.target.weights) == {0, 1, 2}
    assert not runner.target.rebuild
    runner.end()
    assert not balancer.state("web").rebuilding
    assert balancer.join("web", 2) is None


def test_a_refresh_keeps_the_circle() -> None:
    balancer, runner = a_pair()
    owners = balancer.circle("web").owners
    ticket = balancer.refresh("web")
    runner.end()
    assert ticket.record is not None
    assert ticket.record.moved_slots == 0
    assert balancer.circle("web").owners == owners


def test_slots_are_chosen_by_the_exceptions_in_force_and_a_plan_says_so() -> None:
    balancer, runner = a_pair()
    owners = balancer.circle("web").owners
    busy = [slot for slot, tid in enumerate(owners) if tid == 1][100:110]
    runner.known = Strangers({slot: {0: 40} for slot in busy}, 40 * 4096)
    assert balancer.plan("web", {0: 1.01}).moved_slots == 10
    balancer.set_weights("web", {0: 1.01})
    assert runner.target is not None
    moved = [slot for slot, tid in enumerate(owners) if runner.target.owners[slot] != tid]
    assert moved == busy
    runner.end()
    balancer.refresh("web")
    assert runner.target.owners == balancer.circle("web").owners
