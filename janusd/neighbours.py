"""Who lives at which MAC: the table behind ARP (RFC 826, 5227) and neighbour discovery (RFC 4861).

    want() --> INCOMPLETE --answer--> REACHABLE --60 s--> STALE --answer--> REACHABLE
                   | no answer to 3 requests                | no answer to 3 requests
                   +--------------> FAILED <----------------+        FAILED --3 s--> forgotten

Pure: frames and time come in, effects go out: frames to send, entries to publish to or withdraw from the
I/O threads, conflicts to log. An answer counts only if it was asked for; a request for an address of ours
may make an entry, never change one. The table, the packets that wait in it and the part that may be
incomplete are bounded.
"""

from __future__ import annotations

import enum
import ipaddress
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from janusd.config import IpAddress, IpInterface
from janusd.frames import Advert, Arp, Solicit, build_advert, build_arp, build_solicit

ENTRIES_MAX = 1024
INCOMPLETE_MAX = ENTRIES_MAX // 2
PENDING_MAX = 3
REQUESTS_MAX = 3
RETRY_S = 1.0
REACHABLE_S = 60.0
FAILED_S = 3.0
CONFLICT_S = 10.0  # DEFEND_INTERVAL, RFC 5227 1.1


class State(enum.Enum):
    """What is known of a neighbour."""

    INCOMPLETE = "incomplete"
    REACHABLE = "reachable"
    STALE = "stale"
    FAILED = "failed"


@dataclass(frozen=True)
class Link:
    """A port, as its neighbours see it."""

    mac: bytes
    interfaces: tuple[IpInterface, ...]

    def owns(self, address: IpAddress) -> bool:
        """True for an address of ours on this port."""
        return any(i.ip == address for i in self.interfaces)

    def source_for(self, address: IpAddress) -> IpAddress | None:
        """Our address in the prefix of a neighbour; None: it is no neighbour."""
        return next(
            (i.ip for i in self.interfaces if address.version == i.version and address in i.network), None
        )


@dataclass(frozen=True)
class Send:
    """Send this frame."""

    port: int
    frame: bytes


@dataclass(frozen=True)
class Publish:
    """The I/O threads may send to this neighbour."""

    port: int
    address: IpAddress
    mac: bytes


@dataclass(frozen=True)
class Withdraw:
    """The I/O threads must ask again."""

    port: int
    address: IpAddress


@dataclass(frozen=True)
class Conflict:
    """Another host claims an address of ours."""

    port: int
    address: IpAddress
    mac: bytes


Effect = Send | Publish | Withdraw | Conflict


@dataclass
class Entry:
    """One neighbour."""

    port: int
    address: IpAddress
    state: State
    due: float  # when `advance` has to do with it
    asked: bool  # a packet of ours needed it
    mac: bytes | None = None
    requests: int = 0
    pending: deque[bytes] = field(default_factory=lambda: deque(maxlen=PENDING_MAX))


@dataclass
class NeighbourCounters:
    """What was dropped and why; the metric's reason labels."""

    pending_full: int = 0
    table_full: int = 0
    unanswered: int = 0
    unsolicited: int = 0
    conflict: int = 0


