"""Answers to echo requests (RFC 792, RFC 4443 4): for addresses of ours alone, at a bounded rate.

Pure: time is an argument.
"""

from __future__ import annotations

from collections.abc import Collection

from janusd.config import IpAddress
from janusd.frames import Echo, build_echo_reply

REPLIES_PER_S = 1000.0
REPLIES_BURST = 100.0


class EchoResponder:
    """Replies for a set of own addresses; one token bucket for all."""

    def __init__(self, own: Collection[IpAddress]) -> None:
        self._own = frozenset(own)
        self._tokens = REPLIES_BURST
        self._filled_at = 0.0
        self.replies = 0
        self.limited = 0

    def reply(self, echo: Echo, mac: bytes, now: float) -> bytes | None:
        """The frame to send from the port with this MAC, or None."""
        if echo.destination not in self._own or echo.source in self._own:
            return None
        self._tokens = min(REPLIES_BURST, self._tokens + max(0.0, now - self._filled_at) * REPLIES_PER_S)
        self._filled_at = now
        if self._tokens < 1:
            self.limited += 1
            return None
        self._tokens -= 1
        self.replies += 1
        return build_echo_reply(echo, mac)
