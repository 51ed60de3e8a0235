"""The Janus event loop: whose an address is, TLS, files, debug mode, and programs that go past the loop."""

import ast
import asyncio
import contextlib
import io
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import janus_tcp.asyncio
import pytest
from janus_tcp.addresses import pack
from janus_tcp.asyncio import JanusEventLoop, main, new_event_loop, steer_back
from janus_tcp.asyncio_routes import hosts_of, is_any, is_loopback, networks, reached
from janus_tcp.asyncio_testing import PairEventLoop

PORT = 443
PAGE = Path(__file__).resolve().parents[2] / "docs" / "asyncio.md"


@pytest.fixture
def loop() -> Iterator[PairEventLoop]:
    made = PairEventLoop()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("text", "host", "expected"),
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8, fd00::/8", "fd00::1", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("all", "203.0.113.9", True),
        ("all", "127.0.0.1", False),
        ("", "10.1.2.3", False),
    ],
)
def test_networks_that_are_reached_through_janus(text: str, host: str, expected: bool) -> None:
    packed = pack(host)
    assert packed is not None
    assert reached(packed, networks(text)) is expected


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="not appear"):
        JanusEventLoop(connect="10.0/33")


def test_hosts_as_create_server_takes_them() -> None:
    assert hosts_of(None) == hosts_of("") == [None]
    assert hosts_of(["a", ""]) == ["a", None]
    assert is_any(None)
    assert is_any("::")
    assert not is_any("name")
    assert is_loopback("127.9.9.9")
    assert not is_loopback("name")


def test_a_loop_without_janusd_serves_the_kernels_addresses_and_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JANUS_SOCKET", str(tmp_path / "no-such.sock"))

    async def run() -> bytes:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.read(100))
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"kernel")
        answer = await reader.read()
        writer.close()
        with pytest.raises(FileNotFoundError, match="janusd"):
            await asyncio.start_server(handle, "0.0.0.0", 7)
        server.close()
        return answer

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        assert runner.run(run()) == b"kernel"
        assert isinstance(runner.get_loop(), JanusEventLoop)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tls") / "key.pem"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    words += ["-days", "2", "-subj", "/CN=janus.test", "-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run(words, check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return str(path)


def contexts(certificate: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's and the client's."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    return server, client


def test_tls_on_both_sides(loop: PairEventLoop, certificate: str) -> None:
    server_context, client_context = contexts(certificate)

    async def run() -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()

        await asyncio.start_server(handle, loop.host, PORT, ssl=server_context)
        reader, writer = await asyncio.open_connection(loop.host, PORT, ssl=client_context)
        assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
        assert writer.get_extra_info("peername") == (loop.host, PORT)
        writer.write(bytes(300_000))
        assert await reader.readexactly(300_000) == bytes(300_000)
        writer.close()
        await writer.wait_closed()

    loop.run_until_complete(run())


def test_a_client_that_does_not_speak_tls_is_dropped_in_silence(
    loop: PairEventLoop, certificate: str
) -> None:
    problems: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: problems.append(context))

    async def run() -> None:
        await loop.create_server(asyncio.Protocol, loop.host, PORT, ssl=contexts(certificate)[0])
        reader, writer = await asyncio.open_connection(loop.host, PORT)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):  # or an alert and FIN
            while await reader.read():
                pass
        writer.close()

    loop.run_until_complete(run())
    assert not problems


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_sendfile_sends_a_region_and_moves_the_files_position(
    loop: PairEventLoop, tmp_path: Path, kind: str
) -> None:
    text = bytes(range(256)) * 8000
    (tmp_path / "file").write_bytes(text)

    async def run() -> bytes:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with (tmp_path / "file").open("rb") if kind == "file" else io.BytesIO(text) as file:
                assert await loop.sendfile(writer.transport, file, 1000, 1_500_000) == 1_500_000
                assert file.tell() == 1_501_000
            writer.write(b"end")
            writer.close()

        await asyncio.start_server(handle, loop.host, PORT)
        reader, writer = await asyncio.open_connection(loop.host, PORT)
        answer = await reader.read()
        writer.close()
        return answer

    assert loop.run_until_complete(run()) == text[1000:1_501_000] + b"end"


