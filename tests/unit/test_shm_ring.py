"""A ring against a deque, and against a peer that scribbles over all that it may write."""

from collections import deque

import pytest
from _shm import ffi, lib
from hypothesis import given
from hypothesis import strategies as st

SIZE = 8
U32 = 1 << 32


class Pair:
    """Both ends of one ring, over three pieces of memory as in the two regions."""

    def __init__(self, start: int = 0) -> None:
        self.descs = ffi.new("struct shm_desc[]", SIZE)
        self.head = ffi.new("uint32_t *", start)
        self.tail = ffi.new("uint32_t *", start)
        shared = {"descs": self.descs, "head": self.head, "tail": self.tail}
        own = {"mask": SIZE - 1, "head_shadow": start}
        self.producer = ffi.new("struct ring_producer *", {**shared, **own, "end": (start + SIZE) % U32})
        self.consumer = ffi.new("struct ring_consumer *", {**shared, **own, "tail_shadow": start})


STEPS = st.lists(
    st.tuples(st.sampled_from(["push", "publish", "pop", "release"]), st.integers(1, SIZE)), max_size=200
)


@given(start=st.sampled_from([0, 1, U32 - 3, U32 - SIZE, 1 << 31]), steps=STEPS)
def test_twin_of_a_deque(start: int, steps: list[tuple[str, int]]) -> None:
    ring, waiting = Pair(start), deque[int]()
    pushed = published = popped = released = 0
    for verb, count in steps:
        for _ in range(count):
            if verb == "push":
                room = lib.test_producer_refresh(ring.producer)
                assert room == SIZE - (pushed - released)
                if room:
                    lib.test_push(ring.producer, {"slot": pushed, "len": pushed % 65536})
                    waiting.append(pushed)
                    pushed += 1
            elif verb == "publish":
                lib.test_publish(ring.producer)
                published = pushed
            elif verb == "pop":
                count_there = lib.test_consumer_refresh(ring.consumer)
                assert count_there == published - popped
                if count_there:
                    desc = lib.test_pop(ring.consumer)
                    assert (desc.slot, desc.len) == (waiting.popleft(), popped % 65536)
                    popped += 1
            else:
                lib.test_release(ring.consumer)
                released = popped


@given(heads=st.lists(st.integers(0, U32 - 1), max_size=100))
def test_consumer_bounds_a_hostile_head(heads: list[int]) -> None:
    ring, position = Pair(), 0
    for head in heads:
        ring.head[0] = head
        distance = (head - position) % U32
        got = lib.test_consumer_refresh(ring.consumer)
        if distance > SIZE:
            assert got == -1
            continue
        assert got == distance
        for _ in range(got):
            lib.test_pop(ring.consumer)
        position = (position + got) % U32
        lib.test_release(ring.consumer)
        assert ring.tail[0] == position


@given(tails=st.lists(st.integers(0, U32 - 1), max_size=100), pushes=st.integers(0, SIZE))
def test_producer_bounds_a_hostile_tail(tails: list[int], pushes: int) -> None:
    ring, good = Pair(), 0
    for _ in range(pushes):
        lib.test_push(ring.producer, {"slot": 1})
    for tail in tails:
        ring.tail[0] = tail
        got = lib.test_producer_refresh(ring.producer)
        if (pushes - tail) % U32 > SIZE:
            assert got == -1
        else:
            good = tail
            assert got == SIZE - (pushes - tail) % U32
        assert lib.test_producer_room(ring.producer) == SIZE - (pushes - good) % U32 <= SIZE


def test_an_index_read_back_from_shared_memory_is_never_used() -> None:
    ring = Pair()
    lib.test_push(ring.producer, {"slot": 1})
    lib.test_publish(ring.producer)
    ring.head[0] = 99  # the producer's own index, overwritten: it never reads it back
    lib.test_push(ring.producer, {"slot": 2})
    lib.test_publish(ring.producer)
    assert ring.head[0] == 2


def test_doorbell_flag_is_set_for_any_value_but_zero() -> None:
    memory = ffi.new("uint8_t[128]")
    flag = ffi.cast(
        "uint32_t *", memory + -int(ffi.cast("uintptr_t", memory)) % 64
    )  # a cache line of its own
    assert not lib.test_doorbell_wanted(flag)
    lib.test_doorbell_arm(flag)
    assert lib.test_doorbell_wanted(flag)
    flag[0] = 0xFFFFFFFF
    assert lib.test_doorbell_wanted(flag)
    lib.test_doorbell_disarm(flag)
    assert not lib.test_doorbell_wanted(flag)


def test_ringing_never_blocks_even_when_the_app_makes_it_blocking() -> None:
    import os
    import socket

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    os.set_blocking(ours.fileno(), True)
    for _ in range(100_000):
        lib.doorbell_ring_app_test(ours.fileno())
    theirs.close()
    lib.doorbell_ring_app_test(ours.fileno())
    ours.close()


@pytest.mark.parametrize("io", range(8))
def test_indices_of_each_io_thread_have_cache_lines_of_their_own(io: int) -> None:
    at = lib.test_index_offsets(io)
    ours = [at.rx_head, at.tx_tail, at.tx_done_head, at.rx_return_tail, at.io_sleeping]
    theirs = [at.tx_head, at.rx_tail, at.rx_return_head, at.tx_done_tail, at.app_sleeping, at.rows_used]
    for offsets in (ours, theirs):
        assert len({o // 64 for o in offsets}) == len(offsets)
        assert max(offsets) < 4096
