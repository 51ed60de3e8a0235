"""CPU time by thread, as the scheduler has counted it."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from bench.machine import cycles_per_second
from bench.rig.processes import descendants

Usage = dict[tuple[int, str], float]


def thread_seconds(pids: Iterable[int]) -> Usage:
    """CPU seconds of every thread of these processes and their children, by (thread id, name)."""
    usage: Usage = {}
    for root in pids:
        for pid in descendants(root):
            for task in Path(f"/proc/{pid}/task").glob("*"):
                with contextlib.suppress(OSError):
                    name = (task / "comm").read_text().strip()
                    usage[int(task.name), name] = int((task / "schedstat").read_text().split()[0]) * 1e-9
    return usage


def cycles_by_name(before: Usage, after: Usage) -> dict[str, float]:
    """Cycles spent between two snapshots, summed over the threads of one name."""
    rate = cycles_per_second()
    spent: dict[str, float] = {}
    for key, seconds in after.items():
        spent[key[1]] = spent.get(key[1], 0.0) + (seconds - before.get(key, 0.0)) * rate
    return spent


def machine_busy_seconds() -> float:
    """CPU seconds that the whole machine has not been idle, interrupts and the host's theft included."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / 100.0
