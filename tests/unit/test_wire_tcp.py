"""TCP headers and options: tables of what is refused, scapy as the independent builder and parser."""

import ctypes
import ipaddress
import mmap
import os

import pytest
from _wire import ffi, lib
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

VERDICTS = ffi.typeof("enum tcp_header_verdict").elements
PORTS = {"sport": 40000, "dport": 80}
MSS, WS, SACK_OK, TS, SACK = 1, 2, 4, 8, 16
U32 = st.integers(0, 2**32 - 1)


def address(text: str) -> object:
    packed = ipaddress.ip_address(text).packed
    a = ffi.new("struct ip_addr *")
    a.b = packed if len(packed) == 16 else b"\0" * 10 + b"\xff\xff" + packed
    return a


def parse_options(data: bytes) -> object | None:
    out = ffi.new("struct tcp_options *")
    buffer = ffi.new("uint8_t[]", data or b"\0")
    return out if lib.tcp_options_parse(buffer, len(data), out) else None


def values(options: object) -> dict[str, object]:
    """What the options say, in words."""
    o = options
    said: dict[str, object] = {}
    if o.present & MSS:
        said["mss"] = o.mss
    if o.present & WS:
        said["ws"] = o.window_scale
    if o.present & SACK_OK:
        said["sack_ok"] = True
    if o.present & TS:
        said["ts"] = (o.tsval, o.tsecr)
    if o.present & lib.TCP_OPTION_USER_TIMEOUT:
        said["uto"] = o.user_timeout
    if o.present & SACK:
        said["sack"] = [(o.sack[i].begin, o.sack[i].end) for i in range(o.sack_count)]
    return said


BLOCK = bytes(range(8))
BLOCK_VALUE = (0x00010203, 0x04050607)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param("", {}, id="none"),
        pytest.param("00", {}, id="end alone"),
        pytest.param("01" * 40, {}, id="forty NOPs"),
        pytest.param("020405b4", {"mss": 1460}, id="mss"),
        pytest.param("02040000", {"mss": 0}, id="mss 0 is the core's matter"),
        pytest.param("0204ffff", {"mss": 65535}, id="mss 65535"),
        pytest.param("030300", {"ws": 0}, id="window scale 0"),
        pytest.param("0303ff", {"ws": 255}, id="window scale 255 is bounded by its user"),
        pytest.param("0402", {"sack_ok": True}, id="sack permitted"),
        pytest.param("0101080a0000000100000002", {"ts": (1, 2)}, id="aligned timestamps"),
        pytest.param("080a0000000100000002", {"ts": (1, 2)}, id="bare timestamps"),
        pytest.param("050a" + BLOCK.hex(), {"sack": [BLOCK_VALUE]}, id="one block"),
        pytest.param("0522" + BLOCK.hex() * 4, {"sack": [BLOCK_VALUE] * 4}, id="four blocks"),
        pytest.param(
            "020405b40402080a00000001000000020103" + "0307",
            {"mss": 1460, "sack_ok": True, "ts": (1, 2), "ws": 7},
            id="a usual SYN",
        ),
        pytest.param("1c04812c", {"uto": 0x812C}, id="user timeout in minutes"),
        pytest.param("1c04012c1c040001", {"uto": 300}, id="the first user timeout counts"),
        pytest.param("1c0301", None, id="user timeout of length 3"),
        pytest.param("020405b402040064", {"mss": 1460}, id="the first mss counts"),
        pytest.param("030305030307", {"ws": 5}, id="the first window scale counts"),
        pytest.param(
            "080a0000000100000002080a0000000300000004", {"ts": (1, 2)}, id="the first timestamps count"
        ),
        pytest.param(
            "0101080a0000000100000002080a0000000300000004", {"ts": (1, 2)}, id="also after the aligned form"
        ),
        pytest.param(
            "050a" + BLOCK.hex() + "050a" + "ff" * 8, {"sack": [BLOCK_VALUE]}, id="the first sack counts"
        ),
        pytest.param("00020405b4", {}, id="nothing counts after the end"),
        pytest.param("0002", {}, id="not even what would be malformed"),
        pytest.param("1d10" + "00" * 14, {}, id="TCP-AO is skipped"),
        pytest.param("1312" + "00" * 16 + "020405b4", {"mss": 1460}, id="MD5 is skipped"),
        pytest.param("2202", {}, id="an empty fast open cookie is skipped"),
        pytest.param("fe28" + "00" * 38, {}, id="an unknown option of forty bytes"),
        pytest.param("02", None, id="kind at the last byte"),
        pytest.param("fe", None, id="unknown kind at the last byte"),
        pytest.param("0200", None, id="length 0"),
        pytest.param("0201", None, id="length 1"),
        pytest.param("fe00", None, id="unknown, length 0"),
        pytest.param("fe01", None, id="unknown, length 1"),
        pytest.param("020405", None, id="mss beyond the end"),
        pytest.param("fe0300ff", None, id="the next option has no length"),
        pytest.param("fe29" + "00" * 38, None, id="beyond the end by one"),
        pytest.param("0203ff", None, id="mss of length 3"),
        pytest.param("0205ffffff", None, id="mss of length 5"),
        pytest.param("0302", None, id="window scale of length 2"),
        pytest.param("03040707", None, id="window scale of length 4"),
        pytest.param("040300", None, id="sack permitted of length 3"),
        pytest.param("0809" + "00" * 7, None, id="timestamps of length 9"),
        pytest.param("080b" + "00" * 9, None, id="timestamps of length 11"),
        pytest.param("0502", None, id="sack without a block"),
        pytest.param("0506" + "00" * 4, None, id="sack with half a block"),
        pytest.param("050b" + "00" * 9, None, id="sack with a block and a byte"),
        pytest.param("0101080a00000001", None, id="aligned timestamps beyond the end"),
    ],
)
def test_options(data: str, expected: dict[str, object] | None) -> None:
    out = parse_options(bytes.fromhex(data))
    assert (None if out is None else values(out)) == expected


