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
from typing import Any, Self, Unpack

from janus_tcp._native import (
    Connection,
    Loop,
    Task,
    set_error_handler,
    set_slow_handler,
)
from janus_tcp.c_handlers import CHandler
from janus_tcp.memory import CLIENT_HOST, HOST, Bounds, Wire
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

    connections (1024), rx_slots and tx_slots (4096) are per side; recv_buffer and send_buffer are bytes of a
    connection, 0: the stack's default; latency_us is one way; mtu is bytes of a packet; the same seed gives the same
    run.  MemoryError when there is none for the stacks.

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

    def __init__(self, *, host: str = HOST, client_host: str = CLIENT_HOST, **bounds: Unpack[Bounds]) -> None:
        set_error_handler(report)
        set_slow_handler(report_slow)
        self.host = host
        self._wire = Wire((host, client_host), virtual_time=True, **bounds)
        self.server: Loop = Loop(self._wire.thread(0), owns=False)
        self.client: Loop = Loop(self._wire.thread(1), owns=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything on both sides: handlers see GeneratorExit.  Harmless when it is closed; never raises.

        >>> pair = Pair()
        >>> pair.close()
        """
        self.server.close()
        self.client.close()
        self._wire.close()

    @property
    def now_s(self) -> float:
        """Virtual time, in seconds.  Never raises.

        >>> async def nap():
        ...     await janus_tcp.sleep(2)
        >>> with Pair() as pair:
        ...     pair.run(nap())
        ...     pair.now_s >= 2
        True
        """
        return self.server.clock_us / 1e6

    def serve(self, handle: Handler | CHandler, port: int) -> Listener:
        """Listen on the server's side; a Listener.  Raises OSError EADDRINUSE.

        >>> with Pair() as pair:
        ...     pair.serve(echo, port=7).port
        7
        """
        return listen_on(self.server, handle, port)

    def step(self) -> bool:
        """One batch on each side, or a jump in time.  False: nothing is left that could happen.  Never raises: what a
        handler raises is logged.

        >>> with Pair() as pair:
        ...     pair.step()
        False
        """
        if turn(self.server, 0) + turn(self.client, 0) > 0:
            return True
        next_us = min(self.server.next_deadline_us(), self.client.next_deadline_us())
        if next_us == NEVER:
            return False
        self._wire.advance(max(next_us - self.server.clock_us, TICK_US))
        return True

    def run_until(self, condition: Callable[[], bool], limit_s: float = 600.0) -> None:
        """Step until condition holds; TimeoutError after limit_s seconds, or when nothing is left to happen.

        >>> async def nap():
        ...     await janus_tcp.sleep(5)
        >>> with Pair() as pair:
        ...     task = pair.client.spawn(nap())
        ...     pair.run_until(task.done, limit_s=10)
        ...     pair.now_s >= 5
        True
        """
        end_s = self.now_s + limit_s
        while not condition():
            if self.now_s > end_s:
                raise TimeoutError(f"not reached within {limit_s} s of virtual time")
            if not self.step() and not condition():
                raise TimeoutError("not reached, and nothing is left that could happen")

    def run(self, coro: Coroutine[Any, Any, Any], limit_s: float = 600.0) -> Any:
        """Run coro on the client's side to its end; its result or exception.

        TimeoutError after limit_s seconds, or when nothing is left to happen.

        >>> async def client(host):
        ...     conn = await janus_tcp.connect(host, 7)
        ...     await conn.send(b"hello")
        ...     answer = await conn.recv()
        ...     conn.close()
        ...     return answer
        >>> with Pair() as pair:
        ...     listener = pair.serve(echo, port=7)
        ...     pair.run(client(pair.host), limit_s=60)
        b'hello'
        """
        task: Task[Any] = self.client.spawn(coro)
        self.run_until(task.done, limit_s)
        return result_of(task)

    def settle(self, limit_s: float = 600.0) -> None:
        """Step until no handler, task or connection is left on either side, TIME-WAIT included.

        TimeoutError after limit_s seconds: something is left behind.

        >>> with Pair() as pair:
        ...     pair.settle(limit_s=120)
        """
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
