"""Memory of closed connections goes back to the machine while their application lives, and comes again for others."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.rig.holding import Holding, memory_of
from bench.rig.processes import wait_until

pytestmark = pytest.mark.alone  # it changes the number of huge pages
COUNT = 100_000
ROW_BYTES = 128
BLOCK_BYTES = 2 << 20  # of rows
TABLE_AND_HASHES = 14  # bytes a connection, at least
MIB = 1 << 20


def rows_file_bytes(janusd: int) -> int:
    """What the files of rows have in memory, as their other holder sees it."""
    found = 0
    for fd in Path(f"/proc/{janusd}/fd").iterdir():
        if os.readlink(fd).startswith("/memfd:janus-rows"):
            found = max(found, fd.stat().st_blocks * 512)
    return found


@pytest.fixture(scope="module")
def holding() -> Iterator[Holding]:
    with Holding("c", COUNT) as made:
        yield made


def open_all(holding: Holding) -> None:
    for _ in range(20):
        if (missing := COUNT - holding.held()) <= 0:
            return
        holding.janusd.load.do("open", count=missing, rate=200_000)
    raise AssertionError(f"{holding.held()} are open")


def close_all(holding: Holding) -> None:
    """Each that is left is asked again: nobody remembers which one was lost on the way."""

    def closed() -> bool:
        holding.janusd.load.do("close")
        return holding.held() == 0

    wait_until(closed, 60, "all are closed")


@pytest.mark.timeout(240)
def test_memory_of_closed_connections_comes_back(holding: Holding) -> None:
    janusd = holding.janusd.process.pid
    at_first = rows_file_bytes(janusd)
    for _ in range(2):
        open_all(holding)
        used, rows = memory_of(holding.pid), rows_file_bytes(janusd)
        close_all(holding)
        wait_until(
            lambda rows=rows: rows - rows_file_bytes(janusd) >= COUNT * ROW_BYTES - 2 * BLOCK_BYTES,
            30,
            "all blocks of rows but the first and the last are holes",
        )
        wait_until(
            lambda used=used: (
                used - memory_of(holding.pid) > COUNT * (ROW_BYTES + TABLE_AND_HASHES) - 6 * MIB
            ),
            30,
            "table and hashes are given back too",
        )
    assert rows_file_bytes(janusd) < at_first
    assert holding.janusd.answers(7)
