"""Services, routes, rows and resets: the tables of the data plane against obviously right ones."""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from _shm import ffi, lib
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from tests.unit.test_shm_txcheck import LEASE, OURS, OURS6, PEER, mapped


def addr(address: str):
    return ffi.new("struct ip_addr *", {"b": mapped(address)})


def text(why) -> str:
    return ffi.string(why.text).decode()


class Services:
    def __init__(
        self, addresses: list[str], services: list[tuple[str, int, int, int]], lenient: bool = False
    ) -> None:
        self.why = ffi.new("struct glue_text *")
        a = ffi.new("struct glue_address[]", [{"address": mapped(x)} for x in addresses])
        s = ffi.new(
            "struct glue_service[]",
            [{"address": mapped(x), "first": f, "last": last, "app": app} for x, f, last, app in services],
        )
        made = lib.services_make(a, len(addresses), s, len(services), lenient, self.why)
        self.native = ffi.gc(made, lib.test_free) if made != ffi.NULL else None

    def owner(self, address: str, port: int) -> int:
        return lib.test_services_owner(self.native, addr(address), port)


def test_services_by_address_and_port() -> None:
    s = Services(
        [OURS, OURS6, "10.77.0.5"],
        [(OURS, 80, 80, 1), (OURS6, 1000, 2000, 2), (OURS, 60000, 65535, 3), (OURS, 80, 81, 4)],
    )
    assert s.owner(OURS, 80) == 4, "the later one wins"
    assert s.owner(OURS, 81) == 4
    assert s.owner(OURS, 65535) == 3
    assert s.owner(OURS, 82) == 0
    assert s.owner(OURS6, 1000) == s.owner(OURS6, 2000) == 2
    assert s.owner(OURS6, 80) == s.owner("10.77.0.5", 80) == 0
    assert s.owner("10.77.0.6", 80) == -1


@given(numbers=st.sets(st.integers(0, 2**32 - 1), min_size=1, max_size=64))
def test_every_address_is_found_and_no_other(numbers: set[int]) -> None:
    ours = [str(ip_address(n)) for n in numbers]
    s = Services(ours, [(a, 1, 1, 1 + i % 63) for i, a in enumerate(ours)])
    assert [s.owner(a, 1) for a in ours] == [1 + i % 63 for i in range(len(ours))]
    assert all(s.owner(str(ip_address(n ^ 1)), 1) == -1 for n in numbers if n ^ 1 not in numbers)


@pytest.mark.parametrize(
    ("addresses", "services", "says"),
    [
        ([OURS, OURS], [], "twice"),
        ([OURS], [("10.0.0.9", 1, 1, 1)], "not ours"),
        ([OURS], [(OURS, 2, 1, 1)], "ports 2 to 1"),
        ([OURS], [(OURS, 1, 1, 64)], "app 64"),
        ([OURS], [(OURS, 1, 1, 0)], "app 0"),
        ([str(ip_address(i)) for i in range(65)], [], "at most 64"),
    ],
    ids=lambda v: str(v)[:30],
)
def test_impossible_services_are_refused_in_words(addresses, services, says) -> None:
    s = Services(addresses, services)
    assert s.native is None
    assert says in text(s.why)
    assert s.why.code > 0


def test_lenient_leaves_out_what_is_not_ours() -> None:
    assert Services([OURS], [("10.0.0.9", 1, 1, 1), (OURS, 5, 5, 2)], lenient=True).owner(OURS, 5) == 2


MAC = b"\x02\x00\x00\x00\x00\x07"


class Routes:
    """The snapshots, one after another."""

    def __init__(self) -> None:
        self.why = ffi.new("struct glue_text *")
        self._take(lib.routes_make_empty(1, 2))

    def _take(self, made) -> None:
        assert made != ffi.NULL, text(self.why)
        self.native = ffi.gc(made, lib.test_free)
        self.last = ffi.new("struct route_hop *")

    def routes(self, listed: list[tuple[str, str | None, int]]) -> None:
        items = ffi.new("struct glue_route[]", max(len(listed), 1))
        for item, (prefix, hop, port) in zip(items, listed, strict=False):
            net = ip_network(prefix)
            item.prefix = mapped(str(net.network_address))
            item.prefix_len = net.prefixlen + (96 if net.version == 4 else 0)
            item.next_hop = mapped(hop) if hop else bytes(16)
            item.port = port
        self._take(lib.routes_with_routes(self.native, items, len(listed), self.why))

    def learn(self, port: int, address: str, mac: bytes = MAC) -> None:
        ether = ffi.new("struct ether_addr *", {"b": mac})
        self._take(lib.routes_with_neighbour(self.native, port, addr(address), ether, self.why))

    def forget(self, port: int, address: str) -> None:
        self._take(lib.routes_without_neighbour(self.native, port, addr(address), self.why))

    def lookup(self, dst: str) -> tuple[str, int, bytes, bytes]:
        out = ffi.new("struct route_hop *")
        verdict = ("ok", "no neighbour", "none")[lib.routes_lookup(self.native, addr(dst), out)]
        again = ("ok", "no neighbour", "none")[lib.routes_lookup(self.native, addr(dst), self.last)]
        assert again == verdict
        if verdict == "ok":  # what the lookup before has left does not change the answer
            assert bytes(ffi.buffer(self.last)) == bytes(ffi.buffer(out))
        return verdict, out.port, bytes(out.next_hop.b), bytes(out.mac.b)


