"""The balancer's updates: what they are made of, the orders to the I/O threads, and the controller's role."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

from dpdk_glue.native import check, ffi, lib, pack_address, why
from dpdk_glue.values import Address, CsbBuilt, CsbDecider, CsbExplained, CsbPhase, CsbValue

WORD_BITS = 64
_STRANGERS = struct.Struct("=HHI")
TIDS_MAX = 256
SLOT_COUNT = 4096

Endpoint = tuple[Address, int]


def _words(bits: int, count: int) -> list[int]:
    return [bits >> (WORD_BITS * i) & (1 << WORD_BITS) - 1 for i in range(count)]


def _bits(words: Iterable[int]) -> int:
    return sum(word << (WORD_BITS * i) for i, word in enumerate(words))


def tid_bits(tids: Iterable[int]) -> int:
    """A bit per tid."""
    return sum(1 << tid for tid in set(tids))


class Update:
    """The controller of one app's updates (csb/update.h): which phase, and who is waited for."""

    def __init__(self) -> None:
        self._native = ffi.gc(lib.glue_update_new(), lib.glue_update_free)
        self.attempt = 0

    def start(
        self, members: Iterable[int], io_threads: int, *, checked: bool, now_us: int, limit_us: int
    ) -> bool:
        """Begin an attempt; checked: with CHECK. False: one runs."""
        words = ffi.new("uint64_t[4]", _words(tid_bits(members), 4))
        ios = (1 << io_threads) - 1
        attempt = lib.glue_update_start(self._native, words, ios, checked, now_us, limit_us)
        self.attempt = attempt or self.attempt
        return bool(attempt)

    @property
    def phase(self) -> CsbPhase:
        """The phase now."""
        return CsbPhase(lib.glue_update_phase(self._native, ffi.new("uint64_t[4]")))

    def waiting(self) -> list[int]:
        """The members that have not answered in this phase."""
        words = ffi.new("uint64_t[4]")
        lib.glue_update_phase(self._native, words)
        bits = _bits(words)
        return [tid for tid in range(TIDS_MAX) if bits >> tid & 1]

    def member_done(self, attempt: int, phase: int, tid: int) -> bool:
        """A member has done what the phase asks. False: not of this attempt and phase."""
        return bool(lib.glue_update_member_done(self._native, attempt, phase, tid))

    def io_threads_done(self) -> None:
        """The I/O threads have obeyed."""
        lib.glue_update_ios_done(self._native)

    def advance(self) -> bool:
        """Enter the next phase if nobody is waited for."""
        return bool(lib.glue_update_advance(self._native))

    def abort(self) -> bool:
        """Give the attempt up. False: there is none, or it is published."""
        return bool(lib.glue_update_abort(self._native))

    def tick(self, now_us: int) -> bool:
        """Give it up if its time is over."""
        return bool(lib.glue_update_tick(self._native, now_us))

    def lost(self, tid: int) -> bool:
        """A member is gone. True: that ended the attempt."""
        return bool(lib.glue_update_lost(self._native, tid))


