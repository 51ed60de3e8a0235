"""``python -m tests.asyncio_suite MODE MODULE...``: run modules of CPython's test.test_asyncio on the Janus loop.

MODE kernel: every address is the kernel's; what is tested is the loop.  MODE memory: 127.0.0.1 is Janus's, two
stacks joined in memory; what is tested are servers, transports, streams and TLS over them.  What is left out, and why,
is in tests/asyncio_suite/skipped.py.
"""

import asyncio
import fnmatch
import os
import signal
import sys
import unittest
from collections.abc import Iterator
from typing import Any

from janus_tcp.asyncio_loop import JanusEventLoop
from janus_tcp.asyncio_testing import PairEventLoop

from tests.asyncio_suite.skipped import ALIKE, LEFT_OUT, reason

PATIENCE_S = 5  # with a test that is expected to fail, and may hang
SELECTOR_LOOP: Any = asyncio.SelectorEventLoop


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

    async def _found(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        return await super()._found(
            self._meant(host) if port in self._listened else host, port, *args, **kwargs
        )

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

    asyncio.SelectorEventLoop = loop  # type: ignore[misc]
    asyncio.DefaultEventLoopPolicy._loop_factory = loop  # each module's end puts the default policy back


def each(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """The single tests of a suite."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from each(test)
        else:
            yield test


def refuse_other_loops(loop: type[JanusEventLoop]) -> None:
    """A selector loop that is not Janus's would test nothing of ours."""
    original = SELECTOR_LOOP.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        if not isinstance(self, loop):
            raise AssertionError(f"a test runs on {type(self).__name__}, not on {loop.__name__}")
        original(self, *args, **kwargs)

    SELECTOR_LOOP.__init__ = init


def passes(test: unittest.TestCase) -> int:
    """Start a process that runs one test; it ends with 0 when the test passes, and by a signal when it hangs."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.alarm(PATIENCE_S)
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        result = unittest.TestResult()
        unittest.TestSuite([test]).run(result)
        code = 0 if result.wasSuccessful() and not result.skipped else 1
    finally:
        os._exit(code)


def main(mode: str, modules: list[str]) -> int:
    """Run, say what was left out and why; fail when a test fails, none ran, or one that is left out passes."""
    chosen = unittest.TestSuite()
    left_out: dict[str, unittest.TestCase] = {}
    names = [f"test.test_asyncio.test_{name}" for name in modules]
    tests = list(each(unittest.defaultTestLoader.loadTestsFromNames(names)))
    install(LOOPS[mode])
    refuse_other_loops(LOOPS[mode])
    while tests:  # whoever keeps one keeps its mocks, which many a test collects
        test = tests.pop(0)
        name = test.id().removeprefix("test.test_asyncio.")
        if reason(mode, name) is None:
            chosen.addTest(test)
        else:
            left_out[name] = test
    del test
    started = {n: passes(test) for n, test in left_out.items() if reason(mode, n) not in ALIKE}
    wrong = [f"passes, and is left out: {n}" for n, pid in started.items() if os.waitpid(pid, 0)[1] == 0]
    wrong += [
        f"names no test: {pattern}"
        for modes, pattern, _ in LEFT_OUT
        if mode in modes.split() and pattern.split(".")[0].removeprefix("test_") in modules
        if not fnmatch.filter(left_out, pattern)
    ]
    result = unittest.TextTestRunner(verbosity=1).run(chosen)
    print(*wrong, sep="\n")
    print(f"{mode}: ran {result.testsRun}, left out {len(left_out)}")
    return 0 if result.testsRun and result.wasSuccessful() and not wrong else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
