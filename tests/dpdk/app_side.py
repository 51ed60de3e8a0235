"""The app's side of a session, over the same shared memory and the same ring code as the SDK."""

import os
from dataclasses import dataclass
from typing import Any

from _shm import ffi, lib

from dpdk_glue.values import SessionConfig, SessionInfo

PACKET, RETURN = 1, 2
HEADROOM = 128
SLOT_BYTES = 2048


@dataclass
class Received:
    slot: int
    generation: int
    hash: int
    flags: int
    packet: bytes


class AppSide:
    """Maps the regions as an app does: J2A read-only, A2J writable before the seal."""

    def __init__(self, info: SessionInfo, config: SessionConfig, io_count: int) -> None:
        self.info = info
        self.sizes = ffi.new(
            "struct shm_sizes *",
            {
                "io_count": io_count,
                "rx_slots_per_io": config.rx_slots_per_io,
                "tx_slots": config.tx_slots,
                "rows": config.rows,
                "row_stride": config.row.stride,
            },
        )
        self.offsets = ffi.new("struct shm_offsets *")
        assert lib.shm_layout(self.sizes, self.offsets)
        self.j2a = lib.test_map(info.j2a_fd, self.offsets.j2a_bytes, False)
        self.a2j = lib.test_map(info.a2j_fd, self.offsets.a2j_bytes, True)
        self.rows = lib.test_map(info.rows_fd, self.offsets.rows_bytes, True)
        assert self.j2a != ffi.NULL
        assert self.rows != ffi.NULL
        assert self.a2j != ffi.NULL
        self.at = [lib.test_index_offsets(io) for io in range(io_count)]
        self.tx_io = config.tid % io_count
        self.rx = [self._rx(io) for io in range(io_count)]
        self.rx_return = [self._rx_return(io) for io in range(io_count)]
        self.tx = self._tx()
        self.tx_done = self._tx_done()
        self.tx_free = list(range(config.tx_slots))

    def index(self, region: Any, offset: int) -> Any:
        return ffi.cast("uint32_t *", region + offset)

    def _descs(self, region: Any, offset: int) -> Any:
        return ffi.cast("struct shm_desc *", region + offset)

    def _rx(self, io: int) -> Any:
        at, mask = self.at[io], 2 * self.sizes.rx_slots_per_io - 1
        r = ffi.new("struct ring_consumer *", {"mask": mask})
        r.descs = self._descs(self.j2a, self.offsets.rx[io])
        r.head, r.tail = self.index(self.j2a, at.rx_head), self.index(self.a2j, at.rx_tail)
        return r

    def _rx_return(self, io: int) -> Any:
        at, mask = self.at[io], self.sizes.rx_slots_per_io - 1
        r = ffi.new("struct ring_producer *", {"mask": mask})
        r.descs = self._descs(self.a2j, self.offsets.rx_return[io])
        r.head, r.tail = self.index(self.a2j, at.rx_return_head), self.index(self.j2a, at.rx_return_tail)
        return r

    def _tx(self) -> Any:
        at = self.at[self.tx_io]
        r = ffi.new("struct ring_producer *", {"mask": self.sizes.tx_slots - 1})
        r.descs = self._descs(self.a2j, self.offsets.tx[self.tx_io])
        r.head, r.tail = self.index(self.a2j, at.tx_head), self.index(self.j2a, at.tx_tail)
        return r

    def _tx_done(self) -> Any:
        at = self.at[self.tx_io]
        r = ffi.new("struct ring_consumer *", {"mask": self.sizes.tx_slots - 1})
        r.descs = self._descs(self.j2a, self.offsets.tx_done[self.tx_io])
        r.head, r.tail = self.index(self.j2a, at.tx_done_head), self.index(self.a2j, at.tx_done_tail)
        return r

    def recv(self) -> list[Received]:
        """Take what has been received on all I/O threads' rings."""
        out = []
        for ring in self.rx:
            waiting = lib.test_consumer_refresh(ring)
            assert waiting >= 0
            for _ in range(waiting):
                d = lib.test_pop(ring)
                start = self.j2a + self.offsets.rx_slots + d.slot * SLOT_BYTES + d.offset
                out.append(Received(d.slot, d.generation, d.hash, d.flags, bytes(ffi.buffer(start, d.len))))
            if waiting:
                lib.test_release(ring)
        return out

    def give_back(self, slot: int, generation: int, kind: int = RETURN, io: int | None = None) -> None:
        ring = self.rx_return[slot // self.sizes.rx_slots_per_io if io is None else io]
        lib.test_push(ring, {"slot": slot, "generation": generation, "kind": kind})
        lib.test_publish(ring)

    def send_desc(self, **fields: int) -> None:
        assert lib.test_producer_refresh(self.tx) > 0
        lib.test_push(self.tx, fields)
        lib.test_publish(self.tx)
        if self.index(self.j2a, self.at[self.tx_io].io_sleeping)[0]:
            os.write(self.info.io_doorbell_fds[self.tx_io], (1).to_bytes(8, "little"))

    def place(self, packet: bytes, **fields: int) -> int:
        """As send(), but nobody is told of it yet."""
        slot = self.tx_free.pop()
        ffi.memmove(self.a2j + self.offsets.tx_slots + slot * SLOT_BYTES + HEADROOM, packet, len(packet))
        assert lib.test_producer_refresh(self.tx) > 0
        lib.test_push(
            self.tx, {"slot": slot, "offset": HEADROOM, "len": len(packet), "kind": PACKET, **fields}
        )
        return slot

    def send(self, packet: bytes, **fields: int) -> int:
        """Put an IP packet into a free slot and push it; return the slot."""
        slot = self.tx_free.pop()
        ffi.memmove(self.a2j + self.offsets.tx_slots + slot * SLOT_BYTES + HEADROOM, packet, len(packet))
        self.send_desc(**{"slot": slot, "offset": HEADROOM, "len": len(packet), "kind": PACKET, **fields})
        return slot

    def completions(self) -> list[tuple[int, int]]:
        """Return (slot, flags) of what janusd has done with."""
        waiting = lib.test_consumer_refresh(self.tx_done)
        assert waiting >= 0
        done = [lib.test_pop(self.tx_done) for _ in range(waiting)]
        lib.test_release(self.tx_done)
        self.tx_free += [d.slot for d in done]
        return [(d.slot, d.flags) for d in done]

    def set_row(self, i: int, **fields: int | bytes) -> None:
        """Write a connection row in the layout of rig.ROW."""
        from tests.dpdk.rig import ROW

        base = self.rows + i * ROW.stride
        sizes = {"state": 1, "rport": 2, "lport": 2, "laddr_index": 2, "snd_nxt": 4, "rcv_nxt": 4}
        for name, value in fields.items():
            raw = value if isinstance(value, bytes) else value.to_bytes(sizes[name], "little")
            ffi.memmove(base + getattr(ROW, name), raw, len(raw))
        used = self.index(self.a2j, self.at[0].rows_used)
        used[0] = max(used[0], i + 1)

    def close(self) -> None:
        lib.test_unmap(self.j2a, self.offsets.j2a_bytes)
        lib.test_unmap(self.a2j, self.offsets.a2j_bytes)
        lib.test_unmap(self.rows, self.offsets.rows_bytes)
