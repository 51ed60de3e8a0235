"""What wakes a TCP thread, and what it looks at then."""

import os
import platform
import threading
from typing import Any

import pytest
from _app import ffi, lib

from tests.unit.test_app_attach import FakeJanusd, attach, plain_janusd

__all__ = ["plain_janusd"]


def test_a_doorbell_that_has_rung_does_not_hide_the_death_of_janusd(plain_janusd: FakeJanusd) -> None:
    thread = attach(plain_janusd.path)
    lib.fake_ring(plain_janusd.sessions[0])
    plain_janusd.stop()
    for _ in range(2):  # the doorbell ends the first sleep, the socket the second at the latest
        lib.thread_wait(thread, 2**64 - 1)
        lib.thread_poll(thread)
    assert not lib.thread_attached(thread, ffi.NULL)
    plain_janusd.start()
    lib.thread_close(thread)


# --- who else needs the processor ---


def spin_10_s(thread: Any) -> bool:
    """True: not back before the time was over."""
    until_us = lib.thread_clock_us(thread) + 10_000_000
    assert not lib.thread_spin(thread, until_us)
    return bool(lib.thread_clock_us(thread) >= until_us)


def test_a_thread_does_not_spin_on_the_cpu_of_an_io_thread(plain_janusd: FakeJanusd) -> None:
    before = os.sched_getaffinity(0)
    cpu = min(before)
    os.sched_setaffinity(0, {cpu})
    try:
        thread = attach(plain_janusd.path)
        session = plain_janusd.sessions[0]
        lib.fake_set_io_cpu(session, 0, 1 + cpu)
        assert not spin_10_s(thread)
        lib.fake_set_io_cpu(session, 0, 2 + cpu)
        until_us = lib.thread_clock_us(thread) + 1000
        assert not lib.thread_spin(thread, until_us)
        assert lib.thread_clock_us(thread) >= until_us
        lib.thread_close(thread)
    finally:
        os.sched_setaffinity(0, before)


def test_who_attaches_asks_for_short_slices(plain_janusd: FakeJanusd) -> None:
    if tuple(int(word) for word in platform.release().split(".")[:2]) < (6, 12):
        pytest.skip(f"Linux {platform.release()} knows no slices of a thread's own")
    slices = []

    def run() -> None:
        thread = attach(plain_janusd.path)
        slices.append(lib.own_slice_ns())
        lib.thread_close(thread)

    asked = threading.Thread(target=run)
    asked.start()
    asked.join()
    assert slices == [lib.SLICE_NS]
