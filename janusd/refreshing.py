"""When an app's exceptions are collected anew: those of connections that have closed stand in the view until then.

look() and decide() are pure. Refresher looks at each app, and begins what is decided.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from janusd.log_format import fields

if TYPE_CHECKING:
    from janusd.automatic import Automatic
    from janusd.balancer import Balancer
    from janusd.control import Control

log = logging.getLogger("janusd.refreshing")

EXCEPTIONS_MIN = 32  # fewer cost less than an update
PAUSE_FIRST_S = 5.0  # from a publication to the next refresh: what threads say may be lies
PAUSE_LAST_S = 80.0  # while refreshes are aborted


@dataclass(frozen=True)
class Seen:
    """What one app's decision rests on: the publication in force, and what threads had counted when it came."""

    epoch: int = -1
    since_s: float = 0.0  # it was published, or a refresh was tried
    closed: Mapping[int, int] = field(default_factory=dict)  # by tid
    latest: Mapping[int, int] = field(default_factory=dict)  # at the last look
    pause_s: float = PAUSE_FIRST_S


def look(seen: Seen, now_s: float, epoch: int, closed: Mapping[int, int]) -> Seen:
    """What to remember of a look, made whether or not a refresh may begin now.

    closed: exceptions that each thread has seen end, ever. Those that close between a publication and the first look
    after it count: from the look before.
    """
    if epoch == seen.epoch:
        return replace(seen, latest=dict(closed))
    begin = {tid: min(count, seen.latest.get(tid, count)) for tid, count in closed.items()}
    return Seen(epoch, now_s, begin, dict(closed))


def decide(seen: Seen, now_s: float, exceptions: int) -> tuple[Seen, str]:
    """What to remember, and why to refresh; "" is not to.

    Half of the exceptions in the view must have gone: the next refresh is then due when half of the rest has, so a
    quiet app is soon left alone.
    """
    gone = sum(max(0, count - seen.closed.get(tid, count)) for tid, count in seen.latest.items())
    if exceptions < EXCEPTIONS_MIN or 2 * gone < exceptions or now_s < seen.since_s + seen.pause_s:
        return seen, ""
    tried = replace(seen, since_s=now_s, pause_s=min(2 * seen.pause_s, PAUSE_LAST_S))
    return tried, f"{gone} of {exceptions} exceptions closed"


class Refresher:
    """All apps; begins nothing while an update runs, is due, or waits to be confirmed."""

    def __init__(
        self,
        balancer: Balancer,
        automatic: Automatic,
        control: Control,
        apps: tuple[str, ...],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._balancer = balancer
        self._automatic = automatic
        self._control = control
        self._clock = clock
        self._seen = {app: Seen() for app in apps}

    def tick(self) -> None:
        """Look at all apps; behind the automatic mode's tick, whose samples these are."""
        for app, before in self._seen.items():
            closed = {tid: load.exceptions_closed for tid, load in self._automatic.loads(app).items()}
            seen = look(before, self._clock(), self._balancer.circle(app).epoch, closed)
            self._seen[app] = seen
            if seen.latest == seen.closed:
                continue
            state = self._balancer.state(app)
            busy = state.phase or state.pending or state.rebuilding
            if busy or self._control.confirm_within_s(app) is not None:
                continue
            self._seen[app], why = decide(seen, self._clock(), state.exceptions)
            if why:
                log.info("exceptions are collected anew", extra=fields(app=app, reason=why))
                self._balancer.refresh(app, f"refresh: {why}")
