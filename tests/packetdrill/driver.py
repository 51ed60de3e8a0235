"""A caller of libjanus_packetdrill.so like packetdrill: loads it apart, calls its table, blocks in a second thread."""

import ctypes
import os
import socket
import struct
import threading
import time
from ctypes import CFUNCTYPE, POINTER, byref, c_char_p, c_int, c_long, c_longlong, c_size_t, c_uint, c_void_p
from pathlib import Path
from typing import Any

from tests.packet_scripts import wire
from tests.packet_scripts.script import Option
from tests.packet_scripts.wire import Segment

ROOT = Path(__file__).resolve().parent.parent.parent
LIBRARY = ROOT / "build/release/libjanus_packetdrill.so"
PORT = 8080
PEER_ISN = 5000

_ADDRESS = [c_int, c_void_p, c_uint]
_TABLE: list[tuple[str, Any, list[Any]]] = [
    ("free", None, []),
    ("socket", c_int, [c_int, c_int, c_int]),
    ("bind", c_int, _ADDRESS),
    ("listen", c_int, [c_int, c_int]),
    ("accept", c_int, [c_int, c_void_p, c_void_p]),
    ("connect", c_int, _ADDRESS),
    ("read", c_long, [c_int, c_void_p, c_size_t]),
    ("readv", c_long, [c_int, c_void_p, c_int]),
    ("recv", c_long, [c_int, c_void_p, c_size_t, c_int]),
    ("recvfrom", c_long, [c_int, c_void_p, c_size_t, c_int, c_void_p, c_void_p]),
    ("recvmsg", c_long, [c_int, c_void_p, c_int]),
    ("write", c_long, [c_int, c_void_p, c_size_t]),
    ("writev", c_long, [c_int, c_void_p, c_int]),
    ("send", c_long, [c_int, c_void_p, c_size_t, c_int]),
    ("sendto", c_long, [c_int, c_void_p, c_size_t, c_int, c_void_p, c_uint]),
    ("sendmsg", c_long, [c_int, c_void_p, c_int]),
    ("fcntl", c_int, [c_int, c_int, c_int]),
    ("ioctl", c_int, [c_int, c_size_t, c_void_p]),
    ("close", c_int, [c_int]),
    ("shutdown", c_int, [c_int, c_int]),
    ("getsockopt", c_int, [c_int, c_int, c_int, c_void_p, c_void_p]),
    ("setsockopt", c_int, [c_int, c_int, c_int, c_void_p, c_uint]),
    ("poll", c_int, [c_void_p, c_size_t, c_int]),
    ("netdev_send", c_int, [c_void_p, c_size_t]),
    ("netdev_receive", c_int, [c_void_p, c_void_p, c_void_p]),
    ("usleep", c_int, [c_uint]),
    ("gettimeofday", c_int, [c_void_p, c_void_p]),
    ("epoll_create", c_int, [c_int]),
    ("epoll_ctl", c_int, [c_int, c_int, c_int, c_void_p]),
    ("epoll_wait", c_int, [c_int, c_void_p, c_int, c_int]),
    ("pipe", c_int, [c_void_p]),
    ("splice", c_int, [c_int, c_void_p, c_int, c_void_p, c_size_t, c_uint]),
]


class Interface(ctypes.Structure):
    _fields_ = [
        ("userdata", c_void_p),
        *((name, CFUNCTYPE(result, c_void_p, *args, use_errno=True)) for name, result, args in _TABLE),
    ]


