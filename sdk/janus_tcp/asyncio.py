"""asyncio on Janus: an event loop for applications as they are.

asyncio.run(main(), loop_factory=janus_tcp.asyncio.new_event_loop)      CPython 3.12 and later
with asyncio.Runner(loop_factory=janus_tcp.asyncio.new_event_loop) as runner: ...
uvicorn --loop janus_tcp.asyncio:new_event_loop app:app
"""

from janus_tcp.asyncio_loop import JanusEventLoop


def new_event_loop() -> JanusEventLoop:
    """A new event loop on Janus; $JANUS_APP, $JANUS_SOCKET and $JANUS_CONNECT say the rest."""
    return JanusEventLoop()


__all__ = ["JanusEventLoop", "new_event_loop"]
