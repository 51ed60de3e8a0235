"""recv_view(), recv_into(), try_send(), writable(), sendfile(): not copied, not waited for, not held in memory."""

import array
import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import janus_tcp
import pytest
from janus_tcp.scheduler import stats
from janus_tcp.testing import Pair, talk

PORT = 7


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Pair(recv_buffer=65536, send_buffer=65536) as made:
        yield made


async def echo(conn: janus_tcp.Connection) -> None:
    async for data in conn:
        await conn.send(data)


def pattern(n: int) -> bytes:
    return bytes((i * 7 + i // 251) % 256 for i in range(n))


# --- views ---


def test_views_show_the_stream_packet_by_packet() -> None:
    async def client(conn: janus_tcp.Connection) -> list[bytes]:
        await conn.send(pattern(5000))
        conn.shutdown()
        parts = []
        while view := await conn.recv_view():
            assert view.readonly
            assert view.format == "B"
            parts.append(bytes(view))
        return parts

    parts = talk(echo, client)
    assert b"".join(parts) == pattern(5000)
    assert max(len(part) for part in parts) == 1448


def test_a_view_begins_where_the_last_receive_ended() -> None:
    async def client(conn: janus_tcp.Connection) -> tuple[bytes, bytes]:
        await conn.send(b"abcdef")
        return await conn.recv(2), bytes(await conn.recv_view())

    assert talk(echo, client) == (b"ab", b"cdef")


RECEIVES = {
    "recv": lambda conn: conn.recv(),
    "recv_view": lambda conn: conn.recv_view(),
    "recv_into": lambda conn: conn.recv_into(bytearray(9)),
    "recv_exactly": lambda conn: conn.recv_exactly(1),
    "recv_until": lambda conn: conn.recv_until(b"d"),
    "async for": lambda conn: conn.__anext__(),
}


@pytest.mark.parametrize("receive", RECEIVES.values(), ids=RECEIVES)
def test_a_view_held_after_its_time_is_an_error(receive: object) -> None:
    assert callable(receive)

    async def client(conn: janus_tcp.Connection) -> None:
        await conn.send(b"abc")
        view = await conn.recv_view()
        assert view == b"abc"
        await conn.send(b"def")
        await receive(conn)
        with pytest.raises(ValueError, match="released"):
            view[0]

    talk(echo, client)


@pytest.mark.parametrize("receive", RECEIVES.values(), ids=RECEIVES)
def test_a_slice_held_after_its_time_keeps_the_next_receive_from_happening(receive: object) -> None:
    assert callable(receive)

    async def client(conn: janus_tcp.Connection) -> None:
        await conn.send(b"abc")
        part = (await conn.recv_view())[1:]
        await conn.send(b"defd")
        with pytest.raises(BufferError, match="still held"):
            await receive(conn)
        assert part == b"bc"
        part.release()
        assert await conn.recv(4) == b"defd"

    talk(echo, client)


def test_what_else_looks_at_a_view_keeps_it_too() -> None:
    async def client(conn: janus_tcp.Connection) -> None:
        await conn.send(b"abcd")
        cast = memoryview(await conn.recv_view()).cast("H")
        with pytest.raises(BufferError, match="still held"):
            await conn.recv()
        assert cast.tobytes() == b"abcd"
        cast.release()
        conn.shutdown()
        assert await conn.recv() == b""

    talk(echo, client)


def test_a_view_is_over_with_the_connection_and_a_slice_of_it_still_true(pair: Pair) -> None:
    pair.serve(echo, PORT)

    async def client() -> tuple[memoryview, memoryview]:
        conn = await janus_tcp.connect(pair.host, PORT)
        await conn.send(b"abc")
        view = await conn.recv_view()
        part = view[1:]
        conn.abort()
        return view, part

    view, part = pair.run(client())
    with pytest.raises(ValueError, match="released"):
        view[0]
    for _ in range(20):  # the slots that are free come and go meanwhile
        pair.run(exchange(pair))
    assert part == b"bc"
    assert stats(pair.client)["usage"]["rx_slots_held"] == 1
    part.release()
    pair.settle()
    assert stats(pair.client)["usage"]["rx_slots_held"] == 0


async def exchange(pair: Pair) -> None:
    conn = await janus_tcp.connect(pair.host, PORT)
    await conn.send(b"xyz")
    assert await conn.recv() == b"xyz"
    conn.close()


def test_a_slice_outlives_its_stack() -> None:
    kept: list[memoryview] = []

    async def client(conn: janus_tcp.Connection) -> None:
        await conn.send(b"abc")
        kept.append((await conn.recv_view())[:])

    talk(echo, client)
    gc.collect()
    assert kept.pop() == b"abc"


def test_a_slice_that_another_thread_lets_go_gives_its_packet_back(pair: Pair) -> None:
    pair.serve(echo, PORT)
    kept: list[memoryview] = []

    async def client() -> None:
        conn = await janus_tcp.connect(pair.host, PORT)
        await conn.send(b"abc")
        kept.append((await conn.recv_view())[:])
        conn.close()

    pair.run(client())
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join()
    pair.run(exchange(pair))
    pair.settle()
    assert stats(pair.client)["usage"]["rx_slots_held"] == 0


def test_a_view_can_be_sent_on_while_it_is_valid() -> None:
    async def relay(conn: janus_tcp.Connection) -> None:
        while view := await conn.recv_view():
            await conn.send(view)

    async def client(conn: janus_tcp.Connection) -> bytes:
        sent = pattern(300_000)
        async with janus_tcp.TaskGroup() as group:
            task = group.spawn(drain(conn, len(sent)))
            await conn.send(sent)
        return await task

    assert talk(relay, client, recv_buffer=32768, send_buffer=32768) == pattern(300_000)


async def drain(conn: janus_tcp.Connection, n: int) -> bytes:
    return await conn.recv_exactly(n)


def test_many_views_at_once_are_back_pressure() -> None:
    """Slices that are held take packets out of the pool; the stack goes on with the rest."""

    async def client(conn: janus_tcp.Connection) -> int:
        await conn.send(b"x" * 1000)
        held = (await conn.recv_view())[:]
        other = await janus_tcp.connect("192.0.2.1", PORT)
        await other.send(pattern(100_000))
        got = await other.recv_exactly(100_000)
        other.close()
        return len(got) + len(held)

    assert talk(echo, client, rx_slots=32, tx_slots=64) == 101_000


# --- into a buffer ---


def test_recv_into_fills_what_it_is_given() -> None:
    async def client(conn: janus_tcp.Connection) -> list[object]:
        await conn.send(b"abcdef")
        room = bytearray(4)
        words = array.array("H", [0])
        first = await conn.recv_into(room)
        second = await conn.recv_into(memoryview(room)[1:2])
        third = await conn.recv_into(words)
        conn.shutdown()
        return [first, second, bytes(room), third, words.tobytes()[:1], await conn.recv_into(room)]

    assert talk(echo, client) == [4, 1, b"aecd", 1, b"f", 0]


@pytest.mark.parametrize(
    ("buffer", "error"), [(b"fixed", BufferError), (bytearray(), ValueError), (5, TypeError)], ids=repr
)
def test_recv_into_refuses(buffer: object, error: type[Exception]) -> None:
    async def client(conn: janus_tcp.Connection) -> None:
        with pytest.raises(error):
            await conn.recv_into(buffer)  # type: ignore[arg-type]

    talk(echo, client)


def test_a_buffer_cannot_shrink_while_it_waits() -> None:
    async def client(conn: janus_tcp.Connection) -> int:
        room = bytearray(4)
        task = janus_tcp.spawn(into(conn, room))
        await janus_tcp.sleep(0)
        with pytest.raises(BufferError):
            room.clear()
        await conn.send(b"ab")
        n = await task
        room.clear()
        return n

    assert talk(echo, client) == 2


async def into(conn: janus_tcp.Connection, room: bytearray) -> int:
    return await conn.recv_into(room)


# --- sending without waiting ---


def test_try_send_takes_what_fits_and_writable_waits() -> None:
    async def sink(conn: janus_tcp.Connection) -> None:
        await janus_tcp.sleep(1)
        await conn.send(len(await conn.recv_exactly(200_000)).to_bytes(4))

    async def client(conn: janus_tcp.Connection) -> tuple[bool, bytes]:
        data = memoryview(pattern(200_000))
        first = conn.try_send(data)
        while n := conn.try_send(data[first:]):
            first += n
        full = conn.try_send(b"x") == 0
        while first < len(data):
            await conn.writable()
            n = conn.try_send(data[first:])
            assert n > 0
            first += n
        return full, await conn.recv_exactly(4)

    assert talk(sink, client, recv_buffer=32768, send_buffer=32768) == (True, (200_000).to_bytes(4))


def test_urgent_data_is_told_of_and_received_in_line() -> None:
    async def listener(conn: janus_tcp.Connection) -> None:
        assert await conn.recv_exactly(2) == b"re"
        ahead = [conn.info()["urgent_bytes"]]
        assert await conn.recv_exactly(100_000) == b"st" + pattern(99_998)
        ahead.append(conn.info()["urgent_bytes"])
        await conn.recv_exactly(100_002)
        ahead.append(conn.info()["urgent_bytes"])
        await conn.send(b"%d %d %d" % tuple(ahead))

    async def client(conn: janus_tcp.Connection) -> bytes:
        await conn.send_urgent(b"rest")
        await conn.send(pattern(99_998))
        await conn.send_urgent(bytes(100_002))  # more than there is room for
        return await conn.recv()

    first, second, third = talk(listener, client, recv_buffer=32768, send_buffer=32768).split()
    assert (first, third) == (b"2", b"0")
    assert 0 < int(second) <= 65535


def test_sending_to_what_is_gone() -> None:
    async def client(conn: janus_tcp.Connection) -> None:
        conn.shutdown()
        for attempt in (lambda: conn.try_send(b"x"), lambda: conn.send(b"x"), lambda: conn.send_urgent(b"x")):
            with pytest.raises(BrokenPipeError):
                attempt()
        with pytest.raises(BrokenPipeError):
            await conn.writable()
        conn.close()
        for attempt in (
            lambda: conn.try_send(b"x"),
            lambda: conn.send(b"x"),
            lambda: conn.send_urgent(b"x"),
            conn.writable,
        ):
            with pytest.raises(BrokenPipeError):
                attempt()

    talk(echo, client)


async def fill(conn: janus_tcp.Connection) -> None:
    while True:
        await conn.writable()
        conn.try_send(b"x" * 10_000)


def test_writable_is_cancelled_cleanly() -> None:
    async def silent(conn: janus_tcp.Connection) -> None:
        await janus_tcp.sleep(100)

    async def client(conn: janus_tcp.Connection) -> None:
        filling = janus_tcp.spawn(fill(conn))
        await janus_tcp.sleep(20)
        filling.cancel()
        with pytest.raises(janus_tcp.CancelledError):
            await filling
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with janus_tcp.timeout(0.1):
                    await conn.writable()
        conn.abort()

    talk(silent, client, recv_buffer=16384, send_buffer=16384)


# --- files ---


@pytest.mark.parametrize(
    ("offset", "count", "expected"),
    [
        (0, None, slice(0, 500_000)),
        (100_000, None, slice(100_000, 500_000)),
        (499_999, 10, slice(499_999, 500_000)),
        (7, 70_000, slice(7, 70_007)),
        (0, 0, slice(0, 0)),
        (600_000, None, slice(0, 0)),
    ],
    ids=["all", "from the middle", "beyond the end", "a region", "nothing", "behind the end"],
)
def test_sendfile(tmp_path: Path, offset: int, count: int | None, expected: slice) -> None:
    path = tmp_path / "file"
    path.write_bytes(pattern(500_000))

    async def serve(conn: janus_tcp.Connection) -> None:
        with path.open("rb") as file:
            assert await conn.sendfile(file, offset, count) == expected.stop - expected.start
            assert file.tell() == 0
        conn.shutdown()

    async def client(conn: janus_tcp.Connection) -> bytes:
        return b"".join([data async for data in conn])

    got = talk(serve, client, recv_buffer=65536, send_buffer=65536)
    assert got == pattern(500_000)[expected]


def test_sendfile_says_what_is_wrong(tmp_path: Path) -> None:
    reading, writing = os.pipe()

    async def client(conn: janus_tcp.Connection) -> None:
        with pytest.raises(OSError, match="seek"):
            await conn.sendfile(reading)
        with pytest.raises(ValueError, match="not negative"):
            conn.sendfile(reading, -1)
        with pytest.raises(TypeError):
            conn.sendfile("name")  # type: ignore[arg-type]
        with pytest.raises(OSError, match="descriptor"):
            await conn.sendfile(12345)
        await conn.send(b"still fine")
        assert await conn.recv_exactly(10) == b"still fine"

    try:
        talk(echo, client)
    finally:
        os.close(reading)
        os.close(writing)


def test_a_file_that_shrinks_ends_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(400_000))

    async def serve(conn: janus_tcp.Connection) -> None:
        with path.open("r+b") as file:
            sending = janus_tcp.spawn(send_all(conn, file.fileno()))
            await janus_tcp.sleep(0)
            file.truncate(100_000)
            assert await sending <= 200_000
        conn.shutdown()

    async def client(conn: janus_tcp.Connection) -> int:
        return sum([len(data) async for data in conn])

    assert talk(serve, client, recv_buffer=32768, send_buffer=32768) >= 100_000


async def send_all(conn: janus_tcp.Connection, fd: int) -> int:
    return await conn.sendfile(fd, 0, 400_000)


# --- the handler's own ---


def test_user_data_is_let_go_with_the_connection() -> None:
    class Session:
        def __init__(self, conn: janus_tcp.Connection) -> None:
            self.conn = conn
            ended.append("made")

        def __del__(self) -> None:
            ended.append("gone")

    ended: list[str] = []

    async def serve(conn: janus_tcp.Connection) -> None:
        assert conn.user_data is None
        conn.user_data = Session(conn)  # a cycle, on purpose
        await conn.recv()
        assert conn.user_data.conn is conn

    async def client(conn: janus_tcp.Connection) -> None:
        conn.user_data = Session(conn)
        await conn.send(b"x")
        await conn.recv()

    gc.disable()
    try:
        talk(serve, client)
        assert ended == ["made", "made", "gone", "gone"]
    finally:
        gc.enable()
