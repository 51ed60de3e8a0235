"""Losses: timeouts, fast retransmit with and without SACK, Karn, and what forged ACKs cannot do."""

import errno

import pytest
from _tcp import ffi, lib
from tcp_talk import Options, Peer, Stack, established

MS = 1000
SMSS = 1460


def pattern(n: int) -> bytes:
    return bytes(i * 7 % 251 for i in range(n))


def seqs(peer: Peer) -> list[int]:
    """Relative segment numbers of all that is sent now."""
    peer.collect()
    out = [((s.seq - peer.irs) % 2**32 - 1) // SMSS for s in peer.queue]  # type: ignore[operator]
    peer.queue.clear()
    return out


def flight(segments: int = 10, sack: bool = False, **config: int) -> tuple[Stack, Peer]:
    """A connection with an RTT of 50 ms measured and this many segments on the way, all unacknowledged."""
    stack, peer = established(options=Options(mss=SMSS, sack_ok=sack), tx_slots=256, **config)
    stack.send(peer.conn, b"x")
    peer.expect("A", b"x")
    stack.now_us += 50 * MS
    peer.send("A")
    peer.irs = (peer.irs or 0) + 1  # numbers of segments count from here
    peer.ack = 1
    stack.send(peer.conn, pattern(segments * SMSS))
    return stack, peer


def test_timeout_backs_off_and_resumes() -> None:
    stack, peer = flight(3)
    assert seqs(peer) == [0, 1, 2]
    rto_ms = stack.info(peer.conn).rto_us // 1000
    assert 249 <= rto_ms <= 251
    gaps = []
    last = stack.now_us
    while len(gaps) < 4:
        stack.advance(1 * MS)
        if again := seqs(peer):
            assert again == [0]  # RFC 6298 5.4: the first, and cwnd is one segment
            gaps.append((stack.now_us - last) // MS)
            last = stack.now_us
    assert gaps == [rto_ms * 2**i for i in range(4)]
    smss = stack.info(peer.conn).smss
    assert smss < SMSS  # perhaps it was too large for the path: RFC 4821 7.7
    assert stack.info(peer.conn).cwnd_bytes == smss
    assert stack.counters.retransmission_timeouts == 4
    peer.send("A", ack=1 + SMSS)
    assert seqs(peer) == [1, 1]  # slow start, the second segment in its two parts
    peer.send("A", ack=1 + 3 * SMSS)
    assert stack.native.tx_used == 0
    assert stack.info(peer.conn).srtt_us == 50 * MS  # Karn: no sample of what was sent twice


def test_a_connection_counts_what_it_sends_again_and_remembers_it_when_idle() -> None:
    stack, peer = flight(1)
    start = stack.info(peer.conn).snd_una
    assert (seqs(peer), stack.info(peer.conn).retransmits) == ([0], 0)
    for times in range(1, 4):
        while not seqs(peer):
            stack.advance(1 * MS)
        assert stack.info(peer.conn).retransmits == times == stack.counters.retransmitted_segments
    peer.send("A", ack=1 + SMSS)
    stack.advance(100_000 * MS)
    assert stack.usage["extensions"] == 0, "it is idle"
    assert stack.info(peer.conn).retransmits == 3
    assert stack.info(peer.conn).snd_una != start
    stack.send(peer.conn, b"y")
    assert stack.info(peer.conn).retransmits == 3
    peer.collect()
    while stack.info(peer.conn).retransmits == 3:
        stack.advance(1 * MS)
        peer.collect()
    assert stack.info(peer.conn).retransmits == 4


def test_an_idle_connection_remembers_no_more_than_4095() -> None:
    """Beyond, what is counted since data was in flight is exact, and the row's address is untouched."""
    stack, peer = flight(1)
    seqs(peer)
    acked = 1 + SMSS
    peer.send("A", ack=acked)
    for _ in range(4200):
        stack.send(peer.conn, b"z")
        peer.collect()
        stack.advance(stack.info(peer.conn).rto_us + 10 * MS)
        peer.collect()
        acked += 1
        peer.send("A", ack=acked)
    assert stack.counters.retransmitted_segments == 4200
    assert stack.info(peer.conn).retransmits == 4095
    stack.send(peer.conn, b"z")
    for _ in range(3):
        peer.collect()
        stack.advance(stack.info(peer.conn).rto_us + 10 * MS)
    peer.collect()
    assert stack.info(peer.conn).retransmits == 4098
    peer.send("A", ack=acked + 1)
    stack.advance(100_000 * MS)
    assert stack.info(peer.conn).retransmits == 4095
    peer.queue.clear()
    stack.send(peer.conn, b"w")
    peer.expect("A", b"w")


@pytest.mark.parametrize(
    ("late_ms", "echo_first", "sampled"),
    [
        pytest.param(60, False, True, id="echo of the last copy"),
        pytest.param(200, True, False, id="echo of the first copy, whose ACK was lost"),
        pytest.param(20, True, True, id="echo of the first copy, too soon to be of the last"),
    ],
)
def test_what_an_echo_of_a_segment_sent_twice_tells(late_ms: int, echo_first: bool, sampled: bool) -> None:
    stack, peer = established(options=Options(mss=SMSS, ts=(1000, 0)))
    stack.send(peer.conn, b"x")
    peer.expect("A", b"x")
    stack.now_us += 50 * MS
    peer.send("A")
    srtt_us = stack.info(peer.conn).srtt_us
    stack.send(peer.conn, b"hello")
    first = peer.expect("A", b"hello").options.ts
    stack.advance(300 * MS)  # beyond RTO: a second copy
    peer.collect()
    last = peer.queue[-1].options.ts
    peer.queue.clear()
    assert first is not None
    assert last is not None
    stack.now_us += late_ms * MS
    peer.tsecr = first[0] if echo_first else last[0]
    peer.send("A")
    info = stack.info(peer.conn)
    assert (info.srtt_us != srtt_us) == sampled
    assert (info.rto_us == info.srtt_us + max(4 * info.rttvar_us, 200 * MS)) == sampled  # else backed off


def test_a_round_trip_longer_than_rto_is_learned_without_timestamps() -> None:
    stack, peer = flight(1)  # RTO is 250 ms
    copies = []
    for number in range(4):
        copies.append(0)
        for _ in range(900):
            stack.advance(1 * MS)
            copies[-1] += len(seqs(peer))
        peer.send("A", ack=1 + (number + 1) * SMSS)
        stack.send(peer.conn, pattern(SMSS))
    assert copies[0] > 1
    assert copies[-1] == 1  # RFC 6298 5.7: backoff lasts until a segment is sent but once, and is measured
    assert stack.info(peer.conn).srtt_us > 100 * MS


def test_a_peer_that_is_gone_times_out() -> None:
    stack, peer = flight(1)
    stack.output()
    start = stack.now_us
    while stack.state(peer.conn) == "ESTABLISHED":
        stack.advance(1000 * MS)
        stack.output()
    assert stack.now_us - start >= 100_000 * MS  # RFC 9293 3.8.3: R2
    assert stack.events()[-1] == (peer.conn, {"stalled", "error"})
    assert stack.error(peer.conn) == errno.ETIMEDOUT
    assert stack.send(peer.conn, b"x") == -errno.ETIMEDOUT
    stack.close(peer.conn)
    assert stack.is_empty()


@pytest.mark.parametrize("cc", [lib.TCP_CC_CUBIC, lib.TCP_CC_NEWRENO], ids=["CUBIC", "NewReno"])
def test_fast_retransmit_after_three_duplicates(cc: int) -> None:
    stack, peer = flight(10, congestion_control=cc)
    assert seqs(peer) == list(range(10))
    stack.send(peer.conn, pattern(4 * SMSS))
    peer.send("A")
    assert seqs(peer) == [10]  # limited transmit, RFC 3042
    peer.send("A")
    assert seqs(peer) == [11]
    peer.send("A")
    assert seqs(peer) == [0]
    assert stack.counters.fast_retransmits == 1
    info = stack.info(peer.conn)
    assert info.ssthresh_bytes in range(5 * SMSS, 9 * SMSS)
    for _ in range(9):
        peer.send("A")
    assert 0 not in seqs(peer)
    peer.send("A", ack=1 + 12 * SMSS)
    assert stack.counters.fast_retransmits == 1
    assert stack.counters.retransmission_timeouts == 0


def test_newreno_repairs_one_hole_per_round_trip() -> None:
    stack, peer = flight(10)
    seqs(peer)
    peer.send("A", ack=1 + SMSS)  # 0 arrived; 1, 3 and 5 are lost
    for _ in range(6):
        peer.send("A", ack=1 + SMSS)
    assert seqs(peer) == [1]
    peer.send("A", ack=1 + 3 * SMSS)
    assert seqs(peer) == [3]
    peer.send("A", ack=1 + 5 * SMSS)
    assert seqs(peer) == [5]
    peer.send("A", ack=1 + 10 * SMSS)
    assert seqs(peer) == []
    assert stack.counters.retransmitted_segments == 3
    assert stack.counters.retransmission_timeouts == 0
    assert stack.native.tx_used == 0


def blocks(peer: Peer, *segments: tuple[int, int]) -> Options:
    base = (peer.irs or 0) + 1
    return Options(sack=[(base + a * SMSS, base + b * SMSS) for a, b in segments])


def test_sack_repairs_all_holes_in_one_round_trip() -> None:
    stack, peer = flight(10, sack=True)
    assert seqs(peer) == list(range(10))
    stack.now_us += 50 * MS
    peer.send("A", options=blocks(peer, (1, 2)))
    peer.send("A", options=blocks(peer, (1, 2), (3, 4)))
    assert seqs(peer) == []
    peer.send("A", options=blocks(peer, (5, 6), (1, 2), (3, 4)))
    assert seqs(peer) == [0]
    peer.send("A", options=blocks(peer, (5, 8), (1, 2), (3, 4)))
    peer.send("A", options=blocks(peer, (5, 10), (1, 2), (3, 4)))
    assert seqs(peer) == [2, 4]
    peer.send("A", ack=1 + 10 * SMSS)
    assert stack.counters.retransmitted_segments == 3
    assert stack.counters.fast_retransmits == 1
    assert stack.native.tx_used == 0


def test_sack_alone_starts_recovery() -> None:
    stack, peer = flight(10, sack=True)
    seqs(peer)
    peer.send("A", options=blocks(peer, (1, 5)))  # the ACKs between were lost
    assert seqs(peer) == [0]
    assert stack.counters.fast_retransmits == 1


def test_a_lost_retransmission_is_left_to_the_timer() -> None:
    stack, peer = flight(6, sack=True)
    seqs(peer)
    stack.now_us += 50 * MS
    peer.send("A", options=blocks(peer, (1, 4)))
    assert seqs(peer) == [0]
    peer.send("A", options=blocks(peer, (1, 6)))
    assert seqs(peer) == []
    stack.advance(300 * MS)
    assert seqs(peer) == [0]
    peer.send("A", ack=1 + 6 * SMSS)
    assert stack.native.tx_used == 0


def test_after_a_timeout_what_was_sacked_is_not_sent_again() -> None:
    stack, peer = flight(4, sack=True)
    seqs(peer)
    peer.send("A", options=blocks(peer, (1, 2)))
    stack.advance(300 * MS)
    assert seqs(peer) == [0]
    peer.send("A", ack=1 + 2 * SMSS)
    assert seqs(peer) == [2, 3]


def test_a_peer_that_takes_back_its_sack() -> None:
    stack, peer = flight(4, sack=True)
    seqs(peer)
    peer.send("A", options=blocks(peer, (1, 4)))
    assert seqs(peer) == [0]
    peer.send("A", ack=1 + SMSS)  # with 1 to 3 forgotten, RFC 2018 8
    stack.advance(300 * MS)
    assert seqs(peer) == [1]
    peer.send("A", ack=1 + 2 * SMSS)
    assert seqs(peer) == [2, 3]
    peer.send("A", ack=1 + 4 * SMSS)
    assert stack.native.tx_used == 0


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (-1, 1),
        (0, 1),
        (0, 0),
        (5, 4),
        (1, 11),
        (10, 12),
        (11, 12),
        (1 - 2**31, 1),
        (1, 1 + 2**31),
        (2**31, 2**31 + 1),
    ],
)
def test_sack_blocks_out_of_bounds_count_for_nothing(begin: int, end: int) -> None:
    stack, peer = flight(10, sack=True)
    seqs(peer)
    base = (peer.irs or 0) + 1
    for _ in range(2):
        peer.send("A", options=Options(sack=[(base + begin * SMSS % 2**32, base + end * SMSS % 2**32)]))
        assert seqs(peer) == []
    peer.send("A", ack=1 + 10 * SMSS)
    assert stack.native.tx_used == 0


