"""C handlers over a wire in memory: the C API's calls, their ends and errors, and that nothing is left."""

from collections.abc import Iterator
from errno import EBADF, EBUSY, ECONNABORTED, ECONNREFUSED, ECONNRESET, EDEADLK, EINVAL, ENOTCONN, ETIMEDOUT

import pytest
from _handlers import ffi, lib

BIG = 600_000
START_AT_ACCEPT = 1
DEFAULT, SHARED, SEPARATE = 0, 1, 2
ASAN = lib.handlers_need_separate_stacks()


class World:
    """A server's and a client's worker."""

    def __init__(
        self, stacks: int = SEPARATE if ASAN else SHARED, rows: int = 512, slots: int = 1024
    ) -> None:
        self.w = lib.world_new(stacks, rows, slots, 65536)

    def serve(self, handler: str, port: int = 7, flags: int = 0, refuse: int = 0) -> None:
        assert lib.world_serve(self.w, handler.encode(), port, flags, refuse) == 0

    def client(self, name: str, number: int = 0) -> None:
        assert lib.world_client(self.w, name.encode(), number) == 0

    def run(self, ms: int = 10) -> list[str]:
        lib.world_run(self.w, ms)
        return self.log()

    def log(self) -> list[str]:
        text: str = ffi.string(lib.world_log(self.w)).decode()
        return text.splitlines()

    def live(self) -> tuple[int, int]:
        return lib.world_live(self.w, 0), lib.world_live(self.w, 1)

    def conns(self) -> tuple[int, int]:
        return lib.world_conns(self.w, 0), lib.world_conns(self.w, 1)

    def is_clean(self) -> bool:
        """After handlers, connections, TIME-WAIT: nothing is held."""
        lib.world_run(self.w, 300)
        held = lib.world_extensions(self.w), lib.world_rx_held(self.w), lib.world_stored(self.w)
        return self.live() == (0, 0) and self.conns() == (0, 0) and held == (0, 0, 0)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    lib.world_free(made.w)


@pytest.mark.parametrize("handler", ["echo_view", "echo_copy", "echo_stack"])
@pytest.mark.parametrize("stacks", [pytest.param(1, id="shared"), pytest.param(2, id="separate")])
def test_echo(handler: str, stacks: int) -> None:
    if ASAN and stacks == SHARED:
        pytest.skip("no shared stack under AddressSanitizer")
    world = World(stacks)
    world.serve(handler)
    for number in range(100):
        world.client("talk", number)
    log = world.run()
    assert sorted(line for line in log if line.startswith("number")) == sorted(
        f"number {n} ({len(f'number {n}')})" for n in range(100)
    )
    assert log.count("end 0") == 100
    assert world.is_clean()
    lib.world_free(world.w)


def test_a_handler_begins_with_the_first_payload(world: World) -> None:
    world.serve("echo_view")
    world.client("hold", 20)
    world.client("hold", 21)  # odd: it sends a byte
    world.run(5)
    assert lib.world_accepted(world.w) == 2
    assert world.live()[0] == 1
    assert world.is_clean()


def test_or_at_accept_when_it_speaks_first(world: World) -> None:
    world.serve("greeter", flags=START_AT_ACCEPT)
    world.client("one_line")
    log = world.run()
    assert log[0].startswith("line 'hello 192.0.2.2:"), log
    assert log[1] == f"set 0 {-EINVAL} 0 {-EINVAL}"
    assert world.is_clean()


def test_the_hook_refuses(world: World) -> None:
    world.serve("echo_view", refuse=1)
    world.client("poke_and_wait", 1)
    assert world.run() == [f"poked: {-ECONNRESET}"]
    assert lib.world_accepted(world.w) == 0
    assert world.is_clean()


def test_nobody_listens_after_unlisten(world: World) -> None:
    world.serve("echo_view")
    world.client("talk", 1)
    world.run(2)
    assert lib.world_unserve(world.w, 7) == 0
    world.client("talk", 2)
    assert f"connect: {ECONNREFUSED}" in world.run()
    world.serve("echo_view")
    world.client("talk", 3)
    assert "number 3 (8)" in world.run()


def test_records_across_segments_and_the_end(world: World) -> None:
    world.serve("records")
    world.client("poke_and_wait", 25)
    world.run(2)
    lib.world_run(world.w, 1)
    assert world.log()[:2] == ["record rrrrrrrrrr, 15 more", "record rrrrrrrrrr, 5 more"]


def test_deadlines_end_every_wait_until_set_again(world: World) -> None:
    world.serve("impatient")
    world.client("poke_and_wait", 3)
    log = world.run(600)
    assert log[0] == f"recv again: {-ETIMEDOUT}, sleep: {-ETIMEDOUT}"
    assert log[1] == "sleep without: 0"
    assert log[2] == "poked: 4"
    assert world.is_clean()


def test_a_handler_can_ask_whether_anything_gets_through(world: World) -> None:
    """R1 of RFC 9293 3.8.3."""
    world.serve("echo_view")
    world.client("ask_in_trouble", 50)
    world.run(20)
    lib.world_run_deaf(world.w, 4100)
    assert world.log() == [
        "smss 1448 flight 0 unread 0 timeouts 0 again 0 stalled 0 never",
        "smss 1448 flight 1 unread 0 timeouts 4 again 5 stalled 1 for long",
    ]
    assert world.run(4000)[2] == "smss 1448 flight 0 unread 0 timeouts 4 again 5 stalled 0 never"


