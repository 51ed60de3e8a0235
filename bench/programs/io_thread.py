"""io-thread: packets a second that one I/O thread takes from a ring port into an app's ring."""

from collections.abc import Callable

from bench.conns import check_privileges, condition_rows, conditions, janus, measured
from bench.framework import Options, Program, Row, alternate, make_row
from bench.machine import cycles_per_second


def measure(seconds: float) -> dict[str, float]:
    """By the cycles of its busy turns, which receive and do nothing else: nobody answers these segments."""
    with janus("ring") as server:
        result, spent = measured(server, "blast", seconds=seconds)
    granted = conditions()
    cycles = spent["io_busy_cycles"] / max(spent["rx_packets"], 1)
    return {
        "rate": cycles_per_second() / cycles / 1e6,
        "cycles": cycles,
        "offered": result["tx_packets"] / result["seconds"] / 1e6,
        "feeder": result["busy_cycles"] / max(result["tx_packets"], 1),
        **granted,
    }


def run(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """The whole program."""
    check_privileges()
    seconds, runs = options.seconds(2.0, 0.5), options.runs(5, 2)
    samples = alternate({"ring": lambda: measure(seconds)}, runs, progress)["ring"]
    return [
        make_row(
            "64 B frames, burst to ring, a busy core", "Mpackets/s", samples["rate"], higher_is_better=True
        ),
        make_row("the same", "cycles/packet", samples["cycles"], higher_is_better=False),
        make_row("offered by the feeder", "Mpackets/s", samples["offered"], higher_is_better=True),
        make_row("the feeder's own", "cycles/packet", samples["feeder"], higher_is_better=False),
        *condition_rows(samples),
    ]


PROGRAM = Program(
    "io-thread",
    "packets a second of the I/O thread alone: all checks, keyed hash, balancer, copy into the app's memory",
    run,
    notes=(
        "Resets of nothing, checksums verified in software; cycles of the I/O thread's busy turns for each packet",
        "delivered, so that the app beside it on the same CPU does not count. A busy core is reckoned from them: the",
        "feeder on the other CPU gives less, and a turn takes what it has. The paper's whole machine: 7.6.",
        "The host moves the two CPUs: with each other's lines further away a packet costs half as much again.",
    ),
)
