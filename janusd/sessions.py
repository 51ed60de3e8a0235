"""A session's life, done: registry, circle, data plane and saved state are kept in step here.

    admit --> sealed --> listen, online ... --> end --> RST to its peers --> freed

The decisions are those of policy, registry and balancer; this module does what they say, in an order that
leaves nothing behind when a step fails. One thread calls it.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpdk_glue.values import (
    EventKind,
    GlueError,
    Lease,
    Offload,
    PortInfo,
    Service,
    SessionConfig,
)
from janusd import policy, thread_counters
from janusd.balancer import Balancer, BalancerError, Target, Ticket
from janusd.config import AppConfig, Config, IpAddress
from janusd.log_format import fields
from janusd.messages import ABI_MAJOR, ABI_MINOR, AttachStatus, Hello, Welcome
from janusd.policy import Credentials, Refusal
from janusd.registry import Registry, Session
from janusd.updates import Clockwork, Updates

if TYPE_CHECKING:
    from dpdk_glue.data_plane import DataPlane
    from dpdk_glue.sessions import Session as PlaneSession
    from dpdk_glue.values import Event

log = logging.getLogger("janusd.sessions")

RESETS_PER_S = 200_000
REPLY_LATEST_S = 3.0  # an app waits 5 s for an answer


@dataclass
class Attached:
    """A thread that has been admitted; sealed after it has mapped its regions."""

    session: Session
    plane: PlaneSession
    welcome: Welcome
    sealed: bool = False
    leaving: bool = False  # it wants no new connections, and ends with its last one
    send: Callable[[bytes, int | None], None] = lambda message, fd: None  # by its connection

    @property
    def tid(self) -> int:
        """As the balancer knows it."""
        return self.session.tid

    @property
    def rows(self) -> int:
        """The most connections that it can have."""
        return self.welcome.sizes.rows

    def connections(self) -> int:
        """How many it has, by its own word."""
        return thread_counters.connections(self.plane.counters(), self.rows)

    def tell(self, message: bytes, fd: int | None) -> None:
        """Send a message about the balancer."""
        self.send(message, fd)

    def fds(self) -> list[int]:
        """What goes out with WELCOME."""
        return self.plane.info().welcome_fds()


class Sessions:
    """All attached threads."""

    def __init__(
        self,
        config: Config,
        plane: DataPlane,
        registry: Registry,
        balancer: Balancer,
        save: Callable[[], None],
        port_infos: dict[str, PortInfo],
        clock: Clockwork,
    ) -> None:
        """port_infos: each configured port by name. save: keeps registry and balancer for the next janusd."""
        self._config = config
        self._plane = plane
        self._registry = registry
        self._balancer = balancer
        self._save = save
        self._port_infos = port_infos
        self._attached: dict[tuple[str, int, int], Attached] = {}
        self._resetting: dict[tuple[int, int, int], tuple[PlaneSession, int]] = {}  # and the uid
        self.app_ids = {app.name: number for number, app in enumerate(config.apps, 1)}
        self.recovering = False
        self._unsaved = False
        self._clock = clock
        self.updates = Updates(
            plane.balance, self.app_ids, config.io.threads, clock, self._balanced, self._before_drain
        )
        balancer.use(self.updates, self.app_ids)
        balancer.watch(self._balance_changed)

    # --- start and end of it all ---

    def start(self) -> None:
        """Tell the data plane of every app, and of what a former janusd has left."""
        for app, number in self.app_ids.items():
            circle = self._balancer.circle(app)
            self._plane.apps.add(number, app, circle.keys())
            if circle.weights:
                balance = self._plane.balance
                balance.build_flagged(number, circle.points(), circle.epoch, circle.flagged)
                balance.publish(number)
        self.recovering = self._registry.waiting() > 0
        if not self.recovering:
            self._rebuild()
        self._publish_policy()
        self._publish_services()

    def stop(self) -> None:
        """Free every session without a word to anybody: the apps resume with the next janusd."""
        for attached in self._attached.values():
            attached.plane.free()
        for plane, _ in self._resetting.values():
            plane.free()
        self._attached.clear()
        self._resetting.clear()

    def attached(self) -> list[Attached]:
        """All of them."""
        return list(self._attached.values())

    def by_thread(self, app: str, tid: int) -> Attached | None:
        """The attached thread of this app and tid."""
        session = self._registry.session(app, tid)
        return None if session is None else self._attached.get((app, tid, session.generation))

    def by_event(self, event: Event) -> Attached | None:
        """The attached thread that an event is about."""
        return self._attached.get((self._name(event.app), event.tid, event.generation))

    # --- life of one ---

    def admit(self, who: Credentials, hello: Hello) -> Attached | Refusal:
        """Policy, quotas, a tid, regions. A refusal leaves nothing behind."""
        if hello.abi_major != ABI_MAJOR:
            text = f"the app speaks ABI {hello.abi_major}.{hello.abi_minor}, janusd {ABI_MAJOR}.{ABI_MINOR}"
            return Refusal(
                AttachStatus.ABI_MISMATCH, f"{text}: install the same version of janus-tcp for both"
            )
        app = policy.find_app(self._config, who, hello.app)
        if isinstance(app, Refusal):
            return app
        leaving = sum(uid == who.uid for _, uid in self._resetting.values())
        refusal = policy.admit_session(self._config, who, self._registry.sessions_of_uid(who.uid), leaving)
        if refusal is not None:
            return refusal
        grant = policy.grant(app, hello, self._config.io.threads)
        if isinstance(grant, Refusal):
            return grant
        resumed = hello.resume is not None
        session = self._registry.attach(app, who, hello.resume)
        if isinstance(session, Refusal):
            return session
        try:
            plane = self._plane.sessions.create(self._session_config(session, grant, hello))
        except GlueError as error:
            if resumed:
                session.attached = False
            else:
                self._forget(session)
            return refusal_of(error)
        welcome = self._welcome(session, grant)
        attached = Attached(session, plane, welcome)
        self._attached[session.app, session.tid, session.generation] = attached
        self._save_now()
        log.info("app attached", extra=_fields(session, resumed=resumed, huge_pages=plane.info().huge))
        return attached

    def sealed(self, attached: Attached) -> Refusal | None:
        """The app has mapped its regions and they are sealed: let the I/O threads serve it."""
        try:
            attached.plane.start()
        except GlueError as error:
            return refusal_of(error)
        attached.sealed = True
        return None

    def ready(self, attached: Attached) -> None:
        """The app knows that its session is up: a thread that the circle names gets the view."""
        app = attached.session.app
        if attached.tid in self._balancer.circle(app).weights:
            self.updates.welcome(app, attached, rebuilding=self._balancer.state(app).rebuilding)

    def listen(self, attached: Attached, address: IpAddress | None, port: int) -> Refusal | None:
        """The thread listens from now on."""
        return self._change_listens(self._registry.listen, attached.session, address, port)

    def unlisten(self, attached: Attached, address: IpAddress | None, port: int) -> Refusal | None:
        """The thread listens there no longer."""
        return self._change_listens(self._registry.unlisten, attached.session, address, port)

    def _change_listens(
        self,
        change: Callable[[Session, IpAddress | None, int], Refusal | None],
        session: Session,
        address: IpAddress | None,
        port: int,
    ) -> Refusal | None:
        before = set(session.listens)
        if refusal := change(session, address, port):
            return refusal
        if session.listens != before:
            if session.online:
                self._publish_services()
            self._unsaved = True  # an app that resumes repeats its listens: this can wait
        return None

    def save_if_needed(self) -> None:
        """Save what could wait, now and then."""
        if self._unsaved:
            self._save_now()

    def _save_now(self) -> None:
        self._unsaved = False
        self._save()

    def online(self, attached: Attached, reply: Callable[[], None]) -> None:
        """The thread joins its app's circle; reply is called when it has its keys, or some time later."""
        session = attached.session
        changed = not session.online or session.unconfirmed is not None
        self._registry.online(session)
        ticket = self._balancer.join(session.app, session.tid)
        if changed:
            self._publish_services()
            self._save_now()
            log.info("thread online", extra=_fields(session, listens=len(session.listens)))
        if self.recovering and self._registry.waiting() == 0:
            self.end_recovery()
        self._reply_when(ticket, reply)

    def leave(self, attached: Attached, reply: Callable[[], None]) -> None:
        """The thread gets no new connections any more; reply is called when that is so, or some time later."""
        session = attached.session
        attached.leaving = True
        try:
            ticket = self._balancer.drain(session.app, session.tid) if session.online else None
        except BalancerError as error:  # no other thread would serve: its connections end with it
            log.info("thread is not drained", extra=_fields(session, why=error))
            ticket = None
        self._reply_when(ticket, reply)

    def _reply_when(self, ticket: Ticket | None, reply: Callable[[], None]) -> None:
        due = [reply]

        def once(_: object = None) -> None:
            if due:
                due.pop()()

        if ticket is None:
            once()
        else:
            ticket.then(once)
            if due:
                self._clock.call_later(REPLY_LATEST_S, once)

    def end(self, attached: Attached, reason: str) -> None:
        """The thread is gone: its keys go to others, its peers get RST, its memory comes back. Idempotent."""
        session = attached.session
        if self._attached.pop((session.app, session.tid, session.generation), None) is None:
            return
        slots = attached.plane.stop()
        self._forget(session)
        log.info(
            "app detached", extra=_fields(session, reason=reason, slots=slots.total, slots_held=slots.held)
        )
        key = (self.app_ids[session.app], session.tid, session.generation)
        if not attached.sealed:  # its pages may still be pulled away: nothing of it is read
            attached.plane.free()
            return
        try:
            attached.plane.reset_peers(RESETS_PER_S)
        except GlueError as error:
            log.warning("peers are not reset", extra=_fields(session, error=error.strerror))
            attached.plane.free()
        else:
            self._resetting[key] = attached.plane, session.uid

    def resets_done(self, event: Event) -> None:
        """The peers of a thread that is gone have been told: free its memory."""
        plane, _ = self._resetting.pop((event.app, event.tid, event.generation), (None, 0))
        if plane is None or event.kind is not EventKind.RESETS_DONE:
            return
        progress = plane.reset_progress()
        log.info(
            "peers reset",
            extra=fields(
                app=self._name(event.app), tid=event.tid, sent=progress.sent, skipped=progress.skipped
            ),
        )
        plane.free()

    def end_recovery(self) -> None:
        """The time for resuming is over: who has not come back is gone. Idempotent."""
        if not self.recovering:
            return
        self.recovering = False
        expired = self._registry.expire()
        for session in expired:
            self._leave(session)
            log.warning("session was not resumed", extra=_fields(session))
        if expired:
            self._publish_services()
            self._save_now()
        self._publish_policy()
        self._rebuild()

    def _rebuild(self) -> None:
        for app in self.app_ids:
            self._balancer.rebuild(app)

    # --- its parts ---

    def _balanced(self, app: str) -> list[Attached]:
        """The threads of an app that an update can ask."""
        return [a for a in self._attached.values() if a.session.app == app and a.sealed and a.session.online]

    def _before_drain(self, target: Target) -> None:
        self._balancer.keep(target)
        self._save_now()

    def _balance_changed(self, app: str) -> None:
        self._unsaved = True

    def _name(self, app_id: int) -> str:
        return next((app for app, number in self.app_ids.items() if number == app_id), "")

    def _forget(self, session: Session) -> None:
        """Out of registry, circle, services and saved state."""
        self._registry.detach(session)
        self._leave(session)
        if session.online:
            self._publish_services()
        self._save_now()

    def _leave(self, session: Session) -> None:
        self._balancer.leave(session.app, session.tid)

    def _publish_services(self) -> None:
        self._plane.services.publish(
            Service(s.address, s.ports.first, s.ports.last, self.app_ids[s.app])
            for s in self._registry.services()
        )

    def _publish_policy(self) -> None:
        self._plane.services.set_policy(reset=self._config.daemon.reset_unknown, recovery=self.recovering)

    def _session_config(self, session: Session, grant: policy.Grant, hello: Hello) -> SessionConfig:
        app, sizes = grant.app, grant.sizes
        return SessionConfig(
            app=self.app_ids[app.name],
            tid=session.tid,
            generation=session.generation,
            lease=Lease(app.addresses, _ranges(app)),
            row=hello.row,
            rows=sizes.rows,
            rx_slots_per_io=sizes.rx_slots_per_io,
            tx_slots=sizes.tx_slots,
        )

    def _welcome(self, session: Session, grant: policy.Grant) -> Welcome:
        app = grant.app
        ports = {p.name for address in app.addresses if (p := self._config.port_of(address)) is not None}
        infos = [self._port_infos[name] for name in sorted(ports)]
        source = app.source_ports
        return Welcome(
            tid=session.tid,
            generation=session.generation,
            sizes=grant.sizes,
            token=session.token,
            source_ports=(source.first, source.last) if source is not None else (0, 0),
            mtu=min((info.mtu for info in infos), default=576),
            tx_checksum_offload=bool(infos) and all(info.offloads & Offload.TX_TCP for info in infos),
            addresses=app.addresses,
        )


def _ranges(app: AppConfig) -> tuple[tuple[int, int], ...]:
    ranges = [*app.ports, *([app.source_ports] if app.source_ports is not None else [])]
    return tuple((range_.first, range_.last) for range_ in ranges)


def refusal_of(error: GlueError) -> Refusal:
    """What an app hears when the data plane refuses."""
    status = AttachStatus.NO_MEMORY if error.errno == errno.ENOMEM else AttachStatus.BAD_MESSAGE
    return Refusal(status, error.strerror or str(error))


def _fields(session: Session, **more: object) -> dict[str, dict[str, object]]:
    return fields(app=session.app, tid=session.tid, pid=session.pid, uid=session.uid, **more)
