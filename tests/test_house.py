"""The house rules that a machine can hold: layers, lengths, bans, README commands."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 70

# Layer -> the layers whose headers it may include (docs/architecture.md).  tcp: of csb, the hash alone.
LAYERS: dict[str, set[str]] = {
    "sdk/wire": set(),
    "sdk/shm": set(),
    "sdk/csb": {"wire"},
    "sdk/tcp": {"wire", "csb/hash.h"},
    "sdk/coro": set(),
    "sdk/app": {"wire", "shm", "csb", "tcp", "coro"},
    "sdk/janus_tcp": {"app"},
    "dpdk_glue": {"wire", "shm", "csb"},
}
PYTHON_LAYERS: dict[str, set[str]] = {
    "sdk/janus_tcp": {"janus_tcp"},
    "dpdk_glue": {"dpdk_glue"},
    "janusd": {"janusd", "dpdk_glue"},
    "examples": {"janus_tcp"},
}
PACKAGES = {"janus_tcp", "janusd", "dpdk_glue"}
PURE_C = {"sdk/wire", "sdk/csb", "sdk/tcp"}
ENDS_THE_PROCESS = re.compile(r"\b(abort|exit|_exit|assert|rte_panic|rte_exit|RTE_ASSERT|RTE_VERIFY)\(")
BANNED_IN_PURE_C = {"time.h", "sys/time.h", "stdlib.h", "stdio.h", "pthread.h", "unistd.h"}


def tracked(*patterns: str) -> list[Path]:
    """Files that git tracks or would track, relative to the root."""
    command = ["git", "ls-files", "-co", "--exclude-standard", "--", *patterns]
    out = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sorted({Path(line) for line in out.splitlines() if (ROOT / line).is_file()})


def text(path: Path) -> str:
    return (ROOT / path).read_text()


def layer_of(path: Path, layers: dict[str, set[str]]) -> str | None:
    return next((name for name in layers if path.is_relative_to(name)), None)


def includes(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text(path).splitlines(), 1):
        if m := re.match(r'\s*#\s*include\s*[<"]([^>"]+)[>"]', line):
            yield number, m[1]


C_FILES = tracked("sdk/*.c", "sdk/*.h", "dpdk_glue/*.c", "dpdk_glue/*.h")
PY_FILES = tracked("*.py")
CODE = [*C_FILES, *PY_FILES, *tracked("bench/*.c", "tests/*.c", "*.S")]


def test_there_is_code_to_judge() -> None:
    assert len(C_FILES) > 20
    assert len(PY_FILES) > 20


def test_c_includes_point_downward() -> None:
    for path in C_FILES:
        judge_c_includes(path)


def judge_c_includes(path: Path) -> None:
    own = layer_of(path, LAYERS)
    assert own is not None, f"{path} is in no layer"
    noun = Path(own).name
    for number, header in includes(path):
        where = f"{path}:{number}: {header}"
        top = header.split("/")[0]
        if top in {Path(name).name for name in LAYERS} and "/" in header and top != noun:
            assert top in LAYERS[own] or header in LAYERS[own], f"{where} is not below {own}"
        if header.startswith("rte_"):
            assert own == "dpdk_glue", f"{where}: only dpdk_glue includes DPDK"
            assert path.name not in {"classify.c", "classify.h"}, f"{where}: classify is tested without DPDK"
        if own in PURE_C:
            assert header not in BANNED_IN_PURE_C, f"{where}: {own} is pure"


def test_nothing_that_an_app_writes_can_end_janusd() -> None:
    for path in C_FILES:
        if layer_of(path, LAYERS) in {"dpdk_glue", "sdk/shm"}:
            for number, line in enumerate(text(path).splitlines(), 1):
                assert not ENDS_THE_PROCESS.search(line), (
                    f"{path}:{number}: it is counted, and the session ends"
                )


def test_python_imports_point_downward() -> None:
    for path in PY_FILES:
        if layer_of(path, PYTHON_LAYERS):
            judge_python_imports(path)


def judge_python_imports(path: Path) -> None:
    own = layer_of(path, PYTHON_LAYERS)
    assert own is not None
    for node in ast.walk(ast.parse(text(path))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module]
        for name in names:
            package = name.split(".")[0]
            if package in PACKAGES:
                assert package in PYTHON_LAYERS[own], f"{path}:{node.lineno}: {own} must not import {package}"


def test_files_are_rooms() -> None:
    for path in CODE:
        lines = len(text(path).splitlines())
        assert lines <= FILE_LINES_MAX, f"{path} has {lines} lines: is there a second subject in it?"


def c_functions(path: Path) -> Iterator[tuple[int, int]]:
    """(first line, lines) of each function body; clang-format puts its braces in column 0."""
    start = 0
    for number, line in enumerate(text(path).splitlines(), 1):
        if line == "{":
            start = number
        elif line.startswith("}") and start:
            yield start, number - start + 1
            start = 0


def functions(path: Path) -> list[tuple[int, int]]:
    """(first line, lines) of each."""
    if path.suffix != ".py":
        return list(c_functions(path))
    return [
        (n.lineno, (n.end_lineno or n.lineno) - n.lineno + 1)
        for n in ast.walk(ast.parse(text(path)))
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def test_functions_are_short() -> None:
    for path in CODE:
        for line, length in functions(path):
            assert length <= FUNCTION_LINES_MAX, f"{path}:{line}: a function of {length} lines"


def test_headers_say_what_they_are() -> None:
    """That each is self-contained is for make headers."""
    for path in C_FILES:
        assert path.suffix != ".h" or text(path).startswith("/*"), (
            f"{path} does not begin with what lives here"
        )


def test_no_notes_and_no_machine_paths() -> None:
    bad = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|/(work|farm|root)/[A-Za-z.]")
    for path in tracked():
        if path == Path("tests/test_house.py") or path.suffix in {".bin", ".png"}:
            continue
        for number, line in enumerate(text(path).splitlines(), 1):
            assert not bad.search(line), f"{path}:{number}: {line.strip()}"


def test_shared_memory_code_never_aborts_on_what_an_app_wrote() -> None:
    """No assert, abort or lock in what janusd runs on an app's data; static_assert is fine."""
    bad = re.compile(r"(?<!static_)\bassert\s*\(|\babort\s*\(|pthread_mutex|rte_panic|RTE_ASSERT|rte_exit")
    for path in tracked("dpdk_glue/*.c", "dpdk_glue/*.h", "sdk/shm/*.c", "sdk/shm/*.h"):
        for number, line in enumerate(text(path).splitlines(), 1):
            assert not bad.search(line), f"{path}:{number}: {line.strip()}"


def test_every_tcp_drop_reason_is_hit_by_a_test() -> None:
    reasons = re.findall(r"^DROP\((\w+),", text(Path("sdk/tcp/drops.def")), re.MULTILINE)
    tests = "".join(text(p) for p in tracked("tests/unit/test_tcp*.py"))
    missing = [r for r in reasons if r != "NONE" and f"TCP_DROP_{r}" not in tests]
    assert not missing, f"no test names these drop reasons of sdk/tcp/drops.def: {missing}"


def test_readme_names_the_commands_that_exist() -> None:
    readme = text(Path("README.md"))
    makefile = text(Path("Makefile"))
    commands = set(re.findall(r"^\s*make (\w+)", readme, re.MULTILINE))
    assert {"demo", "test"} <= commands
    for target in commands:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"README: make {target} has no rule"
    assert "make test" in text(Path(".ci/run"))
