"""BBR's state machine on simulated paths: draft-ietf-ccwg-bbr-06.  The sections are the draft's."""

from dataclasses import replace
from itertools import pairwise

import pytest
from _leaf import ffi, lib
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.bbr_path import SMSS, Bulk, Path

RATE, RTT_US = 1_250_000, 50_000  # 10 Mbit/s
BDP = RATE * RTT_US // 1_000_000
CLEAN = Path(RATE, RTT_US)


def starting(sack: bool = True) -> Bulk:
    """A sender in Startup that has learnt a bandwidth."""
    return Bulk(CLEAN, sack=sack).run(0.2)


# --- Startup and Drain, 5.3.1 and 5.3.2 ---


def test_startup_doubles_the_rate_and_ends_at_the_plateau() -> None:
    bulk = Bulk(CLEAN, srtt_us=RTT_US).run(0.16)  # three round trips
    assert bulk.state == "startup"
    assert bulk.bbr.bw > 1.9 * 10 * SMSS * 1e6 / (RTT_US * 1.03)
    bulk.run(5, until=lambda b: b.state != "startup")
    assert bulk.elapsed() < 0.8
    assert bulk.bbr.bw == pytest.approx(RATE, rel=0.02)
    assert bulk.lost_count == 0


def test_drain_empties_the_queue_before_it_cruises() -> None:
    bulk = Bulk(CLEAN).run(5, until=lambda b: b.state == "probe_cruise")
    assert bulk.states()[:3] == ["startup", "drain", "probe_cruise"]
    assert max(s.rtt_us for s in bulk.diary) > 1.9 * RTT_US  # there was one
    assert bulk.inflight() <= BDP * 1.05
    drained = [s for s in bulk.diary if s.state == "drain"]
    assert all(s.pacing_rate < 0.51 * RATE for s in drained)


def test_drain_lasts_three_rounds_at_most() -> None:
    """When the bandwidth was taken for more than it is, in flight never falls to what seems to be the BDP."""
    bulk = starting()
    bulk.run(5, until=lambda b: b.state == "drain")
    rounds = 0
    while bulk.state == "drain":
        bulk.bbr.rate.delivered += SMSS
        sample = {
            "now_us": bulk.now,
            "delivery_rate": RATE,
            "delivered": SMSS,
            "prior_delivered": bulk.bbr.rate.delivered,
            "newly_acked": SMSS,
            "rtt_us": 2 * RTT_US,
            "inflight": 3 * BDP,
            "smss": SMSS,
            "has_data": True,
        }
        lib.bbr_on_ack(bulk.bbr, bulk.window, ffi.new("struct rate_sample *", sample))
        rounds += 1
    assert rounds == 4


