"""What a port has joined is cut into the segments that it was made of, from whatever buffers it lies in; what lies
about itself is not cut."""

import pytest
from _shm import ffi, lib
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Dot1Q, Ether

STAMP = (("NOP", None), ("NOP", None), ("Timestamp", (7, 9)))
MTU = 1500
Q = {"src": "02:00:00:00:00:02", "dst": "02:00:00:00:00:01"}


def frame(
    payload: bytes,
    six: bool = False,
    vlan: bool = False,
    ip_id: int = 7,
    options: object = STAMP,
    **tcp: object,
) -> bytes:
    what = {"flags": "A", "seq": 2**32 - 1500, "ack": 77, "window": 500, **tcp}
    ether = Ether(**Q) / Dot1Q(vlan=5) if vlan else Ether(**Q)
    ip = (
        IPv6(src="fd77::2", dst="fd77::1")
        if six
        else IP(src="10.77.0.2", dst="10.77.0.1", id=ip_id, flags="DF")
    )
    return bytes(ether / ip / TCP(sport=9999, dport=80, options=list(options), **what) / payload)  # type: ignore[call-overload]


def cut(
    whole: bytes, buffers: tuple[int, ...] = (), mtu: int = MTU, segment: int = 0, verified: bool = True
) -> list[bytes] | str:
    """The pieces, or why there are none.  buffers: where the chain is broken."""
    ends = [*sorted(b for b in buffers if b < len(whole)), len(whole)]
    # Each buffer is an allocation of its own, so that a step beyond its end is seen by who looks for such.
    held = [ffi.new("uint8_t[]", list(whole[a:b])) for a, b in zip([0, *ends], ends, strict=False)]
    parts = ffi.new("struct cut_part[]", [{"data": h, "len": len(h)} for h in held])
    c, out = ffi.new("struct cut *"), ffi.new("uint8_t[]", lib.CUT_FRAME_MAX)
    why = lib.cut_begin(c, parts, len(held), mtu, segment, verified)
    if why != 0:
        return str(ffi.string(lib.classify_drop_name(why)).decode())
    pieces = []
    while (n := lib.cut_next(c, out)) != 0:
        assert n <= lib.CUT_FRAME_MAX
        pieces.append(bytes(ffi.buffer(out, n)))
    assert len(pieces) == c.pieces
    return pieces


def summed(piece: bytes) -> bytes:
    """With the TCP checksum that it would have."""
    p = Ether(piece)
    del p[TCP].chksum
    return bytes(p)


def text(count: int) -> bytes:
    return bytes(i * 7 % 251 for i in range(count))


@pytest.mark.parametrize("six", [False, True], ids=["v4", "v6"])
@pytest.mark.parametrize("vlan", [False, True], ids=["untagged", "vlan"])
@pytest.mark.parametrize("options", [STAMP, ()], ids=["timestamps", "none"])
@pytest.mark.parametrize("last", [1, 600, 1000])
def test_the_pieces_are_the_segments_that_were_joined(
    six: bool, vlan: bool, options: object, last: int
) -> None:
    data = text(4000 + last)
    whole = frame(data, six, vlan, options=options, flags="PAFEC")
    expected = [
        frame(
            data[at : at + 1000],
            six,
            vlan,
            ip_id=7 + at // 1000,
            options=options,
            seq=(2**32 - 1500 + at) % 2**32,
            flags={0: "AEC", 4000: "PAFE"}.get(at, "AE"),
        )
        for at in range(0, len(data), 1000)
    ]
    pieces = cut(whole, segment=1000)
    assert [summed(p) for p in pieces] == expected
    headers = len(whole) - len(data)
    assert cut(whole, (headers, headers + 1, headers + 2, 2500), segment=1000, verified=False) == pieces


def test_a_piece_fills_the_mtu_where_the_port_does_not_say_its_size() -> None:
    whole = frame(text(5000))
    for stated in (0, 1, 255, 1449, 60000):
        assert [len(p) - 66 for p in cut(whole, segment=stated)] == [1448, 1448, 1448, 656], stated
    assert [len(p) - 66 for p in cut(whole, segment=256)] == [256] * 19 + [136]
    assert {len(p) for p in cut(frame(text(5000), six=True), mtu=576)[:-1]} == {576 + 14}


def test_the_largest() -> None:
    whole = frame(text(65535 - 52))
    pieces = cut(whole, tuple(range(2000, 65535, 2048)), segment=256, verified=False)
    assert b"".join(p[66:] for p in pieces) == text(65535 - 52)
    assert len(pieces) == 256


