"""Kernel clients of an echo while load is moved: streams with digests, short connections, idle ones."""

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.rig import Janusd
from bench.rig.processes import wait_until
from tests.system.census import client
from tests.system.sniffer import Sniffer
from tests.system.stream import digest, echo_both_ways

STREAM_BYTES = 4 << 20
STREAMS, CHURNERS, IDLE = 3, 2, 150


class Load:
    """What runs, what it has done, and what went wrong."""

    def __init__(self, rig: Janusd, port: int) -> None:
        self._rig = rig
        self._port = port
        self._stop = threading.Event()
        self.errors: list[str] = []
        self.streams = self.connections = 0
        self._expected = digest(STREAM_BYTES)
        self.idle = [self.connect() for _ in range(IDLE)]
        self._threads = [threading.Thread(target=self._guard, args=(self._stream,)) for _ in range(STREAMS)]
        self._threads += [threading.Thread(target=self._guard, args=(self._churn,)) for _ in range(CHURNERS)]
        for thread in self._threads:
            thread.start()

    def connect(self) -> socket.socket:
        return self._rig.network.connect(self._port, timeout=20)

    def _guard(self, work: Any) -> None:
        while not self._stop.is_set():
            try:
                work()
            except (OSError, EOFError, AssertionError) as error:
                self.errors.append(f"{work.__name__}: {error!r}")
                return

    def _stream(self) -> None:
        with self.connect() as sock:
            found = echo_both_ways(sock, STREAM_BYTES)
        self.streams += 1
        if found != self._expected:
            self.errors.append("a stream's digest is wrong")

    def _churn(self) -> None:
        with self.connect() as sock:
            echo(sock, b"hello")
        self.connections += 1
        time.sleep(0.001)

    def go_on(self, connections: int) -> None:
        """Wait until so many more have come and gone, or something is wrong."""
        wanted = self.connections + connections
        wait_until(lambda: self.connections >= wanted or self.errors, 60, f"{connections} more connections")

    def end(self) -> None:
        """Stop; every idle connection must still be there."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        for number, sock in enumerate(self.idle):
            try:
                echo(sock, b"still here %d" % number)
            except (OSError, EOFError) as error:
                self.errors.append(f"idle {number}: {error!r}")
            sock.close()


def echo(sock: socket.socket, data: bytes) -> None:
    """Send data and read it back."""
    sock.sendall(data)
    got = b""
    while len(got) < len(data):
        part = sock.recv(len(data) - len(got))
        if not part:
            raise EOFError(f"{got!r} of {data!r} came back")
        got += part
    if got != data:
        raise EOFError(f"{got!r} came back for {data!r}")


def syns_sent_again(rig: Janusd) -> int:
    """By the kernel of the clients, since its namespace is there."""
    words = ["ip", "netns", "exec", rig.network.cli, "cat", "/proc/net/netstat"]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    names, values = (line.split() for line in text.splitlines()[:2])
    return int(dict(zip(names, values, strict=True))["TCPSynRetrans"])


@contextmanager
def load(rig: Janusd, port: int) -> Iterator[Load]:
    """Run the load; at the end nothing may have gone wrong, and no reset has come to the clients."""
    with Sniffer(rig.network, None) as resets:
        made = Load(rig, port)
        try:
            yield made
        finally:
            made.end()
        assert not made.errors, made.errors[:10]
        assert resets.bad() == []


def balancer(rig: Janusd, app: str = "web") -> dict[str, Any]:
    """What janusd says of an app's balancer."""
    [found] = client(rig).ask("csb_show", app=app)
    return dict(found)


def no_harm(rig: Janusd, app: str = "web") -> None:
    """No segment went to the wrong thread, and no thread has answered one by a reset."""
    for row in rig.rows("threads"):
        if row["app"] == app:
            assert row["counters"].get("misdirected_segments", 0) == 0, row
            assert row["counters"].get("resets_sent", 0) == 0, row
