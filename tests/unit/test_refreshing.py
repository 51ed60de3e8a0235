"""When exceptions are collected anew: the rule, and its wiring on a balancer with a fake runner."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from janusd.autoweights import Sample
from janusd.balancer import Result, Target
from janusd.refreshing import EXCEPTIONS_MIN, PAUSE_FIRST_S, PAUSE_LAST_S, Refresher, Seen, decide
from tests.unit.control_panel import AtOnce, Panel

SEEN = Seen(epoch=3, since_s=10.0, closed={0: 100, 1: 7})
LATER_S = 10.0 + PAUSE_FIRST_S


def why(gone: dict[int, int], exceptions: int = 100, now_s: float = LATER_S, epoch: int = 3) -> str:
    closed = {tid: SEEN.closed.get(tid, 0) + count for tid, count in gone.items()}
    return decide(SEEN, now_s, epoch, exceptions, closed)[1]


def test_half_of_the_exceptions_must_have_closed_over_all_threads() -> None:
    assert why({0: 30, 1: 19}) == ""
    assert why({0: 30, 1: 20}) == "50 of 100 exceptions closed"


def test_few_exceptions_and_a_fresh_publication_are_left_alone() -> None:
    assert why({0: EXCEPTIONS_MIN}, exceptions=EXCEPTIONS_MIN - 1) == ""
    assert why({0: EXCEPTIONS_MIN}, exceptions=EXCEPTIONS_MIN) != ""
    assert why({0: 100}, now_s=LATER_S - 0.01) == ""
    assert why({0: 100}, epoch=4) == ""


def test_a_new_thread_or_one_that_begins_again_has_closed_nothing() -> None:
    assert decide(SEEN, LATER_S, 3, 100, {0: 0, 1: 7, 2: 5000})[1] == ""


def test_a_refresh_that_is_aborted_is_tried_ever_more_rarely() -> None:
    seen, now_s, tries = SEEN, LATER_S, []
    while now_s < 1000:
        seen, said = decide(seen, now_s, 3, 100, {0: 200, 1: 7})
        if said:
            tries.append(now_s)
        now_s += 0.25
    gaps = [after - before for before, after in pairwise(tries)]
    assert gaps[:4] == [10.0, 20.0, 40.0, 80.0]
    assert set(gaps[4:]) == {PAUSE_LAST_S}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2**64 - 1)), max_size=80))
def test_whatever_threads_say_refreshes_keep_their_distance(told: list[tuple[int, int]]) -> None:
    seen, last_s, epoch = Seen(), -PAUSE_FIRST_S, 0
    for step, (tid, count) in enumerate(told):
        seen, said = decide(seen, step * 0.25, epoch, 1000, {tid: count, 9: step * 1000})
        if said:
            assert step * 0.25 - last_s >= PAUSE_FIRST_S
            last_s, epoch = step * 0.25, epoch + 1


class Counting(AtOnce):
    """Every update publishes a hundred exceptions."""

    def start(self, target: Target, done: Callable[[Result], None]) -> None:
        super().start(target, lambda result: done(replace(result, exceptions=100)))


def test_the_refresher_acts_once_and_not_while_a_change_waits_to_be_confirmed() -> None:
    panel = Panel(Counting())
    refresher = Refresher(panel.balancer, panel.automatic, panel.control, ("web", "api"), panel.clock.time)

    def tick(closed: int, seconds: float) -> list[str]:
        panel.clock.now_s += seconds
        panel.told = {0: Sample(busy_s=0.0, served=0, exceptions_closed=closed)}
        panel.automatic.tick()
        before = len(panel.balancer.state("web").updates)
        refresher.tick()
        return [record.reason for record in panel.balancer.state("web").updates[before:]]

    assert tick(5, 0) == []
    assert tick(54, 10) == []
    assert tick(55, 0) == ["refresh: 50 of 100 exceptions closed"]
    assert tick(60, 0.25) == [], "the count began again when it was published, at 55"
    assert tick(104, 10) == []
    assert tick(105, 0) == ["refresh: 50 of 100 exceptions closed"]
    panel.ask("csb_set", app="web", weights={"0": 2}, confirm_s=60)
    assert tick(105, 0.25) == []
    assert tick(145, 10) == []
    assert panel.ask("csb_confirm", app="web")["result"]["epoch"] > 0
    assert tick(145, 0.25) == []
    assert tick(165, 10) == ["refresh: 60 of 100 exceptions closed"]


def test_what_closes_at_once_after_a_publication_counts() -> None:
    """And nothing else may follow: the counts need not move any more."""
    panel = Panel(Counting())
    refresher = Refresher(panel.balancer, panel.automatic, panel.control, ("web", "api"), panel.clock.time)

    def tick(closed: int, seconds: float) -> int:
        panel.clock.now_s += seconds
        panel.told = {0: Sample(busy_s=0.0, served=0, exceptions_closed=closed)}
        panel.automatic.tick()
        before = len(panel.balancer.state("web").updates)
        refresher.tick()
        return len(panel.balancer.state("web").updates) - before

    assert tick(5, 0.25) == 0
    panel.ask("csb_set", app="web", weights={"0": 2})
    assert [tick(90, 0.25) for _ in range(30)].count(1) == 1
