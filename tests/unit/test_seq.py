"""Sequence arithmetic: order on a circle, and the acceptability table of RFC 9293 3.4."""

import pytest
from _leaf import lib
from hypothesis import given
from hypothesis import strategies as st

U32 = st.one_of(st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1]))


@given(U32, U32)
def test_order(a: int, b: int) -> None:
    distance = (b - a) % 2**32
    assert lib.native_seq_lt(a, b) == (0 < distance < 2**31)
    assert lib.native_seq_leq(a, b) == (distance < 2**31)
    assert not (lib.native_seq_lt(a, b) and lib.native_seq_lt(b, a))
    assert lib.native_seq_max(a, b) == (b if 0 < distance < 2**31 else a)


@given(U32, U32, U32)
def test_between(seq: int, begin: int, length: int) -> None:
    assert lib.native_seq_between(seq, begin, length) == ((seq - begin) % 2**32 < length)


@pytest.mark.parametrize(
    ("rcv_nxt", "rcv_wnd", "seq", "length", "acceptable"),
    [
        pytest.param(100, 0, 100, 0, True, id="empty segment at RCV.NXT, closed window"),
        pytest.param(100, 0, 101, 0, False, id="empty segment after RCV.NXT, closed window"),
        pytest.param(100, 0, 99, 0, False, id="empty segment before RCV.NXT, closed window"),
        pytest.param(100, 0, 100, 1, False, id="data, closed window"),
        pytest.param(100, 10, 109, 0, True, id="empty segment at the last byte of the window"),
        pytest.param(100, 10, 110, 0, False, id="empty segment behind the window"),
        pytest.param(100, 10, 90, 10, False, id="old data"),
        pytest.param(100, 10, 90, 11, True, id="old data and one new byte"),
        pytest.param(100, 10, 109, 1000, True, id="one byte in the window, the rest behind"),
        pytest.param(0, 10, 2**32 - 1, 2, True, id="old byte, then new byte, across the wrap"),
        pytest.param(2**32 - 5, 10, 4, 1, True, id="last byte of a window across the wrap"),
        pytest.param(2**32 - 5, 10, 5, 1, False, id="behind a window across the wrap"),
    ],
)
def test_segment_is_acceptable(rcv_nxt: int, rcv_wnd: int, seq: int, length: int, acceptable: bool) -> None:
    assert lib.native_seq_is_acceptable(rcv_nxt, rcv_wnd, seq, length) == acceptable
