"""The docstring of every public name tells errors and units, and has an example, which runs."""

import asyncio
import doctest
import inspect
import re
from collections.abc import Iterator
from contextlib import suppress
from types import ModuleType
from typing import Any

import janus_tcp
import janus_tcp.asyncio
import janus_tcp.asyncio_testing
import janus_tcp.sync
import janus_tcp.testing
import pytest
from janus_tcp.testing import Pair, talk

ASYNCIO = [janus_tcp.asyncio, janus_tcp.asyncio_testing]


async def echo(conn: janus_tcp.Connection) -> None:
    async for data in conn:
        await conn.send(data)


def public() -> Iterator[tuple[str, Any]]:
    """Names with the objects whose docstrings are looked at, methods of the package's classes included."""
    modules: list[ModuleType] = [janus_tcp, janus_tcp.testing, janus_tcp.sync, *ASYNCIO]
    for module in modules:
        prefix = "" if module is janus_tcp else f"{module.__name__}."
        for name in module.__all__:
            value = getattr(module, name)
            yield f"{prefix}{name}", value
            if isinstance(value, type):
                for attribute, member in vars(value).items():
                    if not attribute.startswith("_"):
                        yield f"{prefix}{name}.{attribute}", member


PUBLIC = list(public())
IDS = [name for name, _ in PUBLIC]
ERRORS = re.compile(r"Error|SystemExit|\b[Rr]aise|[Hh]armless")
UNITS = {  # names of parameters, and what the prose then has to say
    r"seconds|\w+_s|\w*timeout|when|delay": "second",
    r"n|limit|count|mtu|size|\w+_buffer|data": "byte",
}


@pytest.mark.parametrize(("name", "value"), PUBLIC, ids=IDS)
def test_the_examples_of_a_docstring_run(name: str, value: Any) -> None:
    assert value.__doc__, f"{name} has no docstring"
    names: dict[str, Any] = {"janus_tcp": janus_tcp, "echo": echo, "talk": talk, "Pair": Pair}
    names |= {"Session": janus_tcp.sync.Session, "attach": janus_tcp.sync.attach}
    for module in ASYNCIO:
        names |= {one: getattr(module, one) for one in module.__all__} | {"asyncio": asyncio}
    test = doctest.DocTestParser().get_doctest(value.__doc__, names, name, None, None)
    said: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append)
    assert not said, "".join(said)


def test_every_public_name_has_an_example() -> None:
    assert len(PUBLIC) > 70
    assert [name for name, value in PUBLIC if ">>> " not in (value.__doc__ or "")] == []


def parameters(value: Any) -> list[str]:
    """Of a function or class; of one in C as far as it tells."""
    with suppress(ValueError, TypeError):
        return list(inspect.signature(value).parameters)
    return []


@pytest.mark.parametrize(("name", "value"), PUBLIC, ids=IDS)
def test_a_docstring_tells_errors_and_units(name: str, value: Any) -> None:
    prose = (value.__doc__ or "").split(">>> ")[0]
    is_error = isinstance(value, type) and issubclass(value, BaseException)
    assert is_error or ERRORS.search(prose), "which errors, or that it raises none"
    for parameter in parameters(value):
        for names, unit in UNITS.items():
            assert not re.fullmatch(names, parameter) or unit in prose, f"{parameter} has no unit"
