"""Congestion control: the windows of RFC 5681 and 6928, NewReno, and CUBIC against RFC 9438's formulas."""

import pytest
from _leaf import ffi, lib
from hypothesis import example, given
from hypothesis import strategies as st

CUBIC, NEWRENO = 0, 1
BOTH = pytest.mark.parametrize("cc", [CUBIC, NEWRENO], ids=["cubic", "newreno"])
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
        self.ops.start(self.state, self.window)

    def ack(self, acked: int, limited: bool = True) -> None:
        ack = ffi.new("struct cc_ack *", [self.now, acked, self.smss, RTT_US, limited])
        self.ops.on_ack(self.window, self.state, ack)

    def round(self, limited: bool = True) -> None:
        for _ in range(self.window.cwnd // self.smss):
            self.ack(self.smss, limited)
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


def test_window_after_a_lost_syn_and_after_idling() -> None:  # RFC 5681 3.1, 4.1
    window = ffi.new("struct cc_window *")
    lib.cc_window_init(window, SMSS, True)
    assert (window.cwnd, window.ssthresh) == (SMSS, lib.CC_SSTHRESH_NONE)
    lib.cc_window_restart(window, SMSS)
    assert window.cwnd == SMSS
    window.cwnd = 10**6
    lib.cc_window_restart(window, SMSS)
    assert window.cwnd == 10 * SMSS


def test_unknown_congestion_control_is_none() -> None:
    assert [lib.cc_ops(cc) == ffi.NULL for cc in (0, 1, 2, 255)] == [False, False, True, True]


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
def test_one_ack_for_all_grows_by_two_segments_and_split_acks_gain_nothing(
    cc: int,
) -> None:  # RFC 3465, L = 2
    sender = Sender(cc)
    sender.ack(10 * SMSS)
    assert sender.window.cwnd == 12 * SMSS
    for _ in range(SMSS):
        sender.ack(1)
    assert sender.window.cwnd == 13 * SMSS


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
        st.sampled_from(["ack", "ack", "ack", "congestion", "rto", "exit", "spurious", "restart"]),
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
            assert before <= sender.window.cwnd <= max(before + before // 2 + 2 * smss, smss) + amount
        elif what == "congestion":
            sender.ops.on_congestion(sender.window, sender.state, min(amount, before), smss, sender.now)
        elif what == "rto":
            sender.ops.on_rto(sender.window, sender.state, min(amount, before), smss, flag, sender.now)
        elif what == "exit":
            sender.ops.on_recovery_exit(sender.window, sender.state, min(amount, before), smss)
        elif what == "spurious":
            sender.ops.on_spurious(sender.window, sender.state)
        else:
            lib.cc_window_restart(sender.window, smss)
        assert smss <= sender.window.cwnd <= lib.CC_CWND_MAX
        assert sender.window.ssthresh >= 2 * smss
