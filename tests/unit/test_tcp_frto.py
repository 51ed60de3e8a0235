"""F-RTO (RFC 5682): a timeout that was spurious is noticed, and nothing is sent twice for it."""

import pytest
from tcp_talk import Peer, Stack
from test_tcp_rack import RTT, SMSS, flight, pattern, seqs

MS = 1000
SACK = pytest.mark.parametrize("sack", [True, False], ids=["SACK", "plain"])


def timed_out(sack: bool, fresh: int = 4) -> tuple[Stack, Peer, int]:
    """Ten segments are on the way, some more are waiting, and the timer has fired; also returns cwnd before."""
    stack, peer = flight(10, sack)
    cwnd = int(stack.info(peer.conn).cwnd_bytes)
    stack.advance(stack.info(peer.conn).rto_us - RTT + 1 * MS)
    if sack:  # the tail loss probe came before
        assert seqs(peer) == [9]
        stack.advance(stack.info(peer.conn).rto_us + 1 * MS)
    assert seqs(peer) == [0]
    assert stack.counters.retransmission_timeouts == 1
    assert stack.info(peer.conn).cwnd_bytes == SMSS
    stack.send(peer.conn, pattern(fresh * SMSS))
    assert seqs(peer) == []
    return stack, peer, cwnd


@SACK
def test_a_spurious_timeout_is_undone(sack: bool) -> None:
    """RFC 5682 2.1 steps 2b and 3b: two ACKs of new data; the second is of what was sent once."""
    stack, peer, cwnd = timed_out(sack)
    peer.send("A", ack=1 + SMSS)
    assert seqs(peer) == [10, 11]
    peer.send("A", ack=1 + 2 * SMSS)
    assert stack.info(peer.conn).cwnd_bytes >= cwnd
    assert stack.counters.spurious_timeouts == 1
    assert seqs(peer) == []
    peer.send("A", ack=1 + 12 * SMSS)
    assert seqs(peer) == [12, 13]
    assert stack.counters.retransmitted_segments == 1 + sack


@SACK
def test_an_ack_of_all_after_new_data_is_proof_too(sack: bool) -> None:
    """RFC 5682 2.1 step 3b, with an ACK beyond what was in flight at the timeout."""
    stack, peer, cwnd = timed_out(sack)
    peer.send("A", ack=1 + SMSS)
    assert seqs(peer) == [10, 11]
    peer.send("A", ack=1 + 12 * SMSS)
    assert stack.counters.spurious_timeouts == 1
    assert stack.info(peer.conn).cwnd_bytes >= cwnd


def test_a_duplicate_ack_ends_it() -> None:
    """RFC 5682 2.1 step 2a: the ordinary way, and the first segment is not sent a third time."""
    stack, peer, _ = timed_out(False)
    peer.send("A")
    assert 0 not in seqs(peer)
    peer.send("A", ack=1 + SMSS)
    assert seqs(peer) == [1, 2]
    assert stack.counters.spurious_timeouts == 0


def test_a_duplicate_ack_after_new_data_ends_it() -> None:
    """RFC 5682 2.1 step 3a: cwnd is three segments, and what was in flight at the timeout is sent again."""
    stack, peer, _ = timed_out(False)
    peer.send("A", ack=1 + SMSS)
    assert seqs(peer) == [10, 11]
    peer.send("A", ack=1 + SMSS)
    assert stack.info(peer.conn).cwnd_bytes == 3 * SMSS
    assert seqs(peer)[0] == 1
    assert stack.counters.spurious_timeouts == 0
    peer.send("A", ack=1 + 12 * SMSS)
    peer.collect()
    peer.send("A", ack=1 + 14 * SMSS)
    assert stack.native.tx_used == 0


@SACK
def test_without_new_data_nothing_can_be_told(sack: bool) -> None:
    """RFC 5682 2.1 step 2b: no new data, the ordinary way."""
    stack, peer, _ = timed_out(sack, fresh=0)
    peer.send("A", ack=1 + SMSS)
    assert seqs(peer) == [1, 2]
    assert stack.counters.spurious_timeouts == 0


def test_the_peers_window_bounds_new_data() -> None:
    """RFC 5682 2.1 step 2b: the receiver's window takes no new segment."""
    _, peer, _ = timed_out(False)
    peer.send("A", ack=1, wnd=10 * SMSS)
    peer.send("A", ack=1 + SMSS, wnd=9 * SMSS)
    assert seqs(peer) == [1, 2]


@SACK
def test_a_second_timeout_is_believed(sack: bool) -> None:
    """RFC 5682 2.1 step 1: not again before what was in flight at the first timeout is acknowledged."""
    stack, peer, _ = timed_out(sack)
    stack.advance(stack.info(peer.conn).rto_us + 1 * MS)
    assert seqs(peer) == [0]
    peer.send("A", ack=1 + SMSS)
    assert seqs(peer) == [1, 2]
    assert stack.counters.spurious_timeouts == 0


def test_an_ack_of_a_part_tells_nothing() -> None:
    """RFC 5682 2.1 step 2: the retransmission itself is acknowledged in part only."""
    stack, peer, _ = timed_out(False)
    peer.send("A", ack=1 + 100)
    peer.send("A", ack=1 + SMSS)
    peer.send("A", ack=1 + 2 * SMSS)
    assert stack.counters.spurious_timeouts == 0
