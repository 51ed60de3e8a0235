"""Plain asyncio programs, none of which knows of Janus.

python -m janus_tcp.asyncio tests.system.apps.asyncio_servers KIND PORT [CERTIFICATE]
"""

import asyncio
import ssl
import sys
from typing import Any


def make_app(_arguments: list[str]) -> Any:
    """For aiohttp.web's command line: a page, and this file by sendfile."""
    from aiohttp import web

    async def page(request: web.Request) -> web.StreamResponse:
        return web.Response(text=f"hello {request.remote}")

    async def source(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(__file__)

    app = web.Application()
    app.add_routes([web.get("/", page), web.get("/source", source)])
    return app


async def serve_websockets(port: int, certificate: str) -> None:
    """The websockets package's own server."""
    from websockets.asyncio.server import ServerConnection, serve

    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "0.0.0.0", port, ping_interval=None) as server:
        await server.serve_forever()


async def serve_tls(port: int, certificate: str) -> None:
    """asyncio's streams over the standard ssl module; the first line of an answer is the version."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(writer.get_extra_info("ssl_object").version().encode() + b"\n")
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(echo, "0.0.0.0", port, ssl=context) as server:
        await server.serve_forever()


class Database(asyncio.Protocol):
    """A client as asyncpg is one: asks for TLS in the clear, then goes on over it."""

    def connection_made(self, transport: Any) -> None:
        """Ask."""
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        transport.write((8).to_bytes(4, "big") + (80877103).to_bytes(4, "big"))

    def data_received(self, data: bytes) -> None:
        """Take what comes."""
        self.answer.set_result(data)


async def query(host: str, port: int) -> bytes:
    """What the database says to "query", over TLS."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(Database, host, port)
    assert await protocol.answer == b"S"
    protocol.answer = loop.create_future()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    secure = await loop.start_tls(transport, protocol, context)
    assert secure is not None
    secure.write(b"query")
    try:
        return await protocol.answer
    finally:
        secure.close()


async def serve_database(port: int, certificate: str) -> None:
    """Each client that sends "HOST PORT" gets what the database there says: through Janus both ways."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, to = (await reader.readline()).split()
        writer.write(await query(host.decode(), int(to)))
        writer.close()

    async with await asyncio.start_server(relay, "0.0.0.0", port) as server:
        await server.serve_forever()


KINDS = {
    "websockets": serve_websockets,
    "tls": serve_tls,
    "database": serve_database,
}

if __name__ == "__main__":
    asyncio.run(KINDS[sys.argv[1]](int(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else ""))
