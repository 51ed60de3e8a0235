"""An ASGI application without a framework: a page, a digest of what was uploaded, a long answer, a WebSocket echo."""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

LONG_BYTES = 16 << 20
CHUNK = bytes(range(256)) * 256

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """ASGI 3."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    elif scope["type"] == "websocket":
        await echo(receive, send)
    elif scope["path"] == "/upload":
        await answer(send, (await digest(receive)).encode())
    elif scope["path"] == "/long":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(LONG_BYTES // len(CHUNK)):
            await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
        await send({"type": "http.response.body"})
    else:
        await answer(send, f"hello {scope['client'][0]} HTTP/{scope['http_version']}".encode())


async def answer(send: Send, body: bytes) -> None:
    """A short response."""
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def digest(receive: Receive) -> str:
    """SHA-256 of the request's body."""
    found = hashlib.sha256()
    more = True
    while more:
        message = await receive()
        found.update(message.get("body", b""))
        more = message.get("more_body", False)
    return found.hexdigest()


async def echo(receive: Receive, send: Send) -> None:
    """Sends each message back until the client goes."""
    while True:
        message = await receive()
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        elif message["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        else:
            return
