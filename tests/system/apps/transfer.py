"""PUT n: receives n bytes and answers their SHA-256.  GET n: sends n bytes."""

import hashlib

import janus_tcp

from tests.system.apps.commands import commands
from tests.system.stream import chunks


async def handle(conn: janus_tcp.Connection) -> None:
    """Obey one connection's commands until its peer has finished."""
    async for word, number in commands(conn):
        if word == b"GET":
            for chunk in chunks(number):
                await conn.send(chunk)
        else:
            sha, left = hashlib.sha256(), number
            while left > 0:
                data = await conn.recv(min(left, 65536))
                if not data:
                    return
                sha.update(data)
                left -= len(data)
            await conn.send(sha.hexdigest().encode() + b"\n")
