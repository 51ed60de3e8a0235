"""Real clients and a real server of the kernel's side: curl, wrk, ab, Python's sockets, a listener."""

import re
import socket
import struct
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from bench.rig import Janusd
from bench.rig.network import CLIENT_ADDRESS, SERVER_ADDRESS, SERVER_ADDRESS_6, deafen, run
from bench.rig.processes import wait_until
from examples.http_server import PAGE
from tests.system.census import at_rest, await_level, logs_are_clean
from tests.system.conftest import SERVED, StartRig
from tests.system.stream import BLOCK, digest, echo_both_ways

HTTP = "examples.http_server:handle"
ECHO = "examples.echo:handle"


def client(rig: Janusd, *words: str, seconds: float = 60) -> str:
    """Run a program in the client's namespace; its output."""
    done = subprocess.run(
        ["ip", "netns", "exec", rig.network.cli, *words],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{words[0]} ended with {done.returncode}: {done.stderr}{done.stdout}"
    return done.stdout


@pytest.mark.parametrize("host", [SERVER_ADDRESS, f"[{SERVER_ADDRESS_6}]"], ids=["IPv4", "IPv6"])
def test_curl_gets_its_page(rig: Janusd, host: str) -> None:
    app = rig.serve(HTTP, port=80)
    url = f"http://{host}/"
    answer = client(rig, "curl", "-gsSi", "--max-time", "10", url)
    assert answer.startswith("HTTP/1.1 200 OK")
    assert answer.endswith(PAGE.decode())
    twice = client(rig, "curl", "-gsS", "--max-time", "10", "-w", "%{num_connects}", url, url)
    assert twice == f"{PAGE.decode()}1{PAGE.decode()}0", "the connection is kept for the second request"
    logs_are_clean(rig.process, app)


def test_wrk_with_two_workers_that_share_the_connections(rig: Janusd) -> None:
    app = rig.serve(HTTP, port=80, workers=2)
    level = at_rest(rig)
    text = client(rig, "wrk", "-t1", "-c64", "-d3s", f"http://{SERVER_ADDRESS}/")
    match = re.search(r"(\d+) requests in", text)
    assert match is not None, text
    assert int(match[1]) > 300, text
    assert "Non-2xx" not in text, text
    assert "Socket errors" not in text, text
    await_level(rig, level)
    logs_are_clean(rig.process, app)


def test_ab_opens_a_connection_for_each_request(rig: Janusd) -> None:
    rig.serve(HTTP, port=80, workers=2)
    level = at_rest(rig)
    text = client(rig, "ab", "-q", "-n", "2000", "-c", "20", f"http://{SERVER_ADDRESS}/")
    assert re.search(r"Complete requests:\s+2000\b", text), text
    assert re.search(r"Failed requests:\s+0\b", text), text
    await_level(rig, level)


def test_ping(rig: Janusd) -> None:
    raw = rig.network.inside(
        rig.network.cli, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    )
    with raw:
        raw.settimeout(5)
        for number, size in enumerate((0, 1, 56, 1472)):
            payload = BLOCK[:size]
            raw.sendto(echo_request(number, payload), (SERVER_ADDRESS, 0))
            answer, (host, _) = raw.recvfrom(4096)
            assert host == SERVER_ADDRESS
            assert answer[20:22] == b"\0\0", "an echo reply"
            assert answer[24:] == struct.pack("!HH", 7, number) + payload


def echo_request(number: int, payload: bytes) -> bytes:
    """An ICMP echo request (RFC 792)."""
    body = struct.pack("!HH", 7, number) + payload
    words = sum(struct.unpack(f"!{(len(body) + 1) // 2}H", body + b"\0" * (len(body) % 2))) + 0x0800
    words = (words & 0xFFFF) + (words >> 16)
    words = (words & 0xFFFF) + (words >> 16)
    return struct.pack("!HH", 0x0800, ~words & 0xFFFF) + body


@pytest.mark.parametrize("address", [SERVER_ADDRESS, SERVER_ADDRESS_6], ids=["IPv4", "IPv6"])
def test_python_sockets_echo(rig: Janusd, address: str) -> None:
    rig.serve(ECHO, port=8000)
    for size in (1, 1447, 1448, 1449, 65536, 3_000_000):
        with rig.network.connect(8000, address=address) as sock:
            assert echo_both_ways(sock, size) == digest(size), size
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b"", "the server closes when its client has finished"


def test_many_small_messages_keep_their_order(rig: Janusd) -> None:
    rig.serve(ECHO, port=8000)
    with rig.network.connect(8000) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lines = [b"line %d\n" % number for number in range(2000)]

        def feed() -> None:
            for line in lines:
                sock.sendall(line)

        feeder = threading.Thread(target=feed)
        feeder.start()
        answers = sock.makefile("rb")
        assert [answers.readline() for _ in lines] == lines
        feeder.join()


def test_a_port_that_nobody_serves_is_refused(rig: Janusd) -> None:
    with pytest.raises(ConnectionRefusedError):
        rig.network.connect(81, timeout=5)


def test_active_open_to_a_kernel_listener(rig: Janusd) -> None:
    upstream = rig.network.inside(rig.network.cli, lambda: socket.create_server((CLIENT_ADDRESS, 9000)))
    upstream.settimeout(30)
    peers: list[tuple[str, int]] = []

    def serve(rounds: int) -> None:
        for _ in range(rounds):
            accepted, peer = upstream.accept()
            peers.append(peer)
            with accepted:
                while data := accepted.recv(65536):
                    accepted.sendall(data)

    app = rig.serve("examples.proxy:handle", port=8000, workers=2, env={"UPSTREAM": f"{CLIENT_ADDRESS}:9000"})
    with upstream:
        server = threading.Thread(target=serve, args=(9,))
        server.start()
        level = at_rest(rig)
        run_rounds(rig, lambda sock: echo_both_ways(sock, 300_000))
        server.join(30)
    assert {host for host, _ in peers} == {SERVER_ADDRESS}
    assert all(40000 <= port <= 44999 for _, port in peers), "from the app's own range of ports"
    await_level(rig, level, seconds=90)
    logs_are_clean(app)


def run_rounds(rig: Janusd, exchange: Callable[[socket.socket], str]) -> None:
    """Eight exchanges; serve() has made the ninth connection, the one that asked whether the port answers."""
    for _ in range(8):
        with rig.network.connect(8000) as sock:
            assert exchange(sock) == digest(300_000)
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(1) == b""


def test_active_open_to_a_port_that_nobody_serves_ends_the_client_too(rig: Janusd) -> None:
    rig.serve("examples.proxy:handle", port=8000, env={"UPSTREAM": f"{CLIENT_ADDRESS}:9999"})
    with pytest.raises(ConnectionResetError), rig.network.connect(8000, timeout=10) as sock:
        sock.recv(1)  # where the reset did not come while connect() still looked


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 20000, b"431", id="a head without end"),
        pytest.param(b"GET / HTTP/1.1\r\n", b"408", id="half a head and then silence"),
        pytest.param(b"nonsense\r\n\r\n", b"400", id="nonsense"),
    ],
)
def test_the_http_example_gets_rid_of_bad_clients(rig: Janusd, sent: bytes, status: bytes) -> None:
    app = rig.serve(HTTP, port=80)
    level = at_rest(rig)
    with rig.network.connect(80) as sock:
        sock.sendall(sent)
        assert sock.makefile("rb").readline().split()[1] == status
    await_level(rig, level, seconds=90)
    logs_are_clean(app)


