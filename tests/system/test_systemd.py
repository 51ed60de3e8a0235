"""The shipped units under a real systemd, booted in a container over an overlay of this machine's root.

Starts janusd by its socket and service units on a veth, looks at it with janusctl and a scrape, kills it,
stops it; and holds the sandbox's score. Skips, saying why, where there is no root, no systemd-nspawn or no
overlay."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "systemd"
EXPOSURE_MAX = 2.1
BOOT_S = 60.0

CONFIG = """
[eal]
huge_pages = "auto"
memory_mib = 64
[[port]]
name = "p0"
device = "net_af_packet0,iface=v0"
addresses = ["10.77.0.1/24"]
[[app]]
name = "web"
users = ["nobody"]
ports = ["80"]
"""


class Container:
    """A booted systemd; `run` runs a command inside."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self.log = directory / "boot.log"
        self._directory = directory
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def boot(self) -> None:
        upper, work = self._directory / "upper", self._directory / "work"
        for path in (self.root, upper, work):
            path.mkdir()
        options = f"lowerdir=/,upperdir={upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(self.root)], check=True)
        command = [
            "systemd-nspawn",
            "-D",
            str(self.root),
            "--register=no",
            "--keep-unit",
            "--private-network",
        ]
        command += ["--kill-signal=SIGRTMIN+3", f"--bind-ro={ROOT}:/opt/janus"]
        command += ["--bind-ro=/sys/module", "-b"]  # EAL looks there, and nspawn leaves it out
        with self.log.open("wb") as log:
            self._nspawn = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + BOOT_S
        while time.monotonic() < deadline:
            self._leader = self._find_leader()
            if self._leader and self.run("systemctl", "is-system-running", check=False).stdout.strip() in (
                "running",
                "degraded",
            ):
                return
            assert self._nspawn.poll() is None, self.log.read_text(errors="replace")
            time.sleep(0.2)
        raise AssertionError(f"systemd did not boot: {self.log.read_text(errors='replace')}")

    def _find_leader(self) -> int:
        assert self._nspawn is not None
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        enter = ["nsenter", "-t", str(self._leader), "-m", "-p", "-u", "-i", "-n", "-C", "--"]
        done = subprocess.run([*enter, *command], capture_output=True, text=True, timeout=60, check=False)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}\n{self.journal()}"
        return done

    def journal(self, unit: str = "janusd") -> str:
        return self.run("journalctl", "-u", unit, "-n", "40", "--no-pager", check=False).stdout

    def end(self) -> None:
        if self._nspawn is not None and self._nspawn.poll() is None:
            if self._leader:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._leader, signal.SIGRTMIN + 3)
            try:
                self._nspawn.wait(20)
            except subprocess.TimeoutExpired:
                self._nspawn.kill()
                self._nspawn.wait()
        subprocess.run(["umount", "-l", str(self.root)], check=False, capture_output=True)


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    if os.geteuid() != 0:
        pytest.skip("needs root: boots a container")
    if shutil.which("systemd-nspawn") is None:
        pytest.skip("needs systemd-nspawn: apt-get install systemd-container")
    made = Container(tmp_path_factory.mktemp("systemd"))
    try:
        try:
            made.boot()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no overlay of / can be mounted here: {error}")
        install(made)
        yield made
    finally:
        made.end()


def install(made: Container) -> None:
    """What the head of janusd.service says, and a veth."""
    for name, target in (
        ("janusd.service", "etc/systemd/system"),
        ("janus-attach.socket", "etc/systemd/system"),
        ("janus-gateway.service", "etc/systemd/system"),
        ("janus.sysusers.conf", "etc/sysusers.d"),
    ):
        (made.root / target).mkdir(parents=True, exist_ok=True)
        shutil.copy(UNITS / name, made.root / target / name)
    etc = made.root / "etc/janus"
    etc.mkdir(exist_ok=True)
    (etc / "janusd.toml").write_text(CONFIG)
    made.run("systemd-sysusers", "/etc/sysusers.d/janus.sysusers.conf")
    made.run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
    for end in ("v0", "v1", "lo"):
        made.run("ip", "link", "set", end, "up")
    made.run("systemctl", "daemon-reload")


def show(made: Container, unit: str, name: str) -> str:
    return made.run("systemctl", "show", unit, "-p", name, "--value").stdout.strip()


def wait_until(what: str, question: object) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if question():  # type: ignore[operator]
            return
        time.sleep(0.1)
    raise AssertionError(f"not in 20 s: {what}")


@pytest.mark.parametrize(("unit", "most"), [("janusd", EXPOSURE_MAX), ("janus-gateway", 1.5)])
def test_units_are_valid_and_the_sandbox_is_tight(unit: str, most: float) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", str(UNITS / f"{unit}.service")],
        capture_output=True,
        text=True,
        check=True,
    )
    match = re.search(rf"Overall exposure level for {unit}.service: ([0-9.]+)", done.stdout)
    assert match is not None
    assert float(match[1]) <= most


