"""What a TCP thread tells janusd of its load."""

from _app import lib

from tests.unit.test_app_attach import FakeJanusd, attach, plain_janusd, stats

__all__ = ["plain_janusd"]


def test_the_time_of_turns_with_work_is_told_while_they_last(plain_janusd: FakeJanusd) -> None:
    thread = attach(plain_janusd.path)
    session = plain_janusd.sessions[0]

    def a_while() -> None:
        until = lib.janus_clock_us(thread) + 1000
        while lib.janus_clock_us(thread) < until:
            continue

    lib.janus_poll(thread)
    a_while()
    lib.janus_poll(thread)
    assert (lib.fake_busy_us(session), lib.fake_busy_since_us(session)) == (0, 0)
    lib.fake_push(session, 0, 0, 128, 40, 1)
    lib.janus_poll(thread)
    began = lib.janus_now_us(thread)
    assert lib.fake_busy_since_us(session) == began
    a_while()  # a handler that takes its time
    lib.janus_poll(thread)
    assert lib.fake_busy_since_us(session) == 0
    took = lib.fake_busy_us(session)
    assert took == lib.janus_now_us(thread) - began >= 1000
    a_while()
    lib.janus_poll(thread)
    assert lib.fake_busy_us(session) == took == stats(thread).busy_us
    lib.janus_close(thread)
