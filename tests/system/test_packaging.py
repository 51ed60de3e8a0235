"""The SDK's wheel: built from a copy of the tracked files without DPDK, for each CPython that the machine has;
installed without a compiler; and the SDK's tests pass there.
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.test_house import ROOT, tracked

OTHERS = ("3.12", "3.13")
TESTS = [f"tests/unit/test_sdk_{part}.py" for part in ("connection", "options", "stop", "tasks", "views")]
TESTS += [f"tests/unit/test_asyncio_{part}.py" for part in ("misuse", "transport")]

ECHO = """
import janus_tcp
from janus_tcp.testing import Pair

async def handle(conn):
    async for data in conn:
        await conn.send(data)

async def ask(host):
    conn = await janus_tcp.connect(host, 7)
    await conn.send(b"sdk alone")
    answer = await conn.recv_exactly(9)
    conn.close()
    return answer

with Pair() as pair:
    pair.serve(handle, 7)
    print(pair.run(ask(pair.host)).decode())
"""


def run(*words: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(w) for w in words], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{words}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


def interpreter(version: str) -> str | None:
    """A CPython of that version with its headers; None: the machine has none."""
    homes = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"))
    for found in (shutil.which(f"python{version}"), *map(str, homes)):
        if found is None:
            continue
        where = "import sysconfig; print(sysconfig.get_path('include'))"
        done = subprocess.run([found, "-c", where], capture_output=True, text=True, check=False)
        if done.returncode == 0 and Path(done.stdout.strip(), "Python.h").exists():
            return found
    return None


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tracked files that the SDK is made of."""
    made = tmp_path_factory.mktemp("packaging") / "source"
    for path in tracked("sdk", "dpdk_glue", "janusd", "Makefile", "pyproject.toml", "setup.py", "README.md"):
        (made / path).parent.mkdir(parents=True, exist_ok=True)
        (made / path).write_bytes((ROOT / path).read_bytes())
    run("make", "-s", "libs", cwd=made, env={**os.environ, "JANUS_WITHOUT_DPDK": "1"})
    return made


def built(python: str, source: Path, wheels: Path) -> Path:
    """The wheel, made where pkg-config knows no DPDK."""
    env = {**os.environ, "PKG_CONFIG_LIBDIR": str(wheels), "PKG_CONFIG_PATH": ""}
    pip = (python, "-m", "pip", "-q", "wheel", "--no-build-isolation", "--no-deps", "-w", wheels, ".")
    run(*pip, cwd=source, env=env)
    (wheel,) = wheels.glob("janus_tcp-*.whl")
    return wheel


def installed(python: str, wheel: Path, target: Path) -> dict[str, str]:
    """The wheel in target, by a pip that finds no compiler; an environment in which it is found first."""
    bare = {"PATH": "/nonexistent", "CC": "/bin/false", "HOME": str(target)}
    run(
        *(python, "-m", "pip", "-q", "install", "--no-index", "--no-deps", "--target", target, wheel),
        cwd=target.parent,
        env=bare,
    )
    return {**os.environ, "PYTHONPATH": str(target)}


def test_the_sdk_alone(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    env = installed(sys.executable, built(sys.executable, source, tmp_path), target)
    assert {p.name for p in target.iterdir() if p.is_dir()} & {"janus_tcp", "janusd", "dpdk_glue"} == {
        "janus_tcp"
    }
    assert (target / "janus_tcp" / "py.typed").exists()
    assert [p.name for p in (target / "bin").iterdir()] == ["janus"]
    # Outside the checkout and before its editable install on the path.
    assert run(sys.executable, "-c", ECHO, cwd=tmp_path, env=env) == "sdk alone\n"
    where = run(sys.executable, "-c", "import janus_tcp; print(janus_tcp.__file__)", cwd=tmp_path, env=env)
    assert where.startswith(str(target))


def tried(found: str, source: Path, work: Path) -> str:
    """Build and install the wheel for another interpreter and run the tests there; what keeps that from being tried."""
    shutil.copytree(source, work / "source")
    run(found, "-m", "venv", work / "venv", cwd=work)
    python = str(work / "venv" / "bin" / "python")
    wanted = ("setuptools", "cffi", "pytest", "pytest-timeout")
    got = subprocess.run([python, "-m", "pip", "-q", "install", *wanted], capture_output=True, check=False)
    if got.returncode != 0:
        return f"nothing to build with: {got.stderr.decode()[-200:]}"
    env = installed(python, built(python, work / "source", work), work / "target")
    for test in TESTS:
        shutil.copy(ROOT / test, work)
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", work)
    run(python, *words, *(work / Path(test).name for test in TESTS), cwd=work, env=env)
    return ""


def test_the_wheels_of_other_cpythons(source: Path, tmp_path: Path) -> None:
    found = {version: interpreter(version) for version in OTHERS}
    with ThreadPoolExecutor() as pool:
        ways = {}
        for version, python in found.items():
            (tmp_path / version).mkdir()
            if python is not None:
                ways[version] = pool.submit(tried, python, source, tmp_path / version)
        missing = {version: "no such CPython with headers" for version in OTHERS if version not in ways}
        missing |= {version: way.result() for version, way in ways.items() if way.result()}
    if missing:
        pytest.skip(str(missing))
