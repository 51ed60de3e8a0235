"""Runs seeds in child processes, so that a seed that crashes the core is a failure like others."""

import mmap
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent

COUNTS = (
    "packets", "virtual_us", "steps", "lost", "doubled", "damaged", "overtaken", "queue_full", "recut",
    "bytes_received", "pairs_done", "errors", "resets_sent", "retransmitted", "timeouts",
    "fast_retransmits", "out_of_order", "cookies", "marked", "ecn_reductions",
)  # fmt: skip


def native() -> Any:
    """The simulator's native module, of the build that JANUS_NATIVE names."""
    directory = str(ROOT / os.environ.get("JANUS_NATIVE", "build/check/native"))
    if directory not in sys.path:
        sys.path.insert(0, directory)
    try:
        import _sim  # type: ignore[import-not-found]
    except ModuleNotFoundError as error:
        raise SystemExit(f"no simulator in {directory}: run `make native` first ({error})") from None

    return _sim


@dataclass
class Outcome:
    """What one run of one seed came to."""

    seed: int
    failure: str | None
    trace_hash: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)


def outcome_of(sim: Any, result: Any) -> Outcome:
    """The C result as a value."""
    drops = {}
    for reason, count in enumerate(result.dropped):
        if count and reason:
            name = sim.lib.tcp_drop_name(reason)
            drops["no_rx_slot" if name == sim.ffi.NULL else sim.ffi.string(name).decode()] = count
    failure = sim.ffi.string(result.text).decode() if result.failed else None
    counts = {name: getattr(result, name) for name in COUNTS}
    return Outcome(result.seed, failure, result.trace_hash, counts, drops)


def run_here(seed: int, *, check_every: int = 0, trace: bool = False) -> Outcome:
    """Run one seed in this process; check_every 1: all invariants after each packet, 0: as the seed says."""
    sim = native()
    result = sim.ffi.new("struct sim_result *")
    sim.lib.sim_run_seed(seed, check_every, result, trace)
    return outcome_of(sim, result)


def _child(seeds: list[int], shared: mmap.mmap, check_every: int, twice: bool) -> None:
    sim = native()
    size = sim.ffi.sizeof("struct sim_result")
    block = sim.ffi.from_buffer(shared)
    for position, seed in enumerate(seeds):
        shared[:8] = position.to_bytes(8, "little")
        result = sim.ffi.cast("struct sim_result *", block + 16 + position * size)
        sim.lib.sim_run_seed(seed, check_every, result, False)
        if twice and not result.failed:
            again = sim.ffi.new("struct sim_result *")
            sim.lib.sim_run_seed(seed, check_every, again, False)
            if again.trace_hash != result.trace_hash:
                result.failed = True
                result.text = b"two runs of this seed sent different packets"


def run_many(
    seeds: Iterable[int], *, check_every: int = 0, twice: bool = False, chunk: int = 200
) -> Iterator[Outcome]:
    """Run the seeds in child processes, chunk by chunk, and yield each outcome."""
    waiting = list(seeds)
    sim = native()
    size = sim.ffi.sizeof("struct sim_result")
    while waiting:
        now, waiting = waiting[:chunk], waiting[chunk:]
        shared = mmap.mmap(-1, 16 + size * len(now))
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            try:
                _child(now, shared, check_every, twice)
            except BaseException:
                os._exit(1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        done = len(now) if status == 0 else int.from_bytes(shared[:8], "little")
        for position in range(done):
            data = shared[16 + position * size : 16 + (position + 1) * size]
            yield outcome_of(sim, sim.ffi.from_buffer("struct sim_result *", data))
        if status != 0:
            how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            yield Outcome(now[done], f"crashed: {how} (an assertion, tcp_check() or a sanitizer; see above)")
            waiting = now[done + 1 :] + waiting
