"""An asyncio event loop whose TCP runs on Janus where Janus serves the address, and on the kernel elsewhere."""

import asyncio
import heapq
import logging
import ssl as ssl_module
import time
import warnings
from asyncio import base_events, format_helpers, sslproto
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from socket import SOCK_STREAM, AddressFamily
from socket import socket as kernel_socket
from typing import Any, ClassVar

from janus_tcp.addresses import pack
from janus_tcp.asyncio_routes import hosts_of, is_any, is_loopback, networks, numeric, reached, tls_only
from janus_tcp.asyncio_selector import JanusSelector
from janus_tcp.asyncio_sendfile import send_file, send_stream
from janus_tcp.asyncio_sockets import ConnectionSocket, ListeningSocket
from janus_tcp.asyncio_types import Opened, Poller, Ready, Transport, make_poller
from janus_tcp.asyncio_workers import Membership
from janus_tcp.scheduler import local_addresses, open_thread, stats

LINGER_S = 1.0
LONGEST_S = 24 * 3600.0  # one sleep
MEASURE_ALL_US = 1

Factory = Callable[[], asyncio.BaseProtocol]
KERNEL: Any = (
    asyncio.SelectorEventLoop
)  # everything that is not Janus's; called by class, as mypy knows but half of it
logger: logging.Logger = logging.getLogger("asyncio")


