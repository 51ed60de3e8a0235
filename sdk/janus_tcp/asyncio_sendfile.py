"""loop.sendfile() over Janus: a file's region goes from the page cache into segments, under the peer's window."""

import asyncio
import io
import os
import stat
from collections.abc import Awaitable, Callable
from typing import Any

CHUNK_BYTES = 256 * 1024
ALL = 1 << 62

Read = Callable[[int, int], Awaitable[bytes]]  # (offset, length)


class Sending(asyncio.Protocol):
    """Stands in for the protocol while a file is sent: nothing is read, and only back-pressure is heard."""

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: Any) -> None:
        self._loop = loop
        self._transport = transport
        self._protocol = transport.get_protocol()
        self._was_reading: bool = transport.is_reading()
        self._was_held_up: bool = transport._protocol_paused
        self._room: asyncio.Future[None] | None = loop.create_future() if self._was_held_up else None
        transport.pause_reading()
        transport.set_protocol(self)

    async def drain(self) -> None:
        """Wait until the transport takes more; ConnectionError when it is closing."""
        if self._transport.is_closing():
            raise ConnectionError("Connection closed by peer")
        if self._room is not None:
            await self._room

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Was made long ago."""
        raise RuntimeError("Invalid state: connection should have been established already.")

    def connection_lost(self, exc: BaseException | None) -> None:
        """Whoever sends hears of it, and the protocol."""
        if self._room is not None and not self._room.done():
            self._room.set_exception(exc or ConnectionError("Connection is closed by peer"))
            self._room.exception()  # it may be that nobody waits
        self._protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """The transport's buffer is above its high-water mark."""
        self._room = self._loop.create_future()

    def resume_writing(self) -> None:
        """It is below its low-water mark again."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        self._room = None

    def restore(self) -> None:
        """Give the protocol its transport back."""
        self._transport.set_protocol(self._protocol)
        if self._was_reading:
            self._transport.resume_reading()
        held_up: bool = self._transport._protocol_paused
        if held_up and not self._was_held_up:
            self._protocol.pause_writing()
        elif self._was_held_up and not held_up:
            self._protocol.resume_writing()


async def _send(loop: asyncio.AbstractEventLoop, transport: Any, read: Read, offset: int, count: int) -> int:
    sending = Sending(loop, transport)
    total = 0
    try:
        while total < count:
            data = await read(offset + total, min(CHUNK_BYTES, count - total))
            if not data:
                break
            await sending.drain()
            transport.write(data)
            total += len(data)
        await sending.drain()
    finally:
        sending.restore()
    return total


async def send_file(
    loop: asyncio.AbstractEventLoop, transport: Any, file: Any, offset: int, count: int | None
) -> int:
    """Send a regular file's region; SendfileNotAvailableError when it is none.  The file's position follows."""
    descriptor = -1
    try:
        descriptor = file.fileno()
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    except (AttributeError, io.UnsupportedOperation, OSError):
        regular = False
    if not regular:
        raise asyncio.SendfileNotAvailableError("not a regular file")

    async def read(at: int, length: int) -> bytes:
        return os.pread(descriptor, length, at)

    total = 0
    try:
        total = await _send(loop, transport, read, offset, count or ALL)
    finally:
        file.seek(offset + total)
    return total


async def send_stream(
    loop: asyncio.AbstractEventLoop, transport: Any, file: Any, offset: int, count: int | None
) -> int:
    """The same for any object with read(), which is called in a thread."""
    if offset:
        file.seek(offset)

    async def read(at: int, length: int) -> bytes:
        data: bytes = await loop.run_in_executor(None, file.read, length)
        return data

    total = 0
    try:
        total = await _send(loop, transport, read, offset, count or ALL)
    finally:
        if total and hasattr(file, "seek"):
            file.seek(offset + total)
    return total


__all__ = ["send_file", "send_stream"]
