"""Socket calls upon the core's calls, with the errors that a kernel gives.

A call is a generator: it yields while it must wait, and returns what the call returns, with the errno's name.
"""

import errno
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from _tcp import ffi, lib

from tests.packet_scripts.flow import stream
from tests.packet_scripts.machine import Machine
from tests.packet_scripts.script import Unsupported

Result = tuple[int, str | None]
Blocking = Generator[None, None, Result]
WRITE_BYTES = 1 << 20  # given to the core at a time
POLLIN, POLLOUT, POLLERR, POLLHUP, POLLRDHUP = 0x1, 0x4, 0x8, 0x10, 0x2000


class CallFailed(Exception):
    """What a call brought is not what the script says."""


@dataclass
class Socket:
    family: str
    nonblock: bool = False
    port: int = 0  # bound to
    listener: int = 0  # its number, 0: not listening
    conn: int | None = None
    connecting: bool = False
    error_taken: bool = False
    was_shut: bool = False
    reset_on_close: bool = False
    nodelay: bool = False
    keepalive: bool = False
    keepidle_s: int = 7200
    keepintvl_s: int = 75
    keepcnt: int = 9
    user_timeout_ms: int = 0
    congestion: int | None = None  # None: the stack's
    read_place: int = 0
    write_place: int = 0
    kept: dict[str, int] = field(default_factory=dict)  # options that only have to be given back


def fail(name: str) -> Result:
    return -1, name


