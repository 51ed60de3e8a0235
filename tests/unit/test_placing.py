"""Slots are chosen by the connections that are there: as many come home as can be, and shares are met all the same."""

import random
from collections import Counter

import pytest

from janusd.placing import Strangers, place
from janusd.weights import NOBODY, SLOT_COUNT, divide, quotas

TIDS = range(8)
EVEN = dict.fromkeys(TIDS, 1.0)
PER_SLOT = 100


def even() -> list[int]:
    return divide([NOBODY] * SLOT_COUNT, EVEN)


class Flows:
    """Connections by slot and thread; where a new one goes is its slot's owner."""

    def __init__(self, owners: list[int]) -> None:
        self.owners = owners
        self.there = [Counter({tid: PER_SLOT}) for tid in owners]

    def exceptions(self) -> int:
        return sum(there.total() - there[tid] for there, tid in zip(self.there, self.owners, strict=True))

    def known(self) -> Strangers:
        slots = {
            slot: dict(there - Counter({self.owners[slot]: there[self.owners[slot]]}))
            for slot, there in enumerate(self.there)
        }
        return Strangers({slot: there for slot, there in slots.items() if there}, PER_SLOT * SLOT_COUNT)

    def churn(self, draw: random.Random) -> None:
        for slot, there in enumerate(self.there):
            for tid in list(there):
                gone = sum(draw.random() < 0.05 for _ in range(there[tid]))
                there[tid] -= gone
                there[self.owners[slot]] += gone


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(2))
def test_there_are_fewer_exceptions_than_by_homes_alone_and_shares_are_exact(seed: int) -> None:
    draw, homes = random.Random(seed), even()
    chosen, by_home = Flows(homes), Flows(homes)
    weights, ever = dict(EVEN), Counter[str]()
    for step in range(8):
        weights = {t: min(1.5, max(0.5, w + draw.uniform(-0.2, 0.2))) for t, w in weights.items()}
        now = weights | ({draw.randrange(8): 0.0} if step % 4 == 3 else {})
        chosen.owners = place(chosen.owners, now, homes, chosen.known())
        by_home.owners = divide(by_home.owners, now, homes)
        assert {t: chosen.owners.count(t) for t in TIDS} == quotas(now)
        for name, flows in (("chosen", chosen), ("home", by_home)):
            ever[name] += flows.exceptions()
            flows.churn(draw)
    assert ever["chosen"] < 0.9 * ever["home"]


def test_a_slot_goes_to_the_thread_whose_connections_are_in_it() -> None:
    owners = even()
    mine = [slot for slot, tid in enumerate(owners) if tid == 0]
    strangers = Strangers({mine[7]: {3: 60}, mine[9]: {5: 99, 3: 1}}, PER_SLOT * SLOT_COUNT)
    weights = EVEN | {0: 0.9, 3: 1.1}
    after = place(owners, weights, owners, strangers)
    assert after[mine[7]] == 3, "though another has more strangers"
    assert after[mine[9]] == 3, "and few of its owner's own"
    assert sum(a != b for a, b in zip(owners, after, strict=True)) == quotas(EVEN)[0] - quotas(weights)[0]


def test_two_slots_are_exchanged_when_that_brings_home_more_than_it_sends_away() -> None:
    owners = even()
    first, second = owners.index(0), owners.index(1)
    weights = EVEN | {6: 1.1, 7: 0.9}
    for count, is_worth in ((90, True), (52, False)):
        strangers = Strangers({first: {1: count}, second: {0: count}}, PER_SLOT * SLOT_COUNT)
        after = place(owners, weights, owners, strangers)
        assert (after[first], after[second]) == ((1, 0) if is_worth else (0, 1))


def test_nothing_moves_when_no_share_changes() -> None:
    """Exceptions that are collected anew leave the circle as it is."""
    owners = even()
    strangers = Strangers({0: {5: 100}, owners.index(5): {owners[0]: 100}}, PER_SLOT * SLOT_COUNT)
    assert place(owners, EVEN, owners, strangers) == owners


@pytest.mark.parametrize("seed", range(20))
def test_whatever_threads_say_quotas_are_met(seed: int) -> None:
    """Lists and connection counts are an app's word."""
    draw, owners = random.Random(seed), even()
    for _ in range(5):
        slots = {
            draw.randrange(SLOT_COUNT): {draw.randrange(12): draw.choice([1, 50, 2**32 - 1])}
            for _ in range(draw.choice([1, 300]))
        }
        weights = {t: draw.choice([0.0, 0.1, 1.0, 5.0]) for t in TIDS} | {draw.randrange(8): 1.0}
        owners = place(owners, weights, even(), Strangers(slots, draw.choice([0, 1, 10**6, 2**40])))
        assert {t: owners.count(t) for t in TIDS} == quotas(weights)


def test_a_thread_that_the_weights_do_not_name_keeps_nothing() -> None:
    owners = even()
    weights = dict.fromkeys([tid for tid in TIDS if tid != 4], 1.0)
    after = place(owners, weights, owners, Strangers({0: {1: 5}}, 1000))
    assert Counter(after) == Counter(quotas(weights))
