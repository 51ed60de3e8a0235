"""Exceptions counted by slot and thread, against a dict."""

import random
from collections import Counter

import pytest
from _csbup import ffi, lib

from tests.unit.csb_twin import build_map, build_view

KEYS = 2**32
SLOTS, TIDS_MAX, SLOT_SHIFT = 4096, 256, 20
ROOM = 1000


@pytest.mark.parametrize("seed", range(10))
def test_each_exception_is_counted_where_it_is(seed: int) -> None:
    draw = random.Random(seed)
    flows: dict[int, int] = {}
    for key in draw.sample(range(draw.choice([40, 2**25, KEYS])), 30):
        flows[key | draw.randrange(1, 2**32) << 32] = draw.randrange(1, 5)
    points = {KEYS - 1: 0}
    wanted = Counter((h % KEYS >> SLOT_SHIFT, tid) for h, tid in flows.items())
    both = max(flows)  # a key of two owners is nobody's
    flows[both ^ 1 << 40] = (flows[both] + 1) % 5
    wanted[both % KEYS >> SLOT_SHIFT, flows[both]] -= 1
    view = build_view(build_map(points), flows)
    counts, out = ffi.new("uint32_t[]", SLOTS * TIDS_MAX), ffi.new("struct csb_strangers[]", ROOM)
    found = lib.csb_view_census(view, counts, out, ROOM)
    told = [(out[i].slot, out[i].tid, out[i].count) for i in range(found)]
    assert told == sorted((slot, tid, count) for (slot, tid), count in wanted.items() if count)
    assert lib.csb_view_census(view, counts, out, 1) == found
    assert out[1].count == (told[1][2] if found > 1 else 0)
