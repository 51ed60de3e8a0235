"""Handlers in C from shared objects: what ``./handler.so:handle`` means."""

import ctypes
import os
from dataclasses import dataclass

from janus_tcp import _janus


@dataclass(frozen=True)
class CHandler:
    """A function ``void handle(struct janus_conn *)`` of a shared object, to be served like a Python handler.

    If the object also has ``handle_accept`` (the hook of ``struct janus_service``) or ``handle_flags`` (a
    ``uint16_t``), they are used too.
    """

    target: str
    address: int
    accept: int
    flags: int


def is_c_target(target: str) -> bool:
    """Whether a target names a shared object."""
    return target.rpartition(":")[0].endswith(".so")


def load_c(target: str) -> CHandler:
    """Load ``path.so:name``.  OSError: the object cannot be loaded; ValueError: it has no such function."""
    path, _, name = target.rpartition(":")
    if not is_c_target(target):
        raise ValueError(f"'{target}' is not path.so:function")
    # janus_recv() and the others are this process's: the stack that the loop drives.
    ctypes.CDLL(_janus.__file__, mode=os.RTLD_NOLOAD | os.RTLD_GLOBAL)
    library = ctypes.CDLL(os.path.abspath(path), mode=os.RTLD_NOW)
    handler, accept = _address(library, name), _address(library, f"{name}_accept")
    if not handler:
        raise ValueError(f"{path} has no function {name}")
    flags = _address(library, f"{name}_flags")
    return CHandler(target, handler, accept, ctypes.c_uint16.from_address(flags).value if flags else 0)


def _address(library: ctypes.CDLL, name: str) -> int:
    try:
        return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
    except AttributeError:
        return 0
