"""Who may run which app, and how much of everything: (credentials, wish) to a grant or a refusal with a text.

Pure: takes values, returns values. The caller counts what is in use and says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from dpdk_glue.values import RowLayout
from janusd.config import SLOTS_MIN, AppConfig, Config
from janusd.messages import AttachStatus, Hello, Sizes

SESSIONS_PER_UID_MAX = 16
ROW_STRIDE_MIN, ROW_STRIDE_MAX = 64, 1024


@dataclass(frozen=True)
class Credentials:
    """Of the process at the other end of the socket, from the kernel."""

    pid: int
    uid: int
    gids: frozenset[int]


@dataclass(frozen=True)
class Grant:
    """The app, and the sizes of this thread's regions."""

    app: AppConfig
    sizes: Sizes


@dataclass(frozen=True)
class Refusal:
    """Why not, for a program and for a person."""

    status: AttachStatus
    text: str


def may_run(app: AppConfig, who: Credentials) -> bool:
    """True when the user or one of the groups is on the app's list."""
    return who.uid in app.uids or not app.gids.isdisjoint(who.gids)


def find_app(config: Config, who: Credentials, name: str) -> AppConfig | Refusal:
    """The app of this name, if it exists and this user may run it."""
    app = next((app for app in config.apps if app.name == name), None)
    if app is not None and may_run(app, who):
        return app
    mine = [app.name for app in config.apps if may_run(app, who)]
    offer = f"uid {who.uid} may run: {', '.join(mine)}" if mine else f"uid {who.uid} may run no app"
    if app is None:
        text = f'no app "{name}" is configured; {offer}'
    else:
        where = f"users or groups of [[app]] in {config.path}"
        text = f'uid {who.uid} may not run app "{name}": {where} must name it; {offer}'
    return Refusal(AttachStatus.NOT_ALLOWED, text)


def admit_session(
    config: Config, who: Credentials, sessions_of_uid: int, leaving_of_uid: int = 0
) -> Refusal | None:
    """The bound on one user's sessions, over all apps. leaving: ended, their peers not yet all reset."""
    most = max([SESSIONS_PER_UID_MAX, *(app.threads_max for app in config.apps if may_run(app, who))])
    if sessions_of_uid >= most:
        return Refusal(
            AttachStatus.QUOTA, f"uid {who.uid} has {sessions_of_uid} sessions; the most is {most}"
        )
    if sessions_of_uid + leaving_of_uid >= 2 * most:  # they hold their memory until then
        text = f"{leaving_of_uid} ended sessions of uid {who.uid} are still being wound up: try again"
        return Refusal(AttachStatus.BUSY, text)
    return None


def grant(app: AppConfig, hello: Hello, io_count: int) -> Grant | Refusal:
    """The sizes that a thread of this app gets, or what it asked too much of."""
    if problem := check_row_layout(hello.row):
        return Refusal(AttachStatus.BAD_MESSAGE, problem)
    asked = [
        ("connections", hello.rows, app.connections_max, "connections_max"),
        ("RX slots per I/O thread", _power_of_two(hello.rx_slots_per_io), app.rx_slots, "rx_slots"),
        ("TX slots", _power_of_two(hello.tx_slots), app.tx_slots, "tx_slots"),
    ]
    for what, value, most, key in asked:
        if value > most:
            return Refusal(
                AttachStatus.QUOTA, f'{value} {what} wanted, app "{app.name}" may have {most} ({key})'
            )
    sizes = Sizes(
        io_count=io_count,
        rx_slots_per_io=_power_of_two(hello.rx_slots_per_io) or app.rx_slots,
        tx_slots=_power_of_two(hello.tx_slots) or app.tx_slots,
        rows=hello.rows or app.connections_max,
        row_stride=hello.row.stride,
    )
    return Grant(app, sizes)


def _power_of_two(wanted: int) -> int:
    """The wish rounded up, at least SLOTS_MIN; 0 stays 0."""
    return max(SLOTS_MIN, 1 << (wanted - 1).bit_length()) if wanted else 0


def check_row_layout(row: RowLayout) -> str:
    """What is wrong with the layout that an app claims for its TCB rows, or "" when nothing is."""
    if not ROW_STRIDE_MIN <= row.stride <= ROW_STRIDE_MAX or row.stride % 8:
        return f"row stride {row.stride}: must be {ROW_STRIDE_MIN} to {ROW_STRIDE_MAX}, a multiple of 8"
    for name, offset, size in (
        ("state", row.state, 1),
        ("raddr", row.raddr, 16),
        ("rport", row.rport, 2),
        ("lport", row.lport, 2),
        ("laddr_index", row.laddr_index, 2),
        ("snd_nxt", row.snd_nxt, 4),
        ("rcv_nxt", row.rcv_nxt, 4),
    ):
        if offset + size > row.stride or (size < 16 and offset % size):
            return (
                f"row offset of {name} is {offset}: must be aligned and inside the row of {row.stride} bytes"
            )
    return ""
