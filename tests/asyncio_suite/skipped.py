"""What of CPython's asyncio tests is run, what is left out, and why.  docs/asyncio.md shows the same (a test compares).

A test that is left out is run all the same, and must fail: a reason that no longer holds is found.
"""

import fnmatch

RUN = {
    "kernel": "base_events buffered_proto context events locks pep492 runners selector_events sendfile server"
    " sock_lowlevel ssl sslproto streams subprocess taskgroups threads timeouts unix_events waitfor",
    "memory": "base_events buffered_proto events sendfile server ssl sslproto streams",
}
NOT_RUN = {
    "futures futures2 protocols queues tasks transports": "nothing in them is the loop's",
    "proactor_events windows_events windows_utils": "Windows",
}

ANOTHER_SELECTOR = "the loop has a selector of its own: they would be `EPollEventLoopTests` again"
KERNEL_PEER = "the other side is a kernel socket of the test's own, which no stack in memory can reach"
LOOPBACK = "wants 127.0.0.1 for a name, which stands for another address here"
MOCKED = "wants what a mocked kernel socket says, and Janus opens none"
PORT_SHARED = "wants an error for `reuse_port`, which has no meaning on Janus"
PRETENDED = "wants a descriptor or an option of a kernel socket"

LEFT_OUT: list[tuple[str, str, str]] = [
    ("memory", "test_base_events.BaseEventLoopWithSelectorTests.test_create_server_cant_bind", MOCKED),
    (
        "memory",
        "test_base_events.BaseEventLoopWithSelectorTests.test_create_server_nosoreuseport",
        PORT_SHARED,
    ),
    (
        "memory",
        "test_base_events.BaseEventLoopWithSelectorTests.test_create_server_soreuseport_only_defined",
        PORT_SHARED,
    ),
    ("kernel memory", "test_events.PollEventLoopTests.*", ANOTHER_SELECTOR),
    ("kernel memory", "test_events.SelectEventLoopTests.*", ANOTHER_SELECTOR),
    ("memory", "test_events.EPollEventLoopTests.test_create_server", KERNEL_PEER),
    ("memory", "test_events.EPollEventLoopTests.test_create_server_dual_stack", KERNEL_PEER),
    ("memory", "test_events.EPollEventLoopTests.test_server_close", KERNEL_PEER),
    ("memory", "test_events.EPollEventLoopTests.test_create_server_multiple_hosts_ipv6", MOCKED),
    ("memory", "test_events.EPollEventLoopTests.test_create_server_reuse_port", PRETENDED),
    ("memory", "test_events.EPollEventLoopTests.test_create_server_sock", PRETENDED),
    ("memory", "test_events.EPollEventLoopTests.test_create_server_ssl", LOOPBACK),
    ("memory", "test_events.EPollEventLoopTests.test_create_server_ssl_*", LOOPBACK),
    ("memory", "test_server.SelectorStartServerTests.test_start_server_1", KERNEL_PEER),
    ("memory", "test_ssl.TestSSL.test_create_server_ssl_1", KERNEL_PEER),
    ("memory", "test_ssl.TestSSL.test_create_server_ssl_over_ssl", KERNEL_PEER),
    ("memory", "test_ssl.TestSSL.test_start_tls_server_1", KERNEL_PEER),
    ("memory", "test_sslproto.SelectorStartTLSTests.test_start_tls_server_1", KERNEL_PEER),
]
ALIKE = {ANOTHER_SELECTOR}  # these pass, and are left out all the same


def reason(mode: str, name: str) -> str | None:
    """Why a test is left out; None: it is run."""
    for modes, pattern, why in LEFT_OUT:
        if mode in modes.split() and fnmatch.fnmatch(name, pattern):
            return why
    return None
