"""pyright on the SDK: no error in it, and every public name has a type that is wholly known."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from _coro import lib

ROOT = Path(__file__).resolve().parents[2]
PYRIGHT = Path(sys.executable).parent / "pyright"
UNTYPED = {"janus_tcp.asyncio_gunicorn.UvicornWorker"}  # of a class that has no types itself

pytestmark = [
    pytest.mark.thorough,  # mypy has judged it
    pytest.mark.skipif(
        lib.built_with_asan(), reason="a judge of types, not under AddressSanitizer's preload"
    ),
    pytest.mark.skipif(
        not PYRIGHT.exists() or shutil.which("node") is None, reason="pyright or node is not installed"
    ),
]


def pyright(*words: str, path: Path = ROOT) -> dict[str, Any]:
    """What pyright says, decoded."""
    command = [str(PYRIGHT), "--pythonpath", sys.executable, "--outputjson", *words]
    env = dict(os.environ, PYTHONPATH=str(path), PYRIGHT_PYTHON_IGNORE_WARNINGS="1")
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200, check=False
    )
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_pyright_finds_nothing() -> None:
    said = pyright("sdk/janus_tcp")
    assert said["summary"]["filesAnalyzed"] > 20
    assert [f"{d['file']}: {d['message']}" for d in said["generalDiagnostics"]] == []


def test_every_public_name_has_a_known_type(tmp_path: Path) -> None:
    (tmp_path / "janus_tcp").symlink_to(ROOT / "sdk" / "janus_tcp")  # as it would be installed
    report = pyright("--verifytypes", "janus_tcp", "--ignoreexternal", path=tmp_path)["typeCompleteness"]
    public = [symbol for symbol in report["symbols"] if symbol["isExported"]]
    assert len(public) > 100
    unknown = {s["name"] for s in public if not s["isTypeKnown"] or s["isTypeAmbiguous"]}
    assert unknown == UNTYPED
