"""Header prediction is a shortcut and nothing else: without it the core sends the very same packets."""

import _sim
import _unpredicted
import pytest

SEEDS = range(5000, 5120)


@pytest.mark.parametrize("first", SEEDS[::20])
def test_the_slow_path_sends_the_same_packets(first: int) -> None:
    packets = 0
    for seed in range(first, first + 20):
        predicted = _sim.ffi.new("struct sim_result *")
        stepwise = _unpredicted.ffi.new("struct sim_result *")
        _sim.lib.sim_run_seed(seed, 0, predicted, False)
        _unpredicted.lib.sim_run_seed(seed, 0, stepwise, False)
        assert not predicted.failed, _sim.ffi.string(predicted.text)
        assert not stepwise.failed, _unpredicted.ffi.string(stepwise.text)
        assert (stepwise.trace_hash, stepwise.packets) == (predicted.trace_hash, predicted.packets), seed
        packets += predicted.packets
    assert packets > 1000