class Sockets:
    """The table of file descriptors."""

    def __init__(self, machine: Machine, local_ip: str, remote_ip: str) -> None:
        self.machine = machine
        self.local_ip, self.remote_ip = local_ip, remote_ip
        self.table: dict[int, Socket] = {}
        self.listeners = 0
        self.latest: Socket | None = None  # the last that got a connection

    # --- state of a connection ---

    def state(self, s: Socket) -> int:
        return int(lib.tcp_conn_state(self.machine.tcp, s.conn))

    def pending_error(self, s: Socket) -> str | None:
        """The error that ended the connection, told once."""
        number = int(lib.tcp_error(self.machine.tcp, s.conn))
        if number == 0 or s.error_taken:
            return None
        s.error_taken = True
        return errno.errorcode[number]

    def ready(self, s: Socket) -> int:
        return int(lib.tcp_recv_ready(self.machine.tcp, s.conn))

    def eof(self, s: Socket) -> bool:
        return bool(lib.tcp_recv_eof(self.machine.tcp, s.conn))

    def is_over(self, s: Socket) -> bool:
        return self.state(s) in (lib.TCP_STATE_CLOSED, lib.TCP_STATE_TIME_WAIT)

    # --- opening ---

    def listen(self, s: Socket, default_port: int) -> Result:
        if s.conn is not None:
            return fail("EINVAL")
        if s.listener:
            return 0, None
        self.machine.start()
        self.listeners += 1
        s.port = s.port or default_port
        got = int(lib.tcp_listen(self.machine.tcp, self.machine.ip(None), s.port, self.listeners))
        if got:
            return fail(errno.errorcode[-got])
        s.listener = self.listeners
        return 0, None

    def accept(self, s: Socket, nonblock: bool) -> Generator[None, None, Socket | Result]:
        if not s.listener:
            return fail("EINVAL")
        while not (queue := self.machine.accepted.get(s.listener)):
            if s.nonblock:
                return fail("EAGAIN")
            yield
        new = Socket(s.family, nonblock, s.port, conn=queue.pop(0))
        new.reset_on_close = s.reset_on_close
        new.nodelay, new.keepalive, new.keepidle_s = s.nodelay, s.keepalive, s.keepidle_s
        new.keepintvl_s, new.keepcnt, new.user_timeout_ms = s.keepintvl_s, s.keepcnt, s.user_timeout_ms
        new.congestion = s.congestion
        self.apply(new)
        self.latest = new
        return new

    def connect(self, s: Socket, port: int) -> Blocking:
        m = self.machine
        if s.conn is None:
            for option in ("TS", "sackOK", "wscale"):
                m.need_option(option)
            m.start()
            conn = ffi.new("uint32_t *")
            got = lib.tcp_connect(
                m.tcp,
                m.ip(self.local_ip),
                s.port,
                m.ip(self.remote_ip),
                port,
                ffi.NULL,
                ffi.NULL,
                0,
                m.core_us,
                conn,
            )
            if got:
                return fail(errno.errorcode[-int(got)])
            s.conn, s.connecting, self.latest = int(conn[0]), True, s
            self.apply(s)
            if s.nonblock:
                return fail("EINPROGRESS")
        elif not s.connecting:
            return fail("EISCONN")
        while self.state(s) in (lib.TCP_STATE_SYN_SENT, lib.TCP_STATE_SYN_RECEIVED):
            if s.nonblock:
                return fail("EALREADY")
            yield
        s.connecting = False
        problem = self.pending_error(s)
        return fail(problem) if problem else (0, None)

    def apply(self, s: Socket) -> None:
        """Settings that wait for a connection."""
        if s.conn is None:
            return
        if s.nodelay:
            lib.tcp_set_nodelay(self.machine.tcp, s.conn, True)
        settings = ffi.new("struct tcp_settings *")
        lib.tcp_get_settings(self.machine.tcp, s.conn, settings)
        settings.keepalive_ms = s.keepidle_s * 1000 if s.keepalive else 0
        settings.keepalive_interval_ms, settings.keepalive_probes = s.keepintvl_s * 1000, s.keepcnt
        settings.user_timeout_ms = s.user_timeout_ms
        if s.congestion is not None:
            settings.congestion_control = s.congestion
        got = int(lib.tcp_set_settings(self.machine.tcp, s.conn, settings))
        if got:
            raise CallFailed(f"the core refuses these settings: {got}")

    # --- data ---

    def take(self, s: Socket, count: int, peek: bool) -> int:
        """Reads, and looks whether the bytes are those of that place in the stream."""
        got = min(count, self.ready(s))
        if peek:
            views = ffi.new("struct tcp_view[]", 1024)
            used = lib.tcp_recv_views(self.machine.tcp, s.conn, views, 1024)
            data = b"".join(bytes(ffi.buffer(views[i].data, views[i].len)) for i in range(used))[:got]
        else:
            buf = ffi.new("uint8_t[]", got)
            assert lib.tcp_recv(self.machine.tcp, s.conn, buf, got) == got
            data = bytes(ffi.buffer(buf, got))
        if data != stream(s.read_place, got):
            raise CallFailed(f"the {got} bytes from place {s.read_place} are not those that were sent there")
        if not peek:
            s.read_place += got
        return got

    def read(
        self, s: Socket, count: int, *, peek: bool = False, dont_wait: bool = False, whole: bool = False
    ) -> Blocking:
        if s.conn is None:
            return fail("ENOTCONN")
        done = 0
        while True:
            if self.ready(s):
                done += self.take(s, count - done, peek)
                if done == count or not whole:
                    return done, None
            if count == 0 or done == count:
                return done, None
            problem = None if done else self.pending_error(s)
            if problem:
                return fail(problem)
            if self.eof(s) or self.is_over(s):
                return done, None
            if (s.nonblock or dont_wait) and not done:
                return fail("EAGAIN")
            yield

    def write(self, s: Socket, count: int, *, dont_wait: bool = False, urgent: bool = False) -> Blocking:
        send = lib.tcp_send_urgent if urgent else lib.tcp_send
        if s.conn is None:
            return fail("EPIPE")
        done = 0
        while True:
            if s.was_shut:
                return fail("EPIPE")
            data = stream(s.write_place, min(count - done, WRITE_BYTES))
            taken = int(send(self.machine.tcp, s.conn, data, len(data)))
            if taken == -errno.ENOTCONN:
                if s.nonblock or dont_wait:
                    return fail("EAGAIN")
            elif taken < 0:
                if done:
                    return done, None
                return fail(self.pending_error(s) or "EPIPE")
            else:
                done += taken
                s.write_place += taken
                if done == count:
                    return done, None
                if taken == WRITE_BYTES:
                    continue
                if s.nonblock or dont_wait:
                    return (done, None) if done else fail("EAGAIN")
            yield

    # --- closing ---

    def shutdown(self, s: Socket, how: str) -> Result:
        if how == "SHUT_RD":
            raise Unsupported("shutdown(SHUT_RD)")
        if s.conn is None or (self.is_over(s) and not s.was_shut and not self.eof(s)):
            return fail("ENOTCONN")
        s.was_shut = True
        lib.tcp_shutdown(self.machine.tcp, s.conn, self.machine.core_us)
        return 0, None

    def close(self, s: Socket) -> Result:
        m = self.machine
        if s.listener:
            lib.tcp_unlisten(m.tcp, m.ip(None), s.port)
            for conn in m.accepted.pop(s.listener, []):
                lib.tcp_abort(m.tcp, conn, m.core_us)
        if s.conn is not None:
            end = lib.tcp_abort if s.reset_on_close else lib.tcp_close
            end(m.tcp, s.conn, m.core_us)
            s.conn = None
        if self.latest is s:
            self.latest = None
        return 0, None

    # --- watching ---

    def revents(self, s: Socket, events: int) -> int:
        if s.listener:
            return events & POLLIN if self.machine.accepted.get(s.listener) else 0
        if s.conn is None:
            return (events & POLLOUT) | POLLHUP
        got = 0
        if self.ready(s) or self.eof(s):
            got |= POLLIN
        if self.eof(s):
            got |= POLLRDHUP
        if self.state(s) in (lib.TCP_STATE_ESTABLISHED, lib.TCP_STATE_CLOSE_WAIT) and self.writable(s):
            got |= POLLOUT
        over = int(lib.tcp_error(self.machine.tcp, s.conn)) != 0 and not s.error_taken
        if over or self.is_over(s):
            got |= POLLIN | POLLOUT | POLLHUP | POLLRDHUP | (POLLERR if over else 0)
        return got & (events | POLLERR | POLLHUP)

    def writable(self, s: Socket) -> bool:
        info = self.info(s)
        buffer = self.machine.settings["snd_buf_bytes"] or 256 * 1024
        return bool(info.flight_bytes + info.unsent_bytes + info.smss <= buffer)

    def info(self, s: Socket) -> Any:
        info = ffi.new("struct tcp_info *")
        lib.tcp_get_info(self.machine.tcp, s.conn, info)
        return info
