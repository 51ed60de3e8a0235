"""When exceptions are collected anew: the rule, and its wiring on a balancer with a fake runner."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from janusd.autoweights import Sample
from janusd.balancer import Result, Target
from janusd.refreshing import EXCEPTIONS_MIN, PAUSE_FIRST_S, PAUSE_LAST_S, Refresher, Seen, decide, look
from tests.unit.control_panel import AtOnce, Panel

SEEN = Seen(epoch=3, since_s=10.0, closed={0: 100, 1: 7})
LATER_S = 10.0 + PAUSE_FIRST_S


def why(gone: dict[int, int], exceptions: int = 100, now_s: float = LATER_S, epoch: int = 3) -> str:
    closed = {tid: SEEN.closed.get(tid, 0) + count for tid, count in gone.items()}
    return decide(look(SEEN, now_s, epoch, closed), now_s, exceptions)[1]


def test_half_of_the_exceptions_must_have_closed_over_all_threads() -> None:
    assert why({0: 30, 1: 19}) == ""
    assert why({0: 30, 1: 20}) == "50 of 100 exceptions closed"


def test_few_exceptions_and_a_fresh_publication_are_left_alone() -> None:
    assert why({0: EXCEPTIONS_MIN}, exceptions=EXCEPTIONS_MIN - 1) == ""
    assert why({0: EXCEPTIONS_MIN}, exceptions=EXCEPTIONS_MIN) != ""
    assert why({0: 100}, now_s=LATER_S - 0.01) == ""
    assert why({0: 100}, epoch=4) == ""


def test_a_new_thread_or_one_that_begins_again_has_closed_nothing() -> None:
    assert decide(look(SEEN, LATER_S, 3, {0: 0, 1: 7, 2: 5000}), LATER_S, 100)[1] == ""


def test_a_refresh_that_is_aborted_is_tried_ever_more_rarely() -> None:
    seen, now_s, tries = SEEN, LATER_S, []
    while now_s < 1000:
        seen, said = decide(look(seen, now_s, 3, {0: 200, 1: 7}), now_s, 100)
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
        seen = look(seen, step * 0.25, epoch, {tid: count, 9: step * 1000})
        seen, said = decide(seen, step * 0.25, 1000)
        if said:
            assert step * 0.25 - last_s >= PAUSE_FIRST_S
            last_s, epoch = step * 0.25, epoch + 1


class Counting(AtOnce):
    """Every update publishes a hundred exceptions."""

    def start(self, target: Target, done: Callable[[Result], None]) -> None:
        super().start(target, lambda result: done(replace(result, exceptions=100)))


class Looks:
    """A refresher over web's three threads; thread 0 alone sees exceptions end."""

    def __init__(self) -> None:
        self.panel = panel = Panel(Counting())
        self.refresher = Refresher(
            panel.balancer, panel.automatic, panel.control, ("web", "api"), panel.clock.time
        )

    def tick(self, closed: int, seconds: float) -> list[str]:
        """Time passes, and a look sees that so many have ended: the reasons of what it began."""
        self.panel.clock.now_s += seconds
        self.panel.told = {0: Sample(busy_s=0.0, served=0, exceptions_closed=closed)}
        self.panel.automatic.tick()
        before = len(self.panel.balancer.state("web").updates)
        self.refresher.tick()
        return [record.reason for record in self.panel.balancer.state("web").updates[before:]]


def test_the_refresher_acts_once() -> None:
    tick = Looks().tick
    assert tick(5, 0) == []
    assert tick(54, 10) == []
    assert tick(55, 0) == ["refresh: 50 of 100 exceptions closed"]
    assert tick(60, 0.25) == [], "the count began again when it was published, at 55"
    assert tick(104, 10) == []
    assert tick(105, 0) == ["refresh: 50 of 100 exceptions closed"]


def test_what_closes_while_a_change_waits_to_be_confirmed_counts_and_only_the_refresh_waits() -> None:
    looks = Looks()
    assert looks.tick(5, 10) == []
    looks.panel.ask("csb_set", app="web", weights={"0": 2}, confirm_s=60)
    assert looks.tick(25, 0.25) == []
    assert looks.tick(55, 10) == [], "it waits"
    assert looks.panel.ask("csb_confirm", app="web")["result"]["epoch"] > 0
    assert looks.tick(55, 0.25) == ["refresh: 50 of 100 exceptions closed"], "and waits no longer"


def test_a_publication_while_a_change_waits_begins_the_count_anew() -> None:
    looks = Looks()
    assert looks.tick(5, 10) == []
    looks.panel.ask("csb_set", app="web", weights={"0": 2}, confirm_s=60)
    assert looks.tick(45, 10) == []
    looks.panel.balancer.join("web", 3)
    assert looks.tick(45, 10) == []
    looks.panel.ask("csb_confirm", app="web")
    assert looks.tick(94, 10) == [], "40 of these were gone before the last publication"
    assert looks.tick(95, 0.25) == ["refresh: 50 of 100 exceptions closed"]


def test_what_closes_at_once_after_a_publication_counts() -> None:
    """And nothing else may follow: the counts need not move any more."""
    looks = Looks()
    assert looks.tick(5, 0.25) == []
    looks.panel.ask("csb_set", app="web", weights={"0": 2})
    assert [len(looks.tick(90, 0.25)) for _ in range(30)].count(1) == 1
