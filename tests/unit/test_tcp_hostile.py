"""Whatever arrives and whatever is asked for: no crash, tcp_check() holds, everything comes back in the end.

All flags in all states, urgent pointers, ACK wars, and long random walks of peer, user and driver.
"""

import itertools
import random
from collections.abc import Callable

import pytest
from _tcp import ffi, lib
from tcp_talk import FLAG_BITS, PEER4, Options, Peer, Stack, established

MS = 1000
FLAGS = ["".join(c) for n in range(7) for c in itertools.combinations("FSRPAU", n)]


def fresh() -> tuple[Stack, Peer]:
    stack = Stack(rx_slots=32, tx_slots=32)
    stack.listen()
    return stack, Peer(stack)


def to_listen() -> tuple[Stack, Peer]:
    stack, peer = fresh()
    peer.irs = 0
    return stack, peer


def to_closed() -> tuple[Stack, Peer]:
    stack, peer = to_listen()
    peer.stack_port = 81
    return stack, peer


def to_half_open() -> tuple[Stack, Peer]:
    stack, peer = fresh()
    peer.send("S")
    peer.expect("SA")
    return stack, peer


def to_syn_sent() -> tuple[Stack, Peer]:
    stack, peer = fresh()
    conn = ffi.new("uint32_t *")
    lib.tcp_connect(stack.tcp, ffi.NULL, 0, stack.ip(PEER4), 5000, ffi.NULL, ffi.NULL, 0, stack.now_us, conn)
    peer.queue = stack.output()
    peer.stack_port = peer.queue[0].sport
    peer.conn = conn[0]
    peer.expect("S")
    return stack, peer


def to_syn_received() -> tuple[Stack, Peer]:
    stack, peer = to_syn_sent()
    peer.send("S")
    peer.expect("SA")
    return stack, peer


def to_established() -> tuple[Stack, Peer]:
    stack, peer = fresh()
    peer.open()
    return stack, peer


def to_fin_wait_1() -> tuple[Stack, Peer]:
    stack, peer = to_established()
    stack.shutdown(peer.conn)
    peer.expect("FA")
    return stack, peer


def to_fin_wait_2() -> tuple[Stack, Peer]:
    stack, peer = to_fin_wait_1()
    peer.send("A")
    return stack, peer


def to_close_wait() -> tuple[Stack, Peer]:
    stack, peer = to_established()
    peer.send("FA")
    peer.expect("A")
    return stack, peer


def to_closing() -> tuple[Stack, Peer]:
    stack, peer = to_fin_wait_1()
    peer.send("FA", ack=1)
    peer.expect("A")
    return stack, peer


def to_last_ack() -> tuple[Stack, Peer]:
    stack, peer = to_close_wait()
    stack.shutdown(peer.conn)
    peer.expect("FA")
    return stack, peer


def to_time_wait() -> tuple[Stack, Peer]:
    stack, peer = to_fin_wait_2()
    peer.send("FA")
    peer.expect("A")
    return stack, peer


STATES: dict[str, Callable[[], tuple[Stack, Peer]]] = {
    "CLOSED": to_closed,
    "LISTEN": to_listen,
    "half-open": to_half_open,
    "SYN-SENT": to_syn_sent,
    "SYN-RECEIVED": to_syn_received,
    "ESTABLISHED": to_established,
    "FIN-WAIT-1": to_fin_wait_1,
    "FIN-WAIT-2": to_fin_wait_2,
    "CLOSE-WAIT": to_close_wait,
    "CLOSING": to_closing,
    "LAST-ACK": to_last_ack,
    "TIME-WAIT": to_time_wait,
}


def settle(stack: Stack) -> None:
    """The user lets go of all, time passes, and nothing is left."""
    for conn in range(16):
        if lib.tcp_conn_state(stack.tcp, conn) != lib.TCP_STATE_FREE:
            stack.abort(conn)
    stack.events()
    stack.output()
    for _ in range(200):
        stack.advance(1_000 * MS)
        if not stack.output() and stack.is_idle():
            break  # time changes nothing any more
    stack.events()
    assert stack.is_empty()


@pytest.mark.parametrize("state", STATES)
def test_all_flags_in_all_states(state: str) -> None:
    for flags in FLAGS:
        for seq, data in ((0, b""), (0, b"data"), (1, b""), (-1, b"x"), (70_000, b"x"), (2**31, b"")):
            stack, peer = STATES[state]()
            peer.send(flags, data, seq=peer.seq + seq)
            for _ in range(3):
                answers = stack.output()
                assert len(answers) <= 1, (flags, seq, data)
                if "R" in flags:
                    assert not any(s.flags & FLAG_BITS["R"] for s in answers), "RST answered by RST"
                stack.events()
            settle(stack)


@pytest.mark.parametrize("state", STATES)
def test_urgent_data_is_inline(state: str) -> None:
    for up in (0, 1, 4, 5, 65535):
        stack, peer = STATES[state]()
        packet = bytearray(peer.segment("AU", b"data").build())
        packet[38:40] = up.to_bytes(2, "big")
        stack.input(bytes(packet), verified=True)
        if state == "ESTABLISHED":
            assert peer.read() == b"data"
        stack.output()
        settle(stack)


