"""What a connection is told to do, line by line."""

from collections.abc import AsyncIterator

import janus_tcp


async def commands(conn: janus_tcp.Connection) -> AsyncIterator[tuple[bytes, int]]:
    """Give each line's word and number until the peer has finished."""
    while True:
        try:
            word, number = (await conn.recv_until(b"\n", 64)).split()
        except EOFError:
            return
        yield word, int(number)
