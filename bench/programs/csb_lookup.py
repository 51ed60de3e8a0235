"""csb-lookup: which thread gets a packet, after 6 % of the circle has moved: the printed form and Janus's.

Packets of all streams in random order, on one core; from ready keys, and from 4-tuples with the keyed hash."""

from collections.abc import Callable

from bench.csb_build import build, measure, size_name
from bench.framework import Options, Program, Row, make_row

SIZES = (1_000_000, 4_000_000, 10_000_000, 20_000_000, 40_000_000)
QUICK_SIZES = (1_000_000, 4_000_000)
PEERS = {"maglev": "Maglev, all tracked", "jet": "Maglev, 1/16 tracked as JET"}


def run(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """The whole program."""
    program = build("csb_fresh")
    rows: list[Row] = []
    for streams in QUICK_SIZES if options.quick else SIZES:
        size = size_name(streams)
        progress(f"{size} streams")
        packets = min(32 * streams, options.runs(32, 4) << 20)
        found = measure([program, "lookup", str(streams), str(packets), str(options.runs(5, 3))])
        janus, faithful = found["janus"], found["faithful"]
        for case in ("ready", "tuple"):
            row = make_row(f"{case} {size}", "lookups/s", janus[case], faithful[case], higher_is_better=True)
            rows.append(row)
        for peer, name in PEERS.items():
            samples = found[peer]["ready"]
            rows.append(
                make_row(
                    f"ready {size} / {name}", "lookups/s", janus["ready"], samples, higher_is_better=True
                )
            )
            rows.append(
                make_row(f"opening {size}: {name}", "ns", found[peer]["opening"], higher_is_better=False)
            )
        for form, name in ({"faithful": "as printed"} | PEERS).items():
            ours, theirs = ([b / streams for b in found[f]["bytes"]] for f in ("janus", form))
            rows.append(
                make_row(f"memory {size} / {name}", "B/connection", ours, theirs, higher_is_better=False)
            )
        wrong = janus["misdirected"], faithful["misdirected"]
        rows.append(make_row(f"misdirected {size}", "streams", *wrong, higher_is_better=False))
    return rows


PROGRAM = Program(
    "csb-lookup",
    "the balancer's lookup, fresh after one reweight, against the paper's form as printed",
    run,
    notes=(
        "16 tids, 16 random points each, the same circle in both forms; 6 % of it moved; BF sized for all streams",
        "at 1e-4 (13 murmur3 hashes); min(32 per stream, 32 Mi) packets in random order, with --quick 4 Mi and",
        "sizes up to 4M; tuples: 4 Mi, of other streams. The faithful form looks at one key at a time, as printed.",
        "Maglev and JET: inner loops written for this comparison, not those systems. Opening: what they pay for each",
        "new connection; Janus pays nothing there, but an update walks all connections (csb-adjust).",
    ),
)
