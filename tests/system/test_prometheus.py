"""Debian's Prometheus scrapes a running janusd with the alert rules that the repository ships."""

import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from bench.rig import Janusd
from bench.rig.processes import REPO, Process
from tests.unit.test_monitoring import expressions

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="needs prometheus: apt-get install prometheus"
)
PORT = 9090
READY_S = 30.0


def fetch(rig: Janusd, path: str) -> Any:
    """What Prometheus answers, from inside its namespace."""
    words = ["ip", "netns", "exec", rig.network.srv, "curl", "-fsS", "-G", "--max-time", "10"]
    path, _, query = path.partition("?query=")
    words += ["--data-urlencode", f"query={query}"] if query else []
    done = subprocess.run(
        [*words, f"http://127.0.0.1:{PORT}/api/v1/{path}"], capture_output=True, text=True, check=False
    )
    return json.loads(done.stdout)["data"] if done.returncode == 0 and done.stdout else None


def start(rig: Janusd, workdir: Path) -> Process:
    """Prometheus with the shipped configuration, scraping once a second."""
    for source in (REPO / "configs/prometheus").iterdir():
        text = re.sub(r"(scrape|evaluation)_interval: \w+", r"\1_interval: 1s", source.read_text())
        (workdir / source.name).write_text(text.replace("127.0.0.1:9464", rig.config.metrics))
    return Process(
        [
            "prometheus",
            f"--config.file={workdir}/prometheus.yml",
            f"--storage.tsdb.path={workdir}/tsdb",
            f"--web.listen-address=127.0.0.1:{PORT}",
        ],
        name="prometheus",
        workdir=workdir,
        namespace=rig.network.srv,
    )


def await_scrapes(rig: Janusd, process: Process, count: int) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        found = fetch(rig, "query?query=count_over_time(up{job='janus'}[5m])")
        if found and found["result"] and int(found["result"][0]["value"][1]) >= count:
            return
        assert process.alive(), process.tail()
        time.sleep(0.3)
    raise TimeoutError(f"Prometheus has not scraped {count} times:\n{process.tail()}")


def test_prometheus_scrapes_and_evaluates_every_rule_and_panel(rig: Janusd, workdir: Path) -> None:
    rig.serve("examples.echo:handle", port=8000, workers=2)
    with rig.network.connect(8000) as sock:
        sock.sendall(b"hello")
        assert sock.recv(5) == b"hello"
        process = start(rig, workdir)
        try:
            await_scrapes(rig, process, 4)
            [target] = fetch(rig, "targets")["activeTargets"]
            assert (target["health"], target["lastError"]) == ("up", "")
            [share, other] = fetch(rig, "query?query=janus_csb_share{app='web'}")["result"]
            assert float(share["value"][1]) + float(other["value"][1]) == pytest.approx(1.0)
            [group] = fetch(rig, "rules")["groups"]
            assert [(r["name"], r["lastError"]) for r in group["rules"] if r.get("lastError")] == []
            assert {r["state"] for r in group["rules"] if r["name"] != "JanusSmallPages"} == {"inactive"}
            for expression in expressions():
                asked = expression.replace("$app", ".*").replace("$instance", ".*")
                if not asked.startswith("label_values"):
                    assert fetch(rig, f"query?query={asked}") is not None, expression
            connections = fetch(rig, "query?query=sum(janus_connections)")["result"]
            assert float(connections[0]["value"][1]) >= 1
        finally:
            process.stop()


def test_an_alert_fires_when_janusd_is_gone(rig: Janusd, workdir: Path) -> None:
    process = start(rig, workdir)
    rules = workdir / "janus.rules.yml"
    try:
        await_scrapes(rig, process, 1)
        rules.write_text(re.sub(r"for: \d+[sm]", "for: 0s", rules.read_text()))
        process.kill(signal.SIGHUP)  # read the configuration again
        rig.kill()
        deadline = time.monotonic() + READY_S
        firing: set[str] = set()
        while "JanusDown" not in firing and time.monotonic() < deadline:
            time.sleep(0.5)
            firing = {
                a["labels"]["alertname"] for a in fetch(rig, "alerts")["alerts"] if a["state"] == "firing"
            }
        assert "JanusDown" in firing
    finally:
        process.stop()
