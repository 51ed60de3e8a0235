"""csb-table: the paper's Table III, three rows for each size: the paper, the printed form here, Janus here."""

from collections.abc import Callable

from bench.csb_build import build, measure, size_name
from bench.framework import Options, Program, Row, make_row
from bench.programs.csb_lookup import QUICK_SIZES, SIZES

PAPER_LOOKUPS_S = {1_000_000: 14.4e6, 4_000_000: 12.8e6, 10_000_000: 11.2e6, 20_000_000: 9.8e6}
PAPER_UPDATE_MS = {1_000_000: 180.0, 4_000_000: 400.0, 10_000_000: 1281.0, 20_000_000: 2399.0}


def run(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """The whole program."""
    program = build("csb_fresh")
    lookups: list[Row] = []
    updates: list[Row] = []
    for streams in QUICK_SIZES if options.quick else SIZES:
        size, runs = size_name(streams), str(options.runs(5, 3))
        progress(f"{size} streams")
        packets = min(32 * streams, options.runs(32, 4) << 20)
        found = measure([program, "lookup", str(streams), str(packets), runs])
        ready = {form: found[form]["ready"] for form in ("janus", "faithful")}
        lookups += _three(f"lookup {size}", "lookups/s", PAPER_LOOKUPS_S.get(streams), ready, higher=True)
        found = measure([program, "update", str(streams), "1000", runs])
        took = {form: [1000 * s for s in found[form]["update"]] for form in ("janus", "faithful")}
        updates += _three(f"update {size}", "ms", PAPER_UPDATE_MS.get(streams), took, higher=False)
    return lookups + updates


def _three(
    case: str, unit: str, paper: float | None, found: dict[str, list[float]], *, higher: bool
) -> list[Row]:
    rows = [] if paper is None else [make_row(f"{case}: the paper", unit, [paper], higher_is_better=higher)]
    rows.append(make_row(f"{case}: as printed, here", unit, found["faithful"], higher_is_better=higher))
    rows.append(
        make_row(f"{case}: Janus, here", unit, found["janus"], found["faithful"], higher_is_better=higher)
    )
    return rows


PROGRAM = Program(
    "csb-table",
    "the paper's Table III: lookup and adjustment, the paper's figures beside both forms here",
    run,
    notes=(
        "The paper's rows are its own hardware's and end at 20M; ratios are to the printed form on this machine. What",
        "the paper leaves out, and is here: 16 tids with 16 random points each; 6 % of the circle moved; BF sized for",
        "all streams at 1e-4 (13 murmur3 hashes); min(32 per stream, 32 Mi) packets in random order, ready keys, one",
        "core; an update is steps 1, 3, 4, 5 and 6 of the printed form, and plan, walk and view here. --quick: 4 Mi",
        "packets, sizes up to 4M.",
    ),
)
