"""A received packet that is lent, when janusd goes and comes back meanwhile."""

from _app import ffi, lib
from test_app_attach import FakeJanusd, Transfer, janusd, pattern, stats

__all__ = ["janusd"]  # the fixture


def test_a_lent_packet_outlives_janusd(janusd: FakeJanusd) -> None:
    transfer = Transfer(janusd, pattern(200_000))
    transfer.run(lambda: len(transfer.received) >= 50_000)
    view = ffi.new("struct tcp_view *")
    slot = None
    while slot in (None, 2**32 - 1):
        lib.app_echo(transfer.server)
        lib.thread_flush(transfer.client)
        lib.fake_pump(janusd.sessions[1], janusd.sessions[0])
        lib.fake_pump(janusd.sessions[0], janusd.sessions[1])
        lib.thread_poll(transfer.client)
        slot = lib.thread_recv_lend(transfer.client, transfer.conn, view)
    lent = bytes(ffi.buffer(view.data, view.len))
    transfer.received += lent
    janusd.stop()
    transfer.fakes = None
    transfer.run(
        lambda: not any(lib.thread_attached(t, ffi.NULL) for t in (transfer.server, transfer.client))
    )
    janusd.start()
    transfer.run(lambda: all(lib.thread_attached(t, ffi.NULL) for t in (transfer.server, transfer.client)))
    by_tid = {h.token[0]: s for h, s in zip(janusd.hellos[2:], janusd.sessions[2:], strict=True)}
    transfer.fakes = by_tid[0], by_tid[1]
    transfer.run(transfer.is_complete)
    assert transfer.received == transfer.data
    assert bytes(ffi.buffer(view.data, view.len)) == lent
    assert stats(transfer.client).usage.rx_slots_held == 1
    lib.thread_recv_give(transfer.client, slot)
    lib.thread_close_conn(transfer.client, transfer.conn)
    transfer.run(transfer.is_empty)
    for _ in range(3):
        transfer.turn()
    assert stats(transfer.client).rx_slots_free == janusd.io_count * janusd.rx_slots
    for session in by_tid.values():
        assert lib.fake_rx_free(session) == janusd.io_count * janusd.rx_slots
        assert lib.fake_bad(session) == 0
    transfer.close()
