"""An asyncio loop with two stacks joined in memory: test servers and clients without janusd or root.

loop = PairEventLoop()                          # time is virtual: a sleep takes no time
server = await loop.create_server(Echo, loop.host, 7)
reader, writer = await asyncio.open_connection(loop.host, 7)
"""

import itertools

from janus_tcp._native import ffi, lib, raise_error
from janus_tcp.addresses import pack
from janus_tcp.asyncio_loop import JanusEventLoop
from janus_tcp.asyncio_routes import numeric
from janus_tcp.asyncio_selector import Events, JanusSelector
from janus_tcp.asyncio_types import Poller

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
        lib.janus_loop_advance(self._loop._wire, max(int(seconds * 1e6 + 0.999999), 1))
        return []


class PairEventLoop(JanusEventLoop):
    """Servers listen on host in one stack; connections to it are opened in the other, from client_host.

    Virtual time moves only when nothing is left to do now; threads and subprocesses are not waited for, so tests
    with such want virtual_time=False.
    """

    def __init__(
        self,
        *,
        host: str = "192.0.2.1",
        client_host: str = "192.0.2.2",
        virtual_time: bool = True,
        connections: int = 1024,
        rx_slots: int = 4096,
        tx_slots: int = 4096,
        latency_us: int = 0,
        mtu: int = 1500,
        seed: int = 1,
        recv_buffer: int = 0,
        send_buffer: int = 0,
    ) -> None:
        self.host: str = host
        self.client_host: str = client_host
        self._virtual = virtual_time
        options = ffi.new("struct janus_loop_options *")
        options.rows, options.rx_slots, options.tx_slots = connections, rx_slots, tx_slots
        options.latency_us, options.mtu, options.seed = latency_us, mtu, seed
        options.rcv_buf_bytes, options.snd_buf_bytes = recv_buffer, send_buffer
        options.virtual_time = virtual_time
        ends = [pack(host) or b"", pack(client_host) or b""]
        for i, packed in enumerate(ends):
            options.addresses[i].b = packed
        error = ffi.new("struct janus_error *")
        self._wire = lib.janus_loop_open(options, error)
        if self._wire == ffi.NULL:
            raise_error(error)
        super().__init__(connect="")
        self._ports = itertools.count(FIRST_PORT)
        self.stacks: dict[bytes, Poller] = {
            packed: self._adopt(int(ffi.cast("uintptr_t", lib.janus_loop_thread(self._wire, i))), owns=False)
            for i, packed in enumerate(ends)
        }
        self._ends = ends

    def _make_selector(self) -> JanusSelector:
        return VirtualSelector(self) if self._virtual else JanusSelector()

    def time(self) -> float:
        """Seconds; virtual ones jump."""
        if not self._virtual or not getattr(self, "_ends", None) or self.is_closed():
            return super().time()
        return self.stacks[self._ends[0]].clock_s

    def close(self) -> None:
        """End everything on both sides."""
        super().close()
        if self._wire != ffi.NULL:
            lib.janus_loop_close(self._wire)
            self._wire = ffi.NULL

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
        packed = pack(local_addr[0]) if local_addr is not None else None
        return packed if packed in self.stacks else None


__all__ = ["PairEventLoop"]
