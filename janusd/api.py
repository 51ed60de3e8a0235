"""The control API's server: a ZeroMQ ROUTER on an ipc socket; bytes to request, to result, to bytes.

Who may connect is decided by the socket's mode and group: ctl.sock is for those who may change something, read.sock for
those who may look.  Who has asked is what the kernel says (SO_PEERCRED).  A message that is too long is cut off by
ZeroMQ, a connection above CONNECTIONS_MAX by us; what is no request gets an error for an answer, which names the field.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from pathlib import Path

import zmq
from zmq.utils.monitor import recv_monitor_message

from janusd import api_schema as schema
from janusd.control import Peer, Reply
from janusd.log_format import fields
from janusd.runtime_sockets import bind_for_group

log = logging.getLogger("janusd.api")

REQUESTS_PER_TURN = 16
EVENTS_PER_TURN = 64
POLL_S = 1.0  # the descriptor of a ZeroMQ socket tells of edges alone: look now and then all the same
CONNECTIONS_MAX = 128
NOBODY = 2**32 - 1  # the uid of a peer that the kernel does not name

Answer = Callable[[schema.AnyRequest, Peer, Reply], None]


def serve_bytes(data: bytes, peer: Peer, answer: Answer, send: Callable[[bytes], None]) -> None:
    """Answer whatever has come, by one call of send, now or later. Never raises."""
    id_ = schema.id_of(data)

    def reply(result: schema.Result | schema.Error) -> None:
        if isinstance(result, schema.Error):
            send(schema.encode_error(id_, result))
        else:
            send(schema.encode_result(id_, result))

    try:
        answer(schema.decode_request(data), peer, reply)
    except schema.BadRequest as error:
        reply(error.error)
    except Exception:
        log.exception("a request failed")
        reply(schema.Error(code="internal", text="janusd could not answer this; its log says why"))


class ApiServer:
    """Serves one socket from the control thread's loop."""

    def __init__(
        self,
        path: Path,
        gid: int | None,
        answer: Answer,
        loop: asyncio.AbstractEventLoop,
        *,
        may_change: bool,
    ) -> None:
        self._path = path
        self._answer = answer
        self._loop = loop
        self._may_change = may_change
        self._connections = 0
        self._context = zmq.Context(io_threads=1)
        self._context.set(zmq.MAX_SOCKETS, 8)
        self._socket = self._context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.MAXMSGSIZE, schema.REQUEST_BYTES_MAX),
            (zmq.RCVHWM, 64),
            (zmq.SNDHWM, 64),
            (zmq.BACKLOG, 64),
            (zmq.HANDSHAKE_IVL, 2000),
            (zmq.SNDTIMEO, 0),
        ):
            self._socket.setsockopt(option, value)
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        bind_for_group(path, gid, lambda: self._socket.bind(f"ipc://{path}"))
        self._fds = [int(s.getsockopt(zmq.FD)) for s in (self._socket, self._monitor)]
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Serve from now on."""
        for fd, serve in zip(self._fds, (self._serve, self._count), strict=True):
            self._loop.add_reader(fd, serve)
        self._look()

    def stop(self) -> None:
        """Close the socket."""
        for fd in self._fds:
            self._loop.remove_reader(fd)
        if self._timer is not None:
            self._timer.cancel()
        self._socket.disable_monitor()
        self._monitor.close()
        self._socket.close()
        self._context.term()

    def _look(self) -> None:
        self._serve()
        self._count()
        self._timer = self._loop.call_later(POLL_S, self._look)

    def _serve(self) -> None:
        for _ in range(REQUESTS_PER_TURN):
            if self._socket.closed:
                return
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            except zmq.ZMQError as error:
                log.warning("the control socket failed", extra=fields(error=error.strerror))
                return
            self._take(frames)
        self._loop.call_soon(self._serve)

    def _take(self, frames: list[zmq.Frame]) -> None:
        parts = [bytes(frame.buffer) for frame in frames]
        if len(parts) not in (2, 3) or (len(parts) == 3 and parts[1]):
            return
        envelope = parts[:-1]
        peer = peer_of(frames[-1], may_change=self._may_change)
        serve_bytes(parts[-1], peer, self._answer, lambda reply: self._reply([*envelope, reply]))

    def _reply(self, frames: list[bytes]) -> None:
        if self._socket.closed:
            return
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.ZMQError:
            log.debug("a client did not wait for its reply")

    def _count(self) -> None:
        """Keep count of the connections; the newest are cut off when there are too many."""
        for _ in range(EVENTS_PER_TURN):
            if self._monitor.closed:
                return
            try:
                event = recv_monitor_message(self._monitor, zmq.NOBLOCK)
            except zmq.Again:
                return
            self._connections += 1 if event["event"] == zmq.EVENT_ACCEPTED else -1
            if event["event"] == zmq.EVENT_ACCEPTED and self._connections > CONNECTIONS_MAX:
                self._cut_off(event["value"])
        self._loop.call_soon(self._count)

    def _cut_off(self, fd: int) -> None:
        """ZeroMQ owns the descriptor, and may have closed it: only what is a connection of this socket is cut."""
        with contextlib.suppress(OSError), socket.fromfd(fd, socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            if sock.getsockname() == str(self._path):
                sock.shutdown(socket.SHUT_RDWR)


def peer_of(frame: zmq.Frame, *, may_change: bool) -> Peer:
    """Who has sent this, from the credentials that ZeroMQ has asked the kernel for: "localhost:uid:gid:pid"."""
    try:
        uid, gid, pid = (int(word) for word in str(frame.get("Peer-Address")).rsplit(":", 3)[1:])
    except (zmq.ZMQError, ValueError):
        return Peer(NOBODY, NOBODY, 0, may_change=False)
    return Peer(uid, gid, pid, may_change)
