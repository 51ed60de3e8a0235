"""``python -m janus_tcp run module:handler``: serve a handler without a line of code around it."""

import argparse
import importlib
import importlib.util
import logging
import os
import sys
from pathlib import Path
from typing import Any

from janus_tcp.c_handlers import is_c_target
from janus_tcp.run import DRAIN_S, run


def load(target: str) -> Any:
    """The object that ``module:name`` or ``path.py:name`` means; ``path.so:name`` is run()'s to load."""
    where, colon, name = target.rpartition(":")
    if not colon or not where or not name:
        raise SystemExit(f"janus: '{target}' is not module:handler")
    if is_c_target(target):
        return target
    try:
        if where.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(where).stem, where)
            if spec is None or spec.loader is None or not Path(where).is_file():
                raise SystemExit(f"janus: there is no file {where}")
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            spec.loader.exec_module(module)
        else:
            sys.path.insert(0, os.getcwd())
            module = importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name and where.startswith(error.name):
            raise SystemExit(f"janus: there is no module {where}") from None
        raise
    try:
        return getattr(module, name)
    except AttributeError:
        raise SystemExit(f"janus: {where} has no {name}") from None


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="janus", description="Serve TCP on Janus, the user-level stack.")
    commands = top.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("run", help="serve an async handler")
    serve.add_argument(
        "handler", help="module:function or path.py:function, async; or path.so:function, in C"
    )
    serve.add_argument("--port", type=int, required=True)
    serve.add_argument("--host", help="one address of the app; all of them when left out")
    serve.add_argument("--app", help="name in janusd's policy; else $JANUS_APP, else 'default'")
    serve.add_argument(
        "--socket", help="janusd's attach socket; else $JANUS_SOCKET, else /run/janus/attach.sock"
    )
    serve.add_argument("--workers", type=int, default=1, help="processes, each with a TCP thread")
    serve.add_argument("--user", help="become this user first (as root)")
    serve.add_argument("--group", help="become this group first (as root)")
    serve.add_argument(
        "--connections", type=int, default=0, help="most connections of one worker; 0: the policy's"
    )
    serve.add_argument(
        "--drain", type=float, default=DRAIN_S, metavar="SECONDS", help="time to end after SIGTERM"
    )
    serve.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    return top


def main(arguments: list[str] | None = None) -> int:
    """Parse, load, serve; errors are one line."""
    given = parser().parse_args(arguments)
    logging.basicConfig(
        level=given.log_level, format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"
    )
    handler = load(given.handler)
    try:
        run(
            handler,
            port=given.port,
            host=given.host,
            app=given.app,
            socket=given.socket,
            workers=given.workers,
            user=given.user,
            group=given.group,
            drain_s=given.drain,
            connections=given.connections,
        )
    except OSError as error:
        print(f"janus: {error.strerror or error}", file=sys.stderr)
        return 1
    except (KeyError, TypeError, ValueError) as error:
        print(f"janus: {error.args[0] if error.args else error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
