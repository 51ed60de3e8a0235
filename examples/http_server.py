"""A small HTTP/1.1 server: one page, persistent connections, pipelining, and limits on whatever a client
controls.

python -m janus_tcp run examples.http_server:handle --port 80 --workers 2 --app web
"""

from dataclasses import dataclass

import janus_tcp

HEAD_BYTES_MAX = 8192
BODY_BYTES_MAX = 65536
HEAD_SECONDS = 10.0  # for a whole head to arrive: a slow client holds a connection no longer
BODY_SECONDS = 10.0
ANSWER_SECONDS = 30.0
LINGER_SECONDS = 2.0
PAGE = b"<!doctype html>\n<title>Janus</title>\n<p>Served by a user-level TCP stack.\n"
REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    505: "HTTP Version Not Supported",
}


class Refused(Exception):
    """A request that ends the connection with a status."""

    def __init__(self, status: int) -> None:
        super().__init__(REASONS[status])
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """What the server needs to know of a request."""

    method: bytes
    target: bytes
    persistent: bool
    body_bytes: int


def parse_request(head: bytes) -> Request:
    """Read a head with its empty line (RFC 9112 2 to 6).  Refused: not one that this server answers."""
    request_line, *lines = head.lstrip(b"\r\n").split(b"\r\n")
    words = request_line.split(b" ")
    if len(words) != 3 or not words[0].isalpha() or not words[1]:
        raise Refused(400)
    if words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise Refused(505 if words[2].startswith(b"HTTP/") else 400)
    fields = parse_fields(lines)
    if b"transfer-encoding" in fields:
        raise Refused(501)
    if words[2] == b"HTTP/1.1" and b"host" not in fields:
        raise Refused(400)
    length = fields.get(b"content-length", b"0")
    if not length.isdigit() or len(length) > 18:
        raise Refused(400)
    if int(length) > BODY_BYTES_MAX:
        raise Refused(413)
    options = fields.get(b"connection", b"").lower()
    persistent = b"close" not in options and (words[2] == b"HTTP/1.1" or b"keep-alive" in options)
    return Request(words[0], words[1], persistent, int(length))


def parse_fields(lines: list[bytes]) -> dict[bytes, bytes]:
    """Header fields by lower-case name; the last of a name counts, but two lengths or hosts are refused."""
    fields: dict[bytes, bytes] = {}
    for line in lines:
        if not line:
            continue
        name, colon, value = line.partition(b":")
        name = name.lower()
        if not colon or not name or name != name.strip():
            raise Refused(400)
        if name in (b"content-length", b"host") and name in fields:
            raise Refused(400)
        fields[name] = value.strip()
    return fields


def build_answer(status: int, body: bytes, *, persistent: bool, with_body: bool = True) -> bytes:
    """The bytes of an answer."""
    close = "" if persistent else "Connection: close\r\n"
    head = (
        f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: text/html\r\n"
        f"Content-Length: {len(body)}\r\n{close}\r\n"
    )
    return head.encode() + (body if with_body else b"")


PAGE_ANSWER = build_answer(200, PAGE, persistent=True)


def answer_request(request: Request) -> bytes:
    """The answer to a well-formed request."""
    if request.method == b"GET" and request.target == b"/" and request.persistent:
        return PAGE_ANSWER
    if request.method not in (b"GET", b"HEAD"):
        return build_answer(405, b"GET or HEAD.\n", persistent=request.persistent)
    found = request.target.partition(b"?")[0] == b"/"
    status, body = (200, PAGE) if found else (404, b"No such page.\n")
    return build_answer(status, body, persistent=request.persistent, with_body=request.method == b"GET")


async def serve_one(conn: janus_tcp.Connection) -> bool:
    """Answer one request.  False: the connection ends here."""
    conn.set_deadline(HEAD_SECONDS)
    try:
        head = await conn.recv_until(b"\r\n\r\n", HEAD_BYTES_MAX)
    except ValueError:
        raise Refused(431) from None
    except TimeoutError:
        raise Refused(408) from None
    request = parse_request(head)
    if request.body_bytes:
        conn.set_deadline(BODY_SECONDS)
        await conn.recv_exactly(request.body_bytes)
    conn.set_deadline(ANSWER_SECONDS)
    await conn.send(answer_request(request))
    return request.persistent


async def refuse(conn: janus_tcp.Connection, refusal: Refused) -> None:
    """Answer, and take what still comes: closing with unread bytes resets, and could take the answer
    along."""
    conn.set_deadline(LINGER_SECONDS)
    await conn.send(build_answer(refusal.status, str(refusal).encode() + b"\n", persistent=False))
    conn.shutdown()
    async for _ in conn:
        pass


async def handle(conn: janus_tcp.Connection) -> None:
    """Serve one connection."""
    conn.set_nodelay(True)
    try:
        try:
            while await serve_one(conn):
                pass
        except Refused as refusal:
            await refuse(conn, refusal)
    except (EOFError, OSError):
        return  # the client has gone, or was too slow: nobody is left to tell


if __name__ == "__main__":
    janus_tcp.run(handle, port=80, workers=2)