def test_the_longest_prefix_wins_whatever_the_order() -> None:
    r = Routes()
    r.routes(
        [
            ("0.0.0.0/0", "10.1.0.254", 1),
            ("10.0.0.0/8", None, 0),
            ("10.2.0.0/15", "10.0.0.1", 2),
            ("::/0", "fd00::1", 3),
        ]
    )
    assert r.lookup("8.8.8.8")[1:3] == (1, mapped("10.1.0.254"))
    assert r.lookup("10.9.9.9")[1:3] == (0, mapped("10.9.9.9"))
    assert r.lookup("10.3.1.1")[1:3] == (2, mapped("10.0.0.1"))
    assert r.lookup("10.4.1.1")[1] == 0
    assert r.lookup("2001:db8::1")[1:3] == (3, mapped("fd00::1"))


def test_ipv6s_default_route_takes_no_ipv4() -> None:
    r = Routes()
    r.routes([("::/0", "fd00::1", 3)])
    assert r.lookup("8.8.8.8")[0] == "none"


@given(
    steps=st.lists(
        st.tuples(st.booleans(), st.integers(0, 1), st.integers(0, 40), st.integers(0, 255)), max_size=80
    ),
)
def test_neighbours_are_a_dictionary(steps: list[tuple[bool, int, int, int]]) -> None:
    r, twin = Routes(), dict[tuple[int, str], bytes]()
    for add, port, host, last in steps:
        address = f"10.0.0.{host}"
        if add:
            twin[port, address] = MAC[:5] + bytes([last])
            r.learn(port, address, twin[port, address])
        else:
            twin.pop((port, address), None)
            r.forget(port, address)
    for port in (0, 1):
        r.routes([("10.0.0.0/8", None, port)])
        for host in range(41):
            verdict, _, _, mac = r.lookup(f"10.0.0.{host}")
            known = twin.get((port, f"10.0.0.{host}"))
            assert verdict == ("no neighbour" if known is None else "ok")
            assert known in (None, mac)


LAYOUT = {
    "stride": 64,
    "state": 0,
    "rport": 2,
    "lport": 4,
    "laddr_index": 6,
    "snd_nxt": 8,
    "rcv_nxt": 12,
    "raddr": 16,
}
OUTSIDE, GOOD = 1, 2


def read_row(**fields: int | bytes):
    good = {
        "state": 5,
        "rport": 999,
        "lport": 80,
        "laddr_index": 0,
        "snd_nxt": 1,
        "rcv_nxt": 2,
        "raddr": mapped(PEER),
    }
    size = {"state": 1, "snd_nxt": 4, "rcv_nxt": 4}
    memory = ffi.new("uint8_t[128]")
    for name, value in {**good, **fields}.items():
        raw = value if isinstance(value, bytes) else value.to_bytes(size.get(name, 2), "little")
        ffi.memmove(memory + 64 + LAYOUT[name], raw, len(raw))
    with rows_file(bytes(memory)) as fd:
        return read_at(fd, 1, 2)


@contextlib.contextmanager
def rows_file(content: bytes) -> Iterator[int]:
    """A file as janusd makes it for rows, and its descriptor."""
    fd = os.memfd_create("rows", os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, content)
        yield fd
    finally:
        os.close(fd)


def read_at(fd: int, row: int, count: int, window: Any = None):
    """(verdict, row) of one row of a file of so many."""
    rows = ffi.new("struct rows *", {"fd": fd, "count": count, "layout": LAYOUT, "lease": LEASE})
    out = ffi.new("struct glue_row *")
    return lib.rows_read(rows, window or ffi.new("struct rows_window *"), row, out), out


def good_row(port: int) -> bytes:
    row = bytearray(64)
    row[LAYOUT["state"]] = 5
    for name, value in (("rport", port), ("lport", 80)):
        row[LAYOUT[name] : LAYOUT[name] + 2] = value.to_bytes(2, "little")
    row[LAYOUT["raddr"] : LAYOUT["raddr"] + 16] = mapped(PEER)
    return bytes(row)


PER_WINDOW = lib.ROWS_WINDOW_BYTES // 64


def test_rows_are_read_window_by_window() -> None:
    count = 2 * PER_WINDOW + 7
    window = ffi.new("struct rows_window *")
    with rows_file(b"".join(good_row(1 + i % 65535) for i in range(count))) as fd:
        for i in (*range(count), 0, count - 1, PER_WINDOW):
            verdict, row = read_at(fd, i, count, window)
            assert (verdict, row.row, row.rport) == (GOOD, i, 1 + i % 65535)
            assert window.first <= i < window.first + window.count <= count


