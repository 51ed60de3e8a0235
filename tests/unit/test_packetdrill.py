"""libjanus_packetdrill.so, called as packetdrill calls it."""

import ctypes
import errno
import os
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.packet_scripts import wire
from tests.packet_scripts.script import Option
from tests.packetdrill.driver import LIBRARY, PORT, Blocked, Driver, Peer

pytestmark = pytest.mark.skipif(
    "libasan" in os.environ.get("LD_PRELOAD", ""),
    reason="AddressSanitizer refuses RTLD_DEEPBIND, with which the library is opened",
)
MS = 1000
TCP_INFO = 11


@contextmanager
def driver(flags: str | None = None, v6: bool = False) -> Iterator[Driver]:
    d = Driver(flags, v6)
    try:
        yield d
    finally:
        d.call("free")


both = pytest.mark.parametrize("v6", [False, True], ids=["IPv4", "IPv6"])


@both
def test_handshake_data_and_close(v6: bool) -> None:
    with driver(v6=v6) as d:
        fd, peer, _ = d.established()
        peer.send("P.", b"hello")
        assert d.read(fd) == b"hello"
        assert d.write(fd, b"x" * 1500) == 1500
        first = d.expect(".", data=b"x" * 1000, ack=peer.seq)
        peer.learn(first)
        peer.send(".")
        peer.learn(d.expect(".", data=b"x" * 500))
        peer.send(".")
        peer.send("F.")
        assert d.read(fd) == b""
        d.expect(".", ack=peer.seq)
        d.call("close", fd)
        peer.learn(d.expect("F."))
        peer.send(".")
        assert d.receive() is None


@both
def test_active_open(v6: bool) -> None:
    with driver(v6=v6) as d:
        fd = d.socket(nonblock=True)
        with pytest.raises(OSError, match="now in progress"):
            d.connect(fd)
        syn = d.expect("S", src=d.local, dst=d.remote, dport=PORT)
        peer = Peer(d, PORT, syn.sport)
        peer.learn(syn)
        peer.send("S.")
        d.expect(".")
        assert d.option(fd, socket.SOL_SOCKET, socket.SO_ERROR) == bytes(4)
        d.connect(fd)


def test_refused_and_unknown() -> None:
    with driver() as d:
        fd = d.socket(nonblock=True)
        with pytest.raises(OSError, match="now in progress"):
            d.connect(fd)
        peer = Peer(d, PORT, d.expect("S").sport)
        peer.ack = d.receive().seq + 1  # type: ignore[union-attr]  # the SYN's second copy
        peer.send("R.")
        assert d.option(fd, socket.SOL_SOCKET, socket.SO_ERROR) == struct.pack("i", errno.ECONNREFUSED)
        stranger = Peer(d, 50000, 9)
        stranger.send(".")
        d.expect("R")
        for name, args in [("listen", (fd, 1)), ("read", (999, None, 0)), ("shutdown", (fd, 2))]:
            with pytest.raises(OSError, match=r"Invalid|Bad|not connected"):
                d.call(name, *args)


def test_handles_are_descriptors_that_the_kernel_can_close() -> None:
    with driver() as d:
        fd, _, listener = d.established()
        os.close(fd)
        os.close(listener)
        assert d.socket() in (fd, listener), "a number that the kernel gave again is a new socket"


def test_a_blocking_call_sleeps_and_wakes_at_its_time() -> None:
    with driver() as d:
        listener = d.listener()
        accepting = Blocked(d, lambda: d.accept(listener))
        d.call("usleep", 10 * MS)
        assert accepting.is_waiting()
        peer = Peer(d)
        peer.send("S")
        peer.learn(d.expect("S."))
        before_us = d.now_us()
        peer.send(".")
        fd, _, _ = accepting.done()
        assert before_us <= accepting.at_us <= before_us + 10

        reading = Blocked(d, lambda: d.read(fd, 10, socket.MSG_WAITALL))
        peer.send(".", b"12345")
        d.call("usleep", 100 * MS)
        assert reading.is_waiting()
        before_us = d.now_us()
        peer.send(".", b"67890")
        assert reading.done() == b"1234567890"
        assert before_us <= reading.at_us <= before_us + 10


def test_a_blocking_call_ends_when_a_timer_ends_it() -> None:
    with driver() as d:
        fd = d.socket()
        begun_us = d.now_us()
        connecting = Blocked(d, lambda: d.connect(fd))
        d.call("usleep", 300 * 1000 * MS)
        assert connecting.done() == errno.ETIMEDOUT
        assert 180e6 < connecting.at_us - begun_us < 300e6


