"""What an app may send: each refusal by name; no bytes get out with a source outside the lease."""

import socket
from ipaddress import ip_address

import pytest
from _shm import ffi, lib
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import IPv6

OURS, OURS6, PEER, PEER6 = "10.77.0.1", "fd77::1", "10.77.0.2", "fd77::2"
NAMES = [ffi.string(lib.shm_drop_name(i)).decode() for i in range(lib.test_drop_count())]


def mapped(address: str) -> bytes:
    a = ip_address(address)
    return bytes(10) + b"\xff\xff" + a.packed if a.version == 4 else a.packed


def make_lease():
    lease = ffi.new("struct txcheck_lease *", {"address_count": 2})
    lease.addresses[0].b = mapped(OURS)
    lease.addresses[1].b = mapped(OURS6)
    lib.txcheck_lease_port(lease, 80, 80)
    lib.txcheck_lease_port(lease, 40000, 49999)
    return lease


LEASE = make_lease()
OUT = ffi.new("struct txcheck_packet *")


def verdict(packet: bytes) -> str:
    return NAMES[lib.txcheck_packet(LEASE, packet, len(packet), OUT)]


def v4(src: str = OURS, dst: str = PEER, sport: int = 80, payload: bytes = b"", **ip) -> bytes:
    return bytes(IP(src=src, dst=dst, **ip) / TCP(sport=sport, dport=9999) / payload)


def v6(src: str = OURS6, dst: str = PEER6, sport: int = 80, payload: bytes = b"", **ip) -> bytes:
    return bytes(IPv6(src=src, dst=dst, **ip) / TCP(sport=sport, dport=9999) / payload)


def patched(packet: bytes, offset: int, value: int) -> bytes:
    return packet[:offset] + bytes([value]) + packet[offset + 1 :]


CASES = {
    "plain v4": (v4(), "none"),
    "plain v6": (v6(), "none"),
    "payload": (v4(payload=b"x" * 1000), "none"),
    "range of active opens": (v4(sport=40000), "none"),
    "end of the range": (v6(sport=49999), "none"),
    "DF": (v4(flags="DF"), "none"),
    "source v4": (v4(src="10.77.0.3"), "tx_source"),
    "source v6": (v6(src="fd77::3"), "tx_source"),
    "source mapped in v6": (v6(src="::ffff:10.77.0.1"), "tx_source"),
    "port below": (v4(sport=79), "tx_source_port"),
    "port behind the range": (v4(sport=50000), "tx_source_port"),
    "port 0": (v4(sport=0), "tx_source_port"),
    "destination port 0": (bytes(IP(src=OURS, dst=PEER) / TCP(sport=80, dport=0)), "tx_header"),
    "multicast": (v4(dst="224.0.0.1"), "tx_destination"),
    "broadcast": (v4(dst="255.255.255.255"), "tx_destination"),
    "loopback": (v4(dst="127.0.0.1"), "tx_destination"),
    "unspecified": (v4(dst="0.0.0.0"), "tx_destination"),
    "v6 multicast": (v6(dst="ff02::1"), "tx_destination"),
    "v6 loopback": (v6(dst="::1"), "tx_destination"),
    "v6 unspecified": (v6(dst="::"), "tx_destination"),
    "v6 mapped": (v6(dst="::ffff:10.77.0.2"), "tx_destination"),
    "UDP": (bytes(IP(src=OURS, dst=PEER) / UDP(sport=80) / bytes(20)), "tx_protocol"),
    "v6 extension": (v6(nh=60), "tx_protocol"),
    "IP options": (v4(options=[IPOption_NOP()] * 4), "tx_header"),
    "fragment": (v4(flags="MF"), "tx_header"),
    "fragment offset": (v4(frag=1), "tx_header"),
    "any DSCP and TTL": (v4(tos=0xB8, ttl=255), "none"),
    "any class and hop limit": (v6(tc=0xB8, hlim=1), "none"),
    "TTL 0": (v4(ttl=0), "tx_header"),
    "hop limit 0": (v6(hlim=0), "tx_header"),
    "header checksum": (v4(chksum=1), "tx_header"),
    "total length above": (v4(len=41), "tx_header"),
    "total length below": (v4(payload=b"x", len=40), "tx_header"),
    "v6 length": (v6(plen=19), "tx_header"),
    "version 5": (patched(v4(), 0, 0x55), "tx_header"),
    "IHL 4": (patched(v4(), 0, 0x44), "tx_header"),
    "data offset 4": (patched(v4(), 32, 0x40), "tx_header"),
    "data offset beyond": (patched(v4(), 32, 0x60), "tx_header"),
    "v6 in 40 bytes": (v6()[:40], "tx_header"),
    "too short": (v4()[:39], "tx_bounds"),
}


@pytest.mark.parametrize("name", CASES)
def test_packet(name: str) -> None:
    packet, expected = CASES[name]
    assert verdict(packet) == expected


@given(data=st.data())
def test_no_change_of_a_good_packet_sends_from_outside_the_lease(data: st.DataObject) -> None:
    packet = bytearray(data.draw(st.sampled_from([v4(payload=b"abc"), v6(payload=b"abc")])))
    for _ in range(data.draw(st.integers(1, 6))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    raw = bytes(packet)
    if verdict(raw) != "none":
        return
    header = 20 if raw[0] >> 4 == 4 else 40
    source = raw[12:16] if header == 20 else raw[8:24]
    port = int.from_bytes(raw[header : header + 2], "big")
    assert source in (socket.inet_aton(OURS), socket.inet_pton(socket.AF_INET6, OURS6))
    assert port == 80 or 40000 <= port <= 49999
    assert raw[9 if header == 20 else 6] == 6


@given(raw=st.binary(max_size=200))
def test_any_bytes_are_judged(raw: bytes) -> None:
    assert verdict(raw).startswith("tx_")


DESC = {"slot": 1, "offset": 128, "len": 40, "kind": 1}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "none"),
        ({"flags": 4}, "none"),
        ({"slot": 63, "offset": 0, "len": 2048}, "none"),
        ({"slot": 64}, "tx_slot"),
        ({"slot": 2**32 - 1}, "tx_slot"),
        ({"kind": 0}, "tx_kind"),
        ({"kind": 3}, "tx_kind"),
        ({"flags": 1}, "tx_kind"),
        ({"flags": 0xFF}, "tx_kind"),
        ({"len": 39}, "tx_bounds"),
        ({"len": 0}, "tx_bounds"),
        ({"offset": 2009}, "tx_bounds"),
        ({"offset": 65535, "len": 65535}, "tx_bounds"),
        ({"offset": 65000, "len": 600}, "tx_bounds"),  # 64 in 16 bits
        ({"offset": 1, "len": 2048}, "tx_bounds"),
    ],
    ids=str,
)
def test_descriptor(change: dict[str, int], expected: str) -> None:
    assert NAMES[lib.txcheck_desc(ffi.new("struct shm_desc *", {**DESC, **change}), 64)] == expected
