"""docs/tcp.md says what each requirement of TCP's RFCs has come to; here its lines are held to it."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "tests" / "packet_scripts"

# RFC 9293, appendix B, and the other RFCs that the stack is built by.
REQUIRED = (
    {f"MUST-{n}" for n in range(1, 70)}
    | {f"SHLD-{n}" for n in range(1, 32)}
    | {f"MAY-{n}" for n in range(1, 19)}
    | {"REC-1"}
)
OTHER_RFCS = {
    *(1122, 1191, 1337, 2018, 2883, 3042, 3168, 3465, 4821, 4987, 5482, 5681, 5682, 5722, 5927, 5961, 6056),
    *(
        6093,
        6191,
        6298,
        6429,
        6528,
        6582,
        6675,
        6691,
        6928,
        6937,
        6946,
        7112,
        7126,
        7323,
        7661,
        8200,
        8201,
        8257,
        8985,
        9406,
        9438,
    ),
}
STATUSES = {"met", "departs", "not taken", "the user's"}


def rows() -> list[list[str]]:
    """The cells of each line of the tables, heads left out."""
    lines = (ROOT / "docs" / "tcp.md").read_text().splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [c for c in cells if c[0] not in ("section", "RFC", "what")]


ROWS = rows()
TESTS = {
    path.name: set(re.findall(r"^\s*(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE))
    for path in (ROOT / "tests").rglob("test_*.py")
}


def exists(proof: str) -> bool:
    file, _, function = proof.partition("::")
    return function in TESTS.get(file, ()) if function else (SCRIPTS / f"{proof}.pkt").is_file()


def test_every_requirement_of_the_appendix_stands_there_once() -> None:
    ids = Counter(cells[1] for cells in ROWS if re.fullmatch(r"[A-Z]+-\d+", cells[1]))
    assert set(ids) == REQUIRED
    assert max(ids.values()) == 1


def test_every_other_rfc_stands_there() -> None:
    assert {int(cells[0]) for cells in ROWS if re.fullmatch(r"\d+", cells[0])} == OTHER_RFCS


def test_every_line_is_whole() -> None:
    for cells in ROWS:
        assert len(cells) == 6, cells
        assert cells[3] in STATUSES, cells


def test_what_is_done_has_proofs_that_exist() -> None:
    for cells in ROWS:
        proofs = re.findall(r"`([^`]+)`", cells[4])
        assert bool(proofs) == (cells[3] in ("met", "departs")), cells
        missing = [p for p in proofs if not exists(p)]
        assert not missing, f"{cells[0]} {cells[1]}: no such script or test: {missing}"


def test_what_departs_says_why() -> None:
    for cells in ROWS:
        if cells[3] == "departs":
            assert cells[5], cells
        if cells[3] == "not taken":
            assert cells[1].startswith("MAY-"), cells
