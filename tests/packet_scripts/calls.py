"""From a call as the script writes it to the socket call: arguments, flags, options, and what it must give back."""

import errno
import socket
from collections.abc import Callable, Generator
from typing import Any

from _tcp import ffi, lib

from tests.packet_scripts import sockets
from tests.packet_scripts.script import ELLIPSIS, Apply, Call, Or, Symbol, Unsupported, Value
from tests.packet_scripts.sockets import Blocking, CallFailed, Result, Socket, Sockets, fail

POLL = {n: getattr(sockets, n) for n in ("POLLIN", "POLLOUT", "POLLERR", "POLLHUP", "POLLRDHUP")}
POLL |= {"POLLRDNORM": 0, "POLLWRNORM": 0}
SEND_FLAGS = {"MSG_NOSIGNAL", "MSG_DONTWAIT", "MSG_OOB"}
RECV_FLAGS = {"MSG_PEEK", "MSG_DONTWAIT", "MSG_WAITALL"}
NUMBERS = {
    "TCP_KEEPIDLE": "keepidle_s",
    "TCP_KEEPINTVL": "keepintvl_s",
    "TCP_KEEPCNT": "keepcnt",
    "TCP_USER_TIMEOUT": "user_timeout_ms",
}
REMEMBERED = {"SO_REUSEADDR", "SO_REUSEPORT", "SO_PRIORITY", "SO_MARK"}
BUFFERS = {"SO_RCVBUF": "rcv_buf_bytes", "SO_SNDBUF": "snd_buf_bytes"}
CONTROLS = {
    "reno": "TCP_CC_NEWRENO",
    "newreno": "TCP_CC_NEWRENO",
    "cubic": "TCP_CC_CUBIC",
    "dctcp": "TCP_CC_DCTCP",
    "bbr": "TCP_CC_BBR",
}


def names(value: Value) -> set[str]:
    """Flags as the set of their names."""
    if isinstance(value, Or):
        return set().union(*map(names, value.parts))
    if isinstance(value, Symbol):
        return {value.name}
    if value is ELLIPSIS or value == 0:
        return set()
    raise Unsupported(f"flags {value}")


def number(value: Value) -> int:
    if isinstance(value, int):
        return value
    if isinstance(value, list) and len(value) == 1:
        return number(value[0])
    if isinstance(value, Symbol):
        if hasattr(errno, value.name):
            return int(getattr(errno, value.name))
        if value.name in ("INT_MAX", "UINT_MAX"):
            return 2**31 - 1
    raise Unsupported(f"the value {value}")


def port_of(value: Value, default: int) -> int:
    """sin_port of an address, or the default."""
    if value is ELLIPSIS:
        return default
    if isinstance(value, dict):
        for key in ("sin_port", "sin6_port"):
            port = value.get(key, ELLIPSIS)
            if isinstance(port, Apply) and port.name == "htons":
                return number(port.args[0])
            if port is not ELLIPSIS:
                return number(port)
        return default
    raise Unsupported(f"the address {value}")


def iov_bytes(value: Value) -> int:
    if not isinstance(value, list):
        raise Unsupported(f"iovec {value}")
    total = 0
    for v in value:
        total += number(v["iov_len"]) if isinstance(v, dict) else number(v[1])
    return total


