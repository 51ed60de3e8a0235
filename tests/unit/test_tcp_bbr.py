"""BBR in the whole core: delivery rates by marks of segments, pacing, and what is kept between two flights."""

import heapq
import random
from typing import Any

import pytest
from _tcp import ffi, lib

from tests.unit.tcp_talk import HERE4, PEER4, Options, Peer, Segment, Stack, established, icmp_error

RATE, RTT_US = 1_250_000, 50_000
BDP = RATE * RTT_US // 1_000_000
SMSS = 1460
OPTIONS = Options(mss=1460, wscale=7, sack_ok=True)


class Line:
    """The way to a receiver that acknowledges each segment, and back: a link with a queue, and the round trip."""

    def __init__(self, loss: float = 0.0, rtt_us: int = RTT_US, sack: bool = True) -> None:
        settings = {
            "congestion_control": lib.TCP_CC_BBR,
            "tx_slots": 2048,
            "conn_max": 4,
            "handshake_rtt": True,
        }
        self.stack = Stack(**settings)
        self.stack.listen()
        self.peer = Peer(self.stack)
        self.peer.wnd = 32768
        self.stack.now_us += 1
        self.peer.send("S", options=OPTIONS if sack else Options(mss=1460, wscale=7))
        self.peer.expect("SA", seq=0)
        self.stack.advance(rtt_us)
        self.peer.send("A")
        self.conn = self.stack.events()[0][0]
        self.loss, self.rtt_us, self.random, self.sack = loss, rtt_us, random.Random(1), sack
        self.free_at = 0.0
        self.coming: list[tuple[int, int, int, int]] = []  # time, order, begin, end
        self.order = 0
        self.next = 1  # RCV.NXT of the receiver
        self.held: list[tuple[int, int]] = []
        self.sent_at: list[int] = []
        self.delivered = 0

    @property
    def bbr(self) -> Any:
        return lib.native_bbr(self.stack.native, self.conn)

    def take(self) -> None:
        """What the stack sends goes onto the line."""
        now = self.stack.now_us
        self.peer.collect()
        for s in self.peer.queue:
            begin = (s.seq - self.peer.irs) % 2**32
            if not s.data:
                continue
            self.sent_at.append(now)
            if self.random.random() < self.loss:
                continue
            self.free_at = max(self.free_at, now) + len(s.data) / RATE * 1e6
            self.order += 1
            heapq.heappush(
                self.coming, (int(self.free_at) + self.rtt_us, self.order, begin, begin + len(s.data))
            )
        self.peer.queue.clear()

    def arrive(self, begin: int, end: int) -> None:
        """At the receiver; its ACK is back at once, the round trip was waited for before."""
        self.held = sorted({*self.held, (begin, end)})
        while self.held and self.held[0][0] <= self.next:
            self.next = max(self.next, self.held.pop(0)[1])
        blocks: list[tuple[int, int]] = []
        for a, b in self.held:
            if blocks and a <= blocks[-1][1]:
                blocks[-1] = (blocks[-1][0], max(b, blocks[-1][1]))
            else:
                blocks.append((a, b))
        blocks.sort(key=lambda block: not block[0] <= begin < block[1])
        sack = [(a + self.peer.irs, b + self.peer.irs) for a, b in blocks[:4]] if self.sack else []
        self.peer.send("A", ack=self.next, options=Options(sack=sack))

    def run(self, us: int, keep: int = 200_000) -> None:
        """Time passes; the user has so many bytes queued always."""
        end = self.stack.now_us + us
        while True:
            waiting = lib.tcp_unacked(self.stack.tcp, self.conn)
            if keep > waiting:
                self.stack.send(self.conn, bytes(keep - waiting))
            self.take()
            at = min(self.coming[0][0] if self.coming else end, lib.tcp_next_deadline(self.stack.tcp), end)
            self.stack.now_us = max(self.stack.now_us, at)
            lib.tcp_advance(self.stack.tcp, self.stack.now_us)
            while self.coming and self.coming[0][0] <= self.stack.now_us:
                _, _, begin, stop = heapq.heappop(self.coming)
                self.arrive(begin, stop)
            self.stack.events()
            if self.stack.now_us >= end:
                self.take()
                return

    def goodput(self, us: int) -> float:
        before = self.next
        self.run(us)
        return (self.next - before) / us * 1e6

    def write(self, count: int) -> None:
        """One write, and all of it is acknowledged; so much later that nothing of it is kept."""
        self.stack.send(self.conn, bytes(count))
        self.run(2_000_000, keep=0)


def test_a_path_is_filled_and_its_queue_is_short() -> None:
    line = Line()
    line.run(1_500_000)
    assert line.goodput(1_000_000) > 0.93 * RATE
    assert line.bbr.bw == pytest.approx(RATE, rel=0.04)
    assert line.bbr.min_rtt_us == pytest.approx(RTT_US, rel=0.05)
    assert line.stack.info(line.conn).srtt_us < 1.4 * RTT_US


def test_loss_of_one_percent_does_not_stop_it() -> None:
    line = Line(loss=0.01)
    line.run(1_500_000)
    assert line.goodput(2_000_000) > 0.5 * RATE


def test_it_does_without_sack() -> None:
    line = Line(loss=0.002, sack=False)
    line.run(1_500_000)
    assert line.goodput(2_000_000) > 0.3 * RATE


