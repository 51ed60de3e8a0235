"""janusd's command line: python -m janusd --config FILE [--check]."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import click

from janusd import config, log_format
from janusd.checks import EX_CONFIG, EX_SOFTWARE, StartError
from janusd.notify import Notifier

log = logging.getLogger("janusd")

DEFAULT_CONFIG = "/etc/janus/janusd.toml"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "path", default=DEFAULT_CONFIG, show_default=True, help="The configuration.")
@click.option("--check", is_flag=True, help="Print ok or all errors of the configuration, and start nothing.")
def main(path: str, check: bool) -> None:
    """Own the network ports and serve them to applications."""
    try:
        loaded = config.load(path)
    except config.ConfigError as error:
        for text in error.texts:
            click.echo(text, err=True)
        sys.exit(EX_CONFIG)
    if check:
        click.echo("ok")
        return
    daemon = loaded.daemon
    log_format.configure(daemon.log_level, daemon.log_format, journal="JOURNAL_STREAM" in os.environ)
    sys.exit(_run(loaded))


def _run(loaded: config.Config) -> int:
    """Start, serve, stop. Returns the exit code."""
    try:
        from janusd.daemon import Daemon  # the only import that needs the data plane
    except ImportError as error:
        log.error("the data plane is not built here: %s: make build", error)
        return EX_SOFTWARE

    async def serve() -> None:
        running = Daemon(loaded, asyncio.get_running_loop(), Notifier())
        try:
            running.start()
            await running.run()
        finally:
            running.stop()

    try:
        asyncio.run(serve())
    except StartError as error:
        log.error("janusd does not start: %s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    main()
