"""csb-aged: the balancer after many reweights with churn between them, where exceptions have piled up."""

import random
from collections.abc import Callable

from bench.csb_build import build, measure, size_name
from bench.framework import Options, Program, Row, make_row
from bench.programs.csb_share import Circle, edited_points, random_points, wander
from janusd.weights import NOBODY, SLOT_COUNT, divide, points

CHURN_PERMILLE = 50
FLYING_PERMILLE = 1
UPDATES = 20
LAST = 5  # updates that count as aged


def circles(seed: int, *, returning: bool) -> str:
    """Both forms' circles for the start and each update, from the same weights."""
    steps = wander(seed, UPDATES)
    homes = owners = divide([NOBODY] * SLOT_COUNT, steps[0])
    printed, draw = random_points(steps[0]), random.Random(seed)
    lines: list[str] = []
    for weights in steps:
        owners = divide(owners, weights, homes)
        printed = random_points(weights) if returning else edited_points(printed, weights, draw)
        lines += [text_of(printed), text_of(points(owners))]
    return "\n".join(lines)


def text_of(circle: Circle) -> str:
    """A circle as the program reads it."""
    return "\n".join([str(len(circle)), *(f"{point} {tid}" for point, tid in circle)])


def run(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """The whole program."""
    program = build("csb_aged")
    streams = 1_000_000 if options.quick else 10_000_000
    size = size_name(streams)
    progress(f"{UPDATES} updates of {size} streams in both forms")
    packets = options.runs(32, 4) << 20
    words = [program, str(streams), str(packets), str(options.runs(5, 3)), str(CHURN_PERMILLE)]
    words += [str(FLYING_PERMILLE), "both"]
    found = measure(words, circles(1, returning=False))
    progress("the same with points that return")
    returning = measure(words, circles(1, returning=True))["faithful"]["exceptions"][-1:]
    janus, faithful = found["janus"], found["faithful"]
    in_ms = {form: [1000 * s for s in samples["update"][-LAST:]] for form, samples in found.items()}
    return [
        make_row(f"lookup {size}", "lookups/s", janus["ready"], faithful["ready"], higher_is_better=True),
        make_row(f"update {size}", "ms", in_ms["janus"], in_ms["faithful"], higher_is_better=False),
        make_row(
            f"exceptions {size}",
            "streams",
            janus["exceptions"][-1:],
            faithful["exceptions"][-1:],
            higher_is_better=False,
        ),
        make_row(
            f"exceptions {size} / points that return",
            "streams",
            janus["exceptions"][-1:],
            returning,
            higher_is_better=False,
        ),
        make_row(f"memory {size}", "B", janus["bytes"][-1:], faithful["bytes"][-1:], higher_is_better=False),
        make_row(f"flagged slots {size}", "of 4096", janus["flagged"][-1:], higher_is_better=False),
        make_row(
            f"misdirected {size}",
            "streams in all",
            [sum(janus["misdirected"])],
            [sum(faithful["misdirected"])],
            higher_is_better=False,
        ),
    ]


PROGRAM = Program(
    "csb-aged",
    "lookup and update after 20 reweights with 5 % churn between, against the paper's form as printed",
    run,
    notes=(
        "The same weights for both, which wander between 0.5 and 1.5; each fifth update drains a tid. The faithful",
        "form has 16 random points at weight 1: more weight draws new ones, less drops some, as the paper says; 'that",
        "return': the same points come back with the weight. Its shares are off by 20 % r.m.s. (csb-share). Janus",
        "divides slots, home first. Update: median of the last 5. Every stream is asked for after every update, by",
        "both forms; one in a thousand begins while it runs. 10M streams, with --quick 1M.",
    ),
)
