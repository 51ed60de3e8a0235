"""tcp-congestion: goodput of one bulk sender over a path with a bottleneck, CUBIC and BBR of Janus beside the kernel's.

The same relay makes both paths: a line of 20 Mbit/s, a drop-tail queue, half of the round trip each way, and
random loss of what the sender sends.  What a kernel receiver gets within a fixed time from connect() on counts, so
slow start does, too: CUBIC against CUBIC, BBR against CUBIC, BBR against BBR where the kernel has it.  The second
part puts two flows on one path and prints Jain's index of their shares: CUBIC or BBR beside the kernel's CUBIC, and
two with BBR.  --quick measures the first part's corners only."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

from bench.framework import Options, Program, Row, alternate, make_row
from bench.rig import Impairment, Janusd, Network, Workdir
from bench.rig.janusd import AppPolicy, JanusdConfig
from bench.rig.network import RIVAL_ADDRESS, SERVER_ADDRESS

PORT, BBR_PORT = 8000, 8001
CONTROLS = {PORT: "cubic", BBR_PORT: "bbr"}
RATE_KBPS = 20_000
ROUND_TRIPS_MS = (10, 50, 100)
LOSSES_PPM = (0, 1_000, 10_000, 30_000)
BUFFERS_BDP = (0.5, 2.0)
BLOCK = os.urandom(1 << 16)
HANDLER = "bench.pour:handle"


@dataclass(frozen=True)
class Cell:
    """One path."""

    rtt_ms: int
    loss_ppm: int
    buffer_bdp: float

    @property
    def bdp_bytes(self) -> int:
        return RATE_KBPS * self.rtt_ms // 8

    def settings(self, seed: int) -> dict[str, int]:
        """Of the relay."""
        return {
            "rate_kbps": RATE_KBPS,
            "queue_bytes": max(int(self.bdp_bytes * self.buffer_bdp), 3 * 1514),
            "delay_us": self.rtt_ms * 500,
            "loss_ppm": self.loss_ppm,
            "one_way": 1,
            "seed": seed,
        }

    def __str__(self) -> str:
        return f"{self.rtt_ms} ms, loss {self.loss_ppm / 10_000:g} %, buffer {self.buffer_bdp:g} BDP"


def cells(quick: bool) -> list[Cell]:
    """What is measured."""
    rtts = (10, 100) if quick else ROUND_TRIPS_MS
    losses = (0, 10_000) if quick else LOSSES_PPM
    return [Cell(rtt, loss, buffer) for rtt in rtts for buffer in BUFFERS_BDP for loss in losses]


def pour(listener: socket.socket) -> None:
    """A kernel server that sends to whoever connects until he goes."""

    def send(sock: socket.socket) -> None:
        with sock:
            try:
                while True:
                    sock.sendall(BLOCK)
            except OSError:
                return

    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=send, args=(sock,), daemon=True).start()


@contextmanager
def kernel_sender(network: Network, namespace: str, address: str, port: int = PORT) -> Iterator[None]:
    """The kernel's, with the port's congestion control."""

    def listen() -> socket.socket:
        made = socket.socket()
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, CONTROLS[port].encode())
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        made.listen()
        return made

    listener = network.inside(namespace, listen)
    thread = threading.Thread(target=pour, args=(listener,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def receive(sock: socket.socket, until: float) -> int:
    """Bytes that come before then."""
    room, count = bytearray(1 << 18), 0
    while (left := until - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            got = sock.recv_into(room)
        except TimeoutError:
            break
        if got == 0:
            break
        count += got
    return count


def kernel_has_bbr() -> bool:
    """As a module that is loaded."""
    return "bbr" in Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()


def goodput(network: Network, port: int, cell: Cell, seconds: float, seed: int) -> float:
    """Mbit/s of one connection."""
    network.impair(**cell.settings(seed))
    until = time.monotonic() + seconds
    with network.connect(port) as sock:
        count = receive(sock, until)
    network.impair(loss_ppm=0, delay_us=0, rate_kbps=0)
    time.sleep(0.3)  # what is on its way goes
    return count * 8 / seconds / 1e6


def measure(
    network: Network, port: int, cell: Cell, seconds: float, seeds: Iterator[int]
) -> dict[str, float]:
    """One run, as alternate() wants it."""
    return {"mbps": goodput(network, port, cell, seconds, next(seeds))}


def tell(progress: Callable[[str], None], cell: Cell, text: str) -> None:
    """Progress of a cell."""
    progress(f"{cell}: {text}")


@contextmanager
def janus(purpose: str, path: Impairment, workdir: Path, *, rival: bool = False) -> Iterator[Network]:
    """A network with Janus as its server, which pours."""
    config = JanusdConfig(apps=(AppPolicy(name="web", ports=(str(PORT), str(BBR_PORT))),))
    with Network(purpose, workdir, path, rival=rival) as network, Janusd(network, workdir, config) as daemon:
        daemon.serve(HANDLER, port=PORT)
        yield network


NAMES = {
    ("janus", "linux"): "",
    ("bbr", "linux"): "BBR to CUBIC, ",
    ("bbr", "linux bbr"): "BBR to BBR, ",
}


@contextmanager
def kernel_senders(kernel: Network) -> Iterator[None]:
    """CUBIC, and BBR where the kernel has it."""
    with ExitStack() as stack:
        for port in CONTROLS if kernel_has_bbr() else (PORT,):
            stack.enter_context(kernel_sender(kernel, kernel.srv, SERVER_ADDRESS, port))
        yield


def jain(*shares: float) -> float:
    """Jain's index: 1 when all are equal."""
    return sum(shares) ** 2 / (len(shares) * sum(s * s for s in shares))


