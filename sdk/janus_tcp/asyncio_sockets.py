"""What stands in for sockets that do not exist: applications ask them for names and set options on them."""

import errno
import socket
from typing import Any

from janus_tcp.addresses import unpack
from janus_tcp.asyncio_types import Poller

# Options that tune kernel buffers and sharing: accepted, without effect.
IGNORED = {
    (socket.SOL_SOCKET, socket.SO_REUSEADDR),
    (socket.SOL_SOCKET, socket.SO_REUSEPORT),
    (socket.SOL_SOCKET, socket.SO_SNDBUF),
    (socket.SOL_SOCKET, socket.SO_RCVBUF),
    (socket.SOL_SOCKET, socket.SO_LINGER),
    (socket.IPPROTO_TCP, socket.TCP_QUICKACK),
    (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY),
}
KEEPALIVE_DEFAULT_S = 7200
# Options that are a setting of the stack, which counts milliseconds where sockets count seconds.
SETTINGS = {
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): ("keepalive_ms", 1000),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL): ("keepalive_interval_ms", 1000),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT): ("keepalive_probes", 1),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT): ("user_timeout_ms", 1),
    (socket.IPPROTO_IP, socket.IP_TTL): ("ttl", 1),
    (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS): ("ttl", 1),
}
# The whole field, of which ECN's two bits are the stack's.
FIELDS = {(socket.IPPROTO_IP, socket.IP_TOS), (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)}


def endpoint(packed: bytes | None, port: int) -> tuple[Any, ...]:
    """A name as sockets have it: two fields for IPv4, four for IPv6."""
    if packed is None:
        return ("0.0.0.0", port)
    host = unpack(packed)
    return (host, port, 0, 0) if ":" in host else (host, port)


class PretendedSocket:
    """The part of socket.socket that asks and tunes; there is no descriptor."""

    type = socket.SOCK_STREAM
    proto: int = socket.IPPROTO_TCP

    @property
    def family(self) -> socket.AddressFamily:
        """AF_INET or AF_INET6."""
        return socket.AF_INET if len(self.getsockname()) == 2 else socket.AF_INET6

    def getsockname(self) -> tuple[Any, ...]:
        """This side's name."""
        raise NotImplementedError

    def getpeername(self) -> tuple[Any, ...]:
        """The peer's name; OSError ENOTCONN on a listening one."""
        raise OSError(errno.ENOTCONN, "the socket listens")

    def fileno(self) -> int:
        """-1: the connection is in this process, the kernel does not know it."""
        return -1

    def gettimeout(self) -> float:
        """0: as asyncio's sockets."""
        return 0.0

    def setblocking(self, flag: bool) -> None:
        """False alone."""
        if flag:
            raise ValueError("a socket of an event loop cannot block")

    def setsockopt(self, level: int, name: int, value: int | bytes, length: int = 0) -> None:
        """Accepts what has no meaning here; OSError ENOPROTOOPT for what is not known."""
        if (level, name) not in IGNORED:
            raise OSError(errno.ENOPROTOOPT, f"Janus has no socket option {name} of level {level}")

    def getsockopt(self, level: int, name: int, length: int = 0) -> int | bytes:
        """Nothing is set by default."""
        if (level, name) == (socket.SOL_SOCKET, socket.SO_TYPE):
            return int(socket.SOCK_STREAM)
        return 0 if length == 0 else bytes(length)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of Janus {self.getsockname()}>"


class ListeningSocket(PretendedSocket):
    """What asyncio.Server holds for a port on Janus."""

    def __init__(self, stack: Poller, address: bytes | None, port: int) -> None:
        self.stack = stack
        self.address = address
        self.port = port
        self.serving: bool = False  # it has the port, and no other server

    def getsockname(self) -> tuple[Any, ...]:
        """Where it listens."""
        return endpoint(self.address, self.port)

    def listen(self, backlog: int = 0) -> None:
        """The loop does it; the stack's bound of half-open connections holds instead of the backlog."""

    def close(self) -> None:
        """The loop does it."""


class ConnectionSocket(PretendedSocket):
    """get_extra_info("socket") of a connection."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def getsockname(self) -> tuple[Any, ...]:
        """This side's name, also after the end."""
        name: tuple[Any, ...] = self._transport.get_extra_info("sockname")
        return name

    def getpeername(self) -> tuple[Any, ...]:
        """The peer's name, also after the end."""
        name: tuple[Any, ...] = self._transport.get_extra_info("peername")
        return name

    def setsockopt(self, level: int, name: int, value: int | bytes, length: int = 0) -> None:
        """TCP_NODELAY, SO_KEEPALIVE, TCP_KEEPIDLE, _KEEPINTVL, _KEEPCNT, TCP_USER_TIMEOUT, IP_TOS and IP_TTL, and
        what IPv6 calls these two, have their effect.

        OSError EINVAL for a value out of bounds.
        """
        number = value if isinstance(value, int) else int.from_bytes(value[:4], "little")
        if (level, name) == (socket.IPPROTO_TCP, socket.TCP_NODELAY):
            self._transport._set_option("nodelay", bool(number))
        elif (level, name) == (socket.SOL_SOCKET, socket.SO_KEEPALIVE):
            if bool(number) != bool(self._transport._option("keepalive_ms")):
                self._transport._set_option("keepalive_ms", KEEPALIVE_DEFAULT_S * 1000 if number else 0)
        elif (level, name) in FIELDS:
            if not 0 <= number <= 255:
                raise OSError(errno.EINVAL, f"{number} is no Differentiated Services field")
            self._transport._set_option("dscp", number >> 2)
        elif (level, name) in SETTINGS:
            setting, unit = SETTINGS[level, name]
            if not 0 <= number * unit < 2**31:
                raise OSError(errno.EINVAL, f"{number} is out of the bounds of {setting}")
            self._transport._set_option(setting, number * unit)
        else:
            super().setsockopt(level, name, value, length)

    def getsockopt(self, level: int, name: int, length: int = 0) -> int | bytes:
        """What setsockopt() has set of keepalive, user timeout and IP."""
        if (level, name) == (socket.SOL_SOCKET, socket.SO_KEEPALIVE):
            number = int(bool(self._transport._option("keepalive_ms")))
        elif (level, name) in FIELDS:
            number = self._transport._option("dscp") << 2
        elif (level, name) in SETTINGS:
            setting, unit = SETTINGS[level, name]
            number = self._transport._option(setting) // unit
        else:
            return super().getsockopt(level, name, length)
        return number if length == 0 else number.to_bytes(4, "little")[:length]


__all__ = ["ConnectionSocket", "ListeningSocket", "PretendedSocket", "endpoint"]