def twin(data: bytes) -> dict[str, object] | None:
    """RFC 9293 3.2 in the plainest form."""
    said: dict[str, object] = {}
    while data and data[0] != 0:
        if data[0] == 1:
            data = data[1:]
            continue
        if len(data) < 2 or data[1] < 2 or data[1] > len(data):
            return None
        kind, body = data[0], data[2 : data[1]]
        data = data[data[1] :]
        words = [int.from_bytes(body[i : i + 4], "big") for i in range(0, len(body), 4)]
        match kind, len(body):
            case 2, 2:
                said.setdefault("mss", int.from_bytes(body, "big"))
            case 3, 1:
                said.setdefault("ws", body[0])
            case 4, 0:
                said["sack_ok"] = True
            case 8, 8:
                said.setdefault("ts", (words[0], words[1]))
            case 5, 8 | 16 | 24 | 32:
                said.setdefault("sack", list(zip(words[::2], words[1::2], strict=True)))
            case 28, 2:
                said.setdefault("uto", int.from_bytes(body, "big"))
            case ((2 | 3 | 4 | 5 | 8 | 28), _):
                return None
    return said


@pytest.mark.parametrize("kind", range(256))
def test_every_kind_with_every_length(kind: int) -> None:
    for length in range(256):
        for room in (2, 3, 4, 10, 12, 39, 40, 42):  # 42: a block too many, which no header has room for
            data = bytes([kind, length]) + bytes(room - 2)
            out = parse_options(data)
            assert (None if out is None else values(out)) == twin(data), data.hex()


