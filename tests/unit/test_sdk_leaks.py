"""What is done again and again leaves nothing behind: blocks of memory are counted, CPython counts no references."""

import asyncio
import gc
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import janus_tcp
import pytest
from janus_tcp.asyncio_testing import PairEventLoop
from janus_tcp.testing import Pair

PORT = 7
ROUND, WARM, ROUNDS = 20, 30, 30
STRAY = 10  # blocks of a round that a cache or a table took; a leak is ROUND at least


def grown(one_round: Callable[[], Any]) -> float:
    """Blocks of a round."""
    for _ in range(WARM):
        one_round()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(ROUNDS):
        one_round()
    gc.collect()
    return (sys.getallocatedblocks() - before) / ROUNDS


async def echo(conn: janus_tcp.Connection) -> None:
    async for data in conn:
        await conn.send(data)


async def nap() -> None:
    await janus_tcp.sleep(0.001)


async def talk(conn: janus_tcp.Connection) -> None:
    await conn.send(b"one\ntwo")
    assert await conn.recv_until(b"\n") == b"one\n"
    assert await conn.recv_exactly(3) == b"two"
    await conn.send(bytearray(b"view"))
    (await conn.recv_view()).release()
    conn.set_nodelay(True)
    conn.user_data = conn.info(), conn.peername, conn.sockname


async def misuse(conn: janus_tcp.Connection) -> None:
    never: Any = 5
    for call in (
        conn.send,
        conn.recv,
        conn.recv_into,
        conn.recv_until,
        conn.set_keepalive,
        conn.set_deadline,
    ):
        with suppress(TypeError, ValueError, OverflowError):
            await call("?" if call != conn.send else never)  # type: ignore[operator]


async def limits(_: janus_tcp.Connection) -> None:
    async with janus_tcp.timeout(1):
        await nap()
    with suppress(TimeoutError):
        async with janus_tcp.timeout(0.001):
            await janus_tcp.sleep(1)


async def groups(_: janus_tcp.Connection) -> None:
    async with janus_tcp.TaskGroup() as group:
        group.spawn(nap())
    await janus_tcp.gather(nap(), nap())
    task = janus_tcp.spawn(nap())
    task.cancel()
    with suppress(janus_tcp.CancelledError):
        await task


async def five(conn: janus_tcp.Connection) -> bytes:
    return await conn.recv_exactly(5)


async def cancelled(conn: janus_tcp.Connection) -> None:
    task = janus_tcp.spawn(five(conn))
    await nap()
    task.cancel()
    with suppress(janus_tcp.CancelledError):
        await task


@pytest.mark.thorough
@pytest.mark.parametrize("use", [talk, misuse, limits, groups, cancelled])
def test_native_connections(use: Callable[[janus_tcp.Connection], Any]) -> None:
    async def client(host: str) -> None:
        for _ in range(ROUND):
            conn = await janus_tcp.connect(host, PORT)
            await use(conn)
            conn.close()
        for _ in range(ROUND):
            with suppress(OSError):
                await janus_tcp.connect(host, PORT + 1)

    with Pair() as pair:
        pair.serve(echo, PORT)

        def one_round() -> None:
            pair.run(client(pair.host))
            pair.settle()

        assert grown(one_round) < STRAY


@pytest.mark.parametrize("seconds", [0.001, 60])
def test_a_timeout_is_gone_after_its_body(seconds: float) -> None:
    async def client() -> weakref.ref[janus_tcp.timeout]:
        limit = janus_tcp.timeout(seconds)
        with suppress(TimeoutError):
            async with limit:
                await janus_tcp.sleep(1)
        return weakref.ref(limit)

    with Pair() as pair:
        assert pair.run(client())() is None


async def echo_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.writelines([data, memoryview(b""), bytearray()])
    writer.close()


async def talk_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"one")
    async with asyncio.timeout(1):
        assert await reader.readexactly(3) == b"one"
    writer.get_extra_info("socket").setsockopt(6, 1, 1)
    for name in ("peername", "sockname", "nothing"):
        repr((writer.get_extra_info(name), writer.transport))


async def misuse_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    transport, loop = writer.transport, asyncio.get_running_loop()
    text: Any = "?"
    for call in (
        lambda: transport.write(text),
        lambda: transport.writelines([b"", text]),
        lambda: transport.set_write_buffer_limits(1, 10),
        lambda: loop.call_later(text, print),
        lambda: loop.call_at(text, print),
        lambda: loop.call_soon(),  # type: ignore[call-arg]
        lambda: writer.get_extra_info("socket").setsockopt(6, 99, 1),
    ):
        with suppress(TypeError, ValueError, OSError):
            call()
    loop.call_later(1, print, writer).cancel()


async def abort_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(bytes(100_000))
    writer.transport.abort()


@pytest.mark.thorough
@pytest.mark.parametrize("use", [talk_stream, misuse_stream, abort_stream])
def test_asyncio_connections(use: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]) -> None:
    async def client(loop: PairEventLoop) -> None:
        async with await asyncio.start_server(echo_stream, loop.host, PORT):
            for _ in range(ROUND):
                streams = await asyncio.open_connection(loop.host, PORT)
                await use(*streams)
                streams[1].close()
                with suppress(OSError):
                    await asyncio.open_connection(loop.host, PORT + 1)
            await asyncio.sleep(200)

    loop = PairEventLoop()
    loop.set_exception_handler(lambda *_: None)
    assert grown(lambda: loop.run_until_complete(client(loop))) < STRAY
    loop.close()
