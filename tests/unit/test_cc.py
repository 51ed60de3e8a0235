"""Congestion control: the windows of RFC 5681 and 6928, NewReno, CUBIC against RFC 9438's
formulas, HyStart++ and DCTCP."""

import pytest
from _leaf import ffi, lib
from hypothesis import example, given
from hypothesis import strategies as st

CUBIC, NEWRENO, DCTCP = 0, 1, 2
BOTH = pytest.mark.parametrize("cc", [CUBIC, NEWRENO, DCTCP], ids=["cubic", "newreno", "dctcp"])
SMSS = 1448
RTT_US = 50_000


class Sender:
    """A connection that always has data, one ACK per segment, a round per RTT."""

    def __init__(self, cc: int, smss: int = SMSS) -> None:
        self.ops = lib.cc_ops(cc)
        self.window = ffi.new("struct cc_window *")
        self.state = ffi.new("struct cc_state *")
        self.smss, self.now = smss, 1_000_000
        lib.cc_window_init(self.window, smss, False)
        if self.ops.recall:
            self.ops.recall(self.state, 0)

    def ack(self, acked: int, limited: bool = True, rtt_us: int = RTT_US, begins: bool = False) -> None:
        ack = ffi.new("struct cc_ack *", [self.now, acked, self.smss, RTT_US, rtt_us, begins, limited])
        self.ops.on_ack(self.window, self.state, ack)

    def round(self, limited: bool = True, rtt_us: int = RTT_US) -> None:
        for i in range(self.window.cwnd // self.smss):
            self.ack(self.smss, limited, rtt_us, i == 0)
        self.now += RTT_US

    def lose(self) -> None:
        self.ops.on_congestion(self.window, self.state, self.window.cwnd, self.smss, self.now)

    def set(self, cwnd: int, ssthresh: int) -> None:
        self.window.cwnd, self.window.ssthresh = cwnd, ssthresh


@pytest.mark.parametrize(
    ("smss", "window"), [(536, 5360), (1460, 14600), (1448, 14480), (4000, 14600), (9000, 18000)]
)
def test_initial_window(smss: int, window: int) -> None:  # RFC 6928 2
    assert lib.cc_initial_window(smss) == window


def test_window_after_a_lost_syn() -> None:  # RFC 5681 3.1
    window = ffi.new("struct cc_window *")
    lib.cc_window_init(window, SMSS, True)
    assert (window.cwnd, window.ssthresh) == (SMSS, lib.CC_SSTHRESH_NONE)


def test_unknown_congestion_control_is_none() -> None:
    assert [lib.cc_ops(cc) == ffi.NULL for cc in (0, 1, 2, 3, 4, 255)] == [False] * 4 + [True] * 2


@BOTH
def test_slow_start_doubles_each_round_and_stops_at_ssthresh(cc: int) -> None:
    sender = Sender(cc)
    for factor in (2, 4, 8):
        sender.round()
        assert sender.window.cwnd == 10 * SMSS * factor
    sender.set(90 * SMSS, 100 * SMSS)
    sender.round()
    assert 100 * SMSS <= sender.window.cwnd <= 103 * SMSS


@BOTH
def test_one_ack_for_all_grows_by_few_segments_and_split_acks_gain_nothing(cc: int) -> None:
    """L of RFC 3465 is 2, that of RFC 9406 4.3 without pacing is 8."""
    few = 8 if cc == CUBIC else 2
    sender = Sender(cc)
    sender.ack(10 * SMSS)
    assert sender.window.cwnd == (10 + few) * SMSS
    for _ in range(SMSS):
        sender.ack(1)
    assert sender.window.cwnd == (11 + few) * SMSS


@BOTH
def test_an_application_that_does_not_fill_the_window_does_not_grow_it(cc: int) -> None:  # RFC 7661
    sender = Sender(cc)
    sender.round(limited=False)
    assert sender.window.cwnd == 10 * SMSS


def test_newreno_grows_by_one_segment_a_round() -> None:  # RFC 5681 3.1
    sender = Sender(NEWRENO)
    sender.set(100 * SMSS, 50 * SMSS)
    for rounds in range(1, 10):
        sender.round()
        assert sender.window.cwnd == (100 + rounds) * SMSS


@BOTH
def test_loss_timeout_exit_and_undo(cc: int) -> None:
    beta = 0.7 if cc == CUBIC else 0.5
    sender = Sender(cc)
    sender.set(100 * SMSS, 200 * SMSS)
    sender.lose()
    assert sender.window.cwnd == sender.window.ssthresh == int(100 * SMSS * beta)
    sender.ops.on_recovery_exit(sender.window, sender.state, 3 * SMSS, SMSS)
    assert sender.window.cwnd == 4 * SMSS  # no burst, RFC 6582 3.2 (3)
    sender.ops.on_spurious(sender.window, sender.state)
    assert (sender.window.cwnd, sender.window.ssthresh) == (100 * SMSS, 200 * SMSS)
    sender.ops.on_spurious(sender.window, sender.state)
    assert sender.window.cwnd == 100 * SMSS
    sender.ops.on_rto(sender.window, sender.state, 100 * SMSS, SMSS, True, sender.now)
    assert (sender.window.cwnd, sender.window.ssthresh) == (SMSS, int(100 * SMSS * beta))
    sender.ops.on_rto(sender.window, sender.state, SMSS, SMSS, False, sender.now)
    assert (sender.window.cwnd, sender.window.ssthresh) == (SMSS, int(100 * SMSS * beta))


@BOTH
def test_ssthresh_is_at_least_two_segments(cc: int) -> None:
    sender = Sender(cc)
    sender.ops.on_congestion(sender.window, sender.state, SMSS, SMSS, sender.now)
    assert sender.window.ssthresh == 2 * SMSS


def test_cubic_follows_the_curve() -> (
    None
):  # RFC 9438 4.2: W(t) = C (t - K)^3 + W_max, in segments and seconds
    sender = Sender(CUBIC)
    w_max = 1000
    sender.set(w_max * SMSS, w_max * SMSS)
    sender.lose()
    k = ((w_max * 0.3) / 0.4) ** (1 / 3)
    begun = sender.now
    for rounds in range(1, 400):
        sender.round()
        t = (sender.now - begun) / 1e6
        assert sender.window.cwnd / SMSS == pytest.approx(0.4 * (t - k) ** 3 + w_max, rel=0.02), rounds
    assert t > 2 * k - 2


def test_cubic_is_never_slower_than_reno_would_be() -> None:  # RFC 9438 4.3
    sender = Sender(CUBIC)
    sender.set(20 * SMSS, 20 * SMSS)
    sender.lose()
    start = sender.window.cwnd
    for rounds in range(1, 12):
        sender.round()
        assert sender.window.cwnd >= start + int((rounds - 1) * 9 / 17 * SMSS)


def test_cubic_gives_way_when_it_loses_below_the_last_maximum() -> None:  # RFC 9438 4.7
    sender = Sender(CUBIC)
    sender.set(1000 * SMSS, 1000 * SMSS)
    sender.lose()
    assert sender.state.w_max == 1000 * SMSS
    sender.lose()
    assert sender.state.w_max == 700 * SMSS * 85 // 100


def test_cubic_time_stands_still_while_the_application_is_silent() -> None:  # RFC 9438 4.2.1
    sender = Sender(CUBIC)
    sender.set(100 * SMSS, 100 * SMSS)
    sender.lose()
    sender.round()
    before = sender.window.cwnd
    sender.now += 3600 * 1_000_000
    sender.ack(SMSS, limited=False)
    sender.round()
    assert sender.window.cwnd < before * 1.2


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["ack", "ack", "ack", "congestion", "rto", "exit", "spurious", "ecn"]),
        st.integers(0, 2**30),
        st.integers(0, 10**9),
        st.booleans(),
    ),
    max_size=60,
)


