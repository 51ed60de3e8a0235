"""csb-auto: a thread that is three times as slow as the others, without the automatic mode and with it.

Kernel clients come and go over a veth; each sends three requests. The app's handlers take their time asleep, so that
four threads can be busy on two processors."""

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.framework import Options, Program, Row, make_row
from bench.rig import AppPolicy, Janusd, JanusdConfig, Network, Workdir
from bench.rig.processes import REPO
from janusd.ctl_client import Client

PORT, WORKERS, CLIENTS, REQUESTS = 8000, 4, 8, 3
EVERY_S = 0.25
PICTURE = REPO / "build" / "csb-auto.png"

Sample = tuple[float, dict[int, float], dict[int, float]]  # when, busy and share by tid


class Visitors:
    """Clients that come and go."""

    def __init__(self, rig: Janusd) -> None:
        self._rig = rig
        self._stop = threading.Event()
        self.connections, self.errors = 0, 0
        self._threads = [threading.Thread(target=self._come_and_go) for _ in range(CLIENTS)]

    def __enter__(self) -> "Visitors":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _come_and_go(self) -> None:
        while not self._stop.is_set():
            try:
                with self._rig.network.connect(PORT, timeout=20) as sock:
                    for _ in range(REQUESTS):
                        sock.sendall(b"hello")
                        while not sock.recv(5):
                            raise EOFError
                self.connections += 1
            except (OSError, EOFError):
                self.errors += 1


def record(client: Client, seconds: float, began_s: float) -> list[Sample]:
    """Busy parts and shares, EVERY_S apart."""
    samples: list[Sample] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        [shown] = client.ask("csb_show", app="web")
        threads: list[dict[str, Any]] = shown["threads"]
        busy = {t["tid"]: t["busy"] for t in threads}
        samples.append((time.monotonic() - began_s, busy, {t["tid"]: t["share"] for t in threads}))
        time.sleep(EVERY_S)
    return samples


def skew(busy: Mapping[int, float]) -> float:
    """max/mean."""
    return max(busy.values()) * len(busy) / max(1e-9, sum(busy.values()))


def mean_skew(samples: list[Sample]) -> float:
    """max/mean of the means of these samples."""
    return skew({tid: statistics.mean(busy[tid] for _, busy, _ in samples) for tid in samples[0][1]})


def run(options: Options, progress: Callable[[str], None]) -> Sequence[Row]:
    """Off, then on; the picture shows both."""
    off_s, on_s = options.seconds(12.0, 8.0), options.seconds(25.0, 12.0)
    config = JanusdConfig(apps=(AppPolicy(name="web", ports=("8000",)),))
    with Workdir("auto") as workdir, Network("auto", workdir.path) as network:
        claims = workdir.path / "claims"
        claims.mkdir()
        claims.chmod(0o777)
        with Janusd(network, workdir.path, config) as rig:
            env = {"UNEVEN_CLAIM": str(claims / "slow")}
            rig.serve("tests.system.apps.uneven:handle", port=PORT, workers=WORKERS, env=env)
            client, began_s = Client(str(rig.runtime_dir / "ctl.sock")), time.monotonic()
            with Visitors(rig) as visitors:
                progress("automatic mode off")
                before = record(client, off_s, began_s)[round(3 / EVERY_S) :]
                before_count, before_s = visitors.connections, time.monotonic()
                progress("automatic mode on")
                client.ask("csb_auto", app="web", on=True)
                on_at_s = time.monotonic() - began_s
                after = record(client, on_s, began_s)
                after_rate = (visitors.connections - before_count) / (time.monotonic() - before_s)
    if visitors.errors:
        raise RuntimeError(f"{visitors.errors} clients were reset or not answered")
    progress(draw(before, after, on_at_s))
    even = [skew(busy) for at, busy, _ in after if at > on_at_s + 5]
    uneven = [skew(busy) for _, busy, _ in before]
    flat = next(
        (
            at - on_at_s
            for number, (at, _, _) in enumerate(after)
            if mean_skew(after[number : number + 8]) < 1.15
        ),
        on_s,
    )
    return [
        make_row("max/mean from 5 s on", "", even, uneven, higher_is_better=False),
        make_row("max/mean of 2 s below 1.15 after", "s", [flat], higher_is_better=False),
        make_row(
            "connections", "/s", [after_rate], [before_count / (before_s - began_s)], higher_is_better=True
        ),
        make_row("share of the slow thread", "", [min(shares.values()) for _, _, shares in after[-20:]],
                 [statistics.mean(shares.values()) for _, _, shares in before], higher_is_better=True),
    ]  # fmt: skip


def draw(before: list[Sample], after: list[Sample], on_at_s: float) -> str:
    """The load of each thread over time as a picture; says where it is, or why there is none."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return "no picture: matplotlib is not installed"
    samples = [*before, *after]
    figure, (load, part) = pyplot.subplots(2, 1, sharex=True, figsize=(9, 6))
    for tid in sorted(samples[0][1]):
        load.plot([at for at, _, _ in samples], [busy[tid] for _, busy, _ in samples], label=f"thread {tid}")
        part.plot([at for at, _, _ in samples], [shares[tid] for _, _, shares in samples])
    for axes, text in ((load, "busy, part of its time"), (part, "part of new connections")):
        axes.axvline(on_at_s, color="grey", linestyle=":")
        axes.set_ylabel(text)
        axes.set_ylim(bottom=0)
    load.set_title("One thread three times as slow; the automatic mode is switched on at the dotted line")
    load.legend(loc="upper right")
    part.set_xlabel("seconds")
    Path(PICTURE).parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=110)
    pyplot.close(figure)
    return f"drawn: {PICTURE.relative_to(REPO)}"


PROGRAM = Program(
    "csb-auto",
    "evening the load of a slow thread while clients come and go",
    run,
    notes=(
        "busy is what csb show says: of about the last second. The clients are kernel sockets on a veth, in Python.",
        "four threads, handlers of 1 ms a request, of one thread 3 ms; connections of three requests.",
    ),
)
