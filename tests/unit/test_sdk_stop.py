"""Very many handlers: a batch resumes so many at most, and closing a loop takes a bounded time; the synchronous face;
two loops in two threads."""

import threading
import time

import janus_tcp
import pytest
from janus_tcp import sync
from janus_tcp.testing import Pair

PORT = 7
BATCH = 4096


async def echo(conn: janus_tcp.Connection) -> None:
    async for data in conn:
        await conn.send(data)


def test_a_batch_resumes_so_many_and_the_rest_in_the_next() -> None:
    ended: list[int] = []

    async def task(number: int) -> None:
        ended.append(number)

    with Pair() as pair:
        for number in range(BATCH + 100):
            pair.client.spawn(task(number))
        pair.step()
        assert ended == list(range(BATCH)), "input and output come in between"
        pair.step()
        assert ended == list(range(BATCH + 100))


def test_a_loop_closes_in_bounded_time_and_what_is_left_is_unusable_not_dangerous() -> None:
    cleaned: list[int] = []
    kept: list[janus_tcp.Connection] = []
    count = 1500

    async def handle(conn: janus_tcp.Connection) -> None:
        kept.append(conn)
        try:
            await conn.recv()
        finally:
            cleaned.append(1)
            time.sleep(0.001)  # a cleanup that takes its time: all of them would take 1.5 s

    async def client(pair: Pair) -> list[janus_tcp.Connection]:
        return [await janus_tcp.connect(pair.host, PORT) for _ in range(count)]

    with Pair(connections=2 * count) as pair:
        pair.serve(handle, PORT)
        opened = pair.run(client(pair))
        pair.run_until(lambda: len(kept) == count)
        pair.server.close()
        assert 1000 < len(cleaned) < count
        left = [conn for conn in kept if not conn.closed]
        assert len(left) == count - len(cleaned)
        for conn in left[:10]:
            with pytest.raises(RuntimeError, match="the loop is closed"):
                conn.try_send(b"x")
        for conn in opened:
            conn.abort()


def test_the_synchronous_face_waits_closes_and_tells_what_happened() -> None:
    async def close_at_once(conn: janus_tcp.Connection) -> None:
        await conn.send(b"bye")

    with Pair() as pair, sync.Session(pair.run) as session:
        pair.serve(echo, PORT)
        pair.serve(close_at_once, PORT + 1)
        with session.connect(pair.host, PORT, timeout_s=5) as conn:
            conn.send(b"one\ntwo")
            assert conn.recv_until(b"\n") == b"one\n"
            assert conn.recv_exactly(3) == b"two"
            with pytest.raises(TimeoutError):
                conn.recv()
            conn.timeout_s = None
            conn.send(b"still usable")
            assert conn.recv() == b"still usable"
            conn.shutdown()
            assert list(conn) == []
        assert list(session.connect(pair.host, PORT + 1)) == [b"bye"]
        pair.settle()


def test_two_native_loops_in_two_threads() -> None:
    errors: list[BaseException] = []
    served: list[int] = []

    async def client(host: str) -> int:
        done = 0
        for _ in range(30):
            conn = await janus_tcp.connect(host, PORT)
            await conn.send(bytes(20_000))
            done += len(await conn.recv_exactly(20_000))
            await janus_tcp.sleep(0.001)
            conn.close()
        return done

    def thread() -> None:
        try:
            with Pair() as pair:
                pair.serve(echo, PORT)
                served.append(pair.run(client(pair.host)))
                pair.settle()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=thread) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not errors
    assert served == [600_000, 600_000]


def test_a_port_that_is_taken_and_a_table_that_is_full() -> None:
    async def client(pair: Pair) -> list[str]:
        opened, refused = [], []
        for _ in range(20):
            try:
                opened.append(await janus_tcp.connect(pair.host, PORT))
            except OSError as error:
                refused.append(error.strerror or "")
        for conn in opened:
            await conn.send(b"x")
            assert await conn.recv() == b"x", "who is connected is served"
            conn.abort()
        return refused

    with Pair(connections=16) as pair:
        pair.serve(echo, PORT)
        with pytest.raises(OSError, match=r"\[Errno 98\].*listen"):
            pair.serve(echo, PORT)
        refused = pair.run(client(pair))
        assert refused == [f"connect to port {PORT}: the connection table is full"] * 4


def test_a_handler_that_never_awaits_has_answered_and_closed() -> None:
    async def handle(conn: janus_tcp.Connection) -> None:
        conn.try_send(b"at once")

    async def client(host: str) -> list[bytes]:
        conn = await janus_tcp.connect(host, PORT)
        answers = [await conn.recv(), await conn.recv()]
        conn.close()
        return answers

    with Pair() as pair:
        pair.serve(handle, PORT)
        assert [pair.run(client(pair.host)) for _ in range(3)] == [[b"at once", b""]] * 3
        pair.settle()