def test_start_look_scrape_kill_stop(container: Container) -> None:
    container.run("systemctl", "start", "janus-attach.socket")
    container.run("systemctl", "start", "janusd")
    assert show(container, "janusd", "ActiveState") == "active"
    assert show(container, "janusd", "StatusText") == "serving 1 port(s)"
    pid = int(show(container, "janusd", "MainPID"))
    status = container.run("cat", f"/proc/{pid}/status").stdout
    assert "Uid:\t0" not in status
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status

    # what is in the runtime directory, and for whom
    listing = container.run(
        "stat", "-c", "%n %a %U %G", "/run/janus/attach.sock", "/run/janus/ctl.sock"
    ).stdout
    assert "/run/janus/attach.sock 660 root janus-apps" in listing
    assert "/run/janus/ctl.sock 660 janus janus-admin" in listing
    assert container.run("stat", "-c", "%a", "/run/janus/state.json").stdout.strip() == "600"

    # janusctl, for the admin group and not for others
    out = container.run("sh", "-c", "cd /opt/janus && .venv/bin/python -m janusd.ctl status").stdout
    assert "serving" in out
    nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups"
    command = f"cd /opt/janus && {nobody} .venv/bin/python -m janusd.ctl status"
    refused = container.run("sh", "-c", command, check=False)
    assert refused.returncode == 77
    assert "no permission" in refused.stderr

    # a scrape
    fetch = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9464/metrics').read().decode())"
    page = container.run("python3", "-c", fetch).stdout
    assert 'janus_port_rx_packets_total{port="p0"}' in page
    assert "janus_start_time_seconds" in page

    # the watchdog is fed: it would have struck after 5 s
    time.sleep(6)
    assert int(show(container, "janusd", "MainPID")) == pid
    assert show(container, "janusd", "NRestarts") == "0"

    # killed, it is back at once, and the attach socket has been there all the time
    container.run("systemctl", "kill", "-s", "KILL", "janusd")
    wait_until("janusd is back", lambda: show(container, "janusd", "NRestarts") == "1")
    wait_until("it is ready", lambda: show(container, "janusd", "ActiveState") == "active")
    assert int(show(container, "janusd", "MainPID")) != pid

    container.run("systemctl", "stop", "janusd")
    assert show(container, "janusd", "ActiveState") == "inactive"
    assert show(container, "janusd", "Result") == "success"
    assert "stopping" in container.journal()


def test_remote_control(container: Container) -> None:
    """As docs/operating.md says: keys, a client in the list, the unit, janusctl --remote; with nothing of root's."""
    container.run("systemctl", "start", "janusd")
    wait_until("janusd is ready", lambda: show(container, "janusd", "ActiveState") == "active")
    assert container.run("systemctl", "is-enabled", "janus-gateway", check=False).stdout.strip() == "disabled"
    python = "/opt/janus/.venv/bin/python"
    for name, directory in (("gateway", "/etc/janus"), ("boss", "/root"), ("guest", "/root")):
        command = f"cd /opt/janus && {python} -m janusd.gateway --make-key {name} {directory}"
        container.run("sh", "-c", command)
    container.run("chown", "janus-gateway", "/etc/janus/gateway.key_secret")
    text = '[gateway]\nlisten = "10.77.0.9:9465"\n'
    for name, change in (("boss", "true"), ("guest", "false")):
        match = re.search(r'public-key = "(.+)"', (container.root / f"root/{name}.key").read_text())
        assert match is not None
        text += f'[[client]]\nname = "{name}"\npublic_key = "{match[1]}"\nchange = {change}\n'
    (container.root / "etc/janus/gateway.toml").write_text(text)
    container.run("ip", "address", "add", "10.77.0.9/24", "dev", "lo")
    container.run("systemctl", "start", "janus-gateway")
    pid = show(container, "janus-gateway", "MainPID")
    status = container.run("cat", f"/proc/{pid}/status").stdout
    assert "Uid:\t0" not in status
    assert "CapEff:\t0000000000000000" in status
    assert "Seccomp:\t2" in status

    def janusctl(name: str, *words: str) -> subprocess.CompletedProcess[str]:
        where = "--remote tcp://10.77.0.9:9465 --server-key /etc/janus/gateway.key"
        command = f"cd /opt/janus && {python} -m janusd.ctl {where} --key /root/{name}.key_secret "
        return container.run("sh", "-c", command + " ".join(words), check=False)

    try:
        wait_until("the gateway listens", lambda: janusctl("guest", "status").returncode == 0)
    except AssertionError as error:
        raise AssertionError(
            container.journal("janus-gateway") + janusctl("guest", "status").stderr
        ) from error
    assert "serving" in janusctl("guest", "status").stdout
    assert janusctl("guest", "csb", "auto", "on", "web").returncode == 77
    assert janusctl("boss", "csb", "auto", "on", "web").returncode == 0
    assert "via=boss" in container.journal()
    for unit in ("janus-gateway", "janusd"):
        container.run("systemctl", "stop", unit)
        assert show(container, unit, "Result") == "success"


def test_a_bad_configuration_does_not_start_and_says_why(container: Container) -> None:
    path = container.root / "etc/janus/janusd.toml"
    path.write_text(CONFIG.replace("iface=v0", "iface=none0"))
    try:
        assert container.run("systemctl", "start", "janusd", check=False).returncode != 0
        assert show(container, "janusd", "ExecMainStatus") == "69"
        assert 'there is no interface "none0" here' in container.journal()
        path.write_text(CONFIG + "colour = 1\n")
        container.run("systemctl", "reset-failed", "janusd")
        assert container.run("systemctl", "start", "janusd", check=False).returncode != 0
        assert "app[0].colour = 1: unknown key" in container.journal()
    finally:
        path.write_text(CONFIG)
        container.run("systemctl", "reset-failed", "janusd", check=False)
