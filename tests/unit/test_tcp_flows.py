"""The core and the balancer: which flows are where, what may begin, how a segment without a connection is answered."""

import errno

import pytest
from _tcp import ffi, lib

from tests.unit.tcp_talk import HERE4, PEER4, Options, Peer, Stack, established

HALF_OPEN, ROWS, TIME_WAIT = range(3)


def columns(stack: Stack) -> list[list[int]]:
    found = []
    column = ffi.new("uint64_t **")
    for part in range(lib.TCP_FLOW_COLUMNS):
        rows = lib.tcp_flow_column(stack.tcp, part, column)
        found.append([column[0][i] for i in range(rows)])
    return found


def hash_of(stack: Stack, peer: Peer) -> int:
    flow = ffi.new("struct flow *")
    flow.laddr, flow.raddr = stack.ip(HERE4)[0], stack.ip(PEER4)[0]
    flow.lport, flow.rport = peer.stack_port, peer.port
    return int(lib.csb_hash(ffi.addressof(stack.config.flow_secret), flow))


def test_a_flow_moves_from_column_to_column_in_walking_order() -> None:
    stack = Stack()
    stack.listen()
    peer = Peer(stack)
    mine = hash_of(stack, peer)
    peer.send("S", options=Options(mss=1460))
    assert columns(stack) == [[mine], [], []]
    peer.expect("SA")
    peer.send("A")
    assert columns(stack) == [[0], [mine], []]
    conn = stack.events()[0][0]
    stack.close(conn)
    peer.expect("FA")
    peer.send("A")
    peer.send("FA")
    assert columns(stack) == [[0], [0], [mine]]
    stack.advance(120_000_000)
    assert columns(stack) == [[0], [0], [0]]


def test_an_active_open_stands_in_its_column() -> None:
    stack = Stack()
    conn = ffi.new("uint32_t *")
    assert (
        lib.tcp_connect(
            stack.tcp, ffi.NULL, 0, stack.ip(PEER4), 80, ffi.NULL, ffi.NULL, 0, stack.now_us, conn
        )
        == 0
    )
    flow = ffi.new("struct flow *")
    lib.tcp_flow(stack.tcp, conn[0], flow)
    assert columns(stack)[ROWS] == [lib.csb_hash(ffi.addressof(stack.config.flow_secret), flow)]


def test_a_port_that_is_asked_for_must_be_this_threads_too() -> None:
    stack = Stack()
    conn, answers = ffi.new("uint32_t *"), []
    for port in range(40000, 40016):
        result = lib.native_connect_odd(stack.tcp, port, stack.ip(PEER4), 80, stack.now_us, conn)
        answers.append(result)
    assert set(answers) == {0, -errno.EADDRNOTAVAIL}


def test_nothing_begins_that_the_balancer_refuses() -> None:
    stack = Stack()
    stack.listen()
    stack.native.refuse = True
    peer = Peer(stack)
    assert peer.send("S") == "moving"
    peer.silent()
    stack.native.refuse = False
    peer.seq = 0
    peer.open()


def test_a_connection_that_is_there_asks_nobody() -> None:
    stack, peer = established()
    stack.native.refuse, stack.native.miss = True, lib.TCP_MISS_SILENT
    peer.send("A", b"data")
    assert peer.read() == b"data"


def test_time_wait_outlasts_a_syn_that_may_not_begin() -> None:
    stack, peer = established()
    stack.close(peer.conn)
    peer.expect("FA")
    peer.send("A")
    peer.send("FA")
    peer.expect("A")
    stack.native.refuse = True
    again = Peer(stack, peer.port, iss=(peer.iss + 100_000) % 2**32)
    assert again.send("S") == "moving"
    assert len([h for h in columns(stack)[TIME_WAIT] if h]) == 1


@pytest.mark.parametrize(
    ("miss", "flags", "reason", "reset", "misdirected"),
    [
        pytest.param("RESET", "A", "no_connection", True, 0, id="nobody's"),
        pytest.param("SILENT", "A", "moving", False, 0, id="on its way"),
        pytest.param("FOREIGN", "A", "moving", False, 1, id="another thread's"),
        pytest.param("FOREIGN", "S", "moving", False, 0, id="a SYN is no connection's"),
    ],
)
@pytest.mark.parametrize("listens", [False, True], ids=["no listener", "a listener"])
def test_a_miss(miss: str, flags: str, reason: str, reset: bool, misdirected: int, listens: bool) -> None:
    stack = Stack()
    if listens and flags == "A":
        stack.listen()
    stack.native.miss = getattr(lib, f"TCP_MISS_{miss}")
    peer = Peer(stack)
    peer.irs = 0
    assert peer.send(flags) == reason
    assert [s.flags & 4 for s in stack.output()] == ([4] if reset else [])
    assert stack.counters.misdirected_segments == misdirected


def a_flood(stack: Stack) -> None:
    for port in range(1, 5):
        Peer(stack, port).send("S")


def answered_by_a_cookie() -> tuple[Stack, Stack, Peer]:
    """Two threads with one secret, and a peer that has the first one's cookie."""
    secret = {"k0": 5, "k1": 6}
    there, here = (Stack(half_open_max=8, secret=secret) for _ in range(2))
    for stack in (there, here):
        stack.listen()
    a_flood(there)
    peer = Peer(there, 9)
    peer.send("S", options=Options(mss=1460))
    peer.expect("SA")
    return there, here, peer


def test_another_threads_cookie_is_good_here_when_secrets_are_shared() -> None:
    _, here, peer = answered_by_a_cookie()
    peer.stack = here
    assert peer.send("A") == "no_connection"  # none is expected
    lib.tcp_expect_cookies(here.tcp, here.now_us)
    here.native.refuse = True
    assert peer.send("A") == "moving"
    here.native.refuse = False
    assert peer.send("A") == "none"
    assert here.counters.syn_cookies_accepted == 1
    assert [h for h in columns(here)[ROWS] if h] == [hash_of(here, peer)]


def test_what_follows_a_cookies_ack_that_was_dropped_while_load_moved_is_spared_for_a_second() -> None:
    there, here, peer = answered_by_a_cookie()
    there.native.refuse = True
    assert peer.send("A") == "moving"
    assert peer.send("A", b"first") == "moving"
    begin, peer.stack = peer.seq, here
    lib.tcp_expect_cookies(here.tcp, here.now_us)
    assert peer.send("A", b"second") == "cookie"
    peer.silent()
    peer.seq = (begin - len(b"first")) % 2**32
    assert peer.send("A", b"first") == "none"
    stranger = Peer(here, 10)
    stranger.irs = 0
    here.advance(1_000_000)
    assert stranger.send("A", b"second") == "cookie"
    stranger.expect("R")
