"""Passes each connection on to a server elsewhere: both a server and a client on Janus.

UPSTREAM=10.77.0.2:9000 python -m janus_tcp run examples.proxy:handle --port 8000 --app web
"""

import os

import janus_tcp

CONNECT_SECONDS = 10.0


async def pump(source: janus_tcp.Connection, sink: janus_tcp.Connection) -> None:
    """Pass on all of one direction, its end too; an error ends both connections."""
    try:
        async for data in source:
            await sink.send(data)
        sink.shutdown()
    except OSError:
        source.abort()
        sink.abort()


async def handle(conn: janus_tcp.Connection) -> None:
    """Serve one connection."""
    host, _, port = os.environ["UPSTREAM"].rpartition(":")
    try:
        async with janus_tcp.timeout(CONNECT_SECONDS):
            upstream = await janus_tcp.connect(host, int(port))
    except OSError:
        conn.abort()
        return
    try:
        async with janus_tcp.TaskGroup() as group:
            group.spawn(pump(upstream, conn))
            await pump(conn, upstream)
    finally:
        upstream.close()


if __name__ == "__main__":
    janus_tcp.run(handle, port=8000)