class Neighbours:
    """The table."""

    def __init__(self, links: Mapping[int, Link]) -> None:
        self._links = dict(links)
        self._entries: dict[tuple[int, IpAddress], Entry] = {}
        self._defended_at: dict[tuple[int, IpAddress], float] = {}
        self.counters = NeighbourCounters()

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self) -> list[Entry]:
        """All entries, oldest first."""
        return list(self._entries.values())

    def next_deadline(self) -> float | None:
        """When `advance` has something to do."""
        return min((entry.due for entry in self._entries.values()), default=None)

    # --- what happens ---

    def announce(self) -> list[Effect]:
        """Tell everyone where our addresses live: gratuitous ARP and unsolicited advertisements."""
        return [self._announcement(port, i.ip) for port, link in self._links.items() for i in link.interfaces]

    def want(self, port: int, next_hop: IpAddress, frame: bytes, now: float) -> list[Effect]:
        """A frame of ours, with destination MAC zero, needs this neighbour."""
        entry = self._entries.get((port, next_hop))
        if entry is None:
            effects = self._make_room(now)
            if self._incomplete() >= INCOMPLETE_MAX or len(self._entries) >= ENTRIES_MAX:
                self.counters.table_full += 1
                return effects
            entry = Entry(port, next_hop, State.INCOMPLETE, now + RETRY_S, asked=True, requests=1)
            entry.pending.append(frame)
            self._entries[port, next_hop] = entry
            return [*effects, *self._request(entry)]
        entry.asked = True
        if entry.mac is not None and entry.state is not State.FAILED:
            return [Publish(port, next_hop, entry.mac), Send(port, entry.mac + frame[6:])]
        if entry.state is State.FAILED or len(entry.pending) == PENDING_MAX:
            self.counters.pending_full += 1
        if entry.state is not State.FAILED:
            entry.pending.append(frame)
        return []

    def on_arp(self, port: int, arp: Arp, now: float) -> list[Effect]:
        """An ARP packet has come."""
        link = self._links[port]
        if self._conflicts(port, arp.sender, arp.sender_mac):
            return self._defend(port, arp.sender, arp.sender_mac, now)
        if link.owns(arp.sender):
            return []
        if arp.request and link.owns(arp.target):
            effects = self._heard(port, arp.sender, arp.sender_mac, now)
            reply = build_arp(
                request=False,
                sender_mac=link.mac,
                sender=arp.target,
                target_mac=arp.sender_mac,
                target=arp.sender,
            )
            return [*effects, Send(port, reply)]
        if not arp.request:
            return self._answer(port, arp.sender, arp.sender_mac, now, solicited=link.owns(arp.target))
        return self._claimed(port, arp.sender, arp.sender_mac, now) if arp.sender == arp.target else []

    def on_solicit(self, port: int, solicit: Solicit, now: float) -> list[Effect]:
        """A neighbour solicitation has come."""
        link = self._links[port]
        if not link.owns(solicit.target) or link.owns(solicit.source):
            return []
        if solicit.source.is_unspecified:
            return [
                Send(
                    port,
                    build_advert(mac=link.mac, target=solicit.target, destination=None, destination_mac=None),
                )
            ]
        effects: list[Effect] = []
        mac = solicit.mac
        if mac is not None:
            effects = self._heard(port, solicit.source, mac, now)
        else:
            entry = self._entries.get((port, solicit.source))
            mac = entry.mac if entry is not None else None
        if mac is None:
            return effects
        advert = build_advert(
            mac=link.mac, target=solicit.target, destination=solicit.source, destination_mac=mac
        )
        return [*effects, Send(port, advert)]

    def on_advert(self, port: int, advert: Advert, now: float) -> list[Effect]:
        """A neighbour advertisement has come."""
        if advert.mac is not None and self._conflicts(port, advert.target, advert.mac):
            return self._defend(port, advert.target, advert.mac, now)
        entry = self._entries.get((port, advert.target))
        mac = advert.mac or (entry.mac if entry is not None else None)
        if mac is None:
            return []
        if not advert.solicited:
            return self._claimed(port, advert.target, mac, now)
        return self._answer(port, advert.target, mac, now, solicited=True)

    def advance(self, now: float) -> list[Effect]:
        """Repeat requests, age entries, forget the failed."""
        effects: list[Effect] = []
        for entry in [e for e in self._entries.values() if e.due <= now]:
            if entry.state is State.REACHABLE:
                self._probe(entry, now)
                effects += self._request(entry)
            elif entry.state is State.FAILED:
                del self._entries[entry.port, entry.address]
            elif entry.requests < REQUESTS_MAX:
                entry.requests += 1
                entry.due = now + RETRY_S
                effects += self._request(entry)
            else:
                effects += self._fail(entry, now)
        return effects

    # --- its parts ---

    def _incomplete(self) -> int:
        return sum(e.state in (State.INCOMPLETE, State.FAILED) for e in self._entries.values())

    def _make_room(self, now: float) -> list[Effect]:
        """Of a full table the oldest failed entry goes, or else the oldest that no packet of ours needed."""
        if len(self._entries) < ENTRIES_MAX:
            return []
        entries = self._entries.values()
        victim = next((e for e in entries if e.state is State.FAILED), None) or next(
            (e for e in entries if not e.asked), None
        )
        if victim is None:
            return []
        del self._entries[victim.port, victim.address]
        return [Withdraw(victim.port, victim.address)] if victim.mac is not None else []

    def _probe(self, entry: Entry, now: float) -> None:
        entry.state, entry.requests, entry.due = State.STALE, 1, now + RETRY_S

    def _fail(self, entry: Entry, now: float) -> list[Effect]:
        self.counters.unanswered += len(entry.pending)
        entry.pending.clear()
        known = entry.mac is not None
        entry.state, entry.mac, entry.due = State.FAILED, None, now + FAILED_S
        return [Withdraw(entry.port, entry.address)] if known else []

    def _request(self, entry: Entry) -> list[Effect]:
        """Ask for an entry: the first time its known MAC alone, then everyone."""
        link = self._links[entry.port]
        source = link.source_for(entry.address)
        target_mac = entry.mac if entry.requests == 1 else None
        if isinstance(source, ipaddress.IPv4Address) and isinstance(entry.address, ipaddress.IPv4Address):
            frame = build_arp(
                request=True, sender_mac=link.mac, sender=source, target_mac=target_mac, target=entry.address
            )
        elif isinstance(source, ipaddress.IPv6Address) and isinstance(entry.address, ipaddress.IPv6Address):
            frame = build_solicit(mac=link.mac, source=source, target=entry.address, target_mac=target_mac)
        else:
            return []
        return [Send(entry.port, frame)]

    def _confirm(self, entry: Entry, mac: bytes, now: float) -> list[Effect]:
        changed = entry.mac != mac
        entry.state, entry.mac, entry.requests, entry.due = State.REACHABLE, mac, 0, now + REACHABLE_S
        effects: list[Effect] = [Publish(entry.port, entry.address, mac)] if changed else []
        effects += [Send(entry.port, mac + frame[6:]) for frame in entry.pending]
        entry.pending.clear()
        return effects

    def _answer(
        self, port: int, address: IpAddress, mac: bytes, now: float, *, solicited: bool
    ) -> list[Effect]:
        entry = self._entries.get((port, address))
        if entry is None or not solicited or entry.state not in (State.INCOMPLETE, State.STALE):
            self.counters.unsolicited += 1
            return []
        return self._confirm(entry, mac, now)

    def _heard(self, port: int, address: IpAddress, mac: bytes, now: float) -> list[Effect]:
        """A neighbour has asked for us, and so told its own MAC."""
        if self._links[port].source_for(address) is None:
            return []
        entry = self._entries.get((port, address))
        if entry is None:
            effects = self._make_room(now)
            if len(self._entries) >= ENTRIES_MAX:
                self.counters.table_full += 1
                return effects
            entry = Entry(port, address, State.INCOMPLETE, now, asked=False)
            self._entries[port, address] = entry
            return [*effects, *self._confirm(entry, mac, now)]
        if entry.state in (State.INCOMPLETE, State.FAILED) or entry.mac == mac:
            return self._confirm(entry, mac, now)
        return self._claimed(port, address, mac, now)

    def _claimed(self, port: int, address: IpAddress, mac: bytes, now: float) -> list[Effect]:
        """Someone says, unasked, that a neighbour lives elsewhere now: do not believe it, ask everyone."""
        entry = self._entries.get((port, address))
        if entry is None or entry.state is not State.REACHABLE or entry.mac == mac:
            self.counters.unsolicited += entry is None
            return []
        self._probe(entry, now)
        entry.requests = 2
        return self._request(entry)

    def _announcement(self, port: int, own: IpAddress) -> Send:
        mac = self._links[port].mac
        if isinstance(own, ipaddress.IPv4Address):
            return Send(
                port, build_arp(request=True, sender_mac=mac, sender=own, target_mac=None, target=own)
            )
        return Send(port, build_advert(mac=mac, target=own, destination=None, destination_mac=None))

    def _conflicts(self, port: int, address: IpAddress, mac: bytes) -> bool:
        link = self._links[port]
        return link.owns(address) and mac != link.mac

    def _defend(self, port: int, address: IpAddress, mac: bytes, now: float) -> list[Effect]:
        """Another host uses an address of ours: say so and repeat our claim, now and then (RFC 5227 2.4)."""
        self.counters.conflict += 1
        if now - self._defended_at.get((port, address), -CONFLICT_S) < CONFLICT_S:
            return []
        self._defended_at[port, address] = now
        return [Conflict(port, address, mac), self._announcement(port, address)]
