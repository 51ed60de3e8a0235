"""Opening connections: passive, active, simultaneous, refused, lost and flooded."""

import errno
from itertools import pairwise

import pytest
from _tcp import ffi, lib
from tcp_talk import HERE4, HERE6, PEER4, PEER6, START_US, Options, Peer, Stack, established


def listening(**config: int) -> Stack:
    stack = Stack(**config)
    assert stack.listen() == 0
    return stack


def connect(stack: Stack, peer: Peer, port: int = 5000) -> int:
    conn = ffi.new("uint32_t *")
    assert (
        lib.tcp_connect(
            stack.tcp, ffi.NULL, 0, stack.ip(peer.here), port, ffi.NULL, ffi.NULL, 9, stack.now_us, conn
        )
        == 0
    )
    (segment,) = stack.output()
    peer.stack_port = segment.sport
    peer.queue = [segment]
    peer.conn = conn[0]
    return int(conn[0])


@pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])
def test_passive_open(v6: bool) -> None:
    stack = listening()
    peer = Peer(stack, v6=v6)
    peer.send("S", options=Options(mss=1400, wscale=7, sack_ok=True, ts=(50, 0)))
    syn_ack = peer.expect("SA", seq=0)
    assert syn_ack.options.mss == (1440 if v6 else 1460)
    assert syn_ack.options.sack_ok
    assert syn_ack.options.wscale == 7
    assert syn_ack.options.ts is not None
    assert syn_ack.options.ts[1] == 50
    assert stack.usage["half_open"] == 1
    assert stack.usage["conns"] == 0
    peer.ts = 51
    peer.send("A", wnd=1000)
    ((conn, kinds),) = stack.events()
    assert kinds == {"accepted"}
    assert lib.tcp_user(stack.tcp, conn) == 7
    info = stack.info(conn)
    assert (info.snd_wnd, info.smss, info.wscale_snd, info.wscale_rcv) == (1000 << 7, 1388, 7, 7)
    assert info.sack
    assert info.timestamps
    assert stack.usage == {
        "conns": 1,
        "half_open": 0,
        "time_wait": 0,
        "extensions": 0,
        "rx_slots_held": 0,
        "tx_slots_held": 0,
    }
    flow = ffi.new("struct flow *")
    lib.tcp_flow(stack.tcp, conn, flow)
    assert (flow.lport, flow.rport) == (80, 5000)
    assert bytes(flow.laddr.b) == bytes(stack.ip(HERE6 if v6 else HERE4).b)
    peer.silent()


def test_options_that_the_peer_does_not_offer_are_not_used() -> None:
    stack = listening()
    peer = Peer(stack)
    peer.send("S")
    syn_ack = peer.expect("SA")
    assert syn_ack.options == Options(mss=1460)
    peer.send("A")
    ((conn, _),) = stack.events()
    assert stack.info(conn).smss == 536  # RFC 9293 3.7.1
    assert not stack.info(conn).sack
    assert not stack.info(conn).timestamps


@pytest.mark.parametrize(
    ("mss", "smss"), [(0, 64), (1, 64), (64, 64), (1000, 1000), (9000, 1460), (65535, 1460)]
)
def test_mss_is_clamped(mss: int, smss: int) -> None:
    stack, peer = established(options=Options(mss=mss))
    assert stack.info(peer.conn).smss == smss


def test_window_scale_is_at_most_14() -> None:
    stack, peer = established(options=Options(wscale=255))
    assert stack.info(peer.conn).wscale_snd == 14


def test_the_final_ack_may_bring_data_and_fin() -> None:
    stack = listening()
    peer = Peer(stack)
    peer.send("S")
    peer.expect("SA")
    peer.send("AF", b"hello")
    ((conn, kinds),) = stack.events()
    assert kinds == {"accepted", "readable"}
    assert stack.recv(conn) == b"hello"
    assert stack.eof(conn)
    peer.expect("A")


def test_data_that_overtakes_the_final_ack() -> None:
    stack = listening()
    peer = Peer(stack)
    peer.send("S")
    peer.expect("SA")
    assert peer.send("A", b"world", seq=6) == "none"
    ((conn, kinds),) = stack.events()
    assert kinds == {"accepted"}
    assert stack.state(conn) == "ESTABLISHED"
    peer.expect("A", ack=1)
    peer.send("A", b"hello")
    assert stack.recv(conn) == b"helloworld"


