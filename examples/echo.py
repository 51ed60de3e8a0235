"""Sends back whatever arrives.

python -m janus_tcp run examples.echo:handle --port 7 --workers 2 --app
web"""

import janus_tcp


async def handle(conn: janus_tcp.Connection) -> None:
    """Echo one connection until its peer has finished."""
    async for data in conn:
        await conn.send(data)


if __name__ == "__main__":
    janus_tcp.run(handle, port=7, workers=2)
