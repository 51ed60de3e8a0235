"""Messages for the control API, structure-aware: near-right requests, mutated, cut, and bytes that are none.

check() sends one and holds the invariants: one bounded answer, never "internal"; what is in force changes only by a
change that was answered with a result, and then to exactly what a small model of it says; a change that was refused or
given up leaves all as it was.
"""

from __future__ import annotations

import json
import math
import random
from typing import Any

from janusd import api_schema as schema
from janusd.api_schema import REQUEST_BYTES_MAX
from janusd.control import Control
from tests.unit.control_panel import ADMIN, READER, AtOnce, Panel

REPLY_BYTES_MAX = 1 << 20
VERBS = [schema.verb_name(struct) for struct in schema.AnyRequest.__args__]
FIELDS = sorted({field for struct in schema.AnyRequest.__args__ for field in struct.__struct_fields__})
ODD: list[Any] = [
    None, True, False, -1, 0, 1, 2, 3, 255, 256, 1000, 1001, 2**31, 2**63, 2**64, -(2**63), 10**400, 0.5, -0.0, 1e308,
    "", "web", "api", "x" * 65, "web\u0000", "\ud800", "0", "٣", [], {}, [[]], {"0": 1}, {"0": 0}, {"9": 1}, {"-1": 1},
    {"0": 1e999}, {"0": "1"}, {"00": 1}, {"0": 0, "1": 0, "2": 0}, {str(n): 1 for n in range(300)}, [1] * 50,
]  # fmt: skip


class HalfWay(Control):
    """A planted bug: weights are put in force one by one before they are checked."""

    def change(self, request: schema.Change, peer: Any, reply: Any) -> None:
        if isinstance(request, schema.CsbSet) and not request.dry_run and peer.may_change:
            for tid, weight in request.weights.items():
                if tid in self._balancer.state("web").weights and weight > 0:
                    self._balancer.set_weights("web", {tid: weight})
        super().change(request, peer, reply)


class Fuzzer:
    """One panel, one seed."""

    def __init__(self, seed: int, control: type[Control] = Control) -> None:
        self.random = random.Random(seed)
        self.panel = Panel(AtOnce(), control)
        self.circle = self.panel.balancer.circle("web")
        self.answered: dict[str, int] = {}

    def run(self, count: int) -> None:
        for number in range(count):
            data = self._message()
            try:
                self.check(data)
            except AssertionError as error:
                raise AssertionError(f"message {number}: {data[:300]!r}: {error}") from error
            if self.random.random() < 0.02:
                self._weather()

    # --- drawing ---

    def _message(self) -> bytes:
        draw = self.random
        kind = draw.random()
        if kind < 0.05:
            return draw.randbytes(draw.randrange(200))
        if kind < 0.06:
            return b" " * draw.choice((REQUEST_BYTES_MAX, REQUEST_BYTES_MAX + 1))
        data = json.dumps(self._request()).encode(errors="surrogatepass")
        if kind < 0.15:
            return data[: draw.randrange(len(data) + 1)]
        if kind < 0.30:
            broken = bytearray(data)
            for _ in range(draw.randrange(1, 4)):
                broken[draw.randrange(len(broken))] = draw.choice(b'{}[]",:0-9eE.\\u\x00\xff')
            return bytes(broken)
        return data

    def _request(self) -> dict[str, Any]:
        draw = self.random
        verb = draw.choice(VERBS)
        request: dict[str, Any] = {"version": 1, "verb": verb, "id": str(draw.randrange(10))}
        if verb.startswith("csb_") and verb != "csb_show":
            request["app"] = "web" if draw.random() < 0.95 else "nope"
        if verb == "csb_set":
            tids = draw.sample(range(4), draw.randrange(1, 4))
            request["weights"] = {str(t): draw.choice((0, 0.5, 1, 2, 1000, 1000.1, -1)) for t in tids}
            if draw.random() < 0.1:
                request["weights"] = {"0": 0, "1": 0, "2": 0}
        if verb in ("csb_drain", "csb_undrain"):
            request["tid"] = draw.randrange(4)
        if verb == "csb_auto":
            request["on"] = draw.random() < 0.5
        if draw.random() < 0.3:
            request["expected_epoch"] = self.circle.epoch + draw.choice((0, 0, 0, 1, -1))
        if draw.random() < 0.2:
            request["dry_run"] = True
        if draw.random() < 0.15:
            request["confirm_s"] = draw.choice((1, 3600, 3600, 3601))
        for _ in range(draw.choice((0, 0, 1, 2))):
            request[draw.choice([*FIELDS, "verb", "x"])] = draw.choice(ODD)
        return request

    def _weather(self) -> None:
        """Time passes, updates fail for a while, threads come and go."""
        draw = self.random
        self.panel.clock.advance(draw.choice((1, 4000)))
        self.panel.runner.outcome = draw.choice(("published", "published", "thread 1 does not answer"))
        if draw.random() < 0.3 and self.panel.runner.outcome == "published":
            self.panel.balancer.leave("web", 2)
            self.panel.balancer.join("web", 2)

    # --- the invariants ---

    def check(self, data: bytes) -> None:
        peer = READER if self.random.random() < 0.1 else ADMIN
        before, epoch = dict(self.circle.weights), self.circle.epoch
        unconfirmed = self.panel.control.confirm_within_s("web") is not None
        self.former = dict(self.circle.drained)
        replies = self.panel.send(data, peer)
        after = dict(self.circle.weights)
        assert len(replies) == 1, "there is not one answer"
        [reply] = replies
        assert len(json.dumps(reply)) < REPLY_BYTES_MAX
        assert reply["version"] == 1
        assert len(reply["id"]) <= 64
        assert ("result" in reply) != ("error" in reply)
        key = "result" if "result" in reply else reply["error"]["code"]
        self.answered[key] = self.answered.get(key, 0) + 1
        assert key != "internal"
        wanted = self._model(data, before) if key == "result" else None
        if wanted is None:
            assert after == before, f"{before} became {after} by {key}"
            assert self.circle.epoch == epoch
        else:
            assert peer is ADMIN
            assert not unconfirmed
            assert after == wanted, f"{before} became {after}, not {wanted}"
            assert self.circle.epoch == epoch + 1, "not one update"
        assert all(math.isfinite(w) and 0 <= w <= 1000 for w in after.values())
        assert any(after.values()), "nobody serves"
        if self.random.random() < 0.02:
            assert sum(self.circle.shares().values()) == 1.0

    def _model(self, data: bytes, before: dict[int, float]) -> dict[int, float] | None:
        """What weights must be after this request has been answered with a result; None: as before."""
        request = json.loads(data)
        if request["verb"] not in ("csb_set", "csb_drain", "csb_undrain") or request.get("dry_run"):
            return None
        if request["verb"] == "csb_set":
            return before | {int(tid): float(weight) for tid, weight in request["weights"].items()}
        tid = request["tid"]
        if request["verb"] == "csb_drain":
            return before | {tid: 0.0}
        return before | {tid: before[tid] or self.former.get(tid, 1.0)}
