"""Templates: idle coroutines of one kind store nothing, others a few words or all, and none is ever restored wrong."""

import random
from typing import Any

import pytest
from _coro import ffi, lib
from test_coro import ENDED, SHARED, WAITS, Scheduler, free, make, needs_shared

pytestmark = needs_shared
COUNT = 500


def templated(count: int = COUNT, **options: Any) -> Scheduler:
    return make(count=count, **SHARED, templates=True, **options)


def test_idle_coroutines_of_one_kind_store_nothing() -> None:
    s = templated()
    for i in range(COUNT):
        assert s.start(i, "idle") == WAITS
    assert [s.stored(i) for i in range(COUNT)] == [0] * COUNT
    stats = s.stats()
    assert (stats.images, stats.templates, stats.templated) == (0, 1, COUNT)
    for i in random.Random(1).sample(range(COUNT), COUNT):
        assert [s.resume(i), s.resume(i), s.resume(i, 0)] == [WAITS, WAITS, ENDED]
    assert [s.seen(i) for i in range(COUNT)] == [2] * COUNT
    assert s.stats().templated == 0
    free(s)


def test_without_owner_bytes_only_the_owner_s_own_address_moves() -> None:
    s = templated(count=10, owner_bytes=1)
    assert [s.start(i, "idle") for i in range(10)] == [WAITS] * 10
    assert [s.stored(i) for i in range(10)] == [0] * 10
    free(s)


def test_a_word_of_its_own_is_patched() -> None:
    s = templated()
    for i in range(COUNT):
        s.start(i, "idle_with_count", i)
    plain = (s.live_bytes(COUNT - 1) + 31) // 32 * 32
    patched = [i for i in range(COUNT) if s.state(i) == lib.CORO_PATCHED]
    assert len(patched) > COUNT * 0.9
    assert {s.stored(i) for i in patched} == {32}
    assert plain > 32
    for i in reversed(range(COUNT)):
        assert [s.resume(i), s.resume(i), s.resume(i, 0)] == [WAITS, WAITS, ENDED]
    assert [s.seen(i) for i in range(COUNT)] == [2] * COUNT
    assert s.stats().images == 0
    free(s)


def test_images_that_differ_everywhere_are_stored_whole() -> None:
    s = templated()
    for i in range(COUNT):
        s.start(i, "idle_with_noise", i)
    whole = [i for i in range(COUNT) if s.state(i) == lib.CORO_KEPT]
    assert len(whole) > COUNT * 0.9
    assert all(s.stored(i) == (s.live_bytes(i) + 31) // 32 * 32 for i in whole)
    for _ in range(2):
        assert [s.resume(i) for i in range(COUNT)] == [WAITS] * COUNT
    assert [s.resume(i, 0) for i in range(COUNT)] == [ENDED] * COUNT
    assert [s.seen(i) for i in range(COUNT)] == [2] * COUNT
    free(s)


def test_an_unlucky_first_template_is_replaced() -> None:
    s = templated()
    s.start(0, "idle_with_count", 12345)
    for i in range(1, COUNT):
        s.start(i, "idle_with_count", 7)
    assert sum(s.stored(i) == 0 for i in range(COUNT)) > COUNT * 0.8
    assert s.stats().templates == 2  # the first one serves those that were stored before
    assert [s.resume(i, 0) for i in range(COUNT)] == [ENDED] * COUNT
    assert s.stats().templates == 1
    free(s)


def test_kinds_have_templates_of_their_own() -> None:
    s = templated(count=90)
    for i in range(90):
        s.start(i, ("idle", "receive_into_stack")[i % 2])
    assert s.stats().templates == 2
    assert [s.stored(i) for i in range(90)] == [0] * 90
    assert [s.resume(i, 0) for i in range(90)] == [ENDED] * 90
    free(s)


@pytest.mark.parametrize("seed", range(4))
def test_restored_bit_for_bit(seed: int) -> None:
    """Each handler checks its own words; kinds, arguments and order are drawn."""
    draw = random.Random(seed)
    s = templated(count=200)
    kinds = ["idle", "idle_with_count", "idle_with_noise", "sum"]
    kind = [draw.choice(kinds) for _ in range(200)]
    for i in range(200):
        assert s.start(i, kind[i], draw.choice([0, 1, i])) == WAITS
    turns = [0] * 200
    for _ in range(5000):
        i = draw.randrange(200)
        turns[i] += 1
        assert s.resume(i) == WAITS
    assert [s.resume(i, 0) for i in range(200)] == [ENDED] * 200
    assert [s.seen(i) for i in range(200)] == turns
    assert s.stats().images == 0
    free(s)


def test_the_owner_may_move_with_what_it_contains() -> None:
    """A coroutine that holds no address but its owner's goes on under another one; only templates can do it."""
    s = templated(count=2)
    s.start(0, "idle")
    s.resume(0)
    ffi.memmove(s.owners + 1, s.owners, ffi.sizeof("struct owner"))
    assert s.resume(1) == WAITS
    assert [s.seen(0), s.seen(1)] == [1, 2]
    free(s)
