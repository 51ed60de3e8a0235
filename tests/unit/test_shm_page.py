"""The stats page describes itself: its bytes alone give kinds, names, blocks and counters."""

import struct

from _shm import ffi, lib

NAME = 32
HEADER = struct.Struct("<10I2Q4I")
BLOCK = struct.Struct("<8I32s")


def new_page():
    return ffi.gc(lib.test_page_new(), lib.test_page_free)


class Reader:
    """Reads the page as docs of page.h say, without its header file."""

    def __init__(self, page) -> None:
        self.raw = bytes(ffi.buffer(page, lib.test_page_bytes()))
        fields = HEADER.unpack_from(self.raw)
        self.magic, self.version, self.seq, _, self.blocks, self.block_bytes = fields[:6]
        self.kinds_offset, self.kind_bytes, self.blocks_offset, self.pid, self.started, self.bytes = fields[
            6:12
        ]

    def text(self, offset: int) -> str:
        return self.raw[offset : offset + NAME].split(b"\0")[0].decode()

    def counters_of(self, kind: int) -> list[str]:
        at = self.kinds_offset + kind * self.kind_bytes
        (count,) = struct.unpack_from("<I", self.raw, at + NAME)
        return [self.text(at + 2 * NAME + i * NAME) for i in range(count)]

    def rows(self) -> list[tuple[str, int, int, int, str, dict[str, int]]]:
        out = []
        for i in range(self.blocks):
            at = self.blocks_offset + i * self.block_bytes
            used, kind, id_, sub, io, _, _, _, name = BLOCK.unpack_from(self.raw, at)
            names = self.counters_of(kind)
            values = struct.unpack_from(f"<{len(names)}Q", self.raw, at + BLOCK.size)
            if used:
                kind_name = self.text(self.kinds_offset + kind * self.kind_bytes)
                out.append(
                    (
                        kind_name,
                        id_,
                        sub,
                        io,
                        name.rstrip(b"\0").decode(),
                        dict(zip(names, values, strict=True)),
                    )
                )
        return out


def test_header() -> None:
    r = Reader(new_page())
    assert (r.magic, r.version, r.seq, r.pid, r.started) == (0x4A535431, 1, 0, 1, 2)
    assert r.bytes == len(r.raw)
    assert r.blocks_offset % 64 == r.block_bytes % 64 == 0


def test_blocks_come_and_go() -> None:
    page = new_page()
    assert lib.stats_name_counters(page)
    a = lib.page_block_add(page, 2, 5, 0, 1, 0, b"web")
    b = lib.page_block_add(page, 3, 5, 9, 0, 77, b"web")
    lib.test_page_add(a, 0, 3)
    lib.test_page_add(a, 0, 4)
    lib.test_page_add(b, 1, 2**63)
    app, thread = Reader(page).rows()
    assert app[:5] == ("app", 5, 0, 1, "web")
    assert app[5]["rx_packets"] == 7
    assert thread[:5] == ("thread", 5, 9, 0, "web")
    assert thread[5]["rx_bytes"] == 2**63
    seq = Reader(page).seq
    lib.page_block_remove(page, a)
    assert Reader(page).seq == seq + 2
    assert [row[0] for row in Reader(page).rows()] == ["thread"]
    c = lib.page_block_add(page, 1, 0, 0, 255, 0, b"wan")
    assert c == a, "the free block is taken again"
    (port, _) = Reader(page).rows()
    assert port[:5] == ("port", 0, 0, 255, "wan")
    assert set(port[5].values()) == {0}


def test_the_page_fills_up_and_says_so() -> None:
    page = new_page()
    while lib.page_block_add(page, 2, 1, 0, 0, 0, b"app") != ffi.NULL:
        pass
    assert Reader(page).blocks == 4096


def test_names_fit_and_every_drop_reason_has_one() -> None:
    page = new_page()
    assert lib.stats_name_counters(page)
    reader = Reader(page)
    reasons = {"drop." + ffi.string(lib.shm_drop_name(i)).decode() for i in range(lib.test_drop_count())}
    for kind in (1, 2, 3):
        names = reader.counters_of(kind)
        assert reasons <= set(names)
        assert len(set(names)) >= len(names) - 1, "only drop.none stands twice"
        assert all(len(name) < NAME - 1 for name in names), "none was cut off"
    assert "drop.tcp_checksum" in reader.counters_of(1)


def test_names_beyond_the_room_are_refused() -> None:
    page, at = new_page(), ffi.new("uint32_t *")
    fitting = 0
    while lib.page_name_counter(page, 0, b"", b"n%d" % fitting, at):
        assert at[0] == fitting
        fitting += 1
    assert fitting == 88


def test_drop_reasons_have_distinct_names_and_sentences() -> None:
    count = lib.test_drop_count()
    names = [ffi.string(lib.shm_drop_name(i)) for i in range(count)]
    sentences = [ffi.string(lib.shm_drop_sentence(i)) for i in range(count)]
    assert len(set(names)) == len(set(sentences)) == count
    assert lib.shm_drop_name(count) == lib.shm_drop_name(-1) == ffi.NULL
