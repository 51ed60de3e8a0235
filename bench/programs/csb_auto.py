"""csb-auto: threads with three times the load of the others, without the automatic mode and with it.

Short connections by bench/load over a veth come at one rate, whatever is answered. A slow handler: one thread takes
three times as long for each. Elephants: four connections that stay, two of them at either of two threads, where they
ask for twice what that thread has of the others. The app's handlers take their time asleep, so that four threads can
be busy on two processors."""

import math
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.framework import Options, Program, Row, make_row
from bench.rig import AppPolicy, Janusd, JanusdConfig, Network, Workdir
from bench.rig.crowd import Stop, crowd
from bench.rig.load import GATEWAY, load_process
from bench.rig.processes import REPO
from janusd.ctl_client import Client

PORT, WORKERS = 8000, 4
EVERY_S, WINDOW = 0.25, 8  # between two samples; samples of 2 s
FLAT, FLAT_AFTER_S = 1.15, 5.0
ELEPHANTS_EACH, ELEPHANT_EVERY_S = 2, 0.02  # of a thread; between two of its requests
RATE = 5000.0
PICTURES = REPO / "build"

Sample = tuple[float, dict[int, float], dict[int, float]]  # when, busy and share by tid


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


def mean_loads(samples: list[Sample]) -> dict[int, float]:
    """Of these samples."""
    return {tid: statistics.mean(busy[tid] for _, busy, _ in samples) for tid in samples[0][1]}


def mean_skew(samples: list[Sample]) -> float:
    """max/mean of the means of these samples."""
    return skew(mean_loads(samples))


@dataclass
class Elephants:
    """Connections that stay at two of the threads, each with a request every ELEPHANT_EVERY_S."""

    tids: list[int]
    errors: int = 0

    def ask(self, sock: socket.socket, stop: Stop) -> None:
        """One of them."""
        due = time.monotonic()
        with sock:
            while not stop.is_set():
                due += ELEPHANT_EVERY_S
                time.sleep(max(0.0, due - time.monotonic()))
                try:
                    sock.sendall(b"Elephant")
                    if not sock.recv(100):
                        raise EOFError
                except (OSError, EOFError):
                    self.errors += 1
                    return


@contextmanager
def herd_at_two_threads(rig: Janusd) -> Iterator[Elephants]:
    """Of many connections ELEPHANTS_EACH of two threads stay, and ask."""
    socks = [rig.network.connect(PORT, timeout=20) for _ in range(16 * WORKERS)]
    at = {c["remote_port"]: c["tid"] for c in rig.ctl("conns")["conns"]}
    by_tid: dict[int, list[socket.socket]] = {}
    for sock in socks:
        by_tid.setdefault(at[sock.getsockname()[1]], []).append(sock)
    herd = Elephants(sorted(by_tid)[:2])
    kept = [sock for tid in herd.tids for sock in by_tid[tid][:ELEPHANTS_EACH]]
    for sock in set(socks) - set(kept):
        sock.close()
    with crowd([partial(herd.ask, sock) for sock in kept]):
        yield herd


@dataclass
class Course:
    """What was seen without the automatic mode, and with it."""

    before: list[Sample]
    after: list[Sample]
    on_at_s: float

    def turns(self) -> int:
        """How often any thread's share, having gone one way by a tenth, went the other way by a tenth."""
        most = 0
        for tid in self.after[0][2]:
            count, way, at = 0, 0, self.after[0][2][tid]
            for _, _, shares in self.after:
                step = math.log(max(shares[tid], 1e-3) / max(at, 1e-3))
                if abs(step) >= 0.1:
                    count += way * step < 0
                    way, at = (1 if step > 0 else -1), shares[tid]
            most = max(most, count)
        return most

    def rows(self) -> list[Row]:
        """How even it became, when, and whether it stayed so."""
        later = [sample for sample in self.after if sample[0] > self.on_at_s + FLAT_AFTER_S]
        even = [mean_skew(later[n : n + WINDOW]) for n in range(0, len(later) - WINDOW + 1, WINDOW)]
        flat = next(
            (
                at - self.on_at_s
                for number, (at, _, _) in enumerate(self.after)
                if mean_skew(self.after[number : number + WINDOW]) < FLAT
            ),
            self.after[-1][0] - self.on_at_s,
        )
        was = [mean_skew(self.before)]
        return [
            make_row("max/mean of 2 s, from 5 s on", "", even, was, higher_is_better=False),
            make_row(f"max/mean of 2 s below {FLAT} after", "s", [flat], higher_is_better=False),
            make_row("turns of a share", "", [self.turns()], higher_is_better=False),
        ]


@contextmanager
def service(claim: str | None) -> Iterator[tuple[Janusd, Path, str]]:
    """janusd and the app; where, and the namespace of the clients. claim: for the slow worker."""
    config = JanusdConfig(apps=(AppPolicy(name="web", ports=(str(PORT),)),), gateway=GATEWAY)
    with Workdir("auto") as workdir, Network("auto", workdir.path) as network:
        claims = workdir.path / "claims"
        claims.mkdir()
        claims.chmod(0o777)
        with Janusd(network, workdir.path, config) as rig:
            env = {"UNEVEN_CLAIM": str(claims / claim)} if claim else {}
            rig.serve("tests.system.apps.uneven:graze", port=PORT, workers=WORKERS, env=env)
            yield rig, workdir.path, network.cli


