"""EAL: the words for it, and its one start per process.

EAL runs in a C thread of its own, so the calling thread keeps its affinity and gets all signals.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from dpdk_glue.native import check, ffi, lib, why

HugePages = bool | Literal["auto"]


def free_huge_pages() -> int:
    """Return how many huge pages of the default size are free."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("HugePages_Free:"):
            return int(line.split()[1])
    return 0


def eal_words(
    *,
    huge_pages: HugePages = "auto",
    memory_mib: int = 64,
    pci: bool = False,
    options: Sequence[str] = (),
) -> list[str]:
    """Make EAL's words: in memory, one lcore not pinned by EAL, with huge pages or without.

    auto takes huge pages when enough of 2 MiB are free. pci: some configured port is a PCI device.
    """
    huge = free_huge_pages() * 2 >= memory_mib if huge_pages == "auto" else huge_pages
    words = ["-l", "0", "--no-telemetry", "--iova-mode=va", "--log-level=lib.eal:4"]
    words += ["--in-memory"] if huge else ["--no-huge", "--no-shconf", "-m", str(memory_mib)]
    if not pci:
        words.append("--no-pci")
    return [*words, *options]


def start_eal(words: Sequence[str]) -> None:
    """Start EAL with these words; GlueError says what EAL complained about."""
    keep = [ffi.new("char[]", word.encode()) for word in words]
    reason = why()
    check(lib.glue_eal_start(ffi.new("char *[]", keep), len(keep), reason), reason)
