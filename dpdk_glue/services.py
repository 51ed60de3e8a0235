"""Apps, and who serves which port."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dpdk_glue.native import check, ffi, lib, name_bytes, pack_address, why
from dpdk_glue.values import Service


class Apps:
    """The apps, by id (1 to 63)."""

    def __init__(self, glue: Any) -> None:
        self._glue = glue

    def add(self, app: int, name: str, secret: tuple[int, int]) -> None:
        """Add an app with the secret of its CSB hash and no view."""
        reason = why()
        raw = name_bytes(name, lib.GLUE_NAME_BYTES)
        check(lib.glue_app_add(self._glue, app, raw, secret[0], secret[1], reason), reason)

    def remove(self, app: int) -> None:
        """Remove an app that has neither sessions nor services any more."""
        reason = why()
        check(lib.glue_app_remove(self._glue, app, reason), reason)


class Services:
    """Who gets packets for which (address, port)."""

    def __init__(self, glue: Any) -> None:
        self._glue = glue

    def publish(self, services: Iterable[Service]) -> None:
        """Replace all services: what apps listen on, and the source ports of their active opens.

        A later entry wins over an earlier one. A port without an entry is one that nobody serves.
        """
        listed = list(services)
        items = ffi.new("struct glue_service[]", max(len(listed), 1))
        for item, service in zip(items, listed, strict=False):
            item.address = pack_address(service.address)
            item.first = service.first
            item.last = service.last
            item.app = service.app
        reason = why()
        check(lib.glue_services_set(self._glue, items, len(listed), reason), reason)

    def set_policy(self, *, reset: bool, recovery: bool) -> None:
        """Say whether a segment for a port that nobody serves gets an RST; during recovery it never does."""
        lib.glue_policy_set(self._glue, reset, recovery)
