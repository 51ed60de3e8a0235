"""cps: connections per second with the whole server on one processor, over each wire, and what an overload
leaves of them."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial

from bench.conns import Server, check_privileges, condition_rows, conditions, janus, linux, measured
from bench.framework import Options, Program, Row, alternate, make_row

WINDOW = 512
WIRES = ("ring", "memif", "veth")
SERVERS: Mapping[str, Callable[[], AbstractContextManager[Server]]] = {
    **{wire: partial(janus, wire) for wire in WIRES},
    "linux": linux,
}


def measure(
    make: Callable[[], AbstractContextManager[Server]], size: int, seconds: float
) -> dict[str, float]:
    """One server's rate in a closed loop, by second and by second of its processor, and its goodput when twice
    as many connections come as it can serve: of the rates before and after, since a host may change in between."""
    with make() as server:
        result, spent = measured(server, "run", seconds=seconds, window=WINDOW, bytes=size)
        rate = result["completed"] / result["seconds"]
        flood = server.load.measure("run", seconds=seconds, window=0, rate=2 * rate, bytes=size)
        after = server.load.measure("run", seconds=seconds, window=WINDOW, bytes=size)
    around = (rate + after["completed"] / after["seconds"]) / 2
    granted = conditions()
    return {
        "rate": rate,
        **granted,
        "per_cpu": rate * result["seconds"] / spent["cpu"],
        "lost": 100.0 * result["lost"] / max(result["opened"], 1),
        "goodput": 100.0 * flood["completed"] / flood["seconds"] / around,
    }


def run(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """The whole program."""
    check_privileges()
    seconds, runs = options.seconds(2.0, 0.5), options.runs(5, 2)
    contenders = {name: partial(measure, make, 64, seconds) for name, make in SERVERS.items()}
    samples = alternate(contenders, runs, progress)
    base = samples["linux"]
    rows = []
    for name in SERVERS:
        other = base["per_cpu"] if name != "linux" else None
        case = f"{name} 64 B"
        rows.append(
            make_row(case, "connections/s of CPU", samples[name]["per_cpu"], other, higher_is_better=True)
        )
        rows.append(
            make_row(f"{case}, lost", "% of connections", samples[name]["lost"], higher_is_better=False)
        )
        rows.append(
            make_row(
                f"{case}, twice the load", "% of the rate", samples[name]["goodput"], higher_is_better=True
            )
        )
    return [*rows, *condition_rows(samples["ring"])]


PROGRAM = Program(
    "cps",
    "short connections a second and a server's processor: rings, memif, veth, against epoll on the same veth",
    run,
    notes=(
        "A connection: handshake, 64 B request and the echo, FIN both ways; the load is the same, on the other CPU.",
        "I/O thread and TCP thread share one CPU (mode yield); Linux: user, system and softirq of that CPU.",
        "The wires differ: on a veth the sender's kernel works for both ends and each frame costs about 2 us, so",
        "only the row veth compares the stacks alone; ring and memif show what the stack does without a kernel.",
        "The host moves the CPUs: where a line takes 1,200 cycles there and back and not 200, rings give 0.7 as much.",
        "Peers over memif with all on one CPU, measured apart: mTCP 225,000, F-Stack 134,000, lwIP 75,000.",
    ),
)