def test_urgent_data_is_sent_and_told_of(world: World) -> None:
    world.serve("takes_urgent")
    world.client("sends_urgent")
    log = world.run()
    assert [line for line in log if line.startswith("sent")] == ["sent 4", f"sent {BIG}"]
    taken = [line.split() for line in log if line.startswith("took")]
    assert [words[1] for words in taken] == ["2,", "3,"]
    assert int(taken[0][3]) >= 3, "to the end of what was urgent first, or behind it"
    assert world.is_clean()


def test_sleep_within_a_deadline_and_calls_after_close(world: World) -> None:
    world.serve("sleeper", flags=START_AT_ACCEPT)
    world.client("hold", 2)
    log = world.run(300)
    assert log[0].startswith("slept: 0 after 6")
    assert log[1].startswith(f"slept: {-ETIMEDOUT} after 10")
    assert log[2] == f"after close: {-ENOTCONN} {-ENOTCONN} {-ENOTCONN}"
    assert log[3] == "sleep: 0"
    assert world.is_clean()


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        ("big_sender", [f"sent {BIG}, acknowledged 0"]),
        ("owned_sender", ["owned 0 0, tail 5", "done first: 0", "done second: 0"]),
        ("owned_and_gone", ["owned 0", "done all: 0"]),
        ("file_sender", [f"file {BIG}, beyond 0, bad {-EBADF}"]),
    ],
)
def test_more_than_the_buffer_arrives_whole(world: World, handler: str, said: list[str]) -> None:
    world.serve(handler, flags=START_AT_ACCEPT)
    world.client("listen_only")
    log = world.run(200)
    assert f"got {BIG}, same, end 0" in log
    for line in said:
        assert line in log, log
    assert world.is_clean()


@pytest.mark.parametrize("handler", ["big_sender", "owned_sender", "owned_and_gone", "file_sender"])
def test_a_peer_that_resets_ends_what_is_on_its_way(world: World, handler: str) -> None:
    world.serve(handler)
    world.client("never_reads", 50)
    log = world.run(200)
    assert any(str(-ECONNRESET) in line for line in log), log
    assert world.is_clean()


def test_abort_is_a_reset(world: World) -> None:
    world.serve("aborter")
    world.client("poke_and_wait", 1)
    assert world.run() == [f"poked: {-ECONNRESET}"]
    assert world.is_clean()


@pytest.mark.skipif(ASAN, reason="separate stacks keep any depth")
def test_a_handler_that_waits_too_deep_is_ended_by_a_reset(world: World) -> None:
    world.serve("deep")
    world.client("poke_and_wait", 1)
    assert world.run() == [f"poked: {-ECONNRESET}"]
    assert world.is_clean()


def test_a_proxy_pumps_both_ways_and_ends(world: World) -> None:
    world.serve("echo_view", port=9)
    world.serve("proxy")
    for number in range(50):
        world.client("talk", number)
    log = world.run(100)
    assert sum(line.startswith("number") for line in log) == 50, log
    assert log.count("end 0") == 50
    assert world.is_clean()


def test_a_proxy_without_upstream(world: World) -> None:
    world.serve("proxy")
    world.client("poke_and_wait", 1)
    log = world.run(100)
    assert f"proxy: {ECONNREFUSED}" in log
    assert world.is_clean()


def test_a_proxy_whose_client_resets(world: World) -> None:
    world.serve("echo_view", port=9)
    world.serve("proxy")
    world.client("never_reads", 3)
    world.run(100)
    assert world.is_clean()


def test_several_coroutines_on_one_connection(world: World) -> None:
    world.serve("echo_view")
    world.client("crowd")
    assert world.run(40) == [
        "start 0",
        f"again {-EBUSY}",
        f"third: {-EBUSY}",
        f"opener: {-ETIMEDOUT}",
        f"reader: {-ECONNABORTED}, then {-ECONNABORTED} and {-ECONNABORTED}",
        "closed",
    ]
    assert world.is_clean()


def test_cancelling_ends_every_wait(world: World) -> None:
    world.serve("echo_view")
    for _ in range(20):
        world.client("poke_and_wait", 1)
        world.client("hold", 1001)
    world.run(5)
    assert world.live()[0] == 20  # the others have said and closed all
    lib.world_cancel(world.w)
    world.run(5)
    assert world.live()[0] == 0


def test_the_environment_chooses_separate_stacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JANUS_STACKS", "separate")
    world = World(DEFAULT)
    world.serve("echo_stack")
    world.client("hold", 1001)
    world.run(5)
    assert world.live()[0] == 1
    assert lib.world_stored(world.w) == 0, "no image: it has a stack of its own"
    assert lib.world_templated(world.w) == 0
    lib.world_free(world.w)


def test_waiting_outside_of_handlers_is_refused(world: World) -> None:
    assert lib.call_outside(world.w) == -EDEADLK
