"""Urgent data between Janus and the kernel's sockets, RFC 9293 3.8.5 and RFC 6093."""

import fcntl
import os
import select
import signal
import socket
import struct
import termios
from collections.abc import Iterator

import pytest

from bench.rig import Janusd
from bench.rig.network import SERVER_ADDRESS, SERVER_ADDRESS_6
from bench.rig.processes import wait_until
from tests.system.stream import chunks

APP = "tests.system.apps.urgent:handle"
FAMILIES = pytest.mark.parametrize("address", [SERVER_ADDRESS, SERVER_ADDRESS_6], ids=["IPv4", "IPv6"])


def exactly(sock: socket.socket, count: int) -> bytes:
    """The next count bytes of the stream, urgent ones left out unless they are in line."""
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        assert part, f"the stream ends after {len(data)} of {count}"
        data += part
    return data


@pytest.fixture
def told() -> Iterator[list[int]]:
    """The signals by which the kernel tells of urgent data, as they come."""
    signals: list[int] = []
    before = signal.signal(signal.SIGURG, lambda number, _: signals.append(number))
    yield signals
    signal.signal(signal.SIGURG, before)


def wait_for_urgent(sock: socket.socket) -> None:
    """Until the urgent octet has come."""
    poll = select.poll()
    poll.register(sock, select.POLLPRI)
    assert poll.poll(10_000), "no urgent octet has come"


@FAMILIES
def test_the_kernel_gives_the_last_octet_out_of_band(rig: Janusd, address: str) -> None:
    rig.serve(APP, port=8000)
    with rig.network.connect(8000, address=address) as sock:
        sock.sendall(b"SEND 3000\n")
        wait_for_urgent(sock)
        assert exactly(sock, 3004) == b"".join(chunks(3000)) + b"stop"
        sock.settimeout(None)  # which would wait for other data
        assert sock.recv(10, socket.MSG_OOB) == b"!"
        sock.sendall(b"SEND 0\n")
        assert exactly(sock, 4) == b"stop", "it is not in the stream too"


@FAMILIES
def test_in_line_all_is_in_its_place(rig: Janusd, address: str) -> None:
    rig.serve(APP, port=8000)
    with rig.network.connect(8000, address=address) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        for _ in range(3):
            sock.sendall(b"SEND 100\n")
            wait_for_urgent(sock)
            assert exactly(sock, 105) == b"".join(chunks(100)) + b"stop!"


@FAMILIES
def test_the_kernel_is_told_behind_a_closed_window(rig: Janusd, address: str, told: list[int]) -> None:
    rig.serve(APP, port=8000)
    with rig.network.connect(8000, address=address) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        fcntl.fcntl(sock, fcntl.F_SETOWN, os.getpid())
        sock.sendall(b"SEND 200000\n")
        wait_until(lambda: told, 10, "the kernel is told of urgent data")
        waiting = struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))[0]
        assert waiting < 100_000, "the window is closed"
        assert exactly(sock, 200_005) == b"".join(chunks(200_000)) + b"stop!"


@FAMILIES
def test_the_kernels_urgent_data_is_told_of(rig: Janusd, address: str) -> None:
    rig.serve(APP, port=8000)
    with rig.network.connect(8000, address=address) as sock:
        sock.send(b"TAKE 8\nabcdeF", socket.MSG_OOB)
        sock.sendall(b"gh")
        assert exactly(sock, 16) == b"5 4 3 2 1 0 0 0\n"
