"""The bytes that transfers carry: the same for both sides, no period that a lost or doubled packet could
hide in."""

import hashlib
import random
import socket
import threading
from collections.abc import Iterator

BLOCK = random.Random(20260101).randbytes(1_000_003)


def chunks(total: int) -> Iterator[bytes]:
    """total bytes, block by block."""
    while total > 0:
        yield BLOCK if total >= len(BLOCK) else BLOCK[:total]
        total -= len(BLOCK)


def digest(total: int) -> str:
    """SHA-256 of the first total bytes."""
    sha = hashlib.sha256()
    for chunk in chunks(total):
        sha.update(chunk)
    return sha.hexdigest()


def receive_all(sock: socket.socket, total: int) -> str:
    """SHA-256 of the next total bytes of a kernel socket; EOFError when there are fewer."""
    sha, left, room = hashlib.sha256(), total, bytearray(1 << 20)
    while left > 0:
        got = sock.recv_into(room, min(left, len(room)))
        if got == 0:
            raise EOFError(f"{total - left} of {total} bytes arrived")
        sha.update(memoryview(room)[:got])
        left -= got
    return sha.hexdigest()


def send_all(sock: socket.socket, total: int) -> None:
    """Send total bytes."""
    for chunk in chunks(total):
        sock.sendall(chunk)


def put(sock: socket.socket, total: int) -> str:
    """Send total bytes to the transfer app and return the digest that it answers."""
    sock.sendall(b"PUT %d\n" % total)
    send_all(sock, total)
    return sock.makefile("rb").readline().decode().strip()


def get(sock: socket.socket, total: int) -> str:
    """Ask the transfer app for total bytes; the digest of what came."""
    sock.sendall(b"GET %d\n" % total)
    return receive_all(sock, total)


def echo_both_ways(sock: socket.socket, total: int) -> str:
    """Send total bytes to an echo while receiving them; the digest of what came."""
    trouble: list[BaseException] = []

    def feed() -> None:
        try:
            send_all(sock, total)
        except OSError as error:
            trouble.append(error)

    sender = threading.Thread(target=feed)
    sender.start()
    try:
        return receive_all(sock, total)
    finally:
        sender.join()
        assert not trouble, trouble
