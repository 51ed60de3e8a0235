"""Metrics, their document, the dashboard and the alert rules name the same things."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from janusd import thread_counters
from janusd.autoweights import Sample
from janusd.csb_metrics import CsbCounts
from janusd.metrics import JanusCollector, Snapshot
from janusd.stats_page import Counted
from tests.unit.control_panel import Panel

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "configs/grafana/janus.json"
RULES = ROOT / "configs/prometheus/janus.rules.yml"
PAGE_KINDS = {"io": "io_names", "port": "port_names", "app": "app_names", "thread": "app_names"}
METRIC = re.compile(r"\bjanus_[a-z0-9_]+\b")


def page_counters(array: str) -> list[str]:
    """The counters of the stats page, from where the I/O threads name them."""
    source = (ROOT / "dpdk_glue/stats.c").read_text()
    match = re.search(rf"{array}\[\] = {{(.*?)}};", source, re.DOTALL)
    assert match is not None
    return re.findall(r'"(\w+)"', match[1])


def exposed() -> dict[str, tuple[str, set[str]]]:
    """Every metric that janusd exposes: kind, and the labels that its samples have."""
    counted = [
        Counted(kind, 0, 0, "x", {**dict.fromkeys(page_counters(array), 1), "drop.ring_full": 1})
        for kind, array in PAGE_KINDS.items()
    ]
    page = SimpleNamespace(read=lambda: counted, info=lambda: SimpleNamespace(started_us=1))
    panel = Panel()
    counts = CsbCounts(panel.balancer, panel.automatic, ("web",))
    panel.told = {0: Sample(busy_s=1.0, served=1)}
    panel.automatic.tick()
    panel.ask("csb_set", app="web", weights={"0": 2})
    collector = JanusCollector(page)  # type: ignore[arg-type]
    values = tuple(range(1, 1 + len(thread_counters.NAMES) + len(thread_counters.DROPS)))
    collector.snapshot = Snapshot(
        tcp={("web", 0): values},
        connections={("web", 0): 1},
        threads={"web": 1},
        control={"x": 1},
        devices={"p0": {"rx_missed": 1}},
        csb=counts.numbers(),
    )
    found: dict[str, tuple[str, set[str]]] = {}
    for family in collector.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = (family.type, {label for sample in family.samples for label in sample.labels})
    return found


def expressions() -> list[str]:
    """What the dashboard and the rules ask."""
    targets = [t for panel in json.loads(DASHBOARD.read_text())["panels"] for t in panel.get("targets", [])]
    variables = [v["definition"] for v in json.loads(DASHBOARD.read_text())["templating"]["list"][1:]]
    rules = re.findall(r"expr: (?:\|\n)?((?:.|\n)*?)\n\s+(?:for|labels):", RULES.read_text())
    assert targets
    assert rules
    return [t["expr"] for t in targets] + variables + rules


def test_every_metric_is_in_the_document_and_every_name_in_the_document_is_a_metric() -> None:
    documented = set(re.findall(r"`(janus_[a-z0-9_]+)`", (ROOT / "docs/operating.md").read_text()))
    assert documented <= set(exposed())
    missing = {name for name in set(exposed()) - documented if not name.startswith("janus_tcp_")}
    assert not missing, "TCP's own counters are in sdk/tcp/counters.h too; these are nowhere"


def test_dashboard_and_rules_ask_for_what_exists() -> None:
    names = {name for expression in expressions() for name in METRIC.findall(expression)}
    assert names <= set(exposed()), names - set(exposed())
    assert len(names) > 20


def test_rates_are_taken_of_counters_and_of_nothing_else() -> None:
    kinds = {name: kind for name, (kind, _) in exposed().items()}
    for expression in expressions():
        for function, name in re.findall(r"(rate|increase)\((janus_\w+)", expression):
            assert kinds[name] == "counter", f"{function}({name})"
        for name in METRIC.findall(expression):
            if kinds[name] == "counter" and "last" not in expression:
                assert re.search(rf"(rate|increase)\({name}|^sum\({name}", expression), expression


def test_expressions_use_labels_that_the_metric_has() -> None:
    labels = {name: own | {"instance", "job"} for name, (_, own) in exposed().items()}
    for expression in expressions():
        for name, matchers in re.findall(r"(janus_\w+)\{([^}]*)\}", expression):
            used = set(re.findall(r"(\w+)\s*(?:=~|!=|=)", matchers))
            assert used <= labels[name], f"{name}: {used - labels[name]}"


def test_series_are_bounded_by_threads_and_reasons() -> None:
    allowed = {"app", "tid", "port", "io", "reason", "error", "event", "release", "phase", "outcome"}
    for name, (_, labels) in exposed().items():
        assert labels <= allowed, name


def test_the_dashboards_panels_have_their_own_ids_and_do_not_overlap() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for p in panels
        for x in range(p["gridPos"]["x"], p["gridPos"]["x"] + p["gridPos"]["w"])
        for y in range(p["gridPos"]["y"], p["gridPos"]["y"] + p["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool: apt-get install prometheus")
def test_promtool_accepts_configuration_and_rules() -> None:
    config = ROOT / "configs/prometheus/prometheus.yml"
    done = subprocess.run(
        ["promtool", "check", "config", str(config)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
