"""Data both ways: acknowledgments, windows, Nagle, probes, buffers and the limits of the pools."""

import errno

import pytest
from _tcp import ffi, lib
from tcp_talk import FLAG_BITS, Options, Peer, Segment, Stack, established

MS = 1000


def pattern(n: int, start: int = 0) -> bytes:
    return bytes((start + i) * 7 % 251 for i in range(n))


def test_data_is_acknowledged_late_alone_and_at_once_in_twos() -> None:
    stack, peer = established()
    peer.send("A", pattern(1000))
    assert stack.events() == [(peer.conn, {"readable"})]
    peer.silent()
    stack.advance(39 * MS)
    peer.silent()
    stack.advance(1 * MS)
    peer.expect("A", ack=1001)
    peer.send("A", pattern(1000, 1000))
    peer.send("A", pattern(1000, 2000))
    peer.expect("A", ack=3001)
    peer.silent()
    assert peer.read() == pattern(3000)
    stack.advance(1100 * MS)
    assert stack.usage["extensions"] == 0  # nothing is in flight, unread or out of order


def test_an_answer_carries_the_acknowledgment() -> None:
    stack, peer = established()
    peer.send("A", b"ping")
    assert peer.read() == b"ping"
    assert stack.send(peer.conn, b"pong") == 4
    peer.expect("A", b"pong", seq=1, ack=5)
    stack.advance(100 * MS)
    peer.silent()
    peer.send("A")
    assert stack.usage["extensions"] == 0
    assert stack.native.tx_used == 0


def test_views_are_the_packets_themselves() -> None:
    stack, peer = established()
    for part in (b"one", b"twotwo", b"three"):
        peer.send("A", part)
    views = ffi.new("struct tcp_view[8]")
    assert lib.tcp_recv_views(stack.tcp, peer.conn, views, 8) == 3
    assert [bytes(ffi.buffer(v.data, v.len)) for v in views[0:3]] == [b"one", b"twotwo", b"three"]
    lib.tcp_recv_consume(stack.tcp, peer.conn, 5)
    assert lib.tcp_recv_views(stack.tcp, peer.conn, views, 1) == 1
    assert bytes(ffi.buffer(views[0].data, views[0].len)) == b"otwo"
    assert lib.tcp_recv_ready(stack.tcp, peer.conn) == 9
    assert stack.recv(peer.conn, 6) == b"otwoth"
    assert peer.read() == b"ree"


def test_a_lent_packet_is_whole_and_outlives_its_connection() -> None:
    stack, peer = established()
    for part in (b"one", b"twotwo", b"three"):
        peer.send("A", part)
    view = ffi.new("struct tcp_view *")
    assert stack.recv(peer.conn, 1) == b"o"
    slots = []
    for expected in (b"ne", b"twotwo"):
        slots.append(lib.tcp_recv_lend(stack.tcp, peer.conn, view))
        assert bytes(ffi.buffer(view.data, view.len)) == expected
        lib.tcp_check(stack.tcp)
    assert lib.tcp_recv_ready(stack.tcp, peer.conn) == 5
    assert peer.read() == b"three"
    assert lib.tcp_recv_lend(stack.tcp, peer.conn, view) == 2**32 - 1
    lib.tcp_abort(stack.tcp, peer.conn, stack.now_us)
    stack.output()
    assert stack.usage["rx_slots_held"] == stack.native.rx_used == 2
    for slot in slots:
        lib.tcp_recv_give(stack.tcp, slot)
        lib.tcp_check(stack.tcp)
    assert stack.usage["rx_slots_held"] == stack.native.rx_used == 0


def test_lending_reopens_the_window_as_reading_does() -> None:
    stack, peer = established(rcv_buf_bytes=8192)
    view = ffi.new("struct tcp_view *")
    for i in range(5):
        peer.send("A", pattern(1460, 1460 * i))
    stack.advance(40 * MS)
    peer.collect()
    closed = stack.info(peer.conn).rcv_wnd
    for _ in range(5):
        lib.tcp_recv_give(stack.tcp, lib.tcp_recv_lend(stack.tcp, peer.conn, view))
    peer.expect("A", ack=1 + 5 * 1460)
    assert stack.info(peer.conn).rcv_wnd > closed
    assert stack.usage["rx_slots_held"] == 0


