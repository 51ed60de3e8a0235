"""The path's MTU: claims of routers and of liars, black holes, and the way up again (RFC 1191, 8201, 4821, 5927)."""

import random
import struct

import pytest
from tcp_talk import Options, Peer, Segment, Stack, icmp_error

from tests.packets import checksum

MS = 1000
RTT = 40 * MS
BOTH = pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])


def packet_len(segment: Segment) -> int:
    options = len(segment.options.build())
    return (40 if ":" in segment.src else 20) + 20 + options + len(segment.data)


def too_big(quoted: Segment, mtu: int) -> bytes:
    return icmp_error(quoted, 2, 0, mtu) if ":" in quoted.src else icmp_error(quoted, 3, 4, mtu)


def opened(v6: bool = False, sack: bool = False, **config: int) -> tuple[Stack, Peer]:
    stack = Stack(**config)
    assert stack.listen() == 0
    peer = Peer(stack, v6=v6)
    peer.open(Options(mss=1440 if v6 else 1460, sack_ok=sack))
    return stack, peer


class Path:
    """A bulk transfer from the stack to a peer over a path with an MTU, a round trip at a time."""

    def __init__(
        self, *, v6: bool = False, sack: bool = True, total: int = 600_000, tells: bool = False
    ) -> None:
        self.mtu, self.tells = 1500, tells
        self.stack, self.peer = opened(v6, sack, tx_slots=512, snd_buf_bytes=1 << 20)
        self.left = total
        self.data = random.Random(1).randbytes(total)
        self.got: dict[int, bytes] = {}
        self.acked = 0
        self.sizes: list[int] = []

    def offer(self) -> None:
        done = len(self.data) - self.left
        if self.left:
            self.left -= self.stack.send(self.peer.conn, self.data[done : done + 30_000])

    def deliver(self, segment: Segment) -> None:
        if packet_len(segment) > self.mtu:
            if self.tells:
                self.stack.input(too_big(segment, self.mtu))
            return
        self.sizes.append(packet_len(segment))
        begin = (segment.seq - (self.peer.irs or 0)) % 2**32 - 1
        self.got[begin] = max(self.got.get(begin, b""), segment.data, key=len)
        while any(b <= self.acked < b + len(d) for b, d in self.got.items()):
            self.acked = max(b + len(d) for b, d in self.got.items() if b <= self.acked)
        base = (self.peer.irs or 0) + 1
        above: list[tuple[int, int]] = []
        for b, d in sorted(self.got.items()):
            if b > self.acked and above and above[-1][1] == b:
                above[-1] = (above[-1][0], b + len(d))
            elif b > self.acked:
                above.append((b, b + len(d)))
        sack = [(base + a, base + b) for a, b in above[:3]] if self.stack.info(self.peer.conn).sack else []
        self.peer.send("A", ack=1 + self.acked, options=Options(sack=sack))

    def run(self, until: int | None = None) -> None:
        """Until this much, or all, is acknowledged."""
        goal = until if until is not None else len(self.data)
        for _ in range(3000):
            if self.acked >= goal:
                return
            self.offer()
            sent = self.stack.output()
            self.stack.now_us += RTT // 2
            for segment in sent:
                self.deliver(segment)
            self.stack.advance(RTT // 2)
        raise AssertionError(f"only {self.acked} of {goal} bytes came through")

    def check_data(self) -> None:
        whole = bytearray(len(self.data))
        for begin, data in self.got.items():
            whole[begin : begin + len(data)] = data
        assert bytes(whole) == self.data


@BOTH
@pytest.mark.parametrize("sack", [False, True], ids=["without SACK", "SACK"])
@pytest.mark.parametrize("tells", [False, True], ids=["black hole", "ICMP"])
@pytest.mark.parametrize("after", [0, 60_000], ids=["from the start", "in between"])
def test_a_path_that_is_narrower(v6: bool, sack: bool, tells: bool, after: int) -> None:
    path = Path(v6=v6, sack=sack, tells=tells)
    path.run(after)
    path.mtu = 1300
    path.sizes.clear()
    path.run()
    path.check_data()
    assert max(path.sizes) <= 1300
    c = path.stack.counters
    assert c.pmtu_reductions == 1
    if tells:
        assert (c.icmp_errors > 0, c.pmtu_probes) == (True, 0)
        assert path.stack.info(path.peer.conn).smss == 1300 - (60 if v6 else 40)
        assert c.retransmission_timeouts == (1 if after else 0), (
            "believed at once when nothing speaks against it"
        )
    else:
        assert c.icmp_errors == 0
        assert path.stack.info(path.peer.conn).smss > 1300 - (60 if v6 else 40) - 40, (
            "the search found the size"
        )


@pytest.mark.parametrize("seconds", [500, 700])
def test_after_a_search_the_former_size_is_tried_again(seconds: int) -> None:
    """Ten minutes later, by a connection that was idle meanwhile (RFC 4821 7.3)."""
    path = Path(total=300_000)
    path.mtu = 1300
    path.run()
    found = path.stack.info(path.peer.conn).smss
    assert 1200 < found <= 1260
    path.mtu = 1500
    path.stack.advance(seconds * 1000 * MS)
    assert path.stack.usage["extensions"] == 0
    path.left = len(path.data)
    path.data *= 2
    path.run()
    path.check_data()
    assert path.stack.info(path.peer.conn).smss == (1460 if seconds > 600 else found)


def test_a_blackout_is_not_a_narrow_path_for_long() -> None:
    path = Path()
    path.run(60_000)
    path.mtu = 0
    for _ in range(40):
        path.stack.output()
        path.stack.advance(RTT)
    path.mtu = 1500
    path.run()
    path.check_data()
    assert path.stack.counters.pmtu_reductions >= 1
    assert path.stack.info(path.peer.conn).smss == 1460, "the first probe is of the old size"


def test_a_lost_probe_is_no_congestion() -> None:
    path = Path(total=400_000)
    path.mtu = 1300
    path.run(20_000)
    c = path.stack.counters
    timeouts, before = c.retransmission_timeouts, path.stack.info(path.peer.conn).cwnd_bytes
    fast = c.fast_retransmits
    path.run()
    assert c.pmtu_probes > 3
    assert c.pmtu_raises >= 1
    assert (c.retransmission_timeouts, c.fast_retransmits) == (timeouts, fast)
    assert path.stack.info(path.peer.conn).cwnd_bytes >= before


@pytest.mark.thorough
@BOTH
def test_forged_claims_change_nothing(v6: bool) -> None:
    """49,000 each on a connection that makes progress, at any number and by a liar who knows them (RFC 5927 7.2)."""
    stack, peer = opened(v6, tx_slots=512)
    rng = random.Random(7)
    for turn in range(50):
        stack.send(peer.conn, bytes(100_000))
        flight = stack.output()
        numbers = [s.seq for s in flight]
        victim = flight[0]
        for _ in range(1000 if turn else 0):
            victim.seq = rng.choice(numbers) if turn % 2 else rng.getrandbits(32)
            stack.input(too_big(victim, rng.choice([0, 68, 576, 1000, 1279, 1280, 1400, 9000])))
        stack.now_us += RTT
        peer.ack += sum(len(s.data) for s in flight)
        peer.send("A")
        assert stack.info(peer.conn).smss == (1440 if v6 else 1460)
    assert stack.counters.icmp_errors == 49_000
    assert stack.counters.pmtu_reductions == 0


ERRORS4 = [(3, code) for code in (0, 1, 2, 3, 5, 6, 7, 9, 10, 13)] + [(11, 0), (11, 1)]
ERRORS6 = [(1, code) for code in range(7)] + [(3, 0), (3, 1)]


@pytest.mark.parametrize(
    ("v6", "kind", "code"), [(False, *e) for e in ERRORS4] + [(True, *e) for e in ERRORS6]
)
def test_no_error_ends_an_open_connection(v6: bool, kind: int, code: int) -> None:
    stack, peer = opened(v6)
    stack.send(peer.conn, b"data")
    (segment,) = stack.output()
    assert stack.input(icmp_error(segment, kind, code, 0)) == "none"
    peer.ack = 5
    peer.send("A")
    assert stack.state(peer.conn) == "ESTABLISHED"
    assert stack.counters.icmp_errors == 1


def broken_checksum(p: bytearray) -> None:
    p[22] ^= 1


def quotes_udp(p: bytearray) -> None:
    p[28 + 9] = 17
    p[22:24] = b"\0\0"
    p[22:24] = struct.pack("!H", checksum(bytes(p[20:])))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(lambda p: None, "none", id="good"),
        pytest.param(broken_checksum, "checksum", id="bad checksum"),
        pytest.param(quotes_udp, "icmp", id="about UDP"),
    ],
)
def test_a_malformed_error_is_dropped(change: object, reason: str) -> None:
    stack, peer = opened()
    stack.send(peer.conn, b"x" * 1400)
    (segment,) = stack.output()
    packet = bytearray(too_big(segment, 1000))
    change(packet)  # type: ignore[operator]
    assert stack.input(bytes(packet)) == reason


