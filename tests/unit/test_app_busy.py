"""What a TCP thread tells janusd of its load."""

from _app import lib

from tests.unit.test_app_attach import FakeJanusd, attach, plain_janusd, stats

__all__ = ["plain_janusd"]


def test_the_time_of_turns_with_work_is_told_while_they_last(plain_janusd: FakeJanusd) -> None:
    thread = attach(plain_janusd.path)
    session = plain_janusd.sessions[0]

    def a_while() -> None:
        until = lib.thread_clock_us(thread) + 1000
        while lib.thread_clock_us(thread) < until:
            continue

    lib.thread_poll(thread)
    a_while()
    lib.thread_poll(thread)
    assert (lib.fake_busy_us(session), lib.fake_busy_since_us(session)) == (0, 0)
    lib.fake_push(session, 0, 0, 128, 40, 1)
    lib.thread_poll(thread)
    began = lib.thread_now_us(thread)
    assert lib.fake_busy_since_us(session) == began
    a_while()  # a handler that takes its time
    lib.thread_poll(thread)
    assert lib.fake_busy_since_us(session) == 0
    took = lib.fake_busy_us(session)
    assert took == lib.thread_now_us(thread) - began >= 1000
    a_while()
    lib.thread_poll(thread)
    assert lib.fake_busy_us(session) == took == stats(thread).busy_us
    lib.thread_close(thread)
