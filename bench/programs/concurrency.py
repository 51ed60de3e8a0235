"""concurrency: how many connections one application holds, and how fast it accepts as they grow (the paper's figure 7).

All are opened by real handshakes through janusd's rings, and requests go to random ones of them throughout; then all
are closed, and the memory has to come back.  Without --quick it takes most of a machine of 24 GiB."""

import time
from collections.abc import Callable

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


def climb(language: str, count: int, progress: Callable[[str], None]) -> list[Row]:
    """Open, hold, exchange, close: the rows of one case."""
    name = case_name(language, count)
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
        all_open = holding.held()
        exchanged = holding.janusd.load.measure("sample", seconds=2, sample=20_000)
        used = memory_of(holding.pid) / GIB
        progress(f"{NAMES[language]}: {all_open:,} held in {used:.2f} GiB; closing")
        began = time.monotonic()
        lost = holding.close_all()
        closing = (all_open - lost) / (time.monotonic() - began)
        kept = (holding.settled() - holding.empty) / MIB
        progress(
            f"{NAMES[language]}: {lost:,} did not close; {kept:,.0f} MiB are the application's until it ends"
        )
    left = (before - available()) / MIB
    if all_open < count or bad or lost:
        raise RuntimeError(f"{name}: {all_open:,} held, {bad} answers were wrong, {lost:,} did not close")
    tenths = list(rates.values())[-STEPS:]
    return [
        make_row(f"{name}, held", "connections", [all_open], higher_is_better=True),
        *(
            make_row(
                f"{name}, accepts up to {level:,}", "connections/s", [rate], tenths[:1], higher_is_better=True
            )
            for level, rate in rates.items()
        ),
        make_row(f"{name}, accepts as it grows", "connections/s", tenths, tenths[:1], higher_is_better=True),
        make_row(
            f"{name}, random requests meanwhile",
            "replies",
            [replies + exchanged["replies"]],
            higher_is_better=True,
        ),
        make_row(f"{name}, closed by the clients", "connections/s", [closing], higher_is_better=True),
        make_row(
            f"{name}, kept by the application when all are closed", "MiB", [kept], higher_is_better=False
        ),
        make_row(f"{name}, left when all is over", "MiB", [left], higher_is_better=False),
    ]


def run(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """All cases that fit into the memory that is free."""
    rows: list[Row] = []
    for language, count in QUICK if options.quick else FULL:
        rows += climb(language, count, progress)
    return rows


def run_most(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """As many handlers in C as fit into the memory that is free, in whole millions."""
    count = MOST_QUICK if options.quick else min(MOST, fits("c") // 1_000_000 * 1_000_000)
    return climb("c", count, progress)


NOTES = (
    "Accept rates: from one level to the next, and the median of ten tenths; the first tenth is the baseline.",
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
