"""A client opens a connection in TIME-WAIT again if timestamps tell the two apart (RFC 6191, RFC 7323 5.4)."""

import errno

import pytest
from _tcp import ffi, lib
from tcp_talk import Options, Peer, Segment, Stack

PORTS = range(40000, 40004)
SECOND = 1_000_000
both = pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])


def client(**config: int) -> Stack:
    """With few source ports."""
    return Stack(source_port_first=PORTS[0], source_port_last=PORTS[-1], time_wait_max=len(PORTS), **config)


def connect(stack: Stack, peer: Peer, port: int = 0) -> int:
    """The port that the SYN came from, or what tcp_connect() refuses with."""
    conn = ffi.new("uint32_t *")
    flow = ffi.new("struct flow *")
    to = stack.ip(peer.here)
    got = int(
        lib.tcp_connect(stack.tcp, ffi.NULL, port, to, peer.port, ffi.NULL, ffi.NULL, 0, stack.now_us, conn)
    )
    lib.tcp_check(stack.tcp)
    if got < 0:
        return got
    lib.tcp_flow(stack.tcp, conn[0], flow)
    peer.conn, peer.stack_port = int(conn[0]), int(flow.lport)
    return peer.stack_port


def into_time_wait(stack: Stack, port: int, v6: bool, *, timestamps: bool = True) -> tuple[Peer, Segment]:
    """A connection from this port is closed from here; its last ACK."""
    peer = Peer(stack, v6=v6)
    assert connect(stack, peer, port) == port
    peer.expect("S")
    peer.ts = 500 if timestamps else None
    peer.send("SA", options=Options(mss=1000))
    peer.expect("A")
    stack.close(peer.conn)
    peer.expect("FA")
    peer.send("FA")
    return peer, peer.expect("A")


@both
def test_when_no_port_is_free_one_that_has_waited_a_second_is_taken_again(v6: bool) -> None:
    stack = client()
    last = [into_time_wait(stack, port, v6)[1] for port in PORTS]
    assert stack.usage["time_wait"] == len(PORTS)
    stack.advance(SECOND - 1000)
    assert connect(stack, Peer(stack, v6=v6)) == -errno.EADDRINUSE
    stack.advance(1000)
    peer = Peer(stack, v6=v6)
    port = connect(stack, peer)
    before = last[PORTS.index(port)]
    assert stack.usage["time_wait"] == len(PORTS) - 1
    syn = peer.expect("S")
    assert (syn.seq - before.seq) % 2**32 < 2**31
    assert syn.seq != before.seq
    assert syn.options.ts is not None
    assert before.options.ts is not None
    assert (syn.options.ts[0] - before.options.ts[0]) % 2**32 >= 1000
    peer.ts = 2000
    peer.send("SA", options=Options(mss=1000))
    peer.expect("A")
    assert stack.state(peer.conn) == "ESTABLISHED"


@both
def test_a_free_port_comes_first(v6: bool) -> None:
    stack = client()
    for port in PORTS[1:]:
        into_time_wait(stack, port, v6)
    stack.advance(2 * SECOND)
    assert connect(stack, Peer(stack, v6=v6)) == PORTS[0]
    assert stack.usage["time_wait"] == len(PORTS) - 1


@both
def test_without_timestamps_it_waits_to_its_end(v6: bool) -> None:
    stack = client()
    into_time_wait(stack, PORTS[0], v6, timestamps=False)
    stack.advance(59 * SECOND)
    assert connect(stack, Peer(stack, v6=v6), PORTS[0]) == -errno.EADDRINUSE
    stack.advance(SECOND)
    assert connect(stack, Peer(stack, v6=v6), PORTS[0]) == PORTS[0]


@both
def test_what_is_no_time_wait_is_not_taken(v6: bool) -> None:
    stack = client()
    peer = Peer(stack, v6=v6)
    assert connect(stack, peer, PORTS[0]) == PORTS[0]
    stack.advance(2 * SECOND)
    assert connect(stack, Peer(stack, v6=v6), PORTS[0]) == -errno.EADDRINUSE


@both
def test_a_number_that_was_used_is_not_used_again(v6: bool) -> None:
    """More was sent than the clock of initial numbers has gone on by."""
    stack = client(snd_buf_bytes=1 << 22)
    peer = Peer(stack, v6=v6)
    assert connect(stack, peer, PORTS[0]) == PORTS[0]
    peer.expect("S")
    peer.ts = 500
    peer.send("SA", options=Options(mss=1400, wscale=10))
    peer.expect("A")
    sent = 0
    while sent < 4_000_000 or peer.ack <= sent:
        sent += stack.send(peer.conn, bytes(14000)) if sent < 4_000_000 else 0
        for segment in stack.output():
            peer.ack = (segment.seq + len(segment.data) - (peer.irs or 0)) % 2**32
        peer.send("A")
    stack.close(peer.conn)
    end = peer.expect("FA")
    peer.send("FA")
    peer.expect("A")
    stack.advance(SECOND)
    again = Peer(stack, v6=v6)
    assert connect(stack, again, PORTS[0]) == PORTS[0]
    assert 0 < (again.expect("S").seq - end.seq) % 2**32 < 2**31


@both
def test_a_peer_that_has_missed_the_last_ack_is_reset_and_then_reached(v6: bool) -> None:
    """It is in LAST-ACK, and challenges the SYN (RFC 5961 4); the RST that follows is right at its RCV.NXT."""
    stack = client()
    old, last = into_time_wait(stack, PORTS[0], v6)
    stack.advance(SECOND)
    peer = Peer(stack, v6=v6, iss=77)
    assert connect(stack, peer, PORTS[0]) == PORTS[0]
    peer.expect("S")
    old.ts = 3000
    assert old.send("A") == "bad_ack"
    assert peer.expect("R", seq=(last.seq - (peer.irs or 0)) % 2**32).seq == last.seq
    stack.advance(SECOND)
    peer.expect("S", seq=0)
    peer.ts = 3001
    peer.send("SA", options=Options(mss=1000))
    peer.expect("A")
    assert stack.state(peer.conn) == "ESTABLISHED"