def test_a_sack_block_at_snd_una_lets_nothing_follow() -> None:
    """More waits than cwnd has room for, and would go out if a segment counted as delivered."""
    peer = flight(40, sack=True)[1]
    assert len(seqs(peer)) < 40
    base = (peer.irs or 0) + 1
    for _ in range(2):
        peer.send("A", options=Options(sack=[(base, base + SMSS)]))
        assert seqs(peer) == []


def test_acks_of_what_was_never_sent_change_nothing() -> None:
    stack, peer = flight(10)
    seqs(peer)
    before = stack.info(peer.conn)
    assert peer.send("A", ack=1 + 11 * SMSS) == "bad_ack"
    peer.expect("A")  # RFC 5961 5: one answer
    for _ in range(100):
        assert peer.send("A", ack=1 + 11 * SMSS) == "bad_ack"
    assert peer.send("A", ack=-70_000) == "bad_ack"
    peer.silent()
    after = stack.info(peer.conn)
    assert (after.cwnd_bytes, after.snd_una) == (before.cwnd_bytes, before.snd_una)


def test_split_acks_grow_cwnd_by_bytes() -> None:
    stack, peer = flight(10)
    seqs(peer)
    before = stack.info(peer.conn).cwnd_bytes
    for i in range(SMSS):
        peer.send("A", ack=2 + i)
    assert stack.info(peer.conn).cwnd_bytes <= before + 2 * SMSS  # RFC 3465


