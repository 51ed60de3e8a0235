"""Servers that know only asyncio, on Janus, against real clients of the kernel's side.

JANUS_WEBSOCKETS is how many WebSocket clients there are at a time, for who wants fewer.
"""

import asyncio
import hashlib
import os
import re
import shlex
import socket
import ssl
import struct
import subprocess
import threading
from pathlib import Path

import pytest

from bench.rig import Janusd, Process
from bench.rig.network import CLIENT_ADDRESS, SERVER_ADDRESS
from bench.rig.processes import python, wait_until
from tests.system.apps import asgi, asyncio_servers
from tests.system.census import at_rest, await_level
from tests.system.test_interop import client

WEBSOCKETS = int(os.environ.get("JANUS_WEBSOCKETS", "10000"))
APP = "tests.system.apps.asgi:app"
PORT = 8001
PAGE = Path(__file__).resolve().parents[2] / "docs" / "asyncio.md"


def line(service: str, **instead: str) -> list[str]:
    """The page's line for a service as this rig starts it: other files, ports and numbers in its words' places."""
    (text,) = re.findall(rf"^\| {service}[^|]*\| `([^`]*)`", PAGE.read_text(), re.M)
    words = shlex.split(text)
    here = {
        "0.0.0.0:80": f"0.0.0.0:{PORT}",
        "0.0.0.0:443": f"0.0.0.0:{PORT}",
        "80": str(PORT),
        "app:app": APP,
    }
    missing = [word for word in instead if word not in words]
    assert not missing, f"{text!r} has no {missing}"
    words = [{**here, **instead}.get(word, word) for word in words]
    return words[1:] if words[0] == "python" else ["-m", *words]


def without_tls(words: list[str]) -> list[str]:
    """The line in the clear."""
    at = words.index("--certfile")
    return words[:at] + words[at + 4 :]


PROGRAMS: dict[str, list[str]] = {
    "uvicorn": line("uvicorn"),
    "hypercorn": without_tls(line("hypercorn")),
    "gunicorn": [
        *line("gunicorn", **{"4": "2"})[:-1],
        "--worker-tmp-dir",
        "/dev/shm",
        "--no-control-socket",
        APP,
    ],
}


def started(rig: Janusd, *words: str, port: int = PORT, env: dict[str, str] | None = None) -> Process:
    """An application whose port answers over the wire."""
    process = rig.app(*words, name=f"asyncio-{port}", env=env)
    wait_until(lambda: rig.network.answers(port) or not process.alive(), 30, "the server answers")
    assert process.alive(), process.tail()
    return process


def launched(*arguments: str) -> list[str]:
    """The page's line for any program, with a module of the tests and these arguments."""
    (text,) = re.findall(
        r"`python (-m [^`]*) program.py ARGUMENTS` or `... package.module ARGUMENTS`", PAGE.read_text()
    )
    return [*shlex.split(text), "tests.system.apps.asyncio_servers", *arguments]


def plain(rig: Janusd, kind: str, *rest: str, port: int = PORT, env: dict[str, str] | None = None) -> Process:
    """One of the programs of asyncio_servers, by the launcher."""
    return started(rig, *launched(kind, str(port), *rest), port=port, env=env)


@pytest.fixture
def certificate(workdir: Path) -> str:
    """A key and a certificate of its own, in one file."""
    path = workdir / "certificate.pem"
    words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    words += ["-subj", "/CN=janus.test", "-keyout", str(path), "-out", str(path.with_suffix(".crt"))]
    subprocess.run(words, check=True, capture_output=True)
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    path.chmod(0o644)
    return str(path)


@pytest.mark.parametrize("server", PROGRAMS)
def test_http_of_asgi_servers(rig: Janusd, workdir: Path, server: str) -> None:
    process = started(rig, *PROGRAMS[server])
    url = f"http://{SERVER_ADDRESS}:{PORT}"
    kept = client(rig, "curl", "-sS", "--max-time", "10", "-w", " %{num_connects}\n", f"{url}/", f"{url}/")
    page = f"hello {CLIENT_ADDRESS} HTTP/1.1"
    assert kept == f"{page} 1\n{page} 0\n", "the connection is kept for the second request"
    body = os.urandom(5_000_000)
    (workdir / "body").write_bytes(body)
    chunked = ["-H", "Transfer-Encoding: chunked", "-T", str(workdir / "body")]
    assert client(rig, "curl", "-sS", "--max-time", "20", "-X", "POST", *chunked, f"{url}/upload") == (
        hashlib.sha256(body).hexdigest()
    )
    size = client(
        rig, "curl", "-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{size_download}", f"{url}/long"
    )
    assert size == str(asgi.LONG_BYTES)
    process.child.terminate()
    assert process.wait(15) in (0, -15), process.tail()
    assert "Traceback" not in process.text(), process.tail()


def test_http2_of_hypercorn_over_tls(rig: Janusd, certificate: str) -> None:
    started(rig, *line("hypercorn", C=certificate, K=certificate))
    url = f"https://{SERVER_ADDRESS}:{PORT}"
    curl = ["curl", "-ksS", "--http2", "--max-time", "20"]
    assert client(rig, *curl, f"{url}/") == f"hello {CLIENT_ADDRESS} HTTP/2"
    size = client(rig, *curl, "-o", "/dev/null", "-w", "%{size_download} %{http_version}", f"{url}/long")
    assert size == f"{asgi.LONG_BYTES} 2"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("server", ["uvicorn", "websockets"])
