"""The attach server: a Unix SEQPACKET socket on which apps ask for TCP threads (sdk/shm/attach.h).

    accept --> HELLO within 1 s --> WELCOME + fds --> MAPPED within 10 s --> READY --> LISTEN, ONLINE ... -->
    the end

Everything that comes in is hostile: messages are received without a control buffer, so that a file
descriptor sent along never arrives; another message than the one that is due, or of another length, ends
the session. The end is also hang-up, or the death of the process, which its pidfd tells.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import logging
import os
import select
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dpdk_glue.values import GlueError
from janusd import messages
from janusd.log_format import fields
from janusd.messages import AttachStatus, AttachType, Control, CsbDone, CsbList, Listen, Plain
from janusd.policy import Credentials, Refusal
from janusd.runtime_sockets import bind_for_group
from janusd.sessions import Attached, Sessions, refusal_of

log = logging.getLogger("janusd.attach")

HALF_OPEN_MAX = 64
HALF_OPEN_PER_UID_MAX = 32  # so that no user alone keeps the others out
REFUSALS_LOGGED_PER_S = 5
HELLO_TIMEOUT_S = 1.0
MAPPED_TIMEOUT_S = 10.0
ACCEPTS_PER_TURN = 16
ACCEPT_PAUSE_S = 0.1  # when there is no descriptor left
MESSAGES_PER_TURN = 16
MESSAGES_PER_S = 200
MESSAGES_BURST = 512
BACKLOG = 1024
SO_PEERPIDFD = 77  # Linux 6.5
SO_PEERGROUPS = getattr(socket, "SO_PEERGROUPS", 59)
_UCRED = struct.Struct("=iII")
_GROUPS_MAX = 256


class PeerGone(Exception):
    """The process that has connected does not exist any more."""


def open_listener(path: Path, gid: int | None) -> socket.socket:
    """The listening socket: what systemd passes on as path, or a new one, mode 0660, of this group."""
    inherited = _inherited_listener(path)
    if inherited is not None:
        return inherited
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        bind_for_group(path, gid, lambda: sock.bind(str(path)))
    except OSError:
        sock.close()
        raise
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock


def _inherited_listener(path: Path) -> socket.socket | None:
    """The one for path among the descriptors of systemd's socket activation (sd_listen_fds(3))."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    for fd in range(3, 3 + int(os.environ.get("LISTEN_FDS", "0"))):
        try:
            sock = socket.socket(fileno=fd)
        except OSError:
            continue
        if (
            sock.family == socket.AF_UNIX
            and sock.type == socket.SOCK_SEQPACKET
            and sock.getsockname() == str(path)
        ):
            sock.setblocking(False)
            os.set_inheritable(fd, False)
            return sock
        sock.detach()
    return None


def credentials_of(sock: socket.socket) -> Credentials:
    """Who is at the other end, from the kernel."""
    pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4 * _GROUPS_MAX)
    except OSError:  # more groups than Python has room for: the first one must do
        raw = b""
    groups = struct.unpack(f"={len(raw) // 4}I", raw)
    return Credentials(pid, uid, frozenset((gid, *groups)))


def pidfd_of(sock: socket.socket, pid: int) -> int:
    """A pidfd of the process that has connected. PeerGone: it is dead already."""
    try:
        fd = sock.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
    except OSError:
        try:
            fd = os.pidfd_open(pid)
        except OSError as error:
            raise PeerGone from error
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.register(sock, select.POLLHUP)
    if any(event & (select.POLLHUP | select.POLLERR) or which == fd for which, event in poll.poll(0)):
        os.close(fd)
        raise PeerGone
    return fd


