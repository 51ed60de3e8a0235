"""Urgent data, RFC 9293 3.8.5 and RFC 6093: what is told of it on receipt, and what is sent."""

import errno

import pytest

from tests.unit.tcp_talk import FLAG_BITS, Options, Peer, Segment, Stack, established

MS = 1000


# --- receiving ---


def urgent(peer: Peer, data: bytes, up: int, **kwargs: int) -> None:
    segment = peer.segment("AU", data, **kwargs)
    segment.up = up
    peer.stack.input(segment.build())


def test_urgent_segments_are_counted_and_their_data_is_in_line() -> None:
    stack, peer = established()
    peer.send("AU", b"now")
    assert peer.read() == b"now"
    assert stack.counters.urgent_segments == 1


def test_the_user_is_told_of_urgent_data_and_learns_where_it_ends() -> None:
    """Once, and again when the pointer moves on: MUST-32 and MUST-33 of RFC 9293 3.8.5."""
    stack, peer = established()
    urgent(peer, b"abc", up=5)
    assert stack.events() == [(peer.conn, {"readable", "urgent"})]
    assert stack.info(peer.conn).urgent_bytes == 5, "two have not come yet"
    peer.seq += 3
    urgent(peer, b"de", up=2)
    assert stack.events() == [(peer.conn, {"readable"})], "it says the same"
    assert stack.recv(peer.conn, 4) == b"abcd"
    assert stack.info(peer.conn).urgent_bytes == 1
    peer.seq += 2
    urgent(peer, b"f", up=1)
    assert stack.events() == [(peer.conn, {"readable", "urgent"})]
    assert stack.info(peer.conn).urgent_bytes == 2
    assert stack.recv(peer.conn) == b"ef"
    assert stack.info(peer.conn).urgent_bytes == 0


def test_urgent_data_is_told_of_before_what_is_missing_has_come() -> None:
    stack, peer = established()
    urgent(peer, b"def", up=3, seq=peer.seq + 3)
    assert stack.events() == [(peer.conn, {"urgent"})]
    assert stack.info(peer.conn).urgent_bytes == 6
    peer.send("A", b"abc")
    peer.seq += 3
    peer.send("FA")
    assert stack.info(peer.conn).urgent_bytes == 6, "FIN does not count"
    urgent(peer, b"", up=60_000)
    assert stack.info(peer.conn).urgent_bytes == 6, "nor is there anything behind it"


@pytest.mark.parametrize("up", [0, 1, 3])
def test_a_pointer_at_what_was_read_is_no_news(up: int) -> None:
    stack, peer = established()
    peer.send("A", b"abc")
    assert peer.read() == b"abc"
    stack.events()
    urgent(peer, b"", up=up, seq=peer.seq - 3)
    urgent(peer, b"", up=0)
    assert stack.events() == []
    assert stack.info(peer.conn).urgent_bytes == 0


def test_urgent_data_is_told_of_behind_a_closed_window() -> None:
    """MUST-66 of RFC 9293 3.10.7.4; its text has to come again."""
    stack, peer = established(rcv_buf_bytes=4096, rcv_buf_max_bytes=4096)
    for _ in range(4):
        peer.send("A", bytes(1024))
    stack.output()
    assert stack.info(peer.conn).rcv_wnd == 0
    stack.events()
    urgent(peer, b"now", up=3)
    assert stack.events() == [(peer.conn, {"urgent"})]
    assert stack.info(peer.conn).urgent_bytes == 4096 + 3
    urgent(peer, b"", up=10)
    assert stack.events() == [(peer.conn, {"urgent"})]
    assert stack.info(peer.conn).unread_bytes == 4096


# --- sending ---


def pointer(peer: Peer, segment: Segment) -> int | None:
    """The end of urgent data as the segment says it, in relative numbers; None: it says nothing."""
    return (segment.seq + segment.up - (peer.irs or 0)) % 2**32 if segment.flags & FLAG_BITS["U"] else None


def fast_sender(v6: bool = False) -> tuple[Stack, Peer]:
    """A connection whose window and cwnd have room for more than a pointer can reach."""
    stack = Stack(tx_slots=1024, snd_buf_bytes=1 << 20, snd_buf_max_bytes=1 << 20)
    peer = Peer(stack, v6=v6)
    stack.listen()
    peer.open(Options(mss=1000, wscale=7))
    while stack.info(peer.conn).cwnd_bytes < 120_000:
        stack.send(peer.conn, bytes(stack.info(peer.conn).cwnd_bytes))
        for segment in stack.output():
            peer.ack = (segment.seq + len(segment.data) - (peer.irs or 0)) % 2**32
            peer.send("A")
    return stack, peer


@pytest.mark.parametrize("v6", [False, True])
def test_a_pointer_that_does_not_reach_grows_with_what_is_sent(v6: bool) -> None:
    stack, peer = fast_sender(v6)
    first = peer.ack
    assert stack.send_urgent(peer.conn, bytes(100_000)) == 100_000
    sent = stack.output()
    assert [(s.seq - (peer.irs or 0)) % 2**32 for s in sent] == list(range(first, first + 100_000, 1000))
    for i, segment in enumerate(sent):
        assert pointer(peer, segment) == min(first + 1000 * i + 65535, first + 100_000)


def test_what_is_sent_again_names_no_octet_that_is_not_urgent() -> None:
    """The peer may hold the octet that the pointer's largest value reaches, and would take it for the urgent one."""
    stack, peer = fast_sender()
    first = peer.ack
    stack.send(peer.conn, bytes(99_999))
    stack.output()
    stack.send_urgent(peer.conn, b"!")
    (urgent_segment,) = stack.output()
    assert pointer(peer, urgent_segment) == first + 100_000
    stack.advance(3000 * MS)
    (again,) = stack.output()
    assert (again.seq - (peer.irs or 0)) % 2**32 == first
    assert pointer(peer, again) is None
    peer.send("A", ack=first + 40_000)
    for segment in stack.output():
        assert pointer(peer, segment) == first + 100_000


def test_nothing_is_urgent_any_more_when_it_is_acknowledged() -> None:
    """Neither for Nagle's algorithm, nor for probes, behind which an ACK would say it again."""
    stack, peer = established()
    stack.send_urgent(peer.conn, b"!")
    peer.expect("AU", b"!")
    stack.send(peer.conn, b"a")
    peer.expect("A", b"a")
    peer.send("A", ack=2)
    stack.send(peer.conn, b"b")
    peer.silent()
    peer.send("A", ack=3, wnd=0)
    peer.silent()
    stack.advance(1500 * MS)
    peer.expect("A", seq=2)
    peer.silent()


def test_who_cannot_send_cannot_send_urgent_data() -> None:
    stack, peer = established()
    assert stack.send_urgent(peer.conn, b"") == 0
    peer.silent()
    stack.shutdown(peer.conn)
    peer.expect("FA")
    assert stack.send_urgent(peer.conn, b"!") == -errno.EPIPE
    peer.send("R")
    assert stack.send_urgent(peer.conn, b"!") == -errno.ECONNRESET


def test_what_finds_no_room_is_not_urgent_yet() -> None:
    stack, peer = established(snd_buf_bytes=4096, snd_buf_max_bytes=4096)
    peer.send("A", wnd=0)
    assert stack.send(peer.conn, bytes(5000)) == 4096
    peer.silent()
    assert stack.send_urgent(peer.conn, b"!") == 0
    peer.silent()
