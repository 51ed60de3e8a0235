"""Types of janus_tcp._janus, which cffi makes."""

from typing import Any

ffi: Any
lib: Any
