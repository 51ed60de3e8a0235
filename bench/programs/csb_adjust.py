"""csb-adjust: how long an update computes, from the new circle to the map that can be published."""

from collections.abc import Callable

from bench.csb_build import build, measure, size_name
from bench.framework import Options, Program, Row, make_row
from bench.programs.csb_lookup import QUICK_SIZES, SIZES


def run(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """The whole program."""
    program = build("csb_fresh")
    rows: list[Row] = []
    for streams in QUICK_SIZES if options.quick else SIZES:
        size = size_name(streams)
        progress(f"{size} streams")
        found = measure([program, "update", str(streams), "1000", str(options.runs(5, 3))])
        in_ms = {form: [1000 * s for s in samples["update"]] for form, samples in found.items()}
        rows.append(make_row(size, "ms", in_ms["janus"], in_ms["faithful"], higher_is_better=False))
    return rows


PROGRAM = Program(
    "csb-adjust",
    "the balancer's update, fresh after one reweight, against the paper's form as printed",
    run,
    notes=(
        "16 tids, 16 random points each, 6 % of the circle moved; the tables of all 16 tids one after the other on",
        "one core. Steps 1, 3, 4, 5 and 6 of the printed form; plan, walk and view of Janus's. What an update waits",
        "for (rings to drain, I/O threads to swap) is in neither. --quick: sizes up to 4M.",
    ),
)
