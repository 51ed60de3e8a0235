"""Settings of connections and listeners, kept once for all that are alike, and the User Timeout Option (RFC 5482)."""

import errno
from typing import Any

import pytest
from _tcp import ffi, lib
from tcp_talk import PEER4, Options, Peer, Stack, established

S = 1_000_000


def settings(stack: Stack, **change: Any) -> Any:
    """The stack's default settings, changed."""
    made = ffi.new("struct tcp_settings *")
    lib.tcp_default_settings(stack.tcp, made)
    for name, value in change.items():
        setattr(made, name, value)
    return made


def change(stack: Stack, conn: int, **values: Any) -> int:
    return int(lib.tcp_set_settings(stack.tcp, conn, settings(stack, **values)))


def of(stack: Stack, conn: int) -> Any:
    got = ffi.new("struct tcp_settings *")
    lib.tcp_get_settings(stack.tcp, conn, got)
    return got


def listening(**values: Any) -> Stack:
    stack = Stack()
    assert lib.tcp_listen_with(stack.tcp, ffi.new("struct ip_addr *"), 80, 7, settings(stack, **values)) == 0
    return stack


def unanswered(stack: Stack, peer: Peer, limit_s: int = 20_000) -> float:
    """Seconds after which data that nobody acknowledges ends the connection."""
    stack.send(peer.conn, b"x")
    peer.collect()
    for second in range(limit_s):
        if stack.error(peer.conn):
            assert stack.error(peer.conn) == errno.ETIMEDOUT
            return second
        stack.advance(1 * S)
        lib.tcp_check(stack.tcp)
    raise AssertionError("it never ends")


def test_an_idle_connection_is_silent_for_a_day_by_default() -> None:  # RFC 9293 3.8.4
    stack, peer = established()
    for _ in range(24):
        stack.advance(3600 * S)
        peer.silent()


