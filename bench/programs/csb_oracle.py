"""csb-oracle: 20 updates of many streams against an oracle that knows each one's owner."""

from collections.abc import Callable

from bench.csb_build import build, size_name
from bench.framework import Options, Program, Row, make_row
from bench.programs.csb_aged import CHURN_PERMILLE, FLYING_PERMILLE, UPDATES, measure

SEED = 2


def run(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """The whole program."""
    program = build("csb_aged")
    streams = 1_000_000 if options.quick else 20_000_000
    size = size_name(streams)
    progress(f"{UPDATES} updates of {size} streams in both forms")
    words = [program, str(streams), "64", "64", "1", str(CHURN_PERMILLE), str(FLYING_PERMILLE), "janus"]
    found = measure(words, SEED, streams, returning=False)["janus"]
    wrong, asked = [sum(found["misdirected"])], [float(streams * len(found["misdirected"]))]
    return [
        make_row(f"oracle {size}", "misdirected", wrong, higher_is_better=False),
        make_row(f"oracle {size}: asked for", "streams in all", asked, higher_is_better=True),
        make_row(f"oracle {size}: exceptions", "streams", found["exceptions"][-1:], higher_is_better=False),
    ]


PROGRAM = Program(
    "csb-oracle",
    "20 updates with churn, every stream asked for after each, against the owner that it is due to",
    run,
    notes=(
        "16 tids, weights and circles as in csb-aged; 5 % of the streams end and as many begin between two updates,",
        "one in a thousand while an update runs. A misdirected stream is counted once and begins anew where it was",
        "sent. The printed form under the same oracle: csb-aged. 20M streams, with --quick 1M.",
    ),
)
