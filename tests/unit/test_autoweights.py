"""The automatic mode: rules one by one, and over the model of threads that it governs (balancer_plant)."""

import math
import os
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from janusd import autoweights
from janusd.autoweights import Decision, History, Sample, Situation, decide
from tests.unit.balancer_plant import CHURN, Plant

SEEDS = int(os.environ.get("JANUS_AUTO_SEEDS", "2"))
SEEDS_SLOW = 20
EVERY_S = 0.25
FLAT, FLAT_AFTER_S, RUN_S, WINDOW_S = 1.15, 5.0, 15.0, 2.0


# --- flattening ---


@dataclass
class Run:
    loads: list[tuple[float, list[float]]] = field(default_factory=list)
    changes: list[tuple[float, dict[int, float]]] = field(default_factory=list)

    def peak(self, from_s: float, to_s: float) -> float:
        """max/mean of the load that the threads were asked for."""
        taken = [load for at, load in self.loads if from_s < at <= to_s]
        means = [sum(loads) / len(taken) for loads in zip(*taken, strict=True)]
        return max(means) * len(means) / sum(means)

    def reversals(self) -> int:
        """How often any thread's weight, having gone one way by a tenth, went the other way by a tenth."""
        most = 0
        for tid in self.changes[0][1] if self.changes else ():
            turns, way, at = 0, 0, 1.0
            for _, weights in self.changes:
                step = math.log(weights[tid] / at)
                if abs(step) < 0.1:
                    continue
                turns += way * step < 0
                way, at = (1 if step > 0 else -1), weights[tid]
            most = max(most, turns)
        return most


def govern(plant: Plant, *, warm_s: float, run_s: float = RUN_S, exceptions: int = 0) -> Run:
    """Let the automatic mode govern a plant that has run at even weights for warm_s."""
    plant.run(warm_s)
    begin_s, base, history, run = plant.now_s, dict(plant.weights), History(), Run()
    while plant.now_s - begin_s < run_s:
        run.loads.append((plant.now_s - begin_s + EVERY_S, plant.run(EVERY_S)))
        history = history.add(plant.now_s, plant.samples())
        now = Situation(base=base, weights=plant.weights, exceptions=exceptions)
        decision = decide(history, now)
        if decision.weights is not None:
            run.changes.append((plant.now_s - begin_s, decision.weights))
            plant.weights = decision.weights
            history = history.change(plant.now_s, decision.step)
    return run


SKEWS = [
    pytest.param({"costs": [3, 1, 1, 1], "load": 0.2}, id="a slow thread"),
    pytest.param({"costs": [3, 1, 1, 1], "load": 0.45}, id="a slow thread that cannot keep up"),
    pytest.param(
        {"costs": [1] * 4, "load": 0.2, "elephants": {0: 0.4, 1: 0.4}}, id="elephants on two of four"
    ),
    pytest.param({"costs": [1, 1], "load": 0.25, "elephants": {0: 0.5}}, id="elephants on one of two"),
]


def skewed(skew: dict, churn: str, seed: int) -> tuple[Plant, Run]:
    plant = Plant(**skew, seed=seed, churn=churn, lifetime_s=0.5)
    return plant, govern(plant, warm_s=1.5)


def check_flat(skew: dict, churn: str, seeds: range) -> None:
    for seed in seeds:
        _, run = skewed(skew, churn, seed)
        assert run.peak(0, 1) > 1.4
        at = FLAT_AFTER_S
        while at + WINDOW_S <= RUN_S:
            assert run.peak(at, at + WINDOW_S) < FLAT, f"SEED={seed}: at {at} s; {run.changes}"
            at += WINDOW_S
        assert run.reversals() <= 2, f"SEED={seed}: {run.changes}"


@pytest.mark.parametrize("churn", CHURN)
@pytest.mark.parametrize("skew", SKEWS)
def test_a_skew_of_three_to_one_is_flat_within_five_seconds_and_stays_flat(skew: dict, churn: str) -> None:
    check_flat(skew, churn, range(SEEDS))