@BOTH
@given(smss=st.integers(64, 9000), cwnd=st.integers(1, 2**30), events=EVENTS)
@example(smss=64, cwnd=2**30 - 63, events=[("exit", 2**30 - 63, 0, False)])
@example(
    smss=64,
    cwnd=1,
    events=[("congestion", 0, 0, False), ("ack", 387, 0, True), ("exit", 0, 0, False), ("ack", 1, 0, True)],
)
def test_no_event_takes_cwnd_out_of_bounds(
    cc: int, smss: int, cwnd: int, events: list[tuple[str, int, int, bool]]
) -> None:
    sender = Sender(cc, smss)
    sender.set(max(cwnd, smss), lib.CC_SSTHRESH_NONE)
    for what, amount, later, flag in events:
        sender.now += later
        before = sender.window.cwnd
        if what == "ack":
            sender.ack(amount, flag)
            fraction = 1  # earlier ACKs may have left one
            most = max(before + before // 2 + 8 * smss, smss) + amount + fraction
            assert before <= sender.window.cwnd <= most
        elif what == "congestion":
            sender.ops.on_congestion(sender.window, sender.state, min(amount, before), smss, sender.now)
        elif what == "rto":
            sender.ops.on_rto(sender.window, sender.state, min(amount, before), smss, flag, sender.now)
        elif what == "exit":
            sender.ops.on_recovery_exit(sender.window, sender.state, min(amount, before), smss)
        elif what == "spurious":
            sender.ops.on_spurious(sender.window, sender.state)
        elif sender.ops.on_ecn:
            sender.ops.on_feedback(sender.state, amount, flag, not flag)
            sender.ops.on_ecn(sender.window, sender.state, min(amount, before), smss, sender.now)
        assert smss <= sender.window.cwnd <= lib.CC_CWND_MAX
        assert sender.window.ssthresh >= 2 * smss


@BOTH
def test_the_end_of_recovery_leaves_a_segment_though_segments_have_grown(cc: int) -> None:  # RFC 4821 7.2
    sender = Sender(cc)
    sender.set(4 * 500, 4 * 500)
    sender.ops.on_congestion(sender.window, sender.state, 2 * 500, 500, sender.now)
    sender.ops.on_recovery_exit(sender.window, sender.state, 0, 1448)
    assert sender.window.cwnd >= 1448


# --- HyStart++, RFC 9406 4.2 ---


def rising(*rtts_ms: float) -> list[int]:
    """cwnd in segments after rounds with these round trips."""
    sender = Sender(CUBIC)
    windows = []
    for ms in rtts_ms:
        sender.round(rtt_us=int(ms * 1000))
        windows.append(sender.window.cwnd // SMSS)
    return windows


def test_a_steady_round_trip_doubles_the_window() -> None:
    assert rising(50, 50, 50, 51) == [20, 40, 80, 160]


def test_a_rise_of_an_eighth_slows_growth_to_a_quarter() -> None:
    """The eighth sample of a round shows it; 50 / 8 = 6.25 ms is between 4 and 16 ms."""
    assert rising(50, 50, 56, 56)[3] == 160  # not yet
    slower = rising(50, 50, 57, 57, 57)
    assert 80 * 1.25 - 2 <= slower[3] / slower[2] * 80 <= 80 * 1.25 + 2


def test_thresholds_are_at_least_4_ms_and_at_most_16_ms() -> None:
    assert rising(8, 8, 11.9, 11.9)[3] == 160
    assert rising(8, 8, 12.1, 12.1)[3] < 110
    assert rising(400, 400, 417, 417)[3] < 110


def test_slow_start_goes_on_when_the_rise_was_a_mistake() -> None:
    windows = rising(50, 50, 60, 50, 50)
    assert windows[4] > 1.9 * windows[3]


def test_after_five_rounds_congestion_avoidance_begins() -> None:
    sender = Sender(CUBIC)
    for ms in (50, 50, 60, 60, 60, 60, 60):
        sender.round(rtt_us=ms * 1000)
        assert sender.window.ssthresh == lib.CC_SSTHRESH_NONE
    sender.round(rtt_us=60_000)
    assert sender.window.ssthresh <= sender.window.cwnd


# --- DCTCP, RFC 8257 3.3 ---


def marked(rounds: int, part: float) -> Sender:
    sender = Sender(DCTCP)
    for _ in range(rounds):
        sender.ops.on_feedback(sender.state, int(1000 * part), True, False)
        sender.ops.on_feedback(sender.state, 1000 - int(1000 * part), False, True)
    return sender


def test_alpha_begins_at_one_and_follows_the_part_that_is_marked() -> None:
    assert marked(0, 0).state.alpha == 1024
    assert marked(1, 0).state.alpha == 960  # g = 1/16
    assert marked(300, 0.25).state.alpha == pytest.approx(256, abs=20)
    assert marked(300, 0).state.alpha < 20
    assert marked(300, 1).state.alpha > 1000


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 1.0])
def test_the_window_goes_down_by_half_of_alpha(part: float) -> None:
    sender = marked(300, part)
    sender.set(100 * SMSS, 50 * SMSS)
    sender.ops.on_ecn(sender.window, sender.state, 100 * SMSS, SMSS, sender.now)
    assert sender.window.cwnd == pytest.approx(100 * SMSS * (1 - part / 2), abs=1.5 * SMSS)
    assert sender.window.ssthresh == sender.window.cwnd


def test_dctcp_meets_loss_as_newreno_does() -> None:  # RFC 8257 3.5
    sender = marked(300, 0)
    sender.set(100 * SMSS, 50 * SMSS)
    sender.lose()
    assert sender.window.cwnd == 50 * SMSS


@pytest.mark.parametrize("part", [0.0, 0.3, 1.0])
def test_alpha_outlives_its_state_in_one_byte(part: float) -> None:
    sender = marked(300, part)
    memory = sender.ops.memorize(sender.state)
    again = Sender(DCTCP)
    again.ops.recall(again.state, memory)
    assert again.state.alpha == pytest.approx(sender.state.alpha, abs=4)
    again.ops.recall(again.state, 0)
    assert again.state.alpha == 1024