def test_syn_ack_is_sent_again_and_given_up() -> None:
    stack = listening()
    peer = Peer(stack)
    peer.send("S")
    peer.expect("SA")
    for delay_s in (1, 2, 4):
        stack.advance(delay_s * 1_000_000 - 1000)
        peer.silent()
        stack.advance(1000)
        peer.expect("SA", seq=0)
    stack.advance(8_000_000)
    peer.silent()
    assert stack.is_empty()
    assert stack.counters.connections_timed_out == 1


def test_a_repeated_syn_is_answered_again() -> None:
    stack = listening()
    peer = Peer(stack)
    peer.send("S")
    peer.expect("SA")
    peer.send("S", seq=0)
    peer.expect("SA", seq=0, ack=1)
    assert stack.usage["half_open"] == 1


def test_half_open_is_reset_only_at_the_exact_sequence_number() -> None:
    stack = listening()
    peer = Peer(stack)
    peer.send("S")
    peer.expect("SA")
    assert peer.send("R", seq=100) == "challenged"
    peer.expect("A", seq=1)
    assert peer.send("R", seq=70000) == "out_of_window"
    assert peer.send("S", seq=5) == "challenged"
    peer.expect("A", seq=1)
    assert peer.send("A", ack=2) == "bad_ack"
    peer.expect("R", seq=2)
    assert peer.send("R", seq=1) == "none"
    peer.silent()
    assert stack.is_empty()


def test_unlisten_drops_the_half_open_in_silence() -> None:
    stack, peer = established()
    late = Peer(stack, 5001)
    late.send("S")
    late.expect("SA")
    assert lib.tcp_unlisten(stack.tcp, ffi.new("struct ip_addr *"), 80) == 0
    lib.tcp_check(stack.tcp)
    assert stack.usage["half_open"] == 0
    assert late.send("A") == "no_connection"
    late.expect("R", seq=1)
    peer.send("A", b"still here")
    assert peer.read() == b"still here"
    assert lib.tcp_unlisten(stack.tcp, ffi.new("struct ip_addr *"), 80) == -errno.ENOENT


def test_listeners() -> None:
    stack = listening()
    assert stack.listen() == -errno.EADDRINUSE
    assert lib.tcp_listen(stack.tcp, stack.ip(HERE4), 80, 8) == 0  # more exact than the wildcard
    assert lib.tcp_listen(stack.tcp, stack.ip(PEER4), 80, 0) == -errno.EADDRNOTAVAIL
    assert stack.listen(0) == -errno.EADDRNOTAVAIL
    for port, v6, user in ((6000, False, 8), (6001, True, 7)):
        peer = Peer(stack, port, v6=v6)
        assert lib.tcp_user(stack.tcp, peer.open()) == user
    results = [stack.listen(port) for port in range(1000, 1300)]
    assert results.count(0) == 254
    assert results[-1] == -errno.ENOSPC


@pytest.mark.parametrize(
    ("flags", "answer", "seq"),
    [("S", "RA", 0), ("SF", "RA", 0), ("A", "R", 77), ("", "RA", 0), ("R", "", 0), ("RA", "", 0)],
)
def test_a_port_that_nobody_serves(flags: str, answer: str, seq: int) -> None:
    stack = Stack()
    peer = Peer(stack)
    peer.irs = 0
    assert peer.send(flags, ack=77) == "no_connection"
    if answer:
        peer.expect(answer, seq=seq)
    peer.silent()
    quiet = Stack(reset_unknown=False)
    assert Peer(quiet).send(flags, ack=77) == "no_connection"
    assert quiet.output() == []


def test_a_packet_for_another_address_is_dropped() -> None:
    stack = listening()
    peer = Peer(stack)
    peer.there = "10.9.9.9"
    assert peer.send("S") == "not_local"


@pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])
def test_active_open(v6: bool) -> None:
    stack = Stack()
    peer = Peer(stack, v6=v6)
    conn = connect(stack, peer)
    syn = peer.queue[0]
    assert 40000 <= syn.sport <= 40999
    assert syn.options.wscale == 7
    assert syn.options.sack_ok
    assert syn.options.ts is not None
    peer.expect("S", seq=0)
    assert stack.send(conn, b"x") == -errno.ENOTCONN
    stack.now_us += 30_000
    peer.ts = 5
    peer.send("SA", options=Options(mss=1000, wscale=2, sack_ok=True))
    peer.expect("A", seq=1)
    assert stack.events() == [(conn, {"connected"})]
    assert stack.state(conn) == "ESTABLISHED"
    assert stack.info(conn).srtt_us == 30_000
    assert stack.info(conn).snd_wnd == 65535  # the window of a SYN is not scaled
    assert stack.send(conn, b"hello") == 5
    peer.expect("A", b"hello", seq=1)
    assert stack.counters.connections_opened == 1


