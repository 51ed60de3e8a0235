"""Every reason for which the core drops a segment, by a segment that is dropped for it, counted once under its name."""

from collections.abc import Callable

import pytest
from _tcp import ffi, lib
from tcp_talk import HERE4, PEER4, Options, Peer, Segment, Stack, established, icmp_error

Dropping = Callable[[], tuple[Stack, str]]


def on_open(flags: str, data: bytes = b"", *, ts: bool = False, **fields: int) -> Dropping:
    """A segment to an established connection."""

    def run() -> tuple[Stack, str]:
        stack, peer = established(options=Options(mss=1460, ts=(1000, 0) if ts else None))
        if ts:
            peer.ts = 1 if "old" in fields else None
        fields.pop("old", None)
        return stack, peer.send(flags, data, **fields)

    return run


def packet(change: Callable[[bytearray], None], **peer_fields: str | int) -> Dropping:
    """A SYN to a listener, changed before it arrives."""

    def run() -> tuple[Stack, str]:
        stack = Stack()
        stack.listen()
        peer = Peer(stack)
        for name, value in peer_fields.items():
            setattr(peer, name, value)
        raw = bytearray(peer.segment("S").build())
        change(raw)
        return stack, stack.input(bytes(raw))

    return run


def nothing(_: bytearray) -> None:
    pass


def break_checksum(raw: bytearray) -> None:
    raw[36] ^= 1


def break_data_offset(raw: bytearray) -> None:
    raw[32] = 0x40


def twice_out_of_order() -> tuple[Stack, str]:
    stack, peer = established()
    peer.send("A", b"data", seq=10)
    return stack, peer.send("A", b"data", seq=10)


def no_room() -> tuple[Stack, str]:
    stack = Stack(extension_max=1)
    stack.listen()
    first = Peer(stack, 1)
    first.open()
    second = Peer(stack, 2)
    second.open()
    first.send("A", b"unread")
    return stack, second.send("A", b"data")


def reassembly_full() -> tuple[Stack, str]:
    stack, peer = established(rx_slots=512)
    for i in range(32):
        assert peer.send("A", b"x", seq=10 + 2 * i) == "none"
    return stack, peer.send("A", b"x", seq=200)


def no_tcb() -> tuple[Stack, str]:
    stack = Stack(conn_max=1)
    stack.listen()
    Peer(stack, 1).open()
    peer = Peer(stack, 2)
    peer.send("S")
    peer.expect("SA")
    return stack, peer.send("A")


def after_close() -> tuple[Stack, str]:
    stack, peer = established()
    stack.close(peer.conn)
    return stack, peer.send("A", b"anybody?")


def cookie() -> tuple[Stack, str]:
    stack = Stack(half_open_max=1)
    stack.listen()
    for port in (1, 2):
        Peer(stack, port).send("S")
    peer = Peer(stack, 3)
    peer.irs = 0
    return stack, peer.send("A", ack=99)


def moving() -> tuple[Stack, str]:
    stack = Stack()
    stack.listen()
    stack.native.refuse = True
    return stack, Peer(stack).send("S")


def icmp() -> tuple[Stack, str]:
    stack, peer = established()
    nothing_in_flight = Segment(HERE4, PEER4, 80, peer.port, (peer.irs or 0) + 1, 0, 16, 0, Options(), b"")
    return stack, stack.input(icmp_error(nothing_in_flight, 3, 4, 1000))


CASES: dict[int, Dropping] = {
    lib.TCP_DROP_MALFORMED: packet(break_data_offset),
    lib.TCP_DROP_CHECKSUM: packet(break_checksum),
    lib.TCP_DROP_NOT_LOCAL: packet(nothing, there="10.9.9.9"),
    lib.TCP_DROP_NO_CONNECTION: packet(nothing, stack_port=81),
    lib.TCP_DROP_BAD_FLAGS: on_open(""),
    lib.TCP_DROP_OUT_OF_WINDOW: on_open("A", b"far", seq=100_000),
    lib.TCP_DROP_PAWS: on_open("A", b"old", ts=True, old=1),
    lib.TCP_DROP_BAD_ACK: on_open("A", ack=1000),
    lib.TCP_DROP_CHALLENGED: on_open("S"),
    lib.TCP_DROP_NO_TIMESTAMP: on_open("A", b"none", ts=True),
    lib.TCP_DROP_DUPLICATE: twice_out_of_order,
    lib.TCP_DROP_REASSEMBLY_FULL: reassembly_full,
    lib.TCP_DROP_NO_ROOM: no_room,
    lib.TCP_DROP_NO_TCB: no_tcb,
    lib.TCP_DROP_AFTER_CLOSE: after_close,
    lib.TCP_DROP_COOKIE: cookie,
    lib.TCP_DROP_MOVING: moving,
    lib.TCP_DROP_ICMP: icmp,
}


def name(drop: int) -> str:
    return str(ffi.string(lib.tcp_drop_name(drop)).decode())


@pytest.mark.parametrize("drop", range(1, lib.TCP_DROP_COUNT), ids=name)
def test_reason(drop: int) -> None:
    stack, reason = CASES[drop]()
    assert reason == name(drop)
    assert [stack.dropped(name(d)) for d in range(lib.TCP_DROP_COUNT)] == [
        d == drop for d in range(lib.TCP_DROP_COUNT)
    ]


def test_no_such_reason() -> None:
    assert lib.tcp_drop_name(lib.TCP_DROP_COUNT) == ffi.NULL


@pytest.mark.parametrize("length", [0, 1, 19, 20, 39])
def test_a_packet_cut_short(length: int) -> None:
    stack, peer = established()
    assert stack.input(peer.segment("A", b"data").build()[:length]) == "malformed"


def test_a_packet_that_is_not_in_its_slot() -> None:
    stack, peer = established()
    raw = peer.segment("A", b"x" * 1000).build()
    assert stack.input(raw, offset=1000) == "none"
    assert lib.native_input_raw(stack.native, 4000, 100, stack.now_us) == lib.TCP_DROP_MALFORMED
    assert peer.read() == b"x" * 1000
