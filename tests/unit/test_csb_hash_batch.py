"""The burst of hashes against the hash of one flow."""

import random

import pytest
from _csbup import ffi, lib


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 31, 64])
def test_lanes_give_what_one_gives(count: int) -> None:
    draw = random.Random(count)
    secret = ffi.new("struct csb_secret *", {"k0": draw.randrange(2**64), "k1": draw.randrange(2**64)})
    flows = ffi.new("struct flow[]", count or 1)
    ffi.memmove(flows, draw.randbytes(36 * count), 36 * count)
    hashes = ffi.new("uint64_t[]", [0xEE] * (count + 1))
    lib.csb_hash_batch(secret, flows, hashes, count)
    assert list(hashes) == [*(lib.csb_hash(secret, flows + i) for i in range(count)), 0xEE]