def test_the_room_to_send_is_what_a_send_takes() -> None:
    stack, peer = established(snd_buf_bytes=8192)
    room = lib.tcp_send_room(stack.tcp, peer.conn)
    assert 0 < room <= 8192
    assert stack.send(peer.conn, bytes(20_000)) >= room
    assert lib.tcp_send_room(stack.tcp, peer.conn) == 0
    peer.collect()
    peer.send("A", ack=1 + 5 * 1460)  # and not the rest
    assert (peer.conn, {"writable"}) in stack.events()
    assert lib.tcp_send_room(stack.tcp, peer.conn) > 0
    stack.shutdown(peer.conn)
    assert lib.tcp_send_room(stack.tcp, peer.conn) == 0


@pytest.mark.parametrize("config", [{"tx_slots": 16}, {"extension_max": 1}, {"snd_buf_bytes": 4096}])
def test_a_send_takes_all_that_there_is_room_for(config: dict[str, int]) -> None:
    stack, hog = established(**config)
    peer = Peer(stack, 5001)
    peer.open()
    assert stack.send(hog.conn, b"x") == 1  # has the only extension
    room = lib.tcp_send_room(stack.tcp, peer.conn)
    assert room == 0 or "extension_max" not in config
    assert room <= stack.send(peer.conn, bytes(60_000)) < room + 1460


@pytest.mark.parametrize(("mss", "ts"), [(1460, None), (536, (1, 0))])
def test_a_long_send_goes_in_full_segments(mss: int, ts: tuple[int, int] | None) -> None:
    stack, peer = established(options=Options(mss=mss, ts=ts))
    smss = mss - (12 if ts else 0)
    data = pattern(5 * smss + 10)
    assert stack.send(peer.conn, data) == len(data)
    got = b""
    for i in range(5):
        got += peer.expect("A", smss, seq=1 + i * smss).data
    got += peer.expect("A", 10).data  # no other short one is in flight
    assert got == data
    lib.tcp_want_sent_all(stack.tcp, peer.conn)
    assert stack.events() == []
    peer.send("A")
    assert stack.events() == [(peer.conn, {"sent_all"})]
    assert lib.tcp_unacked(stack.tcp, peer.conn) == 0


def test_nagle_gathers_and_nodelay_does_not() -> None:
    stack, peer = established()
    for part in (b"a", b"b", b"c"):
        stack.send(peer.conn, part)
        peer.collect()
    peer.expect("A", b"a")
    peer.silent()
    peer.send("A")
    peer.expect("A", b"bc")
    stack.send(peer.conn, b"d")
    peer.silent()
    lib.tcp_set_nodelay(stack.tcp, peer.conn, True)
    peer.expect("A", b"d")
    stack.send(peer.conn, b"e")
    peer.expect("A", b"e")


def test_the_first_flight_is_the_initial_window() -> None:
    stack, peer = established()
    assert stack.info(peer.conn).cwnd_bytes == 10 * 1460  # RFC 6928
    stack.send(peer.conn, pattern(30 * 1460))
    for _ in range(10):
        peer.expect("A", 1460)
    peer.silent()
    peer.send("A", ack=1 + 2 * 1460)  # slow start: two more for each two acknowledged
    for _ in range(4):
        peer.expect("A", 1460)
    peer.silent()


def test_the_peers_window_is_kept() -> None:
    stack = Stack()
    stack.listen()
    peer = Peer(stack)
    peer.wnd = 3000
    peer.open()
    stack.send(peer.conn, pattern(10000))
    peer.expect("A", 1460)
    peer.expect("A", 1460)
    peer.silent()  # 80 bytes of window are not worth a segment
    peer.send("A", wnd=2000)
    peer.expect("A", 1460)
    peer.silent()
    peer.send("A", wnd=0)
    peer.silent()
    assert stack.info(peer.conn).snd_wnd == 0


def test_zero_window_is_probed_with_back_off_and_never_given_up() -> None:
    stack, peer = established()
    stack.send(peer.conn, b"x" * 100)
    peer.expect("A", 100)
    peer.send("A", wnd=0)
    stack.send(peer.conn, b"hello")
    peer.silent()
    waited, gaps = 0, []
    while len(gaps) < 20:
        stack.advance(50 * MS)
        waited += 50
        peer.collect()
        if peer.queue:
            probe = peer.queue.pop()
            assert probe.data == b""
            assert (probe.seq - peer.irs) % 2**32 == 100  # type: ignore[operator]
            peer.send("A", wnd=0)
            gaps.append(waited)
            waited = 0
    assert gaps[0] <= 1000
    assert gaps[1] >= 1.8 * gaps[0] - 50
    assert gaps[-1] == 60_000
    peer.send("A", wnd=1000)
    peer.expect("A", b"hello", seq=101)