def test_a_short_quote_is_dropped_and_an_unknown_flow_too() -> None:
    stack, peer = opened()
    stack.send(peer.conn, b"x" * 1400)
    (segment,) = stack.output()
    whole = too_big(segment, 1000)
    for length in range(20, len(whole)):
        cut = bytearray(whole[:length])
        cut[2:4] = struct.pack("!H", length)
        cut[10:12] = b"\0\0"
        cut[10:12] = struct.pack("!H", checksum(bytes(cut[:20])))
        if length >= 28:
            cut[22:24] = b"\0\0"
            cut[22:24] = struct.pack("!H", checksum(bytes(cut[20:])))
        assert stack.input(bytes(cut)) == ("malformed" if length < 28 else "icmp")
    segment.dport += 1
    assert stack.input(too_big(segment, 1000)) == "no_connection"
    assert stack.info(peer.conn).smss == 1460


def test_pool_dry_while_segments_are_cut() -> None:
    """Cutting needs slots; without them segments wait, and go out when there are."""
    stack, peer = opened(tx_slots=16)
    stack.send(peer.conn, b"x" * 1460 * 3)
    segments = stack.output()
    stack.native.tx_limit = stack.native.tx_used
    stack.input(too_big(segments[0], 1000))
    assert all(packet_len(s) <= 1000 for s in stack.output())
    stack.native.tx_limit = 16
    again = b"".join(s.data for s in stack.output())
    assert len(again) == 1460 * 3
    peer.ack = 1 + 1460 * 3
    peer.send("A")
    assert stack.usage["tx_slots_held"] == 0
