"""Initial sequence numbers, timestamps and cookies: what the peer sees and what a stranger can make of it."""

import itertools

import pytest
from _leaf import ffi, lib
from hypothesis import given
from hypothesis import strategies as st

SECRET = ffi.new("struct csb_secret *", {"k0": 0x0123456789ABCDEF, "k1": 0xFEDCBA9876543210})
OTHER = ffi.new("struct csb_secret *", {"k0": 0x0123456789ABCDEF, "k1": 0xFEDCBA9876543211})
VALUES = [216, 536, 1220, 1360, 1400, 1440, 1452, 1460]
U32 = st.integers(0, 2**32 - 1)
TIMES = st.integers(0, 2**45)
PERIOD_US = lib.ISN_COOKIE_PERIOD_S * 1_000_000


def flow(rport: int, lport: int = 80) -> object:
    zero, one = bytes(16), bytes(15) + b"\1"
    return ffi.new(
        "struct flow *", {"laddr": {"b": one}, "raddr": {"b": zero}, "lport": lport, "rport": rport}
    )


@given(st.integers(0, 65535), TIMES, st.integers(0, 2**40))
def test_isn_goes_with_the_clock_of_four_microseconds(rport: int, now: int, later: int) -> None:  # RFC 6528 3
    offsets = ffi.new("struct isn_offsets *", lib.isn_offsets(SECRET, lib.csb_hash(OTHER, flow(rport))))
    step = lib.native_isn_at(offsets, now + later) - lib.native_isn_at(offsets, now)
    assert step % 2**32 == ((now + later) // 4 - now // 4) % 2**32
    tick = lib.native_isn_tsval(offsets, now + later) - lib.native_isn_tsval(offsets, now)
    assert tick % 2**32 == ((now + later) // 1000 - now // 1000) % 2**32


@pytest.mark.parametrize("shift", [0, 20, 32, 52, None])
def test_offsets_of_neighbouring_flows_have_nothing_in_common(shift: int | None) -> None:
    """Differences of successive offsets: each bit is set about half the time, whichever part of the hash
    differs: offsets that are alike do not tell of hashes that are."""
    hashes = [lib.csb_hash(OTHER, flow(i)) if shift is None else i << shift for i in range(4096)]
    offsets = [lib.isn_offsets(SECRET, hashed) for hashed in hashes]
    assert len({o.isn for o in offsets}) > 4090
    for of in ("isn", "ts_base"):
        for bit in range(32):
            ones = sum((getattr(a, of) - getattr(b, of)) >> bit & 1 for a, b in itertools.pairwise(offsets))
            assert 1800 < ones < 2300, (of, bit)
    assert lib.isn_offsets(SECRET, hashes[1]).isn != lib.isn_offsets(OTHER, hashes[1]).isn


@given(st.integers(0, 65535), U32, st.integers(0, 65535), TIMES, st.integers(0, PERIOD_US))
def test_a_cookie_comes_back_with_its_mss_rounded_down(
    rport: int, irs: int, mss: int, now: int, age: int
) -> None:
    cookie = lib.isn_cookie_encode(SECRET, flow(rport), irs, mss, now)
    found = ffi.new("uint16_t *")
    assert lib.isn_cookie_decode(SECRET, flow(rport), irs, cookie, now + age, found)
    assert found[0] == max([v for v in VALUES if v <= mss], default=VALUES[0])


@pytest.mark.parametrize("age", [2 * PERIOD_US, 3 * PERIOD_US, 4 * PERIOD_US, 5 * PERIOD_US, 40 * PERIOD_US])
def test_an_old_cookie_is_stale(age: int) -> None:
    cookie = lib.isn_cookie_encode(SECRET, flow(9), 77, 1460, 10 * PERIOD_US)
    assert not lib.isn_cookie_decode(SECRET, flow(9), 77, cookie, 10 * PERIOD_US + age, ffi.new("uint16_t *"))


@given(U32, TIMES, st.integers(1, 2**32 - 1))
def test_a_cookie_of_another_flow_irs_secret_or_bits_is_refused(irs: int, now: int, flip: int) -> None:
    """Each has one chance in 2^27 of being right; hypothesis does not find it."""
    found = ffi.new("uint16_t *")
    cookie = lib.isn_cookie_encode(SECRET, flow(9), irs, 1460, now)
    assert not lib.isn_cookie_decode(SECRET, flow(8), irs, cookie, now, found)
    assert not lib.isn_cookie_decode(SECRET, flow(9), irs ^ flip, cookie, now, found)
    assert not lib.isn_cookie_decode(SECRET, flow(9), irs, cookie ^ flip, now, found)
    assert not lib.isn_cookie_decode(OTHER, flow(9), irs, cookie, now, found)


@given(U32, st.integers(0, 15), st.booleans(), st.booleans())
def test_options_ride_in_the_timestamp(tsval: int, wscale: int, sack: bool, ecn: bool) -> None:
    options = ffi.new("struct isn_cookie *", {"timestamps": True, "sack": sack, "ecn": ecn, "wscale": wscale})
    sent = lib.isn_cookie_tsval(tsval, options)
    assert (tsval - sent) % 2**32 < 64
    found = ffi.new("struct isn_cookie *")
    lib.isn_cookie_read_tsecr(sent, found)
    assert (found.timestamps, found.sack, found.ecn, found.wscale) == (True, sack, ecn, wscale)
