"""An asyncio loop with two stacks joined in memory: test servers and clients without janusd or root.

loop = PairEventLoop()                          # time is virtual: a sleep takes no time
server = await loop.create_server(Echo, loop.host, 7)
reader, writer = await asyncio.open_connection(loop.host, 7)
"""

import itertools
from typing import Unpack

from janus_tcp.addresses import pack
from janus_tcp.asyncio_loop import JanusEventLoop
from janus_tcp.asyncio_routes import numeric
from janus_tcp.asyncio_selector import Events, JanusSelector
from janus_tcp.asyncio_types import Poller
from janus_tcp.memory import CLIENT_HOST, HOST, Bounds, Wire

FOREVER_S = 1e6
FIRST_PORT = 20000


class VirtualSelector(JanusSelector):
    """Does not sleep for time: it moves time on, unless nothing but the kernel could end the sleep."""

    def __init__(self, loop: "PairEventLoop") -> None:
        super().__init__()
        self._loop = loop

    def _sleep(self, seconds: float) -> Events:
        events = super()._sleep(0)
        if events or seconds <= 0:
            return events
        if seconds >= FOREVER_S:
            return super()._sleep(seconds)
        self._loop._wire.advance(max(int(seconds * 1e6 + 0.999999), 1))
        return []


class PairEventLoop(JanusEventLoop):
    """Servers listen on host in one stack; connections to it are opened in the other, from client_host.

    Virtual time moves only when nothing is left to do now; threads and subprocesses are not waited for, so tests
    with such want virtual_time=False.  The bounds are those of janus_tcp.testing.Pair; MemoryError when there is no
    memory for the stacks.

    >>> async def main(loop):
    ...     async def handle(reader, writer):
    ...         await asyncio.sleep(3600)
    ...         writer.close()
    ...     async with await asyncio.start_server(handle, loop.host, 7):
    ...         reader, writer = await asyncio.open_connection(loop.host, 7)
    ...         answer = await reader.read()
    ...         writer.close()
    ...         return answer, loop.time() > 3600
    >>> loop = PairEventLoop()
    >>> loop.run_until_complete(main(loop))
    (b'', True)
    >>> loop.close()
    """

    def __init__(
        self,
        *,
        host: str = HOST,
        client_host: str = CLIENT_HOST,
        virtual_time: bool = True,
        **bounds: Unpack[Bounds],
    ) -> None:
        self.host: str = host
        self.client_host: str = client_host
        self._virtual = virtual_time
        self._wire = Wire((host, client_host), virtual_time=virtual_time, **bounds)
        super().__init__(connect="")
        self._ports = itertools.count(FIRST_PORT)
        self.stacks: dict[bytes, Poller] = {
            packed: self._adopt(self._wire.thread(i), owns=False)
            for i, packed in enumerate(self._wire.addresses)
        }
        self._ends = self._wire.addresses

    def _make_selector(self) -> JanusSelector:
        return VirtualSelector(self) if self._virtual else JanusSelector()

    def time(self) -> float:
        """Seconds; virtual ones jump.  Never raises.

        >>> loop = PairEventLoop()
        >>> before = loop.time()
        >>> loop.run_until_complete(asyncio.sleep(86400))
        >>> round(loop.time() - before)
        86400
        >>> loop.close()
        """
        if not self._virtual or not getattr(self, "_ends", None) or self.is_closed():
            return super().time()
        return self.stacks[self._ends[0]].clock_s

    def close(self) -> None:
        """End everything on both sides.  Harmless when it is closed; RuntimeError when the loop runs.

        >>> loop = PairEventLoop()
        >>> loop.close()
        >>> loop.is_closed()
        True
        """
        super().close()
        self._wire.close()

    def _linger(self, stack: Poller) -> None:
        """What is in memory is gone with the loop."""

    def _serves(self, address: bytes | None) -> Poller | None:
        return self.stacks.get(self._ends[0] if address is None else address)

    def _is_served(self, host: str | None, port: int) -> bool:
        named = host is not None and numeric(host) is not None
        return (named and self._serves(pack(host)) is not None) or (host is None and port != 0)

    def _port(self, port: int) -> int:
        """Here any port may be had."""
        return port or next(self._ports)

    def _may_reach(self) -> bool:
        return True

    def _reaches(self, address: bytes, local: bytes | None) -> Poller | None:
        """From the other end of the wire."""
        if address not in self.stacks:
            return None
        return self.stacks[self._ends[0 if address == self._ends[1] else 1]]

    async def _local(self, local_addr: tuple[str, int] | None) -> bytes | None:
        named = local_addr is not None and numeric(local_addr[0]) is not None
        packed = pack(local_addr[0]) if local_addr is not None and named else None
        return packed if packed in self.stacks else None


__all__ = ["PairEventLoop"]
