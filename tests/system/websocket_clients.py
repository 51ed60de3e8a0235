"""python -m tests.system.websocket_clients HOST PORT COUNT: so many WebSocket clients, each echoed twice."""

import asyncio
import resource
import sys

from websockets.asyncio.client import connect

OPENING = 64  # handshakes at a time


async def main(url: str, count: int) -> None:
    """All are open before any goes on; prints how many were echoed."""
    gate = asyncio.Semaphore(OPENING)
    opened: list[None] = []
    all_open = asyncio.Event()
    echoed = 0

    async def one(number: int) -> None:
        nonlocal echoed
        async with gate:
            connection = await connect(url, open_timeout=60, ping_interval=None, compression=None)
        async with connection:
            opened.append(None)
            if len(opened) == count:
                all_open.set()
            await all_open.wait()
            for text in (f"first {number}", f"second {number}" * 100):
                await connection.send(text)
                assert await connection.recv() == text
            echoed += 1

    await asyncio.gather(*(one(number) for number in range(count)))
    print(echoed)


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(main(f"ws://{sys.argv[1]}:{sys.argv[2]}/", int(sys.argv[3])))
