"""Connection over two stacks in memory: every way to receive, to send, to end and to fail."""

import asyncio
import gc
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Iterator
from types import CoroutineType

import janus_tcp
import pytest
from janus_tcp.scheduler import stats
from janus_tcp.testing import Pair

PORT = 7


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Pair(recv_buffer=65536, send_buffer=65536) as made:
        yield made


async def echo(conn: janus_tcp.Connection) -> None:
    async for data in conn:
        await conn.send(data)


async def dial(pair: Pair) -> janus_tcp.Connection:
    return await janus_tcp.connect(pair.host, PORT)


def pattern(n: int) -> bytes:
    return bytes((i * 7 + i // 251) % 256 for i in range(n))


def test_echo_and_end_of_stream(pair: Pair) -> None:
    pair.serve(echo, PORT)

    async def client() -> list[bytes]:
        conn = await dial(pair)
        await conn.send(b"hello")
        got = [await conn.recv()]
        conn.shutdown()
        got.append(await conn.recv())
        got.append(await conn.recv())
        conn.close()
        return got

    assert pair.run(client()) == [b"hello", b"", b""]
    pair.settle()
    assert pair.server.accepted == 1
    assert pair.server.failed == 0


def test_names_of_both_ends(pair: Pair) -> None:
    seen: list[tuple[tuple[str, int], tuple[str, int]]] = []

    async def handle(conn: janus_tcp.Connection) -> None:
        seen.append((conn.peername, conn.sockname))

    async def client() -> tuple[tuple[str, int], tuple[str, int]]:
        conn = await janus_tcp.connect(pair.host, PORT, local_port=40001)
        names = conn.sockname, conn.peername
        await conn.recv()
        conn.close()
        return names

    pair.serve(handle, PORT)
    assert pair.run(client()) == (("192.0.2.2", 40001), ("192.0.2.1", 7))
    assert seen == [(("192.0.2.2", 40001), ("192.0.2.1", 7))]


@pytest.mark.parametrize(
    "hosts", [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")], ids=["IPv4", "IPv6"]
)
def test_both_families(hosts: tuple[str, str]) -> None:
    with Pair(host=hosts[0], client_host=hosts[1]) as pair:
        pair.serve(echo, PORT)

        async def client() -> bytes:
            conn = await dial(pair)
            await conn.send(b"x")
            data = await conn.recv()
            assert conn.peername == (hosts[0], PORT)
            conn.close()
            return data

        assert pair.run(client()) == b"x"


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview], ids=["bytes", "bytearray", "memoryview"])
def test_a_megabyte_comes_back_whole(pair: Pair, make: type) -> None:
    data = pattern(1 << 20)
    pair.serve(echo, PORT)

    async def client() -> bytes:
        conn = await dial(pair)
        sender = janus_tcp.spawn(feed(conn))
        received = await conn.recv_exactly(len(data))
        await sender
        conn.close()
        return received

    async def feed(conn: janus_tcp.Connection) -> None:
        await conn.send(make(data))

    assert pair.run(client()) == data
    pair.settle()


def test_send_waits_for_a_slow_reader(pair: Pair) -> None:
    progress: list[float] = []

    async def handle(conn: janus_tcp.Connection) -> None:
        await conn.send(bytes(400_000))
        progress.append(pair.now_s)

    async def client() -> int:
        conn = await dial(pair)
        await janus_tcp.sleep(5)
        assert not progress, "send() returned although nobody read"
        assert conn.info()["unread_bytes"] <= 65536
        total = 0
        async for data in conn:
            total += len(data)
        conn.close()
        return total

    pair.serve(handle, PORT)
    assert pair.run(client()) == 400_000
    assert progress[0] > 5
    pair.settle()


def test_a_slow_reader_starves_nobody(pair: Pair) -> None:
    async def handle(conn: janus_tcp.Connection) -> None:
        if (await conn.recv_exactly(1)) == b"s":
            await conn.send(bytes(1_000_000))
        else:
            await conn.send(b"quick")

    async def client() -> bytes:
        slow = [await dial(pair) for _ in range(20)]
        for conn in slow:
            await conn.send(b"s")
        await janus_tcp.sleep(1)
        quick = await dial(pair)
        await quick.send(b"q")
        data = await quick.recv()
        quick.close()
        for conn in slow:
            conn.abort()
        return data

    pair.serve(handle, PORT)
    assert pair.run(client()) == b"quick"
    pair.settle()


def test_recv_gives_at_most_n(pair: Pair) -> None:
    async def handle(conn: janus_tcp.Connection) -> None:
        await conn.send(b"abcdef")

    async def client() -> list[bytes]:
        conn = await dial(pair)
        await janus_tcp.sleep(0.1)
        parts = [await conn.recv(2), await conn.recv(n=3), await conn.recv(100)]
        conn.close()
        return parts

    pair.serve(handle, PORT)
    assert pair.run(client()) == [b"ab", b"cde", b"f"]


@pytest.mark.parametrize("n", [0, -1, 2**40], ids=["zero", "negative", "huge"])
def test_recv_refuses_a_bad_limit(pair: Pair, n: int) -> None:
    pair.serve(echo, PORT)

    async def client() -> None:
        conn = await dial(pair)
        try:
            with pytest.raises(ValueError, match="recv"):
                conn.recv(n)
        finally:
            conn.close()

    pair.run(client())


@pytest.mark.parametrize(
    ("chunks", "delimiter", "expected"),
    [
        pytest.param([b"a\r\nb"], b"\r\n", b"a\r\n", id="in one segment"),
        pytest.param([b"a\r", b"\nb"], b"\r\n", b"a\r\n", id="across two segments"),
        pytest.param([b"\r", b"\n", b"\r", b"\n!"], b"\r\n\r\n", b"\r\n\r\n", id="across four segments"),
        pytest.param([b"aa", b"ab", b"x"], b"ab", b"aaab", id="after a false start"),
        pytest.param([b"aaaa", b"ab"], b"aab", b"aaaaab", id="overlapping false starts"),
    ],
)
def test_recv_until(pair: Pair, chunks: list[bytes], delimiter: bytes, expected: bytes) -> None:
    async def handle(conn: janus_tcp.Connection) -> None:
        conn.set_nodelay(True)
        for chunk in chunks:
            await conn.send(chunk)
            await janus_tcp.sleep(0.5)

    async def client() -> tuple[bytes, bytes]:
        conn = await dial(pair)
        line = await conn.recv_until(delimiter)
        rest = b"".join([data async for data in conn])
        conn.close()
        return line, rest

    pair.serve(handle, PORT)
    line, rest = pair.run(client())
    assert line == expected
    assert line + rest == b"".join(chunks)


def test_recv_until_has_a_limit_and_leaves_the_data(pair: Pair) -> None:
    async def handle(conn: janus_tcp.Connection) -> None:
        await conn.send(b"0123456789\n")

    async def client() -> bytes:
        conn = await dial(pair)
        with pytest.raises(ValueError, match="first 10 bytes"):
            await conn.recv_until(b"\n", limit=10)
        line = await conn.recv_until(b"\n", limit=11)
        conn.close()
        return line

    pair.serve(handle, PORT)
    assert pair.run(client()) == b"0123456789\n"


@pytest.mark.parametrize("read", ["exactly", "until"])
def test_a_stream_that_ends_early(pair: Pair, read: str) -> None:
    async def handle(conn: janus_tcp.Connection) -> None:
        await conn.send(b"part")

    async def client() -> tuple[object, ...]:
        conn = await dial(pair)
        with pytest.raises(janus_tcp.IncompleteReadError) as caught:
            await (conn.recv_exactly(9) if read == "exactly" else conn.recv_until(b"\n", limit=9))
        conn.close()
        return caught.value.args

    pair.serve(handle, PORT)
    assert pair.run(client()) == (b"part", 9)


def test_half_close_lets_the_answer_through(pair: Pair) -> None:
    async def handle(conn: janus_tcp.Connection) -> None:
        total = 0
        async for data in conn:
            total += len(data)
        await conn.send(str(total).encode())

    async def client() -> bytes:
        conn = await dial(pair)
        await conn.send(bytes(100_000))
        conn.shutdown()
        with pytest.raises(BrokenPipeError):
            await conn.send(b"more")
        answer = await conn.recv()
        conn.close()
        return answer

    pair.serve(handle, PORT)
    assert pair.run(client()) == b"100000"
    pair.settle()


def test_abort_is_a_reset_for_the_peer(pair: Pair) -> None:
    async def handle(conn: janus_tcp.Connection) -> None:
        await conn.recv()
        conn.abort()

    async def client() -> None:
        conn = await dial(pair)
        await conn.send(b"x")
        with pytest.raises(ConnectionResetError):
            await conn.recv()
        with pytest.raises(ConnectionResetError):
            await conn.send(b"y")
        conn.close()

    pair.serve(handle, PORT)
    pair.run(client())
    pair.settle()


def test_a_closed_connection_says_so(pair: Pair) -> None:
    pair.serve(echo, PORT)

    async def client() -> None:
        conn = await dial(pair)
        assert not conn.closed
        conn.close()
        conn.close()
        conn.abort()
        assert conn.closed
        with pytest.raises(ConnectionAbortedError):
            await conn.recv()
        with pytest.raises(BrokenPipeError):
            await conn.send(b"x")
        with pytest.raises(OSError, match="closed"):
            _ = conn.peername
        conn.set_deadline(1)

    pair.run(client())
    pair.settle()


def test_closing_wakes_the_task_that_waits(pair: Pair) -> None:
    pair.serve(echo, PORT)

    async def client() -> None:
        conn = await dial(pair)

        async def reader() -> None:
            with pytest.raises(ConnectionAbortedError):
                await conn.recv()

        task = janus_tcp.spawn(reader())
        await janus_tcp.sleep(0.1)
        conn.close()
        await task

    pair.run(client())


def test_nobody_listens(pair: Pair) -> None:
    with pytest.raises(ConnectionRefusedError):
        pair.run(dial(pair))
    pair.settle()


WAITS: dict[str, Callable[[janus_tcp.Connection], Awaitable[object]]] = {
    "recv": lambda conn: conn.recv(),
    "send": lambda conn: conn.send(bytes(1_000_000)),
    "recv_exactly": lambda conn: conn.recv_exactly(5),
}


@pytest.mark.parametrize("waiting", WAITS)
def test_a_deadline_ends_every_wait(pair: Pair, waiting: str) -> None:
    async def handle(conn: janus_tcp.Connection) -> None:
        await janus_tcp.sleep(100)

    async def client() -> float:
        conn = await dial(pair)
        start_s = pair.now_s
        conn.set_deadline(2.5)
        with pytest.raises(TimeoutError):
            await WAITS[waiting](conn)
        took_s = pair.now_s - start_s
        with pytest.raises(TimeoutError):
            await conn.recv()
        conn.set_deadline(None)
        conn.set_nodelay(True)  # the deadline is off: the connection works again
        conn.abort()
        return took_s

    pair.serve(handle, PORT)
    assert 2.5 <= pair.run(client()) < 2.6
    pair.settle()


def test_a_handler_that_raises_loses_its_own_connection_only(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    async def handle(conn: janus_tcp.Connection) -> None:
        data = await conn.recv()
        if data == b"bad":
            raise ArithmeticError("on purpose")
        await conn.send(data)

    async def client() -> bytes:
        good, bad = await dial(pair), await dial(pair)
        await bad.send(b"bad")
        with pytest.raises(ConnectionResetError):
            await bad.recv()
        await good.send(b"good")
        data = await good.recv()
        good.close()
        bad.close()
        return data

    pair.serve(handle, PORT)
    with caplog.at_level(logging.INFO, logger="janus_tcp"):
        assert pair.run(client()) == b"good"
    assert [r for r in caplog.records if r.exc_info and r.exc_info[0] is ArithmeticError]
    assert pair.server.failed == 1
    pair.settle()


def test_a_handler_that_is_no_coroutine_is_reported(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    pair.serve(lambda conn: 5, PORT)  # type: ignore[arg-type,return-value]

    async def client() -> None:
        conn = await dial(pair)
        with pytest.raises(ConnectionResetError):
            await conn.recv()
        conn.close()

    pair.run(client())
    assert "async function" in caplog.text


def test_what_belongs_to_another_library_is_refused(pair: Pair) -> None:
    async def client() -> None:
        loop = asyncio.new_event_loop()
        with pytest.raises(RuntimeError, match="janus_tcp's own"):
            await loop.create_future()
        loop.close()
        await janus_tcp.sleep(1)

    pair.run(client())


def test_two_tasks_must_not_receive_at_once(pair: Pair) -> None:
    pair.serve(echo, PORT)

    async def client() -> None:
        conn = await dial(pair)

        async def reader() -> None:
            await conn.recv()

        task = janus_tcp.spawn(reader())
        await janus_tcp.sleep(0.1)
        with pytest.raises(RuntimeError, match="another task"):
            await conn.recv()
        await conn.send(b"x")
        await task
        conn.close()

    pair.run(client())


def test_a_send_that_is_not_awaited_is_named(pair: Pair) -> None:
    pair.serve(echo, PORT)

    async def client() -> None:
        conn = await dial(pair)
        with pytest.warns(RuntimeWarning, match="never awaited"):
            conn.send(bytes(1_000_000))
        conn.abort()

    pair.run(client())


def test_a_connection_that_is_let_go_is_named_and_aborted(pair: Pair) -> None:
    pair.serve(echo, PORT)

    async def client() -> None:
        conn = await dial(pair)
        assert not conn.closed
        del conn
        with pytest.warns(ResourceWarning, match="never closed"):
            await janus_tcp.sleep(0.1)  # the batch that resumed this task lets go as well

    pair.run(client())
    pair.settle()


def test_unlisten_refuses_new_connections_and_keeps_the_old(pair: Pair) -> None:
    listener = pair.serve(echo, PORT)

    async def client() -> bytes:
        conn = await dial(pair)
        await conn.send(b"early")
        assert await conn.recv() == b"early"
        listener.close()
        listener.close()
        with pytest.raises(ConnectionRefusedError):
            await dial(pair)
        await conn.send(b"still")
        data = await conn.recv()
        conn.close()
        return data

    assert pair.run(client()) == b"still"
    pair.settle()


def test_many_connections_leave_nothing_behind() -> None:
    total, at_once = 5_000, 500
    with Pair(connections=2048, rx_slots=8192, tx_slots=8192) as pair:
        pair.serve(echo, PORT)

        async def one(i: int) -> None:
            conn = await dial(pair)
            message = b"%d" % i
            await conn.send(message)
            assert await conn.recv() == message
            if i % 3:
                conn.close()
            else:
                conn.abort()

        async def client() -> None:
            for first in range(0, total, at_once):
                async with janus_tcp.TaskGroup() as group:
                    for i in range(first, first + at_once):
                        group.spawn(one(i))

        blocks = []
        for _ in range(3):
            pair.run(client())
            pair.settle()
            gc.collect()
            blocks.append(sys.getallocatedblocks())
        assert pair.server.accepted == 3 * total
        assert blocks[2] - blocks[1] < 100, f"memory blocks after each round: {blocks}"
        assert pair.server.handlers == pair.server.tasks == pair.client.tasks == 0
        for loop in (pair.server, pair.client):
            found = stats(loop)
            assert not any(found["usage"].values()), found["usage"]
            assert found["tx_slots_free"] == 8192
        assert not [o for o in gc.get_objects() if isinstance(o, CoroutineType)]


def test_a_forked_child_cannot_drive_its_parents_stack(pair: Pair) -> None:
    pair.serve(echo, PORT)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            pair.step()
        except RuntimeError as error:
            code = 0 if "not to its child" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    async def client() -> bytes:
        conn = await dial(pair)
        await conn.send(b"parent")
        data = await conn.recv()
        conn.close()
        return data

    assert pair.run(client()) == b"parent"


def test_a_handler_may_end_the_connection_of_a_later_event(pair: Pair) -> None:
    """Both have data in the same batch; whoever comes first aborts the other one."""
    met: list[janus_tcp.Connection] = []
    outcomes: list[str] = []

    async def handle(conn: janus_tcp.Connection) -> None:
        met.append(conn)
        try:
            await conn.recv()
        except ConnectionAbortedError:
            outcomes.append("aborted")
            return
        outcomes.append("data")
        for other in met:
            if other is not conn:
                other.abort()

    async def client() -> None:
        both = [await dial(pair), await dial(pair)]
        await janus_tcp.sleep(1)
        for conn in both:
            await conn.send(b"x")
        await janus_tcp.sleep(1)
        for conn in both:
            conn.abort()

    pair.serve(handle, PORT)
    pair.run(client())
    assert outcomes == ["data", "aborted"]
    pair.settle()


def test_a_handler_that_goes_on_after_its_connection_is_closed(pair: Pair) -> None:
    ended: list[float] = []

    async def handle(conn: janus_tcp.Connection) -> None:
        conn.close()
        await janus_tcp.sleep(5)
        ended.append(pair.now_s)

    async def client() -> bytes:
        conn = await dial(pair)
        data = await conn.recv()
        conn.close()
        return data

    pair.serve(handle, PORT)
    assert pair.run(client()) == b""
    assert pair.server.tasks == 1
    pair.settle()
    assert len(ended) == 1
