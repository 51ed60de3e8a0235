"""The rig itself, with kernel sockets on both ends: what a system test says is no better than what it
stands on."""

import hashlib
import json
import socket
import subprocess
import threading
from itertools import islice
from pathlib import Path

import pytest

from bench.rig import REPO, Impairment, Network, Process, build_tool
from bench.rig.network import SERVER_ADDRESS
from bench.rig.processes import python, wait_until
from tests.system.stream import digest, receive_all, send_all

SIZE = 8 << 20
CLIENTS = REPO / "tests" / "system" / "many_clients.c"
GARBAGE = REPO / "tests" / "system" / "garbage.c"


def transfer(network: Network, size: int) -> str:
    """Send from a kernel socket in the client's namespace to one in the server's; the digest of what
    arrived."""
    listener = network.inside(network.srv, lambda: socket.create_server((SERVER_ADDRESS, 9000)))
    listener.settimeout(30)
    with listener, network.connect(9000) as client:
        accepted, _ = listener.accept()
        with accepted:
            accepted.settimeout(30)
            sender = threading.Thread(target=send_all, args=(client, size))
            sender.start()
            try:
                return receive_all(accepted, size)
            finally:
                sender.join()


def test_a_direct_network_carries_a_stream_and_leaves_nothing(workdir: Path) -> None:
    with Network("rig", workdir, kernel_server=True) as network:
        assert transfer(network, SIZE) == digest(SIZE)
        name = network.name
    assert name not in subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout


def test_the_relay_harms_as_told_and_tcp_repairs_it(workdir: Path) -> None:
    harm = Impairment(loss_ppm=10_000, duplicate_ppm=5_000, reorder_ppm=20_000, corrupt_ppm=1_000, seed=7)
    with Network("rig", workdir, harm, kernel_server=True) as network:
        assert transfer(network, SIZE) == digest(SIZE)
        stats = network.relay_stats()
    frames = stats["frames"]
    assert frames > SIZE / 1448
    for what, ppm in (("lost", 10_000), ("duplicated", 5_000), ("reordered", 20_000), ("corrupted", 1_000)):
        expected = frames * ppm / 1e6
        assert expected / 2 < stats[what] < expected * 2, (what, stats)
    assert stats["oversize"] == stats["overflow"] == 0, stats


def test_many_clients_tell_an_echo_from_a_reset(workdir: Path) -> None:
    with Network("rig", workdir, kernel_server=True) as network:
        server = Process(
            [python(), "-c", ECHO_SERVER],
            name="echo",
            workdir=workdir,
            namespace=network.srv,
        )
        clients = Process(
            [str(build_tool(CLIENTS)), SERVER_ADDRESS, "9000", "300"],
            name="clients",
            workdir=workdir,
            namespace=network.cli,
            interactive=True,
        )
        with server, clients:
            wait_until(lambda: network.answers(9000), 10, "the echo server answers")
            assert json.loads(clients.ask("open")) == {"ok": 300, "bad": 0}
            assert json.loads(clients.ask("echo 1")) == {"ok": 300, "bad": 0}
            assert json.loads(clients.ask("echo 2")) == {"ok": 300, "bad": 0}
            assert json.loads(clients.ask("close")) == {"ok": 300, "bad": 0}
            assert json.loads(clients.ask("open")) == {"ok": 300, "bad": 0}
            server.kill()
            assert json.loads(clients.ask("echo 3"))["ok"] == 0
    assert "Traceback" not in server.text()


def test_garbage_is_the_same_for_the_same_seed(workdir: Path) -> None:
    with Network("rig", workdir) as network:
        seen = [sniffed(network, seed) for seed in (5, 5, 6)]
    assert seen[0] == seen[1] != seen[2]


def sniffed(network: Network, seed: int) -> str:
    """A hash over the first frames that garbage puts on the wire."""
    sniffer = network.inside(network.srv, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300))
    with sniffer:
        sniffer.bind(("v0", 3))
        sniffer.settimeout(5)
        words = [
            str(build_tool(GARBAGE)),
            "v1",
            network.server_mac(),
            SERVER_ADDRESS,
            "80",
            "0.05",
            str(seed),
        ]
        done = subprocess.run(
            ["ip", "netns", "exec", network.cli, *words], capture_output=True, text=True, check=True
        )
        assert json.loads(done.stdout)["total"] > 500
        server = bytes.fromhex(network.server_mac().replace(":", ""))
        frames = (frame for frame in iter(lambda: sniffer.recv(2048), b"") if frame.startswith(server))
        return hashlib.sha256(b"".join(islice(frames, 100))).hexdigest()  # without what kernels tell groups


@pytest.mark.parametrize("text", ["relay", "relay v0"])
def test_tools_say_how_they_are_used(text: str) -> None:
    words = text.split()
    program = build_tool(REPO / "tests" / "system" / f"{words[0]}.c")
    done = subprocess.run([str(program), *words[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage: relay" in done.stderr


def test_an_unprivileged_child_reaches_a_clone_below_a_closed_directory(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = workdir / "closed"
    clone = closed / "deep" / "clone"
    clone.mkdir(parents=True)
    (clone / "file").write_text("reached\n")
    (closed / "secret").write_text("hidden\n")
    closed.chmod(0o700)
    monkeypatch.setattr("bench.rig.processes.REPO", clone)
    words = ["sh", "-c", f"id -u; cat file; ls {closed}"]
    with Process(words, name="child", workdir=workdir, user="nobody") as child:
        assert child.wait(10) == 0, child.text()
    assert child.text().split() == ["65534", "reached", "deep"]


ECHO_SERVER = """
import asyncio
async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
async def main():
    await (await asyncio.start_server(echo, "0.0.0.0", 9000, backlog=1024)).serve_forever()
asyncio.run(main())
"""
