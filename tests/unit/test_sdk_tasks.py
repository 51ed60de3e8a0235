"""Tasks, groups, time limits and cancellation in virtual time."""

from collections.abc import Iterator

import janus_tcp
import pytest
from janus_tcp.testing import Pair


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Pair() as made:
        yield made


def test_sleep_takes_its_time(pair: Pair) -> None:
    async def main() -> list[float]:
        start_s = pair.now_s
        times = []
        for seconds in (0, 0.25, 3):
            await janus_tcp.sleep(seconds)
            times.append(pair.now_s - start_s)
        return times

    assert pair.run(main()) == pytest.approx([0, 0.25, 3.25], abs=0.01)


@pytest.mark.parametrize("seconds", [-1, float("nan")], ids=["negative", "nan"])
def test_sleep_refuses_what_is_no_time(pair: Pair, seconds: float) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="not negative"):
            await janus_tcp.sleep(seconds)

    pair.run(main())


def test_many_sleepers_wake_in_order(pair: Pair) -> None:
    order: list[int] = []

    async def sleeper(i: int) -> None:
        await janus_tcp.sleep(((i * 7919) % 1000) / 10)
        order.append((i * 7919) % 1000)

    async def main() -> None:
        async with janus_tcp.TaskGroup() as group:
            for i in range(1000):
                group.spawn(sleeper(i))

    pair.run(main())
    assert order == sorted(range(1000))


def test_a_task_gives_its_result_and_its_exception(pair: Pair) -> None:
    async def good() -> int:
        await janus_tcp.sleep(1)
        return 42

    async def bad() -> None:
        raise LookupError("no")

    async def main() -> int:
        task = janus_tcp.spawn(bad())
        with pytest.raises(LookupError, match="no"):
            await task
        assert task.done()
        assert isinstance(task.exception(), LookupError)
        return await janus_tcp.spawn(good())

    assert pair.run(main()) == 42


