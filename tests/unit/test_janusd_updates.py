"""janusd.updates: the phases of an update, with threads and I/O threads that do what the test says."""

import os
import secrets
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from janusd.balancer import Balancer
from janusd.placing import Strangers
from janusd.updates import LIMIT_S, LIST_SLACK, Updates
from tests.unit.janusd_fakes import FakeBalance

CSB = struct.Struct("=II QQQ")
BEGIN, CHECK, ABORT, VIEW = 12, 13, 14, 15
COLLECT, CHECKED, SEAL, OPEN = 1, 2, 4, 6


@dataclass
class Thread:
    tid: int
    rows: int = 100
    heard: list[tuple[int, int, int]] = field(default_factory=list)  # type, phase, attempt

    def connections(self) -> int:
        return 50

    def tell(self, message: bytes, fd: int | None) -> None:
        type_, phase, attempt, size, _ = CSB.unpack(message)
        assert (fd is None) == (type_ == ABORT)
        if fd is not None:
            os.fstat(fd)
            assert size > 0
        self.heard.append((type_, phase, attempt))


class Clock:
    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], object]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], object]) -> None:
        self.timers.append((self.now + delay, callback))

    def pass_(self, seconds: float) -> None:
        self.now += seconds
        due = [callback for at, callback in self.timers if at <= self.now]
        self.timers = [(at, callback) for at, callback in self.timers if at > self.now]
        for callback in due:
            callback()


class House:
    """Two threads of web that have the circle, one that may join."""

    def __init__(self) -> None:
        self.plane, self.clock = FakeBalance(), Clock()
        self.plane.has_views = True
        self.threads = {tid: Thread(tid) for tid in range(2)}
        self.saved: list[tuple[str, ...]] = []
        self.balancer = Balancer(secrets.token_bytes)
        self.updates = Updates(
            self.plane, {"web": 1}, 2, self.clock, lambda app: list(self.threads.values()), self._save
        )
        self.balancer.use(self.updates, ["web"])
        self.balancer.join("web", 0)
        joined = self.balancer.join("web", 1)
        self.answer(COLLECT, SEAL, OPEN, tids=[0])
        assert joined is not None
        assert joined.done
        self.forget()

    def _save(self, target: Any) -> None:
        self.saved.append(tuple(name for name, _ in self.plane.orders))

    def forget(self) -> None:
        self.plane.orders.clear()
        self.saved.clear()
        for thread in self.threads.values():
            thread.heard.clear()

    @property
    def attempt(self) -> int:
        return self.updates._updates["web"].attempt

    def answer(self, *phases: int, tids: list[int] | None = None) -> None:
        for phase in phases:
            for tid in sorted(self.threads) if tids is None else tids:
                self.updates.hear_done("web", self.threads[tid], self.attempt, phase)


def test_an_update_goes_through_its_phases() -> None:
    house = House()
    ticket = house.balancer.set_weights("web", {0: 3.0})
    assert [t.heard for t in house.threads.values()] == [[(BEGIN, 0, house.attempt)]] * 2
    assert house.updates.hear_list("web", house.threads[1], house.attempt, bytes(8 * 5))
    house.answer(COLLECT, tids=[0])
    assert house.updates.phase("web") == "collect"
    house.answer(COLLECT, tids=[1])
    assert house.updates.phase("web") == "seal"
    assert house.plane.orders == [("prepare", 0), ("drain", house.attempt)]
    assert house.saved == [()], "kept for the next janusd before anything moves"
    house.answer(SEAL)
    assert house.plane.orders[2:] == [("publish", house.attempt)]
    assert [t.heard[1:] for t in house.threads.values()] == [[(VIEW, 0, house.attempt)]] * 2
    assert not ticket.done
    house.answer(OPEN)
    assert ticket.record is not None
    assert (ticket.record.published, ticket.record.kept) == (True, 5)
    assert list(ticket.record.phases_ms) == ["collect", "drain", "seal", "publish", "open"]
    assert house.balancer.circle("web").flagged == 0b101
    assert house.plane.circles[1][0] == house.balancer.circle("web").points()


def test_a_thread_that_joins_is_given_the_view_and_asked_nothing() -> None:
    house = House()
    house.threads[2] = Thread(2)
    ticket = house.balancer.join("web", 2)
    house.answer(COLLECT, SEAL, tids=[0, 1])
    assert house.threads[2].heard == [(VIEW, 0, 0)]
    house.answer(OPEN, tids=[0, 1])
    assert ticket is not None
    assert ticket.done


