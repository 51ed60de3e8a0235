"""One TOML file, read key by key: every error names file, line, key, value and what is allowed.

Errors are collected, not raised, so that one run of `janusd --check` tells all of them. Knows nothing of
what the keys mean.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection
from typing import Any, TypeVar

T = TypeVar("T")

_TABLE = re.compile(r"^\s*(\[\[?)\s*([A-Za-z0-9_.\-]+)\s*\]\]?")
_KEY = re.compile(r"^\s*([A-Za-z0-9_\-]+)\s*=")


def key_lines(text: str) -> dict[str, int]:
    """Map "io.threads" and "port[0].name" to the line that sets it; a table to that of its header."""
    lines: dict[str, int] = {}
    counts: dict[str, int] = {}
    prefix = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _TABLE.match(line):
            prefix = header[2]
            if header[1] == "[[":
                index = counts.get(prefix, 0)
                counts[prefix] = index + 1
                prefix = f"{prefix}[{index}]"
            lines.setdefault(prefix, number)
        elif key := _KEY.match(line):
            lines.setdefault(f"{prefix}.{key[1]}" if prefix else key[1], number)
    return lines


class Errors:
    """The errors of one file, in the order in which they were found."""

    def __init__(self, path: str, lines: dict[str, int]) -> None:
        self.path = path
        self.lines = lines
        self.texts: list[str] = []

    def add(self, key: str, value: object, allowed: str) -> None:
        """Say that key's value is not allowed and what is."""
        shown = f" = {_shown(value)}" if value is not _NOTHING else ""
        self.texts.append(f"{self._place(key)}: {key}{shown}: {allowed}")

    def add_missing(self, key: str, allowed: str) -> None:
        """Say that key must be set."""
        self.texts.append(f"{self._place(key)}: {key} is missing: {allowed}")

    def _place(self, key: str) -> str:
        while key not in self.lines and "." in key:
            key = key.rpartition(".")[0]
        line = self.lines.get(key)
        return f"{self.path}:{line}" if line is not None else self.path


_NOTHING = object()


def _shown(value: object) -> str:
    text = "true" if value is True else "false" if value is False else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


class Table:
    """One TOML table; each get_* takes a key once, `finish` complains about the keys that nobody took."""

    def __init__(self, name: str, values: dict[str, Any], errors: Errors) -> None:
        self.name = name
        self.errors = errors
        self._values = values
        self._known: list[str] = []

    def key(self, key: str) -> str:
        """The key's full name, as errors print it."""
        return f"{self.name}.{key}" if self.name else key

    def bad(self, key: str, allowed: str) -> None:
        """Complain about the value that key has."""
        self.errors.add(self.key(key), self._values.get(key, _NOTHING), allowed)

    def take(self, key: str) -> Any:
        """The raw value, or None when it is not set."""
        self._known.append(key)
        return self._values.get(key)

    def get_int(self, key: str, default: int, low: int, high: int) -> int:
        """A whole number from low to high."""
        value = self.take(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.bad(key, f"must be a whole number from {low} to {high}")
            return default
        return value

    def get_power_of_two(self, key: str, default: int, low: int, high: int) -> int:
        """A power of two from low to high."""
        value = self.take(key)
        if value is None:
            return default
        if (
            isinstance(value, bool)
            or not isinstance(value, int)
            or not low <= value <= high
            or value & (value - 1)
        ):
            self.bad(key, f"must be a power of two from {low} to {high}")
            return default
        return value

    def get_float(self, key: str, default: float, low: float, high: float) -> float:
        """A number from low to high; NaN is none."""
        value = self.take(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            self.bad(key, f"must be a number from {low} to {high}")
            return default
        return float(value)

    def get_bool(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self.take(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.bad(key, "must be true or false")
            return default
        return value

    def get_choice(self, key: str, default: str, allowed: Collection[str]) -> str:
        """One of a few words."""
        value = self.take(key)
        if value is None:
            return default
        if not isinstance(value, str) or value not in allowed:
            self.bad(key, "must be one of " + ", ".join(f'"{word}"' for word in allowed))
            return default
        return value

    def get_text(self, key: str, default: str | None, pattern: str, allowed: str) -> str:
        """A string that matches pattern from end to end; default None: it must be set."""
        value = self.take(key)
        if value is None:
            if default is None:
                self.errors.add_missing(self.key(key), f"must be {allowed}")
            return default or ""
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            self.bad(key, f"must be {allowed}")
            return default or ""
        return value

    def get_list(
        self, key: str, parse: Callable[[Any], T], allowed: str, *, most: int
    ) -> tuple[T, ...] | None:
        """A list of at most `most` values, each read by parse (ValueError: bad); None when it is not set."""
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) > most:
            self.bad(key, f"must be a list of at most {most}, each {allowed}")
            return ()
        parsed: list[T] = []
        for index, item in enumerate(value):
            try:
                parsed.append(parse(item))
            except ValueError as error:
                reason = f" ({error})" if str(error) else ""
                self.errors.add(f"{self.key(key)}[{index}]", item, f"must be {allowed}{reason}")
        return tuple(parsed)

    def get_table(self, key: str) -> Table:
        """A sub-table; an empty one when it is not set."""
        value = self.take(key)
        if value is not None and not isinstance(value, dict):
            self.bad(key, f"must be a table, written [{self.key(key)}]")
            value = None
        return Table(self.key(key), value or {}, self.errors)

    def get_tables(self, key: str, *, most: int) -> list[Table]:
        """An array of tables; empty when it is not set."""
        value = self.take(key)
        if value is None:
            return []
        if (
            not isinstance(value, list)
            or not all(isinstance(item, dict) for item in value)
            or len(value) > most
        ):
            self.bad(key, f"must be at most {most} tables, each written [[{self.key(key)}]]")
            return []
        return [Table(f"{self.key(key)}[{index}]", item, self.errors) for index, item in enumerate(value)]

    def finish(self) -> None:
        """Complain about every key that no get_* has asked for."""
        for key in self._values:
            if key not in self._known:
                place = f"[{self.name}]" if self.name else "the file"
                self.bad(key, f"unknown key; known in {place}: {', '.join(self._known)}")


def parse_toml(text: str, path: str) -> tuple[dict[str, Any], Errors]:
    """The document and its (still empty) errors; a syntax error is the only entry, with an empty document."""
    errors = Errors(path, key_lines(text))
    try:
        return tomllib.loads(text), errors
    except tomllib.TOMLDecodeError as error:
        errors.texts.append(f"{path}: not valid TOML: {error}")
        return {}, errors
