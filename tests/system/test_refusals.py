"""What janusd and the SDK refuse, each with an error that says what to mend."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from bench.rig import AppPolicy, Janusd, JanusdConfig, Process
from bench.rig.processes import python
from janusd.messages import ABI_MAJOR, ABI_MINOR
from tests.system.conftest import SERVED, StartRig

ECHO = "examples.echo:handle"


def refused_app(rig: Janusd, port: int, *, app: str = "web", user: str = "nobody") -> str:
    """Run the echo example, which must end by itself with an error; what it wrote."""
    words = ["-m", "janus_tcp", "run", ECHO, "--port", str(port), "--app", app]
    process = rig.app(*words, app=app, user=user, name=f"refused-{app}-{port}-{user.replace(':', '-')}")
    status = process.wait(20)
    assert status > 0, f"ended with {status}:\n{process.text()}"
    return process.text()


def refused_janusd(
    config: JanusdConfig, workdir: Path, *, user: str | None = None, check: bool = False
) -> tuple[int, str]:
    """Start janusd outside of any namespace of ours, where it must end with an error; status and text."""
    path = workdir / "refused.toml"
    path.write_text(config.text(workdir / "refused-run"))
    path.chmod(0o644)
    words = [python(), "-m", "janusd", "--config", str(path), *(["--check"] if check else [])]
    process = Process(words, name="refused", workdir=workdir, user=user)
    with process:
        return process.wait(30), process.text()


def test_a_user_whom_the_policy_does_not_allow(rig: Janusd) -> None:
    text = refused_app(rig, 8000, user="daemon:nogroup")
    assert "daemon" in text or "uid 1" in text, text
    assert "web" in text, text
    assert "Traceback" not in text, text


def test_a_user_who_may_not_open_the_attach_socket(rig: Janusd) -> None:
    text = refused_app(rig, 8000, user="daemon")
    assert "attach.sock" in text, text
    assert "Traceback" not in text, text


def test_a_port_that_the_policy_does_not_give(rig: Janusd) -> None:
    text = refused_app(rig, 81)
    assert "81" in text, text
    assert "8000-8099" in text, f"says what is allowed: {text}"
    assert "Traceback" not in text, text


def test_an_app_that_the_configuration_does_not_have(rig: Janusd) -> None:
    text = refused_app(rig, 8000, app="stranger")
    assert "stranger" in text, text
    assert "Traceback" not in text, text


def test_a_port_that_two_apps_want(workdir: Path) -> None:
    apps = (AppPolicy(name="web", ports=("80",)), AppPolicy(name="other", ports=("80",)))
    status, text = refused_janusd(replace(SERVED, apps=apps), workdir, check=True)
    assert status == 78, text
    assert "app[1].ports = '80': overlaps ports 80 of app[0]" in text, text


HELLO = """
import socket, struct, sys
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.connect(sys.argv[1])
sock.send(struct.pack("=II HHHH 32s 16s IIII 8H", 1, 0x4A414E55, int(sys.argv[2]), 0, 0, 0, b"web", b"",
                      0, 0, 0, 0, 128, 0, 8, 24, 26, 28, 32, 36))
answer = sock.recv(512)
print(*struct.unpack_from("=II", answer), answer[8:].partition(b"\\0")[0].decode())
"""


def test_another_version_of_the_abi(rig: Janusd) -> None:
    process = rig.app("-c", HELLO, str(rig.attach_socket), "99", name="future")
    assert process.wait(20) == 0, process.text()
    kind, status, text = process.text().split(" ", 2)
    assert (kind, status) == ("3", "2"), process.text()
    assert "99" in text, text
    assert f"{ABI_MAJOR}.{ABI_MINOR}" in text, text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        pytest.param({"extra": "[daemno]\nx = 1\n"}, ["daemno", "daemon"], id="unknown table"),
        pytest.param({"mode": "fast"}, ["mode", "fast", "adaptive", "poll"], id="wrong word"),
        pytest.param({"io_threads": 99}, ["threads", "99", "8"], id="number too high"),
        pytest.param({"huge_pages": "3"}, ["huge_pages", "auto"], id="wrong type"),
        pytest.param({"extra": "[[app]\n"}, ["line"], id="no TOML"),
        pytest.param({"metrics": "nowhere"}, ["listen", "nowhere"], id="no address"),
        pytest.param(
            {"apps": (AppPolicy(name="web", ports=("80",), users=("no-such-user",)),)},
            ["no-such-user"],
            id="no such user",
        ),
        pytest.param({"apps": (AppPolicy(name="web", ports=("80-79",)),)}, ["80-79"], id="empty range"),
    ],
)
def test_a_wrong_configuration(workdir: Path, change: dict[str, object], expected: list[str]) -> None:
    status, text = refused_janusd(replace(SERVED, **change), workdir, check=True)  # type: ignore[arg-type]
    assert status == 78, text
    assert "refused.toml" in text, text
    for word in expected:
        assert word in text, text
    assert "Traceback" not in text, text


def test_a_missing_configuration(workdir: Path) -> None:
    words = [python(), "-m", "janusd", "--config", str(workdir / "none.toml"), "--check"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 78, done.stderr
    assert "none.toml" in done.stderr, done.stderr


def test_a_missing_device(workdir: Path) -> None:
    config = replace(SERVED, metrics="").with_device("net_af_packet0,iface=janus-none")
    status, text = refused_janusd(config, workdir)
    assert status == 69, text
    assert "janus-none" in text, text
    assert "Traceback" not in text, text


def test_huge_pages_wanted_and_too_few(workdir: Path) -> None:
    config = replace(SERVED, metrics="", huge_pages="true", memory_mib=65536).with_device("net_null0")
    status, text = refused_janusd(config, workdir)
    assert status == 69, text
    assert "huge pages" in text, text
    assert "nr_hugepages" in text, f"says what to do: {text}"
    assert "Traceback" not in text, text


def test_without_huge_pages_it_serves_and_warns(start_rig: StartRig) -> None:
    rig = start_rig(replace(SERVED, huge_pages="false"))
    rig.serve(ECHO, port=8000)
    with rig.network.connect(8000) as sock:
        sock.sendall(b"hello")
        assert sock.recv(5) == b"hello"
    assert rig.ctl("status")["huge_pages"] is False


def test_no_root(workdir: Path) -> None:
    os.chmod(workdir, 0o777)  # so that only the port needs a privilege
    config = replace(SERVED, metrics="").with_device("net_af_packet0,iface=lo")
    status, text = refused_janusd(config, workdir, user="nobody")
    assert status == 77, text
    assert "root" in text, text
    assert "Traceback" not in text, text


def test_janusctl_without_janusd(workdir: Path) -> None:
    words = [python(), "-m", "janusd.ctl", "--socket", str(workdir / "none.sock"), "status"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode != 0
    assert "none.sock" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr, done.stderr


def test_an_app_without_janusd(workdir: Path) -> None:
    process = Process(
        [python(), "-m", "janus_tcp", "run", ECHO, "--port", "8000", "--app", "web"],
        name="alone",
        workdir=workdir,
        user="nobody",
        env={"JANUS_SOCKET": str(workdir / "none.sock")},
    )
    with process:
        assert process.wait(20) > 0
        assert "none.sock" in process.text(), process.text()
        assert "Traceback" not in process.text(), process.text()
