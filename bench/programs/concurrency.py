"""concurrency: how many connections one application holds, and how fast it accepts as they grow (the paper's figure 7).

All are opened by real handshakes through janusd's rings, and requests go to random ones of them throughout; then all
are closed, and the memory has to come back.  Without --quick it takes most of a machine of 24 GiB."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.framework import Options, Program, Row, make_row
from bench.programs.idle_memory import NAMES, case_name
from bench.rig.holding import Holding, available, fits, memory_of

SAMPLE = 1000.0
STEPS = 10
FIRST = (10_000, 100_000, 1_000_000)
FULL = (("c", 40_000_000), ("python", 10_000_000))
MOST, MOST_QUICK = 100_000_000, 250_000
QUICK = (("c", 1_000_000), ("python", 100_000))
MIB, GIB = 1 << 20, 1 << 30


def levels(count: int) -> list[int]:
    """Where the rate is told: where the paper's figure begins, as far as that is below a tenth, then each tenth."""
    tenths = [count * step // STEPS for step in range(1, STEPS + 1)]
    return [*(level for level in FIRST if level < tenths[0]), *tenths]


@dataclass(frozen=True)
class Climb:
    """What one run has seen."""

    rates: dict[int, float]  # accepts a second, up to each level
    held: int
    replies: float
    closed: float  # a second
    kept: float  # MiB, by the application when all are closed
    left: float  # MiB, when all is over


def climb(language: str, count: int, progress: Callable[[str], None]) -> Climb:
    """Open, hold, exchange, close."""
    rates: dict[int, float] = {}
    replies = bad = opened = 0

    before = available()
    with Holding(language, count) as holding:
        for level in levels(count):
            result = holding.open(level - opened, SAMPLE)
            opened = level
            rates[level] = result["established"] / result["seconds"]
            replies += int(result["replies"])
            bad += int(result["bad"])
            progress(
                f"{NAMES[language]}: {level:,} open, {rates[level]:,.0f}/s, {int(result['replies']):,} replies"
            )
        held = holding.held()
        exchanged = holding.janusd.load.measure("sample", seconds=2, sample=20_000)
        used = memory_of(holding.pid) / GIB
        progress(f"{NAMES[language]}: {held:,} held in {used:.2f} GiB; closing")
        began = time.monotonic()
        lost = holding.close_all()
        closed = (held - lost) / (time.monotonic() - began)
        kept = (holding.settled() - holding.empty) / MIB
        progress(
            f"{NAMES[language]}: {lost:,} did not close; {kept:,.0f} MiB are the application's until it ends"
        )
    left = (before - available()) / MIB
    if held < count or bad or lost:
        name = case_name(language, count)
        raise RuntimeError(f"{name}: {held:,} held, {bad} answers were wrong, {lost:,} did not close")
    return Climb(rates, held, replies + exchanged["replies"], closed, kept, left)


def rows_of(name: str, climbs: Sequence[Climb]) -> list[Row]:
    """The rows of one case."""
    by_level = {level: [climb.rates[level] for climb in climbs] for level in climbs[0].rates}
    tenths = list(by_level)[-STEPS:]
    first = by_level[tenths[0]]

    def accepts(what: str, rates: Sequence[float]) -> Row:
        return make_row(f"{name}, accepts {what}", "connections/s", rates, first, higher_is_better=True)

    def plain(what: str, unit: str, values: Sequence[float], *, more: bool) -> Row:
        return make_row(f"{name}, {what}", unit, values, higher_is_better=more)

    return [
        plain("held", "connections", [climb.held for climb in climbs], more=True),
        *(accepts(f"up to {level:,}", rates) for level, rates in by_level.items()),
        accepts("as it grows", [rate for level in tenths for rate in by_level[level]]),
        plain("random requests meanwhile", "replies", [climb.replies for climb in climbs], more=True),
        plain("closed by the clients", "connections/s", [climb.closed for climb in climbs], more=True),
        plain(
            "kept by the application when all are closed", "MiB", [climb.kept for climb in climbs], more=False
        ),
        plain("left when all is over", "MiB", [climb.left for climb in climbs], more=False),
    ]


def run(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """All cases, each from nothing so many times."""
    rows: list[Row] = []
    for language, count in QUICK if options.quick else FULL:
        climbs = [climb(language, count, progress) for _ in range(options.runs(5, 1))]
        rows += rows_of(case_name(language, count), climbs)
    return rows


def run_most(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """As many handlers in C as fit into the memory that is free, in whole millions, once."""
    count = MOST_QUICK if options.quick else min(MOST, fits("c") // 1_000_000 * 1_000_000)
    return rows_of(case_name("c", count), [climb("c", count, progress)])


NOTES = (
    "Accept rates: from one level to the next, and of ten tenths together; the first tenth is the baseline.",
    "Clients, janusd and the application share two processors: these are no rates of a machine that serves alone.",
)
PROGRAM = Program(
    "concurrency",
    "connections held at once by one application, each opened by a handshake, and the accept rate as they grow",
    run,
    notes=NOTES,
)
MOST_PROGRAM = Program(
    "concurrency-most",
    "the same with as many connections as the memory holds, up to 100 million",
    run_most,
    notes=NOTES,
)
