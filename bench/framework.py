"""What every benchmark does alike: alternate with the baseline, take medians, compute ratios, print.

A contender is measured many times, never twice in a row while others wait: a disturbance of the machine
then hits all.  A ratio is how many times better than the baseline, above 1 is better, for rates and for
times alike."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Samples = dict[str, list[float]]


@dataclass(frozen=True)
class Options:
    """How long a program may take."""

    quick: bool = False

    def runs(self, usual: int, quick: int) -> int:
        """How many times to measure each contender."""
        return quick if self.quick else usual

    def seconds(self, usual: float, quick: float) -> float:
        """How long to measure each time."""
        return quick if self.quick else usual


@dataclass(frozen=True)
class Row:
    """One figure: the median of its runs, the extremes, and how it stands to the baseline's median."""

    case: str
    value: float
    unit: str
    baseline: float | None
    ratio: float | None
    runs: int
    min: float
    max: float


@dataclass(frozen=True)
class Program:
    """One benchmark.  `run` reports its progress by calling its second argument; what it returns is
    printed."""

    name: str
    summary: str
    run: Callable[[Options, Callable[[str], None]], Sequence[Row]]
    notes: Sequence[str] = ()


def alternate(
    contenders: Mapping[str, Callable[[], Mapping[str, float]]],
    runs: int,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Samples]:
    """Measure each contender `runs` times: forwards in one round, backwards in the next.  Samples by
    contender and metric."""
    if runs < 1:
        raise ValueError("a benchmark needs at least one run")
    samples: dict[str, Samples] = {name: {} for name in contenders}
    for number in range(runs):
        order = list(contenders)[:: 1 if number % 2 == 0 else -1]
        for name in order:
            progress(f"round {number + 1} of {runs}: {name}")
            for metric, value in contenders[name]().items():
                samples[name].setdefault(metric, []).append(value)
    return samples


def make_row(
    case: str,
    unit: str,
    samples: Sequence[float],
    baseline: Sequence[float] | None = None,
    *,
    higher_is_better: bool,
) -> Row:
    """The row of one case from its samples and the baseline's."""
    if not samples:
        raise ValueError(f"{case}: nothing was measured")
    value = statistics.median(samples)
    base = statistics.median(baseline) if baseline else None
    ratio = None
    if base is not None and value > 0 and base > 0:
        ratio = value / base if higher_is_better else base / value
    return Row(case, value, unit, base, ratio, len(samples), min(samples), max(samples))


def to_json(name: str, machine: Mapping[str, Any], rows: Iterable[Row]) -> dict[str, Any]:
    """The object that --json prints."""
    return {"bench": name, "machine": dict(machine), "rows": [asdict(row) for row in rows]}


def to_table(rows: Sequence[Row]) -> str:
    """The rows for people."""
    head = ("case", "value", "unit", "baseline", "ratio", "runs", "min", "max")
    body = [
        (
            row.case,
            figure(row.value),
            row.unit,
            "-" if row.baseline is None else figure(row.baseline),
            "-" if row.ratio is None else f"{row.ratio:.2f}",
            str(row.runs),
            figure(row.min),
            figure(row.max),
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in (head, *body)) for column in range(len(head))]
    left = {0, 2}
    return "\n".join(
        "  ".join(
            word.ljust(width) if column in left else word.rjust(width)
            for column, (word, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (head, *body)
    )


def figure(value: float) -> str:
    """A number with at least three digits that mean something."""
    if abs(value) >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.3g}"
