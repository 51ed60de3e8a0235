"""What is joined for a port that cuts is what the port makes of it again: a port written here cuts, and the
packets are compared."""

import pytest
from _shm import ffi, lib
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

OURS, OURS6, PEER, PEER6 = "10.77.0.1", "fd77::1", "10.77.0.2", "fd77::2"
SIZE = 1000
LEASE = ffi.new("struct txcheck_lease *", {"address_count": 2})
LEASE.addresses[0].b = bytes(10) + b"\xff\xff" + bytes([10, 77, 0, 1])
LEASE.addresses[1].b = bytes.fromhex("fd77" + 28 * "0")[:15] + b"\x01"
lib.txcheck_lease_port(LEASE, 80, 80)


def segment(
    number: int,
    size: int = SIZE,
    six: bool = False,
    ip: dict[str, object] | None = None,
    options: object = (("NOP", None), ("NOP", None), ("Timestamp", (7, 9))),
    **tcp: object,
) -> bytes:
    """The one that begins number full segments after the first."""
    what = {"flags": "A", "seq": (2**32 - 1500 + number * SIZE) % 2**32, "ack": 77, "window": 500, **tcp}
    header = TCP(sport=80, dport=9999, options=list(options), **what)  # type: ignore[call-overload]
    payload = bytes((number + i) % 251 for i in range(size))
    if six:
        return bytes(IPv6(src=OURS6, dst=PEER6, **(ip or {})) / header / payload)
    return bytes(IP(src=OURS, dst=PEER, id=0, flags="DF", **(ip or {})) / header / payload)


def join(packets: list[bytes]) -> tuple[int, bytes, int]:
    """How many are joined, the long packet, its segment size."""
    run, what = ffi.new("struct join *"), ffi.new("struct txcheck_packet *")
    first = ffi.new("uint8_t[]", packets[0])
    assert lib.txcheck_packet(LEASE, packets[0], len(packets[0]), what) == 0
    if not lib.join_begin(run, first, len(packets[0]), what):
        return 0, b"", 0
    payload = b""
    for packet in packets[1:]:
        assert lib.txcheck_packet(LEASE, packet, len(packet), what) == 0
        if not lib.join_follows(run, packet, len(packet), what):
            break
        payload += packet[run.headers :]
    lib.join_finish(run)
    return run.count, bytes(first)[: len(packets[0])] + payload, run.segment


def cut(packet: bytes, size: int) -> list[bytes]:
    """What a port sends."""
    kind = IP if packet[0] >> 4 == 4 else IPv6
    whole = kind(packet)
    assert (whole.len if kind is IP else whole.plen + 40) == len(packet)
    payload = bytes(whole[TCP].payload)
    cuts = []
    for at in range(0, len(payload), size):
        one = kind(packet)
        last = at + size >= len(payload)
        one[TCP].remove_payload()
        one[TCP].seq = (whole[TCP].seq + at) % 2**32
        one[TCP].flags = whole[TCP].flags if last else str(whole[TCP].flags).replace("P", "")
        if kind is IP:
            del one.len, one.chksum
        else:
            del one.plen
        del one[TCP].chksum
        cuts.append(bytes(one / payload[at : at + size]))
    return cuts


@pytest.mark.parametrize("six", [False, True], ids=["v4", "v6"])
@pytest.mark.parametrize("last", [SIZE, 1, 600])
@pytest.mark.parametrize("push", [False, True])
def test_what_is_joined_is_cut_into_the_same(six: bool, last: int, push: bool) -> None:
    packets = [segment(i, six=six) for i in range(4)] + [segment(4, last, six, flags="PA" if push else "A")]
    count, long, size = join(packets)
    assert (count, size) == (5, SIZE)
    assert cut(long, size) == packets


def test_the_checksum_field_is_the_sum_of_the_pseudo_header_without_a_length() -> None:
    for six in (False, True):
        _, long, _ = join([segment(0, six=six), segment(1, six=six)])
        source, at = (long[8:40], 40) if six else (long[12:20], 20)
        total = sum(int.from_bytes(source[i : i + 2], "big") for i in range(0, len(source), 2)) + 6
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        assert long[at + 16 : at + 18] == total.to_bytes(2, "big")
    assert join([segment(0), segment(1)])[1][10:12] == b"\0\0"


