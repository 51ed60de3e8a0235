"""nginx before and behind Janus, and what tshark has to say of a conversation with the kernel on a clean wire."""

import hashlib
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from bench.rig import Janusd
from bench.rig.network import CLIENT_ADDRESS, SERVER_ADDRESS
from bench.rig.processes import Process, wait_until
from examples.http_server import PAGE
from tests.system.census import at_rest, await_level, logs_are_clean
from tests.system.conftest import StartRig
from tests.system.stream import BLOCK, digest, echo_both_ways, get, put
from tests.system.test_interop import client
from tests.system.test_interop_matrix import CONFIG, UPSTREAM_PORT, kernel_echo

FILE_BYTES = 8 << 20
# What the expert says when something was sent twice, came late or is missing.
UNEXPECTED = " or ".join(
    f"tcp.analysis.{what}"
    for what in (
        "retransmission",
        "fast_retransmission",
        "spurious_retransmission",
        "out_of_order",
        "duplicate_ack",
        "lost_segment",
        "ack_lost_segment",
        "zero_window_probe",
    )
)
TRIES = 3  # the machine may keep a process waiting for longer than a peer's probe timeout, but not each time


def need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed: run tools/install-packages tests")


def start_nginx(rig: Janusd, workdir: Path) -> Process:
    """A file server on port 9080 and a proxy to Janus on port 9081, in the client's namespace."""
    root = workdir / "www"
    root.mkdir()
    (root / "file").write_bytes((BLOCK * (FILE_BYTES // len(BLOCK) + 1))[:FILE_BYTES])
    temporary = "".join(
        f"{kind}_temp_path {workdir}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = workdir / "nginx.conf"
    config.write_text(
        f"daemon off; master_process off; user root; pid {workdir}/nginx.pid; events {{}}\n"
        f"http {{ access_log off; {temporary}\n"
        f"  server {{ listen {CLIENT_ADDRESS}:9080; root {root}; }}\n"
        f"  server {{ listen {CLIENT_ADDRESS}:9081; location / {{ proxy_http_version 1.1;\n"
        f"    proxy_set_header Connection ''; proxy_pass http://{SERVER_ADDRESS}; }} }} }}\n"
    )
    words = ["nginx", "-p", str(workdir), "-c", str(config), "-e", str(workdir / "nginx-error.log")]
    nginx = Process(words, name="nginx", workdir=workdir, namespace=rig.network.cli)
    wait_until(lambda: listens(rig, 9081), 20, "nginx listens")
    return nginx


def listens(rig: Janusd, port: int) -> bool:
    sock = rig.network.client_socket(timeout=1.0)
    with sock:
        return sock.connect_ex((CLIENT_ADDRESS, port)) == 0


def test_nginx_before_and_behind_janus(rig: Janusd, workdir: Path) -> None:
    need("nginx")
    with start_nginx(rig, workdir):
        web = rig.serve("examples.http_server:handle", port=80)
        proxy = rig.serve(
            "examples.proxy:handle", port=7000, app="other", env={"UPSTREAM": f"{CLIENT_ADDRESS}:9080"}
        )
        level = at_rest(rig)
        behind = f"http://{SERVER_ADDRESS}:7000/file"
        target = workdir / "fetched"
        client(rig, "curl", "-gsS", "--max-time", "60", "-o", str(target), behind)
        fetched, served = (
            hashlib.sha256(p.read_bytes()).hexdigest() for p in (target, workdir / "www" / "file")
        )
        assert fetched == served, "from nginx through Janus"
        text = client(rig, "wrk", "-t1", "-c16", "-d1s", "-H", "Range: bytes=0-999", behind)
        assert "Non-2xx" not in text, text
        assert "Socket errors" not in text, text
        before = f"http://{CLIENT_ADDRESS}:9081/"
        assert client(rig, "curl", "-gsS", "--max-time", "60", before, before) == PAGE.decode() * 2
        text = client(rig, "wrk", "-t1", "-c16", "-d1s", before)
        assert "Non-2xx" not in text, text
        assert "Socket errors" not in text, text
    await_level(rig, level, seconds=90)
    logs_are_clean(rig.process, web, proxy)


def tshark(capture: Path, *words: str) -> list[str]:
    """Lines of tshark's answer about a capture, checksums verified."""
    checks = [w for p in ("tcp.check_checksum", "ip.check_checksum") for w in ("-o", f"{p}:TRUE")]
    done = subprocess.run(
        ["tshark", "-n", "-r", str(capture), *checks, *words],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.splitlines()


def talk(rig: Janusd) -> None:
    """A little of everything, on a wire that does no harm."""
    url = f"http://{SERVER_ADDRESS}/"
    client(rig, "curl", "-gsS", "--max-time", "20", url, url)
    with rig.network.connect(8000) as sock:
        assert put(sock, 2 << 20) == digest(2 << 20)
        assert get(sock, 2 << 20) == digest(2 << 20)
        sock.shutdown(socket.SHUT_WR)
    with rig.network.connect(7000) as sock:
        assert echo_both_ways(sock, 300_000) == digest(300_000)
    with pytest.raises(ConnectionRefusedError):
        rig.network.connect(8099, timeout=5)


def record(rig: Janusd, workdir: Path, capture: Path) -> None:
    words = ["dumpcap", "-q", "-i", "v1", "-f", "tcp", "-B", "64", "-w", str(capture)]
    with Process(words, name=capture.stem, workdir=workdir, namespace=rig.network.cli) as dumpcap:
        wait_until(lambda: "File:" in dumpcap.text(), 20, "dumpcap captures")
        talk(rig)
        dumpcap.kill(signal.SIGINT)
        dumpcap.wait(20)


@pytest.mark.alone
def test_expert_analysis_of_a_clean_wire(start_rig: StartRig, workdir: Path) -> None:
    need("tshark")
    rig = start_rig(CONFIG)
    rig.serve("examples.http_server:handle", port=80)
    rig.serve("tests.system.apps.transfer:handle", port=8000, app="transfer")
    upstream = {"UPSTREAM": f"{CLIENT_ADDRESS}:{UPSTREAM_PORT}"}
    rig.serve("examples.proxy:handle", port=7000, app="proxy4", env=upstream)
    with kernel_echo(rig.network, []):
        for number in range(TRIES):
            capture = workdir / f"wire{number}.pcapng"
            record(rig, workdir, capture)
            assert tshark(capture, "-Y", "_ws.malformed") == []
            assert tshark(capture, "-Y", 'tcp.checksum.status == "Bad" or ip.checksum.status == "Bad"') == []
            assert len(tshark(capture, "-Y", 'tcp.checksum.status == "Good"')) > 2000
            unexpected = tshark(capture, "-Y", UNEXPECTED)
            if not unexpected:
                return
            print(*unexpected, sep="\n")
    raise AssertionError("each time something was sent twice, came late or is missing")