@pytest.mark.slow
@pytest.mark.parametrize("churn", CHURN)
@pytest.mark.parametrize("skew", SKEWS)
def test_it_is_flat_for_many_seeds(skew: dict, churn: str) -> None:
    check_flat(skew, churn, range(1000, 1000 + SEEDS_SLOW))


def test_without_the_automatic_mode_the_skew_stays() -> None:
    plant = Plant([3, 1, 1, 1], seed=0, load=0.2)
    plant.run(10.0)
    loads = plant.run(5.0)
    assert max(loads) * 4 / sum(loads) > 1.9


@pytest.mark.thorough
@pytest.mark.parametrize("churn", CHURN)
def test_long_connections_take_their_time_and_nothing_swings(churn: str) -> None:
    """Of 5 s: ten times longer than above, flat after ten times as long."""
    plant = Plant([3, 1, 1, 1], seed=7, load=0.2, churn=churn, lifetime_s=5.0, arrivals_per_s=1000)
    run = govern(plant, warm_s=30.0, run_s=80.0)
    assert run.peak(50, 60) < FLAT
    assert run.peak(60, 80) < FLAT
    assert run.reversals() <= 1


@pytest.mark.parametrize("churn", CHURN)
def test_even_load_is_left_alone(churn: str) -> None:
    for seed in range(SEEDS):
        run = govern(Plant([1] * 8, seed=seed, churn=churn), warm_s=2.0)
        assert run.changes == [], f"SEED={seed}"


def test_when_the_skew_passes_the_operators_weights_come_back() -> None:
    plant = Plant([3, 1, 1, 1], seed=3, load=0.2)
    assert govern(plant, warm_s=2.0).changes
    plant.threads[0].cost = plant.threads[1].cost
    base = dict.fromkeys(range(4), 1.0)
    history = History()
    for _ in range(80):
        plant.run(EVERY_S)
        history = history.add(plant.now_s, plant.samples())
        decision = decide(history, Situation(base=base, weights=plant.weights))
        if decision.weights is not None:
            plant.weights, history = decision.weights, history.change(plant.now_s, decision.step)
    assert plant.weights == base


# --- rules one by one ---


def told(costs: dict[int, float], *, served: int = 1000, seconds: float = 2.0, **more: object) -> History:
    """A history of two samples in which each thread has served so many connections at its cost."""
    begin = {tid: Sample(busy_s=0.0, served=0) for tid in costs}
    end = {tid: Sample(busy_s=cost * served, served=served, **more) for tid, cost in costs.items()}
    return History().add(100.0, begin).add(100.0 + seconds, end)


EVEN = Situation(base={0: 1.0, 1: 1.0}, weights={0: 1.0, 1: 1.0})


def weights_of(decision: Decision) -> dict[int, float]:
    assert decision.weights is not None, decision.reason
    return decision.weights


def test_parts_are_inverse_to_costs_and_the_reason_says_so() -> None:
    decision = decide(told({0: 0.0015, 1: 0.0005}), EVEN)
    assert weights_of(decision) == pytest.approx({0: 0.5, 1: 1.5}, abs=0.01)
    assert "a connection costs thread 0 1.5 ms" in decision.reason
    assert "from 50.0% to 25" in decision.reason
    assert decision.load == pytest.approx({0: 0.75, 1: 0.25})


@pytest.mark.parametrize(
    ("history", "now", "reason"),
    [
        pytest.param(History(), EVEN, "not two threads", id="nothing known"),
        pytest.param(
            told({0: 1e-3}), Situation(base={0: 1}, weights={0: 1}), "not two threads", id="one thread"
        ),
        pytest.param(
            told({0: 3e-3, 1: 1e-3}),
            Situation(base={0: 1, 1: 0}, weights={0: 1, 1: 0}),
            "not two threads",
            id="the other is drained",
        ),
        pytest.param(told({0: 0.1, 1: 0.02}, served=5), EVEN, "too few connections", id="few connections"),
        pytest.param(told({0: 3e-5, 1: 1e-5}), EVEN, "no thread is busy", id="idle"),
        pytest.param(told({0: 8e-4, 1: 7e-4}), EVEN, "is within", id="hysteresis"),
        pytest.param(told({0: 8e-3, 1: 6e-3}, served=80), EVEN, "is within", id="chance"),
        pytest.param(
            History(told({0: 3e-3, 1: 1e-3}).taken, changed_s=101.5), EVEN, "too few", id="just changed"
        ),
    ],
)
def test_what_is_no_reason_to_move(history: History, now: Situation, reason: str) -> None:
    decision = decide(history, now)
    assert decision.weights is None
    assert reason in decision.reason


