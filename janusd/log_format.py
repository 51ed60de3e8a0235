"""Structured logs: one line per event, a sentence and its fields, as text or as JSON."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

_LEVELS = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}  # syslog's, for the journal


def fields(**values: object) -> dict[str, dict[str, object]]:
    """For the extra argument of a log call."""
    return {"fields": values}


def _fields_of(record: logging.LogRecord) -> dict[str, object]:
    values: dict[str, object] = getattr(record, "fields", {})
    return values


class TextFormatter(logging.Formatter):
    """level module: sentence key=value ..."""

    def __init__(self, *, journal: bool) -> None:
        """journal: begin lines with <priority>, as sd-daemon(3) says, and leave out the time."""
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever is in the fields."""
        pairs = "".join(f" {key}={_word(value)}" for key, value in _fields_of(record).items())
        line = f"{record.levelname.lower()} {record.name}: {record.getMessage()}{pairs}"
        if record.exc_info:
            line += " " + _word(self.formatException(record.exc_info))
        if self._journal:
            return f"<{_LEVELS.get(record.levelname, 6)}>{line}"
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.localtime(record.created))} {line}"


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """time, level, module and message, then the fields."""
        entry: dict[str, Any] = {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "module": record.name,
            "message": record.getMessage(),
            **_fields_of(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def _word(value: object) -> str:
    text = str(value)
    return text if text.isprintable() and text and not set(text) & set(' "=') else json.dumps(text)


def configure(level: str, format_: str, *, journal: bool) -> None:
    """Log to standard error from now on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if format_ == "json" else TextFormatter(journal=journal))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
