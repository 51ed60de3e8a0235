"""Historic classes of bugs, and requirements: for each guard that keeps one out, the tests that fail without it.

A file is one class: `title`, `known` (where it happened), `also` (further tests, such as system tests, that are
not run here), and its guards: in `file` stands `text`, once; `without` is put in its place; then every test of
`shown_by` must fail.  A guard with a `requirement` has the proofs that docs/tcp.md names for it, and one of them
must fail: the others show other sides of it.

`python -m tests.regressions` takes the guards away, one after the other, in a copy of the tree."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


@dataclass(frozen=True)
class Guard:
    """One place in the code, and what fails without it."""

    name: str
    file: str
    text: str
    without: str
    shown_by: tuple[str, ...]
    one_of_them: bool


@dataclass(frozen=True)
class BugClass:
    """One file."""

    name: str
    title: str
    known: str
    also: tuple[str, ...]
    guards: tuple[Guard, ...]


def proofs_of(requirement: str) -> tuple[str, ...]:
    """What docs/tcp.md names for it."""
    table = (ROOT / "docs" / "tcp.md").read_text()
    line = re.search(rf"^\| [^|]+\| {requirement} \|[^|]+\|[^|]+\|([^|]*)\|", table, re.MULTILINE)
    return tuple(re.findall(r"`([^`]+)`", line[1])) if line else ()


def load(path: Path) -> BugClass:
    """A file, as values."""
    data = tomllib.loads(path.read_text())
    guards = []
    for number, g in enumerate(data["guard"], 1):
        name = f"{path.stem}/{g.get('requirement', number)}"
        shown = tuple(g.get("shown_by", ())) or proofs_of(g.get("requirement", ""))
        guards.append(Guard(name, g["file"], g["text"], g["without"], shown, "requirement" in g))
    return BugClass(path.stem, data["title"], data["known"], tuple(data.get("also", ())), tuple(guards))


def classes() -> list[BugClass]:
    """All of them."""
    return [load(path) for path in sorted(HERE.glob("*.toml"))]


def locate(proof: str) -> str | None:
    """The test that a proof means, for pytest; None: there is none."""
    file, _, function = proof.partition("::")
    if not function:
        exists = (ROOT / "tests" / "packet_scripts" / f"{proof}.pkt").is_file()
        return f"tests/packet_scripts/test_scripts.py::test_script[{proof}]" if exists else None
    for path in (ROOT / "tests").rglob(file):
        if re.search(rf"^\s*(async )?def {function}\(", path.read_text(), re.MULTILINE):
            return f"{path.relative_to(ROOT)}::{function}"
    return None
