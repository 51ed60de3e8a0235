"""Handlers in C from a shared object, run by Python, beside handlers in Python."""

import subprocess
from pathlib import Path

import janus_tcp
import pytest
from janus_tcp.__main__ import main
from janus_tcp.c_handlers import CHandler, load_c
from janus_tcp.testing import Pair

ROOT = Path(__file__).resolve().parents[2]
SOURCE = """
#include <janus.h>
#include <string.h>

void upper(struct janus_conn *c)
{
    char *text = janus_scratch();
    ssize_t n;

    while ((n = janus_recv(c, text, 100)) > 0) {
        for (ssize_t i = 0; i < n; i++)
            text[i] -= text[i] >= 'a' && text[i] <= 'z' ? 32 : 0;
        janus_send(c, text, n);
    }
}

const unsigned short greet_flags = JANUS_START_AT_ACCEPT;

int greet_accept(struct janus_conn *c, void *data)
{
    janus_set_user(c, "good day");
    return data != NULL;
}

void greet(struct janus_conn *c)
{
    janus_sleep(50);
    janus_send(c, janus_user(c), strlen(janus_user(c)));
}
"""


@pytest.fixture(scope="module")
def shared_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("c") / "handlers.so"
    command = ["gcc", "-O2", "-fPIC", "-shared", "-I", str(ROOT / "sdk/app"), "-x", "c", "-", "-o", str(made)]
    subprocess.run(command, input=SOURCE, text=True, check=True)
    return made


async def ask(host: str, port: int, text: bytes) -> bytes:
    conn = await janus_tcp.connect(host, port)
    if text:
        await conn.send(text)
        conn.shutdown()
    answer = b""
    async for data in conn:
        answer += data
    conn.close()
    return answer


async def reverse(conn: janus_tcp.Connection) -> None:
    async for data in conn:
        await conn.send(bytes(reversed(data)))


def test_c_and_python_handlers_in_one_loop(shared_object: Path) -> None:
    with Pair() as pair:
        pair.serve(load_c(f"{shared_object}:upper"), port=7)
        pair.serve(load_c(f"{shared_object}:greet"), port=8)
        pair.serve(reverse, port=9)

        async def client() -> list[bytes]:
            return [
                await ask(pair.host, 7, b"hello"),
                await ask(pair.host, 8, b""),
                await ask(pair.host, 9, b"hello"),
            ]

        for _ in range(20):
            assert pair.run(client()) == [b"HELLO", b"good day", b"olleh"]
        pair.settle()
        assert pair.server.handlers == 0
        assert pair.server.accepted == 60


def test_a_loop_that_closes_forgets_its_c_handlers(shared_object: Path) -> None:
    with Pair() as pair:
        pair.serve(load_c(f"{shared_object}:upper"), port=7)

        async def client() -> bytes:
            conn = await janus_tcp.connect(pair.host, 7)
            await conn.send(b"x")
            return bytes(await conn.recv())

        assert pair.run(client()) == b"X"
        assert pair.server.handlers == 1


def test_what_cannot_be_loaded_says_why(
    shared_object: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(load_c(f"{shared_object}:upper"), CHandler)
    with pytest.raises(ValueError, match="has no function nothing"):
        load_c(f"{shared_object}:nothing")
    with pytest.raises(ValueError, match=r"is not path\.so:function"):
        load_c("module:handler")
    assert main(["run", f"{tmp_path}/missing.so:handle", "--port", "7"]) == 1
    assert "missing.so" in capsys.readouterr().err
    assert main(["run", f"{shared_object}:nothing", "--port", "7"]) == 2
