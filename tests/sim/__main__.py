"""python -m tests.sim --seeds N: runs N seeds, prints those that fail; --seed S: runs one, with its trace."""

import argparse
import sys
import time
from collections import Counter

from tests.sim import runner


def describe(sim: object, seed: int) -> str:
    """The knobs that a seed draws, one a line."""
    knobs = sim.ffi.new("struct sim_knobs *")  # type: ignore[attr-defined]
    sim.lib.sim_draw(seed, knobs)  # type: ignore[attr-defined]
    lines = []
    for name, _ in sim.ffi.typeof("struct sim_knobs").fields:  # type: ignore[attr-defined]
        value = getattr(knobs, name)
        if name == "faults":
            value = {n: getattr(value, n) for n, _ in sim.ffi.typeof("struct wire_faults").fields}  # type: ignore[attr-defined]
        elif name == "mtu":
            value = list(value)
        lines.append(f"  {name} = {value}")
    return "\n".join(lines)


def one(seed: int, check_every: int, campaign: runner.Campaign) -> int:
    """Run one seed with a trace of every packet."""
    print(f"SEED={seed}", flush=True)
    if campaign is runner.PAIR:
        print(describe(campaign.native(), seed), flush=True)
    outcome = runner.run_here(seed, check_every=check_every, trace=True, campaign=campaign)
    print(outcome.counts, outcome.drops)
    print(f"SEED={seed} trace hash {outcome.trace_hash:016x}:", outcome.failure or "passed")
    return int(outcome.failure is not None)


def many(first: int, count: int, check_every: int, twice: bool, campaign: runner.Campaign) -> int:
    """Run a range of seeds, print failures and a summary."""
    begun = time.monotonic()
    failures = 0
    totals: Counter[str] = Counter()
    drops: Counter[str] = Counter()
    seeds = range(first, first + count)
    for outcome in runner.run_many(seeds, check_every=check_every, twice=twice, campaign=campaign):
        totals.update(outcome.counts)
        drops.update(outcome.drops)
        if outcome.failure:
            failures += 1
            print(f"SEED={outcome.seed} {outcome.failure}", flush=True)
    seconds = time.monotonic() - begun
    print(f"{count} seeds, {failures} failed, {seconds:.1f} s, {count / seconds:.0f} seeds/s")
    print("  " + ", ".join(f"{name} {value:,}" for name, value in totals.items()))
    print("  dropped: " + ", ".join(f"{name} {value:,}" for name, value in sorted(drops.items())))
    return int(failures > 0)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--seed", type=int, help="run this one alone and print its packets")
    parser.add_argument(
        "--check-every",
        type=int,
        default=0,
        help="check all invariants every so many steps; 1: after each packet",
    )
    parser.add_argument("--twice", action="store_true", help="run each twice and compare the trace hashes")
    parser.add_argument(
        "--campaign", choices=runner.CAMPAIGNS, default="pair", help="two cores, or one against adversaries"
    )
    args = parser.parse_args()
    campaign = runner.CAMPAIGNS[args.campaign]
    if args.seed is not None:
        return one(args.seed, args.check_every, campaign)
    return many(args.first, args.seeds, args.check_every, args.twice, campaign)


if __name__ == "__main__":
    sys.exit(main())
