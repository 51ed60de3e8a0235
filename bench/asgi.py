"""One ASGI page without a framework, and one asyncio server of slotted protocols: what python-asyncio measures.

uvicorn bench.asgi:app          python -m bench.asgi PORT: the protocols, on the Janus loop"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, cast

BODY = b"hello"
HEADERS = [(b"content-type", b"text/plain"), (b"content-length", str(len(BODY)).encode())]


async def app(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """ASGI 3: the same page for every path."""
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


class Echo(asyncio.Protocol):
    """Echo with nothing but its transport."""

    __slots__ = ("transport",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Send it back."""
        self.transport.write(data)


async def serve(port: int) -> None:
    """Serve until cancelled, on all addresses of the lease; the collector is out of the way of many objects."""
    from janus_tcp.run import tune_gc

    server = await asyncio.get_running_loop().create_server(Echo, None, port)
    tune_gc()
    await server.serve_forever()


if __name__ == "__main__":
    from janus_tcp.asyncio import new_event_loop

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1])))
