"""Sessions: the regions, rings and doorbells of one TCP thread.

create, send the descriptors, seal after MAPPED, start; later stop, perhaps reset_peers, free.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dpdk_glue.native import address_of, check, ffi, lib, pack_address, why
from dpdk_glue.values import Lease, ResetProgress, Row, SessionConfig, SessionInfo, Slots

_ROWS_PER_CALL = 512


class Session:
    """One TCP thread as the data plane knows it. Not to be used after free()."""

    def __init__(self, native: Any, config: SessionConfig) -> None:
        self._native = native
        self.config = config

    def _session(self) -> Any:
        if self._native is None:
            raise RuntimeError("the session has been freed")
        return self._native

    def info(self) -> SessionInfo:
        """Return its descriptors, sizes and health."""
        out = ffi.new("struct glue_session_info *")
        lib.glue_session_info(self._session(), out)
        return SessionInfo(
            j2a_bytes=out.j2a_bytes,
            a2j_bytes=out.a2j_bytes,
            rows_bytes=out.rows_bytes,
            j2a_fd=out.j2a_fd,
            a2j_fd=out.a2j_fd,
            rows_fd=out.rows_fd,
            csb_fd=out.csb_fd,
            app_doorbell_fd=out.app_doorbell_fd,
            io_doorbell_fds=tuple(out.io_doorbell_fd[0 : out.io_count]),
            huge=bool(out.huge),
            violations=out.violations,
            closed=bool(out.closed),
            app_sleeping=bool(out.app_sleeping),
            heartbeat=out.heartbeat,
            rows_used=out.rows_used,
            busy_us=out.busy_us,
            busy_since_us=out.busy_since_us,
            csb_closed=out.csb_closed,
            csb_held_us=out.csb_held_us,
            csb_held_wall_us=out.csb_held_wall_us,
            rx_queued=out.rx_queued,
        )

    def seal(self) -> None:
        """After MAPPED: add the late seals and populate.

        Takes milliseconds for large regions: call it from a thread.
        """
        reason = why()
        check(lib.glue_session_seal(self._session(), reason), reason)

    def start(self) -> None:
        """Let the I/O threads serve it. Packets come once the circle names its tid."""
        reason = why()
        check(lib.glue_session_start(self._session(), reason), reason)

    def stop(self) -> Slots:
        """Take it from the I/O threads; every slot is back when it returns. Idempotent."""
        out = ffi.new("struct glue_slots *")
        check(lib.glue_session_stop(self._session(), out))
        return Slots(out.total, out.free, out.held)

    def free(self) -> None:
        """Stop it, give up resets not yet sent, unmap and close everything. Idempotent."""
        if self._native is not None:
            native, self._native = self._native, None
            lib.glue_session_free(native)

    def slots(self) -> Slots:
        """Return where its RX slots are."""
        out = ffi.new("struct glue_slots *")
        check(lib.glue_session_slots(self._session(), out))
        return Slots(out.total, out.free, out.held)

    def counters(self) -> list[int]:
        """Return the thread's own counters as the app wrote them: untrusted."""
        out = ffi.new("uint64_t[64]")
        count = lib.glue_session_counters(self._session(), out, 64)
        return list(out[0:count])

    def rows(self, start: int = 0) -> Iterator[Row]:
        """Go over its connections from a row on, as the app wrote them: untrusted, but inside the lease."""
        position = ffi.new("uint32_t *", start)
        batch = ffi.new("struct glue_row[]", _ROWS_PER_CALL)
        while count := check(lib.glue_session_rows(self._session(), position, batch, _ROWS_PER_CALL)):
            for row in batch[0:count]:
                yield Row(
                    row=row.row,
                    state=row.state,
                    local=address_of(row.laddr),
                    local_port=row.lport,
                    remote=address_of(row.raddr),
                    remote_port=row.rport,
                    snd_nxt=row.snd_nxt,
                    rcv_nxt=row.rcv_nxt,
                )

    def reset_peers(self, rate_per_s: int = 200_000) -> None:
        """After stop(): begin to send RST to each synchronized row's peer. RESETS_DONE tells the end."""
        reason = why()
        check(lib.glue_session_reset_peers(self._session(), rate_per_s, reason), reason)

    def reset_progress(self) -> ResetProgress:
        """Return how far the resets are."""
        out = ffi.new("struct glue_reset_progress *")
        lib.glue_session_reset_progress(self._session(), out)
        return ResetProgress(out.sent, out.skipped, bool(out.done))


class Sessions:
    """Makes sessions."""

    def __init__(self, glue: Any) -> None:
        self._glue = glue

    def create(self, config: SessionConfig) -> Session:
        """Make regions, rings and doorbells. GlueError with ENOMEM, EINVAL or EEXIST says what is wrong."""
        c = ffi.new("struct glue_session_config *")
        c.app, c.tid, c.generation = config.app, config.tid, config.generation
        c.rx_slots_per_io, c.tx_slots, c.rows = config.rx_slots_per_io, config.tx_slots, config.rows
        for name in ("stride", "state", "raddr", "rport", "lport", "laddr_index", "snd_nxt", "rcv_nxt"):
            setattr(c.row, name, getattr(config.row, name))
        _fill_lease(c.lease, config.lease)
        reason = why()
        native = lib.glue_session_create(self._glue, c, reason)
        if native == ffi.NULL:
            check(-reason.code, reason)
        return Session(native, config)


def _fill_lease(out: Any, lease: Lease) -> None:
    if len(lease.addresses) > lib.GLUE_LEASE_ADDRESSES_MAX:
        raise ValueError(f"a lease has at most {lib.GLUE_LEASE_ADDRESSES_MAX} addresses")
    if len(lease.ranges) > lib.GLUE_LEASE_RANGES_MAX:
        raise ValueError(f"a lease has at most {lib.GLUE_LEASE_RANGES_MAX} port ranges")
    out.address_count = len(lease.addresses)
    for i, address in enumerate(lease.addresses):
        out.addresses[i] = pack_address(address)
    out.range_count = len(lease.ranges)
    for i, (first, last) in enumerate(lease.ranges):
        out.ranges[i].first, out.ranges[i].last = first, last
