"""RACK-TLP (RFC 8985): losses told by time, tails probed; with SACK only."""

import pytest
from tcp_talk import Options, Peer, Stack, established

MS = 1000
SMSS = 1460
RTT = 40 * MS


def pattern(n: int) -> bytes:
    return bytes(i * 7 % 251 for i in range(n))


def seqs(peer: Peer) -> list[int]:
    """Relative segment numbers of all that is sent now."""
    peer.collect()
    out = [((s.seq - peer.irs) % 2**32 - 1) // SMSS for s in peer.queue]  # type: ignore[operator]
    peer.queue.clear()
    return out


def flight(segments: int, sack: bool = True, ts: bool = False) -> tuple[Stack, Peer]:
    """This many segments on the way, sent one round trip ago, on a connection whose round trip is known."""
    options = Options(mss=SMSS + 12 * ts, sack_ok=sack, ts=(1000, 0) if ts else None)
    stack, peer = established(options=options, tx_slots=256, mtu=1500 + 12 * ts)
    stack.send(peer.conn, b"x")
    peer.expect("A", b"x")
    stack.now_us += RTT
    peer.send("A")
    peer.irs = (peer.irs or 0) + 1  # numbers of segments count from here
    peer.ack = 1
    stack.send(peer.conn, pattern(segments * SMSS))
    assert seqs(peer) == list(range(segments))
    stack.advance(RTT)
    return stack, peer


def blocks(peer: Peer, *segments: tuple[int, int]) -> Options:
    base = (peer.irs or 0) + 1
    return Options(sack=[(base + a * SMSS, base + b * SMSS) for a, b in segments])


def test_a_reordering_window_without_three_sacks() -> None:
    """RFC 8985 6.2 step 5: fewer than DupThresh SACKed, so a quarter of the smallest round trip is waited."""
    stack, peer = flight(3)
    peer.send("A", options=blocks(peer, (1, 2)))
    assert seqs(peer) == []
    stack.advance(RTT // 4 - 1 * MS)
    assert seqs(peer) == []
    stack.advance(2 * MS)
    assert seqs(peer) == [0]
    assert stack.counters.fast_retransmits == 1
    assert stack.counters.retransmission_timeouts == 0


def test_three_sacks_need_no_window() -> None:
    """RFC 8985 6.2 step 4: DupThresh segments SACKed and no reordering seen, the window is 0."""
    _, peer = flight(5)
    peer.send("A", options=blocks(peer, (1, 4)))
    assert seqs(peer) == [0]


def test_reordering_seen_keeps_the_window() -> None:
    """RFC 8985 6.2 steps 3 and 4: after an original came late, three SACKs do not do away with the window."""
    stack, peer = flight(10)
    peer.send("A", options=blocks(peer, (1, 3)))
    peer.send("A", ack=1 + 3 * SMSS)  # 0 has come after 1 and 2
    assert stack.counters.fast_retransmits == 0
    peer.send("A", ack=1 + 3 * SMSS, options=blocks(peer, (4, 8)))
    assert seqs(peer) == []
    peer.send("A", ack=1 + 8 * SMSS)
    stack.advance(RTT)
    assert stack.counters.retransmitted_segments == 0


def test_all_that_was_sent_before_is_lost_at_once() -> None:
    """RFC 8985 6.2 step 5: every segment sent before the delivered one, not only those below three SACKs."""
    stack, peer = flight(10)
    peer.send("A", options=blocks(peer, (9, 10), (7, 8), (5, 6)))
    assert seqs(peer) == [
        0,
        1,
        2,
        3,
    ]  # and 4, 6 and 8, but PRR lets out three delivered and one more (RFC 6937)
    peer.send("A", ack=1 + SMSS, options=blocks(peer, (9, 10), (7, 8), (5, 6)))
    assert seqs(peer) == [4, 6]
    assert stack.counters.fast_retransmits == 1


def test_a_lost_retransmission_is_found() -> None:
    """RFC 8985 3.1: what was sent after the retransmission has come, so the retransmission is lost too; no timeout."""
    stack, peer = flight(10)
    peer.send("A", options=blocks(peer, (1, 4)))
    assert seqs(peer) == [0]
    stack.send(peer.conn, pattern(4 * SMSS))
    stack.advance(1 * MS)
    peer.send("A", options=blocks(peer, (1, 10)))
    assert seqs(peer)[:2] == [10, 11]
    stack.advance(RTT)
    peer.send("A", options=blocks(peer, (1, 12)))
    assert seqs(peer)[0] == 0
    assert stack.counters.retransmission_timeouts == 0
    peer.send("A", ack=1 + 12 * SMSS)


def test_the_ack_of_the_original_says_nothing_of_the_retransmission() -> None:
    """RFC 8985 6.2 step 2: by TSecr the ACK is of the first transmission, which RACK.rtt must not be taken from."""
    stack, peer = flight(4, ts=True)
    peer.send("A", options=blocks(peer, (1, 4)))
    assert seqs(peer) == [0]
    tsecr = peer.tsecr
    stack.advance(3 * MS)
    stack.send(peer.conn, pattern(2 * SMSS))
    seqs(peer)
    stack.advance(1 * MS)
    peer.tsecr = tsecr
    peer.send("A", ack=1 + 4 * SMSS)
    seqs(peer)
    stack.advance(RTT // 2)
    assert seqs(peer) == []
    assert stack.counters.retransmitted_segments == 1


def test_tail_loss_probe_repairs_without_a_timeout() -> None:
    """RFC 8985 7.3: after two round trips the last segment goes again; its SACK shows what else is lost."""
    stack, peer = flight(4)
    stack.advance(RTT - 1 * MS)
    assert seqs(peer) == []
    stack.advance(4 * MS)
    assert seqs(peer) == [3]
    cwnd = stack.info(peer.conn).cwnd_bytes
    stack.advance(RTT)
    peer.send("A", options=blocks(peer, (3, 4)))
    stack.advance(RTT)
    assert seqs(peer) == [0, 1]  # half the window
    assert stack.counters.retransmission_timeouts == 0
    assert stack.counters.fast_retransmits == 1
    assert stack.info(peer.conn).cwnd_bytes < cwnd
    peer.send("A", ack=1 + SMSS, options=blocks(peer, (3, 4)))
    assert seqs(peer) == [2]
    peer.send("A", ack=1 + 4 * SMSS)
    assert stack.native.tx_used == 0


def test_probe_prefers_new_data() -> None:
    """RFC 8985 7.3: a new segment that the peer's window takes, though cwnd is full."""
    stack, peer = flight(10)
    stack.send(peer.conn, pattern(2 * SMSS))
    assert seqs(peer) == []
    stack.advance(2 * RTT)
    assert seqs(peer) == [10]
    assert stack.counters.retransmitted_segments == 0
    stack.advance(RTT)
    assert seqs(peer) == []  # one probe only
    peer.send("A", ack=1 + 11 * SMSS)
    assert seqs(peer) == [11]


def test_probe_within_the_peers_window_only() -> None:
    """RFC 8985 7.3: the window takes no new segment, so the last one goes again."""
    stack, peer = flight(4)
    peer.send("A", ack=1 + SMSS, wnd=3 * SMSS)
    stack.send(peer.conn, pattern(2 * SMSS))
    assert seqs(peer) == []
    stack.advance(2 * RTT + 3 * MS)
    assert seqs(peer) == [3]


def test_a_single_segment_waits_for_a_delayed_ack() -> None:
    """RFC 8985 7.2: with one segment in flight the peer's delayed ACK is allowed for, and RTO is the latest time."""
    stack, peer = flight(1)
    rto_us = stack.info(peer.conn).rto_us
    stack.advance(3 * RTT)
    assert seqs(peer) == []
    stack.advance(rto_us - 4 * RTT + 1 * MS)
    assert seqs(peer) == [0]
    assert stack.counters.retransmission_timeouts == 0  # the probe came in its place: cwnd stays
    stack.advance(rto_us + 1 * MS)
    assert seqs(peer) == [0]
    assert stack.counters.retransmission_timeouts == 1


def test_probe_carries_fin() -> None:
    """RFC 8985 7.3: the highest sequence number that was sent is FIN's."""
    stack, peer = flight(2)
    stack.shutdown(peer.conn)
    peer.expect("FA", seq=1 + 2 * SMSS)
    stack.advance(2 * RTT + 3 * MS)
    peer.expect("FA", SMSS, seq=1 + SMSS)
    peer.send("A", ack=2 + 2 * SMSS)
    assert stack.state(peer.conn) == "FIN_WAIT_2"


@pytest.mark.parametrize("second", [True, False], ids=["both came", "the first was lost"])
def test_a_loss_that_the_probe_repaired_is_congestion(second: bool) -> None:
    """RFC 8985 7.4: an ACK beyond the probe without word of the second copy: there was a loss, cwnd answers it."""
    stack, peer = flight(10)
    stack.advance(2 * RTT)
    assert seqs(peer) == [9]
    peer.send("A", ack=1 + 10 * SMSS)
    cwnd = stack.info(peer.conn).cwnd_bytes
    if second:
        peer.send("A", ack=1 + 10 * SMSS, options=blocks(peer, (9, 10)))  # D-SACK
    stack.send(peer.conn, pattern(10 * SMSS))
    assert seqs(peer) == list(range(10, 20))
    stack.advance(RTT)
    peer.send("A", ack=1 + 20 * SMSS)
    assert (stack.info(peer.conn).cwnd_bytes >= cwnd) == second
    assert stack.counters.retransmission_timeouts == 0


def test_no_probe_without_sack() -> None:
    """RFC 8985 7.2: SACK is a condition; and RACK is not used."""
    stack, peer = flight(4, sack=False)
    stack.advance(2 * RTT)
    assert seqs(peer) == []
    stack.advance(400 * MS)
    assert seqs(peer)[0] == 0
    assert stack.counters.retransmission_timeouts == 1


def test_an_idle_connection_holds_nothing_for_it() -> None:
    stack, peer = flight(2)
    stack.advance(2 * RTT)
    assert seqs(peer) == [1]
    peer.send("A", ack=1 + 2 * SMSS)
    stack.output()
    assert stack.usage["extensions"] == 0
    stack.abort(peer.conn)
    stack.output()
    assert stack.is_empty()
