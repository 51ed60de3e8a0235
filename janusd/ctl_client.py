"""janusctl's side of the control API: one question, one answer, and what an error means to a shell."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from janusd import api_schema as schema
from janusd.curve_keys import KeyFileError, load_keys, load_public_key

DEFAULT_SOCKET = "/run/janus/ctl.sock"
TIMEOUT_S = 3.0
CHANGE_TIMEOUT_S = 60.0
EX_ABORTED, EX_USAGE, EX_DATA, EX_UNAVAILABLE, EX_TEMPFAIL, EX_PROTOCOL, EX_NOPERM = 1, 2, 65, 69, 75, 76, 77
EX_CONFIG = 78
EXIT_CODES = {
    "aborted": EX_ABORTED,
    "bad_weight": EX_DATA,
    "unknown_app": EX_DATA,
    "unknown_thread": EX_DATA,
    "not_found": EX_DATA,
    "bad_field": EX_DATA,
    "epoch_mismatch": EX_TEMPFAIL,
    "unconfirmed": EX_TEMPFAIL,
    "busy": EX_TEMPFAIL,
    "not_allowed": EX_NOPERM,
}  # others: EX_PROTOCOL
CHANGES = frozenset(
    schema.verb_name(struct) for struct in schema.AnyRequest.__args__ if issubclass(struct, schema.Change)
)

Json = Any
Ask = Callable[..., Json]


class CtlError(Exception):
    """What janusctl says before it exits."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class Client:
    """Asks one janusd: what changes something on ctl.sock; the rest there or, without the right to, on read.sock."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._context = zmq.Context()
        self._number = 0
        directory, name = os.path.split(path)
        paths = [path, os.path.join(directory, "read.sock")] if name == "ctl.sock" else [path]
        self._reading = next((p for p in paths if os.access(p, os.W_OK)), path)
        _check_path(self._reading)

    def _endpoint(self, *, changes: bool) -> str:
        """Where to ask."""
        path = self._path if changes else self._reading
        if path != self._reading:
            _check_path(path)
        return f"ipc://{path}"

    def _silence(self) -> str:
        """What to say when there is no answer."""
        return f"janusd does not answer on {self._reading}: is it running?"

    def _prepare(self, sock: zmq.Socket[bytes]) -> None:
        """What the socket needs before it is connected."""

    def ask(self, verb: str, **args: Json) -> Json:
        """The result of a request."""
        self._number += 1
        request = {"version": schema.VERSION, "id": str(self._number), "verb": verb}
        request |= {name: value for name, value in args.items() if value is not None}
        changes = verb in CHANGES
        endpoint = self._endpoint(changes=changes and not args.get("dry_run"))
        timeout_s = CHANGE_TIMEOUT_S if changes else TIMEOUT_S
        reply = self._exchange(endpoint, json.dumps(request).encode(), timeout_s)
        if "error" in reply:
            error = reply["error"]
            text = f"{error.get('field') or verb}: {error['text']}"
            raise CtlError(text, EXIT_CODES.get(error["code"], EX_PROTOCOL))
        return reply["result"]

    def _exchange(self, endpoint: str, request: bytes, timeout_s: float) -> Json:
        with self._context.socket(zmq.DEALER) as sock:
            sock.setsockopt(zmq.LINGER, 0)
            sock.setsockopt(zmq.RCVTIMEO, int(timeout_s * 1000))
            sock.setsockopt(zmq.SNDTIMEO, int(TIMEOUT_S * 1000))
            self._prepare(sock)
            try:
                sock.connect(endpoint)
                sock.send(request)
                reply = json.loads(sock.recv())
            except zmq.Again:
                raise CtlError(self._silence(), EX_UNAVAILABLE) from None
            except zmq.ZMQError as error:
                raise CtlError(f"{endpoint}: {error.strerror}", EX_UNAVAILABLE) from None
            except ValueError:
                raise CtlError("janusd's reply is not JSON", EX_PROTOCOL) from None
        return reply


class RemoteClient(Client):
    """Asks the janusd behind a janus-gateway on another machine, by CURVE with a key of its own."""

    def __init__(self, address: str, key: str | None, server_key: str | None) -> None:
        if re.fullmatch(r"tcp://[^\s/]+:\d{1,5}", address) is None:
            raise CtlError(f"{address}: --remote is of the form tcp://HOST:PORT", EX_USAGE)
        if key is None or server_key is None:
            raise CtlError("--remote needs --key, this side's secret key, and --server-key", EX_USAGE)
        try:
            self._keys = load_keys(Path(key))
            self._server_key = load_public_key(Path(server_key))
        except KeyFileError as error:
            raise CtlError(str(error), EX_NOPERM if error.is_open else EX_CONFIG) from None
        self._address = address
        self._context = zmq.Context()
        self._number = 0

    def _endpoint(self, *, changes: bool) -> str:
        return self._address

    def _silence(self) -> str:
        return f"no answer from {self._address}: does a janus-gateway run there, with this key in its list?"

    def _prepare(self, sock: zmq.Socket[bytes]) -> None:
        sock.setsockopt(zmq.IPV6, 1)
        sock.setsockopt(zmq.CURVE_PUBLICKEY, self._keys[0])
        sock.setsockopt(zmq.CURVE_SECRETKEY, self._keys[1])
        sock.setsockopt(zmq.CURVE_SERVERKEY, self._server_key)


def _check_path(path: str) -> None:
    if not os.path.exists(path):
        directory = os.path.dirname(path) or "."
        if os.path.exists(directory) and not os.access(directory, os.X_OK):
            raise CtlError(f"no permission to enter {directory}", EX_NOPERM)
        raise CtlError(
            f"janusd is not running here: there is no {path} (--socket names another one)", EX_UNAVAILABLE
        )
    if not os.access(path, os.W_OK):
        text = f"no permission to use {path}: be root or in its group (admin_group in janusd.toml)"
        raise CtlError(text, EX_NOPERM)
