"""The only importer of the extension: cffi's ``ffi`` and ``lib``, and the types in C (module ``_core``)."""

from typing import Any

from janus_tcp._janus import ffi as _ffi
from janus_tcp._janus import lib as _lib

ffi: Any = _ffi
lib: Any = _lib

if lib.face_install() != 0:
    raise ImportError("janus_tcp: the extension's types could not be set up")

# The module exists since face_install(); there is no file of that name.
from janus_tcp._core import (  # noqa: E402
    CancelledError,
    Connection,
    IncompleteReadError,
    Loop,
    Task,
    Timer,
    cancel,
    current_loop,
    current_task,
    set_error_handler,
    set_slow_handler,
    sleep,
)

__all__ = [
    "CancelledError",
    "Connection",
    "IncompleteReadError",
    "Loop",
    "Task",
    "Timer",
    "cancel",
    "current_loop",
    "current_task",
    "ffi",
    "lib",
    "raise_error",
    "set_error_handler",
    "set_slow_handler",
    "sleep",
]


def raise_error(error: Any) -> None:
    """Raise the OSError that a ``struct janus_error`` stands for."""
    raise OSError(error.code, ffi.string(error.text).decode(errors="replace"))
