"""Each allocation of an echo fails once: no crash, no hang, and the next echo is served."""

import asyncio
import gc
import logging
import re
import sys
from collections.abc import Iterator
from typing import Any, cast

import janus_tcp
import pytest
from janus_tcp.asyncio_testing import PairEventLoop
from janus_tcp.testing import Pair

_testcapi: Any = pytest.importorskip("_testcapi")
ALLOCATIONS = 120  # more than an echo makes
STREAM_ALLOCATIONS = 300
LOST_STEP = re.compile(r"Exception in callback (<TaskStepMethWrapper|Task\.task_wakeup)")
TOLD = {"MemoryError", "ConnectionResetError"}  # the latter: it was the handler's that failed


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a handler or a destructor met is reported, many times over."""
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


async def echo(conn: janus_tcp.Connection) -> None:
    async for data in conn:
        await conn.send(data)


async def ask(host: str) -> Any:
    conn = await janus_tcp.connect(host, 7)
    try:
        await conn.send(b"hello")
        return await conn.recv()
    finally:
        conn.close()


def failing(pair: Pair, n: int) -> str:
    """An echo during which allocation n fails, and what it came to."""
    asking = ask(pair.host)
    _testcapi.set_nomemory(n, n + 1)
    try:
        answer = pair.run(asking, 100)
    except Exception as error:
        return type(error).__name__
    finally:
        _testcapi.remove_mem_hooks()
        asking.close()
    return str(answer.decode())


def test_a_native_echo() -> None:
    outcomes = []
    for n in range(ALLOCATIONS):
        with Pair() as pair:
            pair.serve(echo, 7)
            outcomes.append(failing(pair, n))
            assert pair.run(ask(pair.host), 100) == b"hello", f"after allocation {n}"
            pair.settle(1000)
    assert set(outcomes) == {"hello", *TOLD}
    assert set(outcomes[-20:]) == {"hello"}, "the last ones are beyond it"


async def echo_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(100):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


async def ask_stream(host: str) -> bytes:
    reader, writer = await asyncio.open_connection(host, 7)
    try:
        writer.write(b"hello\n")
        return await reader.readline()
    finally:
        writer.close()


def failing_stream(loop: PairEventLoop, n: int) -> str:
    """An echo by streams during which allocation n fails, and what it came to within 50 s of virtual time."""
    heard: list[str] = []
    loop.set_exception_handler(lambda loop, context: heard.append(context["message"]))
    asking = loop.create_task(ask_stream(loop.host))
    end = loop.call_later(50, loop.stop)
    _testcapi.set_nomemory(n, n + 1)
    try:
        loop.run_forever()
    except MemoryError:
        return "the loop's"
    finally:
        _testcapi.remove_mem_hooks()
        end.cancel()
        asyncio._set_running_loop(None)  # asyncio's own run_forever() may fail before it does so
    if not asking.done():
        return "a task's step" if any(LOST_STEP.match(message) for message in heard) else "not told"
    return type(error).__name__ if (error := asking.exception()) else asking.result().decode()


@pytest.mark.filterwarnings("ignore")
def test_an_asyncio_echo() -> None:
    """Whoever takes part is told, but for a task of CPython's own that found no memory for its next step: it never goes
    on, and the loop's exception handler is told instead.  The next echo is served."""
    outcomes = []
    for n in range(STREAM_ALLOCATIONS):
        loop = PairEventLoop()
        server = loop.run_until_complete(asyncio.start_server(echo_stream, loop.host, 7))
        outcomes.append(failing_stream(loop, n))
        again = asyncio.wait_for(ask_stream(loop.host), 50)
        assert loop.run_until_complete(again) == b"hello\n", f"after allocation {n}"
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(1))
        for task in asyncio.all_tasks(loop):
            cast(Any, task.get_coro()).close()  # its next step never comes
        loop.close()
    assert set(outcomes) <= {"hello\n", "", "a task's step", "the loop's", *TOLD}
    assert outcomes.count("a task's step") < 10
    assert {"hello\n", "MemoryError"} <= set(outcomes)
    gc.collect()


def test_who_connects_is_told_although_the_first_attempt_finds_no_memory() -> None:
    class Forgetful(asyncio.Future[Any]):
        failures = 0

        def done(self) -> bool:
            if not Forgetful.failures:
                Forgetful.failures += 1
                raise MemoryError
            return super().done()

    loop = PairEventLoop()
    server = loop.run_until_complete(asyncio.start_server(echo_stream, loop.host, 7))
    loop.create_future = lambda: Forgetful(loop=loop)  # type: ignore[method-assign]
    asking = loop.create_task(ask_stream(loop.host))
    loop.call_later(50, loop.stop)
    asking.add_done_callback(lambda asking: loop.stop())
    loop.run_forever()
    assert Forgetful.failures == 1
    assert asking.done()
    assert asking.result() == b"hello\n"
    loop.run_until_complete(asyncio.sleep(1))  # the handler ends
    server.close()
    loop.close()
