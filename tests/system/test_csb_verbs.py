"""janusctl csb on a real janusd under load from kernel clients: every verb, and nobody notices."""

import json
import signal
import socket
import subprocess
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bench.rig import Janusd
from bench.rig.processes import python, wait_until
from tests.system.balance_load import balancer, client, echo, load, no_harm
from tests.system.census import logs_are_clean

ECHO = "tests.system.apps.census:handle"


def words(rig: Janusd, *args: str) -> list[str]:
    return [python(), "-m", "janusd.ctl", "--socket", str(rig.runtime_dir / "ctl.sock"), "csb", *args]


def csb(rig: Janusd, *args: str, code: int = 0) -> Any:
    """What janusctl csb prints, decoded; with another exit code what it says."""
    done = subprocess.run(
        [*words(rig, *args), "--json"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code, (args, done.returncode, done.stdout, done.stderr)
    return json.loads(done.stdout) if code == 0 else done.stderr


def weights(rig: Janusd) -> dict[int, float]:
    return {t["tid"]: t["weight"] for t in balancer(rig)["threads"]}


@pytest.mark.timeout(120)
def test_an_operator_moves_load_and_no_client_notices(rig: Janusd) -> None:
    app = rig.serve(ECHO, port=8000, workers=3)
    with load(rig, 8000) as running:
        done = csb(rig, "set", "web", "0=3", "1=1", "2=0.5")
        assert done["shares"]["0"] == pytest.approx(3 / 4.5, abs=0.01)
        assert done["took_ms"] > 0
        assert done["kept"] > 0, "idle connections were on the slots that moved"
        epoch = done["epoch"]
        assert csb(rig, "set", "web", "0=9", "--dry-run")["epoch"] == epoch

        said = csb(rig, "set", "web", "0=1", "--epoch", str(epoch - 1), code=75)
        assert f"is at epoch {epoch}" in said
        assert weights(rig)[0] == 3.0

        csb(rig, "set", "web", "0=0", "--confirm", "2")
        assert "waits to be confirmed" in csb(rig, "set", "web", "1=5", code=75)
        wait_until(lambda: weights(rig)[0] == 3.0, 10, "the change is undone")
        csb(rig, "drain", "web", "2", "--confirm", "30")
        csb(rig, "confirm", "web")

        killed = 0
        for number in range(12):
            asked = subprocess.Popen(
                words(rig, "set", "web", f"0={1 + number % 3}"), stdout=subprocess.DEVNULL
            )
            time.sleep(0.04 * (number + 1))  # before it has asked, while it waits, after it
            killed += asked.poll() is None
            asked.kill()
            asked.wait()
        assert csb(rig, "set", "web", "0=1", "1=1", "2=1")["shares"]["2"] == pytest.approx(1 / 3, abs=0.01)
        assert killed > 0
        running.go_on(50)
    assert all(u["outcome"] == "published" for u in balancer(rig)["updates"])
    no_harm(rig)
    logs_are_clean(rig.process, app)
    assert "uid=0" in next(line for line in rig.process.text().splitlines() if "verb=csb_set" in line)


@pytest.mark.timeout(60)
def test_a_killed_janusd_undoes_what_was_not_confirmed_and_keeps_the_automatic_mode(rig: Janusd) -> None:
    rig.serve(ECHO, port=8000, workers=2)
    csb(rig, "set", "web", "0=2")
    csb(rig, "auto", "on", "web")
    held = [rig.network.connect(8000, timeout=20) for _ in range(20)]
    csb(rig, "drain", "web", "0", "--confirm", "3600")
    assert weights(rig) == {0: 0.0, 1: 1.0}
    rig.kill()
    rig.start()
    wait_until(lambda: weights(rig) == {0: 2.0, 1: 1.0}, 20, "the drain is undone")
    shown = balancer(rig)
    assert (shown["auto"]["on"], shown["confirm_within_s"]) == (True, None)
    for sock in held:
        echo(sock, b"still here")
        sock.close()
    no_harm(rig)


@pytest.mark.timeout(60)
def test_drain_waits_until_the_last_connection_has_closed(rig: Janusd) -> None:
    rig.serve(ECHO, port=8000, workers=2)
    held = [rig.network.connect(8000, timeout=20) for _ in range(40)]
    for sock in held:
        echo(sock, b"hello")
    wait_until(lambda: all(t["connections"] for t in balancer(rig)["threads"]), 10, "both threads have some")
    said = csb(rig, "drain", "web", "1", "--wait", "--timeout", "1", code=75)
    assert "still has" in said
    waiting = subprocess.Popen(words(rig, "drain", "web", "1", "--wait"), stdout=subprocess.DEVNULL)
    time.sleep(1)
    assert waiting.poll() is None
    fresh = [rig.network.connect(8000, timeout=20) for _ in range(20)]
    for sock in (*held, *fresh):
        echo(sock, b"still here")
    assert {c["tid"] for c in rig.ctl("conns")["conns"] if c["remote_port"] in ports(fresh)} == {0}
    for sock in held:
        sock.close()
    assert waiting.wait(30) == 0
    assert csb(rig, "undrain", "web", "1")["shares"]["1"] == 0.5
    for sock in fresh:
        echo(sock, b"and here")
        sock.close()
    no_harm(rig)


def ports(socks: list[socket.socket]) -> set[int]:
    return {sock.getsockname()[1] for sock in socks}


@pytest.mark.timeout(120)
def test_an_app_is_scaled_under_load(rig: Janusd) -> None:
    app = rig.serve(ECHO, port=8000, workers=1)
    with load(rig, 8000) as running:
        for workers in (3, 2, 4, 1):
            done = subprocess.run(
                [*words(rig)[:-1], "app", "scale", "web", str(workers), "--json"],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["workers"] == workers == serving(rig)
            running.idle += [running.connect() for _ in range(10)]  # some at a thread that will retire
            running.go_on(20)
        idle, running.idle = running.idle, []
        for sock in idle:  # those that retire wait for their last connection
            sock.close()
    no_harm(rig)
    logs_are_clean(rig.process, app)


def serving(rig: Janusd) -> int:
    """Threads that get new connections."""
    return sum(share > 0 for share in (t["share"] for t in balancer(rig)["threads"]))


@pytest.mark.timeout(60)
def test_watch_shows_a_change_while_it_runs_and_ends_with_the_operator(rig: Janusd) -> None:
    rig.serve(ECHO, port=8000, workers=2)
    with subprocess.Popen(words(rig, "watch", "web", "--json"), stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        [first] = json.loads(watch.stdout.readline())
        changed = csb(rig, "set", "web", "0=3", "1=1")
        shown = (json.loads(line)[0] for line in watch.stdout)
        seen = next(app for app in shown if app["epoch"] == changed["epoch"])
        watch.send_signal(signal.SIGINT)
        assert watch.wait(10) == 0
    assert first["epoch"] < changed["epoch"]
    assert [t["share"] for t in first["threads"]] == [0.5, 0.5]
    assert [t["share"] for t in seen["threads"]] == [0.75, 0.25]
    assert sum(count for tid, count in seen["circle"] if tid == 0) == 3072, "the circle is shown"
    assert seen["updates"][-1]["moved_slots"] == 1024


@pytest.mark.timeout(60)
def test_explain_tells_where_each_connection_is(rig: Janusd) -> None:
    rig.serve(ECHO, port=8000, workers=2)
    with ExitStack() as stack:
        held = [stack.enter_context(rig.network.connect(8000, timeout=20)) for _ in range(30)]
        for sock in held:
            echo(sock, b"hello")
        csb(rig, "set", "web", "0=1", "1=5")
        deciders, asks = set(), client(rig)
        for conn in rig.ctl("conns")["conns"]:
            ends = {"src": conn["remote"], "sport": conn["remote_port"]}
            found = asks.ask("csb_explain", **ends, dst=conn["local"], dport=conn["local_port"])
            assert found["tid"] == conn["tid"]
            assert (found["decider"] == "exception") == (found["home"] != found["tid"])
            deciders.add(found["decider"])
        assert "exception" in deciders, "some of 30 connections were on the third that moved"
        assert "nobody serves port 81" in csb(rig, "explain", "10.77.0.2", "1", "10.77.0.1", "81", code=65)


@pytest.mark.alone  # it compares how busy threads are
@pytest.mark.timeout(120)
def test_the_automatic_mode_takes_load_from_a_slow_thread(rig: Janusd, workdir: Path) -> None:
    claim = workdir / "claims"
    claim.mkdir()
    claim.chmod(0o777)
    env = {"UNEVEN_CLAIM": str(claim / "slow")}
    app = rig.serve("tests.system.apps.uneven:handle", port=8000, workers=3, env=env)
    stop = threading.Event()
    errors: list[OSError] = []

    def come_and_go() -> None:
        while not stop.is_set():
            try:
                with rig.network.connect(8000, timeout=20) as sock:
                    for _ in range(3):
                        echo(sock, b"hello")
            except OSError as error:
                errors.append(error)
                return

    clients = [threading.Thread(target=come_and_go) for _ in range(6)]
    for thread in clients:
        thread.start()
    try:
        wait_until(lambda: skew(rig) > 1.4, 20, "one thread is far busier than the mean")
        csb(rig, "auto", "on", "web")
        wait_until(
            lambda: balancer(rig)["auto"]["moves"] > 0 and skew(rig) < 1.2, 40, "the load is even", step=0.2
        )
        slow = min(weights(rig), key=lambda tid: weights(rig)[tid])
        assert weights(rig)[slow] < 0.7
    finally:
        stop.set()
        for thread in clients:
            thread.join(30)
    assert not errors, errors[:3]
    no_harm(rig)
    logs_are_clean(rig.process, app)
    assert f"a connection costs thread {slow}" in rig.process.text()


def skew(rig: Janusd) -> float:
    """max/mean of the threads' busy parts."""
    busy = [t["busy"] for t in balancer(rig)["threads"]]
    return max(busy) * len(busy) / max(1e-9, sum(busy))
