"""The C API as installed: programs compiled outside of the checkout, with clients of the kernel's side."""

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.rig import Janusd, Workdir
from bench.rig.network import CLIENT_ADDRESS, SERVER_ADDRESS, SERVER_ADDRESS_6
from bench.rig.processes import Process, wait_until
from tests.system.census import at_rest, await_level
from tests.system.stream import digest, echo_both_ways
from tests.system.test_interop import client
from tests.test_house import ROOT

PAGE = "Served by a user-level TCP stack."


@pytest.fixture(scope="module")
def sdk() -> Iterator[Path]:
    """Where `make install-sdk` has put it; every user may enter."""
    with Workdir("sdk") as made:
        subprocess.run(["make", "-s", "install-sdk", f"PREFIX={made.path}"], cwd=ROOT, check=True)
        yield made.path


def compile_program(sdk: Path, source: Path, *flags: str) -> Path:
    """With pkg-config's flags alone, outside of the checkout, and warnings are errors."""
    program = sdk / source.stem
    env = {"PKG_CONFIG_PATH": str(sdk / "lib/pkgconfig"), "PATH": "/usr/bin:/bin"}
    words = ["pkg-config", "--cflags", "--libs", "janus"]
    found = subprocess.run(words, env=env, check=True, capture_output=True, text=True).stdout.split()
    command = [
        "gcc",
        "-std=gnu11",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        *flags,
        str(source),
        "-o",
        str(program),
    ]
    command += [*found, f"-Wl,-rpath,{sdk / 'lib'}"]
    subprocess.run(command, cwd=sdk, check=True)
    return program


def serve(
    rig: Janusd, program: Path, port: int, *words: str, threads: int = 1, name: str = "c-app"
) -> Process:
    """Run a program of ours as the app web and wait for its port."""
    process = rig.program(str(program), str(port), *words, name=name)
    rig.await_threads(process, "web", threads)
    wait_until(lambda: rig.answers(port), 10, f"{program.name} answers")
    return process


def exactly(sock: socket.socket, size: int) -> bytes:
    """So many bytes, or what came before the end; a timeout makes MSG_WAITALL return sooner."""
    found = b""
    while len(found) < size and (part := sock.recv(size - len(found))):
        found += part
    return found


def test_echo_in_two_threads_survives_janusd(rig: Janusd, sdk: Path) -> None:
    app = serve(rig, compile_program(sdk, ROOT / "examples/echo.c"), 8000, "2", threads=2)
    level = at_rest(rig)
    socks = [
        rig.network.connect(8000, address=address, timeout=60)
        for address in (SERVER_ADDRESS, SERVER_ADDRESS_6) * 8
    ]
    for sock in socks:
        sock.sendall(b"first")
        assert exactly(sock, 5) == b"first"
    assert echo_both_ways(socks[0], 3_000_000) == digest(3_000_000)
    rig.kill()  # all handlers wait
    rig.start()
    for index, sock in enumerate(socks):
        sock.sendall(b"again %d" % index)
        assert exactly(sock, len(b"again %d" % index)) == b"again %d" % index
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
        sock.close()
    await_level(rig, level)
    app.child.terminate()
    assert app.wait(10) == 0, app.tail()


def test_http_by_curl_and_wrk(rig: Janusd, sdk: Path, workdir: Path) -> None:
    content = bytes(range(256)) * 4096
    file = workdir / "content"
    file.write_bytes(content)
    file.chmod(0o644)
    serve(rig, compile_program(sdk, ROOT / "examples/http_server.c"), 80, str(file))
    url = f"http://{SERVER_ADDRESS}"
    got = workdir / "got"
    answer = client(rig, "curl", "-sS", "-w", "%{http_code} %{num_connects} ", f"{url}/", f"{url}/nothing")
    assert PAGE in answer
    assert re.search(r"200 1 .*404 0 ", answer, re.S), answer
    client(rig, "curl", "-sS", "--max-time", "20", "-o", str(got), f"{url}/file")
    assert got.read_bytes() == content
    assert client(rig, "curl", "-sS", "-w", "%{http_code}", "-d", "body", f"{url}/") == "501"
    long = "a" * 3000  # a head in several packets
    assert PAGE in client(rig, "curl", "-sS", "-H", f"X-Long: {long}", f"{url}/")
    text = client(rig, "wrk", "-t1", "-c64", "-d2s", f"{url}/")
    match = re.search(r"(\d+) requests in", text)
    assert match is not None, text
    assert int(match[1]) > 300, text
    assert "Non-2xx" not in text, text
    assert "Socket errors" not in text, text


def test_proxy_to_a_kernel_server(rig: Janusd, sdk: Path) -> None:
    listener = rig.network.inside(rig.network.cli, lambda: socket.create_server((CLIENT_ADDRESS, 9000)))
    with listener:
        serve(
            rig, compile_program(sdk, ROOT / "examples/proxy.c"), 8001, CLIENT_ADDRESS, "9000", name="c-proxy"
        )
        for size in (1, 20_000, 200_000):
            with rig.network.connect(8001, timeout=20) as sock:
                sock.sendall(b"x")
                while True:  # the wait for the port was passed on, too
                    upstream, _ = listener.accept()
                    if upstream.recv(1) == b"x":
                        break
                    upstream.close()
                upstream.settimeout(20)
                block = bytes(range(250)) * (size // 250 + 1)
                sock.sendall(block)
                assert exactly(upstream, len(block)) == block
                upstream.sendall(block)
                assert exactly(sock, len(block)) == block
                sock.shutdown(socket.SHUT_WR)
                assert upstream.recv(1) == b"", "the end of one direction passes"
                upstream.sendall(b"last words")
                upstream.close()
                assert exactly(sock, 100) == b"last words"


def test_a_handler_that_blocks_is_named_and_one_that_overflows_too(rig: Janusd, sdk: Path) -> None:
    app = serve(rig, compile_program(sdk, ROOT / "tests/system/bad_handlers.c"), 8002, name="c-bad")
    with rig.network.connect(8002, timeout=20) as sock:
        host, port = sock.getsockname()[:2]
        sock.sendall(b"block")
        wait_until(lambda: "has not waited for" in app.text(), 5, "the watch speaks while it blocks")
        assert f"(peer {host}:{port})" in app.text()
        assert exactly(sock, 4) == b"back"
        sock.sendall(b"overflow")
        with pytest.raises(ConnectionResetError):
            sock.recv(4)
    assert "janus: stack overflow in the coroutine of connection " in app.text()


def test_a_handler_in_a_shared_object_runs_from_the_command_line(rig: Janusd, sdk: Path) -> None:
    made = compile_program(sdk, ROOT / "examples/echo.c", "-fPIC", "-shared")
    target = made.rename(sdk / "echo.so")
    rig.serve(f"{target}:handle", port=8003, workers=2)
    for _ in range(8):
        with rig.network.connect(8003, timeout=10) as sock:
            assert echo_both_ways(sock, 100_000) == digest(100_000)
