"""Very many connections that wait for few TX slots: each call tries a bounded number of them, and forgets none."""

from _tcp import lib
from tcp_talk import Peer, Stack, established

MANY, SLOTS, RESERVE, TRIES = 1000, 64, 8, 64


def waiting(count: int) -> tuple[Stack, list[Peer]]:
    """Connections whose users were told that there is no room."""
    stack = Stack(tx_slots=SLOTS, conn_max=2048, extension_max=2048, half_open_max=64)
    assert stack.listen() == 0
    peers = []
    for port in range(1, count + 1):
        peer = Peer(stack, port)
        peer.open()
        peers.append(peer)
    stack.events()
    stack.native.tx_limit = 0
    for peer in peers:
        assert stack.send(peer.conn, b"answer") == 0
    return stack, peers


def asked_by_a_call(stack: Stack) -> int:
    before = stack.native.asked
    assert stack.output() == []
    return int(stack.native.asked - before)


def test_a_call_tries_no_more_than_so_many_in_vain() -> None:
    stack, _ = waiting(MANY)
    asked_by_a_call(stack)  # from the marked to the blocked
    few, _ = waiting(TRIES)
    asked_by_a_call(few)
    assert 0 < asked_by_a_call(stack) <= asked_by_a_call(few) < 4 * TRIES


def test_who_could_not_be_tried_has_a_deadline() -> None:
    stack, _ = waiting(MANY)
    stack.output()
    quiet = lib.tcp_next_deadline(stack.tcp)
    stack.output()
    assert stack.now_us < lib.tcp_next_deadline(stack.tcp) <= stack.now_us + 1000 < quiet
    few, _ = waiting(TRIES)
    few.output()
    few.output()
    assert lib.tcp_next_deadline(few.tcp) > few.now_us + 1000


def test_no_more_users_are_told_than_slots_are_free_and_none_is_forgotten() -> None:
    stack, peers = waiting(MANY)
    stack.output()
    stack.native.tx_limit = free = 16
    told: list[int] = []
    for _ in range(MANY // (free - RESERVE) + 1):
        stack.output()
        now = [conn for conn, kinds in stack.events() if "writable" in kinds]
        assert 0 < len(now) <= free - RESERVE or len(told) == MANY
        told += now
    assert sorted(told) == sorted(peer.conn for peer in peers)


def test_all_are_answered_when_slots_come_back_one_by_one() -> None:
    stack, peers = waiting(MANY)
    stack.native.tx_limit = 16
    by_conn = {peer.conn: peer for peer in peers}
    left = set(by_conn)
    for _ in range(2 * MANY):
        stack.output()
        for conn, kinds in stack.events():
            if "writable" in kinds and stack.send(conn, b"answer") == 6:
                by_conn[conn].expect("A", b"answer")
                by_conn[conn].send("A")
                left.remove(conn)
        if not left:
            return
    raise AssertionError(f"{len(left)} have no answer")


def test_unread_data_leaves_slots_for_what_frees_others() -> None:
    """Users who wait for room to send do not read; with the last slot comes the ACK that gives them room."""
    slots = 64
    stack = Stack(rx_slots=slots, conn_max=2 * slots, extension_max=2 * slots, half_open_max=slots)
    assert stack.listen() == 0
    sender = established(stack, port=999)[1]
    assert stack.send(sender.conn, b"answer") == 6
    sender.expect("A", b"answer")
    reasons: list[str] = []
    for port in range(1, slots + 1):
        peer = Peer(stack, port)
        peer.open()
        reasons.append(peer.send("A", b"ask"))
        stack.events()
    taken = slots - slots // 8
    assert reasons == ["none"] * taken + ["no_room"] * (slots - taken)
    assert stack.native.rx_used == taken
    lib.tcp_want_sent_all(stack.tcp, sender.conn)
    sender.send("A")
    assert (sender.conn, {"sent_all"}) in stack.events()
