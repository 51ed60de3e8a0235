"""Segments of a batch that continue each other are taken as one: the same comes of them as one by one, and what is
not of a run ends it."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from _tcp import ffi, lib
from hypothesis import given
from hypothesis import strategies as st
from tcp_talk import HERE6, PEER6, Options, Peer, Segment, Stack

SYN = Options(mss=1460, sack_ok=True, ts=(1000, 0), wscale=7)


def aligned(packet: bytes) -> bytes:
    """With the NOPs before the timestamp, where nearly all stacks have them."""
    at = 60 if packet[0] >> 4 == 6 else 40
    if packet[at : at + 2] + packet[at + 10 : at + 12] != b"\x08\x0a\x01\x01":
        return packet
    return packet[:at] + packet[at + 10 : at + 12] + packet[at : at + 10] + packet[at + 12 :]


class Talk:
    """A connection whose segments come in batches, cut into parts of at_once."""

    def __init__(
        self, at_once: int, *, syn: Options = SYN, v6: bool = False, ecn: bool = False, **config: Any
    ) -> None:
        self.at_once = at_once
        self.stack = Stack(**config)
        self.stack.listen()
        self.peer = Peer(self.stack)
        if v6:
            self.peer.here, self.peer.there = PEER6, HERE6
        if ecn:
            self.peer.send("SEC", options=syn)
            self.peer.expect("SAE", seq=0)
            self.peer.ts = syn.ts[0] if syn.ts else None
            self.peer.send("A")
            self.conn = self.stack.events()[0][0]
        else:
            self.conn = self.peer.open(syn)
        self.delivered = b""
        self.log: list[Any] = []
        self.heard = self.peer.ack  # what the peer has of this side's data

    def queue(self, packet: bytes, **descriptor: Any) -> None:
        """One more packet of the batch, and what its descriptor says otherwise."""
        native = self.stack.native
        lib.native_queue(native, packet, len(packet))
        for name, value in descriptor.items():
            setattr(native.batch[native.batched - 1], name, value)
        if "offset" in descriptor:  # it lies there, in the next slot too
            at = native.batch[native.batched - 1].slot * 2048 + descriptor["offset"]
            ffi.memmove(native.rx + at, packet, len(packet))
            native.batch[native.batched - 1].ip = native.rx + at

    def text(self, data: bytes, flags: str = "A", **kwargs: Any) -> bytes:
        """The next segment of the stream."""
        packet = self.peer.segment(flags, data, **kwargs).build()
        self.peer.seq += len(data)
        return aligned(packet)

    def give(self) -> int:
        """The batch into the core; how many segments were taken as parts of runs."""
        before = self.stack.counters.run_segments
        lib.native_input_queued(self.stack.native, self.at_once, self.stack.now_us)
        lib.tcp_check(self.stack.tcp)
        return int(self.stack.counters.run_segments - before)

    def turn(self, read: int = 1 << 20) -> list[Segment]:
        """What a thread does behind a batch."""
        self.log.append([(conn, sorted(kinds)) for conn, kinds in self.stack.events()])
        if self.stack.state(self.conn) != "FREE":
            self.delivered += self.stack.recv(self.conn, read)
        sent = self.stack.output()
        self.log.append(sent)
        return sent


def settle(talk: Talk) -> None:
    """Three full segments and their ACK: rounds of receiving are measured from now on."""
    for _ in range(3):
        talk.queue(talk.text(bytes(1000)))
    talk.give()
    talk.turn()


def test_a_run_is_taken_as_one_and_acknowledged_once() -> None:
    talk = Talk(64)
    settle(talk)
    text = [bytes([i]) * 1000 for i in range(8)]
    for data in text:
        talk.queue(talk.text(data, "PA" if data[0] % 3 == 2 else "A"))
    assert talk.give() == 7
    assert [(len(s.data), (s.ack - talk.peer.iss) % 2**32) for s in talk.turn()] == [(0, talk.peer.seq)]
    assert talk.delivered[3000:] == b"".join(text)
    assert talk.stack.counters.segments_received == 2 + 3 + 8


def test_a_run_of_small_segments_waits_for_its_ack_as_they_would() -> None:
    talk = Talk(64)
    settle(talk)
    for _ in range(3):
        talk.queue(talk.text(b"ab"))
    assert talk.give() == 2
    assert not talk.turn()
    talk.stack.advance(40_000)
    assert len(talk.stack.output()) == 1


def raw(packet: bytes, at: int, value: int) -> bytes:
    """The packet with another byte; verified ones are not summed again."""
    return packet[:at] + bytes([value]) + packet[at + 1 :]


def after(talk: Talk, flags: str = "A", data: bytes = b"next", **kwargs: Any) -> bytes:
    """What would continue the run, but for these."""
    return aligned(talk.peer.segment(flags, data, **kwargs).build())


def of_another_port(talk: Talk) -> bytes:
    packet = after(talk)
    return packet[:20] + struct.pack("!H", 5001) + packet[22:]


@dataclass
class Odd:
    """What ends a run, and what its descriptor says otherwise."""

    packet: Callable[[Talk], bytes]
    descriptor: dict[str, Any] = field(default_factory=dict)
    syn: Options = field(default_factory=lambda: SYN)
    v6: bool = False


ODD = {
    "a gap": Odd(lambda t: after(t, seq=t.peer.seq + 1)),
    "a repetition": Odd(lambda t: after(t, seq=t.peer.seq - 1)),
    "an ACK of something": Odd(lambda t: after(t, ack=5)),
    "an ACK of what was not sent": Odd(lambda t: after(t, ack=100)),
    "an old ACK": Odd(lambda t: after(t, ack=0)),
    "a larger window": Odd(lambda t: after(t, wnd=40000)),
    "a smaller window": Odd(lambda t: after(t, wnd=1000)),
    "FIN": Odd(lambda t: after(t, "FA")),
    "RST": Odd(lambda t: after(t, "RA", options=Options(ts=(1000, 0)))),
    "SYN": Odd(lambda t: after(t, "SA")),
    "URG": Odd(lambda t: after(t, "UA")),
    "ECE": Odd(lambda t: after(t, "EA")),
    "CWR": Odd(lambda t: after(t, "CA")),
    "no ACK flag": Odd(lambda t: after(t, "P")),
    "no text": Odd(lambda t: after(t, data=b"")),
    "more than the window": Odd(lambda t: after(t, data=bytes(1300)), syn=Options(mss=1460)),
    "an old timestamp": Odd(lambda t: after(t, options=Options(ts=(999, 0)))),
    "a timestamp at another place": Odd(
        lambda t: t.peer.segment("A", b"next", options=Options(ts=(999, 0))).build()
    ),
    "a SACK block": Odd(lambda t: after(t, options=Options(ts=(1000, 0), sack=[(1, 2)]))),
    "a SACK block instead of a timestamp": Odd(lambda t: raw(raw(after(t), 42, 5), 43, 10)),
    "no timestamp": Odd(lambda t: raw(after(t), 32, 0x50)),
    "a timestamp that was not agreed": Odd(
        lambda t: after(t, options=Options(ts=(1, 0))), syn=Options(mss=1460)
    ),
    "CE": Odd(lambda t: raw(after(t), 1, 3)),
    "an option of IPv4": Odd(lambda t: raw(after(t), 0, 0x46)),
    "a fragment": Odd(lambda t: raw(after(t), 6, 0x20)),
    "a later fragment": Odd(lambda t: raw(after(t), 7, 1)),
    "another protocol": Odd(lambda t: raw(after(t), 9, 17)),
    "another source": Odd(lambda t: raw(after(t), 15, 77)),
    "another destination": Odd(lambda t: raw(after(t), 19, 77)),
    "another port": Odd(of_another_port),
    "a length beyond the packet": Odd(lambda t: raw(after(t), 3, 200)),
    "a length of the header alone": Odd(lambda t: raw(after(t), 3, 52)),
    "a length within the header": Odd(lambda t: raw(after(t), 3, 30)),
    "a packet that ends in the header": Odd(after, {"len": 50}),
    "a packet that leaves its slot": Odd(after, {"offset": 2000}),
    "a slot that is none": Odd(after, {"slot": 64}),
    "a checksum that nobody verified": Odd(lambda t: raw(after(t), 36, 1), {"verified": False}),
    "another class of IPv6": Odd(lambda t: raw(after(t), 1, 0x30), v6=True),
    "another header of IPv6": Odd(lambda t: raw(after(t), 6, 17), v6=True),
    "another source of IPv6": Odd(lambda t: raw(after(t), 23, 77), v6=True),
    "another destination of IPv6": Odd(lambda t: raw(after(t), 39, 77), v6=True),
    "a length of IPv6 beyond the packet": Odd(lambda t: raw(after(t), 5, 200), v6=True),
}


def ended(at_once: int, odd: Odd) -> tuple[Talk, int]:
    """A run of two behind its first segment, and then the odd one, with the hash of all; what was taken as a run."""
    talk = Talk(at_once, syn=odd.syn, v6=odd.v6, rcv_buf_bytes=4096)
    talk.queue(talk.text(bytes(1000)))
    talk.queue(talk.text(bytes(1000)))
    talk.give()
    talk.turn()
    talk.stack.send(talk.conn, b"abcd")
    talk.peer.wnd = 30000
    for _ in range(3):
        talk.queue(talk.text(bytes(1000)))
    talk.queue(odd.packet(talk), **{"hash": talk.stack.native.batch[0].hash, **odd.descriptor})
    return talk, talk.give()


@pytest.mark.parametrize("name", ODD)
def test_what_ends_a_run_is_seen_for_itself(name: str) -> None:
    together, in_run = ended(64, ODD[name])
    alone, _ = ended(1, ODD[name])
    assert in_run == 2
    assert lib.native_is_twin(together.stack.native, alone.stack.native)
    together.turn()
    alone.turn()
    assert together.log == alone.log


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("syn", [SYN, Options(mss=1460)], ids=["timestamps", "plain"])
def test_what_does_not_end_it(syn: Options, v6: bool) -> None:
    ids = Odd(lambda t: after(t, "PA") if v6 else raw(raw(after(t, "PA"), 5, 9), 8, 9), syn=syn, v6=v6)
    assert ended(64, ids)[1] == 3
    if syn.ts is not None:
        assert ended(64, Odd(lambda t: after(t, options=Options(ts=(2000, 77))), v6=v6))[1] == 3


def no_run(talk: Talk, packets: int = 3, tos: int = 0) -> Talk:
    """So many in a batch are no run."""
    for _ in range(packets):
        talk.queue(raw(talk.text(b"text"), 1, tos))
    assert talk.give() == 0
    return talk


def steady(**kwargs: Any) -> Talk:
    """A connection that would take a run at once, since its buffer does not grow."""
    return Talk(64, rcv_buf_bytes=65536, **kwargs)


def test_there_is_one_from_the_first_segment_on() -> None:
    talk = steady()
    for _ in range(3):
        talk.queue(talk.text(b"text"))
    assert talk.give() == 2


def test_there_is_none_before_a_hole() -> None:
    talk = steady()
    talk.queue(after(talk, seq=talk.peer.seq + 500, ack=0))  # too old for its window to count
    talk.give()
    no_run(talk)


def test_there_is_none_before_the_number_that_the_window_is_of() -> None:
    talk = steady()
    talk.queue(after(talk, data=b"", seq=talk.peer.seq + 500))
    talk.give()
    no_run(talk)


def test_there_is_none_of_a_connection_that_has_ended_on_this_side() -> None:
    talk = steady()
    talk.stack.shutdown(talk.conn)
    talk.turn()
    no_run(talk)


def test_quick_acks_are_counted_one_by_one() -> None:
    talk = no_run(steady(quick_acks=4))
    for _ in range(3):
        talk.queue(talk.text(b"text"))
    assert talk.give() == 2  # behind the fourth


@pytest.mark.parametrize("cc", [lib.TCP_CC_CUBIC, lib.TCP_CC_DCTCP])
def test_marks_of_congestion_are_counted_one_by_one(cc: int) -> None:
    talk = no_run(steady(ecn=True, congestion_control=cc), tos=3)
    assert talk.stack.counters.ce_received == 3
    (ack,) = talk.turn()
    assert ack.flags & 64
    talk.queue(talk.text(b"text", "CA"))
    talk.queue(raw(talk.text(b"text"), 1, 3))
    talk.queue(raw(talk.text(b"text"), 1, 3))
    assert talk.give() == 0
    assert talk.stack.counters.ce_received == 5


def rounds(at_once: int) -> Talk:
    talk = Talk(at_once, rcv_buf_bytes=8192, rcv_buf_max_bytes=65536)
    for count in (3, *[4] * 12):
        for _ in range(count):
            talk.queue(talk.text(bytes(1000)))
        talk.give()
        talk.turn()
        talk.stack.now_us += 1000
    return talk


def test_the_buffer_grows_within_a_run_as_without() -> None:
    together, alone = rounds(64), rounds(1)
    assert together.stack.counters.run_segments > 15
    assert (
        together.stack.info(together.conn).rcv_buf_bytes == alone.stack.info(alone.conn).rcv_buf_bytes > 8192
    )
    assert lib.native_is_twin(together.stack.native, alone.stack.native)


def unread(at_once: int, config: dict[str, int]) -> Talk:
    talk = Talk(at_once, **config)
    for _ in range(6):
        for _ in range(10):
            if talk.stack.native.rx_used < config["rx_slots"]:
                talk.queue(talk.text(b"text"))
        talk.give()
        talk.turn(read=0)
    return talk


@pytest.mark.parametrize(
    "config", [{"rx_slots": 48}, {"rx_slots": 256, "rcv_buf_bytes": 4096}], ids=["all", "own"]
)
def test_a_run_ends_with_the_slots_that_a_connection_may_hold(config: dict[str, int]) -> None:
    together, alone = unread(64, config), unread(1, config)
    assert together.stack.dropped("no_room") == alone.stack.dropped("no_room") > 0
    assert lib.native_is_twin(together.stack.native, alone.stack.native)


# --- anything ---

KINDS = {
    "text": lambda t, n: t.text(bytes([n % 251]) * n),
    "push": lambda t, n: t.text(bytes([n % 251]) * n, "PA"),
    "later": lambda t, n: t.text(b"x" * n, options=Options(ts=(1000 + n, n)) if t.peer.ts else None),
    "older": lambda t, n: after(t, data=b"x" * n, options=Options(ts=(900, n)) if t.peer.ts else None),
    "again": lambda t, n: after(t, data=b"x" * n, seq=t.peer.seq - n),
    "overlap": lambda t, n: after(t, data=b"y" * (n + 5), seq=t.peer.seq - n),
    "ahead": lambda t, n: after(t, data=b"x" * n, seq=t.peer.seq + n),
    "pure": lambda t, n: after(t, data=b""),
    "window": lambda t, n: t.text(b"w" * n, wnd=60000 + n),
    "marked": lambda t, n: raw(t.text(b"c" * n), 1, 0x30 if t.peer.there == HERE6 else 3),
    "reduced": lambda t, n: t.text(b"r" * n, "CA"),
    "echo": lambda t, n: t.text(b"e" * n, "EA"),
    "urgent": lambda t, n: t.text(b"u" * n, "UA"),
    "acknowledges": lambda t, n: t.text(b"a" * n, ack=t.heard),
    "fin": lambda t, n: after(t, "FA", seq=t.peer.seq + n % 3),
}
STEP = st.tuples(
    st.one_of(st.just("text"), st.sampled_from(sorted(KINDS))), st.one_of(st.integers(1, 40), st.just(1000))
)
TURN = st.tuples(st.lists(STEP, max_size=12), st.sampled_from([0, 7, 1 << 20]), st.sampled_from([0, 0, 3000]))


def follow(at_once: int, turns: list[Any], config: dict[str, Any]) -> Talk:
    talk = Talk(at_once, **config)
    for steps, read, send in turns:
        for kind, size in steps:
            if talk.stack.native.rx_used < talk.stack.config.rx_slots:
                talk.queue(KINDS[kind](talk, size))
        talk.give()
        sent = talk.turn(read)
        talk.heard = max(
            [talk.heard, *((s.seq + len(s.data) - talk.peer.irs) % 2**32 for s in sent if s.data)]
        )
        if send and talk.stack.state(talk.conn) == "ESTABLISHED":
            talk.stack.send(talk.conn, bytes(send))
        talk.stack.now_us += 700
        talk.stack.advance(0)
    return talk


@given(
    st.lists(TURN, min_size=1, max_size=5),
    st.sampled_from([64, 2, 3]),
    st.fixed_dictionaries(
        {
            "syn": st.sampled_from([SYN, Options(mss=1460)]),
            "v6": st.booleans(),
            "ecn": st.booleans(),
            "rcv_buf_bytes": st.sampled_from([0, 4096]),
            "rx_slots": st.sampled_from([24, 64]),
            "congestion_control": st.sampled_from([lib.TCP_CC_CUBIC, lib.TCP_CC_DCTCP]),
        }
    ),
)
def test_any_batches_are_as_their_segments_one_by_one(
    turns: list[Any], at_once: int, config: dict[str, Any]
) -> None:
    together, alone = follow(at_once, turns, config), follow(1, turns, config)
    assert together.log == alone.log
    assert together.delivered == alone.delivered
    assert lib.native_is_twin(together.stack.native, alone.stack.native)
