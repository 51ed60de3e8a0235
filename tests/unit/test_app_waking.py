"""What wakes a TCP thread, and what it looks at then."""

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
