"""build.py NAME BUILD CFLAGS: makes BUILD/native/_NAME.*.so from NAME.cdef and NAME.c, its source.

The module is linked with BUILD/libjanus.a: it tests the objects of that build, sanitizers and asserts included.
"""

import sys
from pathlib import Path

from cffi import FFI


def main() -> None:
    name, build, cflags = sys.argv[1], Path(sys.argv[2]), sys.argv[3].split()
    here = Path(__file__).parent
    ffi = FFI()
    ffi.cdef((here / f"{name}.cdef").read_text())
    ffi.set_source(
        f"_{name}",
        f'#include "{here.resolve()}/{name}.c"\n',
        include_dirs=[str(Path("sdk").resolve()), str(Path(".").resolve())],
        extra_objects=[str((build / "libjanus.a").resolve())],
        extra_compile_args=[
            "-std=gnu11",
            "-D_GNU_SOURCE",
            "-UNDEBUG",
            "-Wall",
            "-Wextra",
            "-Wno-unused-function",
            "-Wno-unused-parameter",
            "-Wno-missing-field-initializers",
            *cflags,
        ],
        extra_link_args=[flag for flag in cflags if flag.startswith("-fsanitize")],
    )
    (build / "native").mkdir(parents=True, exist_ok=True)
    ffi.compile(tmpdir=str(build / "native"), verbose=False)


main()