def test_closed_windows_do_not_keep_slots_that_others_need() -> None:
    stack, first = established(tx_slots=64, conn_max=32, extension_max=32)
    hogs = [first, *(established(stack, port=5001 + i)[1] for i in range(20))]
    for hog in hogs:
        hog.send("A", wnd=0)
        stack.send(hog.conn, b"x" * 200_000)
    newcomer = established(stack, port=6000)[1]
    assert stack.send(newcomer.conn, b"x" * 2000) < 2000, "the pool is short"
    for _ in range(400):
        stack.advance(100 * MS)
        for hog in hogs:
            hog.collect()
            if not any(segment.flags & FLAG_BITS["R"] for segment in hog.queue):
                hog.send("A", wnd=0)
            hog.queue.clear()
    assert 0 < stack.counters.persist_resets < len(hogs), "as many as it takes"
    assert {stack.error(hog.conn) for hog in hogs} == {0, errno.ENOBUFS}
    assert stack.send(newcomer.conn, b"x" * 2000) == 2000


def test_a_closed_window_alone_is_waited_for() -> None:
    stack, peer = established(tx_slots=64)
    peer.send("A", wnd=0)
    stack.send(peer.conn, b"h" * 200_000)
    for _ in range(1000):
        stack.advance(100 * MS)
        peer.collect()
        peer.queue.clear()
        peer.send("A", wnd=0)
    assert stack.counters.persist_resets == 0


def test_a_probe_finds_the_window_open() -> None:
    stack, peer = established()
    peer.send("A", wnd=0)
    stack.send(peer.conn, b"hello")
    peer.silent()
    stack.advance(2_000 * MS)
    peer.expect("A", seq=0)
    peer.send("A", wnd=0)
    peer.silent()
    stack.advance(5_000 * MS)
    peer.expect("A", seq=0)
    peer.send("A", wnd=100)
    peer.expect("A", b"hello", seq=1)
    peer.send("A")
    assert stack.native.tx_used == 0


def test_silly_window_is_overridden_after_a_while() -> None:
    stack, peer = established()
    stack.send(peer.conn, b"x")
    peer.expect("A", b"x")
    stack.send(peer.conn, pattern(100))
    peer.send("A", wnd=5)
    peer.silent()
    stack.advance(1_000 * MS)
    peer.expect("A", pattern(5), seq=2)
    peer.send("A", wnd=95)
    peer.expect("A", pattern(100)[5:], seq=7)


def test_probes_without_answer_end_the_connection() -> None:
    stack, peer = established()
    peer.send("A", wnd=0)
    stack.send(peer.conn, b"hello")
    stack.output()
    for _ in range(1000):
        stack.advance(1_000 * MS)
        stack.output()
        if stack.state(peer.conn) == "CLOSED":
            break
    assert stack.error(peer.conn) == errno.ETIMEDOUT
    assert stack.events() == [(peer.conn, {"error"})]
    stack.close(peer.conn)
    assert stack.is_empty()


def test_window_closes_and_reopens_in_worthwhile_steps() -> None:
    stack, peer = established(rcv_buf_bytes=8192)
    edge = 1 + 8192
    while peer.seq < edge:
        peer.send("A", b"z" * min(1460, edge - peer.seq))
        last = peer.stack.output()
    assert [s.wnd for s in last] == [0] or peer.seq == edge
    stack.advance(50 * MS)
    peer.collect()
    peer.queue.clear()
    assert peer.send("A", b"!") == "none"  # a probe: acknowledged, not taken
    peer.seq -= 1
    assert peer.expect("A", ack=edge).wnd == 0
    stack.recv(peer.conn, 1000)
    peer.silent()
    stack.recv(peer.conn, 1000)
    assert peer.expect("A", ack=edge).wnd == 2000
    assert peer.read() == b"z" * 6192


def test_data_beyond_the_window_is_cut() -> None:
    stack, peer = established(rcv_buf_bytes=4096)
    for _ in range(3):
        peer.send("A", b"a" * 1000)
    peer.send("AF", b"b" * 1400)
    assert peer.read() == b"a" * 3000 + b"b" * 1096
    assert not stack.eof(peer.conn)


def test_out_of_order_data_waits_and_is_reported_by_sack() -> None:
    stack, peer = established(options=Options(mss=1460, sack_ok=True))
    base = peer.iss + 1
    peer.send("A", b"33", seq=5)
    first = peer.expect("A", ack=1)
    assert first.options.sack == [((base + 4) % 2**32, (base + 6) % 2**32)]
    peer.send("A", b"55", seq=9)
    second = peer.expect("A", ack=1)
    assert second.options.sack == [
        ((base + 8) % 2**32, (base + 10) % 2**32),
        ((base + 4) % 2**32, (base + 6) % 2**32),
    ]
    assert peer.send("A", b"33", seq=5) == "duplicate"
    peer.expect("A", ack=1)
    peer.send("A", b"1122", seq=1)
    assert peer.expect("A", ack=7).options.sack == [((base + 8) % 2**32, (base + 10) % 2**32)]
    peer.send("A", b"44", seq=7)
    assert peer.expect("A", ack=11).options.sack == []
    assert peer.read() == b"1122334455"
    assert stack.counters.out_of_order_segments == 3


