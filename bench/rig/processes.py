"""Child processes of a rig: started in a namespace, as a user, with their output in a file, and stopped by
process id.

A child is the leader of a session of its own, so that a Ctrl-C in the terminal reaches only the program
that started it, and dies with it.  An unprivileged child whose clone lies under a directory that it may not
enter sees the clone by a bind mount in a mount namespace of its own."""

import contextlib
import grp
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

REPO = Path(__file__).resolve().parents[2]
STOP_SECONDS = 10.0
LOG_TAIL_LINES = 30


def missing_privileges() -> str | None:
    """What keeps a rig from being built here, as a sentence; None when nothing does."""
    if os.geteuid() != 0:
        return "needs root: network namespaces, veth pairs and packet sockets"
    for command in ("ip", "ethtool", "setpriv", "unshare"):
        if shutil.which(command) is None:
            return f"needs the command {command}: run tools/install-packages"
    return None


def python() -> str:
    """The interpreter of the project's environment, or the running one where there is none."""
    own = REPO / ".venv" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


class Workdir:
    """A temporary directory that every user may enter, with the rig's configuration, sockets and logs."""

    def __init__(self, purpose: str) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=f"janus-{purpose}-"))
        self.path.chmod(0o755)

    def __enter__(self) -> "Workdir":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


class Process:
    """One child and its log."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        name: str,
        workdir: Path,
        namespace: str | None = None,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        interactive: bool = False,
    ) -> None:
        """Start argv as root, or as user, "NAME" or "NAME:GROUP".  Interactive: the child reads commands
        from us and answers on its standard output, line by line."""
        self.name = name
        self.log = workdir / f"{name}.log"
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                [*_namespace_words(namespace), *_user_words(user), *argv],
                stdin=subprocess.PIPE if interactive else subprocess.DEVNULL,
                stdout=subprocess.PIPE if interactive else log,
                stderr=log,
                cwd=REPO,
                env=_environment(env, user),
                start_new_session=True,
                text=True,
                bufsize=1,
            )

    @property
    def pid(self) -> int:
        """The process id of the program itself: every wrapper replaces itself by the next."""
        return self.child.pid

    def ask(self, command: str) -> str:
        """Send one line to an interactive child and return the line that it answers."""
        assert self.child.stdin is not None
        self.child.stdin.write(command + "\n")
        return self.answer()

    def answer(self) -> str:
        """The next line of an interactive child."""
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with {self.child.wait()}:\n{self.tail()}")
        return line.rstrip("\n")

    def alive(self) -> bool:
        """Whether the child still runs."""
        return self.child.poll() is None

    def text(self) -> str:
        """All that the child has written to its log."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def tail(self) -> str:
        """The last lines of the log, for an error message."""
        return "\n".join(self.text().splitlines()[-LOG_TAIL_LINES:])

    def wait(self, seconds: float) -> int:
        """Wait for the child's own end and return its exit status."""
        return self.child.wait(timeout=seconds)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the child and to the workers in its session, and with SIGKILL wait for the end."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, number)
        if number == signal.SIGKILL:
            self.child.wait()

    def stop(self, seconds: float = STOP_SECONDS) -> int:
        """Ask the child to end, and insist after a while.  Returns its exit status, negative for a signal."""
        if self.alive():
            self.child.terminate()
        try:
            status = self.child.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            print(f"{self.name} did not stop within {seconds:.0f} s of SIGTERM; killing it", file=sys.stderr)
            status = -signal.SIGKILL
        self.kill()
        for stream in (self.child.stdin, self.child.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        return status

    def __enter__(self) -> "Process":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def descendants(pid: int) -> list[int]:
    """pid and all its living children, for per-thread CPU accounting."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found.extend(int(word) for word in task.read_text().split())
    return found


def wait_until(condition: object, seconds: float, what: str, *, step: float = 0.02) -> None:
    """Poll a callable until it returns a true value; TimeoutError naming what was awaited otherwise."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(step)


def _namespace_words(namespace: str | None) -> list[str]:
    return [] if namespace is None else ["ip", "netns", "exec", namespace]


def _user_words(user: str | None) -> list[str]:
    lifeline = ["setpriv", "--pdeathsig", "KILL"]
    if user is None:
        return [*lifeline, "--"]
    name, _, group = user.partition(":")
    entry = pwd.getpwnam(name)
    gid = grp.getgrnam(group).gr_gid if group else entry.pw_gid
    identity = [
        *("--reuid", str(entry.pw_uid), "--regid", str(gid), "--clear-groups"),
        *("--no-new-privs", "--inh-caps", "-all", "--bounding-set", "-all"),
    ]
    return [*_opened_clone(), *lifeline, *identity, "--"]


def _opened_clone() -> list[str]:
    """Words that open the way to the clone for a user who may not enter a directory above it; none when all
    may."""
    closed = [parent for parent in REPO.parents if not parent.stat().st_mode & stat.S_IXOTH]
    if not closed:
        return []
    script = (
        'mount --bind "$1" /mnt && mount -t tmpfs -o mode=755 none "$2" && mkdir -p "$1" '
        '&& mount --bind /mnt "$1" && umount /mnt && shift 2 && cd "$0" && exec "$@"'
    )
    return ["unshare", "--mount", "sh", "-c", script, str(REPO), str(REPO), str(closed[-1])]


def _environment(extra: Mapping[str, str] | None, user: str | None) -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "TERM") if key in os.environ}
    kept["PYTHONDONTWRITEBYTECODE"] = "1"
    kept["PYTHONUNBUFFERED"] = "1"
    kept["HOME"] = "/nonexistent" if user is not None else os.environ.get("HOME", "/")
    return {**kept, **(extra or {})}
