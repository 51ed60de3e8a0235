"""Closing connections: FIN in every order, half-close, RST, TIME-WAIT, and what is left behind."""

import errno

import pytest
from _tcp import lib
from tcp_talk import Options, Peer, Stack, established

MS = 1000


def closed_by_peer_first() -> tuple[Stack, Peer]:
    stack, peer = established()
    peer.send("FA")
    peer.expect("A", ack=1 + 1)
    assert stack.state(peer.conn) == "CLOSE_WAIT"
    return stack, peer


def in_time_wait(options: Options | None = None, **config: int) -> tuple[Stack, Peer]:
    stack, peer = established(options=options, **config)
    stack.close(peer.conn)
    peer.expect("FA", seq=1)
    peer.send("FA")
    peer.expect("A", seq=2)
    assert stack.usage["conns"] == 0
    assert stack.usage["time_wait"] == 1
    return stack, peer


def test_active_close() -> None:
    stack, peer = established()
    stack.shutdown(peer.conn)
    peer.expect("FA", seq=1)
    assert stack.state(peer.conn) == "FIN_WAIT_1"
    assert stack.send(peer.conn, b"x") == -errno.EPIPE
    peer.send("A")
    assert stack.state(peer.conn) == "FIN_WAIT_2"
    peer.send("A", b"still sending")  # half-close
    assert peer.read() == b"still sending"
    peer.send("FA")
    peer.expect("A", seq=2)
    assert stack.state(peer.conn) == "TIME_WAIT"
    assert stack.eof(peer.conn)
    stack.close(peer.conn)
    stack.events()
    assert stack.usage["conns"] == 0
    stack.advance(59_000 * MS)
    assert stack.usage["time_wait"] == 1
    stack.advance(1_000 * MS)
    assert stack.is_empty()


def test_passive_close() -> None:
    stack, peer = closed_by_peer_first()
    assert (peer.conn, {"readable"}) in stack.events()
    assert stack.eof(peer.conn)
    stack.send(peer.conn, b"last words")
    stack.close(peer.conn)
    peer.expect("FA", b"last words", seq=1)
    peer.send("A")
    peer.silent()
    assert stack.is_empty()  # LAST-ACK leaves nothing behind


def test_passive_close_keeps_the_row_until_its_user_lets_go() -> None:
    stack, peer = established()
    peer.send("A", b"unread")
    peer.send("FA")
    stack.shutdown(peer.conn)
    peer.expect("FA", seq=1)
    peer.send("A")
    assert stack.state(peer.conn) == "CLOSED"
    assert stack.error(peer.conn) == 0
    assert not stack.eof(peer.conn)
    assert peer.read() == b"unread"
    assert stack.eof(peer.conn)
    stack.close(peer.conn)
    stack.events()
    assert stack.is_empty()


def test_simultaneous_close() -> None:
    stack, peer = established()
    stack.close(peer.conn)
    peer.expect("FA", seq=1)
    peer.send("FA", ack=1)
    peer.expect("A", seq=2, ack=2)
    peer.send("A")
    assert stack.usage["time_wait"] == 1
    assert stack.usage["conns"] == 0
    peer.silent()


def test_simultaneous_close_in_one_batch() -> None:
    stack, peer = established()
    stack.shutdown(peer.conn)
    peer.send("FA")
    assert stack.state(peer.conn) == "CLOSING"
    peer.expect("FA", seq=1)
    peer.send("A")
    assert stack.state(peer.conn) == "TIME_WAIT"


def test_data_then_fin_out_of_order() -> None:
    stack, peer = established()
    peer.send("FA", b"world", seq=6)
    assert stack.state(peer.conn) == "ESTABLISHED"
    peer.expect("A", ack=1)
    peer.send("A", b"hello", seq=1)
    assert peer.read() == b"helloworld"
    assert stack.eof(peer.conn)  # FIN was not forgotten
    peer.expect("A", ack=12)
    assert stack.state(peer.conn) == "CLOSE_WAIT"


def test_fin_before_all_data() -> None:
    stack, peer = established()
    peer.send("FA", seq=4)
    assert stack.state(peer.conn) == "ESTABLISHED"
    peer.expect("A", ack=1)
    peer.send("A", b"one", seq=1)
    assert peer.read() == b"one"
    assert stack.eof(peer.conn)


def test_fin_is_repeated() -> None:
    _, peer = closed_by_peer_first()
    assert peer.send("FA", seq=1) == "out_of_window"
    peer.expect("A", ack=2)


def test_fin_waits_for_queued_data() -> None:
    stack, peer = established()
    peer.send("A", wnd=1000)
    stack.send(peer.conn, b"d" * 1400)
    stack.close(peer.conn)
    peer.expect("A", 1000, seq=1)
    peer.send("A", wnd=5000)
    peer.expect("FA", 400, seq=1001)
    peer.send("FA", ack=1402)
    peer.expect("A", ack=2)
    assert stack.usage["time_wait"] == 1