def test_startup_ends_by_loss() -> None:
    """A queue of a tenth of the BDP: six losses in a round, and more than 2 %, 5.3.1.3."""
    bulk = Bulk(replace(CLEAN, queue=BDP // 10)).run(5, until=lambda b: b.state != "startup")
    assert bulk.bbr.inflight_longterm < 2.2 * BDP
    assert bulk.lost_count >= 6


def test_a_few_losses_do_not_end_startup() -> None:
    bulk = Bulk(CLEAN).run(0.2)
    packet = next(iter(bulk.flight.values()))
    bulk.lose(packet)
    assert bulk.run(0.06).state == "startup"
    assert not bulk.bbr.full_bw_reached


def test_without_sack_one_loss_ends_startup() -> None:
    bulk = starting(sack=False)
    bulk.path.loss = 0.05
    bulk.run(1, until=lambda b: b.state != "startup")
    assert bulk.bbr.full_bw_reached
    assert bulk.bbr.round_count < 8


def test_ece_ends_startup() -> None:  # 3.7
    bulk = starting()
    lib.bbr_on_ecn(bulk.bbr, bulk.window, bulk.inflight(), bulk.now)
    bulk.run(0.06)
    assert bulk.bbr.full_bw_reached
    assert bulk.bbr.inflight_longterm < lib.BBR_NO_BYTES


# --- ProbeBW, 5.3.3 ---


def test_the_cycle_goes_down_cruise_refill_up() -> None:
    bulk = Bulk(CLEAN).run(14)
    cycle = [s for s in bulk.states() if s.startswith("probe_") and s != "probe_rtt"]
    follows = {
        "probe_down": {"probe_cruise", "probe_refill"},
        "probe_cruise": {"probe_refill", "probe_cruise"},
        "probe_refill": {"probe_up", "probe_cruise"},
        "probe_up": {"probe_down", "probe_cruise"},
    }
    assert set(cycle) == set(follows)
    assert all(b in follows[a] for a, b in pairwise(cycle))
    begun, waits = 0, []
    for a, b in pairwise(bulk.diary):
        if a.state in ("drain", "probe_up", "probe_rtt") and b.state != a.state:
            begun = b.us
        if b.state == "probe_refill" != a.state:
            waits.append(b.us - begun)
    assert len(waits) >= 4
    assert all(2e6 < wait < 3.1e6 for wait in waits)  # 5.3.3.8
    assert len({wait // 20_000 for wait in waits}) > 1  # drawn anew


def test_cruising_keeps_rate_queue_and_window_within_bounds() -> None:
    bulk = Bulk(CLEAN).run(20)
    cruise = [s for s in bulk.diary if s.state == "probe_cruise" and s.us > bulk.begun + 3_000_000]
    assert len(cruise) > 1000
    assert all(0.95 * RATE <= s.pacing_rate <= 1.01 * RATE for s in cruise)
    assert all(s.cwnd <= 2.3 * BDP for s in cruise)
    calm = sorted(s.rtt_us for s in cruise)
    assert calm[int(len(calm) * 0.9)] < 1.2 * RTT_US
    assert bulk.goodput(10) > 0.95 * RATE


def test_up_paces_a_quarter_faster_and_finds_more_bandwidth() -> None:
    bulk = Bulk(replace(CLEAN)).run(3)
    bulk.path.rate = 2 * RATE
    bulk.run(12)
    assert bulk.bbr.bw > 1.9 * RATE
    assert bulk.goodput(1) > 1.8 * RATE


def test_it_gives_way_when_the_bandwidth_falls() -> None:
    bulk = Bulk(replace(CLEAN, queue=2 * BDP)).run(3)
    bulk.path.rate = RATE / 2
    bulk.run(15)
    assert bulk.bbr.bw < 0.55 * RATE
    assert bulk.diary[-1].rtt_us < 2.2 * RTT_US


def test_too_many_losses_bound_what_is_in_flight() -> None:
    """A policer: what is above its rate and a small bucket is dropped, 5.5.10.2."""
    bulk = Bulk(replace(CLEAN, queue=BDP // 4)).run(10)
    assert bulk.bbr.inflight_longterm < 1.6 * BDP
    lost, sent = bulk.lost_count, bulk.sent_count
    bulk.run(10)
    assert (bulk.lost_count - lost) / (bulk.sent_count - sent) < 0.02
    assert bulk.goodput(10) > 0.9 * RATE


def test_a_probe_that_lost_too_much_is_followed_by_a_cautious_one() -> None:  # 5.3.3.6
    """It ends when as much is in flight as was too much; when that was well, another follows at once and goes on."""
    bulk = Bulk(CLEAN).run(5, until=lambda b: b.state == "probe_cruise")
    bulk.run(0.3)  # what Startup has sent is acknowledged
    bulk.bbr.prev_probe_too_high = True
    bulk.bbr.inflight_longterm = int(1.1 * BDP)
    bulk.run(5, until=lambda b: b.state == "probe_up")
    bulk.run(1, until=lambda b: b.state != "probe_up")
    assert bulk.bbr.prev_probe_precautionary
    before = len(bulk.states())
    assert bulk.bbr.inflight_longterm < 1.2 * BDP
    bulk.run(1, until=lambda b: b.state == "probe_up")
    assert "probe_refill" in bulk.states()[before - 1 :]
    bulk.run(1)
    assert bulk.bbr.inflight_longterm > 1.3 * BDP


def test_loss_while_cruising_lowers_the_shortterm_bounds_until_the_next_probe() -> None:  # 5.5.10.3
    bulk = Bulk(CLEAN).run(5, until=lambda b: b.state == "probe_cruise")
    bulk.run(0.2)
    before = bulk.bbr.bw
    for packet in list(bulk.flight.values())[:3]:
        bulk.lose(packet)
    bulk.run(0.12)
    assert 0.7 * before <= bulk.bbr.bw <= before
    assert bulk.bbr.bw_shortterm < lib.BBR_NO_RATE
    assert bulk.bbr.inflight_shortterm < lib.BBR_NO_BYTES
    bulk.run(4, until=lambda b: b.state == "probe_refill")
    assert bulk.bbr.bw_shortterm == lib.BBR_NO_RATE
    assert bulk.bbr.inflight_shortterm == lib.BBR_NO_BYTES


# --- bandwidth, 5.5.2 and 4.1.1.3 ---


def test_a_user_who_writes_little_does_not_lower_the_bandwidth() -> None:
    bulk = Bulk(CLEAN).run(3)
    bulk.written_from, bulk.app_limit, bulk.sent_count = bulk.now, RATE / 20, 0
    bulk.run(15)
    assert bulk.bbr.bw > 0.95 * RATE
    bulk.app_limit = None
    bulk.run(0.5)
    assert bulk.goodput(0.3) > 0.85 * RATE


def test_rates_that_the_user_limits_are_none_of_a_new_cycle() -> None:
    bulk = Bulk(CLEAN).run(3, until=lambda b: b.state == "probe_cruise" and b.elapsed() > 1)
    bulk.written_from, bulk.app_limit, bulk.sent_count = bulk.now, RATE / 20, 0
    bulk.run(0.3)
    bulk.bbr.max_bw = [RATE, 0]
    bulk.run(0.5)
    assert bulk.bbr.max_bw[1] == 0


def test_startup_does_not_end_while_the_user_is_the_limit() -> None:
    bulk = Bulk(CLEAN, app_limit=RATE / 20).run(4)
    assert not bulk.bbr.full_bw_reached
    assert bulk.window.cwnd <= 40 * SMSS  # and the window is what was needed


# --- round trips, 5.3.4 ---


def probes(bulk: Bulk) -> list[tuple[int, int]]:
    """(begin, end) of each ProbeRTT."""
    out, begin = [], 0
    for a, b in pairwise(bulk.diary):
        if b.state == "probe_rtt" != a.state:
            begin = b.us
        if a.state == "probe_rtt" != b.state:
            out.append((begin, b.us))
    return out


def test_probe_rtt_comes_each_five_seconds_for_200_ms_with_half_the_bdp() -> None:
    bulk = Bulk(CLEAN).run(25)
    found = probes(bulk)
    assert len(found) >= 3
    assert all(4.9e6 < b[0] - a[1] < 5.2e6 for a, b in pairwise(found))
    assert all(0.2e6 <= end - begin < 0.45e6 for begin, end in found)
    for begin, end in found:
        rows = [s for s in bulk.diary if begin + 0.15e6 < s.us < end]
        assert all(s.inflight <= BDP // 2 + SMSS for s in rows)
        after = next(s for s in bulk.diary if s.us > end + RTT_US)
        assert after.cwnd > BDP
    bulk.run(6, until=lambda b: b.state == "probe_rtt")
    assert bulk.bbr.rate.app_limited  # what it is like now is none of the path's


def test_a_longer_round_trip_is_believed_after_ten_seconds_at_most() -> None:
    bulk = Bulk(replace(CLEAN)).run(3)
    bulk.path.rtt_us = 3 * RTT_US
    bulk.run(4)
    assert bulk.bbr.min_rtt_us < 1.1 * RTT_US
    bulk.run(9)
    assert bulk.bbr.min_rtt_us >= 3 * RTT_US
    bulk.run(6)
    assert bulk.goodput(3) > 0.9 * RATE


def test_a_shorter_one_at_once_as_far_as_it_shows() -> None:
    bulk = Bulk(replace(CLEAN)).run(3)
    bulk.path.rtt_us = RTT_US // 2
    bulk.run(0.5)
    assert bulk.bbr.min_rtt_us < RTT_US
    bulk.run(5.5)  # with a ProbeRTT, which ends the queue that it had become
    assert bulk.bbr.min_rtt_us < 0.6 * RTT_US


def test_who_was_silent_need_not_probe() -> None:
    """A pause has emptied the queue, 5.3.4.2."""
    bulk = Bulk(CLEAN).run(4.5)
    bulk.app_limit, bulk.sent_count, bulk.written_from = 1.0, 0, bulk.now + 10**9
    bulk.run(3)
    assert not bulk.flight
    bulk.app_limit = None
    mark = bulk.now
    bulk.run(1.5)
    assert not [p for p in probes(bulk) if p[0] > mark]


# --- recovery, 5.6.4.4 and 5.5.11 ---


def test_a_timeout_leaves_one_segment_and_its_end_the_window_of_before() -> None:
    bulk = Bulk(CLEAN).run(2)
    before = bulk.window.cwnd
    lib.bbr_on_timeout(bulk.bbr, bulk.window, SMSS)
    assert bulk.window.cwnd == SMSS
    lib.bbr_on_timeout(bulk.bbr, bulk.window, SMSS)  # and again
    bulk.recovery_until = -1
    bulk.run(0.06)
    assert bulk.window.cwnd >= 0.9 * before


def test_a_spurious_recovery_brings_the_probe_back() -> None:
    bulk = Bulk(replace(CLEAN, queue=2 * BDP)).run(
        8, until=lambda b: b.state == "probe_up" and b.elapsed() > 2
    )
    longterm, cwnd = bulk.bbr.inflight_longterm, bulk.window.cwnd
    bulk.bbr.is_bw_probe_sample = True
    for packet in list(bulk.flight.values())[:6]:
        bulk.lose(packet)
    assert bulk.state == "probe_down"
    assert bulk.bbr.inflight_longterm < longterm
    lib.bbr_on_spurious(bulk.bbr, bulk.window)
    assert bulk.state == "probe_refill"
    assert bulk.bbr.inflight_longterm == longterm
    assert bulk.window.cwnd >= cwnd


def test_a_spurious_end_of_startup_is_taken_back() -> None:
    bulk = starting()
    lib.bbr_on_ecn(bulk.bbr, bulk.window, bulk.inflight(), bulk.now)
    lib.bbr_on_spurious(bulk.bbr, bulk.window)
    assert bulk.state == "startup"
    assert not bulk.bbr.full_bw_reached


# --- what is kept between two flights ---


def test_it_resumes_with_what_is_remembered() -> None:
    bulk = Bulk(CLEAN, srtt_us=RTT_US)
    lib.bbr_resume(bulk.bbr, BDP, RTT_US, 0, bulk.now)
    assert bulk.state == "probe_cruise"
    assert bulk.bbr.pacing_rate == pytest.approx(RATE * 0.99, rel=0.01)
    bulk.window.cwnd = 2 * BDP
    bulk.run(1)
    assert bulk.goodput(0.5) > 0.9 * RATE
    assert max(s.rtt_us for s in bulk.diary) < 1.5 * RTT_US


def test_it_probes_soon_when_the_last_probe_was_long_ago() -> None:
    bulk = Bulk(CLEAN, srtt_us=RTT_US)
    lib.bbr_resume(bulk.bbr, BDP // 4, RTT_US, 60_000_000, bulk.now)
    bulk.run(0.3)
    assert "probe_up" in bulk.states()


# --- pacing, 5.6.2 ---


@given(st.integers(1448, 2**37), st.lists(st.integers(1, 1 << 16), min_size=1, max_size=50))
def test_gaps_add_up_to_the_pacing_rate(rate: int, lengths: list[int]) -> None:
    bbr = ffi.new("struct bbr *")
    bbr.pacing_rate = rate
    gaps = [lib.bbr_gap_us(bbr, n) for n in lengths]
    exact = sum(lengths) * 1e6 / rate
    if max(lengths) * 1_000_000 / rate < 900_000:
        assert exact - 1.01 <= sum(gaps) <= exact + 0.01
    assert max(gaps) <= 1_000_000


def test_a_path_of_a_millisecond_and_one_of_a_gigabit_are_filled() -> None:
    for path in (
        Path(12_500_000, 1000, 12_500),
        Path(125_000_000, 200, 1_000_000),
        Path(12_500, 20_000, 15_000),
    ):
        bulk = Bulk(path).run(0.5 if path.rate > 1e8 else 3 if path.rate > 1e6 else 30)
        assert bulk.goodput(0.2 if path.rate > 1e6 else 10) > 0.93 * path.rate, path


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([6_000, 125_000, 1_250_000]),
    st.sampled_from([1, 500, 20_000, 300_000]),
    st.floats(0.1, 4),
    st.sampled_from([0.0, 0.01, 0.05, 0.3, 0.8]),
    st.integers(1, 1000),
)
def test_on_any_path_it_goes_on(rate: int, rtt_us: int, queue: float, loss: float, seed: int) -> None:
    """The window holds four segments at least once something is acknowledged, and data comes through."""
    bulk = Bulk(Path(rate, rtt_us, max(rate * rtt_us / 1e6 * queue, 3 * SMSS), loss, seed), seed=seed)
    bulk.run(4 if rate > 10_000 else 20)
    assert all(s.cwnd >= 4 * SMSS for s in bulk.diary)
    assert bulk.bbr.pacing_rate >= SMSS
    assert bulk.delivered_bytes > 0 or loss > 0.5
