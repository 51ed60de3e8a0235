"""Connections for scripts and tests that have no coroutines: each call waits until it is done.

with janus_tcp.sync.attach(app="web") as session:
    with session.connect("10.77.0.2", 7, timeout_s=5) as conn:
        conn.send(b"hello")
        print(conn.recv())

The stack runs inside the calls only: between them nothing is acknowledged and no timer fires, so a script that
computes for seconds keeps its peers waiting.  Servers are written with janus_tcp.run().
"""

from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar

from janus_tcp._native import Connection as _Connection
from janus_tcp._native import sleep
from janus_tcp.scheduler import connect, drain, open_loop, run_until_complete
from janus_tcp.timeouts import timeout

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, Any]], Any]


class _Closing:
    """Leaving it as a context manager closes it."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Connection(_Closing):
    """An open connection; leaving it as a context manager closes it.

    timeout_s holds for each call that waits: TimeoutError when it takes so many seconds, None is no limit.  Errors are
    those of janus_tcp.Connection.

    >>> with Pair() as pair:
    ...     listener = pair.serve(echo, port=7)
    ...     with Session(pair.run).connect(pair.host, 7, timeout_s=5) as conn:
    ...         conn.send(b"hello, world")
    ...         conn.recv_exactly(5), conn.recv()
    (b'hello', b', world')
    """

    def __init__(self, run: Run, conn: _Connection, timeout_s: float | None) -> None:
        self._run = run
        self._conn = conn
        self.timeout_s = timeout_s

    def _wait(self, call: Callable[[], Any]) -> Any:
        async def within() -> Any:
            async with timeout(self.timeout_s):
                return await call()

        return self._run(within())

    @property
    def peername(self) -> tuple[str, int]:
        """(host, port) of the peer.  Raises OSError ENOTCONN when closed.

        >>> with Pair() as pair:
        ...     listener = pair.serve(echo, port=7)
        ...     Session(pair.run).connect(pair.host, 7).peername
        ('192.0.2.1', 7)
        """
        return self._conn.peername

    @property
    def sockname(self) -> tuple[str, int]:
        """(host, port) of this side.  Raises OSError ENOTCONN when closed.

        >>> with Pair() as pair:
        ...     listener = pair.serve(echo, port=7)
        ...     Session(pair.run).connect(pair.host, 7).sockname[0]
        '192.0.2.2'
        """
        return self._conn.sockname

    def recv(self, n: int = 65536) -> bytes:
        """1 to n bytes as soon as there are some; b"" after the peer's FIN.  Raises TimeoutError, ConnectionResetError.

        >>> with Pair() as pair:
        ...     listener = pair.serve(echo, port=7)
        ...     conn = Session(pair.run).connect(pair.host, 7, timeout_s=0.5)
        ...     try:
        ...         conn.recv()
        ...     except TimeoutError as error:
        ...         str(error)
        'took longer than 0.5 s'
        """
        data: bytes = self._wait(partial(self._conn.recv, n))
        return data

    def recv_exactly(self, n: int) -> bytes:
        """N bytes.  Raises IncompleteReadError when the stream ends before, TimeoutError, ConnectionResetError.

        >>> with Pair() as pair:
        ...     listener = pair.serve(echo, port=7)
        ...     conn = Session(pair.run).connect(pair.host, 7)
        ...     conn.send(b"abc")
        ...     conn.recv_exactly(2)
        b'ab'
        """
        data: bytes = self._wait(partial(self._conn.recv_exactly, n))
        return data

    def recv_until(self, delimiter: bytes, limit: int = 65536) -> bytes:
        """All up to and with the delimiter.  Raises ValueError: not within limit bytes; as recv_exactly().

        >>> with Pair() as pair:
        ...     listener = pair.serve(echo, port=7)
        ...     conn = Session(pair.run).connect(pair.host, 7)
        ...     conn.send(b"a line\\nand")
        ...     conn.recv_until(b"\\n")
        b'a line\\n'
        """
        data: bytes = self._wait(partial(self._conn.recv_until, delimiter, limit))
        return data

    def __iter__(self) -> Iterator[bytes]:
        while data := self.recv():
            yield data

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Return when all bytes of data are in segments.  Raises TimeoutError, BrokenPipeError, ConnectionResetError.

        >>> with Pair() as pair:
        ...     listener = pair.serve(echo, port=7)
        ...     conn = Session(pair.run).connect(pair.host, 7)
        ...     conn.send(bytes(100_000))
        ...     len(conn.recv_exactly(100_000))
        100000
        """
        self._wait(partial(self._conn.send, data))

    def shutdown(self) -> None:
        """FIN after what was sent; receiving goes on.  Raises BrokenPipeError when closed.

        >>> with Pair() as pair:
        ...     listener = pair.serve(echo, port=7)
        ...     conn = Session(pair.run).connect(pair.host, 7)
        ...     conn.send(b"all")
        ...     conn.shutdown()
        ...     list(conn)
        [b'all']
        """
        self._conn.shutdown()

    def close(self) -> None:
        """End it in order; what was sent still arrives while the session is used or closed.  Harmless when closed.

        >>> with Pair() as pair:
        ...     listener = pair.serve(echo, port=7)
        ...     conn = Session(pair.run).connect(pair.host, 7)
        ...     conn.close()
        ...     conn.close()
        """
        if not self._conn.closed:
            self._conn.close()
            self._run(sleep_briefly())

    def abort(self) -> None:
        """Reset it.  Harmless when it is closed.

        >>> with Pair() as pair:
        ...     listener = pair.serve(echo, port=7)
        ...     Session(pair.run).connect(pair.host, 7).abort()
        """
        self._conn.abort()


