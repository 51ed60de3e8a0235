"""python -m bench list | all | NAME... [--quick] [--json]"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

from bench.framework import Options, Program, to_json, to_table
from bench.machine import facts
from bench.programs import PROGRAMS


def run_program(program: Program, options: Options, *, as_json: bool) -> None:
    """Run one program and print its table, and with as_json its object as the last line."""
    began = time.monotonic()

    def progress(text: str) -> None:
        print(f"  {time.monotonic() - began:5.1f} s  {text}", file=sys.stderr, flush=True)

    print(f"== {program.name}: {program.summary}")
    rows = program.run(options, progress)
    machine = facts()
    print(to_table(rows))
    for note in program.notes:
        print(f"   {note}")
    print("   " + ", ".join(f"{key} {value}" for key, value in machine.items()))
    if as_json:
        print(json.dumps(to_json(program.name, machine, rows)))


def main(words: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Figures, each beside its baseline.")
    parser.add_argument("names", nargs="+", metavar="NAME", help="a program, 'all', or 'list'")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs: under 45 s")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    given = parser.parse_args(words)
    known = {program.name: program for program in PROGRAMS}
    if given.names == ["list"]:
        for program in PROGRAMS:
            print(f"{program.name:16} {program.summary}")
        return 0
    names = list(known) if given.names == ["all"] else given.names
    if unknown := [name for name in names if name not in known]:
        print(f"no such program: {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    for name in names:
        try:
            run_program(known[name], Options(quick=given.quick), as_json=given.json)
        except (RuntimeError, OSError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print(f"{name}: interrupted", file=sys.stderr)
            return 130
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
