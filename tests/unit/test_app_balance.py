"""A TCP thread in an update of the balancer: what it lists, when it answers, what it lets begin."""

import errno
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _app import ffi, lib

from tests.unit.test_app_attach import (
    CSB_ABORT,
    CSB_BEGIN,
    CSB_CHECK,
    CSB_DONE,
    CSB_LIST,
    CSB_VIEW,
    FakeJanusd,
    Refused,
    Transfer,
    attach,
    check,
    mapped_ipv4,
    pattern,
    stats,
)

COLLECT, CHECK, SEAL, OPEN = 1, 2, 4, 6
SEAL_MARKER, OPEN_MARKER = 0, 1
DONE = struct.Struct("=IIQQQ")
LIST = struct.Struct("=IIQ")
ALL = 0xFFFFFFFF


@pytest.fixture
def janusd(tmp_path: Path) -> Iterator[FakeJanusd]:
    made = FakeJanusd(tmp_path / "attach.sock", io_count=2)
    yield made
    made.free()


class Pair:
    """A server and a client of it, and updates of the server."""

    def __init__(self, janusd: FakeJanusd) -> None:
        self.janusd = janusd
        self.transfer = Transfer(janusd, pattern(1_000_000))
        self.transfer.run(lambda: len(self.transfer.received) > 1000)
        self.session = janusd.sessions[0]

    def tell(self, type_: int, fd: int | None, **fields: int) -> None:
        self.janusd.csb(self.janusd.connections[0], type_, fd, **fields)

    def begin(self, attempt: int, plan: int) -> None:
        self.tell(CSB_BEGIN, plan, attempt=attempt, bytes=lib.fake_plan_bytes(), ios=0b11)

    def view(self, attempt: int, fd: int, phase: int = 0) -> None:
        self.tell(CSB_VIEW, fd, attempt=attempt, bytes=lib.fake_view_bytes(), phase=phase)

    def marker(self, io: int, attempt: int, marker: int) -> None:
        lib.fake_marker(self.session, io, attempt, marker)

    def answers(self) -> list[tuple[int, int]]:
        """(phase, attempt) of each DONE."""
        parts = [DONE.unpack(a) for a in self.janusd.csb_answers if a[0] == CSB_DONE]
        return [(phase, attempt) for _, phase, attempt, _, _ in parts]

    def listed(self) -> list[int]:
        found: list[int] = []
        for data in self.janusd.csb_answers:
            if data[0] == CSB_LIST:
                found += struct.unpack(f"={LIST.unpack_from(data)[1]}Q", data[LIST.size :])
        return found

    def run(self, until: Callable[[], bool]) -> None:
        end = time.monotonic() + 10
        while not until():
            assert time.monotonic() < end, self.answers()
            self.transfer.turn()

    def turns(self, count: int = 200) -> None:
        for _ in range(count):
            self.transfer.turn()

    def finish(self) -> None:
        self.transfer.run(self.transfer.is_complete)
        assert self.transfer.received == self.transfer.data
        self.transfer.close()


def test_an_update_that_moves_all_keys_away(janusd: FakeJanusd) -> None:
    pair = Pair(janusd)
    pair.begin(7, lib.fake_plan(ALL, 9, 9))
    pair.run(lambda: pair.answers() == [(COLLECT, 7)])
    assert len(pair.listed()) == 1
    pair.marker(0, 7, SEAL_MARKER)
    pair.turns()
    assert pair.answers() == [(COLLECT, 7)], "one I/O thread's marker is still to come"
    pair.marker(1, 7, SEAL_MARKER)
    pair.run(lambda: pair.answers()[1:] == [(SEAL, 7)])
    pair.view(7, lib.fake_view(ALL, 9, 9, 0))
    pair.turns()
    pair.marker(0, 7, OPEN_MARKER)
    pair.marker(1, 7, OPEN_MARKER)
    pair.run(lambda: pair.answers()[2:] == [(OPEN, 7)])
    assert stats(pair.transfer.server).csb_updates == 1
    pair.finish()


def test_the_view_may_come_after_the_markers(janusd: FakeJanusd) -> None:
    pair = Pair(janusd)
    pair.begin(7, lib.fake_plan(ALL, 9, 9))
    pair.run(lambda: (COLLECT, 7) in pair.answers())
    for marker in (SEAL_MARKER, OPEN_MARKER):
        for io in (0, 1):
            pair.marker(io, 7, marker)
    pair.run(lambda: (SEAL, 7) in pair.answers())
    pair.turns()
    assert (OPEN, 7) not in pair.answers()
    pair.view(7, lib.fake_view(ALL, 9, 9, 0))
    pair.run(lambda: (OPEN, 7) in pair.answers())
    pair.finish()