def test_close_with_unread_data_resets() -> None:
    stack, peer = established()
    peer.send("A", b"unread")
    stack.close(peer.conn)
    peer.expect("RA", seq=1, ack=7)
    stack.events()
    assert stack.is_empty()


def test_data_after_close_is_reset() -> None:
    stack, peer = established()
    stack.close(peer.conn)
    peer.expect("FA")
    assert peer.send("A", b"anybody?") == "after_close"
    peer.expect("RA", seq=2, ack=1)
    assert stack.is_empty()


def test_abort() -> None:
    stack, peer = established()
    stack.send(peer.conn, b"never sent")
    stack.abort(peer.conn)
    peer.expect("RA", seq=1, ack=1)
    stack.events()
    assert stack.is_empty()
    assert stack.counters.resets_sent == 1


def test_abort_waits_for_a_slot() -> None:
    stack, peer = established(tx_slots=8)
    stack.native.tx_limit = 0
    stack.abort(peer.conn)
    peer.silent()
    assert stack.usage["conns"] == 1
    stack.native.tx_limit = 8
    peer.expect("RA", seq=1)
    assert stack.is_empty()


def test_reset_by_the_peer() -> None:
    stack, peer = established()
    stack.send(peer.conn, b"in flight")
    peer.send("A", b"unread")
    stack.events()
    assert peer.send("R") == "none"
    assert stack.events() == [(peer.conn, {"error"})]
    assert stack.error(peer.conn) == errno.ECONNRESET
    assert peer.read() == b""
    assert stack.send(peer.conn, b"x") == -errno.ECONNRESET
    assert stack.counters.connections_reset == 1
    stack.close(peer.conn)
    peer.silent()
    assert stack.is_empty()


@pytest.mark.parametrize(
    ("seq", "reason"),
    [(0, "out_of_window"), (2, "challenged"), (65000, "challenged"), (70000, "out_of_window")],
)
def test_reset_is_believed_at_rcv_nxt_only(seq: int, reason: str) -> None:
    stack, peer = established()
    for _ in range(50):
        assert peer.send("R", seq=seq) == reason
    if reason == "challenged":
        peer.expect("A", seq=1, ack=1)  # one challenge, however many ask (RFC 5961 7)
    peer.silent()
    assert stack.state(peer.conn) == "ESTABLISHED"
    stack.advance(600 * MS)
    if reason == "challenged":
        assert peer.send("R", seq=seq) == reason
        peer.expect("A")


@pytest.mark.parametrize("flags", ["S", "SA"])
@pytest.mark.parametrize("seq", [1, 100, -500_000])
def test_syn_in_a_connection_is_challenged(flags: str, seq: int) -> None:
    stack, peer = established()
    for _ in range(20):
        assert peer.send(flags, seq=seq) in ("challenged", "out_of_window")
    peer.expect("A", seq=1, ack=1)
    peer.silent()
    assert stack.state(peer.conn) == "ESTABLISHED"


def test_segment_without_ack_is_dropped() -> None:
    _, peer = established()
    assert peer.send("", b"data") == "bad_flags"
    peer.silent()


def test_paws() -> None:
    stack, peer = established(options=Options(mss=1460, ts=(1000, 0)))
    peer.ts = 2000
    peer.send("A", b"new")
    peer.ts = 1500
    assert peer.send("A", b"old") == "paws"
    peer.expect("A", ack=4)
    peer.ts = None
    assert peer.send("A", b"none", seq=4) == "no_timestamp"
    peer.silent()
    assert peer.send("R", seq=4) == "none"  # a RST needs no timestamp
    assert stack.error(peer.conn) == errno.ECONNRESET


def test_paws_forgets_after_24_days() -> None:
    stack, peer = established(options=Options(mss=1460, ts=(1000, 0)))
    stack.now_us += 25 * 24 * 3600 * 1_000_000
    lib.tcp_advance(stack.tcp, stack.now_us)
    peer.ts = 500
    assert peer.send("A", b"late") == "none"
    assert peer.read() == b"late"
    stack.advance(40 * MS)
    peer.expect("A")
    assert peer.send("A", b"next") == "none"


def test_tsecr_is_of_the_segment_that_is_acknowledged_first() -> None:
    stack, peer = established(options=Options(mss=1460, ts=(1000, 0)))
    peer.ts = 1100
    peer.send("A", b"one")
    peer.ts = 1200
    peer.send("A", b"two")
    assert stack.info(peer.conn).rcv_nxt == (peer.iss + 7) % 2**32
    stack.advance(40 * MS)
    answer = peer.expect("A")
    assert answer.options.ts is not None
    assert answer.options.ts[1] == 1100  # RFC 7323 4.3


def test_fin_wait_2_of_a_closed_connection_ends() -> None:
    stack, peer = established(fin_wait_2_ms=5000)
    stack.close(peer.conn)
    peer.expect("FA")
    peer.send("A")
    stack.advance(4_990 * MS)
    assert stack.usage["conns"] == 1
    stack.advance(20 * MS)
    assert stack.is_empty()


