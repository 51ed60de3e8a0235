"""An echo that also says, to a connection whose first bytes are CENSUS, what its thread still holds."""

import json
import os
from typing import Any

import janus_tcp
from janus_tcp._native import current_loop, ffi, lib

USAGE = ("conns", "half_open", "time_wait", "extensions", "rx_slots_held", "tx_slots_held")


def held() -> dict[str, Any]:
    """Coroutines, blocks and slots in use in this thread."""
    loop = current_loop()
    assert loop is not None
    stats = ffi.new("struct janus_stats *")
    lib.thread_get_stats(ffi.cast("struct janus_thread *", loop.thread), stats)
    return {
        "pid": os.getpid(),
        "handlers": loop.handlers,
        "tasks": loop.tasks,
        **{name: getattr(stats.usage, name) for name in USAGE},
        "rx_slots_free": stats.rx_slots_free,
        "tx_slots_free": stats.tx_slots_free,
        "ring_violations": stats.ring_violations,
    }


async def handle(conn: janus_tcp.Connection) -> None:
    """Echo, or answer."""
    async for data in conn:
        await conn.send(json.dumps(held()).encode() + b"\n" if data == b"CENSUS\n" else data)


async def once(conn: janus_tcp.Connection) -> None:
    """Answer the first message, and close before the client does."""
    async for _ in conn:
        await conn.send(json.dumps(held()).encode() + b"\n")
        return