def test_debug_mode_names_a_callback_that_blocks(
    loop: PairEventLoop, caplog: pytest.LogCaptureFixture
) -> None:
    class Sleepy(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            time.sleep(0.02)

    loop.set_debug(True)
    loop.slow_callback_duration = 0.01
    loop.stacks[loop._ends[0]].slow_us = 0  # virtual time stands still in a callback

    async def run() -> None:
        await loop.create_server(Sleepy, loop.host, PORT)
        transport, _ = await loop.create_connection(asyncio.Protocol, loop.host, PORT)
        transport.write(b"x")
        await asyncio.sleep(1)
        transport.close()

    loop.run_until_complete(run())
    loop._report_slow("Sleepy", "data_received", 0.02)
    assert "Executing data_received of 'Sleepy' took 0.020 seconds" in caplog.text


def test_call_soon_and_its_handles_are_asyncios_own(loop: PairEventLoop) -> None:
    problems: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: problems.append(context))
    called: list[object] = []
    kept = loop.call_soon(called.append, 1)
    dropped = loop.call_soon(called.append, 2)
    loop.call_soon(lambda: 1 / 0)
    loop.call_soon(called.append, 3)
    dropped.cancel()
    assert type(kept) is asyncio.Handle
    assert dropped.cancelled()
    assert "append" in repr(kept)
    loop.call_soon(loop.stop)
    loop.run_forever()
    assert called == [1, 3]
    assert isinstance(problems[0]["exception"], ZeroDivisionError)
    assert "Exception in callback" in problems[0]["message"]
    with pytest.raises(TypeError, match="callback"):
        loop.call_soon()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="context"):
        loop.call_soon(print, nonsense=1)  # type: ignore[call-arg]


def test_an_address_in_figures_needs_no_resolver_and_a_name_does(loop: PairEventLoop) -> None:
    asked: list[str] = []

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (loop.host, port))]

    async def run() -> None:
        await loop.create_server(asyncio.Protocol, loop.host, PORT)
        for host in (loop.host, "named.example"):
            transport, _ = await loop.create_connection(asyncio.Protocol, host, PORT)
            transport.abort()

    loop.getaddrinfo = getaddrinfo  # type: ignore[assignment]
    loop.run_until_complete(run())
    assert asked == ["named.example"]


def test_what_goes_past_the_loop_is_steered_back(loop: PairEventLoop) -> None:
    async def past(loop: asyncio.AbstractEventLoop, *args: Any, **kwargs: Any) -> str:
        return "kernel"

    module = SimpleNamespace(create_server=past, start_server=past)
    steer_back(module)
    steer_back(module)

    async def run() -> None:
        server = await module.create_server(
            loop, asyncio.Protocol, loop.host, PORT, ssl_incoming_bio_size=None
        )
        assert server.sockets[0].getsockname() == (loop.host, PORT)
        await module.start_server(loop, print, loop.host, 8)
        assert await module.create_server(asyncio.SelectorEventLoop, asyncio.Protocol) == "kernel"

    loop.run_until_complete(run())


FASTNET = """
import asyncio, aiofastnet
from janus_tcp.asyncio import steer_installed
from janus_tcp.asyncio_testing import PairEventLoop

class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
    def data_received(self, data):
        self.transport.write(data)

async def main():
    loop = asyncio.get_running_loop()
    server = await aiofastnet.create_server(loop, Echo, loop.host, 80, ssl_incoming_bio_size=4096)
    await aiofastnet.start_server(loop, print, loop.host, 81)
    reader, writer = await aiofastnet.open_connection(loop, loop.host, 80)
    writer.write(b"x")
    assert await reader.readexactly(1) == b"x"
    assert type(writer.transport).__module__ == "janus_tcp.asyncio"
    writer.close()
    await writer.wait_closed()
    server.close()

steer_installed()
for loop in (PairEventLoop(), aiofastnet.patch_loop(PairEventLoop()), aiofastnet.loop_factory(PairEventLoop)()):
    assert "create_server" not in vars(loop)
    loop.run_until_complete(main())
    loop.close()
other = aiofastnet.patch_loop(asyncio.SelectorEventLoop())
assert "create_server" in vars(other)
other.close()
"""


