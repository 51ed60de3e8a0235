"""Janus for Python: TCP connections by the million, each a coroutine on a user-level stack.

import janus_tcp

async def handle(conn: janus_tcp.Connection) -> None:
    async for data in conn:
        await conn.send(data)

janus_tcp.run(handle, port=7, workers=2)
"""

from janus_tcp._native import CancelledError, Connection, IncompleteReadError, Task, sleep
from janus_tcp.run import run
from janus_tcp.scheduler import Listener, connect, listen
from janus_tcp.tasks import TaskGroup, gather, spawn
from janus_tcp.timeouts import timeout

__all__ = [
    "CancelledError",
    "Connection",
    "IncompleteReadError",
    "Listener",
    "Task",
    "TaskGroup",
    "connect",
    "gather",
    "listen",
    "run",
    "sleep",
    "spawn",
    "timeout",
]