def test_an_exception_that_nobody_awaits_is_logged(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    async def bad() -> None:
        raise LookupError("lost")

    async def main() -> None:
        janus_tcp.spawn(bad())
        await janus_tcp.sleep(1)

    pair.run(main())
    assert "lost" in caplog.text


def test_cancel_runs_the_cleanup(pair: Pair) -> None:
    seen: list[str] = []

    async def victim() -> None:
        try:
            await janus_tcp.sleep(100)
        except janus_tcp.CancelledError:
            seen.append("cancelled")
            await janus_tcp.sleep(1)
            seen.append("cleaned")
            raise

    async def main() -> None:
        task = janus_tcp.spawn(victim())
        await janus_tcp.sleep(0.1)
        task.cancel()
        with pytest.raises(janus_tcp.CancelledError):
            await task
        task.cancel()

    pair.run(main())
    assert seen == ["cancelled", "cleaned"]
    assert pair.now_s < 50


@pytest.mark.parametrize("waiting", ["recv", "send"])
def test_cancel_in_recv_and_send_leaves_the_connection_usable(pair: Pair, waiting: str) -> None:
    async def handle(conn: janus_tcp.Connection) -> None:
        await janus_tcp.sleep(10)
        async for _ in conn:
            pass
        await conn.send(b"end")

    async def client() -> bytes:
        conn = await janus_tcp.connect(pair.host, 7)

        async def victim() -> None:
            await (conn.recv() if waiting == "recv" else conn.send(bytes(10_000_000)))

        task = janus_tcp.spawn(victim())
        await janus_tcp.sleep(1)
        task.cancel()
        with pytest.raises(janus_tcp.CancelledError):
            await task
        conn.shutdown()
        data = await conn.recv()
        conn.close()
        return data

    pair.serve(handle, 7)
    assert pair.run(client()) == b"end"
    pair.settle()


def test_timeout_ends_the_body(pair: Pair) -> None:
    async def main() -> float:
        start_s = pair.now_s
        with pytest.raises(TimeoutError, match=r"1\.5 s"):
            async with janus_tcp.timeout(1.5):
                await janus_tcp.sleep(100)
        return pair.now_s - start_s

    assert pair.run(main()) == pytest.approx(1.5, abs=0.01)


def test_timeout_that_does_not_strike_leaves_no_trace(pair: Pair) -> None:
    async def main() -> str:
        async with janus_tcp.timeout(5):
            await janus_tcp.sleep(1)
        async with janus_tcp.timeout(None):
            await janus_tcp.sleep(1)
        await janus_tcp.sleep(10)
        return "through"

    assert pair.run(main()) == "through"


def test_the_inner_of_two_timeouts_strikes_first(pair: Pair) -> None:
    async def main() -> float:
        start_s = pair.now_s
        async with janus_tcp.timeout(10):
            with pytest.raises(TimeoutError):
                async with janus_tcp.timeout(1):
                    await janus_tcp.sleep(100)
            await janus_tcp.sleep(1)
        return pair.now_s - start_s

    assert pair.run(main()) == pytest.approx(2, abs=0.01)


def test_timeout_in_a_handler(pair: Pair) -> None:
    async def handle(conn: janus_tcp.Connection) -> None:
        try:
            async with janus_tcp.timeout(2):
                await conn.recv()
        except TimeoutError:
            await conn.send(b"too slow")

    async def client() -> bytes:
        conn = await janus_tcp.connect(pair.host, 7)
        data = await conn.recv()
        conn.close()
        return data

    pair.serve(handle, 7)
    assert pair.run(client()) == b"too slow"


def test_a_group_waits_for_all(pair: Pair) -> None:
    done: list[int] = []

    async def work(i: int) -> None:
        await janus_tcp.sleep(i)
        done.append(i)

    async def main() -> None:
        async with janus_tcp.TaskGroup() as group:
            for i in (3, 1, 2):
                group.spawn(work(i))
        assert done == [1, 2, 3]

    pair.run(main())


def test_a_failure_in_a_group_cancels_the_rest(pair: Pair) -> None:
    ended: list[str] = []

    async def bad() -> None:
        await janus_tcp.sleep(1)
        raise ValueError("first")

    async def long() -> None:
        try:
            await janus_tcp.sleep(100)
        finally:
            ended.append("long")

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - the group is what is tested
            async with janus_tcp.TaskGroup() as group:
                group.spawn(long())
                group.spawn(bad())
                await janus_tcp.sleep(50)
        assert [str(e) for e in caught.value.exceptions] == ["first"]

    pair.run(main())
    assert ended == ["long"]
    assert pair.now_s < 10


def test_a_failing_body_cancels_the_group(pair: Pair) -> None:
    ended: list[str] = []

    async def long() -> None:
        try:
            await janus_tcp.sleep(100)
        finally:
            ended.append("long")

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - the group is what is tested
            async with janus_tcp.TaskGroup() as group:
                group.spawn(long())
                await janus_tcp.sleep(1)
                raise KeyError("body")
        assert isinstance(caught.value.exceptions[0], KeyError)

    pair.run(main())
    assert ended == ["long"]


def test_who_is_cancelled_in_a_group_takes_its_tasks_along(pair: Pair) -> None:
    """No coroutine outlives its scope: the caller leaves when the last one has cleaned up."""
    events: list[str] = []

    async def work(name: str) -> None:
        try:
            await janus_tcp.sleep(100)
        finally:
            await janus_tcp.sleep(1)  # a clean-up that waits
            events.append(name)

    async def caller() -> None:
        try:
            async with janus_tcp.TaskGroup() as group:
                group.spawn(work("a"))
                group.spawn(work("b"))
        finally:
            events.append("caller")

    async def main() -> None:
        task = janus_tcp.spawn(caller())
        await janus_tcp.sleep(5)
        task.cancel()
        with pytest.raises(janus_tcp.CancelledError):
            await task

    pair.run(main())
    assert (set(events[:-1]), events[-1]) == ({"a", "b"}, "caller")
    assert 6 <= pair.now_s < 8
    assert pair.client.tasks == 0


def test_gather_raises_the_first_failure_when_the_others_have_ended(pair: Pair) -> None:
    ended: list[str] = []

    async def long() -> None:
        try:
            await janus_tcp.sleep(100)
        finally:
            ended.append("long")

    async def bad() -> None:
        await janus_tcp.sleep(1)
        raise KeyError("first")

    async def main() -> None:
        with pytest.raises(KeyError, match="first"):
            await janus_tcp.gather(long(), bad(), long())
        assert ended == ["long", "long"]

    pair.run(main())
    assert pair.now_s < 10


def test_outside_of_a_loop_there_is_a_clear_error() -> None:
    async def main() -> None: ...

    coro = main()
    with pytest.raises(RuntimeError, match="coroutine that janus_tcp runs"):
        janus_tcp.spawn(coro)
    coro.close()
    with pytest.raises(RuntimeError, match="coroutine that janus_tcp runs"):
        janus_tcp.sleep(1)


def test_system_exit_leaves_the_loop(pair: Pair) -> None:
    async def main() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        pair.run(main())


def test_closing_the_loop_ends_every_task() -> None:
    ended: list[str] = []

    async def handle(conn: janus_tcp.Connection) -> None:
        try:
            await conn.recv()
        finally:
            ended.append("handler")

    async def client(pair: Pair) -> None:
        conn = await janus_tcp.connect(pair.host, 7)
        await janus_tcp.sleep(1)
        assert not conn.closed

    async def sleeper() -> None:
        try:
            await janus_tcp.sleep(1000)
        finally:
            ended.append("task")

    with Pair() as pair:
        pair.serve(handle, 7)
        pair.server.spawn(sleeper())
        with pytest.warns(ResourceWarning):
            pair.run(client(pair))
    assert sorted(ended) == ["handler", "task"]


def test_another_thread_is_refused(pair: Pair) -> None:
    import threading

    errors: list[str] = []
    made: list[janus_tcp.Connection] = []

    async def handle(conn: janus_tcp.Connection) -> None:
        await conn.recv()

    async def client() -> None:
        made.append(await janus_tcp.connect(pair.host, 7))

    def other() -> None:
        try:
            made[0].send(b"x")
        except RuntimeError as error:
            errors.append(str(error))

    pair.serve(handle, 7)
    pair.run(client())
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert errors == ["a connection belongs to the thread that runs its loop"]
    made[0].abort()