@pytest.mark.parametrize(
    "wrong",
    [
        {"congestion_control": 200},
        {"keepalive_probes": 0},
        {"keepalive_probes": 16},
        {"keepalive_interval_ms": 0},
        {"keepalive_ms": 2**31},
        {"keepalive_interval_ms": 2**31},
        {"user_timeout_ms": 2**31},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(wrong: dict[str, int]) -> None:
    stack, peer = established()
    assert change(stack, peer.conn, **wrong) == -errno.EINVAL
    assert of(stack, peer.conn).keepalive_probes == 9
    assert (
        lib.tcp_listen_with(stack.tcp, ffi.new("struct ip_addr *"), 81, 0, settings(stack, **wrong))
        == -errno.EINVAL
    )
    lib.tcp_check(stack.tcp)


def test_accepted_connections_begin_with_the_listeners_settings() -> None:
    stack, peer = established(listening(user_timeout_ms=5000, congestion_control=int(lib.TCP_CC_NEWRENO)))
    assert of(stack, peer.conn).user_timeout_ms == 5000
    assert of(stack, peer.conn).congestion_control == lib.TCP_CC_NEWRENO
    assert 5 <= unanswered(stack, peer) <= 6


def test_settings_outlive_their_listener() -> None:
    stack, peer = established(listening(user_timeout_ms=5000))
    assert lib.tcp_unlisten(stack.tcp, ffi.new("struct ip_addr *"), 80) == 0
    lib.tcp_check(stack.tcp)
    assert of(stack, peer.conn).user_timeout_ms == 5000


def test_the_table_is_shared_and_has_an_end() -> None:
    """255 kinds beside the default; who gives one back makes room."""
    stack, peer = established()
    for port in range(255):
        assert (
            lib.tcp_listen_with(
                stack.tcp, ffi.new("struct ip_addr *"), 1000 + port, 0, settings(stack, keepalive_ms=port + 1)
            )
            == 0
        )
    assert change(stack, peer.conn, keepalive_ms=999) == -errno.ENOSPC
    assert lib.tcp_set_keepalive(stack.tcp, peer.conn, 999) == -errno.ENOSPC
    assert change(stack, peer.conn, keepalive_ms=7) == 0
    lib.tcp_check(stack.tcp)
    assert lib.tcp_unlisten(stack.tcp, ffi.new("struct ip_addr *"), 1000) == 0
    assert change(stack, peer.conn, keepalive_ms=999) == 0
    lib.tcp_check(stack.tcp)


def test_keepalive_of_a_listener_needs_no_call() -> None:
    stack, peer = established(listening(keepalive_ms=10_000, keepalive_interval_ms=1000, keepalive_probes=2))
    stack.advance(10 * S)
    peer.expect("A", seq=0)
    stack.advance(1 * S)
    peer.expect("A", seq=0)
    stack.advance(1 * S)
    assert stack.error(peer.conn) == errno.ETIMEDOUT


def test_without_a_user_timeout_it_takes_more_than_100_seconds() -> None:
    """R2 of RFC 9293 3.8.3 (SHLD-11), even from the smallest RTO."""
    stack, peer = established(options=Options(mss=1460, ts=(1, 0)))
    assert stack.info(peer.conn).rto_us <= 1_000_000
    assert unanswered(stack, peer) > 100


# --- the option ---


def test_an_active_open_advertises_its_timeout_in_the_syn_and_the_ack() -> None:
    stack = Stack()
    conn = ffi.new("uint32_t *")
    assert (
        lib.tcp_connect(
            stack.tcp, ffi.NULL, 4000, stack.ip(PEER4), 5000, ffi.NULL, ffi.NULL, 7, stack.now_us, conn
        )
        == 0
    )
    assert change(stack, int(conn[0]), user_timeout_option=True, user_timeout_ms=90_000) == 0
    peer = Peer(stack, 5000, stack_port=4000)
    assert peer.expect("S").options.uto == 90
    peer.send("SA", ack=1, options=Options(mss=1460))
    assert peer.expect("A").options.uto == 90


def test_a_listener_advertises_in_the_syn_ack() -> None:
    stack = listening(user_timeout_option=True)
    peer = Peer(stack, 5000)
    peer.send("S", options=Options(mss=1460))
    assert peer.expect("SA").options.uto == 300  # RFC 9293 3.9.1.2's five minutes, for want of another


def test_hours_are_told_in_minutes() -> None:
    stack, peer = established()
    assert change(stack, peer.conn, user_timeout_option=True, user_timeout_ms=40_000_000) == 0
    assert peer.expect("A").options.uto == 0x8000 | 667


def test_without_the_setting_nothing_is_advertised_or_heeded() -> None:
    stack, peer = established()
    peer.send("A", options=Options(uto=0x8000 | 30))
    peer.silent()
    assert unanswered(stack, peer) < 1000


@pytest.mark.parametrize(
    ("uto", "low", "high"),
    [
        pytest.param(0x8000 | 30, 1800, 2000, id="half an hour"),
        pytest.param(1, 300, 302, id="less than ours: the longer one counts"),
        pytest.param(0x8000 | 0x7FFF, 3600, 3602, id="bounded by an hour"),
    ],
)
def test_the_peers_timeout_is_heeded(uto: int, low: int, high: int) -> None:
    """RFC 5482 3.1: min(U_LIMIT, max(ADV_UTO, REMOTE_UTO, L_LIMIT)), here with 1/16 of rounding up."""
    stack, peer = established(listening(user_timeout_option=True))
    peer.send("A", options=Options(uto=uto))
    assert low <= unanswered(stack, peer) <= high


def test_a_timeout_of_zero_says_nothing() -> None:
    stack, peer = established(listening(user_timeout_option=True))
    peer.send("A", options=Options(uto=0))
    assert unanswered(stack, peer) < 1000


def test_a_timeout_that_the_user_has_set_is_not_changed_by_the_peer() -> None:
    """RFC 5482 3.1: CHANGEABLE is false then."""
    stack, peer = established(listening(user_timeout_option=True, user_timeout_ms=8000))
    peer.send("A", options=Options(uto=0x8000 | 30))
    assert 8 <= unanswered(stack, peer) <= 9


def test_a_peer_cannot_keep_what_its_user_has_closed() -> None:
    stack, peer = established(listening(user_timeout_option=True))
    peer.send("A", options=Options(uto=0x8000 | 60))
    stack.send(peer.conn, b"x")
    peer.collect()
    stack.close(peer.conn)
    stack.advance(600 * S)
    assert stack.usage["conns"] == 0


ECE_AND_CWR = 0xC0


@pytest.mark.parametrize("ecn", [lib.TCP_ECN_PASSIVE, lib.TCP_ECN_ON, lib.TCP_ECN_OFF])
@pytest.mark.parametrize("default", [lib.TCP_CC_CUBIC, lib.TCP_CC_DCTCP])
@pytest.mark.parametrize("chosen", [None, lib.TCP_CC_CUBIC, lib.TCP_CC_DCTCP])
def test_a_syn_asks_for_ecn_if_the_control_that_it_goes_with_needs_it(
    ecn: int, default: int, chosen: int | None
) -> None:
    """RFC 8257 4.1; and never when ECN is off."""
    stack = Stack(ecn=ecn, congestion_control=default)
    conn = ffi.new("uint32_t *")
    to, none = Stack.ip(PEER4), ffi.NULL
    assert lib.tcp_connect(stack.tcp, none, 0, to, 9, none, none, 0, stack.now_us, conn) == 0
    if chosen is not None:
        assert change(stack, conn[0], congestion_control=chosen) == 0
    (syn,) = stack.output()
    needed = (default if chosen is None else chosen) == lib.TCP_CC_DCTCP
    asks = ecn == lib.TCP_ECN_ON or (needed and ecn == lib.TCP_ECN_PASSIVE)
    assert bool(syn.flags & ECE_AND_CWR) == asks