def test_many_websockets_at_a_time(rig: Janusd, workdir: Path, server: str) -> None:
    process = started(rig, *PROGRAMS["uvicorn"]) if server == "uvicorn" else plain(rig, "websockets")
    words = [python(), "-m", "tests.system.websocket_clients", SERVER_ADDRESS, str(PORT), str(WEBSOCKETS)]
    assert client(rig, *words, seconds=800).strip() == str(WEBSOCKETS)
    assert process.alive()
    assert "Traceback" not in process.text(), process.tail()


def test_aiohttp_serves_pages_and_files(rig: Janusd) -> None:
    process = started(
        rig, *line("aiohttp", **{"module:make_app": "tests.system.apps.asyncio_servers:make_app"})
    )
    url = f"http://{SERVER_ADDRESS}:{PORT}"
    assert client(rig, "curl", "-sS", "--max-time", "10", f"{url}/") == f"hello {CLIENT_ADDRESS}"
    source = client(rig, "curl", "-sS", "--max-time", "10", f"{url}/source")
    assert source == Path(asyncio_servers.__file__).read_text()
    assert "Traceback" not in process.text(), process.tail()


def test_tls_13_by_the_standard_library(rig: Janusd, certificate: str) -> None:
    plain(rig, "tls", certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    data = os.urandom(1 << 20)

    async def both_ways() -> tuple[bytes, bytes]:
        """In one thread: an SSL object is no two threads'."""
        sock = rig.network.connect(PORT)
        sock.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=sock, ssl=context, server_hostname="")
        greeting = await reader.readline()
        writer.write(data)
        back = await reader.readexactly(len(data))
        writer.close()
        return greeting, back

    assert asyncio.run(asyncio.wait_for(both_ways(), 60)) == (b"TLSv1.3\n", data)


def test_a_client_as_asyncpg_is_one_goes_out_through_janus(rig: Janusd, certificate: str) -> None:
    def listening() -> socket.socket:
        return socket.create_server((CLIENT_ADDRESS, 5432))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    peers: list[str] = []

    def database(listener: socket.socket) -> None:
        accepted, peer = listener.accept()
        peers.append(peer[0])
        assert accepted.recv(8) == b"\0\0\0\x08\x04\xd2\x16\x2f"
        accepted.sendall(b"S")
        with context.wrap_socket(accepted, server_side=True) as secure:
            assert secure.recv(100) == b"query"
            secure.sendall(b"rows")
            secure.recv(1)

    plain(rig, "database", env={"JANUS_CONNECT": f"{CLIENT_ADDRESS}/24"})
    with rig.network.inside(rig.network.cli, listening) as listener:
        thread = threading.Thread(target=database, args=(listener,))
        thread.start()
        with rig.network.connect(PORT) as asking:
            asking.sendall(f"{CLIENT_ADDRESS} 5432\n".encode())
            assert asking.recv(100) == b"rows"
        thread.join(10)
    assert peers == [SERVER_ADDRESS], "from the lease's address"


def test_slow_readers_and_aborted_clients_bother_nobody(rig: Janusd) -> None:
    process = started(rig, *PROGRAMS["uvicorn"])
    level = at_rest(rig)
    slow = [rig.network.connect(PORT) for _ in range(20)]
    for one in slow:
        one.sendall(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
    for number in range(50):
        gone = rig.network.connect(PORT)
        gone.sendall(
            (b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /upload HTTP/1.1\r\nHost: x\r\n")[number % 2]
        )
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        gone.close()
    for _ in range(20):
        assert "hello" in client(rig, "curl", "-sS", "--max-time", "5", f"http://{SERVER_ADDRESS}:{PORT}/")
    received = 0
    while data := slow[0].recv(65536):
        received += len(data)
        if received > asgi.LONG_BYTES:
            break
    assert received > asgi.LONG_BYTES, "who reads at last gets all of it"
    for one in slow:
        one.close()
    await_level(rig, level)
    assert "Traceback" not in process.text(), process.tail()


def test_connections_outlive_janusd_and_a_port_outside_the_policy_is_refused(rig: Janusd) -> None:
    process = plain(rig, "websockets")
    refused = rig.app(*launched("websockets", "9999"), name="refused")
    assert refused.wait(15) == 1
    assert "PermissionError" in refused.text(), refused.tail()
    script = (
        "import sys\n"
        "from websockets.sync.client import connect\n"
        f"with connect('ws://{SERVER_ADDRESS}:{PORT}/', ping_interval=None) as c:\n"
        "    for line in sys.stdin:\n"
        "        c.send(line.strip()); print(c.recv(60), flush=True)\n"
    )
    words = ["ip", "netns", "exec", rig.network.cli, python(), "-c", script]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as talking:
        assert talking.stdin is not None
        assert talking.stdout is not None
        for word in ("before", "after"):
            talking.stdin.write(word + "\n")
            talking.stdin.flush()
            assert talking.stdout.readline() == word + "\n"
            if word == "before":
                rig.kill()
                rig.start()
        talking.stdin.close()
    assert process.alive()
    assert "Traceback" not in process.text(), process.tail()
