"""The timing wheel against a dictionary of deadlines."""

import pytest
from _leaf import ffi, lib
from hypothesis import given, settings
from hypothesis import strategies as st

NODES = 24
STARTS = [0, 1, 63, 4095, 2**30 - 5, 2**31 - 5, 2**32 - 256, 2**32 - 1]
DELAYS = st.one_of(
    st.integers(0, 200),
    st.integers(0, 2**13),
    st.integers(0, 2**31 - 1),
    st.sampled_from([63, 64, 65, 4095, 4096, 2**18, 2**24, 2**30 - 1, 2**30]),
)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("schedule"), st.integers(0, NODES - 1), DELAYS),
        st.tuples(st.just("cancel"), st.integers(0, NODES - 1), st.just(0)),
        st.tuples(st.just("pop"), st.just(0), DELAYS),
        st.tuples(st.just("next"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


class Twin:
    """The wheel and a dictionary that says when each node is due, in ticks since the start, never wrapped."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.slab = ffi.new("struct wheel_node[]", NODES)
        self.wheel = ffi.new("struct wheel *")
        lib.wheel_init(self.wheel, self.slab, ffi.sizeof("struct wheel_node"), 0, start)
        self.due: dict[int, int] = {}
        self.now = 0

    def schedule(self, node: int, delay: int) -> None:
        lib.wheel_schedule(self.wheel, node, (self.start + self.now + delay) % 2**32)
        self.due[node] = self.now + max(delay, 1)

    def cancel(self, node: int) -> None:
        lib.wheel_cancel(self.wheel, node)
        self.due.pop(node, None)

    def pop_until(self, now: int) -> None:
        """All that is due comes, in order, and nothing else."""
        last = -1
        while (node := lib.wheel_pop(self.wheel, (self.start + now) % 2**32)) != lib.WHEEL_NONE:
            deadline = self.due.pop(node)
            assert last <= deadline <= now
            last = deadline
        self.now = now
        assert all(deadline > now for deadline in self.due.values())

    def next_tick(self) -> int | None:
        tick = ffi.new("uint32_t *")
        if not lib.wheel_next_tick(self.wheel, tick):
            return None
        return (tick[0] - self.start - self.now) % 2**32 + self.now

    def check(self) -> None:
        lib.wheel_check(self.wheel)
        assert self.wheel.count == len(self.due)
        for node in range(NODES):
            assert lib.native_wheel_is_scheduled(self.wheel, node) == (node in self.due)


@given(st.sampled_from(STARTS), OPERATIONS)
@settings(max_examples=300)
def test_wheel_is_a_dictionary_of_deadlines(start: int, operations: list[tuple[str, int, int]]) -> None:
    twin = Twin(start)
    for what, node, ticks in operations:
        if what == "schedule":
            twin.schedule(node, ticks)
        elif what == "cancel":
            twin.cancel(node)
        elif what == "pop":
            twin.pop_until(twin.now + ticks)
        else:
            tick = twin.next_tick()
            assert (tick is None) == (not twin.due)
            if tick is not None:
                assert twin.now < tick <= min(twin.due.values())
        twin.check()


@given(st.sampled_from(STARTS), st.lists(DELAYS, min_size=1, max_size=NODES))
def test_sleeping_until_next_tick_reaches_every_deadline_in_few_steps(start: int, delays: list[int]) -> None:
    twin = Twin(start)
    for node, delay in enumerate(delays):
        twin.schedule(node, delay)
    steps = 0
    while twin.due:
        tick = twin.next_tick()
        assert tick is not None
        twin.pop_until(tick)
        steps += 1
    assert steps <= 6 * len(delays)


@pytest.mark.parametrize("late", [0, 1, 5, 1000])
def test_a_deadline_that_is_past_is_due_at_the_next_tick(late: int) -> None:
    twin = Twin(100)
    twin.pop_until(50)
    lib.wheel_schedule(twin.wheel, 3, (150 - late) % 2**32)
    assert lib.wheel_pop(twin.wheel, 150) == lib.WHEEL_NONE
    assert lib.wheel_pop(twin.wheel, 151) == 3


def test_nodes_may_change_between_two_pops() -> None:
    twin = Twin(0)
    for node in range(3):
        lib.wheel_schedule(twin.wheel, node, 10)
    first = lib.wheel_pop(twin.wheel, 20)
    rest = {0, 1, 2} - {first}
    cancelled = rest.pop()
    lib.wheel_cancel(twin.wheel, cancelled)
    lib.wheel_schedule(twin.wheel, first, 15)
    assert [lib.wheel_pop(twin.wheel, 20) for _ in range(3)] == [rest.pop(), first, lib.WHEEL_NONE]


def test_the_slab_may_move() -> None:
    twin = Twin(0)
    lib.wheel_schedule(twin.wheel, 7, 5000)
    moved = ffi.new("struct wheel_node[]", list(twin.slab))
    lib.wheel_rebase(twin.wheel, moved)
    assert lib.wheel_pop(twin.wheel, 5000) == 7
    lib.wheel_check(twin.wheel)
