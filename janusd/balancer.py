"""The circle of each app: which TCP thread owns which keys, under which secret and epoch.

A thread joins when it is online and leaves when it is gone. Every change makes a new epoch, which the
caller publishes to the I/O threads and saves, so that a janusd that starts again gives every key to the
same thread as before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from janusd.weights import NOBODY, SLOT_COUNT, divide, points, shares

SECRET_BYTES = 16


@dataclass
class Circle:
    """One app's circle; owners has an entry for each slot."""

    secret: bytes
    epoch: int = 0
    weights: dict[int, float] = field(default_factory=dict)
    owners: list[int] = field(default_factory=lambda: [NOBODY] * SLOT_COUNT)

    def points(self) -> list[tuple[int, int]]:
        """What to publish."""
        return points(self.owners)

    def shares(self) -> dict[int, float]:
        """The part of the keys that each thread owns."""
        return shares(self.owners)

    def keys(self) -> tuple[int, int]:
        """The secret as struct csb_secret's k0 and k1."""
        return int.from_bytes(self.secret[:8], "little"), int.from_bytes(self.secret[8:], "little")


class Balancer:
    """The circles of all apps."""

    def __init__(self, random: Callable[[int], bytes]) -> None:
        self._random = random
        self._circles: dict[str, Circle] = {}

    def circle(self, app: str) -> Circle:
        """The app's circle, made with a fresh secret when it is first asked for."""
        if app not in self._circles:
            self._circles[app] = Circle(self._random(SECRET_BYTES))
        return self._circles[app]

    def restore(self, app: str, circle: Circle) -> None:
        """Go on with the circle of a former janusd."""
        self._circles[app] = circle

    def join(self, app: str, tid: int, weight: float = 1.0) -> bool:
        """The thread gets its part of the keys. False: it had it already, nothing changed."""
        circle = self.circle(app)
        if circle.weights.get(tid) == weight:
            return False
        circle.weights[tid] = weight
        self._divide(circle)
        return True

    def leave(self, app: str, tid: int) -> bool:
        """The thread's part goes to the others. False: it had none, nothing changed."""
        circle = self.circle(app)
        if circle.weights.pop(tid, None) is None:
            return False
        self._divide(circle)
        return True

    @staticmethod
    def _divide(circle: Circle) -> None:
        circle.owners = divide(circle.owners, circle.weights)
        circle.epoch += 1