def test_a_window_shows_what_was_there_when_it_was_filled() -> None:
    window = ffi.new("struct rows_window *")
    with rows_file(good_row(1) * 2) as fd:
        assert read_at(fd, 0, 2, window)[0] == GOOD
        os.pwrite(fd, bytes(128), 0)
        assert read_at(fd, 1, 2, window)[0] == GOOD
        assert read_at(fd, 1, 2)[0] == 0


def test_a_hole_is_free_rows() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with rows_file(good_row(9) * (3 * PER_WINDOW)) as fd:
        punch, keep = 2, 1
        at, size = ctypes.c_long(lib.ROWS_WINDOW_BYTES), ctypes.c_long(lib.ROWS_WINDOW_BYTES)
        assert libc.fallocate(fd, punch | keep, at, size) == 0
        verdicts = [read_at(fd, i * PER_WINDOW, 3 * PER_WINDOW)[0] for i in range(3)]
        assert verdicts == [GOOD, 0, GOOD]


@pytest.mark.parametrize("size", [0, 64, 100, 64 * PER_WINDOW])
def test_what_a_file_lacks_is_free_rows(size: int) -> None:
    """It cannot become shorter; if it were, nothing of janusd's would break."""
    count = 2 * PER_WINDOW
    with rows_file((good_row(9) * count)[:size]) as fd:
        assert [read_at(fd, i, count)[0] for i in (0, count - 1)] == [GOOD if size else 0, 0]
    assert read_at(-1, 0, count)[0] == 0


def test_a_row_is_read_as_it_is() -> None:
    verdict, row = read_row(laddr_index=1, raddr=mapped("fd77::2"), lport=40001, snd_nxt=2**32 - 1)
    assert verdict == GOOD
    assert (bytes(row.laddr), bytes(row.raddr)) == (mapped(OURS6), mapped("fd77::2"))
    assert (row.lport, row.rport, row.snd_nxt, row.rcv_nxt, row.state, row.row) == (
        40001,
        999,
        2**32 - 1,
        2,
        5,
        1,
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"state": 0}, 0),
        ({"laddr_index": 2}, OUTSIDE),
        ({"laddr_index": 65535}, OUTSIDE),
        ({"laddr_index": 65520}, GOOD),  # four bits are the index
        ({"lport": 81}, OUTSIDE),
        ({"rport": 0}, OUTSIDE),
        ({"raddr": mapped("255.255.255.255")}, OUTSIDE),
        ({"raddr": mapped("ff02::1")}, OUTSIDE),
        ({"raddr": bytes(16)}, OUTSIDE),
        ({"raddr": mapped("fd77::2")}, OUTSIDE),  # of another family than our address
        ({"state": 255}, GOOD),
    ],
    ids=str,
)
def test_a_row_outside_the_lease_is_no_row(fields, expected: int) -> None:
    assert read_row(**fields)[0] == expected


@pytest.mark.parametrize(
    "bad",
    [
        {"stride": 56},
        {"stride": 1032},
        {"stride": 68},
        {"raddr": 49},
        {"snd_nxt": 61},
        {"state": 64},
        {"laddr_index": 63},
    ],
)
def test_row_layouts_that_reach_out_of_the_row_are_refused(bad: dict[str, int]) -> None:
    assert lib.rows_layout_is_sound(ffi.new("struct glue_row_layout *", LAYOUT))
    assert not lib.rows_layout_is_sound(ffi.new("struct glue_row_layout *", {**LAYOUT, **bad}))


@pytest.mark.parametrize(
    ("flags", "payload", "expected"),
    [
        ("S", b"", ("RA", 0, 1001)),
        ("SF", b"abc", ("RA", 0, 1005)),
        ("F", b"ab", ("RA", 0, 1003)),
        ("A", b"", ("R", 777, 0)),
        ("SA", b"", ("R", 777, 0)),
        ("R", b"", None),
        ("RA", b"", None),
    ],
)
@pytest.mark.parametrize("six", [False, True])
def test_reset_answers_as_rfc_9293_says(flags: str, payload: bytes, expected, six: bool) -> None:
    tcp = bytes(TCP(sport=999, dport=80, flags=flags, seq=1000, ack=777) / payload)
    us, them = (OURS6, "fd77::2") if six else (OURS, PEER)
    reset = ffi.new("struct reset *", {"dst": {"b": MAC}, "src": {"b": MAC[::-1]}})
    reset.flow.laddr.b, reset.flow.raddr.b = mapped(us), mapped(them)
    reset.flow.lport, reset.flow.rport = 80, 999
    assert lib.test_reset_answer(reset, tcp, len(tcp)) == (expected is not None)
    if expected is None:
        return
    out = ffi.new("uint8_t[128]")
    raw = bytes(ffi.buffer(out, lib.reset_build(out, reset)))
    frame = Ether(raw)
    assert (frame[TCP].flags, frame[TCP].seq, frame[TCP].ack) == expected
    assert (frame[TCP].sport, frame[TCP].dport) == (80, 999)
    again = frame.copy()
    del again[TCP].chksum
    if not six:
        del again[IP].chksum
    assert bytes(again) == raw, "checksums as scapy computes them"
    assert (IPv6 if six else IP) in frame