def test_active_open_of_a_peer_without_options() -> None:
    stack = Stack()
    peer = Peer(stack)
    conn = connect(stack, peer)
    peer.expect("S")
    peer.send("SA")
    assert peer.expect("A").options == Options()
    info = stack.info(conn)
    assert (info.smss, info.sack, info.timestamps, info.wscale_rcv) == (536, False, False, 0)


def test_active_open_is_refused() -> None:
    stack = Stack()
    peer = Peer(stack)
    conn = connect(stack, peer)
    peer.expect("S")
    assert peer.send("RA", ack=7) == "bad_ack"
    assert peer.send("R") == "bad_flags"
    assert stack.state(conn) == "SYN_SENT"
    assert peer.send("RA", seq=0) == "none"
    assert stack.events() == [(conn, {"error"})]
    assert stack.error(conn) == errno.ECONNREFUSED
    assert stack.state(conn) == "CLOSED"
    assert stack.send(conn, b"x") == -errno.ECONNREFUSED
    stack.close(conn)
    peer.silent()
    assert stack.is_empty()


def test_active_open_times_out_after_three_minutes() -> None:
    stack = Stack()
    peer = Peer(stack)
    conn = connect(stack, peer)
    peer.expect("S")
    times = []
    while stack.error(conn) == 0:
        stack.advance(1_000_000)
        peer.collect()
        times += [(stack.now_us - START_US) // 1_000_000 for _ in peer.queue]
        peer.queue.clear()
    assert times == [1, 3, 7, 15, 31, 63, 123]
    assert stack.now_us - START_US >= 180_000_000
    assert stack.error(conn) == errno.ETIMEDOUT
    stack.close(conn)
    assert stack.is_empty()


def test_a_wrong_syn_ack_is_reset() -> None:
    stack = Stack()
    peer = Peer(stack)
    conn = connect(stack, peer)
    peer.expect("S")
    assert peer.send("SA", seq=0, ack=2) == "bad_ack"
    peer.expect("R", seq=2)
    assert stack.state(conn) == "SYN_SENT"


def test_close_in_syn_sent_is_silent() -> None:
    stack = Stack()
    peer = Peer(stack)
    stack.close(connect(stack, peer))
    peer.expect("S")
    peer.silent()
    assert stack.is_empty()


@pytest.mark.parametrize("with_syn_ack", [True, False], ids=["by SYN-ACK", "by ACK"])
def test_simultaneous_open(with_syn_ack: bool) -> None:
    stack = Stack()
    peer = Peer(stack)
    conn = connect(stack, peer)
    peer.expect("S")
    peer.send("S", options=Options(mss=1460))
    peer.expect("SA", seq=0)
    assert stack.state(conn) == "SYN_RECEIVED"
    if with_syn_ack:
        peer.send("SA", seq=0)
    else:
        peer.send("A")
    assert stack.state(conn) == "ESTABLISHED"
    assert stack.events() == [(conn, {"connected"})]
    peer.expect("A", seq=1)
    peer.send("A", b"data")
    assert stack.recv(conn) == b"data"


def test_simultaneous_open_repeats_its_syn_ack() -> None:
    stack = Stack()
    peer = Peer(stack)
    conn = connect(stack, peer)
    peer.expect("S")
    peer.send("S")
    peer.expect("SA")
    stack.advance(1_000_000)
    peer.expect("SA", seq=0)
    stack.close(conn)
    peer.expect("RA", seq=1)
    assert stack.is_empty()


def test_source_ports_follow_the_balancer_and_run_out() -> None:
    stack = Stack(source_port_first=50000, source_port_last=50007, conn_max=64, extension_max=64)
    raddr = stack.ip(PEER4)
    conn = ffi.new("uint32_t *")
    opened = 0
    while (result := lib.native_connect_odd(stack.tcp, 0, raddr, 80, stack.now_us, conn)) == 0:
        opened += 1
        flow = ffi.new("struct flow *")
        lib.tcp_flow(stack.tcp, conn[0], flow)
        assert lib.csb_hash(ffi.addressof(stack.config.flow_secret), flow) & 1
    assert result == -errno.EADDRINUSE
    assert 0 < opened < 8
    assert len({s.sport for s in stack.output()}) == opened


def test_source_ports_say_nothing_of_the_next() -> None:
    """RFC 6056 3.3: neither in a row, nor near each other, nor the same for another peer."""
    stack = Stack(source_port_first=40000, source_port_last=40999)
    ports = []
    for number in range(300):
        conn = ffi.new("uint32_t *")
        to, none = stack.ip(f"10.1.1.{number % 3 + 1}"), ffi.NULL
        assert lib.tcp_connect(stack.tcp, none, 0, to, 80, none, none, 0, stack.now_us, conn) == 0
        ports.append(stack.output()[0].sport - 40000)
        stack.close(conn[0])
    steps = [(b - a) % 1000 for a, b in pairwise(ports)]
    assert max(steps.count(step) for step in set(steps)) < 8
    assert all(40 < sum(first <= port < first + 250 for port in ports) < 120 for first in range(0, 1000, 250))
    assert len(set(ports)) > 200


def test_connect_refuses_what_cannot_be() -> None:
    stack = Stack(source_port_first=0, source_port_last=0, extension_max=1)
    conn = ffi.new("uint32_t *")

    def attempt(laddr: str | None, lport: int, raddr: str, rport: int) -> int:
        local = ffi.NULL if laddr is None else stack.ip(laddr)
        result = lib.tcp_connect(
            stack.tcp, local, lport, stack.ip(raddr), rport, ffi.NULL, ffi.NULL, 0, stack.now_us, conn
        )
        lib.tcp_check(stack.tcp)
        return int(result)

    assert attempt(None, 0, PEER4, 80) == -errno.EADDRNOTAVAIL  # no source ports
    assert attempt(PEER4, 1, PEER4, 80) == -errno.EADDRNOTAVAIL  # not ours
    assert attempt(HERE6, 1, PEER4, 80) == -errno.EADDRNOTAVAIL  # families differ
    assert attempt(None, 1, HERE4, 80) == -errno.EADDRNOTAVAIL  # ourselves
    assert attempt(None, 1, PEER4, 0) == -errno.EADDRNOTAVAIL
    for many in ("224.0.0.1", "255.255.255.255", "0.0.0.0", "240.0.0.1", "ff02::1", "::"):
        assert attempt(None, 1, many, 80) == -errno.EADDRNOTAVAIL
    assert attempt(None, 1, PEER6, 80) == 0
    assert attempt(None, 1, PEER6, 80) == -errno.EADDRINUSE
    assert attempt(None, 2, PEER6, 80) == -errno.ENOBUFS


def test_connections_run_out() -> None:
    stack = listening(conn_max=2)
    for port in (1, 2):
        Peer(stack, port).open()
    peer = Peer(stack, 3)
    peer.send("S")
    peer.expect("SA")
    assert peer.send("A") == "no_tcb"
    stack.close(0)
    stack.events()
    assert peer.send("A") == "no_tcb"  # FIN is still to be acknowledged
    stack.abort(1)
    stack.output()
    assert peer.send("A") == "none"


def test_flood_is_answered_by_cookies() -> None:
    stack = listening(half_open_max=8)
    for port in range(100, 104):
        Peer(stack, port).send("S")
    stack.output()
    assert stack.usage["half_open"] == 4
    peer = Peer(stack, 200)
    peer.send("S", options=Options(mss=1400, wscale=5, sack_ok=True, ts=(9, 0)))
    syn_ack = peer.expect("SA", seq=0)
    assert syn_ack.options.sack_ok
    assert syn_ack.options.ts is not None
    assert stack.usage["half_open"] == 4
    assert stack.counters.syn_cookies_sent == 1
    peer.ts = 10
    peer.send("A", b"GET")
    ((conn, kinds),) = stack.events()
    assert kinds == {"accepted", "readable"}
    assert stack.recv(conn) == b"GET"
    info = stack.info(conn)
    assert info.sack
    assert info.timestamps
    assert info.wscale_snd == 5
    assert 1024 <= info.smss <= 1388
    assert stack.counters.syn_cookies_accepted == 1
    tiny = Peer(stack, 202)
    assert tiny.send("S", options=Options(mss=200)) == "no_tcb", "no cookie says so little"
    tiny.silent()
    forged = Peer(stack, 201)
    forged.irs = 0
    assert forged.send("A", ack=12345) == "cookie"
    forged.expect("R", seq=12345)


def test_cookies_are_only_believed_while_some_are_out() -> None:
    stack = listening()
    peer = Peer(stack)
    peer.irs = 0
    assert peer.send("A", ack=1) == "no_connection"


def test_isn_goes_up_with_time_and_differs_by_flow() -> None:
    stack = listening()

    def isn(port: int) -> int:
        peer = Peer(stack, port)
        peer.send("S")
        iss = peer.expect("SA").seq
        peer.send("R", seq=1)
        return iss

    first = isn(1)
    stack.now_us += 4_000_000
    assert (isn(1) - first) % 2**32 == 1_000_000  # RFC 6528: 4 us a tick
    assert abs(isn(2) - isn(3)) > 1000
