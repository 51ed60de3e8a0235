"""The echo and HTTP examples on kernel sockets: the baseline of python-echo.

    python -m bench.servers echo|http streams|protocol asyncio|uvloop PORT

`streams` is written like the examples, a coroutine per connection; `protocol` is the quickest form that
asyncio has, callbacks without a coroutine.  HTTP is parsed and answered by the example's own functions."""

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any, cast

from examples.http_server import HEAD_BYTES_MAX, HEAD_SECONDS, answer_request, parse_request

BACKLOG = 4096
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


async def echo_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """examples/echo.py."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def http_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """examples/http_server.py."""
    with contextlib.suppress(OSError, EOFError):
        persistent = True
        while persistent:
            async with asyncio.timeout(HEAD_SECONDS):
                request = parse_request(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer_request(request))
            await writer.drain()
            persistent = request.persistent
    writer.close()


class Echo(asyncio.Protocol):
    """Echo by callbacks."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Send it back."""
        self.transport.write(data)


class Http(Echo):
    """HTTP by callbacks, with a deadline for each head as the example has."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin with an empty head."""
        super().connection_made(transport)
        self.head = b""
        self.began = asyncio.get_running_loop().time()

    def data_received(self, data: bytes) -> None:
        """Answer each whole head."""
        self.head += data
        while (end := self.head.find(b"\r\n\r\n")) >= 0:
            request = parse_request(self.head[: end + 4])
            self.head = self.head[end + 4 :]
            self.transport.write(answer_request(request))
            if not request.persistent:
                self.transport.close()
        if len(self.head) > HEAD_BYTES_MAX:
            self.transport.abort()


async def serve(what: str, style: str, port: int) -> None:
    """Serve until cancelled."""
    listener = socket.create_server(("0.0.0.0", port), backlog=BACKLOG)
    loop = asyncio.get_running_loop()
    if style == "streams":
        handler: Handler = echo_stream if what == "echo" else http_stream
        server: asyncio.Server = await asyncio.start_server(handler, sock=listener, backlog=BACKLOG)
    else:
        server = await loop.create_server(Echo if what == "echo" else Http, sock=listener, backlog=BACKLOG)
    await server.serve_forever()


def main() -> int:
    """The command line."""
    what, style, loop, port = sys.argv[1:]
    if loop == "uvloop":
        import uvloop

        uvloop.install()
    asyncio.run(serve(what, style, int(port)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
