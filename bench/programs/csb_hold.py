"""csb-hold: how long an update holds a TCP thread in a turn of its loop, beside a loop that does nothing."""

from collections.abc import Callable

from bench.csb_build import build, measure, size_name
from bench.framework import Options, Program, Row, make_row

UPDATES = 20
WHEN = {
    "undisturbed": "kept its processor",
    "processor": "processor time",
    "any": "whatever happened",
}


def run(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """The whole program."""
    program = build("csb_hold")
    rows: list[Row] = []
    for flows in (100_000,) if options.quick else (100_000, 1_000_000):
        size = size_name(flows)
        found: dict[str, dict[str, list[float]]] = {}
        for number in range(options.runs(5, 3)):
            progress(f"{size} flows, run {number}")
            for form, metrics in measure([program, str(flows), str(UPDATES)]).items():
                for metric, values in metrics.items():
                    found.setdefault(form, {}).setdefault(metric, []).extend(values)
        for form, when in WHEN.items():
            for metric in ("p50", "p99", "p99.9", "max", "long"):
                row = make_row(
                    f"turn {size}, {when}: {metric}",
                    "of a million" if metric == "long" else "us",
                    found[form][metric],
                    found["spin"][metric],
                    higher_is_better=False,
                )
                rows.append(row)
        rows.append(make_row(f"walk {size} at once", "us", found["whole"]["max"], higher_is_better=False))
        rows.append(make_row(f"turns {size}", "", found["any"]["turns"], higher_is_better=False))
        rows.append(make_row(f"turns {size} kept", "", found["undisturbed"]["turns"], higher_is_better=False))
    return rows


PROGRAM = Program(
    "csb-hold",
    "how long an update holds a TCP thread in one turn, beside a loop that does nothing",
    run,
    notes=(
        "20 updates of a thread's flows, half of which move, each with the check of a draft that has as many",
        "exceptions; sdk/app/balance.c as it is, lists over a socket to a second thread, values mapped by a third.",
        "Kept its processor: turns without an involuntary switch (RUSAGE_THREAD), in TSC cycles. The baseline looks at",
        "the clock for as long as a turn may take, as many times, measured alike: what is in its p99.9 and max is the",
        "machine's. Long: turns above 100 us. --quick: 100k flows alone.",
    ),
)
