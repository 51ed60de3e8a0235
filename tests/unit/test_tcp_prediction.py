"""Header prediction and runs are shortcuts and nothing else: without them the core sends the very same packets."""

from typing import Any

import _sim
import _unpredicted
import pytest

SEEDS = range(5000, 5120)


def same(predicted: Any, stepwise: Any) -> None:
    assert not predicted.failed, _sim.ffi.string(predicted.text)
    assert not stepwise.failed, _unpredicted.ffi.string(stepwise.text)
    assert stepwise.in_runs == 0
    assert (stepwise.trace_hash, stepwise.packets) == (predicted.trace_hash, predicted.packets)


@pytest.mark.parametrize("first", SEEDS[::20])
def test_the_slow_path_sends_the_same_packets(first: int) -> None:
    packets = 0
    for seed in range(first, first + 20):
        predicted = _sim.ffi.new("struct sim_result *")
        stepwise = _unpredicted.ffi.new("struct sim_result *")
        _sim.lib.sim_run_seed(seed, 0, predicted, False)
        _unpredicted.lib.sim_run_seed(seed, 0, stepwise, False)
        same(predicted, stepwise)
        packets += predicted.packets
    assert packets > 1000


def test_and_where_threads_sleep_long_and_find_many_segments() -> None:
    in_runs = 0
    for seed in range(6000, 6200):
        results = []
        for module in (_sim, _unpredicted):
            knobs = module.ffi.new("struct sim_knobs *")
            results.append(module.ffi.new("struct sim_result *"))
            module.lib.sim_draw(seed, knobs)
            knobs.offload = knobs.hashes = True
            knobs.batch_max, knobs.sleep_max_us = 64, 5000
            module.lib.sim_run(knobs, results[-1], False)
        same(*results)
        in_runs += results[0].in_runs
    assert in_runs > 1000