def test_nothing_behind_the_options_is_read() -> None:
    """They end where a page ends, and the next one is nobody's: a child reads them, cut at every byte."""
    whole = bytes.fromhex("01 020405b4 0402 080a" + "11" * 8 + "030307 050a" + "22" * 8)
    child = os.fork()
    if child == 0:
        pages = mmap.mmap(-1, 2 * mmap.PAGESIZE)
        begin = ffi.cast("uint8_t *", ffi.from_buffer(pages))
        address = int(ffi.cast("uintptr_t", begin)) + mmap.PAGESIZE
        out = ffi.new("struct tcp_options *")
        closed = ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), mmap.PAGESIZE, 0)
        for size in range(len(whole) + 1):
            at = mmap.PAGESIZE - size
            pages[at : mmap.PAGESIZE] = whole[:size]
            lib.tcp_options_parse(begin + at, size, out)
        os._exit(-closed)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# Bytes that look like options more often than not.
option_bytes = st.one_of(
    st.binary(max_size=40),
    st.lists(st.sampled_from([0, 1, 2, 3, 4, 5, 8, 10, 18, 26, 34, 255]), max_size=40).map(bytes),
    st.lists(
        st.sampled_from(
            ["020405b4", "030307", "0402", "01", "080a" + "11" * 8, "050a" + "22" * 8, "fe04aabb", "00"]
        ),
        max_size=12,
    ).map(lambda parts: bytes.fromhex("".join(parts))[:40]),
)


@given(option_bytes)
def test_any_bytes_mean_what_the_twin_says(data: bytes) -> None:
    out = parse_options(data)
    assert (None if out is None else values(out)) == twin(data)


@st.composite
def some_options(draw: st.DrawFn) -> object:
    o = ffi.new("struct tcp_options *")
    o.present = draw(st.integers(0, 31))
    o.mss = draw(st.integers(0, 65535))
    o.window_scale = draw(st.integers(0, 255))
    o.tsval, o.tsecr = draw(U32), draw(U32)
    o.sack_count = draw(st.integers(0, 4))
    for i in range(o.sack_count):
        o.sack[i].begin, o.sack[i].end = draw(U32), draw(U32)
    return o


@given(some_options())
def test_built_options_parse_to_the_same(options: object) -> None:
    buffer = ffi.new("uint8_t[41]", b"\xee" * 41)
    length = lib.tcp_options_build(buffer, options)
    assert length == lib.tcp_options_len(options) <= 40
    assert length % 4 == 0
    data = bytes(ffi.buffer(buffer))
    assert data[length:] == b"\xee" * (41 - length)
    expected = values(options)
    fit = (
        40
        - 4
        - sum(n for bit, n in ((MSS, 4), (WS, 4)) if options.present & bit)
        - (12 if options.present & TS else 4 if options.present & SACK_OK else 0)
    ) // 8
    if "sack" in expected:
        expected["sack"] = expected["sack"][:fit]  # type: ignore[index]
        if not expected["sack"]:
            del expected["sack"]
    assert twin(data[:length]) == expected
    assert values(parse_options(data[:length])) == expected


