"""Scripts with lines lost, doubled, swapped, borrowed or changed: whatever peer and user then do, the invariants hold.

JANUS_SEEDS says how many; the first of a hundred is in the test's name.  The invariants are those of tcp_check(), which
ends the process, so that each script is in a file of its seed before it runs, and pytest keeps the last.
"""

import os
import random
import re
from pathlib import Path

import pytest

from tests.packet_scripts.grammar import parse
from tests.packet_scripts.runner import Runner
from tests.packet_scripts.script import Call, Event, Packet, ScriptError, Unsupported
from tests.packet_scripts.sockets import Result

HERE = Path(__file__).parent
SOURCES = [path.read_text().splitlines() for path in sorted(HERE.rglob("*.pkt"))]
PER_TEST = 100
SEEDS = int(os.environ.get("JANUS_SEEDS", "500"))
HEAD = ("//", "`", "--")


class Careless(Runner):
    """Waits for the packets that a script expects, and takes whatever comes."""

    def expect(self, event: Event, want: Packet, begin: int, end: int) -> None:
        flow = self.flow_of(want, inbound=False)
        self.machine.advance_to(end + self.settings.tolerance_us, until=lambda: self.find(flow) is not None)
        if self.find(flow) is not None:
            flow.learn(self.take(flow, want), want.seq)

    def judge_result(self, event: Event, call: Call, got: Result) -> None:
        pass


def change_number(rng: random.Random, text: str) -> str:
    value = int(text)
    return str(
        rng.choice([value + 1, max(0, value - 1), value * 2, 0, value + 1000, value // 2, 2**32 - 1]) % 2**32
    )


def change_line(rng: random.Random, line: str) -> str:
    """Another sequence number, acknowledgment, window or count."""
    if not re.match(r"\S+\s+<", line):
        return re.sub(r"(?<=\.\.\., )\d+", lambda m: change_number(rng, m[0]), line)
    numbers = re.search(r"(\d+):(\d+)\((\d+)\)", line)
    if numbers and rng.random() < 0.5:
        seq, length = int(change_number(rng, numbers[1])), int(numbers[3])
        length += rng.choice([0, 0, 1, 100, -min(length, 50)])
        return line.replace(numbers[0], f"{seq}:{(seq + length) % 2**32}({length})")
    line = re.sub(r"(?<=ack )\d+", lambda m: change_number(rng, m[0]), line)
    return re.sub(r"(?<=win )\d+", lambda m: str(int(change_number(rng, m[0])) & 0xFFFF), line)


def mutant(rng: random.Random) -> str:
    lines, donor = list(rng.choice(SOURCES)), rng.choice(SOURCES)
    for _ in range(rng.randint(1, 6)):
        i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
        if lines[i].startswith(HEAD) or lines[j].startswith(HEAD):
            continue
        kind = rng.randrange(6)
        if kind == 0:
            del lines[i]
        elif kind == 1:
            lines.insert(i, lines[i])
        elif kind == 2:
            lines[i], lines[j] = lines[j], lines[i]
        elif kind == 3:
            lines.insert(i, rng.choice([d for d in donor if not d.startswith(HEAD)]))
        else:
            lines[i] = change_line(rng, lines[i])
    return "\n".join(lines)


@pytest.mark.parametrize("first", range(0, SEEDS, PER_TEST))
def test_invariants_hold_in_mutants(first: int, tmp_path: Path) -> None:
    ran = 0
    for seed in range(first, first + PER_TEST):
        text = mutant(random.Random(seed))
        (tmp_path / f"seed-{seed}.pkt").write_text(text)
        try:
            Careless(parse(f"SEED={seed}", text), strict_end=False).run()
            ran += 1
        except (ScriptError, Unsupported):
            pass
    assert ran > PER_TEST // 10, "most mutants are no scripts any more"