def test_a_blocking_write_goes_on_as_acks_come() -> None:
    with driver("snd_buf_bytes=8192") as d:
        fd, peer, _ = d.established()
        writing = Blocked(d, lambda: d.write(fd, bytes(20000)))
        heard = 0
        while heard < 20000:
            assert writing.is_waiting() or heard >= 20000 - 8192
            heard += len(peer.learn(d.expect(".")).data)
            peer.send(".")
        assert writing.done() == 20000


def test_the_main_thread_lets_time_pass_itself() -> None:
    with driver() as d:
        listener = d.listener()
        buffer = ctypes.create_string_buffer(struct.pack("ihh", listener, select.POLLIN, 0))
        before_us = d.now_us()
        assert d.call("poll", buffer, 1, 250) == 0
        assert 250 * MS <= d.now_us() - before_us < 251 * MS


@pytest.mark.parametrize("trigger", [0, select.EPOLLET, select.EPOLLONESHOT])
def test_epoll(trigger: int) -> None:
    with driver() as d:
        fd, peer, _ = d.established()
        ep = d.call("epoll_create", 1)
        ctl, add = (
            select.EPOLL_CTL_ADD if hasattr(select, "EPOLL_CTL_ADD") else 1,
            struct.pack("=IQ", select.EPOLLIN | trigger, 77),
        )
        d.call("epoll_ctl", ep, ctl, fd, add)
        events = ctypes.create_string_buffer(12)
        assert d.call("epoll_wait", ep, events, 1, 0) == 0
        waiting = Blocked(d, lambda: d.call("epoll_wait", ep, events, 1, -1))
        peer.send(".", b"a")
        assert waiting.done() == 1
        assert struct.unpack("=IQ", events.raw) == (select.EPOLLIN, 77)
        assert d.call("epoll_wait", ep, events, 1, 0) == (0 if trigger else 1)
        peer.send(".", b"b")
        assert d.call("epoll_wait", ep, events, 1, 0) == (0 if trigger == select.EPOLLONESHOT else 1)
        assert d.read(fd) == b"ab"
        assert d.call("epoll_wait", ep, events, 1, 0) == 0
        d.call("close", ep)


def test_receive_gives_up_without_a_packet_and_keeps_times() -> None:
    with driver() as d:
        before_us = d.now_us()
        assert d.receive() is None
        assert d.now_us() - before_us >= 130e6
        fd, peer, _ = d.established()
        d.write(fd, b"early")
        sent_us = d.now_us()
        d.call("usleep", 100 * MS)
        assert d.expect(".").at_us <= sent_us
        again = d.expect(".", data=b"early")
        assert again.at_us > sent_us + 100 * MS
        peer.learn(again)
        peer.send(".")


def test_a_long_packet_is_taken_as_its_segments() -> None:
    with driver("rcv_buf_bytes=65536") as d:
        fd, peer, _ = d.established()
        data = bytes(range(250)) * 200
        peer.send("P.", data)
        assert d.read(fd) == data
        assert d.expect(".").ack == peer.seq


def test_icmp_makes_segments_smaller() -> None:
    with driver() as d:
        fd, peer, _ = d.established((Option("mss", (1460,)),))
        d.write(fd, bytes(1460))
        packet = wire.build_icmp(d.expect(".", data=bytes(1460)), "icmp/unreachable", "frag_needed", 1000)
        assert packet is not None
        d.call("netdev_send", packet, len(packet))
        d.expect(".", data=bytes(960), ack=peer.seq)
        d.expect(".", data=bytes(500))


def test_a_wrong_checksum_is_not_taken() -> None:
    with driver() as d:
        fd, peer, _ = d.established()
        peer.send("P.", b"evil", bad=True)
        with pytest.raises(BlockingIOError):
            d.read(fd, 10, socket.MSG_DONTWAIT)
        peer.send("P.", b"good")
        assert d.read(fd) == b"good"


