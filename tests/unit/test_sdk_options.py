"""What a service and a connection can be told about TCP."""

from collections.abc import Iterator

import janus_tcp
import pytest
from janus_tcp.scheduler import turn
from janus_tcp.testing import Pair

PORT = 7


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Pair(recv_buffer=65536, send_buffer=65536) as made:
        yield made


async def echo(conn: janus_tcp.Connection) -> None:
    async for data in conn:
        await conn.send(data)


def test_congestion_control_is_chosen_for_each_service(pair: Pair) -> None:
    async def client() -> str:
        janus_tcp.listen(echo, PORT + 1, congestion="newreno").close()
        try:
            janus_tcp.listen(echo, PORT + 2, congestion="vegas")
        except ValueError as e:
            return str(e)
        return ""

    assert "vegas" in pair.run(client())


def test_user_timeout(pair: Pair) -> None:
    pair.serve(echo, PORT)

    async def client() -> list[str]:
        conn = await janus_tcp.connect(pair.host, PORT)
        conn.set_user_timeout(30)
        conn.set_user_timeout(None)
        wrong = []
        for seconds in (-1, 2e6 + 1, float("nan")):
            try:
                conn.set_user_timeout(seconds)
            except ValueError as e:
                wrong.append(str(e))
        conn.close()
        return wrong

    assert len(pair.run(client())) == 3


def test_who_asks_is_told_that_nothing_gets_through(pair: Pair) -> None:
    """R1 of RFC 9293 3.8.3, while the server's side is deaf."""
    pair.serve(echo, PORT)
    asked: list[dict[str, int]] = []

    async def client() -> bytes:
        conn = await janus_tcp.connect(pair.host, PORT)
        await conn.send(b"x")
        await conn.recv()
        asked.append(conn.info())
        await janus_tcp.sleep(0.05)
        await conn.send(b"y")
        await janus_tcp.sleep(4)
        asked.append(conn.info())
        answer = await conn.recv()
        asked.append(conn.info())
        conn.close()
        return answer

    task = pair.client.spawn(client())
    pair.run_until(lambda: len(asked) == 1)
    while len(asked) < 2:
        while turn(pair.client, 0):
            pass
        pair._wire.advance(10_000)
    pair.run_until(task.done)
    assert [info["stalled"] for info in asked] == [False, True, False]
    assert [info["stalled_ms"] > 2000 for info in asked] == [False, True, False]
    assert asked[0]["stalled_ms"] == 0