class JanusEventLoop(Ready, asyncio.SelectorEventLoop):
    """asyncio's selector loop with Janus under its streams, servers and transports.

    It attaches to janusd when the first address is asked for that may be Janus's: not before, and never for
    loopback, Unix sockets or pipes.  app and socket are as in janus_tcp.run(); connect names the networks whose
    addresses are connected to through Janus (default: $JANUS_CONNECT, else none).  connections, recv_buffer and
    send_buffer are bounds of one loop: connections, and bytes per connection; 0 is the policy's or the stack's
    default.  Raises ValueError for a network that is none.

    >>> loop = JanusEventLoop(connect="10.0.0.0/8")
    >>> loop.run_until_complete(asyncio.sleep(0, "kernel and Janus alike"))
    'kernel and Janus alike'
    >>> loop.close()
    """

    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _selector: JanusSelector
    _clock_resolution: float
    _stopping: bool
    _closed = True  # until it is made
    _membership: ClassVar[Membership | None] = None  # of a worker's process

    def __init__(
        self,
        *,
        app: str | None = None,
        socket: str | None = None,
        connect: str | Sequence[str] | None = None,
        connections: int = 0,
        recv_buffer: int = 0,
        send_buffer: int = 0,
    ) -> None:
        self._options = {
            "app": app,
            "socket": socket,
            "connections": connections,
            "recv_buffer": recv_buffer,
            "send_buffer": send_buffer,
        }
        self._through = networks(connect)
        self._stack: Poller | None = None
        self._leased: set[bytes] = set()
        self._online = False
        KERNEL.__init__(self, self._make_selector())
        self._ready_is(self._ready)
        vars(self)["call_soon"] = self.call_soon  # looking it up takes no memory, which a future may not find

    def _make_selector(self) -> JanusSelector:
        return JanusSelector()

    # --- the stack ---

    def _attached(self) -> Poller:
        """The stack; OSError with janusd's reason when there is none to be had."""
        if self._stack is None:
            KERNEL._check_closed(self)
            self._stack = self._adopt(open_thread(**self._options))  # type: ignore[arg-type]
            self._leased = {pack(host) or b"" for host in local_addresses(self._stack)}  # type: ignore[arg-type]
        return self._stack

    def _adopt(self, thread: int, **settings: Any) -> Poller:
        stack = make_poller(thread, self, Transport, ConnectionSocket, **settings)
        stack.slow_us = MEASURE_ALL_US if self.get_debug() else 0
        self._selector.add_stack(stack)
        if self.is_running():
            stack.enter(True)
        return stack

    def _serves(self, address: bytes | None) -> Poller | None:
        """The stack that listens on an address (None: on every one); None: the kernel does."""
        stack = self._attached()
        return stack if address is None or address in self._leased else None

    def _reaches(self, address: bytes, local: bytes | None) -> Poller | None:
        """The stack that connects to an address from a local one; None: the kernel does."""
        if local is not None:
            return self._serves(local)
        return self._attached() if reached(address, self._through) else None

    def janus_stats(self) -> dict[str, Any] | None:
        """What the stack counts, as janus_tcp's own loops have it; None when it is not attached.  Never raises.

        >>> loop = JanusEventLoop()
        >>> loop.janus_stats() is None
        True
        >>> loop.close()
        """
        return stats(self._stack) if self._stack is not None else None  # type: ignore[arg-type]

    def _stacks(self) -> list[Poller]:
        selector = getattr(self, "_selector", None)  # none before it is made, and after close()
        return selector.stacks if selector is not None else []

    # --- running ---

    def run_forever(self) -> None:
        """Run until stop().  RuntimeError when a loop runs already, or this one is closed.

        >>> loop = PairEventLoop()
        >>> _ = loop.call_later(2.0, loop.stop)
        >>> loop.run_forever()
        >>> loop.close()
        """
        for stack in self._stacks():
            stack.enter(True)
        try:
            KERNEL.run_forever(self)
        finally:
            for stack in self._stacks():
                stack.enter(False)

    def _run_once(self) -> None:
        """asyncio's turn, with the callbacks run in C."""
        if self.get_debug() or self._scheduled:
            for handle in self._take_timers():
                heapq.heappush(self._scheduled, handle)
            base_events.BaseEventLoop._run_once(self)  # type: ignore[attr-defined]
            return
        timeout: float | None = None
        when = self._next_timer()
        if self._ready or self._stopping:
            timeout = 0
        elif when is not None:
            timeout = min(max(0, when - self.time()), LONGEST_S)
        events = self._selector.select(timeout)
        if events:
            KERNEL._process_events(self, events)
        if self._next_timer() is not None:
            self._queue_timers(self.time() + self._clock_resolution)
        self._run_ready()

    def set_debug(self, enabled: bool) -> None:
        """asyncio's debug mode; callbacks of connections that take slow_callback_duration seconds are named too.

        Never raises.

        >>> loop = PairEventLoop()
        >>> loop.set_debug(True)
        >>> loop.get_debug()
        True
        >>> loop.close()
        """
        KERNEL.set_debug(self, enabled)
        self._ready_slow(enabled)
        for stack in self._stacks():
            stack.slow_us = MEASURE_ALL_US if enabled else 0

    def _call_soon_slowly(self, *args: Any, **kwargs: Any) -> asyncio.Handle:
        handle: asyncio.Handle = KERNEL.call_soon(self, *args, **kwargs)
        if handle._source_traceback:  # type: ignore[attr-defined]
            del handle._source_traceback[-1]  # type: ignore[attr-defined]  # this frame
        return handle

    def _call_at_slowly(self, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        handle: asyncio.TimerHandle = KERNEL.call_at(self, *args, **kwargs)
        if handle._source_traceback:  # type: ignore[attr-defined]
            del handle._source_traceback[-1]  # type: ignore[attr-defined]  # this frame
        return handle

    def _call_later_slowly(self, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:
        handle: asyncio.TimerHandle = KERNEL.call_later(self, *args, **kwargs)
        if handle._source_traceback:  # type: ignore[attr-defined]
            del handle._source_traceback[-1]  # type: ignore[attr-defined]  # this frame
        return handle

    def _callback_failed(self, handle: asyncio.Handle, error: BaseException) -> None:
        source = format_helpers._format_callback_source(handle._callback, handle._args)  # type: ignore[attr-defined]
        self.call_exception_handler(
            {"message": f"Exception in callback {source}", "exception": error, "handle": handle}
        )

    def _report_slow(self, protocol: object, name: str, seconds: float) -> None:
        if seconds >= self.slow_callback_duration:
            logger.warning("Executing %s of %r took %.3f seconds", name, protocol, seconds)

    def _report_lost_write(self) -> None:
        logger.warning("socket.send() raised exception.")

    def close(self) -> None:
        """Let out what closed connections still owe (at most a second), reset open ones, detach.

        Warns with ResourceWarning of connections that were open.  RuntimeError when the loop runs.

        >>> loop = JanusEventLoop()
        >>> loop.close()
        >>> loop.is_closed()
        True
        """
        if self.is_running():
            raise RuntimeError("Cannot close a running event loop")
        if self.is_closed():
            return
        for stack in list(self._selector.stacks):
            self._close_stack(stack)
        self._stack = None
        KERNEL.close(self)
        self._ready_is(None)
        vars(self).pop("call_soon", None)

    def _close_stack(self, stack: Poller) -> None:
        if stack.open:
            warnings.warn(
                f"{stack.open} connections were open when {self!r} was closed",
                ResourceWarning,
                stacklevel=3,
                source=self,
            )
        with suppress(RuntimeError):  # a forked child leaves its parent's stack alone
            stack.drop()
            self._linger(stack)
            self._selector.remove_stack(stack)
        stack.close()

    def _linger(self, stack: Poller) -> None:
        end = time.monotonic() + LINGER_S
        while stats(stack)["usage"]["conns"] and time.monotonic() < end:  # type: ignore[arg-type]
            if not stack.poll():
                time.sleep(0.001)

    # --- servers ---

    async def create_server(  # type: ignore[override]
        self,
        protocol_factory: Factory,
        host: Any = None,
        port: int | None = None,
        *,
        sock: kernel_socket | None = None,
        ssl: ssl_module.SSLContext | None = None,
        backlog: int = 100,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        start_serving: bool = True,
        **rest: Any,
    ) -> asyncio.base_events.Server:
        """As asyncio's; addresses of the lease, and all addresses when none is named, are listened on by Janus.

        A kernel socket that is bound to all addresses serves as it is, and its port is listened on by Janus too.
        Times are in seconds; backlog has no effect on Janus.  Raises OSError: EADDRINUSE, EADDRNOTAVAIL,
        PermissionError with janusd's reason, FileNotFoundError without janusd; TypeError and ValueError as asyncio.

        >>> loop = PairEventLoop(host="10.77.0.1", client_host="10.77.0.2")
        >>> server = loop.run_until_complete(loop.create_server(asyncio.Protocol, loop.host, 80))
        >>> server.sockets[0].getsockname()
        ('10.77.0.1', 80)
        >>> loop.close()
        """
        times = {"ssl_handshake_timeout": ssl_handshake_timeout, "ssl_shutdown_timeout": ssl_shutdown_timeout}
        if isinstance(ssl, bool):
            raise TypeError("ssl argument must be an SSLContext or None")
        tls_only(ssl, **times)
        kept: dict[str, Any] = {"ssl": ssl, "backlog": backlog, **times}
        both = sock is not None and (host is not None or port is not None)  # which asyncio refuses
        ours, theirs = ([], []) if both else await self._listeners(host, port, sock)
        server: Any
        if not ours:
            server = await KERNEL.create_server(
                self, protocol_factory, host, port, sock=sock, start_serving=start_serving, **kept, **rest
            )
            return server  # type: ignore[no-any-return]
        sockets: list[Any] = list(ours)
        if theirs or sock is not None:
            where: tuple[Any, ...] = (None, None) if sock is not None else (theirs, port)
            server = await KERNEL.create_server(
                self, protocol_factory, *where, sock=sock, start_serving=False, **kept, **rest
            )
            sockets += server._sockets
        made = base_events.Server(
            self, sockets, protocol_factory, ssl, backlog, ssl_handshake_timeout, ssl_shutdown_timeout
        )
        if start_serving:
            try:
                made._start_serving()  # type: ignore[attr-defined]
            except BaseException:
                made.close()
                raise
        return made

    async def _listeners(
        self, host: Any, port: int | None, sock: kernel_socket | None
    ) -> tuple[list[ListeningSocket], list[str | None]]:
        """What Janus is to listen on, and the hosts that are left for the kernel."""
        if sock is not None:
            return self._adopted(sock), []
        number = int(port or 0)
        ours: dict[bytes | None, ListeningSocket] = {}
        theirs: list[str | None] = []
        for one in hosts_of(host):
            addresses = await self._resolved(one, port)
            served = [a for a in addresses if self._is_served(a, number)]
            for address in served:
                packed = pack(address)
                stack = self._serves(packed)
                if stack is not None and packed not in ours:
                    ours[packed] = ListeningSocket(stack, packed, self._port(number))
            if not served:
                theirs.append(one)
            elif len(served) < len(addresses):
                theirs += [a for a in addresses if a not in served]
        return list(ours.values()), theirs

    def _is_served(self, host: str | None, port: int) -> bool:
        """Loopback and any port are the kernel's: Janus has only the ports of its policy."""
        if numeric(host) is None or is_loopback(host) or port == 0:
            return False
        return self._serves(pack(host)) is not None

    def _port(self, port: int) -> int:
        return port

    async def _resolved(self, host: str | None, port: int | None) -> list[str | None]:
        """Addresses that a host stands for; what cannot be resolved is left for the kernel to refuse."""
        if not isinstance(host, str) or numeric(host) is not None:
            return [host]
        with suppress(OSError):
            found = await self.getaddrinfo(host, port, type=SOCK_STREAM)
            return list(dict.fromkeys(str(info[4][0]) for info in found or ())) or [host]
        return [host]

    def _adopted(self, sock: kernel_socket) -> list[ListeningSocket]:
        if getattr(sock, "type", None) != SOCK_STREAM or sock.family not in (
            AddressFamily.AF_INET,
            AddressFamily.AF_INET6,
        ):
            return []
        host, port = sock.getsockname()[:2]
        if port == 0 or not (is_any(host) or self._is_served(host, port)):
            return []
        stack = self._serves(pack(host))
        return [ListeningSocket(stack, pack(host), port)] if stack is not None else []

    def _start_serving(
        self,
        protocol_factory: Factory,
        sock: Any,
        sslcontext: ssl_module.SSLContext | None = None,
        server: Any = None,
        backlog: int = 100,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> None:
        if not isinstance(sock, ListeningSocket):
            KERNEL._start_serving(
                self,
                protocol_factory,
                sock,
                sslcontext,
                server,
                backlog,
                ssl_handshake_timeout,
                ssl_shutdown_timeout,
            )
            return
        if not self._online:
            if self._membership is not None:
                self._membership.starting(self, sock.stack)
            sock.stack.online()
            self._online = True
        if sslcontext is None:
            sock.stack.listen(sock.address, sock.port, protocol_factory, server, False)
            sock.serving = True
            return

        def accept(transport: Opened) -> None:
            self._start_tls(
                transport,
                protocol_factory(),
                sslcontext,
                ssl_handshake_timeout,
                ssl_shutdown_timeout,
                server_side=True,
            )[0].add_done_callback(self._handshaken)

        sock.stack.listen(sock.address, sock.port, accept, server, True)
        sock.serving = True

    def _stop_serving(self, sock: Any) -> None:
        if not isinstance(sock, ListeningSocket):
            KERNEL._stop_serving(self, sock)
        elif sock.serving:
            sock.serving = False
            with suppress(
                OSError, RuntimeError
            ):  # janusd is away, or the stack is closed: nobody comes anyway
                sock.stack.unlisten(sock.address, sock.port)

    # --- TLS ---

    def _start_tls(
        self,
        transport: Opened,
        protocol: asyncio.BaseProtocol,
        context: ssl_module.SSLContext | None,
        handshake_timeout: float | None,
        shutdown_timeout: float | None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> tuple[asyncio.Future[None], Any]:
        """A future for the handshake, and the transport that the protocol sees."""
        waiter: asyncio.Future[None] = self.create_future()
        tls = sslproto.SSLProtocol(
            self,
            protocol,
            context,  # type: ignore[arg-type]
            waiter,
            server_side,
            server_hostname,
            ssl_handshake_timeout=handshake_timeout,  # type: ignore[arg-type]
            ssl_shutdown_timeout=shutdown_timeout,
        )
        transport._start(tls)
        return waiter, tls._app_transport

    def _handshaken(self, waiter: asyncio.Future[None]) -> None:
        """A failed handshake of a client is nobody's error; debug mode tells."""
        error = None if waiter.cancelled() else waiter.exception()
        if error is not None and self.get_debug():
            self.call_exception_handler(
                {"message": "Error on transport creation for incoming connection", "exception": error}
            )

    # --- connections ---

    async def create_connection(  # type: ignore[override]
        self,
        protocol_factory: Factory,
        host: str | None = None,
        port: int | None = None,
        *,
        ssl: ssl_module.SSLContext | bool | None = None,
        family: int = 0,
        proto: int = 0,
        flags: int = 0,
        local_addr: tuple[str, int] | None = None,
        server_hostname: str | None = None,
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
        **rest: Any,
    ) -> tuple[Any, asyncio.BaseProtocol]:
        """As asyncio's; through Janus from a local address of the lease, and to the networks of connect.

        Times are in seconds.  ConnectionRefusedError, TimeoutError, or OSError EADDRNOTAVAIL: no address or port;
        ValueError for arguments that exclude each other, as asyncio.

        >>> loop = PairEventLoop()
        >>> loop.run_until_complete(loop.create_connection(asyncio.Protocol, loop.host, 80))
        Traceback (most recent call last):
        ConnectionRefusedError: [Errno 111] Connection refused
        >>> loop.close()
        """
        kept: dict[str, Any] = {
            "ssl_handshake_timeout": ssl_handshake_timeout,
            "ssl_shutdown_timeout": ssl_shutdown_timeout,
        }
        tls_only(ssl, server_hostname=server_hostname, **kept)
        found: list[tuple[Poller, bytes]] = []
        local = await self._local(local_addr)
        if host and rest.get("sock") is None and (local or self._may_reach()):
            found, port = await self._found(host, port, local, family=family, proto=proto, flags=flags)
        if not found:
            kept |= {"family": family, "proto": proto, "flags": flags, "server_hostname": server_hostname}
            made: tuple[Any, asyncio.BaseProtocol] = await KERNEL.create_connection(
                self, protocol_factory, host, port, ssl=ssl, local_addr=local_addr, **kept, **rest
            )
            return made
        transport = await self._open(found, port or 0, local, local_addr[1] if local_addr else 0)
        try:
            protocol = protocol_factory()
            if not ssl:
                transport._start(protocol)
                return transport, protocol
            waiter, above = self._start_tls(
                transport,
                protocol,
                None if isinstance(ssl, bool) else ssl,
                ssl_handshake_timeout,
                ssl_shutdown_timeout,
                server_hostname=server_hostname if server_hostname is not None else host,
            )
        except BaseException:
            transport.abort()
            raise
        try:
            await waiter
        except BaseException:
            above.close()
            raise
        return above, protocol

    async def _found(
        self, host: str, port: int | None, local: bytes | None, **kinds: int
    ) -> tuple[list[tuple[Poller, bytes]], int]:
        """The addresses of a host that are connected to through Janus, and the port's number."""
        infos = await KERNEL._ensure_resolved(  # an address in figures asks no thread
            self, (host, port), type=SOCK_STREAM, loop=self, **kinds
        )
        if not infos:
            raise OSError("getaddrinfo() returned empty list")
        packed = dict.fromkeys(pack(str(info[4][0])) or b"" for info in infos)
        reached_by = [(self._reaches(one, local), one) for one in packed if one]
        return [(stack, one) for stack, one in reached_by if stack is not None], int(infos[0][4][1])

    def _may_reach(self) -> bool:
        return bool(self._through)

    async def _local(self, local_addr: tuple[str, int] | None) -> bytes | None:
        """The local address when it is one of the lease."""
        if local_addr is None or is_loopback(local_addr[0]) or is_any(local_addr[0]):
            return None
        if numeric(local_addr[0]) is None:
            return None
        packed = pack(local_addr[0])
        return packed if self._serves(packed) is not None else None

    async def _open(
        self, found: list[tuple[Poller, bytes]], port: int, local: bytes | None, lport: int
    ) -> Opened:
        """The first that answers; the last one's error when none does."""
        error: OSError | None = None
        for stack, address in found:
            waiter: asyncio.Future[None] = self.create_future()
            try:
                transport = stack.connect(local, lport, address, port, waiter)
            except OSError as refused:
                error = refused
                continue
            try:
                await waiter
            except OSError as failed:
                error = failed
                continue
            except BaseException:
                transport.abort()
                raise
            return transport
        assert error is not None
        raise error

    # --- files ---

    async def _sendfile_native(self, transp: Any, file: Any, offset: int, count: int | None) -> int:
        if isinstance(transp, Transport):
            return await send_file(self, transp, file, offset, count)
        sent: int = await KERNEL._sendfile_native(self, transp, file, offset, count)
        return sent

    async def _sendfile_fallback(self, transp: Any, file: Any, offset: int, count: int | None) -> int:
        if isinstance(transp, Transport):
            return await send_stream(self, transp, file, offset, count)
        sent: int = await KERNEL._sendfile_fallback(self, transp, file, offset, count)
        return sent


__all__ = ["JanusEventLoop"]
