"""Python applications of other shapes on a real janusd: two event loops in one process, a script without coroutines."""

import socket
import threading
from pathlib import Path

from bench.rig import Janusd
from bench.rig.network import CLIENT_ADDRESS, SERVER_ADDRESS
from bench.rig.processes import wait_until
from tests.system.census import logs_are_clean

TWO_LOOPS = """
import asyncio
import threading

from janus_tcp.asyncio import new_event_loop

async def serve(name):
    async def handle(reader, writer):
        while data := await reader.read(100):
            writer.write(name + data)
        writer.close()
    async with await asyncio.start_server(handle, None, 8000) as server:
        await server.serve_forever()

def run(name):
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve(name))

for name in (b"a", b"b"):
    threading.Thread(target=run, args=(name,)).start()
"""
SCRIPT = f"""
from janus_tcp import sync

with sync.attach() as session:
    with session.connect("{CLIENT_ADDRESS}", 5000, timeout_s=20) as conn:
        conn.send(b"question\\n")
        print(conn.recv_until(b"\\n").decode(), end="")
        conn.timeout_s = 0.2
        try:
            conn.recv()
        except TimeoutError:
            conn.timeout_s = 20
        conn.send(bytes(100_000))
        conn.shutdown()
        print(sum(map(len, conn)))
"""


def test_two_event_loops_in_two_threads_serve_one_port(rig: Janusd, workdir: Path) -> None:
    program = workdir / "loops.py"
    program.write_text(TWO_LOOPS)
    program.chmod(0o644)
    app = rig.app(str(program))
    rig.await_threads(app, "web", 2)
    wait_until(lambda: rig.network.answers(8000), 20, f"the program answers:\n{app.tail()}")
    heard: set[bytes] = set()
    kept = []
    while len(heard) < 2 or len(kept) < 20:
        sock = rig.network.connect(8000, timeout=20)
        sock.sendall(b"!")
        answer = sock.recv(100)
        assert answer in (b"a!", b"b!")
        heard.add(answer)
        kept.append((sock, answer))
        assert len(kept) < 200, "the circle gives both threads connections"
    for sock, answer in kept:
        sock.sendall(b"!")
        assert sock.recv(100) == answer
        sock.close()
    logs_are_clean(rig.process, app)


def test_a_script_without_coroutines_opens_a_connection(rig: Janusd, workdir: Path) -> None:
    program = workdir / "script.py"
    program.write_text(SCRIPT)
    program.chmod(0o644)
    peers: list[str] = []

    def listening() -> socket.socket:
        return socket.create_server((CLIENT_ADDRESS, 5000))

    def server(listener: socket.socket) -> None:
        conn, peer = listener.accept()
        peers.append(peer[0])
        conn.settimeout(30)
        with conn:
            assert conn.recv(100) == b"question\n"
            conn.sendall(b"answer\n")
            while data := conn.recv(65536):
                conn.sendall(data)

    with rig.network.inside(rig.network.cli, listening) as listener:
        thread = threading.Thread(target=server, args=(listener,))
        thread.start()
        script = rig.app(str(program), app="other")
        assert script.wait(40) == 0, script.tail()
        thread.join(10)
    assert script.text() == "answer\n100000\n"
    assert peers == [SERVER_ADDRESS]
