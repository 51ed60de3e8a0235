"""An echo whose first worker takes three times as long for each connection as the others, and any for an elephant's.

It takes its time asleep: the thread is as busy as with work, and the machine's other processors are not needed for it.
"""

import os
import time
from pathlib import Path

import janus_tcp

FAST_S, SLOW_S = 0.001, 0.003
SHORT_S, SHORT_SLOW_S, ELEPHANT_S = 0.0001, 0.0005, 0.004
CLAIM = Path(os.environ.get("UNEVEN_CLAIM", "/nonexistent/claim"))
_cost_s = 0.0


def cost_s() -> float:
    """What a connection costs this worker: the first to claim the file is the slow one."""
    global _cost_s
    if not _cost_s:
        try:
            os.close(os.open(CLAIM, os.O_CREAT | os.O_EXCL))
            _cost_s = SLOW_S
        except OSError:
            _cost_s = FAST_S
    return _cost_s


async def handle(conn: janus_tcp.Connection) -> None:
    async for data in conn:
        time.sleep(cost_s())
        await conn.send(data)


async def graze(conn: janus_tcp.Connection) -> None:
    """Little time for each message, some at the slow worker; much for each that begins with E."""
    short_s = SHORT_S if cost_s() == FAST_S else SHORT_SLOW_S
    async for data in conn:
        time.sleep(ELEPHANT_S if data[:1] == b"E" else short_s)
        await conn.send(data)
