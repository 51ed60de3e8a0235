"""The one computation of the layout: nothing overlaps, nothing lies outside, bad sizes are refused."""

from itertools import pairwise

import pytest
from _shm import ffi, lib
from hypothesis import given
from hypothesis import strategies as st

SLOT_BYTES, DESC_BYTES, HEADER_BYTES, HUGE_PAGE = 2048, 16, 4096, 2 << 20
SIZES = {"io_count": 2, "rx_slots_per_io": 256, "tx_slots": 512, "rows": 1000, "row_stride": 320}


def layout(**changes: int):
    out = ffi.new("struct shm_offsets *")
    return out if lib.shm_layout(ffi.new("struct shm_sizes *", {**SIZES, **changes}), out) else None


def check_pieces(pieces: list[tuple[int, int]], total: int) -> None:
    pieces = sorted(pieces)
    for (a, size), (b, _) in pairwise(pieces):
        assert a + size <= b
    assert pieces[-1][0] + pieces[-1][1] <= total
    assert total % HUGE_PAGE == 0
    assert all(offset % 64 == 0 for offset, _ in pieces)


@given(
    io_count=st.integers(1, 8),
    rx=st.integers(6, 14),
    tx=st.integers(6, 14),
    rows=st.integers(1, 1 << 20),
    stride=st.integers(8, 128),
)
def test_pieces_are_disjoint_and_inside(io_count: int, rx: int, tx: int, rows: int, stride: int) -> None:
    rx_slots, tx_slots, row_stride = 1 << rx, 1 << tx, stride * 8
    o = layout(
        io_count=io_count, rx_slots_per_io=rx_slots, tx_slots=tx_slots, rows=rows, row_stride=row_stride
    )
    assert o is not None
    j2a = [(0, HEADER_BYTES), (o.rx_slots, io_count * rx_slots * SLOT_BYTES)]
    a2j = [(0, HEADER_BYTES), (o.tx_slots, tx_slots * SLOT_BYTES)]
    for io in range(io_count):
        j2a += [(o.rx[io], 2 * rx_slots * DESC_BYTES), (o.tx_done[io], tx_slots * DESC_BYTES)]
        a2j += [(o.tx[io], tx_slots * DESC_BYTES), (o.rx_return[io], rx_slots * DESC_BYTES)]
    check_pieces(j2a, o.j2a_bytes)
    check_pieces(a2j, o.a2j_bytes)
    check_pieces([(0, rows * row_stride)], o.rows_bytes)


@pytest.mark.parametrize(
    "bad",
    [
        {"io_count": 0},
        {"io_count": 9},
        {"rx_slots_per_io": 63},
        {"rx_slots_per_io": 32},
        {"rx_slots_per_io": 96},
        {"rx_slots_per_io": 1 << 21},
        {"tx_slots": 0},
        {"tx_slots": 100},
        {"tx_slots": 1 << 31},
        {"rows": 0},
        {"rows": (1 << 30) + 1},
        {"row_stride": 56},
        {"row_stride": 68},
        {"row_stride": 1032},
    ],
    ids=str,
)
def test_sizes_out_of_range_are_refused(bad: dict[str, int]) -> None:
    assert layout(**bad) is None


def test_the_largest_sizes_do_not_overflow() -> None:
    o = layout(io_count=8, rx_slots_per_io=1 << 20, tx_slots=1 << 20, rows=1 << 30, row_stride=1024)
    assert o is not None
    assert o.a2j_bytes > o.tx_slots + (1 << 20) * SLOT_BYTES
    assert o.rows_bytes == (1 << 30) * 1024
