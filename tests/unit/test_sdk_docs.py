"""The Python in docs/sdk.md: every block compiles and defines what it says; those with a Pair run."""

import ast
import inspect
import re
from pathlib import Path

import janus_tcp
import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "sdk.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.S)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_the_block_runs(block: str) -> None:
    exec(compile(ast.parse(block), "docs/sdk.md", "exec"), {"__name__": "docs"})


def test_the_tutorial_runs_from_its_first_line_to_its_last() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "tutorial.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    assert len(blocks) == 4
    exec(compile("\n".join(blocks), "docs/tutorial.md", "exec"), {"__name__": "docs"})


def test_the_page_has_runs_arguments() -> None:
    shown = re.search(r"^`run\((.*?)\)`$", PAGE, re.S | re.M)
    assert shown is not None
    wanted = [
        p.name if p.default is p.empty else f"{p.name}={p.default}"
        for p in inspect.signature(janus_tcp.run).parameters.values()
    ]
    assert re.split(r",\s+", shown[1].replace("*, ", "")) == wanted
    table = PAGE.split("| argument | meaning |", 1)[1].split("\n\n", 1)[0]
    assert set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (.*?) \|", table, re.M)))) == {
        p.split("=")[0] for p in wanted
    }


def test_every_public_name_is_on_the_page() -> None:
    missing = [name for name in janus_tcp.__all__ if not re.search(rf"\b{name}\b", PAGE)]
    assert not missing


def test_every_public_method_of_a_connection_is_on_the_page() -> None:
    names = [name for name in vars(janus_tcp.Connection) if not name.startswith("_")]
    assert len(names) > 10
    missing = [name for name in names if not re.search(rf"\b{name}\b", PAGE)]
    assert not missing


def test_every_public_name_has_a_docstring() -> None:
    for name in janus_tcp.__all__:
        assert getattr(janus_tcp, name).__doc__, name
    for name, value in vars(janus_tcp.Connection).items():
        assert name.startswith("_") or value.__doc__, name
