"""The examples in the docstrings of every public name run, and each name has one."""

import asyncio
import doctest
from collections.abc import Iterator
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


CONNECTION = [(name, value) for name, value in public() if name.startswith("Connection")]


@pytest.mark.parametrize(("name", "value"), list(public()), ids=[name for name, _ in public()])
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


@pytest.mark.parametrize(("name", "value"), CONNECTION, ids=[name for name, _ in CONNECTION])
def test_every_method_of_a_connection_has_an_example(name: str, value: Any) -> None:
    assert ">>> " in (value.__doc__ or "")


def test_every_public_function_and_class_has_an_example() -> None:
    errors = {"CancelledError", "IncompleteReadError"}
    without = [name for name, value in public() if "." not in name and ">>> " not in (value.__doc__ or "")]
    assert set(without) <= errors


@pytest.mark.parametrize(("face", "least"), [("sync", 10), ("asyncio", 12)])
def test_every_name_of_a_face_has_an_example(face: str, least: int) -> None:
    names = [(name, value) for name, value in public() if name.startswith(f"janus_tcp.{face}")]
    assert len(names) >= least
    assert [name for name, value in names if ">>> " not in (value.__doc__ or "")] == []