OTHERS = {
    "a gap": segment(2),
    "the same again": segment(0),
    "longer": segment(1, SIZE + 1),
    "no payload": segment(1, 0),
    "FIN": segment(1, flags="FA"),
    "RST": segment(1, flags="RA"),
    "SYN": segment(1, flags="SA"),
    "URG": segment(1, flags="UA"),
    "CWR": segment(1, flags="CA"),
    "ECE": segment(1, flags="EA"),
    "no ACK": segment(1, flags="P"),
    "reserved bits": segment(1, reserved=1),
    "another ACK number": segment(1, ack=78),
    "another window": segment(1, window=501),
    "another urgent pointer": segment(1, urgptr=1),
    "another port": segment(1)[:22] + b"\x11" + segment(1)[23:],
    "another time": segment(1, options=(("NOP", None), ("NOP", None), ("Timestamp", (8, 9)))),
    "other options": segment(1, options=(("Timestamp", (7, 9)), ("NOP", None), ("NOP", None))),
    "fewer options": segment(1, options=()),
    "another family": segment(1, six=True),
    "another ECN": segment(1, ip={"tos": 2}),
    "another TTL": segment(1, ip={"ttl": 63}),
    "another destination": segment(1, ip={"proto": 6})[:19] + b"\x03" + segment(1)[20:],
}


def repaired(packet: bytes) -> bytes:
    """With the checksum of its IPv4 header right."""
    if packet[0] >> 4 != 4:
        return packet
    ip = IP(packet[:20])
    del ip.chksum
    return bytes(ip)[:20] + packet[20:]


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_another_is_not_joined(other: bytes) -> None:
    assert join([segment(0), repaired(other)])[0] == 1


@pytest.mark.parametrize("six", [False, True], ids=["v4", "v6"])
def test_any_changed_bit_of_a_header_is_not_joined(six: bool) -> None:
    """But those of lengths, identification and checksums, which the port writes, and PSH."""
    what = ffi.new("struct txcheck_packet *")
    headers, l3 = (72, 40) if six else (52, 20)
    written = {4, 5} if six else {2, 3, 4, 5, 10, 11}
    written |= {l3 + 16, l3 + 17}
    one, two = segment(0, six=six), segment(1, six=six)
    lib.txcheck_packet(LEASE, one, len(one), what)
    for bit in range(headers * 8):
        run, first = ffi.new("struct join *"), ffi.new("uint8_t[]", one)
        changed = bytearray(two)
        changed[bit // 8] ^= 1 << bit % 8
        assert lib.join_begin(run, first, len(changed), what)
        free = bit // 8 in written or bit == (l3 + 13) * 8 + 3
        assert lib.join_follows(run, bytes(changed), len(changed), what) == free, f"bit {bit}"


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(segment(0, 255), id="tiny segments"),
        pytest.param(segment(0, flags="PA"), id="PSH"),
        pytest.param(segment(0, flags="CA"), id="CWR"),
        pytest.param(segment(0, flags="SA"), id="SYN"),
        pytest.param(repaired(segment(0)[:6] + b"\0\0" + segment(0)[8:]), id="may be fragmented"),
    ],
)
def test_what_none_may_follow(first: bytes) -> None:
    assert join([first, segment(1)])[0] == 0


def test_nothing_follows_a_short_one_or_push() -> None:
    assert join([segment(0), segment(1, 900), segment(1, 100, seq=(2**32 - 1500 + 1900) % 2**32)])[0] == 2
    assert join([segment(0), segment(1, flags="PA"), segment(2)])[0] == 2


def test_no_longer_than_a_header_can_say() -> None:
    count, long, size = join([segment(i) for i in range(80)])
    assert count == 65
    assert len(long) == 65052
    assert len(cut(long, size)) == 65
