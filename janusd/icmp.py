"""Answers to echo requests (RFC 792, RFC 4443 4) and to UDP, which nobody takes (RFC 1122 4.1.3.1).

For addresses of ours alone, at a bounded rate. Pure: time is an argument.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from janusd.config import IpAddress
from janusd.frames import Datagram, Echo, build_echo_reply, build_port_unreachable


@dataclass
class Bucket:
    """A token bucket: per_s on average, burst at once."""

    per_s: float
    burst: float
    tokens: float = 0.0
    filled_at: float = float("-inf")

    def take(self, now: float) -> bool:
        """One token, if there is one."""
        self.tokens = min(self.burst, self.tokens + max(0.0, now - self.filled_at) * self.per_s)
        self.filled_at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class IcmpResponder:
    """Answers for a set of own addresses."""

    def __init__(self, own: Collection[IpAddress]) -> None:
        self._own = frozenset(own)
        self._echo = Bucket(per_s=1000.0, burst=200.0)
        self._unreachable = Bucket(per_s=50.0, burst=20.0)
        self.answered = 0
        self.rate_limited = 0

    def answer(self, request: Echo | Datagram, mac: bytes, now: float) -> bytes | None:
        """The frame to send from the port with this MAC, or None."""
        if request.destination not in self._own or request.source in self._own:
            return None
        echo = isinstance(request, Echo)
        if not (self._echo if echo else self._unreachable).take(now):
            self.rate_limited += 1
            return None
        self.answered += 1
        return (
            build_echo_reply(request, mac)
            if isinstance(request, Echo)
            else build_port_unreachable(request, mac)
        )
