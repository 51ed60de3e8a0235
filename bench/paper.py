"""python -m bench.paper [--quick | --recorded] [NAME...]: what the paper shows, measured here, its numbers beside ours.

Each subject runs programs of this directory and leaves bench/results/NAME.json, NAME.txt and, with matplotlib,
NAME.png; with --recorded text and picture are made again from the first.
The paper's numbers are those that are known to this project: where there is none, none is drawn, and only two
subjects are known to be a certain figure or table of it.  Two processors cannot show how anything grows with
cores; every text says what is missing."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.framework import Options, Program, Row, figure, to_json, to_table
from bench.machine import REPO, facts

RESULTS = REPO / "bench" / "results"


@dataclass(frozen=True)
class Quoted:
    """A number that the paper states."""

    case: str
    value: float
    unit: str


@dataclass(frozen=True)
class Subject:
    """A table or figure of the paper."""

    name: str
    title: str
    programs: Sequence[str]  # modules of bench.programs
    quoted: Sequence[Quoted]
    missing: str


SUBJECTS = (
    Subject(
        "coroutines",
        "A handler's switch",
        ("coro_switch",),
        (
            Quoted("1 KiB live, resume and yield", 64, "ns"),
            Quoted("1 KiB live, a function call", 33, "ns"),
        ),
        "The paper's processor is an older one (2.3 GHz Haswell); its other sizes are not known here.",
    ),
    Subject(
        "connections",
        "Connections per second, 64 B, and what one costs",
        ("cps", "short_conn_cycles"),
        (
            Quoted("a TCP thread, at least", 190_000, "connections/s of CPU"),
            Quoted("a TCP thread, at most", 270_000, "connections/s of CPU"),
            Quoted("a TCP thread", 13_000, "cycles/connection"),
        ),
        "How it grows with cores: two processors have one TCP thread beside the load. The paper's 3.9 times Linux is "
        "of all cores, kernel 3.10 and real NICs; here the wires are rings, memif and a veth.",
    ),
    Subject(
        "messages",
        "Requests and throughput by message size, 64 B to 8 KiB",
        ("throughput", "io_thread"),
        (Quoted("small packets, the whole machine", 7.6, "Mpackets/s"),),
        "A NIC's line rate; the paper's rates by size are not known here.",
    ),
    Subject(
        "concurrency",
        "Accept rate as connections grow (the paper's Figure 7)",
        ("concurrency",),
        (Quoted("held, on 128 GiB", 40_000_000, "connections"),),
        "The paper's clients have machines of their own; here they share two processors with the server, so that "
        "rates are lower bounds. --quick holds a million only.",
    ),
    Subject(
        "latency",
        "Handshake latency by load",
        ("latency",),
        (),
        "The paper's curve is not known here in numbers: it says that it was behind Linux at low load. Loads are parts "
        "of what the kernel's server carries on a veth.",
    ),
    Subject(
        "balancer",
        "Lookup and adjustment of the balancer (the paper's Table III)",
        ("csb_table",),
        (),  # rows of its own program
        "Dispatching with several I/O cores at a time.",
    ),
)


def measure(subject: Subject, options: Options, progress: Callable[[str], None]) -> list[Row]:
    """The rows of a subject, the paper's first."""
    rows = [
        Row(f"the paper: {q.case}", q.value, q.unit, None, None, 1, q.value, q.value) for q in subject.quoted
    ]
    for name in subject.programs:
        program: Program = import_module(f"bench.programs.{name}").PROGRAM
        rows += program.run(options, progress)
    return rows


def recorded(path: Path) -> tuple[Mapping[str, Any], list[Row]]:
    """The machine and the rows that a measurement has left."""
    if not path.exists():
        raise RuntimeError(f"nothing is recorded: {path} does not exist")
    record = json.loads(path.read_text())
    return record["machine"], [Row(**row) for row in record["rows"]]


def report(subject: Subject, machine: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """The text that lies in bench/results."""
    where = ", ".join(f"{key} {value}" for key, value in machine.items())
    notes = [
        note
        for name in subject.programs
        for note in import_module(f"bench.programs.{name}").PROGRAM.notes
    ]  # fmt: skip
    lines = [subject.title, "", to_table(rows), "", *notes, f"Not shown: {subject.missing}", where, ""]
    return "\n".join(lines)


def draw(subject: Subject, rows: Sequence[Row], path: Path) -> bool:
    """Bars, one panel for each unit, the paper's in another colour; False without matplotlib."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return False
    units = list(dict.fromkeys(row.unit for row in rows))
    heights = [sum(row.unit == unit for row in rows) + 1 for unit in units]
    picture, panels = pyplot.subplots(
        len(units), 1, figsize=(10, 1.2 + 0.32 * sum(heights)), squeeze=False, height_ratios=heights
    )
    for unit, axes in zip(units, panels[:, 0], strict=True):
        shown = [row for row in rows if row.unit == unit][::-1]
        colours = ["tab:grey" if "the paper" in row.case else "tab:blue" for row in shown]
        places = range(len(shown))  # two programs may have a case of the same name
        bars = axes.barh(
            places, [row.value for row in shown], color=colours, tick_label=[r.case for r in shown]
        )
        axes.bar_label(bars, [figure(row.value) for row in shown], padding=3, fontsize=8)
        axes.margins(x=0.12)
        axes.set_xlabel(unit)
        axes.tick_params(labelsize=8)
    panels[0, 0].set_title(subject.title)
    picture.tight_layout()
    picture.savefig(path, dpi=110)
    pyplot.close(picture)
    return True


def say(text: str) -> None:
    """A line of progress."""
    print(f"  {text}", file=sys.stderr)


def main(words: Sequence[str] | None = None) -> int:
    """The command line: one subject's failure does not keep the others from being shown."""
    parser = argparse.ArgumentParser(prog="python -m bench.paper")
    known = {subject.name: subject for subject in SUBJECTS}
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all when none is given"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="fewer and shorter runs")
    how.add_argument("--recorded", action="store_true", help="no runs: what was measured last")
    given = parser.parse_args(words)
    if unknown := [name for name in given.names if name not in known]:
        parser.error(f"no such subject: {', '.join(unknown)}")
    RESULTS.mkdir(exist_ok=True)
    failed = 0
    for name in given.names or known:
        record = RESULTS / f"{name}.json"
        try:
            if not given.recorded:
                rows = measure(known[name], Options(quick=given.quick), say)
                record.write_text(json.dumps(to_json(name, facts(), rows)))
            machine, rows = recorded(record)
        except (RuntimeError, OSError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = 1
            continue
        text = report(known[name], machine, rows)
        (RESULTS / f"{name}.txt").write_text(text)
        print(text)
        if not draw(known[name], rows, RESULTS / f"{name}.png"):
            print(f"{name}: no picture, matplotlib is not installed", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main())
