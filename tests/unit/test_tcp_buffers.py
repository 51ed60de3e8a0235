"""Buffers that grow with the path: the receive window, and what may wait to be sent."""

import pytest
from _tcp import lib
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.tcp_talk import Options, Peer, Stack, established

MS = 1000
MSS = 1000
START, LIMIT = 32 * 1024, 128 * 1024
TRIP_US = 100 * MS


def receiving(ts: bool = True, **config: int) -> tuple[Stack, Peer]:
    config = {"rcv_buf_bytes": START, "rcv_buf_max_bytes": LIMIT, "rx_slots": 1024, **config}
    return established(options=Options(mss=MSS, wscale=7, ts=(1, 0) if ts else None), **config)


def buffer(stack: Stack, peer: Peer) -> int:
    return int(stack.info(peer.conn).rcv_buf_bytes)


def batch(stack: Stack, peer: Peer, segments: int, read: bool = True) -> None:
    """Full segments that come at once; the user reads, the ACK goes out."""
    for _ in range(segments):
        assert peer.send("A", bytes(MSS - 12 if peer.ts else MSS)) == "none"
    if read:
        peer.read()
    peer.collect()
    peer.queue.clear()


def window_full(stack: Stack, peer: Peer) -> None:
    """One round trip of a sender that only the window holds back."""
    segments = int(stack.info(peer.conn).rcv_wnd) // MSS
    for first in range(0, segments, 8):
        batch(stack, peer, min(8, segments - first))
    stack.advance(TRIP_US)


@pytest.mark.parametrize("ts", [False, True])
def test_the_window_doubles_while_it_is_what_holds_the_sender_back(ts: bool) -> None:
    stack, peer = receiving(ts)
    assert buffer(stack, peer) == START
    sizes = []
    for _ in range(12):
        window_full(stack, peer)
        sizes.append(buffer(stack, peer))
    assert sizes == sorted(sizes)
    assert set(sizes) == {START, 2 * START, LIMIT}, "by doubling, up to the limit"
    assert stack.info(peer.conn).rcv_wnd > LIMIT - 2 * MSS, "and it is offered"


def test_it_stays_when_the_path_is_the_limit() -> None:
    stack, peer = receiving()
    for _ in range(200):  # two segments in 20 ms are less than a window in 100 ms
        batch(stack, peer, 2)
        stack.advance(20 * MS)
    assert buffer(stack, peer) <= 2 * START, "the first round trips may be misjudged once"
    before = buffer(stack, peer)
    for _ in range(200):
        batch(stack, peer, 2)
        stack.advance(20 * MS)
    assert buffer(stack, peer) == before


