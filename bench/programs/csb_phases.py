"""csb-phases: how long each phase of an update takes in the live system, at rest and under load."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from bench.framework import Options, Program, Row, make_row
from bench.rig import AppPolicy, Janusd, JanusdConfig, Network, Workdir
from bench.rig.crowd import Stop, crowd
from bench.rig.network import set_in
from janusd.ctl_client import Client

PORT, WORKERS, HELD = 8000, 3, 200
CLIENTS, REQUESTS = 8, 3
WEIGHTS = ({"0": 3.0}, {"0": 0.0, "1": 2.0}, {"0": 1.0, "1": 1.0}, {"2": 5.0}, {"2": 1.0})
PHASES = ("collect", "drain", "seal", "publish", "open")


@dataclass
class Visitors:
    """Clients that come and go."""

    rig: Janusd
    errors: int = 0

    def come_and_go(self, stop: Stop) -> None:
        """One client after the other."""
        while not stop.is_set():
            try:
                with self.rig.network.connect(PORT, timeout=20) as sock:
                    for _ in range(REQUESTS):
                        sock.sendall(b"hello")
                        while not sock.recv(5):
                            raise EOFError
            except (OSError, EOFError):
                self.errors += 1


@contextmanager
def held(name: str, count: int = HELD) -> Iterator[Janusd]:
    """janusd with WORKERS threads of an echo, and so many connections that stay."""
    config = JanusdConfig(apps=(AppPolicy(name="web", ports=(str(PORT),)),))
    with Workdir(name) as workdir, Network(name, workdir.path) as network:
        set_in(network.cli, "net.ipv4.ip_local_port_range", "1024 65000")
        with Janusd(network, workdir.path, config) as rig, ExitStack() as stack:
            rig.serve("tests.system.apps.census:handle", port=PORT, workers=WORKERS)
            for _ in range(count):
                stack.enter_context(rig.network.connect(PORT))
            yield rig


def updates(client: Client, count: int) -> dict[str, list[float]]:
    """Run updates one after the other; milliseconds by phase, and of those in which newcomers wait."""
    found: dict[str, list[float]] = {phase: [] for phase in (*PHASES, "drain and seal", "all")}
    for _, weights in zip(range(count), cycle(WEIGHTS), strict=False):
        took = client.ask("csb_set", app="web", weights=weights)["phases_ms"]
        for phase in PHASES:
            found[phase].append(took[phase])
        found["drain and seal"].append(took["drain"] + took["seal"])
        found["all"].append(sum(took.values()))
    return found


def rows(found: dict[str, list[float]], when: str) -> list[Row]:
    """p50, p99 and the worst of each phase."""
    made: list[Row] = []
    for phase, values in found.items():
        values.sort()
        for name, value in (("p50", 0.5), ("p99", 0.99), ("worst", 1.0)):
            at = values[min(len(values) - 1, int(len(values) * value))]
            made.append(make_row(f"{phase}, {when}: {name}", "ms", [at], higher_is_better=False))
    return made


def hasten(pid: int) -> None:
    """Real-time priority for all threads of a process: they do not wait for others' slices any more."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setscheduler(int(task.name), os.SCHED_FIFO, os.sched_param(1))


def run(options: Options, progress: Callable[[str], None]) -> Sequence[Row]:
    """At rest, while clients come and go, and so with real-time priority for all threads of the server."""
    count = options.runs(500, 100)
    with held("phases") as rig:
        client = Client(str(rig.runtime_dir / "ctl.sock"))
        progress(f"{count} updates at rest")
        made = rows(updates(client, count), "at rest")
        visitors = Visitors(rig)
        with crowd([visitors.come_and_go] * CLIENTS):
            progress(f"{count} updates while clients come and go")
            made += rows(updates(client, count), "under load")
            progress(f"{count} updates with real-time priority")
            for pid in (rig.process.pid, *(t["pid"] for t in rig.rows("threads"))):
                hasten(pid)
            made += rows(updates(client, count), "real-time")
        if visitors.errors:
            raise RuntimeError(f"{visitors.errors} clients were reset or not answered")
    return made


PROGRAM = Program(
    "csb-phases",
    "how long each phase of an update takes in the live system",
    run,
    notes=(
        f"{WORKERS} TCP threads of an echo in Python, {HELD} connections held, updates one after the other over the",
        "control API. Under load: eight kernel clients in Python come and go over a veth, which keeps two",
        "processors busy: then a phase waits for its threads' turns of the processor. Real-time: the same with",
        "SCHED_FIFO for all threads of janusd and of the app. Newcomers wait from drain to publish.",
    ),
)
