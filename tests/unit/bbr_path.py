"""A bulk sender with BBR on a path of one bottleneck, in virtual time: packets of one segment, a drop-tail queue,
random loss.  The delivery rate is sampled here by the draft's text (4.1.2), not by the code under test."""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count, takewhile
from typing import Any

from _leaf import ffi, lib

SMSS = 1448
STATES = {
    value: str(name).removeprefix("BBR_").lower()
    for value, name in ffi.typeof("enum bbr_state").elements.items()
}


@dataclass
class Path:
    """Bytes per second, microseconds, bytes, a chance; each may be changed while the sender runs."""

    rate: float
    rtt_us: int
    queue: float = 1e12
    loss: float = 0.0
    seed: int = 1


@dataclass
class Packet:
    """What the sender keeps of one in flight."""

    number: int
    sent_us: int
    delivered: int
    delivered_us: int
    first_sent_us: int
    in_flight: int
    lost: int
    app_limited: bool


@dataclass
class Seen:
    """One row of the diary: after an ACK."""

    us: int
    state: str
    cwnd: int
    inflight: int
    rtt_us: int
    pacing_rate: int


@dataclass
class Bulk:
    """The sender and its path.  app_limit: bytes per second that its user writes."""

    path: Path
    app_limit: float | None = None
    srtt_us: int = 0
    seed: int = 7
    sack: bool = True
    diary: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.path = replace(self.path)
        self.now = self.begun = 1_000_000_000
        self.window: Any = ffi.new("struct cc_window *")
        lib.cc_window_init(self.window, SMSS, False)
        self.bbr: Any = ffi.new("struct bbr *")
        lib.bbr_start(self.bbr, self.window, SMSS, self.srtt_us, self.sack, self.seed, self.now)
        self.random = random.Random(self.path.seed)
        self.flight: dict[int, Packet] = {}
        self.numbers = count()
        self.events: list[tuple[int, int, str, int]] = []  # time, order, what, packet
        self.order = count()
        self.pace_at = self.now
        self.link_free_at = float(self.now)
        self.lost_count = self.sent_count = self.delivered_bytes = 0
        self.recovery_until = -1
        self.written_from = self.now
        self.waking = False

    # --- the path ---

    def at(self, us: float, what: str, number: int) -> None:
        heapq.heappush(self.events, (int(us), next(self.order), what, number))

    def carry(self, number: int) -> None:
        """Drops the packet, or says when its ACK comes."""
        backlog = max(0.0, self.link_free_at - self.now) * self.path.rate / 1e6
        if backlog + SMSS > self.path.queue + SMSS or self.random.random() < self.path.loss:
            return
        self.link_free_at = max(self.link_free_at, self.now) + SMSS / self.path.rate * 1e6
        self.at(self.link_free_at + self.path.rtt_us, "ack", number)

    # --- the sender ---

    def inflight(self) -> int:
        return len(self.flight) * SMSS

    def may_write(self) -> bool:
        if self.app_limit is None:
            return True
        return self.sent_count * SMSS < (self.now - self.written_from) * self.app_limit / 1e6

    def send(self) -> None:
        rate = self.bbr.rate
        while self.inflight() + SMSS <= self.window.cwnd and self.pace_at <= self.now:
            if not self.may_write():
                rate.app_limited = True
                rate.bubble_end = rate.delivered + self.inflight()
                break
            if not self.flight:
                rate.first_sent_us = rate.delivered_us = self.now
                if rate.app_limited:
                    lib.bbr_on_restart(self.bbr, self.window, self.now)
            number = next(self.numbers)
            self.flight[number] = Packet(
                number,
                self.now,
                rate.delivered,
                rate.delivered_us,
                rate.first_sent_us,
                self.inflight() + SMSS,
                rate.lost,
                bool(rate.app_limited),
            )
            self.sent_count += 1
            self.pace_at = max(self.pace_at, self.now) + lib.bbr_gap_us(self.bbr, SMSS)
            self.carry(number)
        wake = self.pace_at if self.pace_at > self.now else self.now + 1000 * (not self.may_write())
        if wake > self.now and not self.waking:
            self.waking = True
            self.at(wake, "pace", -1)

    def lose(self, packet: Packet) -> None:
        rate = self.bbr.rate
        del self.flight[packet.number]
        self.lost_count += 1
        rate.lost += SMSS
        loss = ffi.new(
            "struct rate_loss *",
            {
                "now_us": self.now,
                "begin": packet.number * SMSS % 2**32,
                "len": SMSS,
                "tx_in_flight": packet.in_flight,
                "lost": rate.lost - packet.lost,
                "app_limited": packet.app_limited,
            },
        )
        lib.bbr_on_loss(self.bbr, self.window, loss)

    def ack(self, number: int) -> None:
        packet = self.flight.pop(number, None)
        if packet is None:
            return
        rate = self.bbr.rate
        prior = self.inflight() + SMSS
        rate.delivered += SMSS
        rate.delivered_us = self.now
        rate.first_sent_us = packet.sent_us
        lost_since = rate.lost - packet.lost
        gone = list(takewhile(lambda p: p.number < number - 3, self.flight.values()))
        for p in gone:
            self.lose(p)
        if gone and number >= self.recovery_until:
            lib.bbr_on_recovery(self.bbr, self.window)
            self.recovery_until = max(self.flight, default=number) + 1
        if rate.app_limited and rate.delivered > rate.bubble_end:
            rate.app_limited = False
        interval = max(self.now - packet.delivered_us, packet.sent_us - packet.first_sent_us)
        delivered = rate.delivered - packet.delivered
        rtt = self.now - packet.sent_us
        valid = interval > 0 and interval >= self.bbr.min_rtt_us % lib.BBR_NO_RTT
        sample = ffi.new(
            "struct rate_sample *",
            {
                "now_us": self.now,
                "delivery_rate": delivered * 1_000_000 // interval if valid else 0,
                "interval_us": interval,
                "delivered": delivered,
                "prior_delivered": packet.delivered,
                "tx_in_flight": packet.in_flight,
                "lost": lost_since,
                "newly_acked": SMSS,
                "rtt_us": rtt,
                "inflight": self.inflight(),
                "prior_inflight": prior,
                "smss": SMSS,
                "app_limited": packet.app_limited,
                "cwnd_limited": prior + SMSS > self.window.cwnd,
                "fast_recovery": number < self.recovery_until,
                "recovery": number < self.recovery_until,
                "has_data": True,
            },
        )
        lib.bbr_on_ack(self.bbr, self.window, sample)
        self.delivered_bytes += SMSS
        self.diary.append(
            Seen(self.now, self.state, self.window.cwnd, self.inflight(), rtt, self.bbr.pacing_rate)
        )

    @property
    def state(self) -> str:
        return STATES[self.bbr.state]

    def run(self, seconds: float, until: Callable[["Bulk"], bool] = lambda _: False) -> "Bulk":
        end = self.now + int(seconds * 1e6)
        self.send()
        while self.events and self.events[0][0] <= end and not until(self):
            self.now, _, what, number = heapq.heappop(self.events)
            if what == "ack":
                self.ack(number)
            else:
                self.waking = False
            self.send()
            if not self.events and self.flight:  # all of it is lost: a timeout
                self.now += 1_000_000
                lib.bbr_on_timeout(self.bbr, self.window, SMSS)
                for p in list(self.flight.values()):
                    self.lose(p)
                self.send()
        if not until(self):
            self.now = end
        return self

    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return (self.now - self.begun) / 1e6

    def states(self) -> list[str]:
        """Those it went through, without repetition."""
        return [s.state for i, s in enumerate(self.diary) if i == 0 or self.diary[i - 1].state != s.state]

    def goodput(self, seconds: float) -> float:
        """Bytes per second of the last so many seconds."""
        since = self.now - seconds * 1e6
        return sum(SMSS for s in self.diary if s.us > since) / seconds
