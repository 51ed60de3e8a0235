"""Coroutines beside coroutines: spawn and TaskGroup."""

from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from janus_tcp._native import CancelledError, Connection, Loop, Task, cancel, current_loop, current_task

T = TypeVar("T")


def running_loop() -> Loop:
    """The loop that runs the caller; RuntimeError outside of one."""
    loop = current_loop()
    if loop is None:
        raise RuntimeError("this must be called in a coroutine that janus_tcp runs")
    return loop


def running_task() -> Task[Any] | Connection:
    """The task that runs the caller, or the connection whose handler does; RuntimeError outside of one."""
    task = current_task()
    if task is None:
        raise RuntimeError("this must be used in a coroutine that janus_tcp runs")
    return task


def spawn(coro: Coroutine[Any, Any, T]) -> Task[T]:
    """Run coro beside the caller; await the Task for its result.

    An exception that nobody awaits is logged.  Prefer TaskGroup: it leaves no task behind.  Raises RuntimeError
    outside of a coroutine that janus_tcp runs, TypeError for what is no coroutine.

    >>> async def client(conn):
    ...     task = janus_tcp.spawn(answer(conn))
    ...     await conn.send(b"x")
    ...     return await task
    >>> async def answer(conn):
    ...     return await conn.recv()
    >>> talk(echo, client)
    b'x'
    """
    return running_loop().spawn(coro)


class TaskGroup:
    """``async with TaskGroup() as group: group.spawn(f())``: leaves when all tasks have ended.

    The first failure cancels the others and the body; failures are raised as one ExceptionGroup.  When the caller
    is cancelled, so are all tasks, and it leaves when they have ended.

    >>> async def answer(conn):
    ...     return await conn.recv_exactly(2)
    >>> async def client(conn):
    ...     async with janus_tcp.TaskGroup() as group:
    ...         task = group.spawn(answer(conn))
    ...         await conn.send(b"hi")
    ...     return await task
    >>> talk(echo, client)
    b'hi'
    """

    def __init__(self) -> None:
        self._tasks: set[Task[Any]] = set()
        self._errors: list[Exception] = []
        self._parent: Task[Any] | Connection | None = None
        self._failed = False
        self._in_body = False

    def spawn(self, coro: Coroutine[Any, Any, T]) -> Task[T]:
        """Run coro in the group; its Task.  RuntimeError and TypeError as of janus_tcp.spawn().

        >>> async def double(n):
        ...     return 2 * n
        >>> async def client(conn):
        ...     async with janus_tcp.TaskGroup() as group:
        ...         tasks = [group.spawn(double(n)) for n in range(3)]
        ...     return [await task for task in tasks]
        >>> talk(echo, client)
        [0, 2, 4]
        """
        task = running_loop().spawn(coro, self._ended)
        self._tasks.add(task)
        return task

    def _ended(self, task: Task[Any]) -> None:
        self._tasks.discard(task)
        error = task.exception()
        if not isinstance(error, Exception):
            return
        self._errors.append(error)
        if not self._failed:
            self._failed = True
            self._cancel_tasks()
            if self._in_body and self._parent is not None:
                cancel(self._parent)

    def _cancel_tasks(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    async def __aenter__(self) -> Self:
        self._parent = running_task()
        self._in_body = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._in_body = False
        outside: BaseException | None = None if error is None or self._failed else error
        if error is not None:
            self._cancel_tasks()
        while self._tasks:
            task = next(iter(self._tasks))
            try:
                await task
            except CancelledError as cancelled:
                if not task.done():  # the caller itself was cancelled meanwhile
                    outside = outside or cancelled
                    self._cancel_tasks()
            except Exception:
                pass
        if isinstance(error, Exception):
            self._errors.insert(0, error)
        if self._errors and (outside is None or isinstance(outside, Exception)):
            raise ExceptionGroup("tasks of a group failed", self._errors)
        if outside is not None and outside is not error:
            raise outside


async def gather(*coros: Coroutine[Any, Any, Any]) -> list[Any]:
    """Run coroutines beside each other; their results in order.

    The first failure is raised as it is, when the others, cancelled, have ended.  RuntimeError outside of a coroutine
    that janus_tcp runs.

    >>> async def later(seconds):
    ...     await janus_tcp.sleep(seconds)
    ...     return seconds
    >>> async def client(conn):
    ...     return await janus_tcp.gather(later(2), later(1))
    >>> talk(echo, client)
    [2, 1]
    """
    try:
        async with TaskGroup() as group:
            tasks = [group.spawn(coro) for coro in coros]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [await task for task in tasks]