def test_the_real_aiofastnet_asks_the_loop() -> None:
    """In a process of its own: what it patches stays patched."""
    pytest.importorskip("aiofastnet")
    words = [sys.executable, "-X", "dev", "-W", "error", "-c", FASTNET]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_what_goes_past_the_loop_is_noticed_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "aiofastnet.py").write_text("async def create_server(loop, *args):\n    return 'kernel'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "aiofastnet", raising=False)
    try:
        new_event_loop().close()
        assert hasattr(sys.modules["aiofastnet"].create_server, "on_janus")
    finally:
        sys.modules.pop("aiofastnet", None)


def test_the_launcher_gives_a_script_a_janus_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "import asyncio, sys\n"
        "async def main():\n"
        "    print(type(asyncio.get_running_loop()).__name__, sys.argv[1:])\n"
        "asyncio.run(main())\n"
    )
    before = asyncio.get_event_loop_policy()
    try:
        main([str(script), "one", "--two"])
    finally:
        asyncio.set_event_loop_policy(before)
    assert capsys.readouterr().out == "JanusEventLoop ['one', '--two']\n"
    with pytest.raises(SystemExit):
        main([])
    assert "usage" in capsys.readouterr().err


def test_workers_that_cannot_attach_end_the_parent_with_the_reason(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "import asyncio\n"
        "async def main():\n"
        "    async with await asyncio.start_server(print, None, 8000) as server:\n"
        "        await server.serve_forever()\n"
        "asyncio.run(main())\n"
    )
    words = [sys.executable, "-m", "janus_tcp.asyncio", "--workers", "2", str(script)]
    env = dict(os.environ, JANUS_SOCKET=str(tmp_path / "nowhere"))
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("janus: no janusd")


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S))
def test_the_pages_python_runs(block: str) -> None:
    exec(compile(ast.parse(block), str(PAGE), "exec"), {"__name__": "docs"})


def test_the_pages_line_for_own_code_runs() -> None:
    (line,) = re.findall(r"^\| own code \| `([^`]*)` \|$", PAGE.read_text(), re.M)
    kinds = []

    async def main() -> None:
        kinds.append(type(asyncio.get_running_loop()))

    exec(line, {"asyncio": asyncio, "janus_tcp": janus_tcp, "main": main})
    assert kinds == [JanusEventLoop]


def test_two_loops_in_two_threads() -> None:
    answers: list[bytes] = []
    errors: list[BaseException] = []

    async def run(loop: PairEventLoop) -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.close()

        await asyncio.start_server(handle, loop.host, PORT)
        for _ in range(50):
            reader, writer = await asyncio.open_connection(loop.host, PORT)
            writer.write(bytes(20_000))
            writer.write_eof()
            answers.append(await reader.read())
            writer.close()
            await asyncio.sleep(0.001)

    def thread() -> None:
        try:
            loop = PairEventLoop()
            loop.run_until_complete(run(loop))
            loop.run_until_complete(asyncio.sleep(1))
            loop.close()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=thread) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not errors
    assert answers == [bytes(20_000)] * 100


def test_another_thread_wakes_a_loop_that_sleeps() -> None:
    real = PairEventLoop(virtual_time=False)

    async def run() -> str:
        woken: asyncio.Future[str] = real.create_future()
        threading.Timer(0.05, real.call_soon_threadsafe, (woken.set_result, "woken")).start()
        server = await real.create_server(asyncio.Protocol, real.host, PORT)
        try:
            return await asyncio.wait_for(woken, 10)
        finally:
            server.close()

    assert real.run_until_complete(run()) == "woken"
    assert real.run_until_complete(real.run_in_executor(None, lambda: 42)) == 42
    real.close()
