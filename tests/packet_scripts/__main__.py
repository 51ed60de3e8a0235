"""python -m tests.packet_scripts [--lenient-end] FILE...: runs scripts by hand."""

import os
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    sys.path.insert(0, os.environ.get("JANUS_NATIVE", "build/check/native"))
    from tests.packet_scripts.runner import run_file
    from tests.packet_scripts.script import ScriptError, Unsupported

    failed = 0
    for name in (a for a in arguments if not a.startswith("--")):
        try:
            run_file(Path(name), strict_end="--lenient-end" not in arguments)
        except ScriptError as e:
            failed += 1
            print(f"FAIL {e}")
        except Unsupported as e:
            print(f"SKIP {e}")
        else:
            print(f"ok   {name}")
    return 1 if failed else 0


sys.exit(main(sys.argv[1:]))
