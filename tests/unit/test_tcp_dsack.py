"""D-SACK (RFC 2883): what came twice is reported, and what the peer reports undoes a needless reduction (RFC 3708)."""

import pytest
from tcp_talk import Options, Peer, Stack, established
from test_tcp_rack import RTT, SMSS, blocks, flight, pattern, seqs

MS = 1000


def reported(peer: Peer) -> list[tuple[int, int]]:
    """The blocks of the stack's next ACK, as the peer's own relative numbers."""
    s = peer.expect("A")
    return [((a - peer.iss) % 2**32, (b - peer.iss) % 2**32) for a, b in s.options.sack]


def receiver(sack: bool = True) -> tuple[Stack, Peer]:
    """A connection on which bytes 1 to 100 have arrived and are acknowledged."""
    stack, peer = established(options=Options(mss=SMSS, sack_ok=sack))
    peer.send("A", pattern(100))
    stack.advance(50 * MS)
    peer.expect("A")
    return stack, peer


def test_a_full_duplicate_is_reported_once() -> None:
    """RFC 2883 4.1."""
    stack, peer = receiver()
    peer.send("A", pattern(100), seq=1)
    assert reported(peer) == [(1, 101)]
    peer.send("A", b"y", seq=301)
    assert reported(peer) == [(301, 302)]
    assert stack.recv(peer.conn) == pattern(100)


def test_a_partial_duplicate_is_reported() -> None:
    """RFC 2883 4.2: the part that was received before."""
    stack, peer = receiver()
    peer.send("A", pattern(150)[50:], seq=51)
    stack.advance(50 * MS)
    s = peer.expect("A", ack=151)
    assert [((a - peer.iss) % 2**32, (b - peer.iss) % 2**32) for a, b in s.options.sack] == [(51, 101)]


def test_a_duplicate_above_a_hole_comes_with_its_block() -> None:
    """RFC 2883 4.1: the second block is the one that holds it."""
    _, peer = receiver()
    peer.send("A", b"a" * 100, seq=201)
    assert reported(peer) == [(201, 301)]
    peer.send("A", b"a" * 50, seq=201)
    assert reported(peer) == [(201, 251), (201, 301)]


def test_a_full_data_segment_has_no_room_so_an_ack_tells() -> None:
    """RFC 2883 4: the report is not lost because the ACK rides on data."""
    stack, peer = receiver()
    stack.send(peer.conn, pattern(SMSS))
    peer.send("A", pattern(100), seq=1)
    peer.expect("A", SMSS)
    assert reported(peer) == [(1, 101)]


def test_without_sack_nothing_is_reported_or_held() -> None:
    stack, peer = receiver(sack=False)
    peer.send("A", pattern(100), seq=1)
    assert reported(peer) == []
    stack.recv(peer.conn)
    stack.output()
    assert stack.usage["extensions"] == 0


def test_numbers_that_were_never_in_the_window_are_not_reported() -> None:
    stack, peer = receiver()
    peer.send("A", b"old", seq=-(2**29))
    peer.collect()
    assert all(not s.options.sack for s in peer.queue)
    stack.recv(peer.conn)
    stack.output()
    assert stack.usage["extensions"] == 0


def needless(stack: Stack, peer: Peer) -> int:
    """Segment 0 is judged lost and sent again; returns cwnd before that."""
    cwnd = int(stack.info(peer.conn).cwnd_bytes)
    peer.send("A", options=blocks(peer, (1, 4)))
    assert seqs(peer)[0] == 0
    assert stack.info(peer.conn).cwnd_bytes < cwnd
    return cwnd


def test_a_needless_retransmission_is_undone() -> None:
    """RFC 3708 3: the only retransmission is reported as a duplicate; cwnd is what it was."""
    stack, peer = flight(10)
    cwnd = needless(stack, peer)
    peer.send("A", ack=1 + 10 * SMSS)
    assert stack.info(peer.conn).cwnd_bytes < cwnd
    peer.send("A", ack=1 + 10 * SMSS, options=blocks(peer, (0, 1)))
    assert stack.info(peer.conn).cwnd_bytes >= cwnd