class AttachServer:
    """Accepts peers and counts what they do wrong."""

    def __init__(self, sessions: Sessions, listener: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self.sessions = sessions
        self.loop = loop
        self.bad_messages = 0
        self.refusals = 0
        # Populating large regions takes its time, which the control thread has not.
        self.sealer = ThreadPoolExecutor(max_workers=4, thread_name_prefix="seal")
        self._listener = listener
        self._peers: set[Peer] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._logged_in_second = (0, 0)  # the second, and the refusals logged in it

    def start(self) -> None:
        """Accept from now on."""
        self.loop.add_reader(self._listener, self._accept)

    def stop(self) -> None:
        """Close all sockets, without a message: apps then resume with the next janusd."""
        if self._pause is not None:
            self._pause.cancel()
        self.loop.remove_reader(self._listener)
        self._listener.close()
        for peer in list(self._peers):
            peer.close()
        self.sealer.shutdown(wait=True)

    def end(self, attached: Attached, reason: str) -> None:
        """End a session from this side."""
        for peer in list(self._peers):
            if peer.attached is attached:
                peer.end(reason)
                return
        self.sessions.end(attached, reason)

    def half_open(self, uid: int | None = None) -> int:
        """Peers that are not attached yet, of all users or of one."""
        return sum(peer.state is not State.OPEN and uid in (None, peer.who.uid) for peer in self._peers)

    def may_log_refusal(self) -> bool:
        """Bound the log lines that apps can cause; every refusal is counted."""
        second, logged = int(self.loop.time()), 0
        if self._logged_in_second[0] == second:
            logged = self._logged_in_second[1]
        self._logged_in_second = (second, logged + 1)
        return logged < REFUSALS_LOGGED_PER_S

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                log.warning("cannot accept an app", extra=fields(error=error.strerror))
                self.loop.remove_reader(self._listener)  # it would be readable at once again
                self._pause = self.loop.call_later(ACCEPT_PAUSE_S, self.start)
                return
            sock.setblocking(False)
            self._greet(sock)

    def _greet(self, sock: socket.socket) -> None:
        if self.half_open() >= HALF_OPEN_MAX:
            self._turn_away(sock, f"{HALF_OPEN_MAX} attaches are under way already: try again")
            return
        try:
            who = credentials_of(sock)
            if self.half_open(who.uid) >= HALF_OPEN_PER_UID_MAX:
                text = f"{HALF_OPEN_PER_UID_MAX} attaches of uid {who.uid} are under way already: try again"
                self._turn_away(sock, text)
                return
            pidfd = pidfd_of(sock, who.pid)
        except (OSError, PeerGone):
            sock.close()
            return
        self._peers.add(Peer(self, sock, pidfd, who))

    def _turn_away(self, sock: socket.socket, text: str) -> None:
        _send(sock, messages.encode_refused(AttachStatus.BUSY, text))
        self.refusals += 1
        sock.close()

    def forget(self, peer: Peer) -> None:
        """A peer has closed itself."""
        self._peers.discard(peer)


class State(enum.Enum):
    """What a peer has to say next; SEALING: nothing, until READY."""

    HELLO = enum.auto()
    MAPPED = enum.auto()
    SEALING = enum.auto()
    OPEN = enum.auto()
    CLOSED = enum.auto()


class Peer:
    """One connection: one TCP thread, as soon as it is attached."""

    def __init__(self, server: AttachServer, sock: socket.socket, pidfd: int, who: Credentials) -> None:
        self.state = State.HELLO
        self.attached: Attached | None = None
        self._server = server
        self._sock = sock
        self._pidfd = pidfd
        self.who = who
        self._allowance = float(MESSAGES_BURST)
        self._allowed_at = server.loop.time()
        self._deadline = server.loop.call_later(HELLO_TIMEOUT_S, self.end, "no HELLO in time")
        self._pause: asyncio.TimerHandle | None = None
        self._reason = ""  # why it has ended while its regions were being sealed
        server.loop.add_reader(sock, self._readable)
        server.loop.add_reader(pidfd, self.end, "process has ended")

    def end(self, reason: str) -> None:
        """End the session, if there is one, and the connection. Idempotent."""
        if self.state is State.CLOSED:
            return
        sealing = self.state is State.SEALING
        self.close()
        if sealing:
            self._reason = reason
        elif self.attached is not None:
            self._server.sessions.end(self.attached, reason)
        else:
            log.debug("attach ended early", extra=fields(pid=self.who.pid, uid=self.who.uid, reason=reason))

    def close(self) -> None:
        """Close the connection; the session goes on without it."""
        self.state = State.CLOSED
        self._deadline.cancel()
        if self._pause is not None:
            self._pause.cancel()
        self._server.loop.remove_reader(self._sock)
        self._server.loop.remove_reader(self._pidfd)
        self._sock.close()
        os.close(self._pidfd)
        self._server.forget(self)

    def _readable(self) -> None:
        for _ in range(MESSAGES_PER_TURN):
            if self.state is State.CLOSED or not self._may_speak():
                return
            try:
                data = self._sock.recv(messages.MESSAGE_MAX)
            except BlockingIOError:
                return
            except OSError as error:
                self.end(f"socket: {error.strerror}")
                return
            if not data:
                self.end("hang-up")
                return
            self._allowance -= 1
            self._receive(data)

    def _may_speak(self) -> bool:
        """Bound the messages per second: a flood waits in its own socket."""
        loop = self._server.loop
        now = loop.time()
        refill = (now - self._allowed_at) * MESSAGES_PER_S
        self._allowance = min(float(MESSAGES_BURST), self._allowance + refill)
        self._allowed_at = now
        if self._allowance < 1:
            loop.remove_reader(self._sock)
            self._pause = loop.call_later(0.05, self._resume_reading)
            return False
        return True

    def _resume_reading(self) -> None:
        self._server.loop.add_reader(self._sock, self._readable)

    def _receive(self, data: bytes) -> None:
        if self.state is State.HELLO:
            self._hello(data)
            return
        message = messages.decode_control(data)
        attached = self.attached
        if message is None or attached is None or self.state is State.SEALING:
            self._bad("no message that may come here")
        elif self.state is State.MAPPED:
            self._mapped(attached, message)
        else:
            self._control(attached, message)

    def _bad(self, what: str) -> None:
        self._server.bad_messages += 1
        self.end(f"bad message: {what}")

    def _hello(self, data: bytes) -> None:
        hello = messages.decode_hello(data)
        if hello is None:
            size = messages.STRUCT_BYTES["attach_hello"]
            text = f"not a HELLO of {size} bytes, as ABI {messages.ABI_MAJOR} has it"
            self._server.bad_messages += 1
            self._refuse(Refusal(AttachStatus.BAD_MESSAGE, text))
            return
        outcome = self._server.sessions.admit(self.who, hello)
        if isinstance(outcome, Refusal):
            self._refuse(outcome, app=hello.app)
            return
        self.attached = outcome
        outcome.send = self._tell
        self.state = State.MAPPED
        self._deadline.cancel()
        self._deadline = self._server.loop.call_later(MAPPED_TIMEOUT_S, self.end, "no MAPPED in time")
        try:
            socket.send_fds(self._sock, [messages.encode_welcome(outcome.welcome)], outcome.fds())
        except OSError as error:
            self.end(f"WELCOME could not be sent: {error.strerror}")

    def _refuse(self, refusal: Refusal, **more: object) -> None:
        self._server.refusals += 1
        status = refusal.status.name.lower()
        if self._server.may_log_refusal():
            who = fields(pid=self.who.pid, uid=self.who.uid, status=status, text=refusal.text, **more)
            log.warning("app refused", extra=who)
        _send(self._sock, messages.encode_refused(refusal.status, refusal.text))
        self.end("refused")

    def _mapped(self, attached: Attached, message: Control) -> None:
        if not isinstance(message, Plain) or message.type is not AttachType.MAPPED:
            self._bad("MAPPED is due")
        elif message.generation != attached.session.generation:
            self._bad("generation is not this session's")
        else:
            self.state = State.SEALING
            self._deadline.cancel()
            sealing = self._server.loop.run_in_executor(self._server.sealer, attached.plane.seal)
            sealing.add_done_callback(functools.partial(self._sealed, attached))

    def _sealed(self, attached: Attached, sealing: asyncio.Future[None]) -> None:
        if sealing.cancelled():
            return
        error = sealing.exception()
        if self.state is State.CLOSED:
            if self._reason:
                self._server.sessions.end(attached, self._reason)
        elif isinstance(error, GlueError):
            self.state = State.MAPPED
            self._refuse(refusal_of(error), app=attached.session.app)
        elif error is not None:
            raise error
        elif refusal := self._server.sessions.sealed(attached):
            self.state = State.MAPPED
            self._refuse(refusal, app=attached.session.app)
        else:
            self.state = State.OPEN
            self._send(messages.encode_ready(attached.session.generation))
            self._server.sessions.ready(attached)

    def _control(self, attached: Attached, message: Control) -> None:
        sessions = self._server.sessions
        if isinstance(message, CsbList):
            app = attached.session.app
            self._allowance += sessions.updates.awaits(app, message.attempt)  # bounded by what it may list
            if not sessions.updates.hear_list(app, attached, message.attempt, message.hashes):
                self._bad("lists more flows than it can have")
            return
        if isinstance(message, CsbDone):
            app = attached.session.app
            self._allowance += sessions.updates.hear_done(app, attached, message.attempt, message.phase)
            return
        if isinstance(message, Listen):
            change = sessions.listen if message.on else sessions.unlisten
            refusal = change(attached, message.address, message.port)
            status, text = (AttachStatus.OK, "") if refusal is None else (refusal.status, refusal.text)
            self._send(messages.encode_reply(message.seq, status, text))
        elif message.generation != attached.session.generation:
            self._bad("generation is not this session's")
        elif message.type is AttachType.ONLINE:
            sessions.online(attached, functools.partial(self._reply_ok, message.seq))
        elif message.type is AttachType.LEAVE:
            sessions.leave(attached, functools.partial(self._reply_ok, message.seq))
        elif message.type is AttachType.BYE:
            self.end("BYE")
        else:
            self._bad("MAPPED came before")

    def _reply_ok(self, seq: int) -> None:
        if self.state is State.OPEN:
            self._send(messages.encode_reply(seq, AttachStatus.OK))

    def _tell(self, message: bytes, fd: int | None) -> None:
        """A message about the balancer; one that does not read is ended, when whoever tells is done."""
        if self.state is not State.OPEN:
            return
        try:
            if fd is None:
                self._sock.send(message, socket.MSG_NOSIGNAL)
            else:
                socket.send_fds(self._sock, [message], [fd], socket.MSG_NOSIGNAL)
        except OSError:
            self._server.loop.call_soon(self.end, "does not read its messages")

    def _send(self, data: bytes) -> None:
        if not _send(self._sock, data):
            self.end("does not read its replies")


def _send(sock: socket.socket, data: bytes) -> bool:
    try:
        sock.send(data, socket.MSG_NOSIGNAL)
    except OSError:
        return False
    return True
