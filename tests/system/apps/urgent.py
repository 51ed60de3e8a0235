"""SEND n: sends n bytes, then "stop!" as urgent data.  TAKE n: takes n bytes; how many were urgent after each."""

import janus_tcp

from tests.system.apps.commands import commands
from tests.system.stream import chunks


async def handle(conn: janus_tcp.Connection) -> None:
    """Obey one connection's commands until its peer has finished."""
    async for word, number in commands(conn):
        if word == b"SEND":
            for chunk in chunks(number):
                await conn.send(chunk)
            await conn.send_urgent(b"stop!")
        else:
            ahead = []
            for _ in range(number):
                await conn.recv_exactly(1)
                ahead.append(conn.info()["urgent_bytes"])
            await conn.send(b"%s\n" % " ".join(map(str, ahead)).encode())
