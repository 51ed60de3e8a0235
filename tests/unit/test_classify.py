"""The classifier: the corpus of hostile frames, values against scapy, and any bytes at all."""

import ipaddress
import re
from pathlib import Path

import pytest
from _classify import ffi, lib
from hostile_frames import CORPUS, OTHERS, OUR4, OUR6, OUR_MAC, PEER4, PEER6, PEER_MAC, PortCase
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, PadN, in6_chksum
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

DEF = Path(__file__).resolve().parents[2] / "dpdk_glue" / "classify_drops.def"
SLOW = [
    name.removeprefix("CLASSIFY_SLOW_").lower()
    for _, name in sorted(ffi.typeof("enum classify_slow").elements.items())
]
CASES: list[PortCase] = [*((name, frame, {}, verdict) for name, frame, verdict in CORPUS), *OTHERS]


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def mapped(text: str) -> bytes:
    packed = ipaddress.ip_address(text).packed
    return packed if len(packed) == 16 else b"\0" * 10 + b"\xff\xff" + packed


def make_port(**facts: object) -> object:
    return ffi.new("struct classify_port *", {"mac": {"b": mac(OUR_MAC)}, **facts})


PORT = make_port()


def verdict_of(out: object) -> str:
    if out.verdict == lib.CLASSIFY_DROP:
        return ffi.string(lib.native_drop_name(out.drop)).decode()
    names = {lib.CLASSIFY_TCP: "tcp", lib.CLASSIFY_ICMP: "icmp"}
    return names[out.verdict] if out.verdict in names else f"slow:{SLOW[out.slow]}"


def classify(frame: bytes, port: object = PORT, flags: int = 0) -> tuple[str, object]:
    """Classifies a copy that ends where the frame ends, so that a sanitizer sees the first byte too far."""
    out = ffi.new("struct classified *")
    data = ffi.new("uint8_t[]", frame or b"\0")
    assert lib.classify_frame(port, data, len(frame), flags, out) == out.verdict
    check_invariants(len(frame), out)
    return verdict_of(out), out


def check_invariants(length: int, out: object) -> None:
    """What the I/O thread relies on without asking again."""
    assert (out.drop != 0) == (out.verdict == lib.CLASSIFY_DROP)
    assert (out.slow != 0) == (out.verdict == lib.CLASSIFY_SLOW)
    assert out.l3_offset in {0, 14, 18}
    assert out.l3_offset + out.total_len <= length
    if out.version:
        assert out.l3_offset + 20 <= out.l4_offset <= out.l3_offset + out.total_len
    if out.verdict == lib.CLASSIFY_TCP:
        assert out.protocol == 6
        assert out.version in {4, 6}
        assert out.flow.lport
        assert out.flow.rport
        assert out.l4_offset + 20 <= out.l3_offset + out.total_len


@pytest.mark.parametrize(
    ("frame", "facts", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_hostile_frame(frame: bytes, facts: dict[str, object], expected: str) -> None:
    assert classify(frame, make_port(**facts))[0] == expected


def test_the_corpus_is_large_and_each_name_is_there_once() -> None:
    assert (
        sum(1 for case in CASES if case[3] not in ("tcp", "icmp") and not case[3].startswith("slow")) >= 150
    )
    assert len({case[0] for case in CASES}) == len(CASES)


def test_every_drop_reason_is_hit() -> None:
    listed = re.findall(r'^DROP\((\w+), "(\w+)", "([^"]+)"\)$', DEF.read_text(), re.MULTILINE)
    assert len(listed) == lib.CLASSIFY_DROP_COUNT
    for number, (symbol, name, sentence) in enumerate(listed):
        assert name == symbol.lower()
        assert ffi.string(lib.native_drop_name(number)).decode() == name
        assert ffi.string(lib.native_drop_sentence(number)).decode() == sentence
    hit = {case[3] for case in CASES}
    assert {name for _, name, _ in listed} - {"none"} - hit == set()
    assert {f"slow:{kind}" for kind in SLOW if kind != "none"} <= hit


def test_no_name_for_what_is_no_reason() -> None:
    assert lib.native_drop_name(lib.CLASSIFY_DROP_COUNT) == ffi.NULL
    assert lib.native_drop_sentence(-1) == ffi.NULL


def networks() -> list[tuple[str, Packet, str, str]]:
    options = IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))])
    return [
        ("ipv4", IP(src=PEER4, dst=OUR4), OUR4, PEER4),
        ("ipv6", IPv6(src=PEER6, dst=OUR6), OUR6, PEER6),
        ("ipv6 with options", IPv6(src=PEER6, dst=OUR6) / options, OUR6, PEER6),
    ]