def test_a_thread_that_does_not_answer_ends_the_attempt() -> None:
    house = House()
    before = house.balancer.state("web")
    ticket = house.balancer.set_weights("web", {0: 3.0})
    house.answer(COLLECT, tids=[0])
    house.clock.pass_(LIMIT_S)
    assert ticket.record is not None
    assert ticket.record.outcome == "no answer in 2 s to collect from thread 1"
    assert [t.heard[-1][0] for t in house.threads.values()] == [ABORT, ABORT]
    assert house.plane.orders == [("abort", 0)]
    assert (house.balancer.state("web").epoch, house.balancer.state("web").weights) == (
        before.epoch,
        before.weights,
    )
    house.answer(COLLECT)  # late: nothing
    assert house.updates.phase("web") == ""


def test_a_thread_that_dies_ends_the_attempt_and_the_next_is_without_it() -> None:
    house = House()
    ticket = house.balancer.set_weights("web", {0: 3.0})
    house.answer(COLLECT)
    del house.threads[1]
    house.balancer.leave("web", 1)
    assert ticket.record is not None or house.updates.phase("web") == "collect"
    house.answer(COLLECT, SEAL, OPEN)
    assert ticket.record is not None
    assert ticket.record.published
    assert house.balancer.state("web").weights == {0: 3.0}


def test_a_thread_that_dies_after_the_publication_is_waited_for_no_longer() -> None:
    house = House()
    ticket = house.balancer.set_weights("web", {0: 3.0})
    house.answer(COLLECT, SEAL)
    house.answer(OPEN, tids=[0])
    del house.threads[1]
    house.balancer.leave("web", 1)
    assert ticket.record is not None
    assert ticket.record.published
    assert set(house.balancer.state("web").shares) == {0}


def test_a_thread_that_hangs_after_the_publication_does_not_hold_up_the_rest() -> None:
    house = House()
    ticket = house.balancer.set_weights("web", {0: 3.0})
    house.answer(COLLECT, SEAL)
    house.answer(OPEN, tids=[0])
    house.clock.pass_(LIMIT_S)
    assert ticket.record is not None
    assert ticket.record.published


def test_a_thread_without_room_ends_the_attempt() -> None:
    house = House()
    ticket = house.balancer.set_weights("web", {0: 3.0})
    house.answer(0, tids=[1])
    assert ticket.record is not None
    assert ticket.record.outcome == "thread 1 has no room for its list"


def test_a_thread_may_not_list_more_than_it_can_have() -> None:
    house = House()
    house.balancer.set_weights("web", {0: 3.0})
    limit = 2 * house.threads[0].rows + LIST_SLACK
    assert house.updates.hear_list("web", house.threads[0], house.attempt, bytes(8 * limit))
    assert not house.updates.hear_list("web", house.threads[0], house.attempt, bytes(8))
    assert house.updates.hear_list("web", house.threads[0], house.attempt - 1, bytes(8)), (
        "it is over: ignored"
    )


def test_after_a_restart_the_draft_is_checked() -> None:
    house = House()
    circle = house.balancer.circle("web")
    fresh = Balancer(secrets.token_bytes)
    fresh.use(house.updates, ["web"])
    fresh.restore("web", circle)
    ticket = fresh.rebuild("web")
    house.answer(COLLECT)
    assert [t.heard[-1][0] for t in house.threads.values()] == [CHECK, CHECK]
    house.answer(CHECKED, SEAL, OPEN)
    assert ticket is not None
    assert ticket.record is not None
    assert "check" in ticket.record.phases_ms


@pytest.mark.parametrize("rebuilding", [False, True])
def test_a_thread_that_is_back_gets_the_view(rebuilding: bool) -> None:
    house = House()
    house.updates.welcome("web", house.threads[0], rebuilding=rebuilding)
    assert house.threads[0].heard == [(VIEW, int(rebuilding), 0)]


def test_exceptions_are_told_by_slot_and_thread() -> None:
    house = House()
    assert house.updates.strangers("web") == Strangers()
    house.plane.counted = [(3, 1, 7), (3, 2, 1), (9, 0, 2)]
    assert house.updates.strangers("web") == Strangers({3: {1: 7, 2: 1}, 9: {0: 2}}, 100)