def test_built_options_are_read_by_scapy() -> None:
    o = ffi.new(
        "struct tcp_options *",
        {"present": MSS | WS | SACK_OK | TS, "mss": 1460, "window_scale": 7, "tsval": 5, "tsecr": 6},
    )
    buffer = ffi.new("uint8_t[40]")
    data = bytes(ffi.buffer(buffer, lib.tcp_options_build(buffer, o)))
    packet = TCP(bytes(TCP(dataofs=5 + len(data) // 4)) + data)
    assert dict(p for p in packet.options if p[0] != "NOP") == {
        "MSS": 1460,
        "WScale": 7,
        "SAckOK": b"",
        "Timestamp": (5, 6),
    }


def parse_header(data: bytes) -> tuple[str, object]:
    out = ffi.new("struct tcp_segment *")
    buffer = ffi.new("uint8_t[]", data or b"\0")
    return VERDICTS[lib.tcp_header_parse(buffer, len(data), out)], out


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        pytest.param(TCP(**PORTS), "TCP_HEADER_OK", id="header alone"),
        pytest.param(TCP(**PORTS, flags=0), "TCP_HEADER_OK", id="no flags: the state machine's matter"),
        pytest.param(TCP(**PORTS, flags=0xFF, reserved=7), "TCP_HEADER_OK", id="all flags and reserved bits"),
        pytest.param(
            TCP(**PORTS, urgptr=65535, flags="UA"), "TCP_HEADER_OK", id="urgent pointer beyond the segment"
        ),
        pytest.param(TCP(sport=0, dport=80), "TCP_HEADER_BAD_PORT", id="source port 0"),
        pytest.param(TCP(sport=80, dport=0), "TCP_HEADER_BAD_PORT", id="destination port 0"),
        pytest.param(TCP(**PORTS, options=[("MSS", 1460)]), "TCP_HEADER_OK", id="options"),
        pytest.param(
            TCP(**PORTS, dataofs=6) / Raw(b"\x02\x00\0\0"), "TCP_HEADER_BAD_OPTIONS", id="option of length 0"
        ),
    ],
)
def test_header_verdict(packet: Packet, expected: str) -> None:
    assert parse_header(bytes(packet))[0] == expected


@pytest.mark.parametrize("offset", range(16))
def test_every_data_offset_at_every_length(offset: int) -> None:
    for length in range(65):
        data = bytes(TCP(**PORTS, dataofs=offset))[:20].ljust(64, b"\0")[:length]
        verdict, out = parse_header(data)
        if length < 20:
            assert verdict == "TCP_HEADER_TRUNCATED"
        elif offset < 5:
            assert verdict == "TCP_HEADER_BAD_OFFSET"
        elif offset * 4 > length:
            assert verdict == "TCP_HEADER_TRUNCATED"
        else:
            assert verdict == "TCP_HEADER_OK"
            assert (out.data_offset, out.payload_len) == (offset * 4, length - offset * 4)


@given(
    st.integers(1, 65535),
    st.integers(1, 65535),
    U32,
    U32,
    st.integers(0, 255),
    st.integers(0, 65535),
    st.integers(0, 65535),
    st.binary(max_size=50),
)
def test_header_values_are_scapys(
    sport: int, dport: int, seq: int, ack: int, flags: int, window: int, urgent: int, payload: bytes
) -> None:
    packet = TCP(sport=sport, dport=dport, seq=seq, ack=ack, flags=flags, window=window, urgptr=urgent) / Raw(
        payload
    )
    verdict, out = parse_header(bytes(packet))
    assert verdict == "TCP_HEADER_OK"
    assert (out.sport, out.dport, out.seq, out.ack) == (sport, dport, seq, ack)
    assert (out.flags, out.wnd, out.up) == (flags, window, urgent)
    assert (out.data_offset, out.payload_len) == (20, len(payload))


@pytest.mark.parametrize(
    "network",
    [IP(src="192.0.2.1", dst="192.0.2.2"), IPv6(src="2001:db8::1", dst="2001:db8::2")],
    ids=["4", "6"],
)
@pytest.mark.parametrize("length", [0, 1, 2, 3, 1459, 1460])
def test_checksum_is_scapys_and_every_flip_is_noticed(network: Packet, length: int) -> None:
    payload = bytes(i * 7 & 0xFF for i in range(length))
    data = bytearray(bytes(network / TCP(**PORTS) / Raw(payload))[len(network) :])
    src, dst = address(network.src), address(network.dst)

    def verify() -> str:
        return VERDICTS[lib.tcp_header_verify(ffi.from_buffer("uint8_t[]", data), len(data), src, dst)]

    assert verify() == "TCP_HEADER_OK"
    for byte in [*range(20), len(data) - 1]:
        data[byte] ^= 0x10
        assert verify() == "TCP_HEADER_BAD_CHECKSUM"
        data[byte] ^= 0x10
    assert (
        VERDICTS[
            lib.tcp_header_verify(ffi.from_buffer("uint8_t[]", data), len(data), src, address("192.0.2.77"))
        ]
        == "TCP_HEADER_BAD_CHECKSUM"
    )
