"""Protocols over two stacks in memory, in virtual time: the rules of asyncio's transports, one by one."""

import asyncio
import gc
import os
import socket
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from janus_tcp.asyncio_testing import PairEventLoop

Main = Callable[[PairEventLoop], Awaitable[Any]]
PORT = 7


@pytest.fixture
def loop() -> Iterator[PairEventLoop]:
    made = PairEventLoop()
    problems: list[dict[str, Any]] = []
    made.set_exception_handler(lambda _, context: problems.append(context))
    made.problems = problems  # type: ignore[attr-defined]
    yield made
    made.close()


class Recorder(asyncio.Protocol):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.data = b""
        self.lost: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.told.append("data")

    def eof_received(self) -> bool | None:
        self.told.append("eof")
        return False

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.told.append("lost")
        self.lost.set_result(exc)


class Echo(Recorder):
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.write(data)


async def pair_of(
    loop: PairEventLoop, server: Callable[[], Any], client: Callable[[], Any]
) -> tuple[Any, Any, asyncio.AbstractServer]:
    """A connected server's and client's protocol."""
    made: list[Any] = []

    def factory() -> Any:
        made.append(server())
        return made[-1]

    listening = await loop.create_server(factory, loop.host, PORT)
    _, protocol = await loop.create_connection(client, loop.host, PORT)
    while not made:
        await asyncio.sleep(0.01)
    return made.pop(), protocol, listening


def test_echo_and_the_order_of_callbacks(loop: PairEventLoop) -> None:
    async def main() -> None:
        server, client, _ = await pair_of(loop, Echo, Recorder)
        client.transport.write(b"one")
        await asyncio.sleep(0.1)
        assert client.data == b"one"
        client.transport.close()
        assert client.transport.is_closing()
        assert await client.lost is None
        assert await server.lost is None
        assert server.told == ["made", "data", "eof", "lost"]
        assert client.told == ["made", "data", "lost"]

    loop.run_until_complete(main())
    assert not loop.problems  # type: ignore[attr-defined]


def keeps_and_tells_options(sock: socket.socket) -> None:
    """Keepalive and user timeout, as a kernel socket has them."""
    tcp = socket.IPPROTO_TCP
    assert sock.getsockopt(tcp, socket.TCP_KEEPIDLE) == 7200, "SO_KEEPALIVE's default"
    for name, value in (
        (socket.TCP_KEEPIDLE, 30),
        (socket.TCP_KEEPINTVL, 5),
        (socket.TCP_KEEPCNT, 3),
        (socket.TCP_USER_TIMEOUT, 45_500),
    ):
        sock.setsockopt(tcp, name, value)
        assert sock.getsockopt(tcp, name) == value
        assert sock.getsockopt(tcp, name, 4) == value.to_bytes(4, "little")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    assert sock.getsockopt(tcp, socket.TCP_KEEPIDLE) == 30, "what is on is left as it is"
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
    assert sock.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == 45_500
    for level, name, value, got in (
        (socket.IPPROTO_IP, socket.IP_TOS, 0xB9, 0xB8),
        (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0x20, 0x20),
        (socket.IPPROTO_IP, socket.IP_TTL, 255, 255),
        (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1, 1),
    ):
        sock.setsockopt(level, name, value)
        assert sock.getsockopt(level, name) == got
    for level, name, value in (
        (socket.IPPROTO_IP, socket.IP_TOS, 256),
        (socket.IPPROTO_IP, socket.IP_TTL, 0),
        (socket.IPPROTO_IP, socket.IP_TTL, 256),
    ):
        with pytest.raises(OSError, match=r"Invalid argument|Differentiated"):
            sock.setsockopt(level, name, value)
    for name, value in ((socket.TCP_KEEPCNT, 16), (socket.TCP_KEEPINTVL, 0), (socket.TCP_KEEPIDLE, -1)):
        with pytest.raises(OSError, match=r"Invalid argument|bounds"):
            sock.setsockopt(tcp, name, value)


