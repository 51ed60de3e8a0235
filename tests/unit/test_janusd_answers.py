"""Answers of threads to an update against the bound on an app's messages."""

import asyncio
from pathlib import Path

import pytest

from janusd import attach
from janusd.balancer import Ticket
from tests.unit.test_janusd_attach import CSB, LISTEN, PLAIN, Client, House, run, turns


async def answer(client: Client, attempt: int) -> None:
    """A member of an update that has nothing to list."""
    for type_, phase in ((12, 1), (None, 4), (15, 6)):
        if type_ is not None:
            data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(client.sock, 4096), 5)
            assert CSB.unpack(data)[:3] == (type_, 0, attempt)
        client.send(CSB.pack(17, phase, attempt, 0, 0))


def test_answers_that_an_update_waits_for_are_no_flood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else clients would wait for what is left of 50 ms, half way through an update."""
    monkeypatch.setattr(attach, "MESSAGES_BURST", 8)
    monkeypatch.setattr(attach, "MESSAGES_PER_S", 0)

    async def scenario(made: House) -> None:
        made.plane.balance.has_views = True
        client = await made.attach()
        client.send(PLAIN.pack(8, 3, client.generation, 0))
        assert await client.status() == (0, "")
        for attempt in range(1, 10):
            ticket = made.balancer.refresh("web")
            await answer(client, attempt)
            await asyncio.wait_for(ended(ticket), 5)
            assert ticket.record is not None
            assert ticket.record.published
        for _ in range(20):
            client.send(CSB.pack(17, 1, 99, 0, 0))
        await turns()
        client.send(LISTEN.pack(6, 4, bytes(16), 80, 0, 0, 0))
        await turns()
        assert [s for s in made.plane.published if s.first == 80] == [], "those that nobody awaits are"

    run(tmp_path, scenario)


async def ended(ticket: Ticket) -> None:
    while not ticket.done:
        await asyncio.sleep(0)
