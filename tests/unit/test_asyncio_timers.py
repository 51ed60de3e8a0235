"""call_later() and call_at() of the Janus loop are asyncio's in all that a program can see."""

import asyncio
import contextvars
import gc
import random
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from janus_tcp.asyncio_loop import JanusEventLoop
from janus_tcp.asyncio_testing import PairEventLoop


@pytest.fixture
def loop() -> Iterator[PairEventLoop]:
    made = PairEventLoop()
    yield made
    made.close()


def run_for(loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    loop.run_until_complete(asyncio.sleep(seconds))


@pytest.mark.parametrize("debug", [False, True])
def test_calls_come_in_the_order_of_their_times_whatever_is_cancelled(
    loop: PairEventLoop, debug: bool
) -> None:
    loop.set_debug(debug)
    draw = random.Random(1)
    came: list[float] = []
    start = loop.time()
    delays = [draw.randrange(1, 10_000) / 1000 for _ in range(2000)]
    handles = [loop.call_later(delay, came.append, delay) for delay in delays]
    kept = list(delays)
    for i in sorted(draw.sample(range(2000), 1500), reverse=True):
        handles[i].cancel()
        handles[i].cancel()
        assert handles[i].cancelled()
        del kept[i]
    run_for(loop, 11)
    assert came == sorted(kept)
    assert start + 11 <= loop.time() < start + 12


def test_a_handle_is_asyncios(loop: PairEventLoop) -> None:
    now = loop.time()
    first, second = loop.call_at(now + 1, print, "a"), loop.call_at(now + 2, print, "b")
    assert isinstance(first, asyncio.TimerHandle)
    assert (first.when(), second.when()) == (now + 1, now + 2)
    assert first < second
    assert second >= first
    assert first != second
    assert hash(first) == hash(now + 1)
    assert repr(first).startswith(f"<TimerHandle when={now + 1} print('a')")
    assert not first.cancelled()
    assert weakref.ref(first)() is first
    first.cancel()
    assert "cancelled" in repr(first)
    with pytest.raises(TypeError):
        type(first)(1.0, print, (), loop)


def test_a_cancelled_call_is_let_go_at_once(loop: PairEventLoop) -> None:
    class Held:
        def call(self) -> None: ...

    held = Held()
    gone = weakref.ref(held)
    handle = loop.call_later(3600, held.call)
    known = weakref.ref(handle)
    handle.cancel()
    del handle, held
    assert gone() is None
    assert known() is None


def test_one_that_is_due_can_be_cancelled_by_another(loop: PairEventLoop) -> None:
    came: list[int] = []
    when = loop.time() + 1
    handles: list[asyncio.TimerHandle] = []

    def call(i: int) -> None:
        came.append(i)
        handles[0].cancel()
        handles[1].cancel()

    handles += [loop.call_at(when, call, 0), loop.call_at(when, call, 1)]
    run_for(loop, 2)
    assert len(came) == 1


@pytest.mark.parametrize("when", [-1.0, 0, -0.0, float("-inf")])
def test_what_is_past_is_called_next(loop: PairEventLoop, when: float) -> None:
    called = loop.create_future()
    handle = loop.call_at(when, called.set_result, None)
    loop.run_until_complete(called)
    assert handle.when() is when


def test_arguments(loop: PairEventLoop) -> None:
    variable = contextvars.ContextVar("variable", default=0)
    context = contextvars.copy_context()
    context.run(variable.set, 7)
    seen: list[int] = []
    loop.call_later(1, lambda: seen.append(variable.get()), context=context)
    loop.call_later(delay=2, callback=lambda: seen.append(variable.get()))
    loop.call_at(callback=lambda: seen.append(3), when=loop.time() + 3)
    never: Any = None
    for bad in (
        lambda: loop.call_later(never, print),
        lambda: loop.call_at(never, print),
        lambda: loop.call_at("soon", print),  # type: ignore[arg-type]
        lambda: loop.call_later("soon", print),  # type: ignore[arg-type]
        lambda: loop.call_later(1),  # type: ignore[call-arg]
        lambda: loop.call_later(1, print, unknown=1),  # type: ignore[call-arg]
    ):
        with pytest.raises(TypeError):
            bad()
    run_for(loop, 4)
    assert seen == [7, 0, 3]


def test_debug_mode_takes_over_what_was_set_and_gives_back(loop: PairEventLoop) -> None:
    came: list[str] = []
    early, late = (loop.call_later(seconds, came.append, "no") for seconds in (1, 5))
    loop.call_later(2, came.append, "before")
    loop.set_debug(True)
    early.cancel()
    loop.call_later(3, came.append, "while")
    run_for(loop, 1)
    late.cancel()
    assert "cancelled" in repr(late)
    assert "created at" in repr(loop.call_later(9, print))
    loop.set_debug(False)
    loop.call_later(3, came.append, "after")
    run_for(loop, 7)
    assert came == ["before", "while", "after"]


def test_a_closed_loop_takes_none_and_holds_none() -> None:
    loop = JanusEventLoop()
    held = type("Held", (), {"call": lambda self: None})()
    gone = weakref.ref(held)
    handle = loop.call_later(3600, held.call)
    ended = weakref.ref(loop)
    loop.close()
    handle.cancel()
    for call in (loop.call_later, loop.call_at):
        with pytest.raises(RuntimeError, match="closed"):
            call(1, print)
    del handle, held, loop, call
    gc.collect()
    assert gone() is None
    assert ended() is None


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # it was not closed
def test_a_forgotten_loop_is_collected_with_its_timers() -> None:
    loop = JanusEventLoop()
    loop.call_later(3600, lambda kept=loop: kept)
    ended = weakref.ref(loop)
    del loop
    gc.collect()
    assert ended() is None


def test_what_a_callback_raises_is_told_with_its_handle(loop: PairEventLoop) -> None:
    told: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: told.append(context))
    handle = loop.call_later(1, lambda: 1 / 0)
    run_for(loop, 2)
    assert told[0]["handle"] is handle
    assert isinstance(told[0]["exception"], ZeroDivisionError)
