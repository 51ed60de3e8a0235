"""The Python side of the benchmarks of very many connections: an echo whose idle coroutine has one frame."""

import janus_tcp


async def handle(conn: janus_tcp.Connection) -> None:
    """Echo until the end."""
    while data := await conn.recv():
        await conn.send(data)
