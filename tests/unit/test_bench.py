"""The benchmarks' frame: order of the runs, medians, ratios, what is printed; and the rig's parsers."""

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import __main__ as command
from bench import paper
from bench.framework import Options, Program, Row, alternate, figure, make_row, to_json, to_table
from bench.machine import facts
from bench.programs import csb_table
from bench.programs.csb_held import read_trace
from bench.rig.janusd import AppPolicy, JanusdConfig, parse_metrics, rows_of
from bench.rig.load import Load

ROW_KEYS = {"case", "value", "unit", "baseline", "ratio", "runs", "min", "max"}
POSITIVE = st.floats(min_value=1e-6, max_value=1e12)


def test_contenders_alternate_and_turn_round() -> None:
    seen: list[str] = []

    def contender(name: str) -> Callable[[], dict[str, float]]:
        def measure() -> dict[str, float]:
            seen.append(name)
            return {"rate": float(len(seen))}

        return measure

    samples = alternate({name: contender(name) for name in "abc"}, 3)
    assert "".join(seen) == "abccbaabc"
    assert samples["a"]["rate"] == [1.0, 6.0, 7.0]
    assert samples["c"]["rate"] == [3.0, 4.0, 9.0]


def test_no_runs_are_no_benchmark() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        alternate({}, 0)
    with pytest.raises(ValueError, match="case: nothing was measured"):
        make_row("case", "s", [], higher_is_better=True)


@pytest.mark.parametrize(
    ("value", "baseline", "higher", "ratio"),
    [
        pytest.param([200.0], [100.0], True, 2.0, id="twice the rate"),
        pytest.param([50.0], [100.0], True, 0.5, id="half the rate"),
        pytest.param([50.0], [100.0], False, 2.0, id="half the time"),
        pytest.param([1.0, 9.0, 2.0], [1.0, 1.0, 50.0], True, 2.0, id="medians, not means"),
        pytest.param([1.0], None, True, None, id="no baseline"),
        pytest.param([0.0], [1.0], False, None, id="no ratio to nothing"),
    ],
)
def test_ratio(value: list[float], baseline: list[float] | None, higher: bool, ratio: float | None) -> None:
    assert make_row("case", "unit", value, baseline, higher_is_better=higher).ratio == ratio


@given(st.lists(POSITIVE, min_size=1), st.lists(POSITIVE, min_size=1))
def test_a_rate_and_its_time_have_the_same_ratio(ours: list[float], theirs: list[float]) -> None:
    rates = make_row("r", "1/s", ours[:1], theirs[:1], higher_is_better=True)
    times = make_row("t", "s", [1 / ours[0]], [1 / theirs[0]], higher_is_better=False)
    assert rates.ratio == pytest.approx(times.ratio)
    row = make_row("r", "1/s", ours, theirs, higher_is_better=True)
    assert row.min <= row.value <= row.max
    assert row.runs == len(ours)


ROWS = [
    Row("a case", 1234.5, "1/s", 617.25, 2.0, 3, 1200.0, 1300.0),
    Row("another", 0.0123, "s", None, None, 1, 0.01, 0.02),
]


def run_two(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """A program for the command line's tests."""
    progress(f"{options.runs(9, 2)} runs of {options.seconds(3.0, 0.5)} s")
    return ROWS


def fail(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """A program that cannot run."""
    raise RuntimeError("needs root")


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    two = Program("two", "two rows", run_two, notes=("a note",))
    monkeypatch.setattr(command, "PROGRAMS", (two, Program("broken", "fails", fail)))


def test_json_has_the_promised_keys() -> None:
    found = to_json("two", facts(), ROWS)
    assert set(found) == {"bench", "machine", "rows"}
    assert [set(row) for row in found["rows"]] == [ROW_KEYS, ROW_KEYS]
    assert {"cpu", "cpus", "cycles_per_second", "kernel", "memory_gib", "python"} <= set(found["machine"])
    assert found["machine"]["cycles_per_second"] > 1e8


@pytest.mark.usefixtures("programs")
def test_the_object_is_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["two", "--quick", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out.splitlines()[-1])
    assert found["bench"] == "two"
    assert found["rows"][0]["ratio"] == 2.0
    assert "a note" in out
    assert "2 runs of 0.5 s" in err


@pytest.mark.usefixtures("programs")
def test_list_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["list"]) == 0
    assert "two rows" in capsys.readouterr().out
    assert command.main(["three"]) == 2
    assert "no such program: three; there are two, broken" in capsys.readouterr().err
    assert command.main(["broken"]) == 1
    assert "broken: needs root" in capsys.readouterr().err


def test_table_lines_up() -> None:
    lines = to_table(ROWS).splitlines()
    assert len(lines) == 3
    assert lines[0].split() == ["case", "value", "unit", "baseline", "ratio", "runs", "min", "max"]
    assert lines[1].split() == ["a", "case", "1,234", "1/s", "617", "2.00", "3", "1,200", "1,300"]
    assert lines[2].split()[:4] == ["another", "0.0123", "s", "-"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1234567.8, "1,234,568"), (99.94, "99.9"), (1.234, "1.23"), (0.00123, "0.00123")],
)
def test_figures_keep_three_digits(value: float, text: str) -> None:
    assert figure(value) == text