class Balance:
    """Plans, views and orders of all apps. Calls return when the I/O threads have obeyed: about a millisecond."""

    def __init__(self, glue: Any) -> None:
        self._glue = glue

    def plan(self, app: int, points: Sequence[tuple[int, int]], epoch: int) -> CsbValue:
        """Begin an update towards H_new of these (point, tid) pairs."""
        out, reason = ffi.new("struct glue_csb_value *"), why()
        check(lib.glue_csb_plan(self._glue, app, _points(points), len(points), epoch, out, reason), reason)
        return CsbValue(out.fd, out.bytes)

    def add_list(self, app: int, tid: int, hashes: bytes, limit: int) -> bool:
        """Hashes that a thread lists, untrusted; False: more than limit in all, or no memory."""
        count = len(hashes) // 8
        return bool(lib.glue_csb_list(self._glue, app, tid, ffi.from_buffer(hashes), count, limit) == 0)

    def draft(self, app: int) -> CsbValue:
        """A view of the plan with what is listed by now."""
        out, reason = ffi.new("struct glue_csb_value *"), why()
        check(lib.glue_csb_draft(self._glue, app, out, reason), reason)
        return CsbValue(out.fd, out.bytes)

    def prepare(self, app: int) -> None:
        """Begin the next view with what is listed by now: build() adds the rest."""
        reason = why()
        check(lib.glue_csb_prepare(self._glue, app, reason), reason)

    def build(self, app: int) -> CsbBuilt:
        """The next view: of the plan with all that is listed."""
        out, reason = ffi.new("struct glue_csb_built *"), why()
        check(lib.glue_csb_build(self._glue, app, out, reason), reason)
        return _built(out)

    def build_without(
        self, app: int, points: Sequence[tuple[int, int]], epoch: int, dead: Iterable[int]
    ) -> CsbBuilt:
        """The next view: the one in force, or an empty one, with these points and without what dead had."""
        out, reason = ffi.new("struct glue_csb_built *"), why()
        words = ffi.new("uint64_t[4]", _words(tid_bits(dead), 4))
        check(
            lib.glue_csb_build_without(
                self._glue, app, _points(points), len(points), epoch, words, out, reason
            ),
            reason,
        )
        return _built(out)

    def build_flagged(
        self, app: int, points: Sequence[tuple[int, int]], epoch: int, flagged: int
    ) -> CsbBuilt:
        """The next view, after a restart: in flagged slots there are exceptions that nobody knows."""
        out, reason = ffi.new("struct glue_csb_built *"), why()
        words = ffi.new("uint64_t[64]", _words(flagged, SLOT_COUNT // WORD_BITS))
        check(
            lib.glue_csb_build_flagged(
                self._glue, app, _points(points), len(points), epoch, words, out, reason
            ),
            reason,
        )
        return _built(out)

    def drain(self, app: int, attempt: int) -> None:
        """SYNs of moving flows are held back; seal markers go into the rings."""
        reason = why()
        check(lib.glue_csb_drain(self._glue, app, attempt, reason), reason)

    def publish(self, app: int, attempt: int = 0) -> None:
        """The next view is in force; open markers of attempt go into the rings, none for 0."""
        reason = why()
        check(lib.glue_csb_publish(self._glue, app, attempt, reason), reason)

    def abort(self, app: int) -> None:
        """The plan is gone."""
        reason = why()
        check(lib.glue_csb_abort(self._glue, app, reason), reason)

    def forget(self, app: int) -> None:
        """There is no view in force any more: the app has no threads."""
        lib.glue_csb_forget(self._glue, app)

    def view(self, app: int) -> CsbValue | None:
        """The view in force."""
        out = ffi.new("struct glue_csb_value *")
        check(lib.glue_csb_view(self._glue, app, out))
        return None if out.fd < 0 else CsbValue(out.fd, out.bytes)

    def strangers(self, app: int, room: int) -> list[tuple[int, int, int]]:
        """(slot, tid, count) of the exceptions in the view in force, by slot; at most room of them."""
        out = ffi.new("struct glue_csb_strangers[]", room)
        found = check(lib.glue_csb_strangers(self._glue, app, out, room))
        return list(_STRANGERS.iter_unpack(ffi.buffer(out, min(found, room) * _STRANGERS.size)))

    def explain(self, app: int, remote: Endpoint, local: Endpoint) -> CsbExplained | None:
        """Where the I/O threads send packets from remote to local, and why; None: the app has no view."""
        out = ffi.new("struct glue_csb_explained *")
        ends = (pack_address(remote[0]), remote[1], pack_address(local[0]), local[1])
        if lib.glue_csb_explain(self._glue, app, *ends, out) < 0:
            return None
        return CsbExplained(CsbDecider(out.decider), out.key, out.slot, out.tid, out.home, out.epoch)


def _points(points: Sequence[tuple[int, int]]) -> Any:
    items = ffi.new("struct glue_point[]", max(len(points), 1))
    for item, (point, tid) in zip(items, points, strict=False):
        item.point = point
        item.tid = tid
    return items


def _built(out: Any) -> CsbBuilt:
    return CsbBuilt(
        CsbValue(out.value.fd, out.value.bytes),
        _bits(out.flagged),
        out.exceptions,
        out.exact_flows,
        out.reported,
    )
