"""sd_notify(3): tell systemd that janusd is ready, alive, or about to stop."""

from __future__ import annotations

import os
import socket


class Notifier:
    """Without a NOTIFY_SOCKET it does nothing."""

    def __init__(self, environ: dict[str, str] | None = None) -> None:
        env = dict(os.environ) if environ is None else environ
        path = env.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        own = env.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_s = int(env.get("WATCHDOG_USEC", "0")) / 1e6 if own else 0.0

    def send(self, *lines: str) -> None:
        """Send lines such as READY=1. Never fails: systemd that does not listen is not our trouble."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            return


class LoopWatch:
    """Says whether every I/O thread has moved since it was last asked."""

    def __init__(self) -> None:
        self._before: list[int] = []

    def moved(self, turns: list[int]) -> bool:
        """turns: the loop counter of each I/O thread. True the first time."""
        before, self._before = self._before, turns
        return len(before) != len(turns) or all(now != then for now, then in zip(turns, before, strict=True))