def test_partial_acknowledgment_of_a_segment() -> None:
    stack, peer = flight(2)
    seqs(peer)
    peer.send("A", ack=1 + 100)
    stack.advance(300 * MS)
    peer.expect("A", pattern(2 * SMSS)[100:SMSS], seq=101)
    peer.send("A", ack=1 + 2 * SMSS)
    assert stack.native.tx_used == 0


def test_old_acks_do_not_move_the_window() -> None:
    stack, peer = flight(3)
    seqs(peer)
    peer.send("A", ack=1 + 2 * SMSS, wnd=5000)
    assert peer.send("A", ack=1 + SMSS, wnd=100) == "none"
    assert stack.info(peer.conn).snd_wnd == 5000


def test_timestamps_measure_retransmissions() -> None:
    stack, peer = established(options=Options(mss=SMSS, ts=(1000, 0)))
    stack.send(peer.conn, b"hello")
    first = peer.expect("A", b"hello")
    stack.advance(1_000 * MS)
    again = peer.expect("A", b"hello", seq=1)
    assert first.options.ts is not None
    assert again.options.ts is not None
    assert again.options.ts[0] - first.options.ts[0] == 1000
    stack.now_us += 70 * MS
    peer.send("A")
    assert 60_000 <= stack.info(peer.conn).srtt_us <= 80_000