def test_two_io_threads_with_a_queue_each(start_rig: StartRig) -> None:
    rig = start_rig(replace(SERVED, io_threads=2).with_device("net_af_packet0,iface=v0,qpairs=2"))
    app = rig.serve(HTTP, port=80, workers=2)
    level = at_rest(rig)
    text = client(rig, "wrk", "-t1", "-c64", "-d2s", f"http://{SERVER_ADDRESS}/")
    assert "Non-2xx" not in text, text
    assert "Socket errors" not in text, text
    busy = [row["busy_turns"] for row in rig.ctl("status")["io_threads"]]
    assert len(busy) == 2
    assert min(busy) > 100, f"both I/O threads work: {busy}"
    await_level(rig, level)
    logs_are_clean(rig.process, app)


def test_polling_mode(start_rig: StartRig) -> None:
    rig = start_rig(replace(SERVED, mode="poll"))
    rig.serve(ECHO, port=8000)
    with rig.network.connect(8000) as sock:
        assert echo_both_ways(sock, 1_000_000) == digest(1_000_000)
    assert rig.ctl("status")["io_threads"][0]["sleeps"] == 0


def test_the_kernel_drops_what_the_port_has_had_and_answers_nothing(rig: Janusd) -> None:
    network, other = rig.network, "10.77.0.9"
    run("ip", "-n", network.srv, "addr", "add", f"{other}/32", "dev", "lo")

    def answers_arp() -> bool:
        run("ip", "-n", network.cli, "neigh", "flush", "dev", "v1")
        with network.inside(network.cli, lambda: socket.socket(type=socket.SOCK_DGRAM)) as asking:
            asking.sendto(b"", (other, 9))
        said = partial(run, "ip", "-n", network.cli, "neigh", "show", "to", other)
        wait_until(
            lambda: "lladdr" in said() or "FAILED" in said(), 10, "the client has asked for the address"
        )
        return "lladdr" in said()

    assert answers_arp(), "as kernels do, for an address of another interface"
    deafen(network.srv, "v0")
    assert not answers_arp()
    rig.serve(ECHO, port=8000)
    for address in (SERVER_ADDRESS, SERVER_ADDRESS_6):
        with network.connect(8000, address=address) as sock:
            assert echo_both_ways(sock, 100_000) == digest(100_000)


def test_metrics_say_what_janusctl_says(rig: Janusd) -> None:
    rig.serve(ECHO, port=8000)
    with rig.network.connect(8000) as sock:
        assert echo_both_ways(sock, 100_000) == digest(100_000)
    port = rig.rows("ports")[0]
    wait_until(lambda: rig.metric("janus_threads", app="web") == 1, 5, "the metrics show the thread")
    assert rig.metric("janus_port_rx_packets_total", port="p0") >= port["rx_packets"] > 0
    assert rig.metric("janus_thread_tx_bytes_total", app="web") > 100_000
    assert rig.metric("janus_drops_total", reason="not_for_us") >= port["drops"].get("not_for_us", 0)
