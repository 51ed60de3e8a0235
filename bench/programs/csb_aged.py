"""csb-aged: the balancer after many reweights with churn between them, where exceptions have piled up."""

import random
import subprocess
from collections.abc import Callable, Sequence
from typing import IO

from bench.csb_build import build, size_name
from bench.framework import Options, Program, Row, Samples, make_row
from bench.programs.csb_share import Circle, edited_points, random_points, wander
from janusd.placing import Strangers, place
from janusd.weights import NOBODY, SLOT_COUNT, divide, points

CHURN_PERMILLE = 50
FLYING_PERMILLE = 1
UPDATES = 20
LAST = 5  # updates that count as aged
PRINTED_PACKETS = 4  # times 2**20: at less than 2 M/s more would take minutes


def measure(words: Sequence[str], seed: int, streams: int, *, returning: bool) -> dict[str, Samples]:
    """Run csb_aged: circles for the start and each update from the same weights, Janus's by what is where."""
    steps = wander(seed, UPDATES)
    homes = owners = divide([NOBODY] * SLOT_COUNT, steps[0])
    printed, draw = random_points(steps[0]), random.Random(seed)
    samples: dict[str, Samples] = {}
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.write(text_of(printed) + "\n" + text_of(points(owners)) + "\n")
        strangers = Strangers()
        for weights in steps[1:]:
            owners = place(owners, weights, homes, strangers)
            printed = random_points(weights) if returning else edited_points(printed, weights, draw)
            program.stdin.write(text_of(printed) + "\n" + text_of(points(owners)) + "\n")
            program.stdin.flush()
            strangers = Strangers(read_update(program.stdout, samples), streams)
        program.stdin.close()
        read_update(program.stdout, samples)
    if program.returncode != 0:
        raise RuntimeError(f"{words[0]} ended with {program.returncode}")
    return samples


def read_update(lines: IO[str], samples: dict[str, Samples]) -> dict[int, dict[int, int]]:
    """FORM METRIC VALUE, until the exceptions by slot and tid come, or the end."""
    slots: dict[int, dict[int, int]] = {}
    for line in lines:
        first, *rest = line.split()
        if first == "strangers":
            for slot, tid, count in (map(int, next(lines).split()) for _ in range(int(rest[0]))):
                slots.setdefault(slot, {})[tid] = count
            return slots
        samples.setdefault(first, {}).setdefault(rest[0], []).append(float(rest[1]))
    return slots


def text_of(circle: Circle) -> str:
    """A circle as the program reads it."""
    return "\n".join([str(len(circle)), *(f"{point} {tid}" for point, tid in circle)])


def run(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """The whole program."""
    program = build("csb_aged")
    streams = 1_000_000 if options.quick else 10_000_000
    size = size_name(streams)
    progress(f"{UPDATES} updates of {size} streams in both forms")
    packets = [str(count << 20) for count in (options.runs(32, 4), options.runs(PRINTED_PACKETS, 4))]
    words = [program, str(streams), *packets, str(options.runs(5, 3)), str(CHURN_PERMILLE)]
    words += [str(FLYING_PERMILLE)]
    found = measure([*words, "both"], 1, streams, returning=False)
    progress("the same with points that return")
    returning = measure([*words, "count"], 1, streams, returning=True)["faithful"]["exceptions"][-1:]
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
        "chooses slots by the exceptions in its view (janusd/placing.py). Update: median of the last 5. Every stream",
        "is asked for after every update, by both forms; one in a thousand begins while it runs. A stream that the",
        "printed form misdirects begins anew and is an exception no more. Lookups: 32 Mi packets for Janus, 4 Mi for",
        "the printed form. Points that return: exceptions alone, no stream is asked for. 10M streams, with --quick 1M,",
        "and 4 Mi packets for both.",
    ),
)
