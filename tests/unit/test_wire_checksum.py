"""The Internet checksum against the plainest form of RFC 1071: 16-bit words, one at a time."""

import ipaddress
import struct

import pytest
from _wire import ffi, lib
from hypothesis import given
from hypothesis import strategies as st


def twin(data: bytes) -> int:
    """RFC 1071 4.1, word by word; the value as it is written in a packet."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def finish(total: int) -> int:
    """checksum_finish() in network order: what it gives lies in memory order."""
    return int.from_bytes(struct.pack("=H", lib.checksum_finish(total)), "big")


def address(text: str) -> object:
    packed = ipaddress.ip_address(text).packed
    a = ffi.new("struct ip_addr *")
    a.b = packed if len(packed) == 16 else b"\0" * 10 + b"\xff\xff" + packed
    return a


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(bytes.fromhex("0001f203f4f5f6f7"), id="the example of RFC 1071 3"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff" * 1480, id="all ones: the most carries"),
        pytest.param(b"\0" * 64, id="all zeros"),
        pytest.param(b"\x80", id="one odd byte"),
        pytest.param(bytes(range(256)) * 8, id="2 KiB"),
    ],
)
def test_known_data(data: bytes) -> None:
    assert finish(lib.checksum_add(0, data, len(data))) == twin(data)


@pytest.mark.parametrize("length", range(70))
def test_every_short_length(length: int) -> None:
    data = bytes((i * 151 + 7) & 0xFF for i in range(length))
    assert finish(lib.checksum_add(0, data, length)) == twin(data)


@given(st.binary(max_size=3000), st.integers(0, 7))
def test_any_data_at_any_alignment(data: bytes, shift: int) -> None:
    buffer = ffi.new("uint8_t[]", b"\xaa" * shift + data + b"\xaa")
    assert finish(lib.checksum_add(0, buffer + shift, len(data))) == twin(data)


@given(
    st.lists(st.binary(max_size=200).filter(lambda b: len(b) % 2 == 0), max_size=8), st.binary(max_size=99)
)
def test_pieces_add_up(pieces: list[bytes], last: bytes) -> None:
    total = 0
    for piece in [*pieces, last]:
        total = lib.checksum_add(total, piece, len(piece))
    assert finish(total) == twin(b"".join(pieces) + last)


@given(st.binary(min_size=2, max_size=200))
def test_a_packet_with_its_checksum_sums_to_zero(data: bytes) -> None:
    data = data[: len(data) // 2 * 2]
    whole = data + twin(data).to_bytes(2, "big")
    # All zeros is the one packet whose checksum has two forms; no packet with a header is all zeros.
    assert lib.checksum_finish(lib.checksum_add(0, whole, len(whole))) == 0


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), st.integers(1, 255), st.integers(0, 65515))
def test_pseudo_header_of_ipv4(src: object, dst: object, protocol: int, length: int) -> None:
    pseudo = src.packed + dst.packed + struct.pack(">BBH", 0, protocol, length)  # type: ignore[attr-defined]
    total = lib.checksum_pseudo(address(str(src)), address(str(dst)), protocol, length)
    assert finish(total) == twin(pseudo)


@given(st.ip_addresses(v=6), st.ip_addresses(v=6), st.integers(1, 255), st.integers(0, 2**32 - 1))
def test_pseudo_header_of_ipv6(src: object, dst: object, protocol: int, length: int) -> None:
    pseudo = src.packed + dst.packed + struct.pack(">IBBBB", length, 0, 0, 0, protocol)  # type: ignore[attr-defined]
    total = lib.checksum_pseudo(address(str(src)), address(str(dst)), protocol, length)
    assert finish(total) == twin(pseudo)