def test_fin_is_sent_again() -> None:
    stack, peer = flight(1)
    stack.shutdown(peer.conn)
    peer.expect("FA", SMSS, seq=1)
    peer.send("A", ack=1 + SMSS)
    stack.advance(300 * MS)
    peer.expect("FA", seq=1 + SMSS)
    peer.send("A", ack=2 + SMSS)
    assert stack.state(peer.conn) == "FIN_WAIT_2"
    stack.advance(5_000 * MS)
    peer.silent()


def test_data_and_fin_are_both_lost() -> None:
    stack, peer = flight(1)
    stack.shutdown(peer.conn)
    seqs(peer)
    stack.advance(300 * MS)
    peer.expect("FA", SMSS, seq=1)
    peer.silent()
    peer.send("A", ack=2 + SMSS)
    assert stack.state(peer.conn) == "FIN_WAIT_2"


def test_an_idle_window_is_kept_for_five_minutes() -> None:
    stack, peer = flight(10)
    seqs(peer)
    peer.send("A", ack=1 + 10 * SMSS)
    grown = stack.info(peer.conn).cwnd_bytes
    assert grown > 10 * SMSS
    for idle_s, cwnd in ((290, grown), (310, 10 * SMSS)):  # RFC 7661 4.4.2
        stack.advance(idle_s * 1000 * MS)
        stack.send(peer.conn, b"x")
        stack.output()
        assert stack.info(peer.conn).cwnd_bytes == cwnd
        peer.collect()
        peer.send("A", ack=stack.info(peer.conn).snd_nxt - peer.irs)


