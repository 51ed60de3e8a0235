"""The control API's server: a ZeroMQ ROUTER on an ipc socket; bytes to request, to result, to bytes.

Who may connect is decided by the socket's mode and group. Requests only read. A message that is too long is
cut off by ZeroMQ; what is no request gets an error for an answer, which names the field.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import zmq

from janusd import api_schema as schema
from janusd.log_format import fields
from janusd.runtime_sockets import bind_for_group

log = logging.getLogger("janusd.api")

REQUESTS_PER_TURN = 16
POLL_S = 1.0  # the descriptor of a ZeroMQ socket tells of edges alone: look now and then all the same


def answer_bytes(data: bytes, answer: Callable[[schema.AnyRequest], schema.Result]) -> bytes:
    """The reply to whatever has come. Never raises."""
    try:
        request = schema.decode_request(data)
        return schema.encode_result(request.id, answer(request))
    except schema.BadRequest as error:
        return schema.encode_error(schema.id_of(data), error.error)
    except Exception:
        log.exception("a request failed")
        text = "janusd could not answer this; its log says why"
        return schema.encode_error(schema.id_of(data), schema.Error(code="internal", text=text))


class ApiServer:
    """Serves one socket from the control thread's loop."""

    def __init__(
        self,
        path: Path,
        gid: int | None,
        answer: Callable[[schema.AnyRequest], schema.Result],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._answer = answer
        self._loop = loop
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
        bind_for_group(path, gid, lambda: self._socket.bind(f"ipc://{path}"))
        self._fd = int(self._socket.getsockopt(zmq.FD))
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Serve from now on."""
        self._loop.add_reader(self._fd, self._serve)
        self._look()

    def stop(self) -> None:
        """Close the socket."""
        self._loop.remove_reader(self._fd)
        if self._timer is not None:
            self._timer.cancel()
        self._socket.close()
        self._context.term()

    def _look(self) -> None:
        self._serve()
        self._timer = self._loop.call_later(POLL_S, self._look)

    def _serve(self) -> None:
        for _ in range(REQUESTS_PER_TURN):
            if self._socket.closed:
                return
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            except zmq.ZMQError as error:
                log.warning("the control socket failed", extra=fields(error=error.strerror))
                return
            if len(frames) in (2, 3) and (len(frames) == 2 or not frames[1]):
                reply = answer_bytes(frames[-1], self._answer)
                self._reply([*frames[:-1], reply])
        self._loop.call_soon(self._serve)

    def _reply(self, frames: list[bytes]) -> None:
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.ZMQError:
            log.debug("a client did not wait for its reply")