class Calls:
    """Finds the socket by its descriptor, checks what comes back in the arguments."""

    def __init__(self, table: Sockets, bind_port: int, connect_port: int) -> None:
        self.sockets = table
        self.bind_port, self.connect_port = bind_port, connect_port
        self.epolls: dict[int, dict[int, int]] = {}  # what each watches

    def begin(self, call: Call) -> Blocking:
        """The call, running; Unsupported when it has no counterpart."""
        method: Callable[[Call], Blocking] | None = getattr(self, f"call_{call.name}", None)
        if method is None:
            raise Unsupported(f"call {call.name}()")
        return method(call)

    def socket_of(self, call: Call) -> Socket:
        return self.find(number(call.args[0]))

    def find(self, fd: int) -> Socket:
        if fd not in self.sockets.table:
            raise CallFailed(f"descriptor {fd} is not open")
        return self.sockets.table[fd]

    def install(self, call: Call, s: Socket) -> Result:
        """The script says which number a new descriptor has."""
        if call.result is ELLIPSIS:
            raise Unsupported("a new descriptor without a number")
        fd = number(call.result)
        if fd < 0:
            raise CallFailed(f"{call.name}() succeeded")
        if fd in self.sockets.table:
            raise CallFailed(f"descriptor {fd} is open already")
        self.sockets.table[fd] = s
        return fd, None

    # --- opening ---

    def call_socket(self, call: Call) -> Blocking:
        yield from ()
        domain, kind, protocol = call.args
        kinds = names(kind)
        if "SOCK_STREAM" not in kinds and kind is not ELLIPSIS:
            raise Unsupported(f"socket type {kind}")
        if protocol not in (ELLIPSIS, 0) and names(protocol) != {"IPPROTO_TCP"}:
            raise Unsupported(f"protocol {protocol}")
        family = "..." if domain is ELLIPSIS else next(iter(names(domain)))
        return self.install(call, Socket(family, "SOCK_NONBLOCK" in kinds))

    def call_bind(self, call: Call) -> Blocking:
        yield from ()
        self.socket_of(call).port = port_of(call.args[1], self.bind_port)
        return 0, None

    def call_listen(self, call: Call) -> Blocking:
        yield from ()
        return self.sockets.listen(self.socket_of(call), self.bind_port)

    def accept(self, call: Call, nonblock: bool) -> Blocking:
        s = self.socket_of(call)
        got = yield from self.sockets.accept(s, nonblock)
        return self.install(call, got) if isinstance(got, Socket) else got

    def call_accept(self, call: Call) -> Blocking:
        return self.accept(call, False)

    def call_accept4(self, call: Call) -> Blocking:
        return self.accept(call, "SOCK_NONBLOCK" in names(call.args[3]))

    def call_connect(self, call: Call) -> Blocking:
        return self.sockets.connect(self.socket_of(call), port_of(call.args[1], self.connect_port))

    def ports_of(self, conn: int) -> tuple[int, int]:
        """Local and remote port of a connection."""
        flow = ffi.new("struct flow *")
        lib.tcp_flow(self.sockets.machine.tcp, conn, flow)
        return int(flow.lport), int(flow.rport)

    # --- data ---

    def read(self, call: Call, count: int, flags: set[str]) -> Blocking:
        if flags - RECV_FLAGS:
            raise Unsupported(f"flags {sorted(flags - RECV_FLAGS)} of {call.name}()")
        return self.sockets.read(
            self.socket_of(call),
            count,
            peek="MSG_PEEK" in flags,
            dont_wait="MSG_DONTWAIT" in flags,
            whole="MSG_WAITALL" in flags,
        )

    def write(self, call: Call, count: int, flags: set[str]) -> Blocking:
        if flags - SEND_FLAGS:
            raise Unsupported(f"flags {sorted(flags - SEND_FLAGS)} of {call.name}()")
        return self.sockets.write(
            self.socket_of(call), count, dont_wait="MSG_DONTWAIT" in flags, urgent="MSG_OOB" in flags
        )

    def call_read(self, call: Call) -> Blocking:
        return self.read(call, number(call.args[2]), set())

    def call_recv(self, call: Call) -> Blocking:
        return self.read(call, number(call.args[2]), names(call.args[3]))

    call_recvfrom = call_recv

    def call_readv(self, call: Call) -> Blocking:
        return self.read(call, iov_bytes(call.args[1]), set())

    def call_recvmsg(self, call: Call) -> Blocking:
        return self.read(call, iov_bytes(call.args[1]["msg_iov"]), names(call.args[2]))

    def call_write(self, call: Call) -> Blocking:
        return self.write(call, number(call.args[2]), set())

    def call_send(self, call: Call) -> Blocking:
        return self.write(call, number(call.args[2]), names(call.args[3]))

    call_sendto = call_send

    def call_writev(self, call: Call) -> Blocking:
        return self.write(call, iov_bytes(call.args[1]), set())

    def call_sendmsg(self, call: Call) -> Blocking:
        return self.write(call, iov_bytes(call.args[1]["msg_iov"]), names(call.args[2]))

    # --- ending ---

    def call_shutdown(self, call: Call) -> Blocking:
        yield from ()
        return self.sockets.shutdown(self.socket_of(call), next(iter(names(call.args[1]))))

    def call_close(self, call: Call) -> Blocking:
        yield from ()
        fd = number(call.args[0])
        if self.epolls.pop(fd, None) is not None:
            return 0, None
        for watched in self.epolls.values():
            watched.pop(fd, None)
        if fd not in self.sockets.table:
            return fail("EBADF")
        return self.sockets.close(self.sockets.table.pop(fd))

    # --- settings ---

    def call_fcntl(self, call: Call) -> Blocking:
        yield from ()
        s, command = self.socket_of(call), names(call.args[1])
        if command == {"F_GETFL"}:
            want = "O_NONBLOCK" in (names(call.result) if not isinstance(call.result, int) else set())
            if call.result is not ELLIPSIS and s.nonblock != want:
                raise CallFailed(f"O_NONBLOCK is {'on' if s.nonblock else 'off'}")
            return number(call.result) if isinstance(call.result, int) else 0, None
        if command == {"F_SETFL"}:
            s.nonblock = "O_NONBLOCK" in names(call.args[2])
            return 0, None
        raise Unsupported(f"fcntl({command})")

    def call_ioctl(self, call: Call) -> Blocking:
        yield from ()
        s, request = self.socket_of(call), names(call.args[1])
        if s.conn is None:
            return fail("EINVAL")
        if request <= {"SIOCINQ", "FIONREAD"}:
            got = self.sockets.ready(s)
        elif request <= {"SIOCOUTQ", "TIOCOUTQ"}:
            got = int(lib.tcp_unacked(self.sockets.machine.tcp, s.conn))
        else:
            raise Unsupported(f"ioctl({request})")
        self.expect_value(call.args[2], got)
        return 0, None

    @staticmethod
    def expect_value(want: Value, got: int) -> None:
        if want is not ELLIPSIS and number(want) != got:
            raise CallFailed(f"the value is {got}")

    def call_setsockopt(self, call: Call) -> Blocking:
        yield from ()
        s, value = self.socket_of(call), call.args[3]
        option = next(iter(names(call.args[2])), "?")
        machine = self.sockets.machine
        if option == "SO_LINGER":
            on, seconds = value.values() if isinstance(value, dict) else value
            if on and number(seconds):
                raise Unsupported("SO_LINGER with a time")
            s.reset_on_close = bool(number(on))
        elif option == "TCP_CONGESTION":
            if value not in CONTROLS:
                raise Unsupported(f"congestion control {value}")
            control = int(getattr(lib, CONTROLS[value]))
            if machine.tcp is None:
                machine.set("congestion_control", control)
            else:
                s.congestion = control
                self.sockets.apply(s)
        elif option in BUFFERS:
            machine.set(BUFFERS[option], number(value))
        elif option == "TCP_NODELAY":
            s.nodelay = number(value) != 0
            if s.conn is not None:
                lib.tcp_set_nodelay(machine.tcp, s.conn, s.nodelay)
        elif option == "SO_KEEPALIVE" or option in NUMBERS:
            if option == "SO_KEEPALIVE":
                s.keepalive = number(value) != 0
            else:
                setattr(s, NUMBERS[option], number(value))
            self.sockets.apply(s)
        elif option in REMEMBERED:
            s.kept[option] = number(value)
        else:
            raise Unsupported(f"setsockopt({option})")
        return 0, None

    def call_getsockopt(self, call: Call) -> Blocking:
        yield from ()
        s = self.socket_of(call)
        option = next(iter(names(call.args[2])), "?")
        values: dict[str, Callable[[], int]] = {
            "SO_ERROR": lambda: self.take_error(s),
            "TCP_NODELAY": lambda: int(s.nodelay),
            "SO_KEEPALIVE": lambda: int(s.keepalive),
            "TCP_MAXSEG": lambda: int(self.sockets.info(s).smss),
            "SO_ACCEPTCONN": lambda: int(s.listener != 0),
            "SO_TYPE": lambda: int(socket.SOCK_STREAM),
        }
        values |= {name: lambda field=field: getattr(s, field) for name, field in NUMBERS.items()}  # type: ignore[misc]
        values |= {name: lambda v=v: v for name, v in s.kept.items()}  # type: ignore[misc]
        if option not in values:
            raise Unsupported(f"getsockopt({option})")
        self.expect_value(call.args[3], values[option]())
        return 0, None

    def take_error(self, s: Socket) -> int:
        name = self.sockets.pending_error(s) if s.conn is not None else None
        return int(getattr(errno, name)) if name else 0

    # --- watching ---

    def until_ready(
        self, watched: list[tuple[int, int]], timeout_ms: int
    ) -> Generator[None, None, list[int]]:
        """The events of each (descriptor, events asked for), when there is one or the time is over."""
        machine = self.sockets.machine
        end_us = machine.now_us + timeout_ms * 1000 if timeout_ms >= 0 else None
        while True:
            got = [self.sockets.revents(self.find(fd), events) for fd, events in watched]
            if any(got) or (end_us is not None and machine.now_us >= end_us):
                machine.alarm_us = None
                return got
            machine.alarm_us = end_us
            yield

    @staticmethod
    def expect_events(fd: int, want: Value, got: int) -> None:
        if want is not ELLIPSIS and bits(want) != got:
            shown = "|".join(n for n, b in POLL.items() if b & got) or "0"
            raise CallFailed(f"revents of {fd} is {shown}")

    def call_poll(self, call: Call) -> Blocking:
        fds: list[dict[str, Any]] = call.args[0]
        watched = [(number(f["fd"]), bits(f["events"])) for f in fds]
        got = yield from self.until_ready(watched, number(call.args[2]))
        for f, (fd, _), revents in zip(fds, watched, got, strict=True):
            self.expect_events(fd, f.get("revents", ELLIPSIS), revents)
        return sum(map(bool, got)), None

    def call_epoll_create(self, call: Call) -> Blocking:
        yield from ()
        self.epolls[number(call.result)] = {}
        return number(call.result), None

    call_epoll_create1 = call_epoll_create

    def epoll_of(self, call: Call) -> dict[int, int]:
        fd = number(call.args[0])
        if fd not in self.epolls:
            raise CallFailed(f"descriptor {fd} is no epoll")
        return self.epolls[fd]

    def call_epoll_ctl(self, call: Call) -> Blocking:
        yield from ()
        watched, fd = self.epoll_of(call), number(call.args[2])
        operation = next(iter(names(call.args[1])))
        if (operation == "EPOLL_CTL_ADD") == (fd in watched):
            return fail("EEXIST" if fd in watched else "ENOENT")
        if operation == "EPOLL_CTL_DEL":
            del watched[fd]
        else:
            watched[fd] = bits(call.args[3]["events"])
        return 0, None

    def call_epoll_wait(self, call: Call) -> Blocking:
        """Level-triggered; of several ready descriptors the first ones in the order of their numbers."""
        watched = sorted(self.epoll_of(call).items())
        got = yield from self.until_ready(watched, number(call.args[3]))
        ready = [(fd, events) for (fd, _), events in zip(watched, got, strict=True) if events]
        wanted = call.args[1] if isinstance(call.args[1], list) else [call.args[1]]
        for (fd, events), want in zip(ready, wanted, strict=False):
            if isinstance(want, dict):
                self.expect_events(fd, want["events"], events)
                self.expect_value(want.get("fd", ELLIPSIS), fd)
        return min(len(ready), number(call.args[2])), None


def bits(value: Value) -> int:
    """Events of poll() and of epoll, whose numbers are the same."""
    wanted = {n.removeprefix("E") if n.startswith("EPOLL") else n for n in names(value)}
    if wanted - set(POLL):
        raise Unsupported(f"events {sorted(wanted - set(POLL))}")
    return sum(POLL[n] for n in wanted)
