"""A batch is looked up ahead, and plain packets go a short way: the same comes of them as one by one, the long way."""

import struct

import pytest
from _tcp import ffi, lib
from tcp_talk import Options, Peer, Stack

from tests.packets import checksum

SYN = Options(mss=1460, sack_ok=True, ts=(7, 0), wscale=7)


def give(stack: Stack, packets: list[bytes], batch: bool) -> None:
    """All packets at one time."""
    if not batch:
        for packet in packets:
            stack.input(packet)
        return
    for packet in packets:
        lib.native_queue(stack.native, packet, len(packet))
    lib.native_input_queued(stack.native, 64, stack.now_us)
    lib.tcp_check(stack.tcp)


def talk(batch: bool) -> list[object]:
    """Flows that begin, go on and end within batches, and one whose block another flow takes meanwhile."""
    stack = Stack(conn_max=2)
    stack.listen()
    log: list[object] = []
    peers = [Peer(stack, 5000 + i) for i in range(3)]

    def round_of(*segments: bytes) -> None:
        give(stack, list(segments), batch)
        log.append([(conn, sorted(kinds)) for conn, kinds in stack.events()])
        sent = stack.output()
        log.append(sent)
        for s in sent:
            peer = peers[s.dport - 5000]
            peer.irs = s.seq if s.flags & 2 else peer.irs
            peer.tsecr = s.options.ts[0] if s.options.ts else peer.tsecr
        log.append([stack.dropped(reason) for reason in ("no_connection", "duplicate", "challenged")])

    def next_of(peer: Peer, flags: str, data: bytes = b"", **kwargs: object) -> bytes:
        packet = peer.segment(flags, data, **kwargs).build()  # type: ignore[arg-type]
        peer.seq += len(data) + ("S" in flags) + ("F" in flags)
        return packet

    syn = next_of(peers[0], "S", options=SYN)
    round_of(syn, syn, next_of(peers[1], "S"))
    peers[0].ts = 8
    for peer in peers[:2]:
        peer.ack = 1
    round_of(
        *(next_of(peer, flags, data) for flags, data in (("A", b""), ("A", b"ab")) for peer in peers[:2]),
        next_of(peers[0], "FA", b"cd"),
    )
    assert [stack.recv(conn) for conn in (0, 1)] == [b"abcd", b"ab"]
    stack.close(0)  # LAST-ACK
    round_of(next_of(peers[2], "S"))
    peers[0].ack = 2
    peers[2].ack = 1
    last = next_of(peers[0], "A")
    round_of(last, next_of(peers[2], "A"), last, next_of(peers[2], "A", b"ef"))  # row 0 changes hands
    assert stack.recv(0) == b"ef"
    round_of(next_of(peers[1], "RA"), next_of(peers[1], "A", b"x"), next_of(peers[2], "A", b"gh"))
    stack.close(1)
    assert stack.recv(0) == b"gh"
    stack.close(0)
    round_of()
    peers[2].ack = 2
    peers[2].iss += 1000  # for the SYN that reuses its TIME-WAIT
    fin = peers[2].segment("FA", seq=peers[2].seq - 1000).build()
    peers[2].seq = 0
    round_of(fin, next_of(peers[2], "S"), fin, peers[2].segment("R", seq=0).build())
    log.append(stack.usage)
    return log


def test_a_batch_is_as_its_packets_one_by_one() -> None:
    alone, together = talk(False), talk(True)
    for i, (a, b) in enumerate(zip(alone, together, strict=True)):
        assert a == b, i


def first_hash(odd_low: int, data: bytes = b"") -> int:
    """That of a new flow, by what its SYN says of it."""
    stack = Stack()
    stack.listen()
    stack.native.odd_low = odd_low
    packet = Peer(stack).segment("S", data, options=SYN).build()
    lib.native_queue(stack.native, packet, len(packet))
    lib.native_input_queued(stack.native, 64, stack.now_us)
    column = ffi.new("uint64_t **")
    assert lib.tcp_flow_column(stack.tcp, 0, column) == 1  # half-open blocks
    return int(column[0][0])


def test_the_low_half_of_a_new_flows_hash_is_taken_from_behind_its_packet() -> None:
    whole = first_hash(0)
    assert first_hash(0x01020304) == whole >> 32 << 32 | 0x01020304
    fills = bytes(2048 - 14 - 60)  # its slot: nothing can lie behind it
    assert first_hash(0x01020304, fills[:-4]) != whole
    assert first_hash(0x01020304, fills[:-3]) == first_hash(0x01020304, fills) == whole


def refill(packet: bytearray) -> bytes:
    """With the checksums that its bytes ask for."""
    header = (packet[0] & 15) * 4
    packet[10:12] = bytes(2)
    packet[10:12] = struct.pack("!H", checksum(bytes(packet[:header])))
    end = min(len(packet), max(struct.unpack("!H", packet[2:4])[0], header))
    tcp = packet[header:end]
    if len(tcp) >= 18:
        tcp[16:18] = bytes(2)
        pseudo = packet[12:20] + struct.pack("!II", len(tcp), 6)
        packet[header + 16 : header + 18] = struct.pack("!H", checksum(bytes(pseudo + tcp)))
    return bytes(packet)


def outcome(packet: bytes, verified: bool) -> list[object]:
    stack = Stack()
    stack.listen()
    return [stack.input(packet, verified), stack.output(), stack.usage]


@pytest.mark.parametrize("options", [SYN, Options(ts=(7, 0)), Options()], ids=["syn", "timestamps", "none"])
def test_verified_packets_are_taken_apart_as_others_are(options: Options) -> None:
    whole = Peer(Stack()).segment("S", b"text", options=options).build()
    assert outcome(whole, True)[0] == "none" or outcome(whole, True)[1]
    seen = set()
    for at in range(len(whole)):
        for value in (0, 1, 5, 8, 127, 224, whole[at] ^ 0x10, whole[at] ^ 0xFF):
            packet = bytearray(whole)
            packet[at] = value
            odd = refill(packet)
            expected = outcome(odd, False)
            assert outcome(odd, True) == expected, (at, value)
            seen.add(expected[0])
    assert {"malformed", "not_local"} < seen
    for length in range(20, len(whole)):
        short = refill(bytearray(whole[:length]))
        assert outcome(short, True) == outcome(short, False), length
    packet = bytearray(whole)
    packet[12:16] = packet[16:20]  # a source that is the destination
    assert outcome(refill(packet), True)[0] == "malformed"
