"""Apps, their TCP threads and what these listen on: who is attached under which tid, with which token.

Pure: tokens come from the `random` given at the start. One (address, port) belongs to one app; several
threads of that app may listen on it. A session that a former janusd has left is kept, not attached, until
its app resumes it by token or `expire` is called.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from janusd.config import AppConfig, Config, IpAddress, PortRange
from janusd.messages import TOKEN_BYTES, AttachStatus
from janusd.policy import Credentials, Refusal

SERVICES_PER_APP_MAX = 1000


@dataclass
class Session:
    """One TCP thread of an app."""

    app: str
    tid: int
    uid: int
    pid: int
    generation: int
    token: bytes
    listens: set[tuple[IpAddress, int]] = field(default_factory=set)
    online: bool = False
    attached: bool = True
    unconfirmed: set[tuple[IpAddress, int]] | None = (
        None  # resumed, ONLINE not said again: listens not yet repeated
    )


@dataclass(frozen=True)
class Service:
    """Packets for these ports of this address belong to the app."""

    address: IpAddress
    ports: PortRange
    app: str


class Registry:
    """All sessions."""

    def __init__(self, config: Config, random: Callable[[int], bytes]) -> None:
        self._apps = {app.name: app for app in config.apps}
        self._sessions: dict[tuple[str, int], Session] = {}
        self._random = random
        self.next_generation = 1

    # --- questions ---

    def sessions(self, app: str | None = None) -> Iterator[Session]:
        """Every session, or those of one app, by app and tid."""
        return (s for key, s in sorted(self._sessions.items()) if app is None or key[0] == app)

    def session(self, app: str, tid: int) -> Session | None:
        """The session of a thread."""
        return self._sessions.get((app, tid))

    def sessions_of_uid(self, uid: int) -> int:
        """How many a user has attached."""
        return sum(s.attached and s.uid == uid for s in self._sessions.values())

    def waiting(self) -> int:
        """Sessions of a former janusd that are not back online yet."""
        return sum(not s.attached or s.unconfirmed is not None for s in self._sessions.values())

    def services(self) -> list[Service]:
        """What is served: first the source ports of apps with a thread online, then what is listened on."""
        online = [s for s in self.sessions() if s.online]
        names = sorted({s.app for s in online})
        ranges = [
            Service(address, app.source_ports, app.name)
            for app in map(self._apps.__getitem__, names)
            if app.source_ports is not None
            for address in app.addresses
        ]
        listens = {(address, port, s.app) for s in online for address, port in s.listens}
        ordered = sorted(listens, key=lambda x: (x[2], x[0].version, x[0].packed, x[1]))
        return ranges + [Service(address, PortRange(port, port), app) for address, port, app in ordered]

    # --- life of a session ---

    def attach(self, app: AppConfig, who: Credentials, token: bytes | None) -> Session | Refusal:
        """A new thread of the app, under the lowest free tid, or the one that the token names, resumed."""
        if token is not None:
            return self._resume(app, who, token)
        tid = next((t for t in range(app.threads_max) if (app.name, t) not in self._sessions), None)
        if tid is None:
            text = f'app "{app.name}" has {app.threads_max} TCP threads, as many as it may (threads_max)'
            return Refusal(AttachStatus.QUOTA, text)
        session = Session(app.name, tid, who.uid, who.pid, self._generation(), self._random(TOKEN_BYTES))
        self._sessions[app.name, tid] = session
        return session

    def _resume(self, app: AppConfig, who: Credentials, token: bytes) -> Session | Refusal:
        for session in self.sessions(app.name):
            if not session.attached and session.uid == who.uid and hmac.compare_digest(session.token, token):
                session.attached = True
                session.unconfirmed = set(session.listens)
                session.pid = who.pid
                session.generation = self._generation()
                return session
        return Refusal(
            AttachStatus.BAD_TOKEN, "no session waits for this token: it ended, or its time has passed"
        )

    def _generation(self) -> int:
        generation = self.next_generation
        self.next_generation = generation % 0xFFFFFFFF + 1
        return generation

    def online(self, session: Session) -> None:
        """The thread takes packets. Listens that a resumed one has not repeated end. Idempotent."""
        session.online = True
        session.listens -= session.unconfirmed or set()
        session.unconfirmed = None

    def detach(self, session: Session) -> None:
        """The thread is gone: its tid, token and listens are free. Idempotent."""
        if self._sessions.get((session.app, session.tid)) is session:
            del self._sessions[session.app, session.tid]

    def restore(self, sessions: Iterable[Session], next_generation: int) -> None:
        """Take over what a former janusd has left, as far as the configuration still allows it."""
        self.next_generation = max(1, next_generation & 0xFFFFFFFF)
        for session in sessions:
            app = self._apps.get(session.app)
            if (
                app is None
                or not 0 <= session.tid < app.threads_max
                or (session.app, session.tid) in self._sessions
            ):
                continue
            session.attached = False
            session.listens = {
                (address, port)
                for address, port in session.listens
                if address in app.addresses and any(port in range_ for range_ in app.ports)
            }
            self._sessions[session.app, session.tid] = session

    def expire(self) -> list[Session]:
        """Give up the sessions that nobody has resumed, and return them."""
        expired = [s for s in self.sessions() if not s.attached]
        for session in expired:
            self.detach(session)
        return expired

    # --- services ---

    def listen(self, session: Session, address: IpAddress | None, port: int) -> Refusal | None:
        """The thread listens from now on; address None: on every one of the lease. Idempotent."""
        app = self._apps[session.app]
        if refusal := _outside_lease(app, address, port):
            return refusal
        wanted = {(a, port) for a in (app.addresses if address is None else (address,))}
        for other in self._sessions.values():
            if other.app != session.app and (taken := wanted & other.listens):
                shown = ", ".join(sorted(str(a) for a, _ in taken))
                return Refusal(
                    AttachStatus.PORT_TAKEN, f'port {port} of {shown} is served by app "{other.app}"'
                )
        served = set[tuple[IpAddress, int]]().union(*(s.listens for s in self.sessions(session.app)))
        if len(served | wanted) > SERVICES_PER_APP_MAX:
            most = f"the most is {SERVICES_PER_APP_MAX}"
            text = f'app "{app.name}" listens on {len(served)} (address, port) pairs; {most}'
            return Refusal(AttachStatus.QUOTA, text)
        session.listens |= wanted
        if session.unconfirmed is not None:
            session.unconfirmed -= wanted
        return None

    def unlisten(self, session: Session, address: IpAddress | None, port: int) -> Refusal | None:
        """The thread listens there no longer. Idempotent."""
        app = self._apps[session.app]
        if refusal := _outside_lease(app, address, port):
            return refusal
        session.listens -= {(a, port) for a in (app.addresses if address is None else (address,))}
        return None


def _outside_lease(app: AppConfig, address: IpAddress | None, port: int) -> Refusal | None:
    if address is not None and address not in app.addresses:
        allowed = ", ".join(map(str, app.addresses))
        text = f'app "{app.name}" may not use address {address}; it may use: {allowed}'
        return Refusal(AttachStatus.ADDRESS_NOT_LEASED, text)
    if not any(port in range_ for range_ in app.ports):
        allowed = ", ".join(map(str, app.ports)) or "none"
        text = f'app "{app.name}" may not listen on port {port}; it may on: {allowed} (ports of [[app]])'
        return Refusal(AttachStatus.PORT_NOT_LEASED, text)
    return None
