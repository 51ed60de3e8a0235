"""An echo that also says, to a connection whose first bytes are CENSUS, what its loop still holds."""

import json
import os

import janus_tcp
from janus_tcp._native import current_loop


async def handle(conn: janus_tcp.Connection) -> None:
    """Echo, or answer."""
    async for data in conn:
        if data == b"CENSUS\n":
            loop = current_loop()
            assert loop is not None
            held = {"pid": os.getpid(), "handlers": loop.handlers, "tasks": loop.tasks}
            await conn.send(json.dumps(held).encode())
            return
        await conn.send(data)