def test_what_is_known_of_a_connection_outlives_it(loop: PairEventLoop) -> None:
    async def main() -> None:
        server, client, listening = await pair_of(loop, Recorder, Recorder)
        transport = server.transport
        assert isinstance(transport, asyncio.Transport)
        assert transport.get_extra_info("sockname") == (loop.host, PORT)
        assert transport.get_extra_info("peername")[0] == loop.client_host
        assert transport.get_extra_info("nonsense", 5) == 5
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        with pytest.raises(OSError, match="no socket option"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1)
        keeps_and_tells_options(sock)
        assert (sock.family, sock.type, sock.fileno()) == (socket.AF_INET, socket.SOCK_STREAM, -1)
        assert listening.sockets[0].getsockname() == (loop.host, PORT)  # type: ignore[attr-defined]
        client.transport.abort()
        assert isinstance(await server.lost, ConnectionResetError)
        assert sock.getpeername() == client.transport.get_extra_info("sockname")
        assert transport.get_protocol() is None
        assert "closed" in repr(transport)
        with pytest.raises(OSError, match="closed"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    loop.run_until_complete(main())


def test_nothing_is_told_while_paused_and_the_peer_is_held_up(loop: PairEventLoop) -> None:
    size = 4 << 20

    async def main() -> None:
        server, client, _ = await pair_of(loop, Recorder, Recorder)
        server.transport.pause_reading()
        assert not server.transport.is_reading()
        client.transport.write(bytes(size))
        await asyncio.sleep(5)
        assert server.told == ["made"]
        assert client.told == ["made", "pause"]
        assert client.transport.get_write_buffer_size() > size // 2
        server.transport.resume_reading()
        server.transport.resume_reading()
        assert server.told == ["made"], "not before the loop's next turn"
        await asyncio.sleep(5)
        assert len(server.data) == size
        assert client.told == ["made", "pause", "resume"]
        assert client.transport.get_write_buffer_size() == 0

    loop.run_until_complete(main())


def test_close_lets_out_what_was_written(loop: PairEventLoop) -> None:
    size = 3 << 20

    async def main() -> None:
        server, client, _ = await pair_of(loop, Recorder, Recorder)
        client.transport.writelines([b"x" * size, bytearray(b"y"), memoryview(b"z0z0")[::2]])
        client.transport.close()
        await client.lost
        await server.lost
        assert server.data == b"x" * size + b"yzz"

    loop.run_until_complete(main())


def test_write_eof_is_a_half_close(loop: PairEventLoop) -> None:
    class Answer(Recorder):
        def eof_received(self) -> bool:
            super().eof_received()
            self.transport.write(b"answer to " + self.data)
            loop.call_later(3, self.transport.close)
            return True

    async def main() -> None:
        server, client, _ = await pair_of(loop, Answer, Recorder)
        assert client.transport.can_write_eof()
        client.transport.write(b"question")
        client.transport.write_eof()
        with pytest.raises(RuntimeError, match="after write_eof"):
            client.transport.write(b"more")
        await client.lost
        assert client.data == b"answer to question"
        assert server.told == ["made", "data", "eof", "lost"]

    loop.run_until_complete(main())


@pytest.mark.parametrize("where", ["connection_made", "data_received", "eof_received"])
def test_a_callback_that_raises_ends_its_connection_alone(loop: PairEventLoop, where: str) -> None:
    def fail(*_: object) -> None:
        raise LookupError(where)

    async def main() -> None:
        failing = type("Failing", (Recorder,), {where: fail})
        listening = await loop.create_server(Echo, loop.host, 8)
        await loop.create_server(failing, loop.host, PORT)
        _, good = await loop.create_connection(Recorder, loop.host, 8)
        _, bad = await loop.create_connection(Recorder, loop.host, PORT)
        bad.transport.write(b"x")  # type: ignore[attr-defined]
        if where == "eof_received":
            bad.transport.write_eof()  # type: ignore[attr-defined]
        assert isinstance(await bad.lost, ConnectionResetError)  # type: ignore[attr-defined]
        good.transport.write(b"still here")  # type: ignore[attr-defined]
        await asyncio.sleep(0.1)
        assert good.data == b"still here"  # type: ignore[attr-defined]
        listening.close()

    loop.run_until_complete(main())
    assert [str(p["exception"]) for p in loop.problems] == [where]  # type: ignore[attr-defined]


def test_a_factory_that_raises_resets_the_client(loop: PairEventLoop) -> None:
    async def main() -> None:
        await loop.create_server(lambda: 1 / 0, loop.host, PORT)  # type: ignore[arg-type, return-value]
        _, client = await loop.create_connection(Recorder, loop.host, PORT)
        assert isinstance(await client.lost, ConnectionResetError)  # type: ignore[attr-defined]

    loop.run_until_complete(main())
    assert isinstance(loop.problems[0]["exception"], ZeroDivisionError)  # type: ignore[attr-defined]


def test_an_interrupt_leaves_the_loop_and_the_rest_of_the_batch_is_kept(loop: PairEventLoop) -> None:
    class Interrupted(Recorder):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if data == b"stop":
                raise KeyboardInterrupt

    made: list[Interrupted] = []

    def factory() -> Interrupted:
        made.append(Interrupted())
        return made[-1]

    async def main() -> list[Any]:
        await loop.create_server(factory, loop.host, PORT)
        return [(await loop.create_connection(Recorder, loop.host, PORT))[0] for _ in range(8)]

    clients = loop.run_until_complete(main())
    loop.run_until_complete(asyncio.sleep(0.1))
    for number, client in enumerate(clients):
        client.write(b"stop" if number == 2 else b"go")
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(asyncio.sleep(0.1))
    loop.run_until_complete(asyncio.sleep(0.1))
    assert sorted(protocol.data for protocol in made) == [b"go"] * 7 + [b"stop"]
    for client in clients:
        client.close()
    loop.run_until_complete(asyncio.sleep(0.1))


class Buffered(asyncio.BufferedProtocol):
    """Takes what comes in buffers of 1,000 bytes."""

    def __init__(self) -> None:
        self.buffer = bytearray(1000)
        self.data = b""
        self.ended = asyncio.get_running_loop().create_future()

    def get_buffer(self, sizehint: int) -> bytearray:
        assert sizehint > 0
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data += self.buffer[:nbytes]

    def connection_lost(self, exc: BaseException | None) -> None:
        self.ended.set_result(exc)


def test_a_buffered_protocol_gets_its_own_memory_filled(loop: PairEventLoop) -> None:
    text = os.urandom(123_457)

    async def main() -> None:
        server, client, _ = await pair_of(loop, Buffered, Recorder)
        client.transport.write(text)
        client.transport.close()
        assert await server.ended is None
        assert server.data == text

    loop.run_until_complete(main())


def test_an_empty_buffer_is_the_protocols_error(loop: PairEventLoop) -> None:
    class Empty(Buffered):
        def get_buffer(self, sizehint: int) -> bytearray:
            return bytearray()

    async def main() -> None:
        _, client, _ = await pair_of(loop, Empty, Recorder)
        client.transport.write(b"x")
        assert isinstance(await client.lost, ConnectionResetError)

    loop.run_until_complete(main())
    assert "empty buffer" in str(loop.problems[0]["exception"])  # type: ignore[attr-defined]


def test_write_buffer_limits(loop: PairEventLoop) -> None:
    async def main() -> None:
        _, client, _ = await pair_of(loop, Recorder, Recorder)
        transport = client.transport
        assert transport.get_write_buffer_limits() == (16384, 65536)
        transport.set_write_buffer_limits(high=1000)
        assert transport.get_write_buffer_limits() == (250, 1000)
        transport.set_write_buffer_limits(low=100)
        assert transport.get_write_buffer_limits() == (100, 400)
        with pytest.raises(ValueError, match="must be >="):
            transport.set_write_buffer_limits(high=1, low=2)
        with pytest.raises(TypeError, match="bytes-like"):
            transport.write("text")
        transport.abort()
        transport.write(b"into the void")
        assert await client.lost is None

    loop.run_until_complete(main())


def test_each_connection_has_a_context_of_its_own(loop: PairEventLoop) -> None:
    import contextvars

    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="none")
    seen: list[tuple[str, str]] = []

    class Named(Recorder):
        def data_received(self, data: bytes) -> None:
            seen.append((name.get(), data.decode()))
            name.set(data.decode())

    async def main() -> None:
        name.set("server")
        await loop.create_server(Named, loop.host, PORT)
        clients = [(await loop.create_connection(Recorder, loop.host, PORT))[0] for _ in range(2)]
        for text in ("a", "b"):
            for number, client in enumerate(clients):
                client.write(f"{text}{number}".encode())
                await asyncio.sleep(0.1)
        for client in clients:
            client.close()

    loop.run_until_complete(main())
    assert seen == [("server", "a0"), ("server", "a1"), ("a0", "b0"), ("a1", "b1")]