def test_overlaps_give_each_byte_once() -> None:
    _, peer = established()
    data = pattern(400)
    for begin, end in ((100, 200), (150, 300), (50, 120), (0, 60), (0, 400)):
        peer.send("A", data[begin:end], seq=1 + begin)
    peer.send("A", data, seq=1)
    assert peer.read() == data


def test_send_takes_what_the_buffer_holds_and_tells_when_there_is_room() -> None:
    stack, peer = established(snd_buf_bytes=8192, tx_slots=256)
    data = pattern(20000)
    assert stack.send(peer.conn, data) == 8192
    assert stack.send(peer.conn, data) == 0
    assert stack.events() == []
    sent = 8192
    got = b""
    while len(got) < len(data):
        peer.collect()
        assert peer.queue
        while peer.queue:
            got += peer.expect("A", len(peer.queue[0].data)).data
        peer.send("A")
        if sent < len(data):
            assert (peer.conn, {"writable"}) in stack.events()
            n = stack.send(peer.conn, data[sent:])
            assert n > 0
            sent += n
    assert got == data


def test_tx_pool_dry_is_back_pressure() -> None:
    stack, peer = established(tx_slots=16)
    stack.native.tx_limit = 0
    peer.send("A", pattern(1000))
    peer.send("A", pattern(1000))
    assert stack.send(peer.conn, b"answer") == 0
    peer.silent()
    assert stack.counters.slots_dry > 0
    stack.native.tx_limit = 16
    peer.expect("A", ack=2001)
    assert stack.events() == [(peer.conn, {"readable", "writable"})]
    assert stack.send(peer.conn, b"answer") == 6
    peer.expect("A", b"answer")


def test_the_way_out_is_full() -> None:
    stack, peer = established()
    stack.native.out_room = 3
    stack.send(peer.conn, pattern(10 * 1460))
    assert len(stack.output()) == 3
    assert stack.output() == []
    assert stack.counters.output_blocked == 2
    stack.native.out_room = 100
    got = stack.output()
    assert len(got) == 7
    assert b"".join(s.data for s in got) == pattern(10 * 1460)[3 * 1460 :]


def test_many_connections_share_the_way_out_in_turns() -> None:
    stack = Stack(tx_slots=512, conn_max=16)
    stack.listen()
    peers = [Peer(stack, port) for port in range(1, 4)]
    for peer in peers:
        peer.open()
    for peer in peers:
        stack.send(peer.conn, pattern(9 * 1460))
    stack.native.out_room = 20
    assert len(stack.output()) == 20
    stack.native.out_room = 100
    assert len(stack.output()) == 7


def test_a_slow_reader_cannot_take_the_whole_pool() -> None:
    stack = Stack(rx_slots=64, conn_max=16, extension_max=16)
    stack.listen()
    slow, quick = Peer(stack, 1), Peer(stack, 2)
    slow.open()
    quick.open()
    dropped = 0
    for _ in range(64):
        if slow.send("A", b"x") != "none":
            slow.seq -= 1
            dropped += 1
    assert stack.usage["rx_slots_held"] == 24  # half of three quarters
    assert dropped == 40
    assert stack.dropped("no_room") == 40
    for _ in range(20):
        assert quick.send("A", b"y" * 100) == "none"
        assert quick.read() == b"y" * 100
    assert slow.read() == b"x" * 24


def test_a_full_pool_still_lets_every_connection_go_on() -> None:
    stack = Stack(rx_slots=16, conn_max=32, extension_max=32, half_open_max=64)
    stack.listen()
    peers = [Peer(stack, port) for port in range(1, 15)]
    for peer in peers:
        peer.open()
    for _ in range(3):
        for peer in peers:
            peer.send("A", b"x")
    for peer in peers:
        assert peer.read().startswith(b"x")
    assert stack.native.rx_used == 0


def test_extensions_run_out() -> None:
    stack = Stack(extension_max=1)
    stack.listen()
    a, b = Peer(stack, 1), Peer(stack, 2)
    a.open()
    b.open()
    a.send("A", b"unread")
    assert b.send("A", b"data") == "no_room"
    b.seq -= 4
    b.expect("A", ack=1)
    assert stack.send(b.conn, b"out") == 0
    stack.close(b.conn)  # its FIN has to wait as well
    b.silent()
    assert a.read() == b"unread"
    stack.advance(100 * MS)
    a.expect("A", ack=7)
    b.expect("FA", seq=1)


