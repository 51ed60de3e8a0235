"""The load generator on a rig: bench/load, on janusd's own rings, on memif or on the client's end of a veth.

    with Network("x", path) as network, RingJanusd(network, path, config) as janusd:
        janusd.serve(...)                                   # or any application that attaches
        janusd.load.measure("run", seconds=2, rate=1e5)     # short connections
        janusd.load.do("open", count=10_000_000, rate=5e5)  # hold
        janusd.load.measure("sample", seconds=2, sample=1e5)
        janusd.load.close_all()

bench/load/control.h has the commands and their arguments."""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.rig.janusd import Janusd, JanusdConfig
from bench.rig.network import SERVER_ADDRESS, Network
from bench.rig.processes import Process, python, wait_until
from bench.rig.tools import build_load

GATEWAY = "10.77.0.2"
FIRST_CLIENT = "100.64.0.0"
START_SECONDS = 20.0
Result = dict[str, Any]


class Load:
    """The way to a running load generator."""

    def __init__(self, path: Path, alive: Callable[[], bool] = lambda: True) -> None:
        """The generator opens path when it is ready: who asks between its bind and its listen is refused, and asks
        again while it is alive."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            wait_until(
                lambda: self._socket.connect_ex(str(path)) == 0 or not alive(),
                START_SECONDS,
                "the load generator starts",
            )
        except TimeoutError:
            self._socket.close()
            raise
        self._lines = self._socket.makefile("r")

    def close(self) -> None:
        """Leave it; it goes on with what it does."""
        self._lines.close()
        self._socket.close()

    def do(self, command: str, **arguments: float) -> Result:
        """Give a command and wait for its result."""
        self._say(command, arguments)
        return self._result()

    def measure(self, command: str, during: Callable[[], None] | None = None, **arguments: float) -> Result:
        """Give a command that has a warm-up; call `during` when it is over, before the measured time."""
        self._say(command, arguments)
        line = self._lines.readline()
        if line != "counting\n":
            raise RuntimeError(f"load {command}: {line.strip() or 'the generator has ended'}")
        if during is not None:
            during()
        return self._result()

    def close_all(self, **arguments: float) -> Result:
        """Close what `open` has opened.  A connection that was asked for its numbers shortly before does not
        tell them a second time at once (RFC 5961 7), so what is missing is asked again."""
        total = self.do("close", **arguments)
        if total["lost"]:
            time.sleep(1.0)
            again = self.do("close", **arguments)
            total["completed"] += again["completed"]
            total["lost"] = again["lost"]
        return total

    def answers(self, port: int) -> bool:
        """Whether a connection to the port opens within a second; closes it again."""
        opened = self.measure("run", port=port, window=1, rate=100, seconds=0.1, warm=0)
        return int(opened["established"]) > 0

    def _say(self, command: str, arguments: Mapping[str, float]) -> None:
        words = [command, *(f"{key}={value:.12g}" for key, value in arguments.items())]
        self._socket.sendall((" ".join(words) + "\n").encode())

    def _result(self) -> Result:
        line = self._lines.readline()
        found: Result = json.loads(line) if line else {"error": "the generator has ended"}
        if "error" in found:
            raise RuntimeError(f"load: {found['error']}")
        return found


def load_words(path: Path, cpu: int | None, port: int) -> list[str]:
    """What every form of the generator is told."""
    words = [f"socket={path}", f"server={SERVER_ADDRESS}", f"gateway={GATEWAY}", f"clients={FIRST_CLIENT}"]
    return [*words, f"port={port}", f"cpu={-1 if cpu is None else cpu}"]


class RingJanusd(Janusd):
    """janusd whose port is two rings, with the generator at the other end as a thread of its process."""

    def __init__(
        self,
        network: Network,
        workdir: Path,
        config: JanusdConfig | None = None,
        *,
        load_cpu: int | None = None,
        port: int = 7,
    ) -> None:
        config = replace(config or JanusdConfig(), device="net_ring_load", gateway=GATEWAY)
        super().__init__(network, workdir, config)
        self._path = workdir / "load.sock"
        self._load_cpu = load_cpu
        self._port = port
        self._load: Load | None = None

    @property
    def load(self) -> Load:
        """The generator."""
        if self._load is None:
            self._load = Load(self._path)
        return self._load

    def command(self) -> Sequence[str]:
        """janusd with the generator in it."""
        library = build_load("load_ring.so", "ring_port.c", "-fPIC", "-shared", libs="-lrte_net_ring")
        self._path.unlink(missing_ok=True)
        words = " ".join([str(library), *load_words(self._path, self._load_cpu, self._port)])
        return ("env", f"JANUS_LOAD={words}", python(), "-m", "bench.rig.ring_janusd")

    def answers(self, port: int) -> bool:
        """Whether a connection to the port opens."""
        return self.load.answers(port)

    def __exit__(self, *_: object) -> None:
        if self._load is not None:
            self._load.close()
            self._load = None
        super().__exit__()


@contextlib.contextmanager
def load_process(
    workdir: Path, device: str, *, namespace: str | None = None, cpu: int | None = None, port: int = 7
) -> Any:
    """The generator as a process of its own on a DPDK device, such as net_af_packet0,iface=v1."""
    path = workdir / f"load-{os.getpid()}.sock"
    path.unlink(missing_ok=True)
    eal = ["--no-pci", "--in-memory", "--iova-mode=va", "--no-telemetry", "-l", "0", f"--vdev={device}"]
    words = [str(build_load("load_gen", "main.c")), *load_words(path, cpu, port), "--", *eal]
    with Process(words, name="load_gen", workdir=workdir, namespace=namespace) as process:
        load = Load(path, process.alive)
        try:
            if not process.alive():
                raise RuntimeError(f"the load generator does not start:\n{process.tail()}")
            yield load
        finally:
            load.close()
