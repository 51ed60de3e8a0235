"""Two stacks joined in memory, in virtual time: test handlers without janusd, root or sleeping.

with Pair() as pair:
    pair.serve(handle, port=7)

    async def client() -> bytes:
        conn = await janus_tcp.connect(pair.host, 7)
        ...

    assert pair.run(client()) == b"..."
"""

from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from janus_tcp._native import (
    Connection,
    Loop,
    Task,
    ffi,
    lib,
    raise_error,
    set_error_handler,
    set_slow_handler,
)
from janus_tcp.addresses import pack
from janus_tcp.c_handlers import CHandler
from janus_tcp.scheduler import (
    Handler,
    Listener,
    connect,
    listen_on,
    report,
    report_slow,
    result_of,
    stats,
    turn,
)

TICK_US = 1000
NEVER = 2**64 - 1


class Pair:
    """A server's and a client's stack on one wire; time stands still while there is work, then jumps.

    connections, rx_slots and tx_slots are per side; recv_buffer and send_buffer are bytes of a connection, 0: the
    stack's default; mtu is bytes of a packet; the same seed gives the same run.

    >>> async def client(host):
    ...     conn = await janus_tcp.connect(host, 7)
    ...     await janus_tcp.sleep(3600)
    ...     conn.close()
    >>> with Pair(latency_us=5000) as pair:
    ...     listener = pair.serve(echo, port=7)
    ...     pair.run(client(pair.host), limit_s=4000)
    ...     pair.now_s > 3600
    True
    """

    def __init__(
        self,
        *,
        connections: int = 1024,
        rx_slots: int = 4096,
        tx_slots: int = 4096,
        latency_us: int = 0,
        mtu: int = 1500,
        seed: int = 1,
        recv_buffer: int = 0,
        send_buffer: int = 0,
        host: str = "192.0.2.1",
        client_host: str = "192.0.2.2",
    ) -> None:
        set_error_handler(report)
        set_slow_handler(report_slow)
        self.host = host
        options = ffi.new("struct janus_loop_options *")
        options.rows, options.rx_slots, options.tx_slots = connections, rx_slots, tx_slots
        options.latency_us, options.mtu, options.seed = latency_us, mtu, seed
        options.rcv_buf_bytes, options.snd_buf_bytes = recv_buffer, send_buffer
        options.virtual_time = True
        for i, name in enumerate((host, client_host)):
            packed = pack(name)
            assert packed is not None, f"{name} is not one address"
            options.addresses[i].b = packed
        error = ffi.new("struct janus_error *")
        self._wire = lib.janus_loop_open(options, error)
        if self._wire == ffi.NULL:
            raise_error(error)
        self.server: Loop = self._end(0)
        self.client: Loop = self._end(1)

    def _end(self, number: int) -> Loop:
        return Loop(int(ffi.cast("uintptr_t", lib.janus_loop_thread(self._wire, number))), owns=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything on both sides: handlers see GeneratorExit."""
        self.server.close()
        self.client.close()
        if self._wire != ffi.NULL:
            lib.janus_loop_close(self._wire)
            self._wire = ffi.NULL

    @property
    def now_s(self) -> float:
        """Virtual time, in seconds."""
        return self.server.clock_us / 1e6

    def serve(self, handle: Handler | CHandler, port: int) -> Listener:
        """Listen on the server's side; a Listener.  Raises OSError EADDRINUSE."""
        return listen_on(self.server, handle, port)

    def step(self) -> bool:
        """One batch on each side, or a jump in time.  False: nothing is left that could happen."""
        if turn(self.server, 0) + turn(self.client, 0) > 0:
            return True
        next_us = min(self.server.next_deadline_us(), self.client.next_deadline_us())
        if next_us == NEVER:
            return False
        lib.janus_loop_advance(self._wire, max(next_us - self.server.clock_us, TICK_US))
        return True

    def run_until(self, condition: Callable[[], bool], limit_s: float = 600.0) -> None:
        """Step until condition holds; TimeoutError after limit_s, or when nothing is left to happen."""
        end_s = self.now_s + limit_s
        while not condition():
            if self.now_s > end_s:
                raise TimeoutError(f"not reached within {limit_s} s of virtual time")
            if not self.step() and not condition():
                raise TimeoutError("not reached, and nothing is left that could happen")

    def run(self, coro: Coroutine[Any, Any, Any], limit_s: float = 600.0) -> Any:
        """Run coro on the client's side to its end; its result or exception."""
        task: Task[Any] = self.client.spawn(coro)
        self.run_until(task.done, limit_s)
        return result_of(task)

    def settle(self, limit_s: float = 600.0) -> None:
        """Step until no handler, task or connection is left on either side, TIME-WAIT included."""
        self.run_until(self._is_empty, limit_s)

    def _is_empty(self) -> bool:
        for loop in (self.server, self.client):
            usage = stats(loop)["usage"]
            if loop.handlers or loop.tasks or any(usage[name] for name in usage):
                return False
        return True


def talk(
    handle: Handler,
    client: Callable[[Connection], Coroutine[Any, Any, Any]],
    *,
    port: int = 7,
    **options: Any,
) -> Any:
    """Serve handle, run ``client(connection)`` against it to its end, close, and return its result.

    options are those of Pair.  Raises what client raises, TimeoutError when it hangs.

    >>> async def client(conn):
    ...     await conn.send(b"hello")
    ...     return await conn.recv()
    >>> talk(echo, client, mtu=576)
    b'hello'
    """

    async def run(host: str) -> Any:
        connection = await connect(host, port)
        try:
            return await client(connection)
        finally:
            connection.close()

    with Pair(**options) as pair:
        pair.serve(handle, port)
        return pair.run(run(pair.host))


__all__ = ["Pair", "talk"]