def test_exceptions_are_a_cost() -> None:
    """The same gain, with many connections that would be or are exceptions, and with few."""
    history = told({0: 12e-4, 1: 10e-4}, served=5000, seconds=8.0, connections=1000)
    assert decide(history, EVEN).weights is not None
    aged = Situation(base=EVEN.base, weights=EVEN.weights, exceptions=1000)
    assert decide(history, aged).weights is None


def test_drops_make_a_small_gain_worth_it_and_the_thread_gets_no_more() -> None:
    """Threads that drop are looked after even when the machine is idle; chance is no excuse."""
    costs = {0: 5e-5, 1: 7e-5, 2: 6e-5}
    base = dict.fromkeys(costs, 1.0)
    now = Situation(base=base, weights=base)
    assert decide(told(costs, served=400), now).weights is None
    history = told(costs, served=400)
    at, last = history.taken[-1]
    hurt = {**last, 0: Sample(busy_s=last[0].busy_s, served=400, drops=9)}
    weights = weights_of(decide(History((history.taken[0], (at, hurt))), now))
    assert weights[0] <= 1.0


def test_a_step_has_a_limit_and_a_floor_leaves_evidence() -> None:
    history = told({0: 1.0, 1: 1e-4}, seconds=30.0)
    first = weights_of(decide(history, EVEN))
    assert first[0] / first[1] == pytest.approx(1 / autoweights.STEP_MAX / 2, rel=0.01)
    low = Situation(base=EVEN.base, weights={0: 0.06, 1: 1.94})
    assert weights_of(decide(history, low))[0] == pytest.approx(autoweights.FLOOR, rel=0.1)


def test_other_threads_or_counters_that_fall_begin_a_new_history() -> None:
    history = told({0: 1e-3, 1: 1e-3})
    joined = {tid: Sample(busy_s=9.0, served=9000) for tid in range(3)}
    assert len(history.add(103.0, joined).taken) == 1
    back = {0: Sample(busy_s=0.1, served=5), 1: Sample(busy_s=9.0, served=9000)}
    assert len(history.add(103.0, back).taken) == 1


def test_old_samples_are_forgotten() -> None:
    history = History()
    for second in range(200):
        history = history.add(float(second), {0: Sample(busy_s=float(second), served=second)})
    assert len(history.taken) <= autoweights.HISTORY_S + 1


COUNT = st.integers(0, 2**64 - 1)
SAMPLES = st.dictionaries(
    st.integers(0, 5),
    st.builds(
        Sample,
        busy_s=st.floats(0, 2**44),
        served=COUNT,
        drops=COUNT,
        queue=st.floats(0, 1),
        connections=COUNT,
    ),
    max_size=6,
)


@given(
    st.lists(SAMPLES, max_size=6), st.dictionaries(st.integers(0, 5), st.floats(0, 1000), max_size=6), COUNT
)
def test_whatever_apps_claim_weights_are_sane(
    claimed: list[dict[int, Sample]], base: dict[int, float], exceptions: int
) -> None:
    """Samples are the apps' own words."""
    history = History()
    for second, samples in enumerate(claimed):
        history = history.add(float(second), samples)
    decision = decide(history, Situation(base=base, weights=base, exceptions=exceptions))
    if decision.weights is not None:
        assert {tid for tid, weight in base.items() if weight > 0} <= decision.weights.keys()
        assert all(0 <= weight <= 1000 for weight in decision.weights.values())
    assert decision.reason