def test_slots_that_are_still_on_the_way_are_not_rewritten() -> None:
    stack, peer = established()
    stack.native.hold = True
    stack.send(peer.conn, b"data")
    peer.expect("A", b"data")
    stack.advance(3_000 * MS)
    peer.silent()  # the retransmission waits for the first transmission to end
    lib.native_complete(stack.native)
    peer.expect("A", b"data", seq=1)
    peer.send("A")
    assert stack.native.tx_used == 1  # freed, and still busy
    lib.native_complete(stack.native)
    assert stack.native.tx_used == 0


def test_checksums_are_verified_unless_the_driver_did() -> None:
    stack, peer = established()
    bad = peer.segment("A", b"data").build(good=False)
    assert stack.input(bad) == "checksum"
    assert stack.input(bad, verified=True) == "none"


def test_keepalive_finds_a_dead_peer() -> None:
    stack, peer = established()
    lib.tcp_set_keepalive(stack.tcp, peer.conn, 10_000)
    stack.advance(10_000 * MS)
    probe = peer.expect("A", seq=0)
    assert probe.data == b""
    peer.send("A")
    stack.advance(9_000 * MS)
    peer.silent()
    probes = 0
    while stack.state(peer.conn) == "ESTABLISHED":
        stack.advance(1_000 * MS)
        probes += len(stack.output())
    assert probes == 9
    assert stack.error(peer.conn) == errno.ETIMEDOUT
    stack.close(peer.conn)
    assert stack.is_empty()


def test_a_keepalive_probe_is_answered() -> None:
    _stack, peer = established()
    assert peer.send("A", seq=0) == "out_of_window"
    peer.expect("A", seq=1, ack=1)


@pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("ts", [None, (7, 0)], ids=["plain", "timestamps"])
def test_bulk_both_ways(v6: bool, ts: tuple[int, int] | None) -> None:
    stack = Stack(rx_slots=256, tx_slots=256)
    stack.listen()
    peer = Peer(stack, v6=v6)
    peer.open(Options(mss=1300, wscale=4, sack_ok=True, ts=ts))
    data = pattern(300_000)
    sent = received = 0
    got = b""
    read = b""
    for _ in range(3000):
        if sent < len(data):
            sent += stack.send(peer.conn, data[sent:])
        if received < len(data):
            peer.send("A", data[received : received + 1200])
            received += 1200
        for segment in stack.output():
            assert len(segment.data) <= 1300 - (12 if ts else 0)
            got += segment.data
            peer.ack = (segment.seq - peer.irs + len(segment.data)) % 2**32  # type: ignore[operator]
        peer.send("A", wnd=4000)
        read += peer.read()
        stack.advance(1 * MS)
        if len(got) == len(read) == len(data):
            break
    assert got == data
    assert read == data
    assert stack.counters.retransmitted_segments == 0


def test_checksum_offload_leaves_the_pseudo_header_sum() -> None:
    stack = Stack(tx_checksum_offload=True)
    stack.listen()
    stack.input(Peer(stack).segment("S").build())
    lib.tcp_output(stack.tcp, stack.now_us)
    buf = ffi.new("uint8_t[]", 2048)
    n = lib.native_take(stack.native, buf)
    packet = bytes(ffi.buffer(buf, n))
    with pytest.raises(AssertionError, match="TCP checksum"):
        Segment.parse(packet)


def test_a_bad_configuration_is_refused() -> None:
    for bad in (
        {"conn_max": 0},
        {"mtu": 500},
        {"mtu": 2000},
        {"rcv_buf_bytes": 100},
        {"source_port_first": 0},
        {"source_port_last": 1},
        {"congestion_control": 9},
        {"rx_slots": 0},
        {"conn_max": 2**30 + 1},
    ):
        with pytest.raises(AssertionError, match="refused"):
            Stack(**bad)


@pytest.mark.parametrize("sack_ok", [False, True])
def test_a_peer_without_sack_gets_a_duplicate_ack_for_each_segment_of_a_batch(sack_ok: bool) -> None:
    _, peer = established(options=Options(mss=1460, sack_ok=sack_ok))
    for i in range(5):
        peer.send("A", b"x" * 10, seq=11 + 10 * i)
    for _ in range(1 if sack_ok else 5):
        peer.expect("A", ack=1)
    peer.silent()
    peer.send("A", b"y" * 10, seq=1)
    peer.expect("A", ack=61)
    peer.silent()