def test_a_report_within_recovery_counts_at_its_end() -> None:
    """RFC 3708 3: in recovery nothing is undone yet."""
    stack, peer = flight(10)
    cwnd = needless(stack, peer)
    peer.send("A", ack=1 + 4 * SMSS)
    peer.send("A", ack=1 + 4 * SMSS, options=blocks(peer, (0, 1)))
    assert stack.info(peer.conn).cwnd_bytes < cwnd
    resent = seqs(peer)
    peer.send("A", ack=1 + 10 * SMSS)
    for segment in (s for s in resent if s < 10):
        peer.send("A", ack=1 + 10 * SMSS, options=blocks(peer, (segment, segment + 1)))
    assert stack.info(peer.conn).cwnd_bytes >= cwnd


def test_one_real_loss_is_enough() -> None:
    """RFC 3708 3: all retransmissions must have been needless."""
    stack, peer = flight(10)
    cwnd = int(stack.info(peer.conn).cwnd_bytes)
    peer.send("A", options=blocks(peer, (2, 8)))
    assert seqs(peer)[:2] == [0, 1]
    peer.send("A", ack=1 + 10 * SMSS)
    peer.send("A", ack=1 + 10 * SMSS, options=blocks(peer, (0, 1)))
    assert stack.info(peer.conn).cwnd_bytes < cwnd


@pytest.mark.parametrize(("begin", "end"), [(-3, -2), (-1, 0), (10, 11)])
def test_reports_of_something_else_undo_nothing(begin: int, end: int) -> None:
    stack, peer = flight(10)
    cwnd = needless(stack, peer)
    peer.send("A", ack=1 + 10 * SMSS)
    peer.send("A", ack=1 + 10 * SMSS, options=blocks(peer, (begin, end)))
    assert stack.info(peer.conn).cwnd_bytes < cwnd


def test_what_the_undoing_needs_is_given_back_in_time() -> None:
    stack, peer = flight(10)
    needless(stack, peer)
    peer.send("A", ack=1 + 10 * SMSS)
    stack.output()
    assert stack.usage["extensions"] == 1
    stack.advance(stack.info(peer.conn).rto_us + 1 * MS)
    assert stack.usage["extensions"] == 0
    peer.silent()


def test_a_d_sack_widens_the_reordering_window() -> None:
    """RFC 8985 6.2 step 4: from a quarter of the smallest round trip to a half."""
    stack, peer = flight(10)
    needless(stack, peer)
    peer.send("A", ack=1 + 10 * SMSS)
    stack.send(peer.conn, pattern(6 * SMSS))
    assert seqs(peer) == [10, 11, 12, 13, 14]
    peer.send("A", ack=1 + 10 * SMSS, options=blocks(peer, (0, 1)))
    assert seqs(peer) == [15]
    stack.advance(RTT)
    peer.send("A", ack=1 + 10 * SMSS, options=blocks(peer, (11, 12)))
    stack.advance(RTT // 4 + 2 * MS)
    assert seqs(peer) == []
    stack.advance(RTT // 4 + 2 * MS)
    assert seqs(peer) == [10]


def recover(stack: Stack, peer: Peer, first: int) -> None:
    """Two segments, of which the first is lost, and sent again when the widest window is over."""
    stack.send(peer.conn, pattern(2 * SMSS))
    assert seqs(peer) == [first, first + 1]
    stack.advance(RTT)
    peer.send("A", ack=1 + first * SMSS, options=blocks(peer, (first + 1, first + 2)))
    assert seqs(peer) == []
    stack.advance(RTT)
    assert seqs(peer) == [first]
    peer.send("A", ack=1 + (first + 2) * SMSS)


@pytest.mark.parametrize(("recoveries", "wide"), [(15, True), (16, False)])
def test_the_reordering_window_is_as_before_after_sixteen_recoveries(recoveries: int, wide: bool) -> None:
    """RFC 8985 6.2 step 4: without another D-SACK the window's growth is forgotten."""
    stack, peer = flight(10)
    needless(stack, peer)
    peer.send("A", ack=1 + 10 * SMSS)
    stack.send(peer.conn, pattern(SMSS))
    assert seqs(peer) == [10]
    peer.send("A", ack=1 + 10 * SMSS, options=blocks(peer, (0, 1)))
    stack.advance(RTT)
    peer.send("A", ack=1 + 11 * SMSS)
    end = 11 + 2 * recoveries
    for first in range(11, end, 2):
        recover(stack, peer, first)
    stack.send(peer.conn, pattern(2 * SMSS))
    assert seqs(peer) == [end, end + 1]
    stack.advance(RTT)
    peer.send("A", ack=1 + end * SMSS, options=blocks(peer, (end + 1, end + 2)))
    assert seqs(peer) == []
    stack.advance(RTT // 4 + 2 * MS)
    assert seqs(peer) == ([] if wide else [end])
