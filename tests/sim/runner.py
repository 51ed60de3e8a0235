"""Runs seeds in child processes, so that a seed that crashes the core is a failure like others."""

import importlib
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
    "fast_retransmits", "out_of_order", "in_runs", "cookies", "marked", "ecn_reductions",
)  # fmt: skip


ADVERSARY_COUNTS = (
    "virtual_us", "steps", "sent", "delivered", "done", "ended", "died", "retransmitted", "timeouts", "challenges",
)  # fmt: skip


@dataclass(frozen=True)
class Campaign:
    """A simulator: its native module, the struct of a result, the function that runs a seed."""

    module: str
    struct: str
    function: str
    counts: tuple[str, ...]

    def native(self) -> Any:
        """The module, of the build that JANUS_NATIVE names."""
        directory = str(ROOT / os.environ.get("JANUS_NATIVE", "build/check/native"))
        if directory not in sys.path:
            sys.path.insert(0, directory)
        try:
            return importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            raise SystemExit(f"no simulator in {directory}: run `make native` first ({error})") from None

    def run(self, native: Any, seed: int, check_every: int, result: Any, trace: bool = False) -> None:
        """One seed."""
        getattr(native.lib, self.function)(seed, check_every, result, trace)


PAIR = Campaign("_sim", "struct sim_result", "sim_run_seed", COUNTS)
ADVERSARY = Campaign("_adversary", "struct adversary_result", "adversary_run", ADVERSARY_COUNTS)
CAMPAIGNS = {"pair": PAIR, "adversary": ADVERSARY}


@dataclass
class Outcome:
    """What one run of one seed came to."""

    seed: int
    failure: str | None
    trace_hash: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    drops: dict[str, int] = field(default_factory=dict)


def outcome_of(campaign: Campaign, native: Any, result: Any) -> Outcome:
    """The C result as a value."""
    drops = {}
    for reason, count in enumerate(getattr(result, "dropped", ())):
        if count and reason:
            name = native.lib.tcp_drop_name(reason)
            drops["no_rx_slot" if name == native.ffi.NULL else native.ffi.string(name).decode()] = count
    failure = native.ffi.string(result.text).decode() if result.failed else None
    counts = {name: getattr(result, name) for name in campaign.counts}
    for vice, count in enumerate(getattr(result, "vices", ())):
        counts[native.ffi.string(native.lib.vice_name(vice)).decode()] = count
    return Outcome(result.seed, failure, result.trace_hash, counts, drops)


def run_here(seed: int, *, check_every: int = 0, trace: bool = False, campaign: Campaign = PAIR) -> Outcome:
    """Run one seed in this process; check_every 1: all invariants after each packet, 0: as the seed says."""
    native = campaign.native()
    result = native.ffi.new(f"{campaign.struct} *")
    campaign.run(native, seed, check_every, result, trace)
    return outcome_of(campaign, native, result)


def _child(campaign: Campaign, seeds: list[int], shared: mmap.mmap, check_every: int, twice: bool) -> None:
    native = campaign.native()
    size = native.ffi.sizeof(campaign.struct)
    block = native.ffi.from_buffer(shared)
    for position, seed in enumerate(seeds):
        shared[:8] = position.to_bytes(8, "little")
        result = native.ffi.cast(f"{campaign.struct} *", block + 16 + position * size)
        campaign.run(native, seed, check_every, result)
        if twice and not result.failed:
            again = native.ffi.new(f"{campaign.struct} *")
            campaign.run(native, seed, check_every, again)
            if again.trace_hash != result.trace_hash:
                result.failed = True
                result.text = b"two runs of this seed sent different packets"


def run_many(
    seeds: Iterable[int],
    *,
    check_every: int = 0,
    twice: bool = False,
    chunk: int = 200,
    campaign: Campaign = PAIR,
) -> Iterator[Outcome]:
    """Run the seeds in child processes, chunk by chunk, and yield each outcome."""
    waiting = list(seeds)
    native = campaign.native()
    size = native.ffi.sizeof(campaign.struct)
    while waiting:
        now, waiting = waiting[:chunk], waiting[chunk:]
        shared = mmap.mmap(-1, 16 + size * len(now))
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            try:
                _child(campaign, now, shared, check_every, twice)
            except BaseException:
                os._exit(1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        done = len(now) if status == 0 else int.from_bytes(shared[:8], "little")
        for position in range(done):
            data = shared[16 + position * size : 16 + (position + 1) * size]
            yield outcome_of(campaign, native, native.ffi.from_buffer(f"{campaign.struct} *", data))
        if status != 0:
            how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
            yield Outcome(now[done], f"crashed: {how} (an assertion, tcp_check() or a sanitizer; see above)")
            waiting = now[done + 1 :] + waiting