def test_fin_wait_2_of_a_half_closed_connection_stays() -> None:
    stack, peer = established(fin_wait_2_ms=5000)
    stack.shutdown(peer.conn)
    peer.expect("FA")
    peer.send("A")
    stack.advance(100_000 * MS)
    assert stack.state(peer.conn) == "FIN_WAIT_2"
    stack.close(peer.conn)
    stack.advance(5_010 * MS)
    stack.events()
    assert stack.is_empty()


def test_time_wait_answers_a_repeated_fin_and_starts_again() -> None:
    stack, peer = in_time_wait()
    stack.advance(50_000 * MS)
    assert peer.send("FA", seq=1) == "duplicate"
    peer.expect("A", seq=2, ack=2)
    stack.advance(50_000 * MS)
    assert stack.usage["time_wait"] == 1
    stack.advance(10_000 * MS)
    assert stack.is_empty()


def test_time_wait_is_not_ended_by_a_reset() -> None:
    stack, peer = in_time_wait()
    assert peer.send("R") == "out_of_window"  # RFC 1337
    assert peer.send("A") == "duplicate"
    peer.silent()
    assert stack.usage["time_wait"] == 1


@pytest.mark.parametrize("ts", [None, (5, 0)], ids=["by sequence number", "by timestamp"])
def test_time_wait_is_reused_by_a_newer_syn(ts: tuple[int, int] | None) -> None:
    stack, peer = in_time_wait(Options(mss=1460, ts=ts))
    old_end = peer.irs + 2  # type: ignore[operator]
    again = Peer(stack, iss=peer.iss + 2 if ts is None else peer.iss - 1_000_000)
    assert again.send("S", options=Options(ts=ts)) != "none"  # not newer
    again.stack.output()
    again = Peer(stack, iss=peer.iss + 3 if ts is None else peer.iss - 1_000_000)
    assert again.send("S", options=Options(ts=(6, 0) if ts else None)) == "none"
    iss = again.expect("SA").seq
    assert 0 < (iss - old_end) % 2**32 < 2**31  # RFC 9293 3.4.1: above all that the old one used
    if ts:
        again.ts = 7
    again.send("A")
    assert stack.usage["time_wait"] == 0
    assert stack.usage["conns"] == 1


def test_the_oldest_time_wait_makes_room() -> None:
    stack = Stack(time_wait_max=2, conn_max=8)
    stack.listen()
    peers = []
    for port in range(1, 4):
        peer = Peer(stack, port)
        stack.close(peer.open())
        peer.expect("FA")
        peer.send("FA")
        peer.expect("A")
        peers.append(peer)
    assert stack.usage["time_wait"] == 2
    assert peers[0].send("FA", seq=1) == "no_connection"
    assert peers[1].send("FA", seq=1) == "duplicate"


def test_peers_that_vanish_leave_nothing_in_any_state() -> None:
    """Each state has a timer."""

    def vanish(steps: str) -> None:
        stack, peer = established(fin_wait_2_ms=1000)
        for step in steps:
            if step == "d":
                stack.send(peer.conn, b"data")
            elif step == "c":
                stack.close(peer.conn)
            elif step == "f":
                peer.send("FA")
            elif step == "a":
                peer.send("A")
            elif step == "z":
                peer.send("A", wnd=0)
            peer.collect()
            if peer.queue:
                peer.expect(
                    "".join(f for f, b in (("F", 1), ("A", 16)) if peer.queue[0].flags & b),
                    len(peer.queue[0].data),
                )
        for _ in range(800):
            stack.advance(1_000 * MS)
            stack.output()
        stack.events()
        assert stack.is_empty(), steps

    for steps in ("c", "dc", "ca", "dca", "fc", "fdc", "cf", "zdc"):
        vanish(steps)


def test_a_vanished_user_cannot_be_held_by_a_closed_window() -> None:
    stack, peer = established()
    peer.send("A", wnd=0)
    stack.send(peer.conn, b"never wanted")
    stack.close(peer.conn)
    for _ in range(2000):
        stack.advance(1_000 * MS)
        if stack.output():
            peer.send("A", wnd=0, ack=1)
    assert stack.is_empty()


def test_rows_are_readable_by_others() -> None:
    from _tcp import ffi

    stack, peer = established()
    layout = ffi.new("struct tcp_row_layout *")
    lib.tcp_row_layout(layout)
    assert layout.stride == 128
    rows = ffi.buffer(stack.native.rows, 16 * layout.stride)
    at = peer.conn * layout.stride
    assert rows[at + layout.state] == bytes([lib.TCP_STATE_ESTABLISHED])
    assert int.from_bytes(rows[at + layout.rport : at + layout.rport + 2], "little") == 5000
    assert (
        int.from_bytes(rows[at + layout.rcv_nxt : at + layout.rcv_nxt + 4], "little")
        == (peer.iss + 1) % 2**32
    )
    stack.abort(peer.conn)
    stack.output()
    stack.events()
    assert rows[at + layout.state] == b"\0"
