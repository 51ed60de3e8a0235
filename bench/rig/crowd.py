"""Clients in threads, for as long as a block lasts."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

Stop = threading.Event  # set when the block ends
JOIN_S = 30.0


@contextmanager
def crowd(members: Sequence[Callable[[Stop], None]]) -> Iterator[None]:
    """Run each member in a thread of its own until it sees the stop that it is given."""
    stop = Stop()
    threads = [threading.Thread(target=member, args=(stop,)) for member in members]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(JOIN_S)
