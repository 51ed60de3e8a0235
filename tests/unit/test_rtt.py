"""RTT and RTO against RFC 6298's formulas in floating point."""

import pytest
from _leaf import ffi, lib
from hypothesis import given
from hypothesis import strategies as st

SAMPLES = st.lists(st.tuples(st.integers(1, 50_000_000), st.integers(1, 40)), min_size=1, max_size=60)


@given(SAMPLES)
def test_estimates_follow_the_formulas(samples: list[tuple[int, int]]) -> None:
    """2.2 and 2.3 with the gains divided by n (RFC 7323 appendix G)."""
    rtt = ffi.new("struct rtt *")
    srtt = rttvar = 0.0
    for number, (sample, n) in enumerate(samples):
        lib.rtt_sample(rtt, sample, n)
        if number == 0:
            srtt, rttvar = sample, sample / 2
        else:
            rttvar += (abs(srtt - sample) - rttvar) / (4 * n)
            srtt += (sample - srtt) / (8 * n)
        assert lib.native_rtt_srtt_us(rtt) == pytest.approx(srtt, abs=8 * 40 + 2)
        assert lib.native_rtt_rttvar_us(rtt) == pytest.approx(rttvar, abs=16 * 40 + 4)
        expected = min(max(4 * rttvar, 200_000) + srtt, 60_000_000)
        assert lib.rtt_rto_us(rtt, 0) == pytest.approx(expected, abs=80 * 40)


@given(SAMPLES, st.integers(0, 2**32 - 1))
def test_backoff_doubles_up_to_a_minute(samples: list[tuple[int, int]], far: int) -> None:
    rtt = ffi.new("struct rtt *")
    for sample, n in samples:
        lib.rtt_sample(rtt, sample, n)
    base = lib.rtt_rto_us(rtt, 0)
    for backoff in range(20):
        assert lib.rtt_rto_us(rtt, backoff) == min(base * 2**backoff, 60_000_000)
    assert lib.rtt_rto_us(rtt, max(far, 16)) == 60_000_000


def test_nothing_measured_gives_one_second() -> None:
    rtt = ffi.new("struct rtt *")
    assert [lib.rtt_rto_us(rtt, backoff) for backoff in range(7)] == [
        1_000_000, 2_000_000, 4_000_000, 8_000_000, 16_000_000, 32_000_000, 60_000_000,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("samples", "low", "high"),
    [
        pytest.param([0] * 5, 200_000, 200_001, id="a sample of 0 counts as measured"),
        pytest.param([100] * 50, 200_000, 200_101, id="steady and short: 200 ms above SRTT"),
        pytest.param([2**32 - 1], 60_000_000, 60_000_000, id="absurd sample is cut to a minute"),
        pytest.param([500_000] * 60, 700_000, 700_100, id="steady and long: 200 ms above SRTT"),
        pytest.param([50_000, 950_000] * 30, 1_500_000, 3_000_000, id="wild: four times the variance"),
    ],
)
def test_rto_of(samples: list[int], low: int, high: int) -> None:
    rtt = ffi.new("struct rtt *")
    for sample in samples:
        lib.rtt_sample(rtt, sample, 1)
    assert low <= lib.rtt_rto_us(rtt, 0) <= high