def test_two_stacks_do_not_war_over_a_forged_ack() -> None:
    stack, peer = to_established()
    answers = 0
    for _ in range(100):
        peer.send("A", ack=5000)  # acknowledges what was never sent, as the other side will find too
        answers += len(stack.output())
    assert answers == 1


def test_blind_segments_change_nothing() -> None:
    stack, peer = to_established()
    answers = 0
    for seq in range(70_000, 2**32 - 70_000, 2**32 // 5000):
        for flags in ("R", "RA", "S", "A"):
            peer.send(flags, seq=seq, ack=1 - seq % 2**31)
        stack.now_us += 100
        answers += len(stack.output())
    assert stack.state(peer.conn) == "ESTABLISHED"
    assert answers <= 3  # at most two a second
    peer.send("A", b"real")
    assert peer.read() == b"real"


def test_challenges_of_one_connection_say_nothing_of_another() -> None:
    stack, a = to_established()
    b = Peer(stack, 5001)
    b.open()
    for _ in range(1000):
        a.send("R", seq=50)
    a.expect("A")
    b.send("R", seq=50)
    b.expect("A")


def test_tiny_segments_out_of_order_are_bounded() -> None:
    stack = Stack(rx_slots=1024)
    stack.listen()
    peer = Peer(stack)
    peer.open()
    for i in range(600):
        peer.send("A", b"x", seq=2 + 2 * i)
    assert stack.usage["rx_slots_held"] <= 100
    assert stack.dropped("reassembly_full") >= 500
    peer.send("A", b"y", seq=1)
    assert peer.read() == b"yx"


def test_tiny_segments_do_not_take_the_window_back() -> None:
    """Each holds a slot, and fewer slots are left than the window promised: the promise is kept."""
    stack = Stack(rx_slots=1024, rcv_buf_bytes=8192)
    stack.listen()
    peer = Peer(stack)
    peer.open()
    edges = []
    for data in [b"x" * 1000] * 3 + [b"x"] * 76:  # so far below its largest that it could be another
        peer.send("A", data)
        stack.advance(40 * MS)
        edges += [(s.ack - peer.iss) % 2**32 + s.wnd for s in stack.output()]
    assert len(edges) > 70
    assert edges == sorted(edges)


def test_replies_are_bounded() -> None:
    stack = Stack()
    peer = Peer(stack)
    peer.irs = 0
    for port in range(1, 2001):
        peer.port = port
        peer.send("A")
    assert len(stack.output()) == 512


class Walk:
    """A peer that does anything, a user who does anything, a driver that refuses now and then."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.stack = Stack(
            rx_slots=24,
            tx_slots=24,
            conn_max=6,
            extension_max=4,
            half_open_max=4,
            time_wait_max=2,
            rcv_buf_bytes=8192,
            snd_buf_bytes=8192,
            congestion_control=rng.randrange(2),
        )
        self.stack.listen()
        isses = [0, 2**32 - 1500, 2**31 - 700]
        self.peers = [Peer(self.stack, 6000 + i, v6=bool(i % 2), iss=rng.choice(isses)) for i in range(4)]
        self.held: set[int] = set()

    def peer_opens(self, peer: Peer) -> None:
        rng = self.rng
        options = Options(
            mss=rng.choice([None, 100, 1460]),
            sack_ok=rng.random() < 0.5,
            wscale=rng.choice([None, 0, 7]),
            ts=rng.choice([None, (rng.getrandbits(32), 0)]),
        )
        peer.ts, peer.irs, peer.seq, peer.ack = None, None, 0, 0
        peer.send("S", options=options)
        peer.ts = options.ts[0] if options.ts else None

    def peer_sends(self, peer: Peer) -> None:
        rng = self.rng
        data = bytes(rng.randrange(0, 1400))
        sack = [(rng.getrandbits(32), rng.getrandbits(32))] if rng.random() < 0.2 else []
        if peer.irs is not None and rng.random() < 0.5:
            low = peer.irs + peer.ack - rng.randrange(4000)
            sack.append((low, low + rng.randrange(3000)))
        peer.send(
            rng.choice(["A", "A", "A", "FA"]),
            data if rng.random() < 0.6 else b"",
            seq=peer.seq + rng.choice([0, 0, 0, 0, -100, 500, 3000]),
            ack=peer.ack + rng.choice([0, 0, 0, -500, -1, 1]),
            wnd=rng.choice([0, 50, 3000, 65535]),
            options=Options(sack=sack),
        )
        if rng.random() < 0.7:
            peer.seq += len(data)

    def user_acts(self, conn: int) -> None:
        stack, rng = self.stack, self.rng
        match rng.randrange(8):
            case 0:
                stack.send(conn, bytes(rng.randrange(9000)))
            case 1:
                stack.recv(conn, 700)
            case 2:
                lib.tcp_set_nodelay(stack.tcp, conn, True)
            case 3:
                stack.shutdown(conn)
            case 4:
                lib.tcp_set_keepalive(stack.tcp, conn, 5000)
            case 5:
                lib.tcp_want_sent_all(stack.tcp, conn)
            case 6:
                self.let_go(conn)

    def let_go(self, conn: int) -> None:
        self.held.discard(conn)
        self.rng.choice([self.stack.close, self.stack.abort])(conn)

    def driver_acts(self) -> None:
        native, rng = self.stack.native, self.rng
        native.tx_limit = rng.choice([0, 2, 24, 24])
        native.out_room = rng.choice([0, 3, 2**32 - 1])
        native.hold = rng.random() < 0.3
        if rng.random() < 0.5:
            lib.native_complete(native)
        if rng.random() < 0.1:
            lib.native_rebase(native, rng.choice([3, 1000]), self.stack.now_us, 50 * MS)

    def take_events(self) -> None:
        self.held |= {conn for conn, kinds in self.stack.events() if "accepted" in kinds}

    def peers_listen(self) -> None:
        for p in self.peers:
            p.collect()
            for s in p.queue:
                if s.flags & 2 and p.irs is None:
                    p.irs = s.seq
                if p.irs is not None:
                    p.ack = (s.seq - p.irs + len(s.data) + bool(s.flags & 2) + bool(s.flags & 1)) % 2**32
                    p.tsecr = s.options.ts[0] if s.options.ts else 0
            p.queue.clear()
        self.stack.mail.clear()

    def step(self) -> None:
        rng = self.rng
        peer = rng.choice(self.peers)
        match rng.randrange(12):
            case 0 | 1:
                self.peer_opens(peer)
            case 2 | 3 | 4 | 5:
                self.peer_sends(peer)
            case 6:
                flags = "".join(rng.sample("FSRPAU", rng.randrange(4)))
                peer.send(flags, seq=peer.seq + rng.choice([0, 0, 1, 99]))
            case 7:
                self.stack.advance(rng.choice([1, 40, 300, 2000, 70_000]) * MS)
            case 8:
                self.take_events()
            case 9 | 10 if self.held:
                self.user_acts(rng.choice(sorted(self.held)))
            case 11:
                self.driver_acts()
        lib.tcp_check(self.stack.tcp)
        self.peers_listen()

    def end(self) -> None:
        """All let go, the driver works again: within a bound of virtual time nothing is left."""
        native = self.stack.native
        self.take_events()
        native.tx_limit, native.out_room, native.hold = 24, 2**32 - 1, False
        lib.native_complete(native)
        for conn in sorted(self.held):
            self.let_go(conn)
        for _ in range(900):
            self.stack.advance(1_000 * MS)
            self.stack.output()
            self.stack.events()
            if self.stack.is_empty():
                break
        assert self.stack.is_empty(), self.stack.usage


def random_walk(seed: int) -> None:
    walk = Walk(seed)
    for _ in range(walk.rng.randrange(50, 400)):
        walk.step()
    walk.end()


@pytest.mark.parametrize("block", range(10))
def test_random_walks(block: int) -> None:
    for seed in range(block * 10, block * 10 + 10):
        try:
            random_walk(seed)
        except BaseException:
            print(f"SEED={seed}")
            raise


def test_blocks_at_random_do_not_make_it_walk_a_long_queue_for_each_ack() -> None:
    """Each names a segment that none before has named; the steps of one millisecond are bounded, by count."""
    slots, mss = 1024, 536
    config = {"tx_slots": 2 * slots, "rx_slots": 128, "snd_buf_bytes": slots * mss}
    stack, peer = established(options=Options(mss=mss, sack_ok=True, wscale=7), **config)
    for _ in range(24):
        info = stack.info(peer.conn)
        for ack in range(info.flight_bytes, 0, -2 * mss):  # the window grows for each
            peer.send("A", ack=(info.snd_nxt - max(ack - 2 * mss, 0) - (peer.irs or 0)) % 2**32)
        stack.send(peer.conn, bytes(slots * mss))
        stack.now_us += 1000
        for _ in range(slots // 8):  # a burst each
            peer.collect()
        peer.queue.clear()
    assert stack.info(peer.conn).flight_bytes > (slots - 50) * mss
    una = stack.info(peer.conn).snd_una
    order = random.Random(1).sample(range(1, slots - 50), slots - 51)
    before, acks = stack.counters.queue_steps, 0
    for number in order:
        begin = una + number * mss
        peer.send("A", ack=(una - (peer.irs or 0)) % 2**32, options=Options(sack=[(begin, begin + mss)]))
        acks += 1
    walked = stack.counters.queue_steps - before
    assert walked < 2 * (4096 + 5 * slots) < 40 * acks
    stack.advance(2000)
    peer.send("A", ack=(stack.info(peer.conn).snd_nxt - (peer.irs or 0)) % 2**32)
    assert stack.info(peer.conn).flight_bytes == 0
