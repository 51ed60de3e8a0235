"""Handlers by name: ``module:handler``, ``path.py:handler``, and ``path.so:handler`` in C."""

import errno
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from janus_tcp.c_handlers import is_c_target, load_c


def load(target: str) -> Any:
    """The object that ``module:name`` or ``path.py:name`` means, or the function in C that ``path.so:name`` does.
    Raises OSError EINVAL that says what is wrong with the name; what the module raises passes."""
    where, colon, name = target.rpartition(":")
    if not colon or not where or not name:
        raise OSError(errno.EINVAL, f"'{target}' is not module:handler")
    if is_c_target(target):
        try:
            return load_c(target)
        except ValueError as error:
            raise OSError(errno.EINVAL, str(error)) from None
    try:
        if where.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(where).stem, where)
            if spec is None or spec.loader is None or not Path(where).is_file():
                raise OSError(errno.EINVAL, f"there is no file {where}")
            module = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = module
            spec.loader.exec_module(module)
        else:
            if os.getcwd() not in sys.path:
                sys.path.insert(0, os.getcwd())
            module = importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name and where.startswith(error.name):
            raise OSError(errno.EINVAL, f"there is no module {where}") from None
        raise
    try:
        return getattr(module, name)
    except AttributeError:
        raise OSError(errno.EINVAL, f"{where} has no {name}") from None
