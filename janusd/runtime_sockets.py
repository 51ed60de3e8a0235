"""Sockets in the runtime directory: mode 0660 from the first moment, and the group that may use them."""

from __future__ import annotations

import grp
import logging
import os
from collections.abc import Callable
from pathlib import Path

from janusd.log_format import fields

log = logging.getLogger("janusd.runtime_sockets")


def bind_for_group(path: Path, gid: int | None, bind: Callable[[], object]) -> None:
    """Let bind() make the socket at path, where a former one is removed, for this group alone.

    gid None: janusd's own group. Where the group may not be set, a warning says so.
    """
    path.unlink(missing_ok=True)
    mask = os.umask(0o117)
    try:
        bind()
    finally:
        os.umask(mask)
    if gid is None or path.stat().st_gid == gid:
        return
    try:
        os.chown(path, -1, gid)
    except PermissionError:
        log.warning("the socket's group cannot be set: be root or a member", extra=fields(path=path, gid=gid))


def group_for(key: str, name: str) -> int | None:
    """The gid of the group that key of [daemon] names; None, with a warning: there is none."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        log.warning(
            f"there is no group {name} ([daemon] {key}): its socket is for janusd's own group",
            extra=fields(key=key),
        )
        return None
