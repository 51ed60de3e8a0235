"""python -m tests.sim.soak [--seeds N] [--state FILE]: both campaigns, seed after seed, until N are run.

It goes on where it was stopped: FILE keeps the next seed of each campaign and the seeds that failed.  `make soak
SEEDS=5000000` is this; one process for each processor."""

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.sim.runner import CAMPAIGNS, ROOT, run_many

STRIDE = 2000


def stretch(name: str, first: int, count: int) -> list[tuple[int, str]]:
    """Seeds from first on; those that fail, with what they say."""
    outcomes = run_many(range(first, first + count), campaign=CAMPAIGNS[name])
    return [(o.seed, o.failure) for o in outcomes if o.failure is not None]


def load(path: Path) -> dict[str, dict[str, object]]:
    """What an earlier run has left."""
    if path.exists():
        state: dict[str, dict[str, object]] = json.loads(path.read_text())
        return state
    return {name: {"next": 1, "failed": {}} for name in CAMPAIGNS}


def soak(name: str, seeds: int, state: dict[str, dict[str, object]], path: Path) -> None:
    """One campaign to its end, a stretch for each processor at a time."""
    mine = state[name]
    failed = mine["failed"]
    assert isinstance(failed, dict)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        while (first := int(str(mine["next"]))) <= seeds:
            begun = time.monotonic()
            starts = [s for s in range(first, first + STRIDE * (os.cpu_count() or 1), STRIDE) if s <= seeds]
            counts = [min(STRIDE, seeds + 1 - s) for s in starts]
            for found in pool.map(stretch, [name] * len(starts), starts, counts):
                for seed, text in found:
                    failed[str(seed)] = text
                    print(f"{name} SEED={seed} {text}", flush=True)
            mine["next"] = starts[-1] + counts[-1]
            path.write_text(json.dumps(state, indent=1))
            speed = sum(counts) / (time.monotonic() - begun)
            print(f"{name}: {mine['next']} next, {len(failed)} failed, {speed:.0f} seeds/s", flush=True)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.soak", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000_000, help="of each campaign (default 1,000,000)")
    parser.add_argument("--state", type=Path, default=ROOT / "build" / "soak.json")
    args = parser.parse_args()
    state = load(args.state)
    args.state.parent.mkdir(parents=True, exist_ok=True)
    for name in CAMPAIGNS:
        soak(name, args.seeds, state, args.state)
    failures = sum(len(c["failed"]) for c in state.values())  # type: ignore[arg-type]
    print(f"{args.seeds} seeds of each campaign, {failures} failed; {args.state} has them")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
