"""janus-gateway: the control API for other machines, in a process of its own that has no privilege.

    client --CURVE, tcp--> ROUTER | ZAP: is its key in the list? | decode, may it? | DEALER --ipc--> janusd

What ZeroMQ does before a client has proved its key happens here and not in janusd.  A request is decoded and encoded
anew, so that janusd gets nothing but well-formed ones, with the client's name in "via".  Only the answers' ids are
looked at on the way back.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec
import zmq
from zmq.auth.thread import ThreadAuthenticator

from janusd import api_schema as schema
from janusd import config, log_format
from janusd.checks import EX_CONFIG, EX_UNAVAILABLE
from janusd.config_reader import Table, parse_toml
from janusd.curve_keys import KeyFileError, load_keys, write_keys
from janusd.log_format import fields

log = logging.getLogger("janusd.gateway")

DEFAULT_CONFIG = "/etc/janus/gateway.toml"
CLIENTS_MAX = 64
PENDING_MAX, PENDING_PER_CLIENT_MAX = 256, 16
FORGET_S = 120.0  # a request that janusd has not answered
Z85_KEY = r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}"


@dataclass(frozen=True)
class Client:
    """Who may come in."""

    name: str
    public_key: str
    change: bool


@dataclass(frozen=True)
class GatewayConfig:
    """The whole file."""

    address: str
    port: int
    secret_key: Path
    socket: str
    clients: tuple[Client, ...]


def parse(text: str, path: str) -> GatewayConfig:
    """Validate the text of a file called path; ConfigError says all that is wrong."""
    document, errors = parse_toml(text, path)
    if errors.texts:
        raise config.ConfigError(errors.texts)
    root = Table("", document, errors)
    own = root.get_table("gateway")
    listen = own.get_text("listen", None, r".+:\d{1,5}", '"ADDRESS:PORT"')
    secret = own.get_text("secret_key", "/etc/janus/gateway.key_secret", r"/.+", "an absolute path")
    socket = own.get_text("socket", "/run/janus/ctl.sock", r"/[^\0]{1,90}", "an absolute path")
    own.finish()
    clients = []
    for table in root.get_tables("client", most=CLIENTS_MAX):
        name = table.get_text(
            "name", None, r"[A-Za-z0-9._-]{1,48}", "a name of at most 48 letters, digits, ._-"
        )
        key = table.get_text("public_key", None, Z85_KEY, "the 40 characters of a public key")
        clients.append(Client(name, key, table.get_bool("change", False)))
        table.finish()
    root.finish()
    host, _, port = listen.rpartition(":")
    try:
        address = ipaddress.ip_address(host.strip("[]"))
        if address.is_unspecified or not 1 <= int(port) <= 65535:
            raise ValueError
    except ValueError:
        if listen:
            own.bad("listen", "must be one address of this machine and a port: no wildcard, no name")
    for what in ("name", "public_key"):
        if len({getattr(client, what) for client in clients}) != len(clients):
            errors.add("client", [getattr(client, what) for client in clients], f"{what} must be unique")
    if errors.texts:
        raise config.ConfigError(errors.texts)
    return GatewayConfig(host.strip("[]"), int(port), Path(secret), socket, tuple(clients))


class Allowed:
    """ZAP's question: is this client's public key in the list?"""

    def __init__(self, clients: tuple[Client, ...]) -> None:
        self._keys = {client.public_key.encode() for client in clients}

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether to let it in."""
        return key in self._keys


@dataclass
class Pending:
    """A request that is on its way."""

    envelope: list[bytes]
    id: str
    client: str
    asked_s: float


