"""The printed form in C against its twin in Python, through whole updates with SYNs between the steps."""

import random

import pytest
from _csbup import ffi, lib

from tests.reference.csb_faithful import Bloom, FaithfulCsb

KEYS = 1 << 10  # few, spread over the circle: equal keys and false positives are frequent
BITS, HASHES = 512, 3
TIDS = 5


def spread(key: int) -> int:
    return key * 0x9E3779B1 % 2**32


class Pair:
    """Both forms; each call goes to both, and each answer is compared."""

    def __init__(self, points: dict[int, int]) -> None:
        self.python = FaithfulCsb(points, make_bloom=lambda: Bloom(BITS, HASHES))
        self.c = ffi.new("struct faithful_csb *")
        array = [{"point": p, "tid": t} for p, t in points.items()]
        lib.faithful_init(self.c, ffi.new("struct faithful_point[]", array), len(array))

    def lookup(self, key: int, *, syn: bool = False) -> int:
        tid = self.python.lookup(key, syn=syn)
        assert lib.faithful_lookup(self.c, key, syn) == tid
        return tid

    def lookups(self, draw: random.Random, *, syn: float) -> list[tuple[int, int]]:
        """Packets; the keys of the SYNs among them and where they went."""
        opened = []
        for _ in range(60):
            key, is_syn = spread(draw.randrange(KEYS)), draw.random() < syn
            tid = self.lookup(key, syn=is_syn)
            if is_syn:
                opened.append((key, tid))
        return opened

    def update(self, points: dict[int, int], live: list[tuple[int, int]], draw: random.Random) -> None:
        """One update; SYNs come between the steps."""
        array = [{"point": p, "tid": t} for p, t in points.items()]
        table = ffi.new("struct faithful_connection[]", [{"key": k, "tid": t} for k, t in live] or 1)
        self.python.step_1_place(points)
        lib.faithful_step_1_place(self.c, ffi.new("struct faithful_point[]", array), len(array), BITS, HASHES)
        self.python.step_2_open()
        lib.faithful_step_2_open(self.c)
        self.lookups(draw, syn=0.5)
        self.python.step_3_filter(live)
        lib.faithful_step_3_filter(self.c, table, len(live))
        self.python.step_4_collect(live)
        lib.faithful_step_4_collect(self.c, table, len(live))
        self.lookups(draw, syn=0.5)
        self.python.step_5_merge()
        lib.faithful_step_5_merge(self.c)
        self.python.step_6_publish()
        lib.faithful_step_6_publish(self.c)

    def compare(self) -> None:
        diff = [
            (self.c.h_diff.points[i].point, self.c.h_diff.points[i].tid) for i in range(self.c.h_diff.count)
        ]
        assert diff == self.python.h_diff.points
        for key in map(spread, range(KEYS)):
            assert lib.native_faithful_bf_has(self.c, key) == (key in self.python.bf)
            assert lib.native_faithful_fly_has(self.c, key) == (key in self.python.set_fly)
            self.lookup(key)


@pytest.mark.parametrize("seed", range(12))
def test_both_printed_forms_agree(seed: int) -> None:
    draw = random.Random(seed)
    points = {draw.randrange(2**32): draw.randrange(TIDS) for _ in range(20)}
    pair = Pair(points)
    live: list[tuple[int, int]] = []
    try:
        for _ in range(6):
            live = [c for c in live if draw.random() < 0.8] + pair.lookups(draw, syn=0.7)
            points = {p: draw.randrange(TIDS) if draw.random() < 0.3 else t for p, t in points.items()}
            pair.update(points, live, draw)
            pair.compare()
    finally:
        lib.faithful_free(pair.c)


def test_no_points_no_thread() -> None:
    csb = ffi.new("struct faithful_csb *")
    lib.faithful_init(csb, ffi.NULL, 0)
    assert lib.faithful_lookup(csb, 5, False) == 2**32 - 1
    lib.faithful_free(csb)
