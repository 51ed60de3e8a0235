"""Tuples chosen by somebody who does not know the key load no thread beyond 1.3 times its part.

Beside it what they would do to a balancer that takes the network card's hash, or a key that is known.
"""

import ipaddress
import random
import struct
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from _csbup import ffi, lib

from janusd.weights import NOBODY, SLOT_COUNT, divide, points
from tests.unit.csb_twin import build_map, build_view

TIDS, COUNT = 16, 16_384
SERVER, SERVICE = ipaddress.IPv4Address("10.77.0.1"), 443
# Microsoft's example key, which many cards have by default.
RSS_KEY = bytes.fromhex("6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa")
Client = tuple[int, int]  # IPv4 address and port


def toeplitz(data: bytes) -> int:
    bits, key = int.from_bytes(data, "big"), int.from_bytes(RSS_KEY, "big")
    size, width = 8 * len(data), 8 * len(RSS_KEY)
    found = 0
    for bit in range(size):
        if bits >> (size - 1 - bit) & 1:
            found ^= key >> (width - 32 - bit) & 0xFFFFFFFF
    return found


def rss(client: Client) -> int:
    return toeplitz(struct.pack(">IIHH", client[0], int(SERVER), client[1], SERVICE))


def hashes(clients: Sequence[Client], secret: tuple[int, int]) -> list[int]:
    prefix = bytes(10) + b"\xff\xff"
    local = prefix + SERVER.packed
    flows = b"".join(
        struct.pack("=16s12sIHH", local, prefix, int.from_bytes(a.to_bytes(4, "big"), "little"), SERVICE, p)
        for a, p in clients
    )
    found = ffi.new("uint64_t[]", len(clients))
    lib.csb_hash_batch(
        ffi.new("struct csb_secret *", {"k0": secret[0], "k1": secret[1]}),
        ffi.cast("struct flow *", ffi.from_buffer(flows)),
        found,
        len(clients),
    )
    return list(found)


def worst_load(found: Sequence[int]) -> float:
    """Of the thread with the most, in parts of the mean, with all weights even."""
    owners = divide([NOBODY] * SLOT_COUNT, dict.fromkeys(range(TIDS), 1.0))
    view = build_view(build_map(dict(points(owners))), {})
    count = Counter(lib.native_view_lookup(view, h) for h in found)
    return max(count.values()) * TIDS / len(found)


def one_rss_value() -> list[Client]:
    """The kernel of the card's hash, which is linear: as many tuples of one value as are wanted."""
    columns = [(1 << b, toeplitz(struct.pack(">IIHH", 1 << b & 0xFFFFFFFF, 0, 0, 0))) for b in range(32)]
    columns += [(1 << 32 + b, toeplitz(struct.pack(">IIHH", 0, 0, 1 << b, 0))) for b in range(16)]
    basis: dict[int, tuple[int, int]] = {}  # by leading bit: input and value
    kernel: list[int] = []
    for chosen, value in columns:
        while value and value.bit_length() in basis:
            other = basis[value.bit_length()]
            chosen, value = chosen ^ other[0], value ^ other[1]
        if value:
            basis[value.bit_length()] = chosen, value
        else:
            kernel.append(chosen)
    clients: list[Client] = []
    for pick in range(COUNT):
        word = 0
        for n, vector in enumerate(kernel):
            word ^= vector if pick >> n & 1 else 0
        clients.append((word & 0xFFFFFFFF, word >> 32))
    return clients


def one_thread_of_a_known_key(secret: tuple[int, int]) -> list[Client]:
    draw = random.Random(4)
    clients = [(draw.randrange(2**32), draw.randrange(2**16)) for _ in range(COUNT * TIDS)]
    found = hashes(clients, secret)
    return [c for c, h in zip(clients, found, strict=True) if (h & 0xFFFFFFFF) >> 28 == 3]


GUESSED = (0x1234, 0x5678)

CHOICES = [
    pytest.param(one_rss_value, id="one value of the card's hash"),
    pytest.param(lambda: one_thread_of_a_known_key(GUESSED), id="one thread of a guessed key"),
    pytest.param(lambda: [(0x0A000005, p) for p in range(1, 65536, 4)], id="one client's ports"),
    pytest.param(lambda: [(0xC0A80000 + n, 40000) for n in range(COUNT)], id="one port of a network"),
    pytest.param(lambda: [(n << 16, 80) for n in range(COUNT)], id="addresses that share their low bits"),
]


@pytest.mark.parametrize("choose", CHOICES)
def test_chosen_tuples_load_no_thread_beyond_1_3_of_its_part(choose: Callable[[], list[Client]]) -> None:
    clients = choose()
    assert len(clients) > COUNT * 0.9
    assert len(set(clients)) == len(clients)
    draw = random.Random(9)
    for _ in range(5):
        secret = draw.randrange(2**64), draw.randrange(2**64)
        assert worst_load(hashes(clients, secret)) < 1.3


def test_they_would_all_be_one_threads_by_the_cards_hash_or_with_the_key() -> None:
    assert toeplitz(ipaddress.IPv4Address("66.9.149.187").packed + ipaddress.IPv4Address("161.142.100.80").packed
                    + struct.pack(">HH", 2794, 1766)) == 0x51CCC178  # fmt: skip
    assert len({rss(client) for client in one_rss_value()}) == 1
    assert worst_load(hashes(one_thread_of_a_known_key(GUESSED), GUESSED)) == TIDS
