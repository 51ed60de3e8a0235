"""The facts of this machine that a figure depends on."""

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]


def facts() -> dict[str, Any]:
    """What to print beside figures."""
    return {
        "cpu": _first(r"^model name\s*: (.*)$", "/proc/cpuinfo") or platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "cycles_per_second": round(cycles_per_second()),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "huge_pages": int(_first(r"^HugePages_Total:\s*(\d+)", "/proc/meminfo") or 0),
        "virtual": "hypervisor" in (_first(r"^flags\s*: (.*)$", "/proc/cpuinfo") or ""),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
        "commit": _commit(),
    }


def cycles_per_second() -> float:
    """The nominal clock, by which CPU time is turned into cycles."""
    return float(_first(r"^cpu MHz\s*: (.*)$", "/proc/cpuinfo") or 1000.0) * 1e6


def _first(pattern: str, path: str) -> str | None:
    match = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    return match[1].strip() if match else None


def _commit() -> str | None:
    words = ["git", "-C", str(REPO), "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None
