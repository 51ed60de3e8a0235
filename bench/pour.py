"""An application that sends to whoever connects until he goes: the sender of tcp-congestion."""

import contextlib
import os

import janus_tcp

BLOCK = os.urandom(1 << 16)


async def handle(conn: janus_tcp.Connection) -> None:
    """Send for ever."""
    with contextlib.suppress(OSError):
        while True:
            await conn.send(BLOCK)
