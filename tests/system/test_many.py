"""20,000 concurrent kernel connections to one Python app with two workers; JANUS_MANY is another number."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bench.rig import REPO, Janusd, Process, build_tool
from bench.rig.network import SERVER_ADDRESS
from bench.rig.processes import wait_until
from tests.system.census import at_rest, await_level, in_use, logs_are_clean, workers_hold

MANY = int(os.environ.get("JANUS_MANY", "20000"))
CROWDS = 2  # processes, each within its 20,000 descriptors
SOURCE = REPO / "tests" / "system" / "many_clients.c"
ROUNDS = 3


@contextmanager
def crowds(rig: Janusd, workdir: Path, port: int, total: int, count: int = CROWDS) -> Iterator[list[Process]]:
    """Client processes that share the connections between them."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                Process(
                    [str(build_tool(SOURCE)), SERVER_ADDRESS, str(port), str(total // count)],
                    name=f"crowd{number}",
                    workdir=workdir,
                    namespace=rig.network.cli,
                    interactive=True,
                )
            )
            for number in range(count)
        ]


def order(clients: list[Process], command: str) -> dict[str, int]:
    """Give all the same command at once; the sum of their answers."""
    for process in clients:
        assert process.child.stdin is not None
        process.child.stdin.write(command + "\n")
    answers = [json.loads(process.answer()) for process in clients]
    return {key: sum(answer[key] for answer in answers) for key in ("ok", "bad")}


@pytest.mark.timeout(600)
def test_many_connections_echo_close_and_leave_nothing(rig: Janusd, workdir: Path) -> None:
    app = rig.serve("tests.system.apps.census:handle", port=8000, workers=2)
    held = workers_hold(rig, 8000, workers=2)
    assert all(worker["handlers"] == 1 and worker["conns"] == 1 for worker in held.values()), "the asking one"
    level = at_rest(rig)
    with crowds(rig, workdir, 8000, MANY) as clients:
        assert order(clients, "open") == {"ok": MANY, "bad": 0}
        for number in range(ROUNDS):
            assert order(clients, f"echo {number}") == {"ok": MANY, "bad": 0}, f"round {number}"
        by_thread = {key: held[0] for key, held in in_use(rig).items()}
        assert sum(by_thread.values()) >= MANY, by_thread
        assert min(by_thread.values()) > MANY / 4, f"both workers have their share: {by_thread}"
        assert order(clients, "close") == {"ok": MANY, "bad": 0}
    await_level(rig, level)
    wait_until(lambda: workers_hold(rig, 8000, workers=2) == held, 30, f"each worker holds {held} again")
    logs_are_clean(rig.process, app)
