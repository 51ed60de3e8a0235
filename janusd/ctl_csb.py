"""janusctl csb ...: weights, drains and the automatic mode of the balancer."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import click

from janusd import ctl_tables as tables
from janusd.ctl_client import EX_TEMPFAIL, Client, CtlError
from janusd.ctl_commands import Options, app_names, json_option

WATCH_S = 1.0
WAIT_POLL_S = 0.5

Json = Any
Command = TypeVar("Command", bound=Callable[..., Any])


class WeightOf(click.ParamType[tuple[int, float]]):
    """TID=WEIGHT."""

    name = "TID=WEIGHT"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, float]:
        """A pair of numbers."""
        tid, _, weight = str(value).partition("=")
        try:
            return int(tid), float(weight)
        except ValueError:
            self.fail(f"{value!r} is not TID=WEIGHT, such as 3=1.5", param, ctx)


def change_options(command: Command) -> Command:
    """What every change that moves keys can be told."""
    for option in (
        json_option,
        click.option("--dry-run", is_flag=True, help="Say what would move; change nothing."),
        click.option(
            "--confirm",
            "confirm_s",
            type=click.FloatRange(1, 3600),
            metavar="SECONDS",
            help="Undo it after so long, unless csb confirm comes.",
        ),
        click.option(
            "--epoch",
            "expected_epoch",
            type=click.IntRange(0),
            help="Only if the circle's epoch is still this one.",
        ),
    ):
        command = option(command)
    return command


app_argument = click.argument("app", shell_complete=app_names)
tid_argument = click.argument("tid", type=click.IntRange(0, 255))


@click.group()
def csb() -> None:
    """The balancer: who gets which part of new connections. Connections stay where they are."""


@csb.command()
@json_option
@click.argument("app", required=False, shell_complete=app_names)
@click.option("--circle", is_flag=True, help="With the owner of every slot.")
@click.pass_obj
def show(options: Options, app: str | None, circle: bool) -> None:
    """Weights, shares, loads, exceptions, the last updates and their phases."""
    options.run(lambda client: client.ask("csb_show", app=app, circle=circle or None), tables.show_csb)


@csb.command()
@json_option
@click.argument("app", required=False, shell_complete=app_names)
@click.pass_obj
def watch(options: Options, app: str | None) -> None:
    """The same with the circle, live."""
    options.watch = options.watch or WATCH_S
    options.run(lambda client: client.ask("csb_show", app=app, circle=True), tables.show_csb)


@csb.command()
@json_option
@click.argument("src")
@click.argument("sport", type=click.IntRange(0, 65535))
@click.argument("dst")
@click.argument("dport", type=click.IntRange(0, 65535))
@click.pass_obj
def explain(options: Options, src: str, sport: int, dst: str, dport: int) -> None:
    """Which thread gets packets from SRC SPORT to DST DPORT, and which structure decides."""
    options.run(
        lambda client: client.ask("csb_explain", src=src, sport=sport, dst=dst, dport=dport),
        tables.show_explained,
    )


@csb.command("set")
@change_options
@app_argument
@click.argument("weights", nargs=-1, required=True, type=WeightOf(), metavar="TID=WEIGHT...")
@click.pass_obj
def set_(options: Options, /, app: str, weights: tuple[tuple[int, float], ...], **how: Json) -> None:
    """Give threads new weights; those that are not named keep theirs. Returns when it is in force."""
    wanted = {str(tid): weight for tid, weight in weights}
    options.once(lambda client: client.ask("csb_set", app=app, weights=wanted, **how), tables.show_change)


@csb.command()
@change_options
@click.option("--wait", is_flag=True, help="Return when the thread has no connection left.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0), help="Wait no longer: exit code 75.")
@app_argument
@tid_argument
@click.pass_obj
def drain(options: Options, /, app: str, tid: int, wait: bool, timeout_s: float | None, **how: Json) -> None:
    """Give a thread no new connections; those that it has stay until they close."""

    def ask(client: Client) -> Json:
        result = client.ask("csb_drain", app=app, tid=tid, **how)
        if wait and not how["dry_run"]:
            await_drained(client, app, tid, timeout_s)
        return result

    options.once(ask, tables.show_change)


def await_drained(client: Client, app: str, tid: int, timeout_s: float | None) -> None:
    """Until the thread has no connection, or is gone."""
    until = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        [found] = client.ask("csb_show", app=app)
        left = next((t["connections"] for t in found["threads"] if t["tid"] == tid), 0)
        if not left:
            return
        if until is not None and time.monotonic() >= until:
            raise CtlError(f"thread {tid} still has {left} connections", EX_TEMPFAIL)
        time.sleep(WAIT_POLL_S)


@csb.command()
@change_options
@app_argument
@tid_argument
@click.pass_obj
def undrain(options: Options, /, app: str, tid: int, **how: Json) -> None:
    """Give a drained thread its former weight back."""
    options.once(lambda client: client.ask("csb_undrain", app=app, tid=tid, **how), tables.show_change)


@csb.command()
@json_option
@app_argument
@click.pass_obj
def confirm(options: Options, app: str) -> None:
    """What was changed with --confirm stays."""
    options.once(lambda client: client.ask("csb_confirm", app=app), tables.show_auto)


@csb.command()
@json_option
@click.argument("state", type=click.Choice(["on", "off"]))
@click.argument("apps", nargs=-1, metavar="[APP]...", shell_complete=app_names)
@click.pass_obj
def auto(options: Options, state: str, apps: tuple[str, ...]) -> None:
    """The automatic mode on or off, of these apps or of all."""

    def ask(client: Client) -> Json:
        names = apps or tuple(app["app"] for app in client.ask("csb_show"))
        return [client.ask("csb_auto", app=name, on=state == "on") for name in names]

    options.once(ask, lambda result: "\n".join(str(tables.show_auto(one)) for one in result))