async def sleep_briefly() -> None:
    """One turn of the loop, which sends what is owed."""
    await sleep(0)


class Session(_Closing):
    """A stack that runs while one of its calls waits; made by attach(), or in a test of testing.Pair.run.

    Making it raises nothing; its calls do.

    >>> async def answer():
    ...     return 42
    >>> with Pair() as pair:
    ...     Session(pair.run).run(answer())
    42
    """

    def __init__(self, run: Run, end: Callable[[], None] = lambda: None) -> None:
        self._run = run
        self._end = end

    def connect(
        self,
        host: str,
        port: int,
        *,
        timeout_s: float | None = None,
        local_host: str | None = None,
        local_port: int = 0,
    ) -> Connection:
        """Open a connection; timeout_s seconds hold for this and for each later call on it.

        Raises TimeoutError and what janus_tcp.connect() does.

        >>> with Pair() as pair:
        ...     Session(pair.run).connect(pair.host, 8, timeout_s=5)
        Traceback (most recent call last):
        ConnectionRefusedError: [Errno 111] Connection refused
        """

        async def within() -> _Connection:
            async with timeout(timeout_s):
                return await connect(host, port, local_host=local_host, local_port=local_port)

        return Connection(self._run, self._run(within()), timeout_s)

    def run(self, coro: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end; its result, or raises its exception.

        >>> async def peer(host):
        ...     conn = await janus_tcp.connect(host, 7)
        ...     try:
        ...         return conn.peername
        ...     finally:
        ...         conn.close()
        >>> with Pair() as pair:
        ...     listener = pair.serve(echo, port=7)
        ...     Session(pair.run).run(peer(pair.host))
        ('192.0.2.1', 7)
        """
        result: T = self._run(coro)
        return result

    def close(self) -> None:
        """Let out what closed connections owe, at most a second, reset the others, detach.  Harmless when closed.

        >>> with Pair() as pair:
        ...     Session(pair.run).close()
        """
        self._end()


def attach(app: str | None = None, *, socket: str | None = None) -> Session:
    """Attach to janusd as a thread of app; app and socket are as in janus_tcp.run().  Raises OSError as run() does.

    >>> attach("web", socket="/nowhere/attach.sock")
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] no janusd: ...
    """
    loop = open_loop(app, socket=socket, slow_s=0)
    try:
        loop.online()
    except BaseException:
        loop.close()
        raise
    return Session(partial(run_until_complete, loop), partial(drain, loop, 0.0))


__all__ = ["Connection", "Session", "attach"]
