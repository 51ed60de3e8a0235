"""asyncio on Janus: an event loop for applications as they are.

asyncio.run(main(), loop_factory=janus_tcp.asyncio.new_event_loop)      CPython 3.12 and later
with asyncio.Runner(loop_factory=janus_tcp.asyncio.new_event_loop) as runner: ...
uvicorn --loop janus_tcp.asyncio:new_event_loop app:app
python -m janus_tcp.asyncio aiohttp.web app:main                        whatever asks asyncio for a loop
"""

import argparse
import asyncio
import logging
import os
import runpy
import socket
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from janus_tcp.asyncio_loop import JanusEventLoop
from janus_tcp.asyncio_workers import Membership
from janus_tcp.run import DRAIN_S, RETIRE_S, WAIT_STEP_S
from janus_tcp.scheduler import DEFAULT_SOCKET
from janus_tcp.workers import Report, supervise

SHORTCUTS = (  # functions of aiofastnet that make transports beside the loop
    "create_connection",
    "create_server",
    "open_connection",
    "sendfile",
    "start_server",
    "start_tls",
)


def new_event_loop() -> JanusEventLoop:
    """A new event loop on Janus; $JANUS_APP, $JANUS_SOCKET and $JANUS_CONNECT say the rest.

    Raises ValueError for a network of $JANUS_CONNECT that is none.

    >>> with asyncio.Runner(loop_factory=new_event_loop) as runner:
    ...     runner.run(asyncio.sleep(0, "done"))
    'done'
    """
    steer_installed()
    return JanusEventLoop()


def steer_installed() -> None:
    """steer_back() aiofastnet where it is installed, whether or not something has imported it yet."""
    module = sys.modules.get("aiofastnet")
    if module is None and find_spec("aiofastnet") is not None:
        module = import_module("aiofastnet")
    if module is not None:
        steer_back(module)


def steer_back(module: Any) -> None:
    """Have aiofastnet, which makes kernel transports past the event loop, ask a Janus loop instead.

    Other loops are served as before.  patch_loop(), and with it aiofastnet's loop_factory() and policy, leaves a
    Janus loop as it is.  new_event_loop() and main() call it where aiofastnet is installed.
    Never raises.

    >>> from types import SimpleNamespace
    >>> module = SimpleNamespace(create_server=lambda loop, *args: "past the loop")
    >>> steer_back(module)
    >>> module.create_server(asyncio.SelectorEventLoop)
    'past the loop'
    """

    def by_loop(shortcut: Any, method: str) -> Any:
        def call(loop: asyncio.AbstractEventLoop, *args: Any, **kwargs: Any) -> Any:
            if not isinstance(loop, JanusEventLoop):
                return shortcut(loop, *args, **kwargs)
            for unknown in ("ssl_incoming_bio_size", "ssl_outgoing_bio_size"):
                kwargs.pop(unknown, None)
            own = getattr(loop, method, None) or getattr(asyncio, method)
            return own(*args, **kwargs)

        call.on_janus = True  # type: ignore[attr-defined]
        return call

    for name in SHORTCUTS:
        shortcut = getattr(module, name, None)
        if shortcut is not None and not hasattr(shortcut, "on_janus"):
            setattr(module, name, by_loop(shortcut, name))
    patch = getattr(module, "patch_loop", None)
    if patch is None or hasattr(patch, "on_janus"):
        return

    def patch_loop(loop: asyncio.AbstractEventLoop | None = None) -> Any:
        loop = loop or asyncio.get_running_loop()
        return loop if isinstance(loop, JanusEventLoop) else patch(loop)

    patch_loop.on_janus = True  # type: ignore[attr-defined]
    for where in (module, sys.modules.get(getattr(patch, "__module__", ""))):
        if getattr(where, "patch_loop", None) is patch:
            where.patch_loop = patch_loop  # type: ignore[union-attr]


class _Policy(asyncio.DefaultEventLoopPolicy):
    """Every loop is one on Janus."""

    def new_event_loop(self) -> JanusEventLoop:
        return new_event_loop()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m janus_tcp.asyncio", description="Run an asyncio program with its TCP on Janus."
    )
    made.add_argument("--workers", type=int, default=0, help="so many processes, which SIGHUP replaces")
    made.add_argument("--drain", type=float, default=DRAIN_S, metavar="SECONDS", help="to end after SIGTERM")
    made.add_argument(
        "--retire",
        type=float,
        default=RETIRE_S,
        metavar="SECONDS",
        help="that former workers have after SIGHUP to end with their last connection",
    )
    made.add_argument(
        "--wait",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="wait for janusd when it is not there; inf: as long as it takes",
    )
    made.add_argument("program", help="a module, or a file that ends in .py")
    made.add_argument("arguments", nargs=argparse.REMAINDER)
    return made


def await_janusd(wait_s: float) -> None:
    """Wait until somebody answers at $JANUS_SOCKET, at most so many seconds: a program that then finds nobody says why.

    Here and not where a loop attaches, so that a signal ends the process as long as its program has not begun.
    """
    path = os.environ.get("JANUS_SOCKET") or DEFAULT_SOCKET
    end_s = time.monotonic() + wait_s
    said = False
    while time.monotonic() < end_s:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            try:
                asking.connect(path)
            except (FileNotFoundError, ConnectionRefusedError) as error:
                if not said:
                    print(
                        f"janus: waiting for janusd at {path}: {error.strerror}", file=sys.stderr, flush=True
                    )
                said = True
            except OSError:
                return  # it is there, and whoever attaches is told what is wrong
            else:
                return
        time.sleep(WAIT_STEP_S)


def run_program(words: list[str]) -> None:
    """Run a module or a script with its arguments; every event loop that it asks asyncio for is on Janus."""
    steer_installed()
    asyncio.set_event_loop_policy(_Policy())
    sys.argv = list(words)
    if words[0].endswith(".py"):
        sys.path[0] = str(Path(words[0]).resolve().parent)
        runpy.run_path(words[0], run_name="__main__")
    else:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)


def main(words: list[str] | None = None) -> None:
    """The command line: a program in this process, or with --workers in children that are reloaded.

    words are its arguments, those of the process when None.  SystemExit with what is wrong of them, and with
    janusd's reason when workers cannot start.

    >>> main(["--help"])
    Traceback (most recent call last):
    SystemExit: 0
    """
    given = parser().parse_args(words)
    program = [given.program, *given.arguments]
    if not given.workers:
        await_janusd(given.wait)
        run_program(program)
        return

    def worker(report: Report) -> None:
        await_janusd(given.wait)
        JanusEventLoop._membership = Membership(report, given.retire)
        run_program(program)

    logging.basicConfig(level="INFO", format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s")
    try:
        supervise(given.workers, worker, given.drain, retire_s=given.retire + given.drain)
    except OSError as error:
        raise SystemExit(f"janus: {error.strerror or error}") from None


__all__ = ["JanusEventLoop", "main", "new_event_loop", "steer_back"]

if __name__ == "__main__":
    main()
