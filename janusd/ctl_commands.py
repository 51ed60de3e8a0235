"""janusctl's command line: what every verb shares, and the verbs that look."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

import click
from click.shell_completion import get_completion_class
from rich.console import Console, RenderableType
from rich.live import Live

from janusd import api_schema as schema
from janusd import ctl_tables as tables
from janusd.ctl_client import DEFAULT_SOCKET, Client, CtlError, RemoteClient

CONNS_SHOWN = 1000
COMPLETE_VAR = "_JANUSCTL_COMPLETE"

Json = Any
Command = TypeVar("Command", bound=Callable[..., Any])


class Options:
    """The options in front of the verb."""

    def __init__(self, where: Mapping[str, Any], json_: bool, watch: float | None) -> None:
        self.where = where
        self.json = json_
        self.watch = watch

    def run(self, ask: Callable[[Client], Json], show: Callable[[Json], RenderableType]) -> None:
        """Ask and show, once or until interrupted."""
        try:
            self._run(ask, show)
        except CtlError as error:
            fail(error)
        except (KeyboardInterrupt, BrokenPipeError):
            sys.exit(0)

    def once(self, ask: Callable[[Client], Json], show: Callable[[Json], RenderableType]) -> None:
        """Ask and show once, whatever --watch says: it is a change."""
        self.watch = None
        self.run(ask, show)

    def _run(self, ask: Callable[[Client], Json], show: Callable[[Json], RenderableType]) -> None:
        client = connect(self.where)
        if self.json:
            print(json.dumps(ask(client)), flush=True)
            while self.watch is not None:
                time.sleep(self.watch)
                print(json.dumps(ask(client)), flush=True)
            return
        width = None if sys.stdout.isatty() else 160
        console = Console(width=width, markup=False, emoji=False, highlight=False)
        if self.watch is None:
            console.print(show(ask(client)))
            return
        with Live(show(ask(client)), console=console, auto_refresh=False, screen=console.is_terminal) as live:
            while True:
                time.sleep(self.watch)
                live.update(show(ask(client)), refresh=True)


def connect(where: Mapping[str, Any]) -> Client:
    """The janusd that the options in front of the verb name."""
    if where.get("remote"):
        return RemoteClient(where["remote"], where.get("key"), where.get("server_key"))
    return Client(where.get("socket") or DEFAULT_SOCKET)


def fail(error: CtlError) -> NoReturn:
    """Say what is wrong and exit."""
    click.echo(f"janusctl: {error}", err=True)
    sys.exit(error.exit_code)


def json_option(command: Command) -> Command:
    """--json behind the verb too."""

    def note(context: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            context.obj.json = True

    option = click.option(
        "--json", is_flag=True, expose_value=False, callback=note, help="One JSON value instead of tables."
    )
    return option(command)


def app_names(context: click.Context, _: click.Parameter, typed: str) -> list[str]:
    """What the shell may complete: the configured apps, when janusd answers."""
    try:
        client = connect(context.find_root().params)
        return [app["name"] for app in client.ask("apps") if app["name"].startswith(typed)]
    except CtlError:
        return []


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--socket", default=DEFAULT_SOCKET, envvar="JANUS_CTL", show_default=True, help="janusd's control socket."
)
@click.option(
    "--remote",
    envvar="JANUS_REMOTE",
    metavar="tcp://HOST:PORT",
    help="A janus-gateway instead: janusd of another machine.",
)
@click.option("--key", envvar="JANUS_KEY", metavar="FILE", help="With --remote: this side's NAME.key_secret.")
@click.option(
    "--server-key", envvar="JANUS_SERVER_KEY", metavar="FILE", help="With --remote: the gateway's NAME.key."
)
@click.option("--json", "json_", is_flag=True, help="One JSON value instead of tables.")
@click.option("--watch", is_flag=True, help="Repeat until interrupted.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    help="Seconds between, with --watch.",
)
@click.pass_context
def main(context: click.Context, /, json_: bool, watch: bool, interval: float, **where: str | None) -> None:
    """Look at a running janusd, and move load between TCP threads.

    Exit codes: 0 done, 1 the update was given up and nothing has changed, 2 usage, 65 no such app, thread or weight,
    69 no janusd, 75 not now (changed meanwhile, unconfirmed, not yet drained), 76 protocol, 77 no permission, or a
    secret key that others may read, 78 no key.
    """
    context.obj = Options(where, json_, interval if watch else None)


def _simple(verb: str, show: Callable[[Json], RenderableType], text: str) -> None:
    @main.command(verb, help=text)
    @json_option
    @click.pass_obj
    def command(options: Options) -> None:
        options.run(lambda client: client.ask(verb), show)


_SIMPLE: Mapping[str, tuple[Callable[[Json], RenderableType], str]] = {
    "status": (tables.show_status, "How janusd is."),
    "ports": (tables.show_ports, "Ports, links, packets and drops."),
    "apps": (tables.show_apps, "The configured apps and what runs of them."),
    "services": (tables.show_services, "Which address and port belongs to which app."),
    "stats": (tables.show_stats, "All counters."),
    "neighbours": (tables.show_neighbours, "Who lives at which MAC address."),
}
for _verb, (_show, _text) in _SIMPLE.items():
    _simple(_verb, _show, _text)


@main.command()
@json_option
@click.option("--app", help="Of this app alone.", shell_complete=app_names)
@click.pass_obj
def threads(options: Options, app: str | None) -> None:
    """The attached TCP threads."""
    options.run(lambda client: client.ask("threads", app=app), tables.show_threads)


@main.command()
@json_option
@click.option("--app", help="Of this app alone.", shell_complete=app_names)
@click.option("--tid", type=click.IntRange(0, 255), help="Of this TCP thread alone.")
@click.option(
    "--limit", type=click.IntRange(1), default=CONNS_SHOWN, show_default=True, help="How many at most."
)
@click.pass_obj
def conns(options: Options, app: str | None, tid: int | None, limit: int) -> None:
    """Connections, as their rows in shared memory say."""

    def ask(client: Client) -> Json:
        found: list[Json] = []
        cursor: str | None = None
        while len(found) < limit:
            page = client.ask(
                "conns", app=app, tid=tid, limit=min(schema.PAGE_MAX, limit - len(found)), cursor=cursor
            )
            found += page["conns"]
            cursor = page["cursor"]
            if cursor is None:
                break
        return {"conns": found, "cursor": cursor}

    options.run(ask, tables.show_conns)


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes the shell complete janusctl's words, as in: eval "$(janusctl completion bash)"."""
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(main, {}, "janusctl", COMPLETE_VAR).source())
