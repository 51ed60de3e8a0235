"""Hostile and unlucky use of the Janus event loop: what asyncio says of it, and nobody else notices."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from janus_tcp.asyncio_testing import PairEventLoop

PORT = 7
MIB = 1 << 20
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def served(loop: PairEventLoop, handle: Callable[..., Any] = echo) -> AsyncIterator[Streams]:
    """A connection to a server of ours."""
    async with await asyncio.start_server(handle, loop.host, PORT):
        reader, writer = await asyncio.open_connection(loop.host, PORT)
        yield reader, writer
        writer.close()
        await asyncio.sleep(0.1)


def run(main: Callable[[PairEventLoop], Any], **bounds: Any) -> Any:
    loop = PairEventLoop(**bounds)
    try:
        return loop.run_until_complete(main(loop))
    finally:
        loop.close()


async def ask(streams: Streams, data: bytes) -> None:
    reader, writer = streams
    writer.write(data)
    assert await asyncio.wait_for(reader.readexactly(len(data)), 60) == data


def test_a_handler_that_never_awaits_has_answered_and_closed() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"at once")
        writer.close()

    async def main(loop: PairEventLoop) -> None:
        async with served(loop, handle) as (reader, _):
            assert await reader.read() == b"at once"

    run(main)


def test_a_task_that_is_cancelled_in_a_read_leaves_the_connection_usable() -> None:
    async def main(loop: PairEventLoop) -> None:
        async with served(loop) as streams:
            reading = asyncio.create_task(streams[0].read(10))
            await asyncio.sleep(1)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            await ask(streams, b"still")

    run(main)


def test_a_task_that_is_cancelled_while_it_sends_leaves_the_connection_usable() -> None:
    go_on = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        await echo(reader, writer)

    async def main(loop: PairEventLoop) -> None:
        async with served(loop, handle) as (reader, writer):
            writer.write(bytes(4 * MIB))
            sending = asyncio.create_task(writer.drain())
            await asyncio.sleep(1)
            assert not sending.done(), "the server does not read"
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            go_on.set()
            assert await reader.readexactly(4 * MIB) == bytes(4 * MIB)
            await ask((reader, writer), b"still")

    run(main)


def test_who_writes_to_what_is_gone_is_told_in_the_log_after_some_times(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async def main(loop: PairEventLoop) -> None:
        async with served(loop, handle) as (reader, writer):
            with pytest.raises(ConnectionResetError):
                await reader.read()
            for _ in range(4):
                writer.write(b"x")
            assert not caplog.records
            for _ in range(3):
                writer.write(b"x")
            with pytest.raises(ConnectionResetError):
                await writer.drain()

    with caplog.at_level(logging.WARNING, "asyncio"):
        run(main)
    assert {record.message for record in caplog.records} == {"socket.send() raised exception."}


def test_what_is_written_after_close_goes_nowhere() -> None:
    async def main(loop: PairEventLoop) -> None:
        got: list[bytes] = []

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            got.append(await reader.read())
            writer.close()

        async with served(loop, handle) as (_, writer):
            writer.write(b"before")
            writer.close()
            writer.write(b"after")
            await writer.wait_closed()
        assert got == [b"before"]

    run(main)


def test_a_port_that_is_taken() -> None:
    async def main(loop: PairEventLoop) -> None:
        async with served(loop) as streams:
            with pytest.raises(OSError, match=r"\[Errno 98\].*listen"):
                await asyncio.start_server(echo, loop.host, PORT)
            await ask(streams, b"goes on")
            await ask(await asyncio.open_connection(loop.host, PORT), b"and for others")
        (await asyncio.start_server(echo, loop.host, PORT)).close()

    run(main)


def test_a_full_table_refuses_and_serves_those_that_are_in_it() -> None:
    async def main(loop: PairEventLoop) -> set[str]:
        opened: list[Streams] = []
        refused: set[str] = set()
        async with await asyncio.start_server(echo, loop.host, PORT):
            for _ in range(20):
                try:
                    opened.append(await asyncio.open_connection(loop.host, PORT))
                except OSError as error:
                    refused.add(str(error))
            assert len(opened) == 16
            for streams in opened:
                await ask(streams, b"x")
                streams[1].transport.abort()
        return refused

    (refused,) = run(main, connections=16)
    assert "the connection table is full" in refused


def test_a_dry_pool_is_back_pressure_and_not_failure() -> None:
    async def send(writer: asyncio.StreamWriter) -> None:
        for _ in range(16):
            writer.write(bytes(MIB // 16))
            await writer.drain()
        writer.write_eof()

    async def one(loop: PairEventLoop) -> int:
        reader, writer = await asyncio.open_connection(loop.host, PORT)
        _, got = await asyncio.gather(send(writer), reader.read())
        writer.close()
        return len(got)

    async def main(loop: PairEventLoop) -> list[int]:
        async with await asyncio.start_server(echo, loop.host, PORT):
            return await asyncio.wait_for(asyncio.gather(*(one(loop) for _ in range(8))), 600)

    assert run(main, rx_slots=256, tx_slots=256) == [MIB] * 8


@pytest.mark.parametrize("debug", [False, True])
def test_a_handler_that_raises_is_told_and_loses_its_own_connection_only(debug: bool) -> None:
    told: list[dict[str, Any]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1) == b"!":
            writer.transport.abort()
            raise ZeroDivisionError
        await echo(reader, writer)

    async def main(loop: PairEventLoop) -> None:
        loop.set_debug(debug)
        loop.set_exception_handler(lambda _, context: told.append(context))
        async with served(loop, handle) as (reader, writer):
            bad = await asyncio.open_connection(loop.host, PORT)
            bad[1].write(b"!")
            with pytest.raises(ConnectionResetError):
                await bad[0].read()
            writer.write(b".")
            await ask((reader, writer), b"goes on")

    run(main)
    assert [type(context["exception"]) for context in told] == [ZeroDivisionError]