class Gateway:
    """Between the clients and janusd, in one thread."""

    def __init__(self, wanted: GatewayConfig) -> None:
        public, secret = load_keys(wanted.secret_key)
        self._clients = {client.public_key: client for client in wanted.clients}
        self._pending: dict[str, Pending] = {}
        self._number = 0
        self._context = zmq.Context(io_threads=1)
        self._zap = ThreadAuthenticator(self._context, log=logging.getLogger("janusd.gateway.zap"))
        self._zap.start()
        self._zap.configure_curve_callback(domain="*", credentials_provider=Allowed(wanted.clients))
        self.front = self._context.socket(zmq.ROUTER)
        self._back = self._context.socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.MAXMSGSIZE, schema.REQUEST_BYTES_MAX),
            (zmq.RCVHWM, 64),
            (zmq.SNDHWM, 64),
            (zmq.BACKLOG, 32),
            (zmq.HANDSHAKE_IVL, 2000),
            (zmq.HEARTBEAT_IVL, 10_000),
            (zmq.HEARTBEAT_TIMEOUT, 30_000),
            (zmq.SNDTIMEO, 0),
            (zmq.IPV6, int(":" in wanted.address)),
            (zmq.CURVE_SERVER, 1),
            (zmq.CURVE_PUBLICKEY, public),
            (zmq.CURVE_SECRETKEY, secret),
        ):
            self.front.setsockopt(option, value)
        self._back.setsockopt(zmq.LINGER, 0)
        self._back.setsockopt(zmq.SNDTIMEO, 0)
        self._back.connect(f"ipc://{wanted.socket}")
        host = f"[{wanted.address}]" if ":" in wanted.address else wanted.address
        self.front.bind(f"tcp://{host}:{wanted.port}")

    def close(self) -> None:
        """Close everything."""
        self._zap.stop()
        self.front.close()
        self._back.close()
        self._context.term()

    def run(self, turns: int | None = None) -> None:
        """Serve, for so many turns or for ever."""
        poller = zmq.Poller()
        poller.register(self.front, zmq.POLLIN)
        poller.register(self._back, zmq.POLLIN)
        while turns is None or turns > 0:
            ready = dict(poller.poll(1000))
            if self.front in ready:
                self._ask(self.front.recv_multipart(copy=False))
            if self._back in ready:
                self._answer(self._back.recv_multipart())
            self._forget()
            turns = None if turns is None else turns - 1

    def _ask(self, frames: list[zmq.Frame]) -> None:
        parts = [bytes(frame.buffer) for frame in frames]
        if len(parts) not in (2, 3) or (len(parts) == 3 and parts[1]):
            return
        envelope, data = parts[:-1], parts[-1]
        client = self._clients.get(str(frames[-1].get("User-Id")))
        try:
            if client is None:
                raise schema.BadRequest("not_allowed", "this key is not in the gateway's list")
            self._forward(client, envelope, schema.decode_request(data))
        except schema.BadRequest as error:
            self._send(envelope, schema.encode_error(schema.id_of(data), error.error))

    def _forward(self, client: Client, envelope: list[bytes], request: schema.AnyRequest) -> None:
        changes = isinstance(request, schema.Change) and not getattr(request, "dry_run", False)
        if changes and not client.change:
            log.warning("refused", extra=fields(client=client.name, verb=schema.verb_name(type(request))))
            raise schema.BadRequest("not_allowed", f"client {client.name} may only look", "verb")
        own = sum(pending.client == client.name for pending in self._pending.values())
        if own >= PENDING_PER_CLIENT_MAX or len(self._pending) >= PENDING_MAX:
            raise schema.BadRequest("busy", "too many requests are on their way")
        self._number += 1
        token = str(self._number)
        sent = msgspec.structs.replace(request, id=token, via=client.name)
        try:
            self._back.send(msgspec.json.encode(sent), zmq.NOBLOCK)
        except zmq.Again:
            raise schema.BadRequest("busy", "janusd is not there, or does not take requests") from None
        self._pending[token] = Pending(envelope, request.id, client.name, time.monotonic())

    def _answer(self, frames: list[bytes]) -> None:
        reply: dict[str, Any] = msgspec.json.decode(frames[-1])
        pending = self._pending.pop(str(reply.get("id")), None)
        if pending is not None:
            self._send(pending.envelope, msgspec.json.encode({**reply, "id": pending.id}))

    def _send(self, envelope: list[bytes], reply: bytes) -> None:
        try:
            self.front.send_multipart([*envelope, reply], zmq.NOBLOCK)
        except zmq.ZMQError:
            log.debug("a client did not wait for its reply")

    def _forget(self) -> None:
        until = time.monotonic() - FORGET_S
        for token in [token for token, pending in self._pending.items() if pending.asked_s < until]:
            pending = self._pending.pop(token)
            error = schema.Error(code="internal", text="janusd has not answered")
            self._send(pending.envelope, schema.encode_error(pending.id, error))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", "path", default=DEFAULT_CONFIG, show_default=True, help="The configuration.")
@click.option("--check", is_flag=True, help="Print ok or what is wrong, and start nothing.")
@click.option("--make-key", nargs=2, metavar="NAME DIRECTORY", help="Make a pair of keys, and nothing else.")
def main(path: str, check: bool, make_key: tuple[str, str] | None) -> None:
    """Serve janusd's control API to clients on other machines whose keys are known."""
    if make_key is not None:
        write_keys(*make_key)
        return
    try:
        wanted = parse(config.read(path), path)
        load_keys(wanted.secret_key)
    except (config.ConfigError, KeyFileError) as error:
        for text in getattr(error, "texts", (str(error),)):
            click.echo(text, err=True)
        sys.exit(EX_CONFIG)
    if check:
        click.echo("ok")
        return
    log_format.configure("info", "text", journal="JOURNAL_STREAM" in os.environ)
    try:
        gateway = Gateway(wanted)
    except zmq.ZMQError as error:
        log.error("janus-gateway does not start: %s:%d: %s", wanted.address, wanted.port, error.strerror)
        sys.exit(EX_UNAVAILABLE)
    log.info("ready", extra=fields(address=wanted.address, port=wanted.port, clients=len(wanted.clients)))
    try:
        gateway.run()
    except KeyboardInterrupt:
        log.info("stopping")
    finally:
        gateway.close()


if __name__ == "__main__":
    main()