def test_what_is_known_of_the_path_outlives_the_extension() -> None:
    line = Line()
    line.run(2_000_000)
    line.run(2_000_000, keep=0)
    assert line.bbr == ffi.NULL
    info = line.stack.info(line.conn)
    assert info.ssthresh_bytes == pytest.approx(BDP, rel=0.1)
    line.sent_at.clear()
    line.stack.send(line.conn, bytes(100 * SMSS))
    line.take()
    assert line.bbr.full_bw_reached
    assert line.bbr.bw == pytest.approx(RATE, rel=0.06)
    assert line.bbr.min_rtt_us == pytest.approx(RTT_US, rel=0.06)
    line.run(120_000, keep=0)
    took = line.sent_at[60] - line.sent_at[0]  # paced from the first segment on
    assert took == pytest.approx(60 * SMSS / RATE * 1e6, rel=0.15)


def test_small_writes_lower_nothing() -> None:
    line = Line()
    line.run(2_000_000)
    line.run(2_000_000, keep=0)
    for _ in range(20):
        line.write(300)
    line.stack.send(line.conn, bytes(100 * SMSS))
    line.take()
    assert line.bbr.bw > 0.9 * RATE


def test_a_longer_round_trip_is_learnt_from_flight_to_flight() -> None:
    line = Line()
    line.run(2_000_000)
    line.run(2_000_000, keep=0)
    line.rtt_us *= 2
    for _ in range(40):
        line.write(20 * SMSS)
    line.stack.send(line.conn, bytes(SMSS))
    line.take()
    assert line.bbr.min_rtt_us > 1.8 * RTT_US


def test_it_probes_soon_when_the_last_probe_was_flights_ago() -> None:
    """The clock of 5.3.3.8 goes on while nothing is in flight."""
    line = Line()
    line.run(1_000_000)
    while line.stack.now_us - line.bbr.cycle_stamp_us < 1_900_000:
        line.run(10_000)
    begun = line.bbr.cycle_stamp_us
    line.run(10_000_000, keep=0)
    line.stack.send(line.conn, bytes(20 * SMSS))
    line.take()
    assert line.bbr.cycle_stamp_us == pytest.approx(begun, abs=1_000_001)  # in whole seconds


def choose(line: Line, control: int) -> None:
    settings = ffi.new("struct tcp_settings *")
    lib.tcp_get_settings(line.stack.tcp, line.conn, settings)
    settings.congestion_control = control
    assert lib.tcp_set_settings(line.stack.tcp, line.conn, settings) == 0


def test_who_writes_when_all_is_sent_is_the_limit() -> None:  # 4.1.2.4
    line = Line()
    line.run(1_000_000, keep=140 * SMSS)
    while line.stack.info(line.conn).unsent_bytes:
        line.run(10, keep=0)
    assert line.stack.info(line.conn).flight_bytes + SMSS < line.stack.info(line.conn).cwnd_bytes
    assert not line.bbr.rate.app_limited  # no ACK has come since
    line.stack.send(line.conn, b"late")
    assert line.bbr.rate.app_limited


def test_marks_of_before_count_for_nothing_when_it_is_chosen_again() -> None:
    line = Line()
    line.run(1_000_000)
    choose(line, lib.TCP_CC_NEWRENO)
    choose(line, lib.TCP_CC_BBR)
    line.run(20_000)
    assert line.bbr.bw == 0


def test_the_control_may_change_in_full_flight() -> None:
    line = Line()
    line.run(1_000_000)
    choose(line, lib.TCP_CC_NEWRENO)
    assert line.bbr == ffi.NULL
    line.run(1_000_000)
    assert line.goodput(500_000) > 0.9 * RATE
    choose(line, lib.TCP_CC_BBR)
    assert not line.bbr.started
    line.run(20_000)  # what is acknowledged now was sent before: it has no mark that counts
    assert line.bbr.bw == 0
    assert line.bbr.rate.delivered > 0
    line.run(3_000_000)
    assert line.goodput(1_000_000) > 0.85 * RATE


def test_marks_of_what_went_down_with_the_old_region_count_for_nothing() -> None:
    line = Line()
    line.run(1_000_000)
    rounds, bw = line.bbr.round_count, line.bbr.bw
    lib.native_rebase(line.stack.native, 2**31, line.stack.now_us, 0)
    for _, _, begin, end in sorted(line.coming):
        line.arrive(begin, end)
    line.coming.clear()
    assert line.bbr.round_count == rounds
    assert line.bbr.bw == bw
    line.run(2_000_000)
    assert line.goodput(1_000_000) > 0.85 * RATE


def test_both_parts_of_a_cut_segment_have_its_mark() -> None:
    """A router's word cuts what is in flight into pieces, some of which lie in new slots; then it comes through in one
    piece after all."""
    line = Line()
    line.run(2_000_000)
    bw, stack = line.bbr.bw, line.stack
    first = stack.info(line.conn).snd_una
    quoted = Segment(HERE4, PEER4, 80, 5000, first, line.peer.iss + 1, 0x10, 0, Options(), bytes(SMSS))
    stack.input(icmp_error(quoted, 3, 4, 1000))
    while not stack.counters.retransmission_timeouts:  # the router is believed when nothing comes any more
        stack.output()
        stack.advance(1000)
    lib.native_spoil_marks(stack.native, line.bbr, stack.now_us)
    cut = [s for s in stack.output() if s.data]
    assert cut
    assert all(len(s.data) < 1000 for s in cut)
    first -= line.peer.irs
    line.peer.send("A", ack=first % 2**32 + len(cut[0].data))
    stack.now_us += 2 * RTT_US
    line.peer.send("A", ack=first % 2**32 + SMSS)  # the other part, which was never sent alone
    assert 0 < max(line.bbr.max_bw) <= bw


def test_a_new_connection_of_another_control_measures_nothing() -> None:
    stack, peer = established(tx_slots=256)
    stack.send(peer.conn, bytes(5000))
    stack.output()
    assert lib.native_bbr(stack.native, peer.conn) == ffi.NULL
