"""Limits by time and by number: slow peers while slots are short, challenge ACKs of all connections, R1, a path MTU
that is tried again."""

import errno

import pytest
from _tcp import lib

from tests.unit.tcp_talk import FLAG_BITS, Options, Peer, Stack, established, icmp_error
from tests.unit.test_tcp_open import connect

MS = 1000
SLOTS = 64


def hogs_of(stack: Stack, first: Peer, count: int = 12) -> list[Peer]:
    """Connections whose data waits, of peers with a window of 100 bytes."""
    hogs = [first, *(established(stack, port=5001 + i)[1] for i in range(count - 1))]
    for hog in hogs:
        hog.send("A", wnd=100)
        stack.send(hog.conn, bytes(200_000))
    return hogs


def trickle(stack: Stack, hogs: list[Peer], seconds: int, window: int, step_ms: int = 500) -> None:
    """Each takes as much as its window in each step, and says so."""
    for _ in range(seconds * 1000 // step_ms):
        stack.advance(step_ms * MS)
        for hog in hogs:
            hog.collect()
            if not hog.queue:
                hog.send("A", wnd=window)
            while hog.queue:
                segment = hog.queue.pop(0)
                if segment.flags & 4:
                    return
                end = (segment.seq - (hog.irs or 0)) % 2**32 + len(segment.data)
                hog.ack = max(hog.ack, end)
            if stack.error(hog.conn) == 0:
                hog.send("A", wnd=window)


def test_peers_that_take_next_to_nothing_do_not_keep_slots_that_others_need() -> None:
    stack, first = established(tx_slots=SLOTS, conn_max=32, extension_max=32)
    hogs = hogs_of(stack, first)
    newcomer = established(stack, port=6000)[1]
    assert stack.send(newcomer.conn, bytes(2000)) < 2000, "the pool is short"
    trickle(stack, hogs, 9, window=100)
    assert stack.counters.persist_resets == 0, "not within seconds"
    trickle(stack, hogs, 15, window=100)
    assert 0 < stack.counters.persist_resets < len(hogs), "as many as it takes"
    assert errno.ENOBUFS in {stack.error(hog.conn) for hog in hogs}
    assert stack.send(newcomer.conn, bytes(2000)) == 2000


def test_slow_readers_that_read_are_kept() -> None:
    stack, first = established(tx_slots=SLOTS, conn_max=32, extension_max=32)
    hogs = hogs_of(stack, first, 6)
    trickle(stack, hogs, 40, window=700)  # 1,400 bytes/s
    assert stack.counters.persist_resets == 0


def test_a_tiny_window_alone_is_served() -> None:
    stack, peer = established(tx_slots=SLOTS)
    hogs = hogs_of(stack, peer, 1)
    trickle(stack, hogs, 60, window=100)
    assert stack.counters.persist_resets == 0
    assert stack.error(peer.conn) == 0


def test_a_peer_that_is_not_heard_may_have_opened_its_window() -> None:
    """It has the time of a slow one, whoever needs slots, and not much more."""
    stack, first = established(tx_slots=SLOTS, conn_max=32, extension_max=32)
    hogs = [first, *(established(stack, port=5001 + i)[1] for i in range(20))]
    for hog in hogs:
        hog.send("A", wnd=0)
        stack.send(hog.conn, bytes(200_000))
    for seconds, any_resets in ((9, False), (30, True)):
        for _ in range(seconds * 10):
            stack.advance(100 * MS)
            stack.output()
        assert (stack.counters.persist_resets != 0) == any_resets


@pytest.mark.parametrize("window", [0, 24])
def test_a_window_that_is_taken_back_does_not_keep_slots_that_others_need(window: int) -> None:
    """What was sent into it is dropped, each retransmission is answered: so does a kernel whose memory is full."""
    stack, first = established(tx_slots=SLOTS, conn_max=32, extension_max=32)
    hogs = [first, *(established(stack, port=5001 + i)[1] for i in range(12))]
    for hog in hogs:
        stack.send(hog.conn, bytes(4 * stack.info(hog.conn).smss))
        hog.collect()
        assert any(segment.data for segment in hog.queue), "it is in flight"
    newcomer = established(stack, port=6000)[1]
    wanted = bytes(8 * stack.info(newcomer.conn).smss)
    assert stack.send(newcomer.conn, wanted) < len(wanted), "the pool is short"
    for _ in range(300):
        for hog in hogs:
            hog.collect()
            if hog.queue and not any(segment.flags & FLAG_BITS["R"] for segment in hog.queue):
                hog.send("A", wnd=window)
            hog.queue.clear()
        stack.advance(100 * MS)
    assert 0 < stack.counters.persist_resets < len(hogs), "as many as it takes"
    assert errno.ENOBUFS in {stack.error(hog.conn) for hog in hogs}
    assert stack.send(newcomer.conn, bytes(2000)) == 2000


# --- challenge ACKs ---


def many(count: int, **config: int) -> tuple[Stack, list[Peer]]:
    stack = Stack(conn_max=count, half_open_max=count, **config)
    assert stack.listen() == 0
    peers = [Peer(stack, 5000 + i) for i in range(count)]
    for peer in peers:
        peer.open()
    return stack, peers


def challenges(stack: Stack, peers: list[Peer]) -> int:
    before = stack.counters.challenge_acks
    for peer in peers:
        peer.send("R", seq=50)
        stack.output()
    return int(stack.counters.challenge_acks - before)


def test_challenge_acks_of_all_connections_have_a_budget_that_nobody_can_count() -> None:
    stack, peers = many(64, challenge_acks=20)
    counts = set()
    for _ in range(12):
        counts.add(challenges(stack, peers))
        stack.advance(1000 * MS)
    assert min(counts) >= 10
    assert max(counts) <= 30
    assert len(counts) > 3, "it is another one each second"


def test_keepalive_probes_of_all_peers_are_answered_whatever_the_budget() -> None:
    _, peers = many(64, challenge_acks=20)
    for peer in peers:
        peer.send("A", seq=peer.seq - 1)
        peer.expect("A")


def test_half_open_connections_are_within_the_budget() -> None:
    stack = Stack(half_open_max=200, challenge_acks=20)
    stack.listen()
    for port in range(5000, 5060):
        peer = Peer(stack, port)
        peer.send("S", options=Options(mss=1000))
        peer.expect("SA")
        peer.send("R", seq=50)
    assert 10 <= stack.counters.challenge_acks <= 30


# --- R1 ---


def test_the_user_hears_of_three_timeouts_in_a_row() -> None:
    stack, peer = established()
    stack.send(peer.conn, b"hello")
    stack.output()
    told = 0
    for _ in range(20):
        stack.advance(500 * MS)
        stack.output()
        told += sum("stalled" in kinds for _, kinds in stack.events())
        if stack.info(peer.conn).timeouts < 3:
            assert told == 0
        assert stack.info(peer.conn).stalled == (told == 1)
    assert told == 1
    assert stack.counters.stalls == 1
    assert 9000 <= stack.info(peer.conn).stalled_ms <= 10_000
    peer.send("A", ack=6)
    assert stack.state(peer.conn) == "ESTABLISHED"
    assert not stack.info(peer.conn).stalled
    assert stack.info(peer.conn).stalled_ms == 0


def test_three_timeouts_with_progress_between_them_are_no_stall() -> None:
    """The time-out stays long, by Karn's algorithm, and yet nothing is sent three times."""
    stack, peer = established()
    stack.send(peer.conn, bytes(1460 * 8))
    for part in range(1, 5):
        for _ in range(2):
            timeouts = stack.info(peer.conn).timeouts
            while stack.info(peer.conn).timeouts == timeouts:
                stack.advance(100 * MS)
                stack.output()
        peer.send("A", ack=1 + 1460 * part)
        stack.output()
        assert not stack.info(peer.conn).stalled
    assert stack.counters.stalls == 0


def test_so_it_does_of_a_syn() -> None:
    stack = Stack()
    connect(stack, Peer(stack))
    for _ in range(20):
        stack.advance(500 * MS)
        stack.output()
    assert {"stalled"} in [kinds for _, kinds in stack.events()]


def test_a_closed_window_is_no_stall() -> None:
    stack, peer = established()
    peer.send("A", wnd=0)
    stack.send(peer.conn, b"hello")
    for _ in range(60):
        stack.advance(500 * MS)
        peer.collect()
        peer.queue.clear()
        peer.send("A", wnd=0)
    assert stack.counters.stalls == 0


# --- the path MTU, ten minutes later ---


@pytest.mark.thorough
@pytest.mark.parametrize("fits", [True, False])
def test_the_former_size_is_tried_again_ten_minutes_after_a_routers_word(fits: bool) -> None:
    stack, peer = established(tx_slots=256, snd_buf_bytes=65536)
    stack.send(peer.conn, bytes(60_000))
    (first, *_) = stack.output()
    assert len(first.data) == 1460
    stack.input(icmp_error(first, 3, 4, 1240))
    assert stack.info(peer.conn).smss == 1200

    def a_round() -> list[int]:
        stack.advance(500 * MS)
        sizes = []
        for segment in stack.output():
            sizes.append(len(segment.data))
            at = (segment.seq - (peer.irs or 0)) % 2**32
            if len(segment.data) > 1200 and not fits:
                stack.input(icmp_error(segment, 3, 4, 1240))
            elif at <= peer.ack:
                peer.ack = max(peer.ack, at + len(segment.data))
        stack.send(peer.conn, bytes(60_000))
        peer.send("A")
        return sizes

    for _ in range(1100):  # 550 s
        assert max(a_round(), default=0) <= 1200
    sizes = [size for _ in range(200) for size in a_round()]
    assert sizes.count(1460) >= 1
    if fits:
        assert stack.info(peer.conn).smss == 1460
        assert stack.counters.pmtu_raises == 1
    else:
        assert stack.info(peer.conn).smss == 1200
        assert sizes.count(1460) <= 3, "and then not before another ten minutes"
    assert lib.tcp_unacked(stack.tcp, peer.conn) > 0


def small_segments(stack: Stack, peer: Peer) -> None:
    """A router says 1,240; all arrives in segments of 1,200, and the connection is idle."""
    stack.send(peer.conn, bytes(2920))
    (first, *_) = stack.output()
    stack.input(icmp_error(first, 3, 4, 1240))
    stack.output()
    peer.send("A", ack=2921)
    stack.advance(5000 * MS)
    assert stack.info(peer.conn).smss == 1200
    assert stack.usage["extensions"] == 0


@pytest.mark.parametrize("seconds", [500, 700])
def test_who_was_idle_tries_the_former_size_with_the_next_data(seconds: int) -> None:
    stack, peer = established()
    small_segments(stack, peer)
    stack.advance(seconds * 1000 * MS)
    stack.send(peer.conn, bytes(2920))
    assert len(stack.output()[0].data) == (1460 if seconds > 600 else 1200)
    peer.send("A", ack=5321)
    assert stack.info(peer.conn).smss == (1460 if seconds > 600 else 1200)


def test_a_former_size_is_nothing_to_who_has_the_row_afterwards() -> None:
    stack, peer = established()
    small_segments(stack, peer)
    peer.send("R")
    stack.events()
    stack.close(peer.conn)
    stack.advance(700 * 1000 * MS)
    other = established(stack, Options(mss=1000), port=5001)[1]
    assert other.conn == peer.conn
    stack.send(other.conn, bytes(2920))
    assert [len(segment.data) for segment in stack.output()] == [1000, 1000, 920]
