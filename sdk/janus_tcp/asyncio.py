"""asyncio on Janus: an event loop for applications as they are.

asyncio.run(main(), loop_factory=janus_tcp.asyncio.new_event_loop)      CPython 3.12 and later
with asyncio.Runner(loop_factory=janus_tcp.asyncio.new_event_loop) as runner: ...
uvicorn --loop janus_tcp.asyncio:new_event_loop app:app
python -m janus_tcp.asyncio aiohttp.web app:main                        whatever asks asyncio for a loop
"""

import asyncio
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from janus_tcp.asyncio_loop import JanusEventLoop

SHORTCUTS = (  # functions of aiofastnet that make transports beside the loop
    "create_connection",
    "create_server",
    "open_connection",
    "sendfile",
    "start_server",
    "start_tls",
)


def new_event_loop() -> JanusEventLoop:
    """A new event loop on Janus; $JANUS_APP, $JANUS_SOCKET and $JANUS_CONNECT say the rest."""
    if "aiofastnet" in sys.modules:
        steer_back(sys.modules["aiofastnet"])
    return JanusEventLoop()


def steer_back(module: Any) -> None:
    """Have aiofastnet, which makes kernel transports past the event loop, ask a Janus loop instead.

    Newer releases of aiohttp call it.  Other loops are served as before.
    """

    def by_loop(shortcut: Any, method: str) -> Any:
        def call(loop: asyncio.AbstractEventLoop, *args: Any, **kwargs: Any) -> Any:
            if not isinstance(loop, JanusEventLoop):
                return shortcut(loop, *args, **kwargs)
            for unknown in ("ssl_incoming_bio_size", "ssl_outgoing_bio_size"):
                kwargs.pop(unknown, None)
            own = getattr(loop, method, None) or getattr(asyncio, method)
            return own(*args, **kwargs)

        call.on_janus = True  # type: ignore[attr-defined]
        return call

    for name in SHORTCUTS:
        shortcut = getattr(module, name, None)
        if shortcut is not None and not hasattr(shortcut, "on_janus"):
            setattr(module, name, by_loop(shortcut, name))


class _Policy(asyncio.DefaultEventLoopPolicy):
    """Every loop is one on Janus."""

    def new_event_loop(self) -> JanusEventLoop:
        return new_event_loop()


def main(words: list[str] | None = None) -> None:
    """Run a module or a script with its arguments; every event loop that it asks asyncio for is on Janus."""
    given = sys.argv[1:] if words is None else words
    if not given:
        raise SystemExit("usage: python -m janus_tcp.asyncio MODULE|SCRIPT.py [ARGUMENT ...]")
    if find_spec("aiofastnet") is not None:
        import aiofastnet  # type: ignore[import-not-found, unused-ignore]

        steer_back(aiofastnet)
    asyncio.set_event_loop_policy(_Policy())
    sys.argv = list(given)
    if given[0].endswith(".py"):
        sys.path[0] = str(Path(given[0]).resolve().parent)
        runpy.run_path(given[0], run_name="__main__")
    else:
        runpy.run_module(given[0], run_name="__main__", alter_sys=True)


__all__ = ["JanusEventLoop", "main", "new_event_loop", "steer_back"]

if __name__ == "__main__":
    main()