def test_refused_and_cancelled_connects(loop: PairEventLoop) -> None:
    async def main() -> None:
        with pytest.raises(ConnectionRefusedError):
            await loop.create_connection(Recorder, loop.host, 9)
        opening = asyncio.ensure_future(loop.create_connection(Recorder, loop.host, 9))
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening

    loop.run_until_complete(main())


def test_another_thread_may_not_touch_a_transport(loop: PairEventLoop) -> None:
    errors: list[str] = []

    def intrude(transport: Any) -> None:
        for call in (lambda: transport.write(b"x"), transport.close, transport.abort):
            try:
                call()
            except RuntimeError as error:
                errors.append(str(error))

    async def main() -> None:
        _, client, _ = await pair_of(loop, Recorder, Recorder)
        thread = threading.Thread(target=intrude, args=(client.transport,))
        thread.start()
        thread.join()
        assert not client.transport.is_closing()
        client.transport.close()

    loop.run_until_complete(main())
    assert len(errors) == 3
    assert all("call_soon_threadsafe" in error for error in errors)


def test_a_forked_child_is_refused_and_the_parent_goes_on(loop: PairEventLoop) -> None:
    async def main() -> None:
        _, client, _ = await pair_of(loop, Echo, Recorder)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                client.transport.write(b"x")
            except RuntimeError as error:
                status = 0 if "process" in str(error) else 2
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        client.transport.write(b"parent")
        await asyncio.sleep(0.1)
        assert client.data == b"parent"
        client.transport.close()

    loop.run_until_complete(main())


def test_closing_the_loop_names_the_connections_that_were_left_open() -> None:
    loop = PairEventLoop()
    loop.run_until_complete(pair_of(loop, Echo, Recorder))
    with pytest.warns(ResourceWarning, match="1 connections were open"):
        loop.close()
    assert loop.is_closed()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon(print)


def test_a_connection_that_has_ended_leaves_nothing_behind(loop: PairEventLoop) -> None:
    async def main() -> list[weakref.ref[Any]]:
        server, client, _ = await pair_of(loop, Echo, Recorder)
        client.transport.write(b"x" * 100_000)
        await asyncio.sleep(1)
        client.transport.close()
        await server.lost
        return [weakref.ref(p) for p in (server, client, server.transport, client.transport)]

    left = loop.run_until_complete(main())
    loop.run_until_complete(asyncio.sleep(1))
    gc.collect()
    assert [ref() for ref in left] == [None] * 4
    assert all(stack.open == 0 for stack in loop.stacks.values())
