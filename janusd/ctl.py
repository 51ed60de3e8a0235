"""janusctl: looks at a running janusd through its control API; tables for people, --json for programs.

A column whose name ends in > is set to the right.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import click
import zmq
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from janusd import api_schema as schema

TIMEOUT_MS = 3000
DEFAULT_SOCKET = "/run/janus/ctl.sock"
EX_UNAVAILABLE, EX_NOPERM, EX_PROTOCOL = 69, 77, 76
CONNS_SHOWN = 1000

Json = Any


class CtlError(Exception):
    """What janusctl says before it exits."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Client:
    """Asks one janusd."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._check_path()
        self._context = zmq.Context()
        self._number = 0

    def _check_path(self) -> None:
        if not os.path.exists(self._path):
            directory = os.path.dirname(self._path) or "."
            if os.path.exists(directory) and not os.access(directory, os.X_OK):
                raise CtlError(f"no permission to enter {directory}", EX_NOPERM)
            raise CtlError(
                f"janusd is not running here: there is no {self._path} (--socket names another one)",
                EX_UNAVAILABLE,
            )
        if not os.access(self._path, os.W_OK):
            text = f"no permission to use {self._path}: be root or in its group (admin_group in janusd.toml)"
            raise CtlError(text, EX_NOPERM)

    def ask(self, verb: str, **args: Json) -> Json:
        """The result of a request."""
        self._number += 1
        request = {"version": schema.VERSION, "id": str(self._number), "verb": verb}
        request |= {name: value for name, value in args.items() if value is not None}
        with self._context.socket(zmq.DEALER) as sock:
            sock.setsockopt(zmq.LINGER, 0)
            sock.setsockopt(zmq.RCVTIMEO, TIMEOUT_MS)
            sock.setsockopt(zmq.SNDTIMEO, TIMEOUT_MS)
            sock.connect(f"ipc://{self._path}")
            try:
                sock.send(json.dumps(request).encode())
                reply = json.loads(sock.recv())
            except zmq.Again:
                text = f"janusd does not answer on {self._path}: is it running?"
                raise CtlError(text, EX_UNAVAILABLE) from None
            except ValueError:
                raise CtlError("janusd's reply is not JSON", EX_PROTOCOL) from None
        if "error" in reply:
            error = reply["error"]
            raise CtlError(f"{error.get('field') or verb}: {error['text']}", EX_PROTOCOL)
        return reply["result"]


# --- tables ---


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        right = column.endswith(">")
        table.add_column(column.rstrip(">"), justify="right" if right else "left", overflow="fold")
    return table


def _number(value: float) -> str:
    return f"{value:,}"


def show_status(result: Json) -> RenderableType:
    """janusctl status."""
    table = Table(box=None, show_header=False, pad_edge=False)
    pages = "huge pages" if result["huge_pages"] else "small pages"
    for name, value in (
        (
            "janusd",
            f"{result['release']}, pid {result['pid']}, up {result['uptime_s']:.0f} s, ABI {result['abi']}",
        ),
        ("config", result["config"]),
        ("memory", pages),
        ("state", "recovering: apps of a former janusd may come back" if result["recovering"] else "serving"),
        ("ports", result["ports"]),
        ("apps", f"{result['apps']} configured, {result['threads']} TCP threads attached"),
        ("services", result["services"]),
        ("connections", _number(result["connections"])),
        ("neighbours", result["neighbours"]),
    ):
        table.add_row(name, str(value))
    io = _table("I/O threads", "#", "CPU", "running", "turns>", "busy turns>", "sleeps>", "busy>")
    for t in result["io_threads"]:
        seconds = t["busy_cycles"] / t["cycles_hz"] if t["cycles_hz"] else 0.0
        cpu = "any" if t["cpu"] is None else str(t["cpu"])
        running = "yes" if t["running"] else "NO"
        counts = (_number(t[name]) for name in ("turns", "busy_turns", "sleeps"))
        io.add_row(str(t["number"]), cpu, running, *counts, f"{seconds:.2f} s")
    return Group(table, "", io)


def show_ports(result: Json) -> RenderableType:
    """janusctl ports."""
    columns = (
        "port",
        "device",
        "MAC",
        "addresses",
        "MTU>",
        "link",
        "queues>",
        "RX packets>",
        "TX packets>",
        "drops>",
    )
    table = _table("Ports", *columns)
    drops = _table("Drops", "port", "reason", "packets>")
    for p in result:
        link = f"up, {p['link_mbps']} Mb/s" if p["link_up"] else "down"
        table.add_row(
            p["name"],
            p["device"],
            p["mac"],
            "\n".join(p["addresses"]),
            str(p["mtu"]),
            link,
            f"{p['rx_queues']}/{p['tx_queues']}",
            _number(p["rx_packets"]),
            _number(p["tx_packets"]),
            _number(sum(p["drops"].values())),
        )
        for reason, count in sorted(p["drops"].items(), key=lambda item: -item[1]):
            drops.add_row(p["name"], reason, _number(count))
    return Group(table, drops) if drops.row_count else table


def show_apps(result: Json) -> RenderableType:
    """janusctl apps."""
    table = _table("Apps", "app", "addresses", "ports", "source ports", "threads>", "connections>", "shares")
    for a in result:
        shares = " ".join(f"{tid}:{share:.1%}" for tid, share in a["shares"].items())
        threads = f"{a['threads']}/{a['threads_max']}"
        lists = ("\n".join(a["addresses"]), " ".join(a["ports"]), a["source_ports"])
        table.add_row(a["name"], *lists, threads, _number(a["connections"]), shares)
    return table


def show_services(result: Json) -> RenderableType:
    """janusctl services."""
    table = _table("Services", "address", "ports", "app", "kind", "threads")
    for s in result:
        table.add_row(s["address"], s["ports"], s["app"], s["kind"], " ".join(map(str, s["tids"])))
    return table


def show_threads(result: Json) -> RenderableType:
    """janusctl threads."""
    table = _table(
        "TCP threads",
        "app",
        "tid>",
        "state",
        "pid>",
        "uid>",
        "share>",
        "connections>",
        "RX slots held>",
        "violations>",
    )
    for t in result:
        held = f"{_number(t['rx_slots_held'])}/{_number(t['rx_slots'])}"
        numbers = (str(t["pid"]), str(t["uid"]), f"{t['share']:.1%}", _number(t["connections"]), held)
        table.add_row(t["app"], str(t["tid"]), t["state"], *numbers, str(t["violations"]))
    return table


def show_conns(result: Json) -> RenderableType:
    """janusctl conns."""
    table = _table("Connections", "app", "tid>", "state", "local", "remote", "SND.NXT>", "RCV.NXT>")
    for c in result["conns"]:
        ends = (_end(c["local"], c["local_port"]), _end(c["remote"], c["remote_port"]))
        table.add_row(c["app"], str(c["tid"]), c["state"], *ends, str(c["snd_nxt"]), str(c["rcv_nxt"]))
    return Group(table, "there are more: --limit") if result["cursor"] else table


def _end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def show_stats(result: Json) -> RenderableType:
    """janusctl stats."""
    table = _table("Counters that are not zero", "of", "name", "#>", "counter", "value>")
    for block in result:
        for name, value in block["counters"].items():
            if value:
                table.add_row(block["kind"], block["name"], str(block["number"]), name, _number(value))
    return table


def show_neighbours(result: Json) -> RenderableType:
    """janusctl neighbours."""
    table = _table("Neighbours", "port", "address", "MAC", "state")
    for n in result:
        table.add_row(n["port"], n["address"], n["mac"], n["state"])
    return table


# --- commands ---


class Options:
    """The options in front of the verb."""

    def __init__(self, socket: str, json_: bool, watch: float | None) -> None:
        self.socket = socket
        self.json = json_
        self.watch = watch

    def run(self, ask: Callable[[Client], Json], show: Callable[[Json], RenderableType]) -> None:
        """Ask and show, once or until interrupted."""
        try:
            self._run(ask, show)
        except CtlError as error:
            _fail(error)
        except (KeyboardInterrupt, BrokenPipeError):
            sys.exit(0)

    def _run(self, ask: Callable[[Client], Json], show: Callable[[Json], RenderableType]) -> None:
        client = Client(self.socket)
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


def _fail(error: CtlError) -> NoReturn:
    click.echo(f"janusctl: {error}", err=True)
    sys.exit(error.exit_code)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--socket", default=DEFAULT_SOCKET, envvar="JANUS_CTL", show_default=True, help="janusd's control socket."
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
def main(context: click.Context, socket: str, json_: bool, watch: bool, interval: float) -> None:
    """Look at a running janusd."""
    context.obj = Options(socket, json_, interval if watch else None)


def _simple(verb: str, show: Callable[[Json], RenderableType], text: str) -> None:
    @main.command(verb, help=text)
    @click.pass_obj
    def command(options: Options) -> None:
        options.run(lambda client: client.ask(verb), show)


_SIMPLE: Mapping[str, tuple[Callable[[Json], RenderableType], str]] = {
    "status": (show_status, "How janusd is."),
    "ports": (show_ports, "Ports, links, packets and drops."),
    "apps": (show_apps, "The configured apps and what runs of them."),
    "services": (show_services, "Which address and port belongs to which app."),
    "stats": (show_stats, "All counters."),
    "neighbours": (show_neighbours, "Who lives at which MAC address."),
}
for _verb, (_show, _text) in _SIMPLE.items():
    _simple(_verb, _show, _text)


@main.command()
@click.option("--app", help="Of this app alone.")
@click.pass_obj
def threads(options: Options, app: str | None) -> None:
    """The attached TCP threads."""
    options.run(lambda client: client.ask("threads", app=app), show_threads)


@main.command()
@click.option("--app", help="Of this app alone.")
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

    options.run(ask, show_conns)


if __name__ == "__main__":
    main()
