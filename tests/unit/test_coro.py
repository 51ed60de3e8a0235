"""The contract of coroutines, for every way of storing a stack: handlers of tests/native/coro.c run from here."""

import errno
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from _coro import ffi, lib

WAITS, ENDED, TOO_DEEP, NO_MEMORY = lib.CORO_WAITS, lib.CORO_ENDED, lib.CORO_TOO_DEEP, lib.CORO_NO_MEMORY
ASAN = lib.built_with_asan()
SHARED = {"backend": lib.CORO_SHARED}
CHUNK = 2 << 20
WAYS: dict[str, dict[str, Any]] = {
    "images": SHARED,
    "templates": {**SHARED, "templates": True},
    "poison": {**SHARED, "poison": True},
    "templates and poison": {**SHARED, "templates": True, "poison": True},
    "separate stacks": {"backend": lib.CORO_SEPARATE_STACKS},
}
needs_shared = pytest.mark.skipif(ASAN, reason="AddressSanitizer builds refuse the shared stack")


@dataclass
class Scheduler:
    """A scheduler with its owners, which are freed with it."""

    pointer: Any
    owners: Any

    def start(self, index: int, behaviour: str, argument: int = 0) -> int:
        return int(lib.owner_start(self.owners + index, NAMES[behaviour], argument))

    def resume(self, index: int, first: int = 1, second: int = 0) -> int:
        return int(lib.owner_resume(self.owners + index, first, second))

    def seen(self, index: int) -> int:
        return int(self.owners[index].seen)

    def state(self, index: int) -> int:
        return int(self.owners[index].co.state)

    def stored(self, index: int) -> int:
        return int(lib.coro_stored_bytes(self.pointer, ffi.addressof(self.owners[index], "co")))

    def live_bytes(self, index: int) -> int:
        return int(lib.coro_live_bytes(self.pointer, ffi.addressof(self.owners[index], "co")))

    def drop(self, index: int) -> None:
        lib.coro_drop(self.pointer, ffi.addressof(self.owners[index], "co"))

    def trim(self) -> int:
        """One look over the chunks; how many went back."""
        count = 0
        while lib.coro_trim(self.pointer):
            count += 1
        return count

    def stats(self) -> Any:
        stats = ffi.new("struct coro_stats *")
        lib.coro_stats(self.pointer, stats)
        return stats


class Names(dict[str, Any]):
    """C strings that live as long as the tests."""

    def __missing__(self, name: str) -> Any:
        self[name] = ffi.new("char[]", name.encode())
        return self[name]


NAMES = Names()


def make(count: int = 8, **options: Any) -> Scheduler:
    out = ffi.new("struct coro_sched **")
    wanted = ffi.new("struct coro_options *", {"owner_bytes": ffi.sizeof("struct owner"), **options})
    assert lib.coro_sched_new(wanted, out) == 0
    return Scheduler(out[0], lib.owners_new(out[0], count))


def free(s: Scheduler) -> None:
    lib.owners_free(s.owners)
    lib.coro_sched_free(s.pointer)


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> dict[str, Any]:
    options = WAYS[request.param]
    if ASAN and options["backend"] == lib.CORO_SHARED:
        pytest.skip("AddressSanitizer builds refuse the shared stack")
    return options


@pytest.fixture
def s(way: dict[str, Any]) -> Iterator[Scheduler]:
    scheduler = make(**way)
    yield scheduler
    free(scheduler)


def test_nothing_is_stored_before_the_start_and_after_the_end(s: Scheduler) -> None:
    assert (s.stored(0), s.live_bytes(0), s.state(0)) == (0, 0, lib.CORO_NEW)
    assert s.start(0, "sum") == WAITS
    assert s.state(0) != lib.CORO_NEW
    assert s.live_bytes(0) > 0
    assert s.resume(0, 0) == ENDED
    assert (s.stored(0), s.live_bytes(0), s.state(0)) == (0, 0, lib.CORO_NEW)


def test_a_handler_may_return_without_waiting_and_start_again(s: Scheduler) -> None:
    for argument in (5, 6):
        assert s.start(0, "return_at_once", argument) == ENDED
        assert s.seen(0) == argument
    stats = s.stats()
    assert (stats.started, stats.ended, stats.live) == (2, 2, 0)


