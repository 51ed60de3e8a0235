"""python -m tests.regressions [NAME ...]: takes each guard away in a copy of the tree, and runs what should fail.

A NAME is a class, or class/number.  First the tests are run as the tree is: all must pass.  A guard "survives" when a
test that names it still passes without it."""

import argparse
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.regressions import ROOT, Guard, classes, locate

COPY = ROOT / "build" / "regressions"
TEST_SECONDS = 120
# The virtual environment is the tree's own: what the copy's pyproject.toml would have installed there stays out.
MAKE = ("make", "--no-print-directory", "-o", ".venv/.ready", "WARN=")
HELPERS = {
    "tcp_talk": {"tcp"},
    "packet_scripts": {"tcp"},
    "hostile_frames": {"classify"},
    "tests.sim": {"sim", "adversary"},
}


def copy_tree() -> None:
    """What git tracks or would; what has changed gets the time of now, so that make builds just that."""
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    for name in names:
        target = COPY / name
        if (ROOT / name).is_file() and not (
            target.exists() and target.read_bytes() == (ROOT / name).read_bytes()
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
    for old in {p.relative_to(COPY) for p in COPY.rglob("*.[ch]") if "build" not in p.parts[-4:]}:
        if not str(old).startswith(("build/", ".venv")) and not (ROOT / old).exists():
            (COPY / old).unlink()
    if not (COPY / ".venv").exists():
        (COPY / ".venv").symlink_to(ROOT / ".venv")
    (COPY / "build").mkdir(exist_ok=True)
    (COPY / "build" / ".deps").touch()


def natives(tests: list[str]) -> set[str]:
    """The native modules that tests import."""
    found: set[str] = set()
    for test in tests:
        text = (COPY / test.partition("::")[0]).read_text()
        found |= set(re.findall(r"^(?:from|import) _(\w+)", text, re.MULTILINE))
        for helper, modules in HELPERS.items():
            found |= modules if helper in text or helper in test else set()
    return found


def command(*words: str) -> bool:
    """Run it in the copy; whether it succeeds."""
    done = subprocess.run(words, cwd=COPY, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(done.stdout[-600:], done.stderr[-1200:])
    return done.returncode == 0


def make(modules: set[str]) -> bool:
    """Build them."""
    return not modules or command(*MAKE, "native", f"NATIVE={' '.join(sorted(modules))}")


def link_again(modules: set[str]) -> bool:
    """A change of a .c file alone: the modules' own objects are good still."""
    if modules and not command(*MAKE, "build/check/libjanus.a"):
        return False
    for name in sorted(modules):
        built = COPY / "build" / "check" / "native"
        target = next(built.glob(f"_{name}.*.so"))
        words = ["gcc", "-shared", "-fsanitize=undefined", str(built / f"_{name}.o")]
        if not command(*words, "build/check/libjanus.a", "-lpthread", "-o", str(target)):
            return False
    return True


def passes(tests: list[str]) -> list[str]:
    """Those that pass; one that crashes or hangs does not."""
    good = []
    for test in tests:
        try:
            done = subprocess.run(
                [
                    str(ROOT / ".venv" / "bin" / "python"),
                    "-m",
                    "pytest",
                    "-q",
                    "-x",
                    "-p",
                    "no:cacheprovider",
                    test,
                ],
                cwd=COPY,
                capture_output=True,
                text=True,
                timeout=TEST_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            continue
        if done.returncode == 0:
            good.append(test)
        elif done.returncode > 1 and "Segmentation" not in done.stderr and done.returncode != 134:
            print(done.stdout[-600:])
    return good


def is_compiled_in(file: str, modules: set[str]) -> bool:
    """Whether the modules' own objects have it in them: a header, or a .c file that a module includes."""
    sources = (COPY / "tests" / "native" / f"{name}.c" for name in modules)
    return file.endswith(".h") or any(f'{file}"' in source.read_text() for source in sources)


def survives(guard: Guard) -> list[str]:
    """The tests that pass without the guard."""
    path = COPY / guard.file
    whole = path.read_text()
    tests = [t for t in map(locate, guard.shown_by) if t is not None]
    modules = natives(tests)
    compiled_in = is_compiled_in(guard.file, modules)
    path.write_text(whole.replace(guard.text, guard.without))
    try:
        build = make if compiled_in else link_again
        if not build(modules):
            return ["it does not build"]
        good = passes(tests)
        return [] if guard.one_of_them and len(good) < len(tests) else good
    finally:
        path.write_text(whole)
        if compiled_in:
            make(modules)


def chosen(names: list[str]) -> list[Guard]:
    """The guards that the command names."""
    every = [g for c in classes() for g in c.guards]
    return [g for g in every if not names or g.name in names or Path(g.name).parts[0] in names]


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.regressions", description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument(
        "--known-good", action="store_true", help="the tests pass as the tree is: do not look"
    )
    args = parser.parse_args()
    known_good = args.known_good
    guards = [g for g in chosen(args.names) if g.shown_by]
    copy_tree()
    tests = sorted({t for g in guards for p in g.shown_by if (t := locate(p)) is not None})
    if not make(natives(tests)):
        return 1
    broken = set() if known_good else set(tests) - set(passes(tests))
    for test in sorted(broken):
        print(f"fails as it is: {test}")
    survivors = 0
    for guard in guards:
        begun = time.monotonic()
        left = survives(guard)
        survivors += bool(left)
        print(
            f"{'SURVIVES' if left else 'fails':9}{guard.name:28}{time.monotonic() - begun:6.1f} s  {' '.join(left)}"
        )
        sys.stdout.flush()
    print(
        f"{len(guards)} guards, {survivors} not missed by a test that names them, {len(broken)} tests broken"
    )
    return int(bool(survivors or broken or not guards))


if __name__ == "__main__":
    sys.exit(main())
