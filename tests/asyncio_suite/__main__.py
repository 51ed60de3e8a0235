"""``python -m tests.asyncio_suite MODE MODULE...``: run modules of CPython's test.test_asyncio on the Janus loop.

MODE kernel: every address is the kernel's; what is tested is the loop.  MODE memory: 127.0.0.1 is Janus's, two
stacks joined in memory; what is tested are servers, transports, streams and TLS over them.  What is left out, and why,
is in tests/asyncio_suite/skipped.py.
"""

import asyncio
import sys
import unittest
from collections.abc import Iterator
from typing import Any

from janus_tcp.asyncio_loop import JanusEventLoop
from janus_tcp.asyncio_testing import PairEventLoop

from tests.asyncio_suite.skipped import reason


class MemoryLoop(PairEventLoop):
    """127.0.0.1 stands for an address that one stack serves, and that is reached from the other: loopback itself is
    no source or destination on a wire."""

    def __init__(self, selector: object = None) -> None:
        super().__init__(virtual_time=False, rx_slots=8192, tx_slots=8192)
        self._listened: set[int] = set()

    async def getaddrinfo(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        """Names of loopback mean the stack's address, unless a kernel socket has the port."""
        meant = self._meant(host) if port in self._listened else host
        return await super().getaddrinfo(meant, port, *args, **kwargs)

    def _port(self, port: int) -> int:
        chosen = super()._port(port)
        self._listened.add(chosen)
        return chosen

    async def _resolved(self, host: str | None, port: int | None) -> list[str | None]:
        return [self._meant(host)]

    def _meant(self, host: str | None) -> str | None:
        return self.host if host in {"127.0.0.1", "localhost", "::1"} else host


class KernelLoop(JanusEventLoop):
    """No address is Janus's."""

    def __init__(self, selector: object = None) -> None:
        super().__init__()

    def _serves(self, address: bytes | None) -> None:
        return None


LOOPS: dict[str, type[JanusEventLoop]] = {"kernel": KernelLoop, "memory": MemoryLoop}


def install(loop: type[JanusEventLoop]) -> None:
    """Whatever asks asyncio for a loop gets one of these."""

    class Policy(asyncio.DefaultEventLoopPolicy):
        _loop_factory = loop

    asyncio.SelectorEventLoop = loop  # type: ignore[misc]
    asyncio.set_event_loop_policy(Policy())


def each(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """The single tests of a suite."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from each(test)
        else:
            yield test


def main(mode: str, modules: list[str]) -> int:
    """Run, say what was skipped here and why, and fail when a test fails or none ran."""
    chosen = unittest.TestSuite()
    skipped: dict[str, int] = {}
    found = unittest.defaultTestLoader.loadTestsFromNames([f"test.test_asyncio.{name}" for name in modules])
    install(LOOPS[mode])
    for test in each(found):
        name = test.id().removeprefix("test.test_asyncio.")
        why = reason(mode, name)
        if why is None:
            chosen.addTest(test)
        else:
            skipped[why] = skipped.get(why, 0) + 1
    result = unittest.TextTestRunner(verbosity=1).run(chosen)
    for why, count in sorted(skipped.items()):
        print(f"left out, {count} tests: {why}")
    print(f"{mode}: ran {result.testsRun}, failed {len(result.failures) + len(result.errors)}")
    return 0 if result.testsRun and result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