def test_results_arrive_in_each_coroutine_in_any_order(s: Scheduler) -> None:
    given = [0] * 8
    for i in range(8):
        assert s.start(i, "sum") == WAITS
    for i in (3, 1, 4, 1, 5, 0, 2, 6, 7, 7, 7, 3):
        given[i] += i + 100
        assert s.resume(i, i + 100) == WAITS
    assert [s.resume(i, 0) for i in range(8)] == [ENDED] * 8
    assert [s.seen(i) for i in range(8)] == given


def test_the_request_is_there_while_it_waits(s: Scheduler) -> None:
    s.start(0, "sum", 0xFEDCBA9876543210)
    for _ in range(3):
        assert lib.owner_request(s.owners) == 0xFEDCBA9876543210
    s.resume(0, 0)


def test_the_request_can_be_served_into_its_stack(s: Scheduler) -> None:
    s.start(0, "receive_into_stack")
    s.start(1, "receive_into_stack")
    assert lib.owner_receive(s.owners + 0, b"for the first\0", 14) == WAITS
    assert lib.owner_receive(s.owners + 1, b"for the second\0", 15) == WAITS
    assert ffi.string(s.owners[0].note) == b"for the first"
    assert ffi.string(s.owners[1].note) == b"for the second"
    assert [s.resume(0, 0), s.resume(1, 0)] == [ENDED, ENDED]


@pytest.mark.parametrize("levels", [0, 1, 2, 5, 20, 100])
def test_it_waits_at_any_depth(s: Scheduler, levels: int) -> None:
    for i in range(3):
        assert s.start(i, "deep", levels + i) == WAITS
    assert s.live_bytes(2) > s.live_bytes(0) > levels * 200
    for i in (1, 2, 0):
        assert s.resume(i, 1000) == ENDED
        assert s.seen(i) == 1000 + sum(n - (n if n < 128 else n - 256) for n in range(levels + i + 1))


def test_the_depth_may_change_at_every_wait(s: Scheduler) -> None:
    for i in range(4):
        s.start(i, "breathe", 30)
    for _ in range(59):
        assert [s.resume(i) for i in (2, 0, 3, 1)] == [WAITS] * 4
    assert [s.resume(i) for i in range(4)] == [ENDED] * 4
    assert [s.seen(i) for i in range(4)] == [60] * 4


def test_longjmp_within_a_coroutine_across_waits(s: Scheduler) -> None:
    assert [s.start(i, "jump") for i in range(2)] == [WAITS] * 2
    for _ in range(3):
        assert [s.resume(i) for i in range(2)] == [WAITS] * 2
    assert [s.resume(i) for i in range(2)] == [ENDED] * 2
    assert [s.seen(i) for i in range(2)] == [123] * 2


def test_doubles_survive_a_wait(s: Scheduler) -> None:
    s.start(0, "use_doubles", 2)
    s.start(1, "use_doubles", 81)
    assert [s.resume(1), s.resume(0)] == [ENDED, ENDED]
    assert ffi.string(s.owners[0].note) == b"1.414214 4.949747 0"
    assert ffi.string(s.owners[1].note) == b"9.000000 31.500000 0"


def test_errno_is_the_thread_s(s: Scheduler) -> None:
    s.start(0, "use_errno")
    assert s.resume(0) == ENDED
    assert s.seen(0) == errno.EINTR


def test_floating_point_modes_are_the_thread_s(s: Scheduler) -> None:
    """A limit: modes are not switched, so a handler must put them back before it waits."""
    s.start(1, "see_rounding")
    nearest = s.seen(1)
    s.start(0, "change_rounding")
    s.start(1, "see_rounding")
    s.resume(0)
    assert s.seen(1) == s.seen(0) != nearest
    s.start(1, "see_rounding")
    assert s.seen(1) == nearest


def test_stack_and_over_aligned_locals_are_aligned(s: Scheduler) -> None:
    s.start(0, "aligned")
    assert s.resume(0) == ENDED
    assert s.seen(0) == 1


