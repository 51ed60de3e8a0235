"""Limits of time around any part of a coroutine."""

from types import TracebackType
from typing import Any, Self

from janus_tcp._native import CancelledError, Connection, Task, Timer, cancel
from janus_tcp.tasks import running_loop, running_task


class timeout:
    """``async with timeout(seconds)``: TimeoutError when the body takes longer; None is no limit.

    The body is cancelled where it waits.  Raises ValueError for a negative number.

    >>> async def client(conn):
    ...     try:
    ...         async with janus_tcp.timeout(0.5):
    ...             await conn.recv()
    ...     except TimeoutError as error:
    ...         return str(error)
    >>> talk(echo, client)
    'took longer than 0.5 s'
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._timer: Timer | None = None
        self._task: Task[Any] | Connection | None = None
        self._expired = False

    def _expire(self) -> None:
        self._expired = True
        if self._task is not None:
            cancel(self._task)

    async def __aenter__(self) -> Self:
        self._task = running_task()
        if self._seconds is not None:
            self._timer = running_loop().call_later(self._seconds, self._expire)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._task = None
        if self._expired and isinstance(error, CancelledError):
            raise TimeoutError(f"took longer than {self._seconds} s") from error