@pytest.mark.parametrize("sack", [False, True], ids=["plain", "SACK"])
def test_everything_arrives_over_a_bad_link(sack: bool) -> None:
    stack, peer = flight(0, sack=sack, snd_buf_bytes=65536)
    data = pattern(400_000)
    held: dict[int, bytes] = {}
    sent = at = count = 0
    for _ in range(20_000):
        if sent < len(data):
            sent += stack.send(peer.conn, data[sent:])
        for s in stack.output():
            count += 1
            if count % 7 != 3 and count % 50 > 4:
                held[(s.seq - peer.irs - 1) % 2**32] = s.data  # type: ignore[operator]
        moved = True
        while moved:
            moved = False
            for begin, part in list(held.items()):
                if begin <= at < begin + len(part):
                    assert data[begin : begin + len(part)] == part
                    at = begin + len(part)
                    moved = True
                if begin + len(part) <= at:
                    del held[begin]
        base = (peer.irs or 0) + 1
        sacks = [(base + b, base + b + len(p)) for b, p in list(held.items())[-3:]] if sack else []
        peer.send("A", ack=1 + at, options=Options(sack=sacks))
        if at == len(data):
            break
        stack.advance(10 * MS)
    assert at == len(data)
    assert stack.native.tx_used == 0


def test_rebase_moves_what_is_held_and_goes_on() -> None:
    stack, peer = flight(3, sack=True)
    seqs(peer)
    peer.send("A", b"read me")
    peer.send("A", b"later", seq=100)
    peer.send("A", b"later still", seq=200)
    seqs(peer)
    stack.send(peer.conn, b"unsent")
    lib.native_rebase(stack.native, 1000, stack.now_us, 100_000)
    lib.tcp_check(stack.tcp)
    assert stack.usage["tx_slots_held"] == stack.native.tx_used == 4
    assert stack.usage["rx_slots_held"] == stack.native.rx_used == 3
    assert peer.read() == b"read me"
    stack.advance(100 * MS)
    assert seqs(peer) == [0]
    peer.send("A", ack=1 + 3 * SMSS)
    peer.expect("A", b"unsent")
    peer.send("A", pattern(1000)[peer.seq : 100], seq=peer.seq)
    peer.send("A", b"." * 95, seq=105)
    assert peer.read().endswith(b"later" + b"." * 95 + b"later still")
    peer.send("A")
    stack.close(peer.conn)


@pytest.mark.parametrize("moves", [0, 1, 3, 4, 5])
def test_rebase_ends_what_cannot_move(moves: int) -> None:
    stack, peer = flight(3)
    seqs(peer)
    peer.send("A", b"read me")
    peer.send("A", b"later", seq=100)
    lib.native_rebase(stack.native, moves, stack.now_us, 0)
    lib.tcp_check(stack.tcp)
    if moves < 4:
        assert stack.error(peer.conn) == errno.ENOBUFS
        peer.expect("RA", ack=8)
        assert (stack.native.tx_used, stack.native.rx_used) == (0, 0)
        stack.close(peer.conn)
        stack.events()
        assert stack.is_empty()
        return
    assert stack.usage["rx_slots_held"] == stack.native.rx_used == moves - 3  # out of order may be forgotten
    assert peer.read() == b"read me"


def test_rebase_with_many_connections_spreads_the_load() -> None:
    stack = Stack(conn_max=64, extension_max=64, tx_slots=256)
    stack.listen()
    peers = [Peer(stack, port) for port in range(1, 41)]
    for peer in peers:
        peer.open()
        stack.send(peer.conn, b"hello")
    stack.output()
    lib.native_rebase(stack.native, 1000, stack.now_us, 1_000_000)
    bursts = []
    for _ in range(10):
        stack.advance(100 * MS)
        bursts.append(len(stack.output()))
    assert sum(bursts) >= 40
    assert max(bursts) <= 10
    assert stack.native.rows != ffi.NULL
