"""janusd on a rig: its configuration, its life, and what janusctl and /metrics say of it."""

import contextlib
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from bench.rig.network import SERVER_ADDRESS, SERVER_ADDRESS_6, Network
from bench.rig.processes import Process, python

APP_USER = "nobody"
APP_GROUP = "nogroup"
METRICS_PORT = 9464
READY_SECONDS = 30.0
HUGE_PAGES = 512
HUGE_PAGES_FILE = Path("/proc/sys/vm/nr_hugepages")
SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class AppPolicy:
    """One [[app]] table."""

    name: str
    ports: Sequence[str]
    users: Sequence[str] = (APP_USER,)
    source_ports: str = "40000-49999"
    connections_max: int = 65536
    rx_slots: int = 4096
    tx_slots: int = 4096


@dataclass(frozen=True)
class JanusdConfig:
    """What a rig wants to choose of janusd's configuration; the rest is right for a veth on two CPUs."""

    apps: Sequence[AppPolicy] = (AppPolicy(name="web", ports=("80",)),)
    io_threads: int = 1
    cpus: Sequence[int] = ()
    mode: str = "adaptive"
    unknown_port: str = "reset"
    recovery_s: float = 3.0
    device: str = "net_af_packet0,iface=v0"
    gateway: str = ""  # or one of each family, with a space between
    port_keys: str = ""
    huge_pages: str = '"auto"'
    memory_mib: int = 64
    metrics: str = f"127.0.0.1:{METRICS_PORT}"
    log_level: str = "info"
    extra: str = ""
    stats_name: str = field(default_factory=lambda: f"/janus-rig-{os.getpid()}.stats")

    def text(self, runtime_dir: Path) -> str:
        """The TOML file."""
        tables = [
            f"[daemon]\nruntime_dir = {_quoted(str(runtime_dir))}\ngroup = {_quoted(APP_GROUP)}\n"
            f'admin_group = "root"\nstats_name = {_quoted(self.stats_name)}\nrecovery_s = {self.recovery_s}\n'
            f"unknown_port = {_quoted(self.unknown_port)}\nlog_level = {_quoted(self.log_level)}\n",
            f"[eal]\nhuge_pages = {self.huge_pages}\nmemory_mib = {self.memory_mib}\n",
            f"[io]\nthreads = {self.io_threads}\ncpus = {list(self.cpus)}\nmode = {_quoted(self.mode)}\n",
            f'[[port]]\nname = "p0"\ndevice = {_quoted(self.device)}\n'
            f"addresses = {_list([SERVER_ADDRESS + '/24', SERVER_ADDRESS_6 + '/64'])}\n"
            f"gateways = {_list(self.gateway.split())}\n{self.port_keys}\n",
            f"[metrics]\nlisten = {_quoted(self.metrics)}\n",
            *(
                f"[[app]]\nname = {_quoted(app.name)}\nusers = {_list(app.users)}\n"
                f"addresses = {_list([SERVER_ADDRESS, SERVER_ADDRESS_6])}\nports = {_list(app.ports)}\n"
                f"source_ports = {_quoted(app.source_ports)}\nconnections_max = {app.connections_max}\n"
                f"rx_slots = {app.rx_slots}\ntx_slots = {app.tx_slots}\n"
                for app in self.apps
            ),
            self.extra,
        ]
        return "\n".join(tables)

    def with_device(self, device: str) -> "JanusdConfig":
        """The same on another device."""
        return replace(self, device=device)