def test_dropping_gives_everything_back_without_running(s: Scheduler) -> None:
    for i in range(8):
        s.start(i, "idle_with_noise", i)
    for i in range(8):
        s.drop(i)
        s.drop(i)
    stats = s.stats()
    assert (stats.live, stats.dropped, stats.images, stats.templated, stats.stacks) == (0, 8, 0, 0, 0)
    assert s.start(0, "sum") == WAITS
    assert s.resume(0, 5) == WAITS
    assert s.seen(0) == 5


def test_deeper_than_allowed_is_counted_and_ended(way: dict[str, Any]) -> None:
    s = make(**way, saved_bytes_max=4096)
    assert s.start(0, "idle") == WAITS
    assert s.start(1, "deep", 60) == TOO_DEEP
    assert s.start(2, "breathe", 60) == WAITS
    while (outcome := s.resume(2)) == WAITS:
        pass
    assert outcome == TOO_DEEP
    stats = s.stats()
    assert (stats.too_deep, stats.dropped, stats.live) == (2, 2, 1)
    assert s.state(1) == s.state(2) == lib.CORO_NEW
    assert s.resume(0, 0) == ENDED
    assert s.stats().images == 0
    free(s)


@needs_shared
def test_no_room_for_images_is_counted_and_ended() -> None:
    s = make(count=100, **SHARED, image_bytes_max=2 << 20)
    outcomes = [s.start(i, "deep", 180) for i in range(100)]
    assert outcomes[0] == WAITS
    assert outcomes[-1] == NO_MEMORY
    waiting = outcomes.index(NO_MEMORY)
    assert s.stats().no_memory == 100 - waiting
    assert s.stats().live == waiting
    assert [s.resume(i) for i in range(waiting)] == [ENDED] * waiting
    assert s.start(99, "deep", 180) == WAITS
    free(s)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"stack_bytes": 4096}, id="stack of one page"),
        pytest.param({"saved_bytes_max": 65537}, id="image larger than a run"),
        pytest.param({"image_bytes_max": (128 << 30) + 1}, id="more images than 32 bits can number"),
        pytest.param({"backend": 7}, id="no such backend"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    out = ffi.new("struct coro_sched **")
    wanted = ffi.new("struct coro_options *", {"backend": lib.CORO_SEPARATE_STACKS, **options})
    assert lib.coro_sched_new(wanted, out) == -errno.EINVAL
    assert out[0] == ffi.NULL


@pytest.mark.skipif(not ASAN, reason="for AddressSanitizer builds")
def test_asan_refuses_the_shared_stack() -> None:
    out = ffi.new("struct coro_sched **")
    assert lib.coro_sched_new(ffi.new("struct coro_options *", SHARED), out) == -errno.ENOTSUP


def test_several_schedulers_in_one_thread(way: dict[str, Any]) -> None:
    first, second = make(**way), make(**way)
    for i in range(4):
        first.start(i, "sum")
        second.start(i, "sum")
    for i in range(4):
        first.resume(i, 1)
        second.resume(i, 2)
    free(first)
    assert [second.resume(i, 0) for i in range(4)] == [ENDED] * 4
    assert [second.seen(i) for i in range(4)] == [2] * 4
    free(second)


# --- images ---


@needs_shared
def test_a_waiting_coroutine_costs_its_rounded_image() -> None:
    s = make(**SHARED)
    s.start(0, "idle")
    assert s.stored(0) == (s.live_bytes(0) + 31) // 32 * 32
    assert s.stats().image_bytes == s.stored(0)
    free(s)


@needs_shared
def test_the_slot_is_kept_while_its_class_is_the_same() -> None:
    s = make(**SHARED)
    s.start(0, "idle")
    image = s.owners[0].co.image
    for i in range(1, 4):
        s.start(i, "idle")
    for _ in range(5):
        assert [s.resume(i) for i in range(4)] == [WAITS] * 4
        assert s.owners[0].co.image == image
    free(s)


@needs_shared
def test_memory_comes_back() -> None:
    s = make(count=40_000, **SHARED)
    for i in range(40_000):
        s.start(i, "deep" if i % 3 == 0 else "idle", i % 4)
    held = s.stats().image_bytes_held
    assert held >= s.stats().image_bytes
    for i in range(40_000):
        s.resume(i, 0)
    stats = s.stats()
    assert (stats.live, stats.images, stats.image_bytes) == (0, 0, 0)
    assert s.trim() == 0
    assert s.trim() == held // CHUNK - 1
    assert s.stats().image_bytes_held == CHUNK
    assert not lib.coro_has_spare(s.pointer)
    assert [s.start(i, "idle") for i in range(10)] == [WAITS] * 10
    assert 0 < s.stats().image_bytes_held < held
    free(s)


@needs_shared
def test_images_that_were_there_between_two_looks_stay() -> None:
    s = make(count=40_000, **SHARED)
    for i in range(40_000):
        s.start(i, "deep")
    for i in range(39_000):
        s.resume(i, 0)
    assert s.trim() == 0
    held = s.stats().image_bytes_held
    for i in range(39_000):
        s.start(i, "deep")
    for i in range(39_000):
        s.resume(i, 0)
    assert s.trim() == 0
    assert s.stats().image_bytes_held == held
    assert s.trim() > 0
    assert [s.resume(i, 0) for i in range(39_000, 40_000)] == [ENDED] * 1000
    free(s)


def test_separate_stacks_come_back() -> None:
    s = make(count=300, **WAYS["separate stacks"])
    for _ in range(2):
        assert [s.start(i, "idle") for i in range(300)] == [WAITS] * 300
        assert s.stats().stacks == 300
        assert [s.resume(i, 0) for i in range(300)] == [ENDED] * 300
        assert s.stats().stacks == 0
    free(s)


# --- pointers to a stack that is not there ---


@needs_shared
def test_poison_shows_a_stale_pointer() -> None:
    s = make(**WAYS["poison"])
    s.start(0, "leave_stale_pointer")
    assert lib.owner_stale_value(s.owners) & 0xFFFFFFFF == 0xDBDBDBDB
    assert s.resume(0) == ENDED
    assert s.seen(0) == 42
    free(s)


def test_separate_stacks_keep_pointers_good() -> None:
    s = make(**WAYS["separate stacks"])
    s.start(0, "leave_stale_pointer")
    s.start(1, "deep", 10)
    assert lib.owner_stale_value(s.owners) == 42
    assert s.resume(0) == ENDED
    free(s)


# --- a storm ---


def storm(options: dict[str, Any], seed: int, coroutines: int = 3000, steps: int = 60_000) -> tuple[int, ...]:
    s = make(count=1, **options)
    result = ffi.new(
        "struct storm *", {"seed": seed, "steps": steps, "coroutines": coroutines, "depth_max": 6}
    )
    assert lib.storm_run(s.pointer, result) == 0, f"seed {seed}"
    assert result.mismatches == 0, f"seed {seed}"
    assert result.started == result.ended > coroutines, f"seed {seed}"
    stats = s.stats()
    assert (stats.live, stats.images, stats.templated, stats.stacks) == (0, 0, 0, 0), f"seed {seed}"
    assert s.trim() == 0
    s.trim()
    assert s.stats().image_bytes_held <= CHUNK
    free(s)
    return result.checksum, result.started


def test_thousands_that_recurse_agree_in_every_way_of_storing() -> None:
    seed = random.randrange(2**32)
    print(f"SEED={seed}")
    ways = [w for w in WAYS.values() if not ASAN or w["backend"] != lib.CORO_SHARED]
    assert len({storm(options, seed) for options in ways}) == 1, f"seed {seed}"


@pytest.mark.parametrize("seed", range(5))
def test_storm_with_fixed_seeds(way: dict[str, Any], seed: int) -> None:
    storm(way, seed, coroutines=200, steps=20_000)


def test_signals_may_arrive_at_any_instruction(way: dict[str, Any]) -> None:
    s = make(count=1, **way)
    count = ffi.new("uint64_t *")
    result = ffi.new("struct storm *", {"seed": 9, "steps": 200_000, "coroutines": 200, "depth_max": 6})
    assert lib.storm_with_signals(s.pointer, result, count) == 0
    assert result.mismatches == 0
    assert result.started == result.ended
    assert count[0] > 0
    free(s)
