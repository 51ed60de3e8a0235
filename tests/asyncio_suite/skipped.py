"""What of CPython's asyncio tests is left out, and why."""

import fnmatch

KERNEL_PEER = "the other side is a kernel socket of the test's own, which no stack in memory can reach"

SKIPPED: list[tuple[str, str, str]] = [
    ("memory", "test_sslproto.*.test_start_tls_server_1", KERNEL_PEER),
]


def reason(mode: str, name: str) -> str | None:
    """Why a test is left out; None: it is run."""
    for modes, pattern, why in SKIPPED:
        if mode in modes.split() and fnmatch.fnmatch(name, pattern):
            return why
    return None
