"""Build of dpdk_glue._dpdk: the slice of glue.h between its cffi marks, with the two archives and DPDK."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent


def _pkg_config(kind: str) -> list[str]:
    return subprocess.run(
        ["pkg-config", kind, "libdpdk"], check=True, capture_output=True, text=True
    ).stdout.split()


def _declarations() -> str:
    text = (HERE / "glue.h").read_text()
    return text.split("/* cffi:begin */")[1].split("/* cffi:end */")[0]


ffi = FFI()
ffi.cdef(_declarations())
ffi.set_source(
    "dpdk_glue._dpdk",
    '#include "dpdk_glue/glue.h"',
    include_dirs=[".", "sdk"],
    extra_compile_args=["-std=c11", "-D_GNU_SOURCE", *_pkg_config("--cflags")],
    extra_objects=["build/release/libjanus_glue.a", "build/release/libjanus.a"],
    extra_link_args=[*_pkg_config("--libs"), "-lpthread"],
    depends=["dpdk_glue/glue.h", "build/release/libjanus_glue.a", "build/release/libjanus.a"],
)
