"""janusctl app ...: how many workers an app has.

janusd starts no apps, so nothing is asked of it but who runs: the parent of an app's workers (janus_tcp.run, janus
run) starts one more for SIGTTIN and retires one for SIGTTOU.  Whether janusctl may send it a signal is the kernel's
decision.
"""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import click

from janusd.ctl_client import EX_DATA, EX_NOPERM, EX_TEMPFAIL, Client, CtlError
from janusd.ctl_commands import Options, app_names, json_option

STEP_TIMEOUT_S = 15.0
POLL_S = 0.1

Json = Any


@click.group()
def app() -> None:
    """Applications."""


@app.command()
@json_option
@click.argument("app", shell_complete=app_names)
@click.argument("workers", type=click.IntRange(1, 256))
@click.pass_obj
def scale(options: Options, /, app: str, workers: int) -> None:
    """Start or retire workers until the app has so many. One that retires ends with its last connection."""

    def ask(client: Client) -> Json:
        parent, count = supervisor(client, app)
        while count != workers:
            count = _step(client, app, parent, count, signal.SIGTTIN if count < workers else signal.SIGTTOU)
        return {"app": app, "workers": count, "pid": parent}

    options.once(
        ask, lambda result: f"{result['app']}: {result['workers']} workers of process {result['pid']}"
    )


def supervisor(client: Client, app: str) -> tuple[int, int]:
    """The process whose children the app's workers are, and how many of these are on the circle."""
    parents = [parent_of(pid) for pid in _serving(client, app)]
    if not parents:
        raise CtlError(f'app "{app}" has no worker that serves', EX_DATA)
    if len(set(parents)) > 1:
        found = ", ".join(map(str, sorted(set(parents))))
        raise CtlError(f'app "{app}" runs more than once, by processes {found}: say SIGTTIN to one', EX_DATA)
    if not catches(parents[0], signal.SIGTTIN):
        raise CtlError(f"process {parents[0]}, which runs the workers, is none of janus_tcp's", EX_DATA)
    return parents[0], len(parents)


def _serving(client: Client, app: str) -> list[int]:
    """The pids of the threads on the circle but those that retire and get nothing new: that takes as long as their
    connections do."""
    [shown] = client.ask("csb_show", app=app)
    shares = {t["tid"]: t["share"] for t in shown["threads"]}
    return [
        t["pid"]
        for t in client.ask("threads", app=app)
        if t["tid"] in shares and not (t["leaving"] and shares[t["tid"]] == 0)
    ]


def _step(client: Client, app: str, parent: int, count: int, number: signal.Signals) -> int:
    """One worker more or less; signals of one kind merge, so each is waited for."""
    try:
        os.kill(parent, number)
    except PermissionError:
        raise CtlError(f"no permission to send a signal to process {parent}", EX_NOPERM) from None
    except ProcessLookupError:
        raise CtlError(f"process {parent} has ended", EX_TEMPFAIL) from None
    until = time.monotonic() + STEP_TIMEOUT_S
    while (now := sum(parent_of(pid) == parent for pid in _serving(client, app))) == count:
        if time.monotonic() > until:
            text = (
                f'app "{app}" has {count} workers after {STEP_TIMEOUT_S:g} s: its log says why (threads_max?)'
            )
            raise CtlError(text, EX_TEMPFAIL)
        time.sleep(POLL_S)
    return now


def parent_of(pid: int) -> int:
    """The parent's pid; 0: there is no such process any more."""
    return int(_status(pid, "PPid", "0"))


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    return bool(int(_status(pid, "SigCgt", "0"), 16) >> (number - 1) & 1)


def _status(pid: int, name: str, default: str) -> str:
    try:
        match = re.search(rf"^{name}:\s*(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except OSError:
        return default
    return match[1] if match else default
