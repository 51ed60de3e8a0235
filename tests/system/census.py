"""What is in use, as janusd and the app itself see it, to compare before and after."""

import json
from typing import Any

from bench.rig import Janusd, Process
from bench.rig.janusd import rows_of
from bench.rig.processes import wait_until
from janusd.ctl_client import Client


def client(rig: Janusd) -> Client:
    """The control API."""
    return Client(str(rig.runtime_dir / "ctl.sock"))


def in_use(rig: Janusd) -> dict[str, Any]:
    """Connections and RX slots held, by thread."""
    return {
        f"{row['app']}/{row['tid']}": (row["connections"], row["rx_slots_held"], row["violations"])
        for row in rows_of(client(rig).ask("threads"))
    }


def at_rest(rig: Janusd) -> dict[str, Any]:
    """in_use() at a moment with nothing in use: a thread that sleeps may tell of the rig's own questions later."""
    level: dict[str, Any] = {}

    def nothing() -> bool:
        level.update(in_use(rig))
        return not any(row[0] or row[1] for row in level.values())

    wait_until(nothing, 10, "nothing in use")
    return level


def await_level(rig: Janusd, level: dict[str, Any], seconds: float = 60) -> None:
    """Wait until no more is in use than before; the error shows what is."""
    try:
        wait_until(lambda: in_use(rig) == level, seconds, "usage back at its start", step=0.2)
    except TimeoutError:
        raise AssertionError(f"in use: {in_use(rig)}, at the start: {level}") from None


def ask(rig: Janusd, port: int) -> dict[str, Any]:
    """What one worker of the census app holds, the connection that asks included."""
    with rig.network.connect(port) as sock:
        sock.sendall(b"CENSUS\n")
        answer: dict[str, Any] = json.loads(sock.makefile("rb").readline())
        return answer


def workers_hold(rig: Janusd, port: int, workers: int) -> dict[int, dict[str, Any]]:
    """What each worker holds, by process id: the questions are asked until every one has answered."""
    found: dict[int, dict[str, Any]] = {}
    for _ in range(200):
        answer = ask(rig, port)
        found[answer.pop("pid")] = answer
        if len(found) == workers:
            return found
    raise AssertionError(f"only {sorted(found)} of {workers} workers have answered 200 questions")


def logs_are_clean(*processes: Process) -> None:
    """No traceback in a log."""
    for process in processes:
        assert "Traceback" not in process.text(), f"{process.name}:\n{process.tail()}"
