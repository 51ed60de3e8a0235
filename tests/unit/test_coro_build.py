"""Facts of the build: sizes of images as released, another architecture, debuggers, overflow, the binary's flags."""

import os
import platform
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from _coro import lib

ROOT = Path(__file__).resolve().parents[2]
RELEASE = [
    "-std=c11",
    "-D_GNU_SOURCE",
    "-O2",
    "-g",
    "-DNDEBUG",
    "-fPIC",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-pthread",
]
CROSS, QEMU = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"
ASAN = lib.built_with_asan()
HERE = platform.machine()
pytestmark = pytest.mark.skipif(ASAN, reason="programs of their own, not under AddressSanitizer's preload")


def need(*tools: str) -> None:
    if missing := [tool for tool in tools if shutil.which(tool) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")


def compile_program(
    source: str, to: Path, *, compiler: str = "gcc", machine: str = HERE, flags: Sequence[str] = ()
) -> Path:
    """A program of tests/native with sdk/coro compiled in."""
    sources = [ROOT / "tests" / "native" / source, *sorted((ROOT / "sdk" / "coro").glob("*.c"))]
    sources.append(ROOT / "sdk" / "coro" / f"switch_{machine}.S")
    program = to / Path(source).stem
    words = [compiler, *RELEASE, *flags, "-Isdk", "-I.", *map(str, sources), "-o", str(program)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


def output(*words: str | Path) -> str:
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{words}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


# Live bytes at the wait; stored without and with templates.
SIZES = {
    "x86_64": {
        "echo_by_copy": (96, 96, 0),
        "echo_by_view": (80, 96, 0),
        "http": (144, 160, 0),
        "array_in_the_frame": (608, 608, 608),
    },
    "aarch64": {
        "echo_by_copy": (224, 224, 0),
        "echo_by_view": (208, 224, 0),
        "http": (288, 288, 0),
        "array_in_the_frame": (720, 736, 736),
    },
}


def sizes(text: str) -> dict[str, tuple[int, ...]]:
    return {line.split()[0]: tuple(map(int, line.split()[1:])) for line in text.splitlines()}


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_usual_handlers_keep_and_store_few_bytes(tmp_path: Path, compiler: str) -> None:
    """Other compilers may need a register more; nothing may outgrow its class of 32 bytes."""
    need(compiler)
    found = sizes(output(compile_program("coro_sizes.c", tmp_path, compiler=compiler)))
    assert found.keys() == SIZES[HERE].keys()
    for name, (live, stored, templated) in SIZES[HERE].items():
        assert found[name][0] <= (live + 31) // 32 * 32, name
        assert found[name][1:] == (stored, templated), name


@pytest.mark.thorough
@pytest.mark.parametrize(
    "flags",
    [
        pytest.param(["-O0"], id="O0"),
        pytest.param(["-O3", "-march=native"], id="O3, this CPU's vectors"),
        pytest.param(
            ["-fstack-protector-strong", "-D_FORTIFY_SOURCE=2", "-fcf-protection=full"], id="hardened"
        ),
        pytest.param(["-fno-omit-frame-pointer", "-fstack-clash-protection"], id="frame pointers"),
    ],
)
def test_storm_with_other_flags(tmp_path: Path, flags: list[str]) -> None:
    seed = random.randrange(2**32)
    print(f"SEED={seed}")
    text = output(compile_program("coro_main.c", tmp_path, flags=flags), str(seed))
    assert len(set(re.findall(r"checksum (\w+)", text))) == 1, text


@pytest.mark.thorough
@pytest.mark.parametrize(
    "flags",
    [
        pytest.param([], id="plain"),
        pytest.param(["-mbranch-protection=standard"], id="PAC and BTI", marks=pytest.mark.slow),
    ],
)
def test_storm_and_sizes_on_aarch64(tmp_path: Path, flags: list[str]) -> None:
    need(CROSS, QEMU)
    seed = random.randrange(2**32)
    print(f"SEED={seed}")

    def built(source: str) -> Path:
        return compile_program(source, tmp_path, compiler=CROSS, machine="aarch64", flags=["-static", *flags])

    text = output(QEMU, "-cpu", "max,pauth-impdef=on", built("coro_main.c"), str(seed))
    assert len(set(re.findall(r"checksum (\w+)", text))) == 1, text
    assert "mismatches 0" in text
    assert sizes(output(QEMU, "-cpu", "max,pauth-impdef=on", built("coro_sizes.c"))) == SIZES["aarch64"]


@pytest.mark.thorough
def test_memcheck_finds_nothing_on_separate_stacks(tmp_path: Path) -> None:
    need("valgrind")
    program = compile_program("coro_main.c", tmp_path, flags=["-O1"])
    text = output("valgrind", "-q", "--error-exitcode=9", program, "1", "separate")
    assert "mismatches 0" in text


def test_the_stack_is_not_executable(tmp_path: Path) -> None:
    need("readelf")
    program = compile_program("coro_sizes.c", tmp_path)
    stack = next(line for line in output("readelf", "-lW", program).splitlines() if "GNU_STACK" in line)
    assert "RWE" not in stack
    assert "RW " in stack


@pytest.mark.thorough
@pytest.mark.parametrize("break_at", ["reply", "read_request"])
def test_gdb_sees_the_running_coroutine_to_its_end(tmp_path: Path, break_at: str) -> None:
    need("gdb")
    program = compile_program("coro_sizes.c", tmp_path)
    commands = [f"break {break_at}", "run", "continue 3", "bt"]
    words = ["gdb", "-nx", "-batch", *(w for c in commands for w in ("-ex", c)), str(program)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    if "ptrace" in done.stderr and "not permitted" in done.stderr:
        pytest.skip("gdb may not trace here")
    frames = re.findall(r"^#\d+ .*$", done.stdout, re.MULTILINE)
    assert "coro_start_" in frames[-1], done.stdout + done.stderr
    assert 2 <= len(frames) <= 5, frames
    assert "corrupt" not in done.stdout


@pytest.mark.thorough
def test_gdb_shows_waiting_coroutines_and_the_program_goes_on(tmp_path: Path) -> None:
    """By image and by template; afterwards the program ends as if nobody had looked."""
    need("gdb")
    program = compile_program("coro_sizes.c", tmp_path)
    show = "coro-bt s &conns[3].co &conns[3]"
    stop = ["continue", show]
    commands = [
        "source sdk/coro/backtrace.py",
        "break median_stored",
        "run",
        show,
        *stop * 5,
        "delete",
        "continue",
    ]
    words = ["gdb", "-nx", "-batch", *(w for c in commands for w in ("-ex", c)), str(program)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    if "ptrace" in done.stderr and "not permitted" in done.stderr:
        pytest.skip("gdb may not trace here")
    frames = re.findall(r"^#\d+ +(?:0x\w+ in )?(\w+)", done.stdout, re.MULTILINE)
    once = [["echo_by_copy"], ["echo_by_view"], ["read_request", "serve_one", "http"]]
    assert frames == [name for names in once for name in [*names, "coro_start_"] * 2], (
        done.stdout + done.stderr
    )
    assert sizes("\n".join(re.findall(r"^\w+ \d+ \d+ \d+$", done.stdout, re.MULTILINE))) == SIZES[HERE]


@pytest.mark.thorough
def test_gdb_unwinds_from_within_the_wait(tmp_path: Path) -> None:
    need("gdb")
    program = compile_program("coro_sizes.c", tmp_path)
    words = ["gdb", "-nx", "-batch", "-ex", "break coro_wait", "-ex", "run", "-ex", "bt", str(program)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    if "ptrace" in done.stderr and "not permitted" in done.stderr:
        pytest.skip("gdb may not trace here")
    frames = re.findall(r"^#\d+ .*$", done.stdout, re.MULTILINE)
    assert "coro_start_" in frames[-1], done.stdout + done.stderr


def die(call: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(sys.path)
    code = f"import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); from _coro import lib; lib.{call}"
    env = {**os.environ, "PYTHONPATH": paths}
    words = [sys.executable, "-c", code]
    return subprocess.run(words, capture_output=True, text=True, env=env, timeout=60, check=False)


@pytest.mark.parametrize("backend", ["CORO_SHARED", "CORO_SEPARATE_STACKS"])
def test_an_overflow_names_the_connection_and_dies(backend: str) -> None:
    done = die(f"die_of_overflow(lib.{backend}, 4711)")
    assert done.returncode == -11
    assert done.stderr.splitlines()[0] == (
        "janus: stack overflow in the coroutine of connection 4711: its handler needs more than the stack of"
        " 65536 bytes (deep recursion, or a large array on the stack)"
    )


@pytest.mark.parametrize("backend", ["CORO_SHARED", "CORO_SEPARATE_STACKS"])
def test_other_faults_are_not_called_overflow(backend: str) -> None:
    done = die(f"die_elsewhere(lib.{backend})")
    assert done.returncode == -11
    assert "overflow" not in done.stderr


def test_a_handler_installed_before_gets_the_fault_after_the_message() -> None:
    done = die("die_of_overflow(0, 1) if __import__('faulthandler').enable() is None else 0")
    assert done.returncode == -11
    assert "connection 1:" in done.stderr
    assert "Fatal Python error: Segmentation fault" in done.stderr
