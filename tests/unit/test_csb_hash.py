"""The keyed hash against an independent SipHash, Murmur3 against mmh3."""

import ipaddress

import mmh3
import pytest
from _csb import ffi, lib
from hypothesis import given
from hypothesis import strategies as st

U64 = st.integers(0, 2**64 - 1)
MASK = 2**64 - 1


def siphash(k0: int, k1: int, data: bytes, c: int, d: int) -> int:
    """SipHash-c-d as the paper of Aumasson and Bernstein (2012) writes it, section 2."""
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rotate(x: int, n: int) -> int:
        return (x << n | x >> (64 - n)) & MASK

    def half(a: int, b: int, n: int) -> None:
        v[a] = (v[a] + v[b]) & MASK
        v[b] = rotate(v[b], n) ^ v[a]

    def sip_round() -> None:
        half(0, 1, 13)
        half(2, 3, 16)
        v[0] = rotate(v[0], 32)
        half(2, 1, 17)
        half(0, 3, 21)
        v[2] = rotate(v[2], 32)

    padded = data + b"\0" * (7 - len(data) % 8) + bytes([len(data) & 0xFF])
    for i in range(0, len(padded), 8):
        word = int.from_bytes(padded[i : i + 8], "little")
        v[3] ^= word
        for _ in range(c):
            sip_round()
        v[0] ^= word
    v[2] ^= 0xFF
    for _ in range(d):
        sip_round()
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def secret(k0: int, k1: int) -> object:
    return ffi.new("struct csb_secret *", {"k0": k0, "k1": k1})


def flow(laddr: bytes, lport: int, raddr: bytes, rport: int) -> object:
    return ffi.new(
        "struct flow *", {"laddr": {"b": laddr}, "raddr": {"b": raddr}, "lport": lport, "rport": rport}
    )


def test_the_twin_gives_the_papers_example() -> None:
    """Appendix A of the paper: SipHash-2-4 of 00..0e under the key 00..0f."""
    key = bytes(range(16))
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    assert siphash(k0, k1, bytes(range(15)), 2, 4) == 0xA129CA6149BE45E5


@pytest.mark.parametrize("length", range(65))
def test_siphash13_of_every_short_length(length: int) -> None:
    data = bytes(range(length))
    assert lib.csb_siphash13(secret(3, 2**63 + 5), data, length) == siphash(3, 2**63 + 5, data, 1, 3)


@given(U64, U64, st.binary(max_size=300))
def test_siphash13_of_anything(k0: int, k1: int, data: bytes) -> None:
    assert lib.csb_siphash13(secret(k0, k1), data, len(data)) == siphash(k0, k1, data, 1, 3)


@given(U64, U64, st.ip_addresses(v=6), st.ip_addresses(v=6), st.integers(0, 65535), st.integers(0, 65535))
def test_flow_hash_is_siphash13_of_36_bytes(
    k0: int, k1: int, laddr: ipaddress.IPv6Address, raddr: ipaddress.IPv6Address, lport: int, rport: int
) -> None:
    data = raddr.packed + laddr.packed + rport.to_bytes(2, "little") + lport.to_bytes(2, "little")
    got = lib.csb_hash(secret(k0, k1), flow(laddr.packed, lport, raddr.packed, rport))
    assert got == siphash(k0, k1, data, 1, 3)
    assert (lib.native_csb_key(got), lib.native_csb_table_hash(got)) == (got & 0xFFFFFFFF, got >> 32)


def test_each_part_of_the_flow_matters() -> None:
    base = (bytes(15) + b"\1", 80, bytes(15) + b"\2", 40000)
    flows = [
        base,
        (bytes(15) + b"\3", *base[1:]),
        (base[0], 81, *base[2:]),
        (*base[:2], bytes(15) + b"\3", 40000),
        (*base[:3], 40001),
        (base[2], base[3], base[0], base[1]),
        (base[0], base[3], base[2], base[1]),
    ]
    assert len({lib.csb_hash(secret(1, 2), flow(*f)) for f in flows}) == len(flows)


@given(U64, st.integers(0, 2**32 - 1))
def test_murmur3_is_mmh3(value: int, seed: int) -> None:
    assert lib.csb_murmur3(value, seed) == mmh3.hash(value.to_bytes(8, "little"), seed, signed=False)


def test_keys_of_a_thousand_clients_spread() -> None:
    """One client's ports do not gather: each 16th of the circle has its share within 6 deviations."""
    count = [0] * 16
    for port in range(1024, 65536, 4):
        key = lib.native_csb_key(lib.csb_hash(secret(11, 12), flow(bytes(16), 80, bytes(16), port)))
        count[key >> 28] += 1
    mean = sum(count) / 16
    assert all(abs(n - mean) < 6 * (mean * 15 / 16) ** 0.5 for n in count), count
