"""tools/demo: shows its table, and leaves nothing behind, however it ends."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.rig import REPO
from bench.rig.janusd import HUGE_PAGES_FILE
from bench.rig.processes import descendants

pytestmark = pytest.mark.alone  # it looks at what is left of all that was there


def traces(pid: int) -> list[str]:
    """What is on the machine of the demo that runs, or ran, as pid."""
    names = [entry.name for folder in ("/run/netns", "/dev/shm") for entry in Path(folder).glob("*")]
    return [name for name in names if str(pid) in name]


@contextmanager
def demo(hold: bool) -> Iterator[subprocess.Popen[str]]:
    """The demo as a terminal starts it: Ctrl-C is not ignored, even where this run was started so. A failing test ends
    it."""
    process = subprocess.Popen(
        ["tools/demo"],
        cwd=REPO,
        env={**os.environ, "DEMO": "hold" if hold else ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=30)


def folders() -> set[str]:
    """The demo's temporary directories."""
    return {path.name for path in Path("/tmp").glob("janus-demo-*")}


@pytest.mark.timeout(120)
def test_the_demo_shows_its_table_and_leaves_nothing() -> None:
    pages, before = HUGE_PAGES_FILE.read_text(), folders()
    with demo(hold=False) as process:
        text, _ = process.communicate(timeout=100)
    assert process.returncode == 0, text
    for expected in ("HTTP/1.1 200 OK", "requests/s", "connections/s", "by TCP thread 1", "dropped frames"):
        assert expected in text, text
    assert traces(process.pid) == []
    assert folders() <= before
    assert HUGE_PAGES_FILE.read_text() == pages


@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("moment", ["namespaces", "as user nobody", "wrk", "Ctrl-C"])
def test_the_demo_is_interrupted(moment: str, number: int) -> None:
    before = folders()
    with demo(hold=True) as process:
        assert process.stdout is not None
        seen = ""
        while moment not in seen:
            line = process.stdout.readline()
            assert line, seen
            seen += line
        time.sleep(0.3)  # into what the line has announced
        family = descendants(process.pid)
        process.send_signal(number)
        text = seen + process.communicate(timeout=60)[0]
    assert process.returncode in (0, 130), text
    assert "Traceback" not in text, text
    assert traces(process.pid) == [], text
    assert folders() <= before, text
    assert [pid for pid in family if Path(f"/proc/{pid}").exists()] == [], text
