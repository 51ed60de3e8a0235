"""Crowds at the attach socket: bounded, fair between users, little in the log."""

import asyncio
import errno
import os
import socket
from pathlib import Path

import pytest

from dpdk_glue.values import Event, EventKind
from janusd import attach
from janusd.policy import SESSIONS_PER_UID_MAX, Credentials
from tests.unit.janusd_fakes import hello
from tests.unit.test_janusd_attach import House, run, turns


def test_half_open_attaches_are_bounded_and_time_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attach, "HELLO_TIMEOUT_S", 0.2)

    async def scenario(made: House) -> None:
        users = iter(range(10_000))
        monkeypatch.setattr(
            attach, "credentials_of", lambda _: Credentials(os.getpid(), next(users), frozenset())
        )
        silent = [await made.connect() for _ in range(attach.HALF_OPEN_MAX)]
        await turns(40)
        monkeypatch.undo()
        extra = await made.connect()
        status, text = await extra.status()
        assert (status, "attaches are under way" in text) == (11, True)
        assert all([await client.hung_up() for client in silent])
        await made.attach()

    run(tmp_path, scenario)


def test_one_user_cannot_keep_the_others_from_attaching(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(made: House) -> None:
        monkeypatch.setattr(attach, "credentials_of", lambda _: Credentials(os.getpid(), 4711, frozenset()))
        silent = [await made.connect() for _ in range(attach.HALF_OPEN_PER_UID_MAX)]
        await turns(40)
        extra = await made.connect()
        status, text = await extra.status()
        assert (status, "uid 4711" in text) == (11, True)
        monkeypatch.undo()
        await made.attach()
        assert made.server.half_open() == len(silent)

    run(tmp_path, scenario)


def test_refusals_are_all_counted_and_few_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(made: House) -> None:
        for _ in range(50):
            client = await made.connect()
            client.send(b"no HELLO")
            assert (await client.status())[0] == 1
        assert made.server.refusals == 50

    run(tmp_path, scenario)
    logged = sum(record.message == "app refused" for record in caplog.records)
    assert 1 <= logged <= 3 * attach.REFUSALS_LOGGED_PER_S


def test_without_a_descriptor_left_accepting_pauses_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attach, "ACCEPT_PAUSE_S", 0.01)

    class Exhausted(socket.socket):
        """A listener on which accept fails the first time."""

        tries = 0

        def accept(self) -> tuple[socket.socket, object]:
            self.tries += 1
            if self.tries == 1:
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    async def scenario(made: House) -> None:
        listener = Exhausted(fileno=made.server._listener.detach())
        made.server._listener = listener
        await made.attach()
        assert 2 <= listener.tries <= 4

    run(tmp_path, scenario)


def test_sessions_that_are_being_wound_up_count(tmp_path: Path) -> None:
    """Each holds its regions until its peers are reset: coming and going fast must not pile them up."""

    async def scenario(made: House) -> None:
        bound = 2 * SESSIONS_PER_UID_MAX
        for _ in range(bound):
            (await made.attach()).sock.close()
            while made.sessions.attached():
                await asyncio.sleep(0)
        refused = await made.connect()
        refused.send(hello())
        status, text = await refused.status()
        assert (status, f"{bound} ended sessions" in text) == (11, True)
        first = made.plane.created[0].config
        made.sessions.resets_done(Event(EventKind.RESETS_DONE, first.app, first.tid, first.generation))
        await made.attach()

    run(tmp_path, scenario)