def test_linux_choices() -> None:
    with driver("linux,window_scale=8") as d:
        offer = (
            Option("mss", (1000,)),
            Option("sackOK"),
            Option("nop"),
            Option("nop"),
            Option("nop"),
            Option("wscale", (7,)),
        )
        listener = d.listener()
        peer = Peer(d)
        peer.send("S", options=offer)
        syn_ack = peer.learn(d.expect("S."))
        assert [str(o.kind) for o in syn_ack.options] == ["mss", "nop", "nop", "sackOK", "nop", "wscale"]
        assert syn_ack.options[-1].numbers == (8,)
        peer.send(".")
        fd, _, _ = d.accept(listener)
        for _ in range(16):
            before_us = d.now_us()
            peer.send("P.", b"a" * 100)
            assert d.expect(".", ack=peer.seq).at_us - before_us < MS, "quick ACK"
        d.call("usleep", 10 * MS)
        before_us = d.now_us()
        peer.send("P.", b"a" * 100)
        assert d.expect(".", ack=peer.seq).at_us - before_us > 20 * MS, "delayed ACK"
        d.write(fd, bytes(20000))
        assert sum(len(d.expect(".").data) for _ in range(10)) == 10000, "initial window of ten"
        assert d.expect(".", seq=peer.ack + 10000).at_us - before_us < 400 * MS, "a probe before the timeout"


def test_tcp_info_and_settings() -> None:
    with driver() as d:
        fd, _, listener = d.established()
        assert d.option(fd, socket.IPPROTO_TCP, TCP_INFO, 104)[0] == 1
        assert d.option(listener, socket.IPPROTO_TCP, TCP_INFO, 104)[0] == 10
        one = struct.pack("i", 1)
        d.call("setsockopt", fd, socket.IPPROTO_TCP, socket.TCP_NODELAY, one, 4)
        assert d.option(fd, socket.IPPROTO_TCP, socket.TCP_NODELAY) == one
        with pytest.raises(OSError, match="not available"):
            d.call("setsockopt", fd, socket.IPPROTO_TCP, 10000, one, 4)
        assert d.call("fcntl", fd, 3, 0) == os.O_RDWR
        d.call("fcntl", fd, 4, os.O_NONBLOCK)
        assert d.call("fcntl", fd, 3, 0) == os.O_RDWR | os.O_NONBLOCK


def test_settings_of_the_core_have_their_linux_names() -> None:
    with driver() as d:
        fd, _, listener = d.established()
        for name, value in (
            (socket.TCP_KEEPINTVL, 30),
            (socket.TCP_KEEPCNT, 4),
            (socket.TCP_USER_TIMEOUT, 5000),
        ):
            d.call("setsockopt", fd, socket.IPPROTO_TCP, name, struct.pack("i", value), 4)
            assert d.option(fd, socket.IPPROTO_TCP, name) == struct.pack("i", value)
        assert d.option(listener, socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == struct.pack("i", 9)
        d.call("setsockopt", fd, socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"dctcp", 5)
        assert d.option(fd, socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16) == b"dctcp\0"
        with pytest.raises(OSError, match="No such file"):
            d.call("setsockopt", fd, socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"vegas", 5)
        with pytest.raises(OSError, match="not available"):
            d.call("setsockopt", fd, socket.IPPROTO_TCP, socket.TCP_KEEPCNT, struct.pack("i", 16), 4)


def test_the_user_timeout_ends_a_blocking_call() -> None:
    with driver() as d:
        fd, _, _ = d.established()
        d.call("setsockopt", fd, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, struct.pack("i", 5000), 4)
        d.write(fd, b"nobody acknowledges this")
        begun_us = d.now_us()
        reading = Blocked(d, lambda: d.read(fd))
        d.call("usleep", 60 * 1000 * MS)
        assert reading.done() == errno.ETIMEDOUT
        assert 5e6 <= reading.at_us - begun_us < 6e6


def test_each_init_begins_anew() -> None:
    seen = []
    for _ in range(5):
        with driver() as d:
            fd, peer, _ = d.established()
            d.write(fd, b"same")
            got = d.expect(".")
            seen.append((got.seq, got.at_us, fd, peer.ack))
            for socket_fd in {fd, fd - 1}:
                os.close(socket_fd)
    assert len(set(seen)) == 1, "the same script gives the same packets at the same times"


def test_preloaded_it_answers_for_the_kernel() -> None:
    """Scripts' assertions call the kernel's getsockopt on a live descriptor."""
    code = (
        "import ctypes, socket\n"
        "from tests.packetdrill.driver import Driver\n"
        "d = Driver()\n"
        "fd, _, _ = d.established()\n"
        "libc = ctypes.CDLL(None)\n"
        "info, size = ctypes.create_string_buffer(232), ctypes.c_uint(232)\n"
        "assert libc.getsockopt(fd, 6, 11, info, ctypes.byref(size)) == 0\n"
        "assert info.raw[0] == 1 and size.value >= 192\n"
        "s = socket.socket()\n"
        "assert s.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM\n"
    )
    env = os.environ | {"LD_PRELOAD": str(LIBRARY)}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=30, cwd=LIBRARY.parents[2])
