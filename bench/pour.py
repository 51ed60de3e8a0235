"""An application that sends to whoever connects until he goes: the sender of tcp-congestion.

On the port that it is given with the app's congestion control, and on the next one with BBR."""

import contextlib
import os

import janus_tcp

BLOCK = os.urandom(1 << 16)
BBR_PORT = 8001
listeners: list[janus_tcp.Listener] = []


async def handle(conn: janus_tcp.Connection) -> None:
    """Send for ever; who comes first opens the other port."""
    if not listeners:
        listeners.append(janus_tcp.listen(pour, BBR_PORT, congestion="bbr"))
    await pour(conn)


async def pour(conn: janus_tcp.Connection) -> None:
    """Send for ever."""
    with contextlib.suppress(OSError):
        while True:
            await conn.send(BLOCK)