def test_one_that_fits_is_one_piece_without_padding() -> None:
    whole = frame(b"ab")
    assert cut(whole + bytes(6), (67,)) == [whole]
    assert cut(frame(b""), verified=False) == [frame(b"")]


def test_a_checksum_that_nobody_verified_is_verified() -> None:
    whole = frame(text(3001))
    for at in (20 + 34, 66, 1500, len(whole) - 1):
        wrong = whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :]
        assert cut(wrong, (333, 1000), verified=False) == "tcp_checksum", at
        assert isinstance(cut(wrong, (333, 1000)), list)


def change(at: int, value: int, six: bool = False, fix: bool = True) -> bytes:
    """A frame with another byte, and a right IPv4 checksum."""
    packet = bytearray(frame(text(3000), six))
    packet[at] = value
    if not six and fix:
        whole = sum(int.from_bytes(packet[i : i + 2], "big") for i in range(14, 34, 2) if i != 24)
        packet[24:26] = (~(whole % 65535) & 0xFFFF).to_bytes(2, "big")
    return bytes(packet)


HOSTILE = {
    "another type": (change(13, 6), "oversize"),
    "two tags": (change(12, 0x88, fix=False)[:13] + b"\xa8" + change(12, 0x88)[14:], "runt"),
    "IPv4 options": (change(14, 0x46), "oversize"),
    "IPv4 of another version": (change(14, 0x65), "oversize"),
    "IPv4 header too short": (change(14, 0x44), "oversize"),
    "a fragment": (change(20, 0x20), "oversize"),
    "a later fragment": (change(21, 9), "oversize"),
    "UDP": (change(23, 17), "oversize"),
    "a wrong IPv4 checksum": (change(22, 63, fix=False), "ip_checksum"),
    "longer than it is": (change(17, 0xFF), "ip_truncated"),
    "much longer": (change(16, 0xFF), "ip_truncated"),
    "within the headers": (change(16, 0)[:17] + b"\x33" + change(16, 0)[18:], "ip_checksum"),
    "no length": (frame(b"", options=())[:16] + bytes(2) + frame(b"", options=())[18:], "ip_checksum"),
    "another version of IPv6": (change(14, 0x40, True), "oversize"),
    "extension headers": (
        bytes(Ether(**Q) / IPv6(src="fd77::2", dst="fd77::1") / IPv6ExtHdrDestOpt() / TCP() / text(3000)),
        "oversize",
    ),
    "IPv6 longer than it is": (change(18, 0xFF, True), "ip_truncated"),
    "IPv6 without a length": (change(18, 0, True)[:19] + b"\0" + change(18, 0, True)[20:], "tcp_truncated"),
    "a data offset below 5": (change(46, 0x40), "tcp_offset"),
    "SYN": (frame(text(3000), flags="SA"), "oversize"),
    "RST": (frame(text(3000), flags="RA"), "oversize"),
    "URG": (frame(text(3000), flags="UA"), "oversize"),
    "no ACK": (frame(text(3000), flags="P"), "oversize"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_port_joins_is_dropped(name: str) -> None:
    whole, why = HOSTILE[name]
    assert cut(whole) == why


def test_headers_that_do_not_lie_in_the_first_buffer() -> None:
    whole = frame(text(3000))
    assert {cut(whole, (n,)) for n in range(1, 14)} == {"runt"}
    assert {cut(whole, (n,)) for n in range(14, 34)} == {"ip_truncated"}
    assert {cut(whole, (n,)) for n in range(34, 66)} == {"tcp_truncated"}
    assert len(cut(whole, (66,))) == 3


def test_a_data_offset_beyond_the_packet() -> None:
    whole = bytearray(frame(b""))
    whole[46] = 0xF0
    assert cut(bytes(whole)) == "tcp_truncated"
    assert cut(bytes(whole) + bytes(100)) == "tcp_truncated", "padding is no header"


@given(
    st.integers(0, 5000),
    st.booleans(),
    st.lists(st.integers(1, 5000), max_size=6),
    st.integers(0, 2000),
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=3),
    st.booleans(),
)
def test_any_frame_is_cut_within_its_bounds(
    size: int, six: bool, buffers: list[int], segment: int, changes: list[tuple[int, int]], verified: bool
) -> None:
    whole = bytearray(frame(text(size), six))
    for at, value in changes:
        whole[at % len(whole)] = value
    pieces = cut(bytes(whole), tuple(set(buffers)), segment=segment, verified=verified)
    if isinstance(pieces, list):
        assert sum(len(p) - 54 for p in pieces) <= len(whole) * 2
    if not changes and not (set(buffers) & set(range(90))):
        headers = len(whole) - size
        assert b"".join(p[headers:] for p in pieces) == text(size)  # type: ignore[union-attr]
