"""A view as dicts, and the way from Python values to the C ones; used by the tests of the CSB's update."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from _csbup import ffi, lib

from tests.reference.csb_faithful import Circle

KEYS = 2**32


def key_of(hash_: int) -> int:
    return hash_ % KEYS


@dataclass
class Twin:
    """What a view of these points and exceptions must answer."""

    points: Mapping[int, int]
    flows: Mapping[int, int]

    def __post_init__(self) -> None:
        self.circle = Circle(self.points)
        self.owners: dict[int, set[int]] = {}
        for hash_, tid in self.flows.items():
            self.owners.setdefault(key_of(hash_), set()).add(tid)

    def by_circle(self, key: int) -> int:
        return self.circle[key] if self.points else lib.CSB_NO_TID

    def lookup(self, hash_: int) -> int:
        if hash_ in self.flows:
            return self.flows[hash_]
        owners = self.owners.get(key_of(hash_), set())
        return next(iter(owners)) if len(owners) == 1 else self.by_circle(key_of(hash_))


def build_map(points: Mapping[int, int], epoch: int = 1) -> Any:
    csb_map = ffi.new("struct csb_map *")
    array = ffi.new("struct csb_point[]", [{"point": p, "tid": t} for p, t in points.items()] or 1)
    assert lib.csb_map_build(csb_map, array, len(points), epoch)
    return csb_map


def lists_of(flows: Mapping[int, int]) -> tuple[Any, dict[int, Any]]:
    """As threads report them; with the arrays that they point to."""
    by_tid: dict[int, list[int]] = {}
    for hash_, tid in flows.items():
        by_tid.setdefault(tid, []).append(hash_)
    arrays = {tid: ffi.new("uint64_t[]", hashes) for tid, hashes in by_tid.items()}
    return ffi.new("struct csb_list[]", [(a, len(a), t) for t, a in arrays.items()] or 1), arrays


def build_view(csb_map: Any, flows: Mapping[int, int]) -> Any:
    lists, arrays = lists_of(flows)
    room = lib.csb_view_bytes(len(flows), len(flows))
    view = ffi.gc(lib.native_view_new(room), lib.native_view_free)
    written = lib.csb_view_build(view, room, csb_map, lists, len(arrays))
    assert 0 < written <= room
    return view


def lookup_batch(view: Any, hashes: Sequence[int]) -> list[int]:
    out = ffi.new("uint16_t[]", len(hashes) + 1)
    out[len(hashes)] = 0xEEEE
    lib.csb_view_lookup_batch(view, ffi.new("uint64_t[]", list(hashes)), out, len(hashes))
    assert out[len(hashes)] == 0xEEEE
    return list(out)[:-1]
