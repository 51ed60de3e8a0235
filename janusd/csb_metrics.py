"""The balancer as metrics: weights, shares and loads by thread; updates, phases and exceptions by app.

CsbCounts listens to the balancer in the control thread and counts; csb_families() makes metrics of its numbers at a
scrape.  Series are bounded by the threads that apps may have: no label comes from a peer or a connection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from janusd.automatic import Automatic, Load
from janusd.balancer import AppState, Balancer, UpdateRecord

PHASES = ("collect", "check", "drain", "seal", "publish", "open")


@dataclass
class UpdateCounts:
    """What updates of one app add up to."""

    published: int = 0
    aborted: int = 0
    moved_slots: int = 0
    kept: int = 0
    phase_s: Counter[str] = field(default_factory=Counter)
    last_phase_s: dict[str, float] = field(default_factory=dict)

    def add(self, record: UpdateRecord) -> None:
        """One more."""
        self.last_phase_s = {phase: record.phases_ms.get(phase, 0.0) / 1e3 for phase in PHASES}
        self.phase_s.update(self.last_phase_s)
        if not record.published:
            self.aborted += 1
            return
        self.published += 1
        self.moved_slots += record.moved_slots
        self.kept += record.kept


@dataclass(frozen=True)
class CsbNumbers:
    """One app, as of a snapshot."""

    state: AppState
    loads: Mapping[int, Load]
    automatic: bool
    moves: int
    updates: UpdateCounts


class CsbCounts:
    """Follows the balancer."""

    def __init__(self, balancer: Balancer, automatic: Automatic, apps: tuple[str, ...]) -> None:
        self._balancer = balancer
        self._automatic = automatic
        self._apps = {app: UpdateCounts() for app in apps}
        self._seen: dict[str, UpdateRecord] = {}
        balancer.watch(self._note)

    def _note(self, app: str) -> None:
        updates = self._balancer.state(app).updates if app in self._apps else ()
        fresh: list[UpdateRecord] = []
        for record in reversed(updates):
            if record is self._seen.get(app):
                break
            fresh.append(record)
        for record in reversed(fresh):
            self._apps[app].add(record)
            self._seen[app] = record

    def numbers(self) -> dict[str, CsbNumbers]:
        """A snapshot of all apps."""
        result = {}
        for app, updates in self._apps.items():
            on, _, moves = self._automatic.says(app)
            state, loads = self._balancer.state(app), dict(self._automatic.loads(app))
            copy = UpdateCounts(
                updates.published,
                updates.aborted,
                updates.moved_slots,
                updates.kept,
                Counter(updates.phase_s),
                dict(updates.last_phase_s),
            )
            result[app] = CsbNumbers(state, loads, on, moves, copy)
        return result


def csb_families(csb: Mapping[str, CsbNumbers]) -> Iterator[Metric]:
    """The metrics of a snapshot."""
    yield from _of_threads(csb)
    yield from _of_apps(csb)
    yield from _of_updates(csb)


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels)


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, labels=labels)


def _of_threads(csb: Mapping[str, CsbNumbers]) -> Iterator[Metric]:
    weight = _gauge("janus_csb_weight", "A thread's weight; 0 is drained.", "app", "tid")
    share = _gauge("janus_csb_share", "A thread's part of new connections.", "app", "tid")
    ratio = _gauge("janus_thread_busy_ratio", "Part of its time that a thread worked.", "app", "tid")
    queue = _gauge("janus_thread_queue_ratio", "Part of its RX slots that wait in its rings.", "app", "tid")
    busy = _counter("janus_thread_busy_seconds", "Time that a thread worked, as it says.", "app", "tid")
    held = _gauge(
        "janus_csb_held_seconds",
        "Processor time of the longest part of a turn that an update took.",
        "app",
        "tid",
    )
    held_wall = _gauge(
        "janus_csb_held_wall_seconds",
        "The longest part of a turn that an update took, by the clock: with whoever had the processor meanwhile.",
        "app",
        "tid",
    )
    for app, numbers in csb.items():
        for tid, value in numbers.state.weights.items():
            weight.add_metric([app, str(tid)], value)
            share.add_metric([app, str(tid)], numbers.state.shares.get(tid, 0.0))
        for tid, load in numbers.loads.items():
            ratio.add_metric([app, str(tid)], load.busy)
            queue.add_metric([app, str(tid)], load.queue)
            busy.add_metric([app, str(tid)], load.busy_s)
            held.add_metric([app, str(tid)], load.held_us / 1e6)
            held_wall.add_metric([app, str(tid)], load.held_wall_us / 1e6)
    yield from (weight, share, ratio, queue, busy, held, held_wall)


def _of_apps(csb: Mapping[str, CsbNumbers]) -> Iterator[Metric]:
    epoch = _gauge("janus_csb_epoch", "Publications of the circle.", "app")
    exceptions = _gauge(
        "janus_csb_exceptions", "Keys whose connections stay with another thread than the circle's.", "app"
    )
    running = _gauge("janus_csb_updating", "1 while an update runs.", "app")
    rebuilding = _gauge("janus_csb_rebuilding", "1 until the exceptions are known after a restart.", "app")
    automatic = _gauge("janus_csb_automatic", "1 while the automatic mode is on.", "app")
    moves = _counter("janus_csb_automatic_moves", "Changes that the automatic mode has made.", "app")
    for app, numbers in csb.items():
        epoch.add_metric([app], numbers.state.epoch)
        exceptions.add_metric([app], numbers.state.exceptions)
        running.add_metric([app], bool(numbers.state.phase))
        rebuilding.add_metric([app], numbers.state.rebuilding)
        automatic.add_metric([app], numbers.automatic)
        moves.add_metric([app], numbers.moves)
    yield from (epoch, exceptions, running, rebuilding, automatic, moves)


def _of_updates(csb: Mapping[str, CsbNumbers]) -> Iterator[Metric]:
    updates = _counter("janus_csb_updates", "Updates that have ended.", "app", "outcome")
    moved = _counter("janus_csb_moved_slots", "Slots (of 4096) that updates have moved.", "app")
    kept = _counter("janus_csb_kept_connections", "Connections whose keys moved while they stayed.", "app")
    total = _counter("janus_csb_update_phase_seconds", "Time in each phase of updates.", "app", "phase")
    last = _gauge("janus_csb_last_update_phase_seconds", "The same of the last update.", "app", "phase")
    for app, numbers in csb.items():
        counts = numbers.updates
        updates.add_metric([app, "published"], counts.published)
        updates.add_metric([app, "aborted"], counts.aborted)
        moved.add_metric([app], counts.moved_slots)
        kept.add_metric([app], counts.kept)
        for phase in PHASES:
            total.add_metric([app, phase], counts.phase_s[phase])
            last.add_metric([app, phase], counts.last_phase_s.get(phase, 0.0))
    yield from (updates, moved, kept, total, last)
