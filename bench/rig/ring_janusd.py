"""janusd with the load generator as one more thread of its process, on a port made of two rte_rings.

    JANUS_LOAD="LIBRARY WORD..." python -m bench.rig.ring_janusd --config FILE

The daemon is the same; only between EAL's start and the opening of the ports the generator's library is
loaded, which makes the port net_ring_load."""

import ctypes
import os
from collections.abc import Sequence
from unittest.mock import patch

from dpdk_glue.eal import start_eal
from janusd import daemon
from janusd.__main__ import main


def start_eal_and_load(words: Sequence[str]) -> None:
    """Start EAL, then the generator."""
    start_eal(words)
    library, *given = os.environ["JANUS_LOAD"].split()
    array = (ctypes.c_char_p * len(given))(*(word.encode() for word in given))
    if (code := -ctypes.CDLL(library).load_ring_open(array, len(given))) != 0:
        raise OSError(code, f"the load generator does not start: {os.strerror(code)}")


if __name__ == "__main__":
    with patch.object(daemon, "start_eal", start_eal_and_load):
        main()