class Driver:
    """One script's worth: init() to free().  A call that fails raises OSError, as in Python's socket module."""

    def __init__(self, flags: str | None = None, v6: bool = False) -> None:
        mode = os.RTLD_NOW | os.RTLD_LOCAL | os.RTLD_NODELETE | os.RTLD_DEEPBIND
        library = ctypes.CDLL(str(LIBRARY), mode=mode)
        library.packetdrill_interface_init.argtypes = [c_char_p, POINTER(Interface)]
        library.packetdrill_interface_init.restype = None
        self.ifc = Interface()
        library.packetdrill_interface_init(flags.encode() if flags is not None else None, byref(self.ifc))
        self.family = socket.AF_INET6 if v6 else socket.AF_INET
        self.local, self.remote = ("fd3d:a0b:17d6::1", "2001:db8::1") if v6 else ("192.168.0.1", "192.0.2.1")

    def call(self, name: str, *args: Any) -> int:
        result = getattr(self.ifc, name)(None, *args)
        if result is not None and result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), name)
        return int(result or 0)

    # --- time and the wire ---

    def now_us(self) -> int:
        buffer = ctypes.create_string_buffer(16)
        self.call("gettimeofday", buffer, None)
        seconds, us = struct.unpack("qq", buffer.raw)
        return int(seconds) * 1_000_000 + int(us)

    def send(self, packet: Segment) -> None:
        data = packet.build()
        self.call("netdev_send", data, len(data))

    def receive(self) -> Segment | None:
        """The next packet of the stack, its time in at_us; None: it sends nothing more."""
        buffer, length, at = ctypes.create_string_buffer(65536), c_size_t(65536), c_longlong()
        self.call("netdev_receive", buffer, byref(length), byref(at))
        return wire.parse(buffer.raw[: length.value], at.value) if length.value else None

    def expect(self, flags: str, **fields: Any) -> Segment:
        got = self.receive()
        assert got is not None, f"no packet {flags} came"
        assert set(wire.bits_to_flags(got.flags)) - {"P"} == set(flags), got
        for name, value in fields.items():
            assert getattr(got, name) == value, f"{name} of a {len(got.data)}-byte segment at {got.at_us}"
        return got

    # --- sockets ---

    def address(self, ip: str, port: int) -> bytes:
        if self.family == socket.AF_INET6:
            return struct.pack(
                "=HHI16sI", self.family, socket.htons(port), 0, socket.inet_pton(self.family, ip), 0
            )
        return struct.pack("=HH4s8x", self.family, socket.htons(port), socket.inet_pton(self.family, ip))

    def socket(self, nonblock: bool = False) -> int:
        return self.call(
            "socket", self.family, socket.SOCK_STREAM | (socket.SOCK_NONBLOCK if nonblock else 0), 0
        )

    def listener(self) -> int:
        fd = self.socket()
        address = self.address(self.local, PORT)
        self.call("bind", fd, address, len(address))
        self.call("listen", fd, 1)
        return fd

    def connect(self, fd: int) -> None:
        address = self.address(self.remote, PORT)
        self.call("connect", fd, address, len(address))

    def accept(self, fd: int) -> tuple[int, str, int]:
        buffer, length = ctypes.create_string_buffer(64), c_uint(64)
        got = self.call("accept", fd, buffer, byref(length))
        if self.family == socket.AF_INET6:
            _, port, _, ip, _ = struct.unpack_from("=HHI16sI", buffer.raw)
        else:
            _, port, ip = struct.unpack_from("=HH4s", buffer.raw)
        return got, socket.inet_ntop(self.family, ip), socket.ntohs(port)

    def read(self, fd: int, count: int = 65536, flags: int = 0) -> bytes:
        buffer = ctypes.create_string_buffer(count)
        got = self.call("recv", fd, buffer, count, flags)
        return buffer.raw[:got]

    def write(self, fd: int, data: bytes) -> int:
        return self.call("write", fd, data, len(data))

    def option(self, fd: int, level: int, name: int, length: int = 4) -> bytes:
        buffer, got = ctypes.create_string_buffer(length), c_uint(length)
        self.call("getsockopt", fd, level, name, buffer, byref(got))
        return buffer.raw[: got.value]

    def established(self, options: tuple[Option, ...] = (Option("mss", (1000,)),)) -> tuple[int, "Peer", int]:
        """A connection that the peer has opened: its descriptor, the peer, the listener."""
        listener = self.listener()
        peer = Peer(self)
        peer.send("S", options=options)
        peer.learn(self.expect("S."))
        peer.send(".")
        fd, ip, port = self.accept(listener)
        assert (ip, port) == (self.remote, peer.port)
        return fd, peer, listener


class Peer:
    """The other end of one connection; it acknowledges what it was told to have heard."""

    def __init__(self, driver: Driver, port: int = 40000, stack_port: int = PORT) -> None:
        self.driver, self.port, self.stack_port = driver, port, stack_port
        self.seq, self.ack = PEER_ISN, 0

    def learn(self, got: Segment) -> Segment:
        self.ack = got.seq + len(got.data) + bool(got.flags & 3)
        return got

    def send(
        self, flags: str, data: bytes = b"", options: tuple[Option, ...] = (), bad: bool = False
    ) -> None:
        d = self.driver
        bits = wire.flags_to_bits(flags)
        d.send(
            Segment(
                d.remote, d.local, self.port, self.stack_port, self.seq, self.ack, bits, 65535, 0, options, data,
                bad_checksum=bad,
            )
        )  # fmt: skip
        self.seq += 0 if bad else len(data) + bool(bits & 3)


class Blocked:
    """A call in a thread of its own; returns when that thread sleeps, as packetdrill waits for it to."""

    def __init__(self, driver: Driver, call: Any) -> None:
        self.driver, self.result, self.at_us = driver, None, 0
        self.call = call
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()
        while self.thread.is_alive() and self.state() != "S":
            time.sleep(0.001)

    def state(self) -> str:
        try:
            text = Path(f"/proc/self/task/{self.thread.native_id}/stat").read_text()
        except OSError:
            return "S"
        return text.rpartition(")")[2].split()[0]

    def run(self) -> None:
        try:
            self.result = self.call()
        except OSError as e:
            self.result = e.errno
        self.at_us = self.driver.now_us()

    def is_waiting(self) -> bool:
        return self.at_us == 0

    def done(self) -> Any:
        self.thread.join(10)
        assert not self.thread.is_alive(), "the call still blocks"
        return self.result
