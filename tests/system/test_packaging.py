"""The SDK builds, installs and serves on its own: from a copy of the tracked files, without DPDK's compiler flags."""

import os
import subprocess
import sys
from pathlib import Path

from tests.test_house import ROOT, tracked

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


def test_the_sdk_alone(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for path in tracked("sdk", "dpdk_glue", "janusd", "Makefile", "pyproject.toml", "setup.py", "README.md"):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes((ROOT / path).read_bytes())
    # A pkg-config that knows no DPDK: a machine that has none.
    env = {**os.environ, "PKG_CONFIG_LIBDIR": str(tmp_path), "PKG_CONFIG_PATH": ""}
    pip = (
        sys.executable,
        "-m",
        "pip",
        "-q",
        "install",
        "--no-build-isolation",
        "--no-deps",
        "--target",
        target,
        ".",
    )
    run(*pip, cwd=source, env=env)
    assert {p.name for p in target.iterdir() if p.is_dir()} & {"janus_tcp", "janusd", "dpdk_glue"} == {
        "janus_tcp"
    }
    assert (target / "janus_tcp" / "py.typed").exists()
    assert [p.name for p in (target / "bin").iterdir()] == ["janus"]
    # Outside the checkout and before its editable install on the path.
    env["PYTHONPATH"] = str(target)
    assert run(sys.executable, "-c", ECHO, cwd=tmp_path, env=env) == "sdk alone\n"
    where = run(sys.executable, "-c", "import janus_tcp; print(janus_tcp.__file__)", cwd=tmp_path, env=env)
    assert where.startswith(str(target))