@pytest.mark.parametrize("network", networks(), ids=lambda n: n[0])
@pytest.mark.parametrize("tag", [None, Dot1Q(vlan=0)], ids=["untagged", "tagged"])
@given(st.integers(1, 65535), st.integers(1, 65535), st.integers(0, 255), st.binary(max_size=100))
def test_values_are_scapys(
    network: tuple[str, Packet, str, str],
    tag: Packet | None,
    sport: int,
    dport: int,
    flags: int,
    payload: bytes,
) -> None:
    _, ip, ours, peer = network
    link = Ether(dst=OUR_MAC, src=PEER_MAC) / tag if tag else Ether(dst=OUR_MAC, src=PEER_MAC)
    frame = bytes(link / ip / TCP(sport=sport, dport=dport, flags=flags) / Raw(payload))
    verdict, out = classify(frame + b"\xee" * 20)
    assert verdict == "tcp"
    assert (bytes(out.flow.laddr.b), out.flow.lport) == (mapped(ours), dport)
    assert (bytes(out.flow.raddr.b), out.flow.rport) == (mapped(peer), sport)
    assert (out.l3_offset, out.l4_offset) == (len(link), len(link) + len(ip))
    assert out.total_len == len(frame) - len(link)
    assert (out.version, out.protocol, out.tcp_flags) == (ip.version, 6, flags)
    assert out.is_syn == (flags & 0x17 == 0x02)


@pytest.mark.parametrize(("kind", "code"), [(3, 4), (3, 1), (11, 0), (12, 0)])
def test_error_gives_the_flow_that_it_quotes(kind: int, code: int) -> None:
    sent = IP(src=OUR4, dst="192.0.2.9") / TCP(sport=80, dport=40000)
    frame = Ether(dst=OUR_MAC, src=PEER_MAC) / IP(src=PEER4, dst=OUR4) / ICMP(type=kind, code=code) / sent
    verdict, out = classify(bytes(frame))
    assert verdict == "icmp"
    assert (bytes(out.flow.laddr.b), out.flow.lport) == (mapped(OUR4), 80)
    assert (bytes(out.flow.raddr.b), out.flow.rport) == (mapped("192.0.2.9"), 40000)


@pytest.mark.parametrize(("kind", "code"), [(1, 4), (2, 0), (3, 0), (4, 1)])
def test_error_over_ipv6_gives_the_flow_that_it_quotes(kind: int, code: int) -> None:
    sent = IPv6(src=OUR6, dst="2001:db8::9") / TCP(sport=80, dport=40000)
    error = bytes([kind, code, 0, 0, 0, 0, 5, 0]) + bytes(sent)
    packet = IPv6(src=PEER6, dst=OUR6, nh=58)
    total = in6_chksum(58, packet, error)
    frame = Ether(dst=OUR_MAC, src=PEER_MAC) / packet / Raw(error[:2] + total.to_bytes(2, "big") + error[4:])
    verdict, out = classify(bytes(frame))
    assert verdict == "icmp"
    assert (bytes(out.flow.laddr.b), out.flow.lport) == (mapped(OUR6), 80)
    assert (bytes(out.flow.raddr.b), out.flow.rport) == (mapped("2001:db8::9"), 40000)


def test_udp_gives_its_ports() -> None:
    frame = Ether(dst=OUR_MAC, src=PEER_MAC) / IP(src=PEER4, dst=OUR4) / UDP(sport=53, dport=5353)
    _, out = classify(bytes(frame))
    assert (out.flow.lport, out.flow.rport) == (5353, 53)


@pytest.mark.parametrize("network", networks(), ids=lambda n: n[0])
def test_every_flipped_bit_of_the_headers_is_noticed(network: tuple[str, Packet, str, str]) -> None:
    """Only what nothing covers may change and pass: IPv6's class, label, hop limit and options."""
    ip = network[1]
    frame = bytes(Ether(dst=OUR_MAC, src=PEER_MAC) / ip / TCP(sport=40000, dport=80) / b"payload!")
    uncovered = {} if ip.version == 4 else {14: 0x0F, 15: 0xFF, 16: 0xFF, 17: 0xFF, 21: 0xFF}
    if len(ip) > 40:
        uncovered |= dict.fromkeys(range(56, 62), 0xFF)
    for at in range(12, len(frame)):
        for bit in range(8):
            flipped = bytearray(frame)
            flipped[at] ^= 1 << bit
            if not uncovered.get(at, 0) >> bit & 1:
                assert classify(bytes(flipped))[0] != "tcp", f"byte {at}, bit {bit}"


def test_a_port_that_verified_the_checksum_is_believed_about_it_alone() -> None:
    good = bytearray(
        bytes(Ether(dst=OUR_MAC, src=PEER_MAC) / IP(src=PEER4, dst=OUR4) / TCP(sport=1, dport=2, chksum=7))
    )
    assert classify(bytes(good))[0] == "tcp_checksum"
    assert classify(bytes(good), flags=lib.CLASSIFY_L4_VERIFIED)[0] == "tcp"
    good[24] ^= 1
    assert classify(bytes(good), flags=lib.CLASSIFY_L4_VERIFIED)[0] == "ip_checksum"


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 64])
@pytest.mark.parametrize("with_flags", [False, True])
def test_a_burst_is_its_frames(count: int, with_flags: bool) -> None:
    cases = [CORPUS[(i * 37) % len(CORPUS)] for i in range(count)]
    data = [ffi.new("uint8_t[]", frame or b"\0") for _, frame, _ in cases]
    flags = ffi.new("uint8_t[]", [lib.CLASSIFY_L4_VERIFIED * (i & 1) for i in range(count)] or 1)
    out = ffi.new("struct classified[]", count + 1)
    out[count].drop = 0xEE
    lib.classify_burst(PORT, ffi.new("uint8_t *[]", data), ffi.new("uint32_t[]", [len(c[1]) for c in cases]),
                       flags if with_flags else ffi.NULL, out, count)  # fmt: skip
    assert out[count].drop == 0xEE
    for i, (_, frame, _) in enumerate(cases):
        alone = classify(frame, flags=flags[i] if with_flags else 0)[1]
        assert bytes(ffi.buffer(ffi.addressof(out[i]))) == bytes(ffi.buffer(alone))