def test_metrics_are_read() -> None:
    text = '# HELP a b\na_total{port="p0",reason="bad \\"x\\""} 3.0\na_total{port="p1"} 4\nb 1e3\n'
    found = parse_metrics(text)
    assert found["a_total"] == [({"port": "p0", "reason": 'bad \\"x\\"'}, 3.0), ({"port": "p1"}, 4.0)]
    assert found["b"] == [({}, 1000.0)]


def test_rows_are_the_one_list_of_an_answer() -> None:
    assert rows_of([{"a": 1}]) == [{"a": 1}]
    assert rows_of({"conns": [{"a": 1}], "cursor": None}) == [{"a": 1}]
    with pytest.raises(ValueError, match="expected one list"):
        rows_of({"a": [], "b": []})


def test_the_rig_writes_a_configuration_that_toml_reads(tmp_path: object) -> None:
    import tomllib

    apps = (AppPolicy(name="web", ports=("80", "8000-8099")), AppPolicy(name="other", ports=("7000",)))
    found = tomllib.loads(JanusdConfig(apps=apps, io_threads=2).text(Path("/run/x")))
    assert found["io"] == {"threads": 2, "cpus": [], "mode": "adaptive"}
    assert [app["name"] for app in found["app"]] == ["web", "other"]
    assert found["app"][0]["ports"] == ["80", "8000-8099"]


def test_the_papers_subjects_have_their_programs_and_say_what_is_missing() -> None:
    for subject in paper.SUBJECTS:
        rows = [make_row("case", "ns", [1.0], higher_is_better=False)]
        text = paper.report(subject, {"cpus": 2}, rows)
        assert "cpus 2" in text
        assert subject.title in text
        assert f"Not shown: {subject.missing}" in text
        assert subject.missing


def test_a_subject_has_the_papers_numbers_first(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Program("p", "", lambda options, progress: [make_row("ours", "ns", [2.0], higher_is_better=False)])
    monkeypatch.setattr("bench.programs.coro_switch.PROGRAM", ours)
    subject = next(s for s in paper.SUBJECTS if s.name == "coroutines")
    rows = paper.measure(subject, Options(), lambda text: None)
    assert [row.value for row in rows] == [64, 33, 2.0]
    assert all("paper" in row.case for row in rows[:2])


def test_the_load_generator_is_asked_again_between_its_bind_and_its_listen(tmp_path: Path) -> None:
    path = tmp_path / "load.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as generator:
        generator.bind(str(path))
        later = threading.Timer(0.1, generator.listen)
        later.start()
        load = Load(path)
        generator.accept()[0].close()
        load.close()
        later.join()


def test_a_trace_of_turns_tells_what_is_the_updates_own() -> None:
    """A marker, an interrupt with a softirq in it, a switch, a system call; another thread between."""
    trace = """
        7 1.000000000: janus_held:balance_marker
        7 1.000010000: janus_held:balance_marker_end__return
        8 1.000011000: irq:softirq_entry
        7 1.000020000: janus_held:balance_turn
        7 1.000025000: irq_vectors:local_timer_entry
        7 1.000030000: irq:softirq_entry
        7 1.000040000: irq:softirq_exit
        7 1.000050000: irq_vectors:local_timer_exit
        7 1.000051000: raw_syscalls:sys_enter
        7 1.000060000: PERF_RECORD_SWITCH OUT preempt
        7 1.000090000: PERF_RECORD_SWITCH IN
        7 1.000092000: raw_syscalls:sys_exit
        7 1.000095000: janus_held:balance_turn_end__return
        7 1.000099000: irq:softirq_entry
    """
    [turn] = read_trace(trace.splitlines())
    assert turn.whole == pytest.approx(85, abs=0.01)
    assert turn.own == pytest.approx(85 - 25 - 30, abs=0.01)
    assert turn.walked == pytest.approx(85 - 25 - 30 - 9 - 2, abs=0.01)


def test_what_was_recorded_is_shown_again_without_a_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = Program("p", "", lambda options, progress: [make_row("ours", "ns", [2.0], higher_is_better=False)])
    monkeypatch.setattr("bench.programs.coro_switch.PROGRAM", ours)
    monkeypatch.setattr(paper, "RESULTS", tmp_path)
    assert paper.main(["--recorded", "coroutines"]) == 1
    assert "nothing is recorded" in capsys.readouterr().err
    assert paper.main(["--quick", "coroutines"]) == 0
    first = capsys.readouterr().out
    assert "ours" in first
    monkeypatch.setattr(paper, "measure", None)
    (tmp_path / "coroutines.txt").unlink()
    assert paper.main(["--recorded", "coroutines"]) == 0
    assert capsys.readouterr().out == first
    assert "ours" in (tmp_path / "coroutines.txt").read_text()


def test_the_papers_table_has_three_rows_for_each_size_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(words: list[str]) -> dict[str, dict[str, list[float]]]:
        values = [float(words[2]) * part for part in (1, 3, 2)]
        return {form: {words[1]: values, "ready": values} for form in ("janus", "faithful")}

    monkeypatch.setattr(csb_table, "build", lambda name: name)
    monkeypatch.setattr(csb_table, "measure", measured)
    rows = {row.case: row for row in csb_table.run(Options(), lambda text: None)}
    for kind, theirs, here in (("lookup", 14.4e6, 2e6), ("update", 180.0, 2e9)):
        names = ("the paper", "as printed, here", "Janus, here")
        assert [rows[f"{kind} 1M: {name}"].value for name in names] == [theirs, here, here]
        assert f"{kind} 40M: Janus, here" in rows
        assert f"{kind} 40M: the paper" not in rows