def test_it_stays_when_the_user_lags() -> None:
    stack, peer = receiving()
    for _ in range(12):
        batch(stack, peer, int(stack.info(peer.conn).rcv_wnd) // MSS, read=False)
        stack.advance(TRIP_US)
        stack.recv(peer.conn, START // 3)
        peer.collect()
        peer.queue.clear()
    assert buffer(stack, peer) == START


def test_it_shrinks_when_slots_are_short_but_never_takes_back_what_was_offered() -> None:
    stack, peer = receiving(rx_slots=300)
    for _ in range(10):
        window_full(stack, peer)
    assert buffer(stack, peer) == LIMIT
    for i in range(4):
        stack.events()
        hog = Peer(stack, 5001 + i)
        hog.open(Options(mss=MSS, wscale=7))
        for _ in range(15):
            batch(stack, hog, 2, read=False)
    assert stack.usage["rx_slots_held"] == 120
    edge = stack.info(peer.conn).rcv_nxt + stack.info(peer.conn).rcv_wnd
    for _ in range(4):
        window_full(stack, peer)
        info = stack.info(peer.conn)
        assert (info.rcv_nxt + info.rcv_wnd - edge) % 2**32 < 2**31
        edge = info.rcv_nxt + info.rcv_wnd
    assert buffer(stack, peer) < LIMIT


def test_no_more_is_offered_than_the_pool_lets_one_connection_hold() -> None:
    stack, peer = receiving(rx_slots=100)
    for _ in range(4):
        window_full(stack, peer)
    offered = stack.info(peer.conn).rcv_wnd // MSS
    assert 20 < offered < LIMIT // MSS
    for _ in range(offered // 2):
        batch(stack, peer, 2, read=False)
    assert stack.usage["rx_slots_held"] == offered // 2 * 2


def test_a_buffer_that_is_given_alone_is_fixed() -> None:
    stack, peer = receiving(rcv_buf_max_bytes=0)
    for _ in range(12):
        window_full(stack, peer)
    assert buffer(stack, peer) == START


def test_without_window_scaling_it_ends_at_what_the_field_can_say() -> None:
    stack, peer = established(
        options=Options(mss=MSS), rcv_buf_bytes=START, rcv_buf_max_bytes=1 << 20, rx_slots=1024
    )
    for _ in range(12):
        window_full(stack, peer)
    assert stack.info(peer.conn).rcv_wnd > 65535 - 2 * MSS
    assert buffer(stack, peer) <= 4 * START


def test_the_extension_of_a_receiver_goes_back_after_an_rto() -> None:
    stack, peer = receiving()
    window_full(stack, peer)
    assert stack.usage["extensions"] == 1
    stack.advance(1100 * MS)
    assert stack.usage["extensions"] == 0
    grown = buffer(stack, peer)
    window_full(stack, peer)
    assert buffer(stack, peer) == grown, "what was learned stays with the connection"


def test_out_of_order_segments_are_held_as_far_as_the_window_goes() -> None:
    stack, peer = established(options=Options(mss=MSS, wscale=7, sack_ok=True), rx_slots=1024)
    batch(stack, peer, 2)
    hole = peer.seq
    peer.seq += MSS
    for _ in range(240):
        assert peer.send("A", bytes(MSS)) == "none"
    peer.send("A", bytes(MSS), seq=hole)
    assert len(peer.read()) == 241 * MSS


def test_tiny_segments_out_of_order_stay_few() -> None:
    _, peer = established(options=Options(mss=MSS, wscale=7, sack_ok=True), rx_slots=1024)
    results = [peer.send("A", b"x", seq=2 + i) for i in range(300)]
    assert results.count("none") == 100
    assert results.count("reassembly_full") == 200


# --- sending ---


def test_what_may_wait_follows_the_congestion_window() -> None:
    stack, peer = established(
        options=Options(mss=MSS, wscale=7),
        snd_buf_bytes=START,
        snd_buf_max_bytes=LIMIT,
        tx_slots=1024,
    )
    peer.wnd = 8000
    assert stack.send(peer.conn, bytes(1 << 20)) == START
    seen = []
    for _ in range(40):
        peer.collect()
        peer.queue.clear()
        peer.ack = (stack.info(peer.conn).snd_nxt - (peer.irs or 0)) % 2**32
        stack.advance(10 * MS)
        peer.send("A")
        stack.send(peer.conn, bytes(1 << 20))
        info = stack.info(peer.conn)
        queued = lib.tcp_unacked(stack.tcp, peer.conn)
        assert queued <= info.snd_buf_bytes == min(LIMIT, max(START, 2 * info.cwnd_bytes))
        seen.append(queued)
    assert max(seen) > LIMIT - 2 * MSS, "up to the limit"


def test_a_send_buffer_that_is_given_alone_is_fixed() -> None:
    stack, peer = established(options=Options(mss=MSS, wscale=7), snd_buf_bytes=START, tx_slots=1024)
    peer.wnd = 8000
    for _ in range(8):
        stack.send(peer.conn, bytes(1 << 20))
        assert lib.tcp_unacked(stack.tcp, peer.conn) <= START
        peer.collect()
        peer.queue.clear()
        peer.ack = (stack.info(peer.conn).snd_nxt - (peer.irs or 0)) % 2**32
        peer.send("A")


@given(st.data())
def test_what_was_sacked_in_any_order_is_not_sent_again(data: st.DataObject) -> None:
    stack, peer = established(
        options=Options(mss=MSS, wscale=7, sack_ok=True), snd_buf_bytes=1 << 16, tx_slots=128
    )
    peer.wnd = 8000
    stack.send(peer.conn, bytes(40 * MSS))
    while (flight := stack.info(peer.conn).flight_bytes // MSS) < 24:
        peer.collect()
        peer.queue.clear()
        end = (stack.info(peer.conn).snd_nxt - (peer.irs or 0)) % 2**32
        if end - peer.ack >= 24 * MSS:
            break
        peer.ack += MSS
        peer.send("A")
        stack.send(peer.conn, bytes(2 * MSS))
    first, held = peer.ack, set()
    edges = st.integers(1, flight - 1)
    for _ in range(data.draw(st.integers(1, 8))):
        pairs = data.draw(st.lists(st.tuples(edges, edges), min_size=1, max_size=3))
        blocks = [(min(p), max(p) + 1) for p in pairs]
        for low, high in blocks:
            held |= set(range(low, high))
        irs = peer.irs or 0
        options = Options(sack=[(irs + first + a * MSS, irs + first + b * MSS) for a, b in blocks])
        peer.send("A", options=options)
    again = set()
    for _ in range(80):
        stack.advance(50 * MS)
        peer.collect()
        for segment in peer.queue:
            at, left = divmod((segment.seq - (peer.irs or 0)) % 2**32 - first, MSS)
            again |= {at} if left == 0 and at < flight else set()
        peer.queue.clear()
    assert not again & held
    assert 0 in again


def test_who_asks_again_is_not_told_of_what_was_acknowledged_before() -> None:
    stack, peer = established()
    lib.tcp_want_sent_all(stack.tcp, peer.conn)
    stack.send(peer.conn, b"more")
    lib.tcp_want_sent_all(stack.tcp, peer.conn)
    assert stack.events() == []
    peer.expect("A", b"more")
    peer.send("A")
    assert stack.events() == [(peer.conn, {"sent_all"})]


def test_a_read_is_told_of_only_if_the_field_can_say_more() -> None:
    """A window in units of 16 KiB: an ACK for each read of a little would say what the last one said."""
    stack = Stack(window_scale=14, rcv_buf_bytes=65536, rx_slots=512)
    assert stack.listen() == 0
    peer = Peer(stack)
    peer.open(Options(mss=1460, wscale=0))
    for _ in range(48):
        peer.send("A", bytes(1000))
    peer.collect()
    edges = [peer.queue[-1].ack + (peer.queue[-1].wnd << 14)]
    peer.queue.clear()
    for _ in range(96):
        stack.recv(peer.conn, 500)
        peer.collect()
        edges += [told.ack + (told.wnd << 14) for told in peer.queue]
        peer.queue.clear()
    assert edges == sorted(set(edges)), "each says more than the one before"
    assert 2 <= len(edges) <= 5


def test_what_fills_a_hole_is_taken_when_all_slots_are_held_by_what_waits_behind_holes() -> None:
    """Else nobody's hole could ever be filled; what waited behind it is given up (RFC 2018 8), and comes again."""
    stack, first = established(rx_slots=64, conn_max=32, extension_max=32)
    peers = [first, *(established(stack, port=5001 + i)[1] for i in range(1, 20))]
    for step in range(8):
        for peer in peers:
            peer.send("A", b"x", seq=peer.seq + 10 + step)
    assert stack.dropped("no_room") > 0
    while stack.usage["rx_slots_held"] < 48:  # three quarters are all that may be held
        peers.append(established(stack, port=5001 + len(peers))[1])
        assert peers[-1].send("A", b"x", seq=peers[-1].seq + 10) == "none"
    for peer in peers:
        assert peer.send("A", b"0123456789") == "none"
        assert stack.recv(peer.conn)[:10] == b"0123456789"
    assert stack.usage["rx_slots_held"] < 48
    peer = peers[0]
    assert peer.send("A", b"x" * 8) == "none"
    assert stack.recv(peer.conn).endswith(b"x")