def course(
    rig: Janusd, where: Path, namespace: str, options: Options, progress: Callable[[str], None]
) -> tuple[Course, list[Row]]:
    """The load at its rate, with the automatic mode off and then on; rows that say what became of it."""
    client, began_s = Client(str(rig.runtime_dir / "ctl.sock")), time.monotonic()
    off_s, on_s = options.seconds(12.0, 8.0), options.seconds(25.0, 12.0)
    found: dict[str, Any] = {}
    with load_process(where, "net_af_packet0,iface=v1", namespace=namespace, port=PORT) as load:
        words = {"seconds": off_s + on_s + 1.0, "warm": 0.5, "rate": RATE}
        short = threading.Thread(target=lambda: found.update(load.measure("run", **words)))
        short.start()
        progress("automatic mode off")
        before = record(client, off_s, began_s)[round(3 / EVERY_S) :]
        progress("automatic mode on")
        client.ask("csb_auto", app="web", on=True)
        on_at_s = time.monotonic() - began_s
        seen = Course(before, record(client, on_s, began_s), on_at_s)
        short.join(60)
    done = max(1, found["completed"])
    return seen, [
        make_row("short connections", "/s", [done / found["seconds"]], higher_is_better=True),
        make_row("of these not answered", "%", [100 * found["lost"] / done], higher_is_better=False),
    ]


def slow_thread(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """One thread that takes three times as long."""
    with service("slow") as (rig, where, namespace):
        seen, rows = course(rig, where, namespace, options, progress)
    progress(draw(seen, "slow-thread", "One thread three times as slow"))
    part = [min(shares.values()) for _, _, shares in seen.after[-20:]]
    rows += [*seen.rows(), make_row("its share", "", part, [1 / WORKERS], higher_is_better=False)]
    return [replace(row, case=f"slow thread: {row.case}") for row in rows]


def elephants(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """Two threads with connections that stay and ask for much."""
    with service(None) as (rig, where, namespace), herd_at_two_threads(rig) as herd:
        alone = mean_loads(record(Client(str(rig.runtime_dir / "ctl.sock")), 4.0, 0.0)[round(2 / EVERY_S) :])
        seen, rows = course(rig, where, namespace, options, progress)
    if herd.errors:
        raise RuntimeError(f"{herd.errors} elephants were reset or not answered")
    progress(draw(seen, "elephants", "Two of four threads have elephants that ask for twice the rest"))
    everything = mean_loads(seen.after[-2 * WINDOW :])
    least = max(1.0, max(alone.values()) * WORKERS / sum(everything.values()))
    part = [sum(shares[tid] for tid in herd.tids) for _, _, shares in seen.after[-20:]]
    rows += [
        *seen.rows(),
        make_row("max/mean that they leave possible", "", [least], higher_is_better=False),
        make_row("share of their threads", "", part, [0.5], higher_is_better=False),
    ]
    return [replace(row, case=f"elephants: {row.case}") for row in rows]


def run(options: Options, progress: Callable[[str], None]) -> Sequence[Row]:
    """Both cases, with a picture each."""
    return [*slow_thread(options, progress), *elephants(options, progress)]


def draw(seen: Course, name: str, title: str) -> str:
    """The load of each thread over time as a picture; says where it is, or why there is none."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return "no picture: matplotlib is not installed (make .venv/.bench)"
    samples = [*seen.before, *seen.after]
    figure, (load, part) = pyplot.subplots(2, 1, sharex=True, figsize=(9, 6))
    for tid in sorted(samples[0][1]):
        load.plot([at for at, _, _ in samples], [busy[tid] for _, busy, _ in samples], label=f"thread {tid}")
        part.plot([at for at, _, _ in samples], [shares[tid] for _, _, shares in samples])
    for axes, text in ((load, "busy, part of its time"), (part, "part of new connections")):
        axes.axvline(seen.on_at_s, color="grey", linestyle=":")
        axes.set_ylabel(text)
        axes.set_ylim(bottom=0)
    load.set_title(f"{title}\nThe automatic mode is switched on at the dotted line")
    load.legend(loc="upper right")
    part.set_xlabel("seconds")
    PICTURES.mkdir(exist_ok=True)
    path = PICTURES / f"csb-auto-{name}.png"
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return f"drawn: {path.relative_to(REPO)}"


PROGRAM = Program(
    "csb-auto",
    "evening a skew of three to one: a slow thread; a few connections that stay and ask for much",
    run,
    notes=(
        "busy is what csb show says: of about the last second. 5,000 short connections/s, one request of 0.1 ms",
        "(asleep, some 0.16), at the slow thread 0.5 ms. Elephants: two kernel connections at either of two threads, a",
        "request of 4 ms each 20 ms. They cannot be moved, so others' newcomers are sent elsewhere: what they leave",
        "possible is their own load on one thread, measured alone, to the mean of all. Turns: changes of a share's",
        "direction by a tenth.",
    ),
)