@dataclass(frozen=True)
class Rivals:
    """Two senders on one path: (address, port) of each."""

    name: str
    units: tuple[str, str]
    ends: tuple[tuple[str, int], tuple[str, int]]


RIVALS = (
    Rivals("fair", ("Mbit/s Janus", "Mbit/s Linux"), ((SERVER_ADDRESS, PORT), (RIVAL_ADDRESS, PORT))),
    Rivals(
        "fair, BBR", ("Mbit/s Janus", "Mbit/s Linux"), ((SERVER_ADDRESS, BBR_PORT), (RIVAL_ADDRESS, PORT))
    ),
    Rivals(
        "fair, two BBR",
        ("Mbit/s one", "Mbit/s other"),
        ((SERVER_ADDRESS, BBR_PORT), (SERVER_ADDRESS, BBR_PORT)),
    ),
)


def fairness(network: Network, rivals: Rivals, cell: Cell, seconds: float, seed: int) -> dict[str, float]:
    """Both senders at once; the first third of the time is theirs to find each other."""
    network.impair(**cell.settings(seed))
    socks = [network.connect(port, address=address) for address, port in rivals.ends]
    counts = [0, 0]
    begin = time.monotonic()

    def read(index: int) -> None:
        receive(socks[index], begin + seconds / 3)
        counts[index] = receive(socks[index], begin + seconds)

    threads = [threading.Thread(target=read, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for sock in socks:
        sock.close()
    network.impair(loss_ppm=0, delay_us=0, rate_kbps=0)
    time.sleep(0.3)
    ours, theirs = (count * 8 / (seconds * 2 / 3) / 1e6 for count in counts)
    return {"jain": jain(ours, theirs), "ours": ours, "theirs": theirs}


def run(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """Rows of both parts."""
    runs, seconds = options.runs(3, 1), options.seconds(10.0, 5.0)
    rows: list[Row] = []
    with Workdir("cc-janus") as ours, Workdir("cc-linux") as theirs:
        with (
            janus("ccj", Impairment(), ours.path) as network,
            Network("ccl", theirs.path, Impairment(), kernel_server=True) as kernel,
            kernel_senders(kernel),
        ):
            for cell in chosen(options):
                senders = {"janus": (network, PORT), "bbr": (network, BBR_PORT), "linux": (kernel, PORT)}
                if kernel_has_bbr():
                    senders["linux bbr"] = (kernel, BBR_PORT)
                contenders = {
                    name: partial(measure, *sender, cell, seconds, iter(range(1, 99)))
                    for name, sender in senders.items()
                }
                samples = alternate(contenders, runs, partial(tell, progress, cell))
                for ours_is, theirs_is in (("janus", "linux"), ("bbr", "linux"), ("bbr", "linux bbr")):
                    if theirs_is in samples:
                        got = samples[ours_is]["mbps"], samples[theirs_is]["mbps"]
                        name = f"{NAMES[ours_is, theirs_is]}{cell}"
                        rows.append(make_row(name, "Mbit/s", *got, higher_is_better=True))
    return rows + fair_rows(options, progress)


def chosen(options: Options) -> list[Cell]:
    """The cells, or those whose text JANUS_CELLS names."""
    wanted = os.environ.get("JANUS_CELLS", "")
    return [cell for cell in cells(options.quick) if wanted in str(cell)]


def fair_rows(options: Options, progress: Callable[[str], None]) -> list[Row]:
    """Jain's index on paths without random loss."""
    rows: list[Row] = []
    runs, seconds = options.runs(3, 1), options.seconds(45.0, 20.0)
    with Workdir("cc-fair") as workdir, janus("ccf", Impairment(), workdir.path, rival=True) as network:
        with kernel_sender(network, network.riv, RIVAL_ADDRESS):
            paths = [Cell(rtt, 0, 1.0) for rtt in ((50,) if options.quick else ROUND_TRIPS_MS)]
            for cell, rivals in product(paths, RIVALS):
                samples = []
                for seed in range(runs):
                    progress(f"{rivals.name}, {cell}: run {seed + 1} of {runs}")
                    samples.append(fairness(network, rivals, cell, seconds, seed + 1))
                units = zip(("jain", "ours", "theirs"), ("Jain index", *rivals.units), strict=True)
                for metric, unit in units:
                    values = [s[metric] for s in samples]
                    rows.append(make_row(f"{rivals.name}, {cell}", unit, values, higher_is_better=True))
    return rows


PROGRAM = Program(
    name="tcp-congestion",
    summary="goodput of a bulk sender over a lossy bottleneck, CUBIC and BBR against the kernel's, and fairness",
    run=run,
    notes=(
        "A line of 20 Mbit/s; the relay is a process like the others: on a busy machine it adds delays of its own.",
        "JANUS_CELLS='50 ms, loss 1' measures the cells whose text has it.",
    ),
)