TIMESTAMPS = [("NOP", None), ("NOP", None), ("Timestamp", (1, 2))]
VLAN = 5
# What keeps its place when a tag is put in front, and what moves with it.
KEPT = ("total_len", "verdict", "slow", "drop", "version", "protocol", "tcp_flags", "is_syn")


@given(
    st.sampled_from([[], TIMESTAMPS, [("MSS", 1460)], [("WScale", 3), *TIMESTAMPS]]),
    st.sampled_from([PEER4, "127.0.0.1", "0.1.1.1", "224.0.0.1", "255.255.255.255", OUR4]),
    st.sampled_from([OUR4, "127.0.0.1", "0.1.1.1", "224.0.0.1", "240.0.0.1"]),
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 255)),
    st.binary(max_size=70),
    st.lists(st.tuples(st.integers(0, 70), st.integers(0, 255)), max_size=2),
    st.integers(0, 40),
    st.sampled_from([0, lib.CLASSIFY_L4_VERIFIED]),
    st.sampled_from([0, 60, 1500]),
)
def test_a_plain_frame_is_seen_as_the_checks_one_by_one_see_it(
    options: list[tuple[str, object]],
    src: str,
    dst: str,
    header: tuple[int, int, int],
    payload: bytes,
    changes: list[tuple[int, int]],
    cut: int,
    flags: int,
    mtu: int,
) -> None:
    """Tagged frames never take the short way."""
    sport, dport, tcp_flags = header
    segment = TCP(sport=sport, dport=dport, flags=tcp_flags, options=options)
    packet = bytearray(bytes(IP(src=src, dst=dst) / segment / Raw(payload)))
    for at, value in changes:
        packet[at % len(packet)] = value
    packet = packet[: len(packet) - cut // 4] + bytes(cut % 4)
    link = bytes(Ether(dst=OUR_MAC, src=PEER_MAC, type=0x0800))
    tag = bytes(Ether(dst=OUR_MAC, src=PEER_MAC) / Dot1Q(vlan=VLAN, type=0x0800))
    _, plain = classify(link + bytes(packet), make_port(mtu=mtu), flags)
    _, tagged = classify(tag + bytes(packet), make_port(mtu=mtu, vlan_id=VLAN), flags)
    assert [getattr(plain, name) for name in KEPT] == [getattr(tagged, name) for name in KEPT]
    assert bytes(ffi.buffer(ffi.addressof(plain, "flow"))) == bytes(ffi.buffer(ffi.addressof(tagged, "flow")))
    if plain.verdict == lib.CLASSIFY_TCP:
        assert (plain.l3_offset + 4, plain.l4_offset + 4) == (tagged.l3_offset, tagged.l4_offset)


@pytest.mark.parametrize(
    ("dst", "src"),
    [
        ("ff:ff:ff:ff:ff:ff", PEER_MAC),
        (OUR_MAC, "00:00:00:00:00:00"),
        (OUR_MAC, "01:00:00:00:00:01"),
        (PEER_MAC, OUR_MAC),
    ],
)
def test_a_plain_packet_in_a_frame_that_is_not_plain(dst: str, src: str) -> None:
    packet = IP(src=PEER4, dst=OUR4) / TCP(sport=1, dport=2)
    verdict, _ = classify(bytes(Ether(dst=dst, src=src) / packet))
    tagged = bytes(Ether(dst=dst, src=src) / Dot1Q(vlan=VLAN) / packet)
    assert verdict != "tcp"
    assert verdict == classify(tagged, make_port(vlan_id=VLAN))[0]
    assert classify(bytes(Ether(dst=OUR_MAC, src=PEER_MAC) / packet), make_port(no_ipv4=True))[0] != "tcp"


@given(st.binary(max_size=200))
def test_any_bytes_are_safe(data: bytes) -> None:
    classify(data)


@given(
    st.sampled_from(CORPUS),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4),
    st.integers(0, 60),
)
def test_any_change_of_any_frame_is_safe(
    case: tuple[str, bytes, str], changes: list[tuple[int, int]], cut: int
) -> None:
    frame = bytearray(case[1])
    for at, value in changes:
        if frame:
            frame[at % len(frame)] = value
    classify(bytes(frame[: len(frame) - cut] if cut < len(frame) else frame), flags=lib.CLASSIFY_L4_VERIFIED)
