"""The far end of the veth: raw frames in and out of another namespace, from the same process."""

import ctypes
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

ETH_P_ALL = 0x0003
SOL_PACKET, PACKET_AUXDATA, TP_STATUS_VLAN_VALID = 263, 8, 0x10  # linux/if_packet.h
CLONE_NEWNET = 0x40000000
WAIT_S = 10.0

T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Be in a namespace for the moment; sockets made here stay there."""
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if _libc.setns(there, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        yield
    finally:
        _libc.setns(here, CLONE_NEWNET)
        os.close(here)
        os.close(there)


def until(check: Callable[[], T], what: str) -> T:
    """Call check until it gives something true; a deadline is a failure, not a measurement."""
    deadline = time.monotonic() + WAIT_S
    while not (found := check()):
        assert time.monotonic() < deadline, f"not within {WAIT_S} s: {what}"
        select.select([], [], [], 0.0005)
    return found


def with_tag(data: bytes, about: list[tuple[int, int, bytes]]) -> bytes:
    """The frame with the VLAN tag that the kernel has taken out of it."""
    for level, kind, value in about:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, _, _, _, _, tag = struct.unpack_from("IIIHHH", value)
            if status & TP_STATUS_VLAN_VALID:
                return data[:12] + struct.pack("!HH", 0x8100, tag) + data[12:]
    return data


class WireSide:
    """A raw socket on the peer's interface."""

    def __init__(self, namespace: str, interface: str) -> None:
        with inside(namespace):
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            self.socket.bind((interface, 0))
        self.socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self.socket.setblocking(False)
        self.backlog: list[Packet] = []
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)

    def send(self, frame: Packet | bytes) -> None:
        self.socket.send(bytes(frame))

    def frames(self) -> list[Packet]:
        """Take the frames that have arrived from the other end."""
        out = []
        while True:
            try:
                data, about, _, address = self.socket.recvmsg(65536, 64)
            except BlockingIOError:
                return out
            if address[2] != socket.PACKET_OUTGOING:
                out.append(Ether(with_tag(data, about)))

    def expect(self, match: Callable[[Packet], bool], what: str) -> Packet:
        """Wait for the next frame that matches; those before it are passed over, those behind it kept."""

        def look() -> Packet | None:
            self.backlog += self.frames()
            while self.backlog:
                if match(frame := self.backlog.pop(0)):
                    return frame
            return None

        found = until(look, what)
        assert found is not None
        return found


__all__ = ["ARP", "IP", "TCP", "Ether", "IPv6", "Packet", "WireSide", "inside", "until"]