class Janusd:
    """A running janusd; also knows how to start applications that attach to it."""

    def __init__(self, network: Network, workdir: Path, config: JanusdConfig | None = None) -> None:
        self.network = network
        self.config = config or JanusdConfig()
        self.runtime_dir = workdir / "run"
        self._workdir = workdir
        self._process: Process | None = None
        self._apps: list[Process] = []

    def __enter__(self) -> Self:
        provide_huge_pages()
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        while self._apps:
            self._apps.pop().stop()
        if self._process is not None:
            self._process.stop()
            self._process = None
        Path("/dev/shm", self.config.stats_name.lstrip("/")).unlink(missing_ok=True)

    @property
    def process(self) -> Process:
        """The daemon's process."""
        assert self._process is not None, "janusd is not running"
        return self._process

    @property
    def attach_socket(self) -> Path:
        """Where applications attach."""
        return self.runtime_dir / "attach.sock"

    def write_config(self) -> Path:
        """The configuration file, written."""
        self.runtime_dir.mkdir(mode=0o755, exist_ok=True)
        path = self._workdir / "janusd.toml"
        path.write_text(self.config.text(self.runtime_dir))
        path.chmod(0o644)
        return path

    def command(self) -> Sequence[str]:
        """The words that start the daemon, its options excepted."""
        return (python(), "-m", "janusd")

    def answers(self, port: int) -> bool:
        """Whether a connection to the port opens."""
        return self.network.answers(port)

    def start(self) -> None:
        """Start the daemon and wait until it says that it is ready, in systemd's way."""
        notify_path = self._workdir / "notify"
        notify_path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(notify_path))
            notify.settimeout(0.1)
            self._process = Process(
                [*self.command(), "--config", str(self.write_config())],
                name="janusd",
                workdir=self._workdir,
                namespace=self.network.srv,
                env={"NOTIFY_SOCKET": str(notify_path)},
            )
            self._await_ready(notify)

    def _await_ready(self, notify: socket.socket) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                if b"READY=1" in notify.recv(4096).splitlines():
                    return
            if not self.process.alive():
                raise RuntimeError(f"janusd ended with {self.process.wait(1)}:\n{self.process.tail()}")
        raise TimeoutError(f"janusd was not ready within {READY_SECONDS:g} s:\n{self.process.tail()}")

    def kill(self) -> None:
        """SIGKILL, as a crash would end it."""
        self.process.kill()

    def app(
        self,
        *words: str,
        app: str = "web",
        user: str = APP_USER,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Start Python with these words as an application; it is stopped before janusd is."""
        return self.program(python(), *words, app=app, user=user, name=name, env=env)

    def program(
        self,
        *words: str,
        app: str = "web",
        user: str = APP_USER,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
        interactive: bool = False,
    ) -> Process:
        """Start a program as an application; interactive: see Process."""
        process = Process(
            words,
            name=name or app,
            workdir=self._workdir,
            user=user,
            env={"JANUS_APP": app, "JANUS_SOCKET": str(self.attach_socket), **(env or {})},
            interactive=interactive,
        )
        self._apps.append(process)
        return process

    def serve(
        self,
        handler: str,
        *,
        port: int,
        app: str = "web",
        workers: int = 1,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Run module:handler and wait until all its threads are online and its port answers."""
        words = [
            "-m",
            "janus_tcp",
            "run",
            handler,
            "--port",
            str(port),
            "--workers",
            str(workers),
            "--app",
            app,
        ]
        process = self.app(*words, app=app, name=f"{app}-{port}", env=env)
        self.await_threads(process, app, workers)
        deadline = time.monotonic() + READY_SECONDS
        while not self.answers(port):
            if not process.alive() or time.monotonic() > deadline:
                logs = f"{process.tail()}\n{self.process.tail()}"
                raise RuntimeError(f"{handler} does not answer on port {port}:\n{logs}")
            time.sleep(0.02)
        return process

    def await_threads(self, process: Process, app: str, count: int) -> None:
        """Wait until an application has so many threads attached."""
        deadline = time.monotonic() + READY_SECONDS
        while sum(row["app"] == app for row in self.rows("threads")) < count:
            if not process.alive():
                raise RuntimeError(f"{process.name} ended with {process.wait(1)}:\n{process.tail()}")
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{app} has not {count} threads after {READY_SECONDS:g} s:\n{process.tail()}"
                )
            time.sleep(0.05)

    def ctl(self, command: str) -> Any:
        """What janusctl says, decoded."""
        socket_path = str(self.runtime_dir / "ctl.sock")
        done = subprocess.run(
            [python(), "-m", "janusd.ctl", "--socket", socket_path, "--json", command],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"janusctl {command}: {done.stderr.strip()}\n{self.process.tail()}")
        return json.loads(done.stdout)

    def rows(self, command: str) -> list[dict[str, Any]]:
        """What janusctl lists, as a list of rows."""
        return rows_of(self.ctl(command))

    def metrics(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        """A scrape of /metrics: samples by name."""
        words = ["ip", "netns", "exec", self.network.srv, "curl", "-sS", "--max-time", "10"]
        address = f"http://{self.config.metrics}/metrics"
        return parse_metrics(
            subprocess.run([*words, address], capture_output=True, text=True, check=True).stdout
        )

    def metric(self, name: str, **labels: str) -> float:
        """The sum over the samples of one name that have these labels."""
        samples = self.metrics().get(name, [])
        return sum(
            value for have, value in samples if all(have.get(key) == want for key, want in labels.items())
        )


def parse_metrics(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Prometheus' text format."""
    samples: dict[str, list[tuple[dict[str, str], float]]] = {}
    for line in text.splitlines():
        if match := SAMPLE.match(line):
            labels = dict(LABEL.findall(match[2] or ""))
            samples.setdefault(match[1], []).append((labels, float(match[3])))
    return samples


def rows_of(answer: Any) -> list[dict[str, Any]]:
    """The rows of an answer: the list itself, or the one list in it."""
    if isinstance(answer, list):
        return answer
    lists = [value for value in answer.values() if isinstance(value, list)]
    if len(lists) != 1:
        raise ValueError(f"expected one list in {answer!r}")
    return list(lists[0])


def provide_huge_pages(count: int = HUGE_PAGES) -> None:
    """Raise the number of 2 MiB pages to count where it is lower; the pages stay for the next rig."""
    if int(HUGE_PAGES_FILE.read_text()) < count:
        with contextlib.suppress(OSError):
            HUGE_PAGES_FILE.write_text(f"{count}\n")


def _quoted(text: str) -> str:
    return json.dumps(text)


def _list(words: Sequence[str]) -> str:
    return json.dumps(list(words))
