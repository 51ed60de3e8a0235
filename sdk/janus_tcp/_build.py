"""The cffi extension janus_tcp._janus: the C API for Python, and the types in C that every batch touches.

Declarations come from the headers themselves: the slices between ``cffi:begin`` and ``cffi:end``, and
whole structs.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from cffi import FFI

SDK = Path(__file__).resolve().parent.parent
SOURCES = [
    "arenas",
    *(f"asyncio_{part}" for part in ("info", "outbox", "poller", "ready", "timers", "transport")),
    "c_handlers",
    "connection",
    "loop",
    "loop_type",
    "module",
    "options",
    "reading",
    "sending",
    "sleeping",
    "task",
    "timers",
    "view",
]


def marked(header: str) -> str:
    """What stands between the marks in a header."""
    return "\n".join(re.findall(r"/\* cffi:begin \*/(.*?)/\* cffi:end \*/", (SDK / header).read_text(), re.S))


def struct(header: str, name: str) -> str:
    """One struct of a header; an array whose length only the compiler knows is left to it."""
    match = re.search(rf"^struct {name} \{{.*?^\}};", (SDK / header).read_text(), re.S | re.M)
    assert match, f"{header} has no struct {name}"
    return match[0].replace("TCP_DROP_COUNT", "...")


RELEASE = ("-O2", "-flto=auto", "-fno-semantic-interposition")


def extension(build: str = "build/release", flags: Sequence[str] = RELEASE, root: str = "") -> FFI:
    """The extension over a build's C library, compiled and linked with these flags; root ends in a slash."""
    archive = f"{build}/libjanus.a"
    ffi = FFI()
    ffi.cdef(
        "struct ip_addr { uint8_t b[16]; };\n"
        + marked("app/janus.h")
        + marked("app/thread_api.h")
        + marked("app/env_loop.h")
        + struct("tcp/counters.h", "tcp_counters")
        + struct("tcp/tcp.h", "tcp_usage")
        + struct("app/thread_api.h", "janus_stats")
        + """
        void thread_get_stats(const struct janus_thread *t, struct janus_stats *stats);
        uint16_t thread_tid(const struct janus_thread *t);
        uint32_t thread_addresses(const struct janus_thread *t, struct ip_addr *addresses, uint32_t count);
        bool thread_attached(const struct janus_thread *t, struct janus_error *error);
        void thread_leave(struct janus_thread *t);
        bool thread_has_left(const struct janus_thread *t);
        const char *tcp_drop_name(int drop);
        int face_install(void);
        int face_end_with_parent(void);
        int face_huge_arenas(void);
        int loop_run(uintptr_t handle, int64_t timeout_us);
        """
    )
    ffi.set_source(
        "janus_tcp._janus",
        '#include "janus_tcp/face.h"\n#include "app/env_loop.h"\n',
        sources=[f"{root}sdk/janus_tcp/{name}.c" for name in SOURCES],
        include_dirs=[f"{root}sdk", root or "."],
        # Whole: a handler in a shared object calls what nothing here does.
        # Bound here at link time: calls into the stack are plain calls.
        extra_link_args=[
            *flags,
            "-Wl,-Bsymbolic-functions",
            f"-Wl,--whole-archive,{archive},--no-whole-archive",
        ],
        depends=[
            archive,
            "sdk/janus_tcp/asyncio.h",
            "sdk/janus_tcp/face.h",
            "sdk/janus_tcp/docs.h",
            "sdk/app/thread_api.h",
            "sdk/app/env_loop.h",
        ],
        py_limited_api=False,
        define_macros=[("_CFFI_NO_LIMITED_API", "1"), ("_GNU_SOURCE", "1")],
        extra_compile_args=[
            "-std=gnu11",
            *flags,
            "-Wall",
            "-Wextra",
            "-Wno-cast-function-type",
            "-Wno-missing-field-initializers",
        ],
    )
    return ffi


ffi = extension()

if __name__ == "__main__":
    ffi.compile(verbose=True)
