"""janusctl's tables for people. A column whose name ends in > is set to the right."""

from __future__ import annotations

import time
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

Json = Any
STRIP = 64  # characters that show a circle
TIDS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
UPDATES_SHOWN = 8


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


def show_csb(result: Json) -> RenderableType:
    """janusctl csb show."""
    return Group(*(part for app in result for part in _csb_app(app)))


def _csb_app(app: Json) -> list[RenderableType]:
    state = [f"epoch {app['epoch']}", f"{_number(app['exceptions'])} exceptions"]
    state += [f"update: {app['phase']}"] if app["phase"] else []
    state += ["another update is due"] if app["pending"] else []
    state += ["collecting exceptions after a restart"] if app["rebuilding"] else []
    if app["confirm_within_s"] is not None:
        state.append(f"UNCONFIRMED: undone in {app['confirm_within_s']:.0f} s")
    table = _table(
        f"{app['app']}: {', '.join(state)}",
        "tid>", "weight>", "share>", "busy>", "load", "queue>", "connections>", "no room>",
    )  # fmt: skip
    for t in app["threads"]:
        name = f"{t['tid']} (drained)" if t["drained"] else str(t["tid"])
        bar = "#" * round(20 * t["busy"])
        numbers = (f"{t['weight']:g}", f"{t['share']:.1%}", f"{t['busy']:.0%}", bar, f"{t['queue']:.0%}")
        table.add_row(name, *numbers, _number(t["connections"]), _number(t["drops"]))
    auto = app["auto"]
    word = f"automatic: {'on' if auto['on'] else 'off'}, {auto['moves']} moves"
    parts: list[RenderableType] = [table, f"{word}; {auto['reason']}" if auto["reason"] else word]
    if app["circle"]:
        parts.append(f"circle: {strip(app['circle'])}")
    return [*parts, _updates(app["updates"]), ""]


def strip(runs: list[list[int]]) -> str:
    """The circle as a line: each character is the thread that has most of its part."""
    owners = [tid for tid, slots in runs for _ in range(slots)]
    width = len(owners) / STRIP
    parts = [owners[round(i * width) : round((i + 1) * width)] for i in range(STRIP)]
    most = [max(sorted(set(part)), key=part.count) for part in parts if part]
    return "".join("." if tid < 0 else TIDS[tid % len(TIDS)] for tid in most)


def _updates(updates: Json) -> RenderableType:
    table = _table(
        "Updates",
        "epoch>",
        "at",
        "reason",
        "took>",
        "phases in ms",
        "moved>",
        "kept>",
        "exceptions>",
        "outcome",
    )
    for u in updates[-UPDATES_SHOWN:]:
        at = time.strftime("%H:%M:%S", time.localtime(u["requested_at"]))
        phases = " ".join(f"{name} {ms:.1f}" for name, ms in u["phases_ms"].items())
        numbers = (f"{u['moved_slots'] / 4096:.1%}", _number(u["kept"]), _number(u["exceptions"]))
        table.add_row(
            str(u["epoch"]), at, u["reason"], f"{u['took_ms']:.1f} ms", phases, *numbers, u["outcome"]
        )
    return table


def show_change(result: Json) -> RenderableType:
    """What a change has done, or would do."""
    table = _table("Weights", "tid>", "weight>", "share>")
    for tid, weight in result["weights"].items():
        table.add_row(tid, f"{weight:g}", f"{result['shares'].get(tid, 0.0):.1%}")
    moves = ", ".join(f"{m['slots'] / 4096:.1%} from {m['source']} to {m['target']}" for m in result["moves"])
    moved = f"{result['moved_slots'] / 4096:.1%} of the keys" + (f" ({moves})" if moves else "")
    if result["dry_run"]:
        return Group(table, f"would move {moved}; nothing was changed, epoch {result['epoch']}")
    parts: list[RenderableType] = [
        table,
        f"in force after {result['took_ms']:.1f} ms as epoch {result['epoch']}: moved {moved}, "
        f"{_number(result['kept'])} connections of these keys stay where they are",
    ]
    if result["confirm_within_s"] is not None:
        parts.append(
            f"UNDONE in {result['confirm_within_s']:.0f} s unless: janusctl csb confirm {result['app']}"
        )
    return Group(*parts)


def show_auto(result: Json) -> RenderableType:
    """What is on now."""
    return f"{result['app']}: epoch {result['epoch']}, automatic mode {'on' if result['auto'] else 'off'}"


def show_explained(result: Json) -> RenderableType:
    """janusctl csb explain."""
    who = "nobody" if result["tid"] is None else f"thread {result['tid']}"
    return f"{result['app']}, epoch {result['epoch']}: {who}, as {result['text']} (key {result['key']})"
