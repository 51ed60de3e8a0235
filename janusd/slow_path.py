"""The frames that the I/O threads leave to the control plane: ARP, ND, echo, packets without a neighbour.

Thin: takes frames from the data plane, asks the pure modules, does what they say. A bounded number per
call, so that a flood cannot keep the control thread from its other work.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpdk_glue.values import GlueError, SlowFrame, SlowReason
from janusd import frames
from janusd.icmp import IcmpResponder
from janusd.log_format import fields
from janusd.neighbours import Conflict, Effect, Link, Neighbours, Publish, Send, Withdraw

if TYPE_CHECKING:
    from dpdk_glue.data_plane import DataPlane

log = logging.getLogger("janusd.slow_path")

FRAMES_PER_TURN = 64


@dataclass
class SlowPathCounters:
    """What came and what could not be done."""

    frames: int = 0
    ignored: int = 0
    not_sent: int = 0


class SlowPath:
    """Glue between the data plane and the neighbour table."""

    def __init__(self, plane: DataPlane, links: Mapping[int, Link], clock: Callable[[], float]) -> None:
        self._plane = plane
        self._links = dict(links)
        self._clock = clock
        self.neighbours = Neighbours(self._links)
        self.icmp = IcmpResponder([i.ip for link in self._links.values() for i in link.interfaces])
        self.counters = SlowPathCounters()

    def announce(self) -> None:
        """Tell the neighbours where our addresses live now."""
        self._apply(self.neighbours.announce())

    def drain(self) -> bool:
        """Take some frames. True: there may be more."""
        for _ in range(FRAMES_PER_TURN):
            frame = self._plane.slow_path.recv()
            if frame is None:
                return False
            self.counters.frames += 1
            self._apply(self._effects(frame))
        return True

    def tick(self) -> None:
        """Let the neighbour table repeat and forget."""
        self._apply(self.neighbours.advance(self._clock()))

    def _effects(self, frame: SlowFrame) -> list[Effect]:
        now = self._clock()
        port = frame.port
        if port not in self._links:
            self.counters.ignored += 1
            return []
        if frame.reason is SlowReason.NEIGHBOUR and frame.next_hop is not None:
            return self.neighbours.want(port, frame.next_hop, frame.frame, now)
        match frames.parse(frame.frame):
            case frames.Arp() as arp:
                return self.neighbours.on_arp(port, arp, now)
            case frames.Solicit() as solicit:
                return self.neighbours.on_solicit(port, solicit, now)
            case frames.Advert() as advert:
                return self.neighbours.on_advert(port, advert, now)
            case frames.Echo() | frames.Datagram() as request:
                answer = self.icmp.answer(request, self._links[port].mac, now)
                return [] if answer is None else [Send(port, answer)]
            case None:
                self.counters.ignored += 1
                return []

    def _apply(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(port, frame):
                    self._send(port, frame)
                case Publish(port, address, mac):
                    self._plane.routing.set_neighbour(port, address, mac)
                case Withdraw(port, address):
                    self._plane.routing.delete_neighbour(port, address)
                case Conflict(port, address, mac):
                    log.error(
                        "another host uses an address of ours",
                        extra=fields(port=port, address=address, mac=mac.hex(":")),
                    )

    def _send(self, port: int, frame: bytes) -> None:
        try:
            self._plane.slow_path.send(port, frame)
        except GlueError:
            self.counters.not_sent += 1
