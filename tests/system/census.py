"""What is in use, as janusd and the app itself see it, to compare before and after."""

import json
from typing import Any

from bench.rig import Janusd, Process
from bench.rig.processes import wait_until


def in_use(rig: Janusd) -> dict[str, Any]:
    """Connections and RX slots held, by thread."""
    return {
        f"{row['app']}/{row['tid']}": (row["connections"], row["rx_slots_held"], row["violations"])
        for row in rig.rows("threads")
    }


def await_level(rig: Janusd, level: dict[str, Any], seconds: float = 60) -> None:
    """Wait until no more is in use than before; the error shows what is."""
    try:
        wait_until(lambda: in_use(rig) == level, seconds, "usage back at its start", step=0.2)
    except TimeoutError:
        raise AssertionError(f"in use: {in_use(rig)}, at the start: {level}") from None


def handlers(rig: Janusd, port: int, workers: int) -> dict[int, tuple[int, int]]:
    """Coroutines of each worker of the census app by process id: handlers, the asking one included, and
    tasks."""
    found: dict[int, tuple[int, int]] = {}
    for _ in range(200):
        with rig.network.connect(port) as sock:
            sock.sendall(b"CENSUS\n")
            answer = json.loads(sock.makefile("rb").read())
        found[answer["pid"]] = (answer["handlers"], answer["tasks"])
        if len(found) == workers:
            break
    return found


def logs_are_clean(*processes: Process) -> None:
    """No traceback in a log."""
    for process in processes:
        assert "Traceback" not in process.text(), f"{process.name}:\n{process.tail()}"
