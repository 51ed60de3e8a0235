"""Very many idle connections held open: janusd on rings, one application, and clients that nobody remembers.

    with Holding("c", rows=1_100_000) as holding:
        holding.open(1_000_000, sample=1000)
        holding.bytes_per_connection(1_000_000)

A connection is opened by a real handshake through janusd's rings, and its handler waits when it is counted."""

import contextlib
import json
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from bench.machine import REPO
from bench.rig.janusd import HUGE_PAGES, HUGE_PAGES_FILE, AppPolicy, JanusdConfig
from bench.rig.load import Result, RingJanusd
from bench.rig.network import Network
from bench.rig.processes import Process, Workdir, descendants, wait_until
from bench.rig.tools import build_with_sdk

PORT = 7
STILL_SECONDS = 4.0  # without a change
SETTLE_SECONDS = 0.5  # until an application that sleeps has told its counters
SLOTS = 16384
HUGE = 2 << 20
ROW_BYTES = 128
SPARE_BYTES = 3 << 29  # for janusd, DPDK and the rest of the machine
BYTES = {
    "c": 190,
    "python": 460,
    "python huge arenas": 500,
    "asyncio protocol": 1000,
    "uvicorn": 9000,
}  # about what a connection takes, to know what fits
ASYNCIO = {  # applications whose event loop is on Janus
    "asyncio protocol": f"-m bench.asgi {PORT}",
    "uvicorn": f"-m uvicorn --loop janus_tcp.asyncio:new_event_loop --host 0.0.0.0 --port {PORT} --lifespan off "
    "--no-access-log --log-level warning bench.asgi:app",
}
ROOM = 100_000  # rows beyond the connections: closing ones linger


def meminfo(name: str) -> int:
    """Bytes of one line of /proc/meminfo."""
    match = re.search(rf"^{name}:\s+(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert match is not None, name
    return int(match[1]) * 1024


def memory_of(pid: int) -> int:
    """Bytes that a process and its children have in memory, those in huge pages too."""
    found = 0
    for process in descendants(pid):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            name, *rest = line.split()
            if name in ("Rss:", "Shared_Hugetlb:", "Private_Hugetlb:"):
                found += int(rest[0]) * 1024
    return found


def available() -> int:
    """Bytes that the machine has left, free huge pages among them."""
    return meminfo("MemAvailable") + meminfo("HugePages_Free") // 1024 * HUGE


def fits(language: str) -> int:
    """How many connections fit into that."""
    return (available() - SPARE_BYTES) // BYTES[language]


class Holding:
    """The rig: handlers in C (bench/hold_server.c) or Python (bench/hold_handler.py) that begin at accept."""

    def __init__(self, language: str, count: int) -> None:
        self.language = language
        self.count = count
        self._stack = ExitStack()
        self._target = 0
        self._pages_before = int(HUGE_PAGES_FILE.read_text())

    def __enter__(self) -> Self:
        rows = self.count + ROOM
        if self.count > fits(self.language):
            text = f"{fits(self.language):,} fit into the {available() / 2**30:.1f} GiB that are free"
            raise RuntimeError(f"{self.count:,} connections are too many: {text}")
        with contextlib.ExitStack() as stack:
            stack.callback(lambda: HUGE_PAGES_FILE.write_text(f"{max(self._pages_before, HUGE_PAGES)}\n"))
            pages = HUGE_PAGES + (rows * ROW_BYTES + 3 * SLOTS * 2048) // HUGE
            HUGE_PAGES_FILE.write_text(f"{max(pages, self._pages_before)}\n")
            workdir = stack.enter_context(Workdir("hold")).path
            network = stack.enter_context(Network("hold", workdir))
            policy = AppPolicy("web", (str(PORT),), connections_max=rows, rx_slots=SLOTS, tx_slots=SLOTS)
            self.janusd = stack.enter_context(RingJanusd(network, workdir, JanusdConfig(apps=(policy,))))
            self.app = self._start()
            wait_until(lambda: self.janusd.answers(PORT), 30, "the application answers")
            self.pid = int(
                self.janusd.rows("threads")[0]["pid"]
            )  # a worker may be a child of what was started
            self.empty = memory_of(self.pid)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self) -> Process:
        if self.language == "python":
            return self.janusd.serve("bench.hold_handler:handle", port=PORT)
        if self.language == "python huge arenas":
            words = "-m janus_tcp run bench.hold_handler:handle --app web --huge-arenas"
            app = self.janusd.app(*words.split(), "--port", str(PORT))
            self.janusd.await_threads(app, "web", 1)
            return app
        if self.language in ASYNCIO:
            app = self.janusd.app(*ASYNCIO[self.language].split())
            self.janusd.await_threads(app, "web", 1)
            return app
        program = build_with_sdk(REPO / "bench" / "hold_server.c")
        app = self.janusd.program(str(program), str(PORT), interactive=True)
        self.janusd.await_threads(app, "web", 1)
        return app

    def open(self, count: int, sample: float) -> Result:
        """Open so many more; meanwhile so many requests a second go to random ones of those that are open.

        The application's own count says how many are open: what the busy machine lost is opened again."""
        total: Result = {"established": 0, "replies": 0, "bad": 0, "seconds": 0.0, "resets": 0}
        self._target += count
        for _ in range(8):
            missing = self._target - self.held()
            if missing <= 0:
                return total
            result = self.janusd.load.do("open", count=missing, sample=sample)
            for key in total:
                total[key] += result[key]
            time.sleep(SETTLE_SECONDS)
        raise RuntimeError(f"only {self.held():,} of {self._target:,} connections could be opened")

    def open_growing(self, steps: int, sample: float, grown: Callable[[int, Result], None]) -> None:
        """Open all in so many steps, and report after each."""
        for step in range(1, steps + 1):
            before, upto = self.count * (step - 1) // steps, self.count * step // steps
            grown(upto, self.open(upto - before, sample))

    def counts(self) -> dict[str, Any]:
        """What the C application says of itself."""
        found: dict[str, Any] = json.loads(self.app.ask("counts"))
        return found

    def held(self) -> int:
        """Connections of the application's thread now, as janusd sees them."""
        return int(self.janusd.rows("threads")[0]["connections"])

    def bytes_per_connection(self) -> float:
        """What the application's process has grown by since it had none."""
        return (memory_of(self.pid) - self.empty) / self.held()

    def close_all(self) -> int:
        """Have the clients close all; how many they could not.

        A client that was lost on the way is asked again; one that was asked for its numbers shortly before does
        not tell them a second time at once (RFC 5961 7)."""
        for _ in range(8):
            self.janusd.load.do("close")
            time.sleep(2 * SETTLE_SECONDS)
            if self.held() == 0:
                break
        return self.held()

    def settled(self) -> int:
        """Bytes of the application when it gives nothing back any more, or after a minute."""
        least, seen = memory_of(self.pid), time.monotonic()
        end = seen + 60
        while time.monotonic() < min(end, seen + STILL_SECONDS):
            time.sleep(SETTLE_SECONDS)
            if (now := memory_of(self.pid)) < least:
                least, seen = now, time.monotonic()
        return least
