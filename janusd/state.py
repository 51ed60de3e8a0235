"""What outlives janusd: circles, secrets, sessions and tokens, in one file of the runtime directory.

Written whole, beside the old one, then renamed over it: a reader finds the old or the new state, never a
mixture. The first line is the CRC-32 of the rest. A file that cannot be read or does not fit counts as
none.
"""

from __future__ import annotations

import ipaddress
import os
import zlib
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path

import msgspec

from janusd.balancer import SECRET_BYTES, Balancer, Circle
from janusd.config import TIDS_MAX
from janusd.messages import TOKEN_BYTES
from janusd.registry import Registry, Session
from janusd.weights import NOBODY, SLOT_COUNT, WEIGHT_MAX
from janusd.wishes import Wishes

VERSION = 3
READABLE = (2, 3)  # 2 has no wishes
FILE_NAME = "state.json"


class SavedCircle(msgspec.Struct, forbid_unknown_fields=True):
    """A Circle; owners and homes as runs of (tid, slots), flagged in hexadecimal."""

    app: str
    secret: bytes
    epoch: int
    weights: dict[int, float]
    owners: list[tuple[int, int]]
    homes: list[tuple[int, int]]
    flagged: str
    drained: dict[int, float]


class SavedWishes(msgspec.Struct, forbid_unknown_fields=True):
    """A Wishes."""

    app: str
    configured: bool
    on: bool
    base: dict[int, float]
    undo: dict[int, float]


class SavedSession(msgspec.Struct, forbid_unknown_fields=True):
    """A Session, as far as it can be resumed."""

    app: str
    tid: int
    uid: int
    pid: int
    generation: int
    token: bytes
    online: bool
    listens: list[tuple[str, int]]


class SavedState(msgspec.Struct, forbid_unknown_fields=True):
    """The whole file."""

    version: int
    next_generation: int
    circles: list[SavedCircle]
    sessions: list[SavedSession]
    wishes: list[SavedWishes] = []


class StateError(Exception):
    """There is a state, and it cannot be used."""


def save(directory: Path, registry: Registry, balancer: Balancer, wishes: Mapping[str, Wishes]) -> None:
    """Replace the saved state. OSError: it could not be written; the old one is still there."""
    saved = SavedState(
        VERSION,
        registry.next_generation,
        [_save_circle(app, balancer.to_save(app)) for app in wishes],
        [_save_session(session) for session in registry.sessions()],
        [SavedWishes(app, w.configured, w.on, w.base, w.undo) for app, w in wishes.items()],
    )
    body = msgspec.json.encode(saved)
    path = directory / FILE_NAME
    fresh = directory / f"{FILE_NAME}.new"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb") as file:
        os.fchmod(fd, 0o600)
        file.write(b"%08x\n" % zlib.crc32(body) + body)
    os.replace(fresh, path)


def load(directory: Path, registry: Registry, balancer: Balancer, wishes: dict[str, Wishes]) -> int:
    """Restore the saved state of these apps. Returns how many sessions wait to be resumed."""
    path = directory / FILE_NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}") from error
    crc, _, body = data.partition(b"\n")
    if crc != b"%08x" % zlib.crc32(body):
        raise StateError(f"{path}: checksum does not fit")
    try:
        saved = msgspec.json.decode(body, type=SavedState)
        if saved.version not in READABLE:
            raise StateError(f"{path}: version {saved.version}, this janusd reads {VERSION}")
        circles = {c.app: _load_circle(c) for c in saved.circles if c.app in wishes}
        wished = {w.app: _load_wishes(w) for w in saved.wishes if w.app in wishes}
        sessions = [_load_session(s) for s in saved.sessions]
    except (msgspec.MsgspecError, ValueError) as error:
        raise StateError(f"{path}: {error}") from error
    wishes.update(wished)
    registry.restore(sessions, saved.next_generation)
    for app, circle in circles.items():
        balancer.restore(app, circle)
        for tid in list(circle.weights):
            session = registry.session(app, tid)
            if session is None or not session.online:
                balancer.forget(app, tid)
    return registry.waiting()


def _runs(owners: list[int]) -> list[tuple[int, int]]:
    return [(tid, len(list(run))) for tid, run in groupby(owners)]


def _slots(runs: list[tuple[int, int]]) -> list[int]:
    if sum(count for _, count in runs if count > 0) != SLOT_COUNT or len(runs) > SLOT_COUNT:
        raise ValueError(f"has not {SLOT_COUNT} slots")
    return [tid for tid, count in runs for _ in range(count)]


def _save_circle(app: str, circle: Circle) -> SavedCircle:
    return SavedCircle(
        app,
        circle.secret,
        circle.epoch,
        circle.weights,
        _runs(circle.owners),
        _runs(circle.homes),
        f"{circle.flagged:x}",
        circle.drained,
    )


def _check_weights(app: str, *maps: dict[int, float]) -> None:
    for weights in maps:
        if not all(0 <= tid < TIDS_MAX and 0 <= weight <= WEIGHT_MAX for tid, weight in weights.items()):
            raise ValueError(f"circle of {app}: a weight is out of range")


def _load_wishes(saved: SavedWishes) -> Wishes:
    _check_weights(saved.app, saved.base, saved.undo)
    return Wishes(saved.configured, saved.on, saved.base, saved.undo)


def _load_circle(saved: SavedCircle) -> Circle:
    if len(saved.secret) != SECRET_BYTES or saved.epoch < 0:
        raise ValueError(f"circle of {saved.app}: secret or epoch is out of range")
    _check_weights(saved.app, saved.weights, saved.drained)
    owners, homes, flagged = _slots(saved.owners), _slots(saved.homes), int(saved.flagged, 16)
    if any(tid != NOBODY and tid not in saved.weights for tid in owners):
        raise ValueError(f"circle of {saved.app}: an owner without weight")
    if not 0 <= flagged < 1 << SLOT_COUNT:
        raise ValueError(f"circle of {saved.app}: flags of more than {SLOT_COUNT} slots")
    return Circle(saved.secret, saved.epoch, saved.weights, owners, homes, flagged, saved.drained)


def _save_session(session: Session) -> SavedSession:
    listens = sorted((str(address), port) for address, port in session.listens)
    return SavedSession(
        session.app,
        session.tid,
        session.uid,
        session.pid,
        session.generation,
        session.token,
        session.online,
        listens,
    )


def _load_session(saved: SavedSession) -> Session:
    if len(saved.token) != TOKEN_BYTES:
        raise ValueError(f"session {saved.app}/{saved.tid}: token is out of range")
    listens = {(ipaddress.ip_address(address), port) for address, port in saved.listens}
    return Session(
        saved.app,
        saved.tid,
        saved.uid,
        saved.pid,
        saved.generation,
        saved.token,
        listens,
        saved.online,
        attached=False,
    )
