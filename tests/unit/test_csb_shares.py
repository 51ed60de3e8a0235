"""Shares follow weights by construction, changes move as little as they must, and slots go home first."""

import random

import pytest

from janusd.weights import NOBODY, SLOT_COUNT, divide, quotas, shares

TIDS = range(16)


def even() -> list[int]:
    return divide([NOBODY] * SLOT_COUNT, dict.fromkeys(TIDS, 1.0))


def walk(seed: int, steps: int) -> list[dict[int, float]]:
    """Weights that wander around 1; each fifth step drains one tid, which is back in the next."""
    draw = random.Random(seed)
    weights = dict.fromkeys(TIDS, 1.0)
    result = []
    for step in range(steps):
        weights = {t: min(1.5, max(0.5, w + draw.uniform(-0.1, 0.1))) for t, w in weights.items()}
        result.append(weights | ({draw.randrange(16): 0.0} if step % 5 == 4 else {}))
    return result


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_within_one_percent_of_weights(seed: int) -> None:
    owners = even()
    for weights in walk(seed, 20):
        owners = divide(owners, weights, even())
        found, total = shares(owners), sum(weights.values())
        for tid, weight in weights.items():
            assert found.get(tid, 0) == pytest.approx(weight / total, rel=0.01)


@pytest.mark.parametrize("seed", range(5))
def test_homes_move_no_more_slots_than_must_move(seed: int) -> None:
    owners, homes = even(), even()
    for weights in walk(seed, 20):
        after, quota = divide(owners, weights, homes), quotas(weights)
        must = sum(max(0, owners.count(tid) - quota[tid]) for tid in TIDS)
        assert sum(a != b for a, b in zip(owners, after, strict=True)) == must
        owners = after


def test_what_was_lent_comes_home() -> None:
    homes = even()
    owners = homes
    for weights in walk(3, 20):
        owners = divide(owners, weights, homes)
    assert owners != homes
    assert divide(owners, dict.fromkeys(TIDS, 1.0), homes).count(NOBODY) == 0
    for _ in range(3):  # who takes from whom may need a round more
        owners = divide(owners, dict.fromkeys(TIDS, 1.0), homes)
    away = sum(a != b for a, b in zip(owners, homes, strict=True))
    by_chance = homes
    for weights in walk(3, 20):
        by_chance = divide(by_chance, weights)
    by_chance = divide(by_chance, dict.fromkeys(TIDS, 1.0))
    assert away < sum(a != b for a, b in zip(by_chance, homes, strict=True)) / 2


def test_a_drained_tid_gets_its_own_slots_again() -> None:
    homes = even()
    drained = divide(homes, dict.fromkeys(TIDS, 1.0) | {4: 0.0}, homes)
    assert 4 not in drained
    assert divide(drained, dict.fromkeys(TIDS, 1.0), homes) == homes
