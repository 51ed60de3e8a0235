"""gunicorn on Janus: gunicorn -k janus_tcp.asyncio_gunicorn.UvicornWorker app:app

The master binds its sockets in the kernel as always; each worker listens on the same ports on Janus and serves both.
"""

from typing import Any, ClassVar

from uvicorn_worker import UvicornWorker as _UvicornWorker


class UvicornWorker(_UvicornWorker):  # type: ignore[misc]
    """uvicorn's worker with its event loop on Janus."""

    CONFIG_KWARGS: ClassVar[dict[str, Any]] = {  # pyright: ignore[reportIncompatibleVariableOverride]
        **_UvicornWorker.CONFIG_KWARGS,
        "loop": "janus_tcp.asyncio:new_event_loop",
    }


__all__ = ["UvicornWorker"]
