"""``python -m janus_tcp run module:handler``: serve a handler without a line of code around it."""

import argparse
import errno
import logging
import sys

from janus_tcp.run import DRAIN_S, RETIRE_S, run


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
    serve.add_argument(
        "--retire",
        type=float,
        default=RETIRE_S,
        metavar="SECONDS",
        help="time that former workers have after SIGHUP to end with their last connection",
    )
    serve.add_argument(
        "--wait",
        type=float,
        nargs="?",
        const=float("inf"),
        default=0.0,
        metavar="SECONDS",
        help="wait for janusd when it is not there; without a number as long as it takes",
    )
    serve.add_argument(
        "--stats",
        type=float,
        nargs="?",
        const=10.0,
        default=0.0,
        metavar="SECONDS",
        help="a line about all workers every 10 or so many seconds",
    )
    serve.add_argument(
        "--slow",
        type=float,
        default=0.1,
        metavar="SECONDS",
        help="name who keeps a worker's loop so long; 0: no",
    )
    serve.add_argument("--huge-arenas", action="store_true", help="Python's objects in huge pages")
    serve.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    return top


def main(arguments: list[str] | None = None) -> int:
    """Parse, load, serve; errors are one line."""
    given = parser().parse_args(arguments)
    logging.basicConfig(
        level=given.log_level, format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"
    )
    try:
        run(
            given.handler,
            port=given.port,
            host=given.host,
            app=given.app,
            socket=given.socket,
            workers=given.workers,
            user=given.user,
            group=given.group,
            drain_s=given.drain,
            retire_s=given.retire,
            wait_s=given.wait,
            stats_s=given.stats,
            slow_s=given.slow,
            connections=given.connections,
            huge_arenas=given.huge_arenas,
        )
    except OSError as error:
        print(f"janus: {error.strerror or error}", file=sys.stderr)
        return 2 if error.errno == errno.EINVAL else 1
    except (KeyError, TypeError, ValueError) as error:
        print(f"janus: {error.args[0] if error.args else error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
