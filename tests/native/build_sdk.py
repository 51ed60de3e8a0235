"""build_sdk.py BUILD CFLAGS: makes BUILD/sdk/janus_tcp over BUILD/libjanus.a, its extension made with these flags.

What is Python in it are links to sdk/janus_tcp.
"""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SDK = ROOT / "sdk" / "janus_tcp"


def main() -> None:
    build, flags = Path(sys.argv[1]).resolve(), sys.argv[2].split()
    spec = importlib.util.spec_from_file_location("_build", SDK / "_build.py")
    assert spec is not None
    assert spec.loader is not None
    builder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builder)
    package = build / "sdk" / "janus_tcp"
    package.mkdir(parents=True, exist_ok=True)
    for path in SDK.glob("*.py"):
        link = package / path.name
        link.unlink(missing_ok=True)
        link.symlink_to(path)
    ffi = builder.extension(str(build), [*flags, "-UNDEBUG"], f"{ROOT}/")
    ffi.compile(tmpdir=str(build / "sdk"), verbose=False)


main()
