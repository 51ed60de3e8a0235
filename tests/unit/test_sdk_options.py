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


def test_dscp_and_ttl(pair: Pair) -> None:
    there: list[dict[str, int]] = []

    async def served(conn: janus_tcp.Connection) -> None:
        there.append(conn.info())

    async def listen() -> None:
        janus_tcp.listen(served, PORT, dscp=8, ttl=255)
        for wrong in ({"dscp": 64}, {"dscp": -1}, {"ttl": 0}, {"ttl": 256}):
            with pytest.raises(ValueError, match="dscp is 0 to 63, ttl 1 to 255"):
                janus_tcp.listen(served, PORT + 1, **wrong)

    async def client() -> tuple[dict[str, int], dict[str, int]]:
        conn = await janus_tcp.connect(pair.host, PORT)
        before = conn.info()
        conn.set_dscp(46)
        conn.set_ttl(1)
        for wrong in (-1, 64, 256, 2**70):
            with pytest.raises((ValueError, OverflowError)):
                conn.set_dscp(wrong)
        for wrong in (-1, 0, 256):
            with pytest.raises(ValueError, match="1 to 255"):
                conn.set_ttl(wrong)
        after = conn.info()
        await conn.recv()
        conn.close()
        return before, after

    listening = pair.server.spawn(listen())
    pair.run_until(listening.done)
    before, after = pair.run(client())
    assert [(i["dscp"], i["ttl"]) for i in (before, after, *there)] == [(0, 64), (46, 1), (8, 255)]
    assert listening.exception() is None


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
    assert asked[1]["timeouts"] == 4
    assert [info["retransmits"] for info in asked] == [0, 5, 5], "a tail loss probe came first"


@pytest.mark.parametrize(
    ("setting", "data", "least_s"), [("user_timeout", b"x", 30), ("keepalive", b"", 60 + 9 * 75)]
)
def test_a_peer_that_is_gone_is_given_up_after_the_time_that_was_set(
    pair: Pair, setting: str, data: bytes, least_s: int
) -> None:
    pair.serve(echo, PORT)

    async def client() -> float:
        conn = await janus_tcp.connect(pair.host, PORT)
        await conn.send(b"x")
        await conn.recv()
        conn.set_user_timeout(30 if setting == "user_timeout" else None)
        conn.set_keepalive(60 if setting == "keepalive" else None)
        await janus_tcp.sleep(1)
        gone.append(pair.now_s)
        conn.try_send(data)
        with pytest.raises(TimeoutError):
            await conn.recv()
        took_s = pair.now_s - gone[0]
        conn.close()
        return took_s

    gone: list[float] = []
    task = pair.client.spawn(client())
    pair.run_until(lambda: bool(gone))
    for _ in range(10_000):
        while turn(pair.client, 0):
            pass
        if task.done():
            break
        pair._wire.advance(100_000)
    assert task.done()
    assert task.exception() is None
    took_s = pair.now_s - gone[0]
    assert least_s - 2 < took_s < least_s + 2, took_s


@pytest.mark.parametrize("on", [False, True])
def test_nodelay_sends_what_nagle_holds_back(on: bool) -> None:
    async def client(host: str) -> int:
        conn = await janus_tcp.connect(host, PORT)
        conn.set_nodelay(on)
        for _ in range(2):
            conn.try_send(b"small")
            await janus_tcp.sleep(0.001)
        flight: int = conn.info()["flight_bytes"]
        conn.abort()
        return flight

    with Pair(latency_us=50_000) as pair:
        pair.serve(echo, PORT)
        assert pair.run(client(pair.host)) == (10 if on else 5)
