"""python -m tests.fuzz [--time S] [--seed N] [NAME ...]: builds each fuzz_NAME.c with libFuzzer and runs it.

A target is a C file with LLVMFuzzerTestOneInput and the invariant it holds in its first comment.  Each is built
twice: as it is, which must run for S seconds without a finding, and with -DJANUS_PLANTED_BUG, where the harness
carries a bug that must be found within ten times that: a fuzzer that cannot find it proves nothing.
"""

import argparse
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "fuzz"
SOURCES = ["sdk/wire", "sdk/csb", "sdk/tcp", "sdk/shm"]
PURE_GLUE = ["classify", "ledger", "txcheck", "rows"]  # what dpdk_glue runs on foreign data without DPDK
CFLAGS = [
    "-std=c11",
    "-D_GNU_SOURCE",
    "-O1",
    "-g",
    "-fno-omit-frame-pointer",
    "-UNDEBUG",
    "-Isdk",
    "-I.",
    "-Itests",
]
SANITIZE = "-fsanitize=fuzzer,address,undefined"
RSS_LIMIT_MB = 2048


@dataclass(frozen=True)
class Run:
    name: str
    planted: bool
    seconds: float
    found: bool
    output: str

    @property
    def good(self) -> bool:
        return self.found == self.planted


def targets(names: list[str]) -> list[str]:
    known = sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.c"))
    unknown = set(names) - set(known)
    if unknown:
        sys.exit(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return names or known


def library() -> Path:
    """The code under test, once for all targets, with coverage for the fuzzer."""
    objects = []
    flags = [*CFLAGS, "-fsanitize=fuzzer-no-link,address,undefined", "-fno-sanitize-recover=all"]
    sources = [s for folder in SOURCES for s in sorted((ROOT / folder).glob("*.c"))]
    sources += [p for name in PURE_GLUE if (p := ROOT / "dpdk_glue" / f"{name}.c").exists()]

    def compile_one(source: Path) -> Path:
        target = BUILD / source.relative_to(ROOT).with_suffix(".o")
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["clang", *flags, "-c", str(source), "-o", str(target)], cwd=ROOT, check=True)
        return target

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compile_one, sources))
    archive = BUILD / "libfuzzed.a"
    archive.unlink(missing_ok=True)
    subprocess.run(["ar", "rcs", str(archive), *map(str, objects)], check=True)
    return archive


def build(name: str, archive: Path, planted: bool) -> Path:
    program = BUILD / (f"{name}-planted" if planted else name)
    define = ["-DJANUS_PLANTED_BUG"] if planted else []
    source = HERE / f"fuzz_{name}.c"
    command = ["clang", *CFLAGS, SANITIZE, "-fno-sanitize-recover=all", *define, str(source), str(archive)]
    subprocess.run([*command, "-o", str(program)], cwd=ROOT, check=True)
    return program


def run(name: str, archive: Path, planted: bool, seconds: int, seed: int) -> Run:
    program = build(name, archive, planted)
    corpus = BUILD / f"corpus-{program.name}"
    corpus.mkdir(parents=True, exist_ok=True)
    seeds = HERE / "corpus" / name
    limit = seconds * 10 if planted else seconds
    command = [
        str(program),
        f"-max_total_time={limit}",
        f"-seed={seed}",
        "-timeout=5",
        f"-rss_limit_mb={RSS_LIMIT_MB}",
    ]
    command += ["-print_final_stats=1", f"-artifact_prefix={BUILD}/{program.name}-", str(corpus)]
    command += [str(seeds)] if seeds.is_dir() else []
    start = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    return Run(name, planted, time.monotonic() - start, done.returncode != 0, done.stderr)


def executions(output: str) -> str:
    lines = [line for line in output.splitlines() if "number_of_executed_units" in line]
    return lines[-1].split(":")[-1].strip() if lines else "?"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--time", type=int, default=30, help="seconds for each target (default 30)")
    parser.add_argument("--seed", type=int, default=random.randrange(1, 2**31), help="of the mutations")
    parser.add_argument("names", nargs="*")
    args = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    names = targets(args.names)
    archive = library()
    print(
        f"SEED={args.seed}  {len(names)} targets, {args.time} s each, planted bugs up to {args.time * 10} s",
        flush=True,
    )
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [
            pool.submit(run, n, archive, planted, args.time, args.seed)
            for n in names
            for planted in (False, True)
        ]
        runs = [job.result() for job in jobs]
    for r in runs:
        kind = "planted bug" if r.planted else "as it is"
        word = "found" if r.found else "nothing found"
        verdict = "ok" if r.good else "FAILED"
        print(
            f"{verdict:6} {r.name:12} {kind:12} {word:14} {r.seconds:6.1f} s  {executions(r.output):>10} runs"
        )
        if not r.good:
            print("\n".join(r.output.splitlines()[-60:]))
    bad = sum(not r.good for r in runs)
    print(f"{len(runs) - bad} passed, {bad} failed")
    return 1 if bad or not runs else 0


if __name__ == "__main__":
    sys.exit(main())