def test_nothing_is_listed_that_stays(janusd: FakeJanusd) -> None:
    pair = Pair(janusd)
    pair.begin(3, lib.fake_plan(ALL, 0, 0))
    pair.run(lambda: pair.answers() == [(COLLECT, 3)])
    assert pair.listed() == []
    pair.tell(CSB_ABORT, None, attempt=3)
    pair.finish()


def test_the_check_lists_what_the_draft_would_misdirect(janusd: FakeJanusd) -> None:
    pair = Pair(janusd)
    pair.begin(3, lib.fake_plan(ALL, 0, 0))
    pair.run(lambda: pair.answers() == [(COLLECT, 3)])
    pair.tell(CSB_CHECK, lib.fake_view(ALL, 5, 5, 0), attempt=3, bytes=lib.fake_view_bytes())
    pair.run(lambda: pair.answers()[1:] == [(CHECK, 3)])
    assert len(pair.listed()) == 1
    pair.finish()


def test_an_abort_and_another_attempt(janusd: FakeJanusd) -> None:
    pair = Pair(janusd)
    pair.begin(1, lib.fake_plan(ALL, 9, 9))
    pair.run(lambda: (COLLECT, 1) in pair.answers())
    pair.tell(CSB_ABORT, None, attempt=1)
    read_s = time.monotonic() + 0.01  # messages are looked for every 2 ms
    pair.run(lambda: time.monotonic() > read_s)
    pair.marker(0, 1, SEAL_MARKER)
    pair.marker(1, 1, SEAL_MARKER)
    pair.turns()
    assert pair.answers() == [(COLLECT, 1)]
    pair.begin(2, lib.fake_plan(ALL, 9, 9))
    pair.run(lambda: (COLLECT, 2) in pair.answers())
    pair.finish()


@pytest.mark.parametrize("size", [0, 100, 1 << 40])
def test_a_plan_that_is_none_is_refused(janusd: FakeJanusd, size: int) -> None:
    pair = Pair(janusd)
    pair.tell(CSB_BEGIN, lib.fake_plan(ALL, 9, 9), attempt=4, bytes=size, ios=0b11)
    pair.run(lambda: pair.answers() == [(0, 4)])
    pair.finish()


def connect(janusd: FakeJanusd, thread: Any) -> None:
    error, conn = ffi.new("struct janus_error *"), ffi.new("uint32_t *")
    server_addr = ffi.new("struct ip_addr *", [mapped_ipv4("10.0.0.9")])
    check(lib.thread_connect(thread, ffi.NULL, 0, server_addr, 80, 0, conn, error), error)


def test_active_opens_want_a_port_that_the_view_gives_to_this_thread(janusd: FakeJanusd) -> None:
    pair = Pair(janusd)
    connect(janusd, pair.transfer.server)
    pair.view(0, lib.fake_view(ALL, 5, 5, 0))
    pair.run(lambda: lib.fake_owner(pair.transfer.server) == 5)
    with pytest.raises(Refused) as refused:
        connect(janusd, pair.transfer.server)
    assert refused.value.args[0] == errno.EADDRINUSE
    pair.transfer.close()


@pytest.mark.parametrize(("owner", "counted"), [(0, 0), (9, 1)])
def test_a_flow_that_ends_is_counted_when_the_circle_gave_its_key_to_another(
    janusd: FakeJanusd, owner: int, counted: int
) -> None:
    pair = Pair(janusd)
    # A flow of another's key is an exception, and flags a slot.
    pair.view(0, lib.fake_view(ALL, owner, owner, 1))
    pair.run(lambda: lib.fake_owner(pair.transfer.server) == owner)
    pair.run(pair.transfer.is_complete)
    assert lib.fake_csb_closed(pair.session) == 0
    lib.thread_close_conn(pair.transfer.client, pair.transfer.conn)
    pair.run(lambda: stats(pair.transfer.server).usage.conns == 0)
    time.sleep(0.011)  # counters are copied every 10 ms
    pair.turns(2)
    assert lib.fake_csb_closed(pair.session) == counted
    pair.transfer.close()


def test_after_a_loss_nothing_begins_before_the_view_is_known(janusd: FakeJanusd) -> None:
    """While exceptions are unknown, what is in doubt is neither created nor reset."""
    janusd.view = lambda connection, session: None  # type: ignore[method-assign]
    thread = attach(janusd.path)
    error = ffi.new("struct janus_error *")
    check(lib.thread_online(thread, error), error)
    with pytest.raises(Refused):
        connect(janusd, thread)
    lib.thread_close(thread)
