"""The control API over a balancer whose updates the test ends by hand or at once; time is the test's own."""

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from janusd import api_schema as schema
from janusd.api import serve_bytes
from janusd.automatic import Automatic
from janusd.autoweights import Sample
from janusd.balancer import PUBLISHED, Balancer, Result, Target
from janusd.control import Control, Peer, Reply
from janusd.csb_views import CsbViews
from janusd.placing import Strangers
from janusd.wishes import Wishes
from tests.unit.test_janusd_balancer import ByHand

ADMIN = Peer(1000, 100, 4711, may_change=True)
READER = Peer(1001, 101, 4712, may_change=False)


class AtOnce:
    """A runner whose updates have ended when they begin."""

    def __init__(self) -> None:
        self.outcome = PUBLISHED

    def start(self, target: Target, done: Callable[[Result], None]) -> None:
        done(Result(self.outcome, {"collect": 0.5, "drain": 1.0}, kept=7, exceptions=3))

    def abort(self, app: str, why: str) -> None:
        raise AssertionError("nothing runs")

    def strangers(self, app: str) -> Strangers:
        return Strangers()

    def phase(self, app: str) -> str:
        return ""

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> None:
        return


@dataclass
class Timer:
    at_s: float
    callback: Callable[[], None]
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Clock:
    """As much of an event loop as Control needs."""

    now_s: float = 100.0
    timers: list[Timer] = field(default_factory=list)

    def time(self) -> float:
        return self.now_s

    def call_later(self, delay_s: float, callback: Callable[..., None], *args: object) -> Timer:
        timer = Timer(self.now_s + delay_s, lambda: callback(*args))
        self.timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        self.now_s += seconds
        due = [t for t in self.timers if t.at_s <= self.now_s and not t.cancelled]
        self.timers = [t for t in self.timers if t not in due]
        for timer in due:
            timer.callback()


class Panel:
    """web has three threads, api none."""

    def __init__(self, runner: ByHand | AtOnce | None = None, control: type[Control] = Control) -> None:
        self.runner = runner or AtOnce()
        self.clock = Clock()
        self.told: dict[int, Sample] = {}
        self.balancer = Balancer(secrets.token_bytes, lambda: 1000.0)
        self.balancer.use(self.runner, ["web", "api"])
        for tid in range(3):
            self.balancer.join("web", tid)
            if isinstance(self.runner, ByHand):
                self.runner.end()
        self.wishes = {app: Wishes() for app in ("web", "api")}
        self.saves = 0
        self.automatic = Automatic(
            self.balancer,
            lambda app: self.told if app == "web" else {},
            self.wishes,
            self.clock.time,
        )
        self.control = control(self.balancer, self.automatic, self.clock, self.wishes, self._save)  # type: ignore[arg-type]
        self.views = CsbViews(self.balancer, self.automatic, self.control, ("web", "api"))

    def _save(self) -> None:
        self.saves += 1

    def answer(self, request: schema.AnyRequest, peer: Peer, reply: Reply) -> None:
        if isinstance(request, schema.Change):
            self.control.change(request, peer, reply)
        elif isinstance(request, schema.CsbShow):
            reply(self.views.show(request))
        else:
            reply([])

    def send(self, data: bytes, peer: Peer = ADMIN) -> list[dict[str, Any]]:
        """The replies so far, and those that come later."""
        replies: list[dict[str, Any]] = []
        serve_bytes(data, peer, self.answer, lambda reply: replies.append(json.loads(reply)))
        return replies

    def ask(self, verb: str, peer: Peer = ADMIN, **args: object) -> dict[str, Any]:
        """The reply to a request that is answered at once."""
        [reply] = self.send(json.dumps({"version": 1, "id": "7", "verb": verb, **args}).encode(), peer)
        return reply

    def weights(self) -> dict[int, float]:
        return dict(self.balancer.state("web").weights)
