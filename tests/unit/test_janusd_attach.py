"""janusd.attach over a real SEQPACKET socket: the protocol, and what hostile peers do to it."""

import array
import asyncio
import contextlib
import errno
import os
import re
import secrets
import socket
import struct
import subprocess
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpdk_glue.values import Event, EventKind, GlueError
from janusd import attach, messages
from janusd.balancer import Balancer
from janusd.registry import Registry
from janusd.sessions import Sessions
from tests.unit.janusd_fakes import PORT, FakePlane, hello, parse_config

ROOT = Path(__file__).parents[2]
PLAIN = struct.Struct("=IIII")
CSB = struct.Struct("=II QQQ")
LISTEN = struct.Struct("=II16sHHHH")
V4 = bytes(10) + b"\xff\xff" + bytes([10, 77, 0, 1])


class House:
    """A server in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "attach.sock"
        self.config = parse_config()
        self.plane = FakePlane()
        self.saves = 0
        self.registry = Registry(self.config, secrets.token_bytes)
        self.balancer = Balancer(secrets.token_bytes)
        self.sessions = Sessions(
            self.config,
            self.plane,
            self.registry,
            self.balancer,
            self._save,
            {"p0": PORT},
            asyncio.get_running_loop(),
        )
        self.sessions.start()
        listener = attach.open_listener(self.path, None)
        self.server = attach.AttachServer(self.sessions, listener, asyncio.get_running_loop())
        self.server.start()

    def _save(self) -> None:
        self.saves += 1

    async def connect(self) -> "Client":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, str(self.path))
        return Client(sock)

    async def attach(self, **wish: object) -> "Client":
        client = await self.connect()
        client.send(hello(**wish))
        await client.welcome()
        client.send(PLAIN.pack(4, 1, client.generation, 0))
        assert PLAIN.unpack(await client.recv()) == (5, 0, client.generation, 0)
        return client


class Client:
    """An app's end."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.generation = self.tid = 0
        self.token = b""
        self.fds: list[int] = []
        self.csb: list[tuple[int, ...]] = []

    def send(self, data: bytes) -> None:
        self.sock.send(data)

    async def recv(self) -> bytes:
        """The next message that is not the balancer's."""
        while True:
            data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.sock, 4096), 5)
            if len(data) != CSB.size or not 12 <= data[0] <= 15:
                return data
            self.csb.append(CSB.unpack(data))

    async def welcome(self) -> bytes:
        await asyncio.wait_for(_readable(self.sock), 5)
        data, self.fds, _, _ = socket.recv_fds(self.sock, 4096, 32)
        assert len(data) == 320, data
        (self.tid,) = struct.unpack_from("=H", data, 12)
        (self.generation,) = struct.unpack_from("=I", data, 16)
        self.token = data[40:56]
        for fd in self.fds:
            os.close(fd)
        return data

    async def status(self) -> tuple[int, str]:
        """Of the REFUSED or REPLY that comes next."""
        data = await self.recv()
        type_, second, third = struct.unpack_from("=III", data)
        if type_ == 3:
            return second, data[8:].rstrip(b"\0").decode()
        assert type_ == 10
        return third, data[16:].rstrip(b"\0").decode()

    async def hung_up(self) -> bool:
        try:
            return await self.recv() == b""
        except ConnectionResetError:
            return True


async def _readable(sock: socket.socket) -> None:
    ready = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(sock)


@contextlib.asynccontextmanager
async def house(directory: Path) -> AsyncIterator[House]:
    made = House(directory)
    try:
        yield made
    finally:
        made.server.stop()
        made.sessions.stop()


def run(directory: Path, scenario: object) -> None:
    async def main() -> None:
        async with house(directory) as made:
            await scenario(made)

    asyncio.run(main())


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# --- the layout ---


def test_layouts_are_those_of_the_header(tmp_path: Path) -> None:
    probes = [f"sizeof(struct {name})" for name in messages.STRUCT_BYTES]
    offsets = [("hello", "app", 16), ("hello", "token", 48), ("hello", "row", 80), ("welcome", "token", 40)]
    offsets += [
        ("welcome", "addresses", 64),
        ("listen", "port", 24),
        ("reply", "text", 16),
        ("refused", "text", 8),
    ]
    probes += [f"offsetof(struct attach_{name}, {field})" for name, field, _ in offsets]
    source = '#include <stdio.h>\n#include "shm/attach.h"\nint main(void) {'
    source += "".join(f'printf("%zu\\n", (size_t){probe});' for probe in probes) + "}"
    program = tmp_path / "probe"
    command = ["gcc", "-std=c11", f"-I{ROOT}/sdk", "-x", "c", "-", "-o", str(program)]
    subprocess.run(command, input=source, text=True, check=True)
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    assert [int(n) for n in printed] == [*messages.STRUCT_BYTES.values(), *(offset for *_, offset in offsets)]


def test_numbers_are_those_of_the_header() -> None:
    header = (ROOT / "sdk/shm/attach.h").read_text()
    named = {name: int(value) for name, value in re.findall(r"\b(ATTACH_[A-Z_]+) = (\d+)", header)}
    for enum in (messages.AttachType, messages.AttachStatus):
        for member in enum:
            assert named[f"ATTACH_{member.name}"] == member
    assert named["ATTACH_TEXT_BYTES"] == messages.TEXT_BYTES
    assert named["ATTACH_ADDRESSES_MAX"] == messages.ADDRESSES_MAX


# --- the way that is meant ---


def test_a_thread_attaches_listens_serves_and_leaves(tmp_path: Path) -> None:
    async def scenario(made: House) -> None:
        client = await made.connect()
        client.send(hello(rows=500, rx=100))
        data = await client.welcome()
        assert struct.unpack_from("=5I", data, 20) == (1, 128, 128, 500, 128)  # io, rx, tx, rows, stride
        assert struct.unpack_from("=HH", data, 56) == (40000, 49999)
        assert struct.unpack_from("=HH", data, 60) == (1500, 0)
        assert data[64:80] == V4
        assert len(client.fds) == 6
        client.send(PLAIN.pack(4, 1, client.generation, 0))
        assert PLAIN.unpack(await client.recv())[0] == 5
        assert made.plane.created[0].calls == ["seal", "start"]
        client.send(LISTEN.pack(6, 2, bytes(16), 80, 0, 0, 0))
        assert await client.status() == (0, "")
        assert made.plane.published == []
        client.send(PLAIN.pack(8, 3, client.generation, 0))
        assert await client.status() == (0, "")
        assert made.plane.balance.circles[1] == ([(2**32 - 1, client.tid)], 1)
        assert {(str(s.address), s.first, s.last, s.app) for s in made.plane.published} == {
            ("10.77.0.1", 40000, 49999, 1),
            ("fd77::1", 40000, 49999, 1),
            ("10.77.0.1", 80, 80, 1),
            ("fd77::1", 80, 80, 1),
        }
        client.send(LISTEN.pack(7, 4, V4, 80, 0, 0, 0))
        assert await client.status() == (0, "")
        assert ("10.77.0.1", 80) not in {(str(s.address), s.first) for s in made.plane.published}
        client.send(PLAIN.pack(9, 5, client.generation, 0))
        assert await client.hung_up()
        session = made.plane.created[0]
        assert session.calls == ["seal", "start", "stop", "reset_peers"]
        assert (made.plane.published, made.plane.balance.circles[1]) == ([], ([], 2))
        made.sessions.resets_done(Event(EventKind.RESETS_DONE, 1, client.tid, client.generation))
        assert session.calls[-1] == "free"
        assert made.saves > 0

    run(tmp_path, scenario)


def test_socket_is_for_its_group_alone(tmp_path: Path) -> None:
    async def scenario(made: House) -> None:
        assert made.path.stat().st_mode & 0o777 == 0o660

    run(tmp_path, scenario)


def test_threads_share_the_circle_and_tids_come_back(tmp_path: Path) -> None:
    async def scenario(made: House) -> None:
        clients = [await made.attach() for _ in range(3)]
        assert [c.tid for c in clients] == [0, 1, 2]
        for client in clients:
            client.send(PLAIN.pack(8, 1, client.generation, 0))
            await client.status()
        assert set(made.balancer.circle("web").shares()) == {0, 1, 2}
        extra = await made.connect()
        extra.send(hello())
        status, text = await extra.status()
        assert (status, "threads_max" in text) == (4, True)
        clients[1].sock.close()
        await turns()
        assert set(made.balancer.circle("web").shares()) == {0, 2}
        assert (await made.attach()).tid == 1

    run(tmp_path, scenario)


def test_death_of_the_process_ends_the_session(tmp_path: Path) -> None:
    async def scenario(made: House) -> None:
        keep, other = socket.socketpair()  # the child's socket stays open here: only the pidfd can tell
        child = os.fork()
        if child == 0:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sock.connect(str(made.path))
            sock.send(hello())
            data, fds, _, _ = socket.recv_fds(sock, 4096, 32)
            sock.send(PLAIN.pack(4, 1, struct.unpack_from("=I", data, 16)[0], 0))
            sock.recv(4096)
            socket.send_fds(other, [b"x"], [sock.fileno()])
            os.kill(os.getpid(), 9)
        await asyncio.wait_for(_readable(keep), 5)
        _, fds, _, _ = socket.recv_fds(keep, 1, 1)
        os.waitpid(child, 0)
        for _ in range(200):
            if not made.sessions.attached():
                break
            await asyncio.sleep(0.01)
        assert made.plane.created[0].calls[-2:] == ["stop", "reset_peers"]
        os.close(fds[0])

    run(tmp_path, scenario)


def test_resume_gives_the_same_tid_fresh_regions_and_a_new_generation(tmp_path: Path) -> None:
    async def scenario(made: House) -> None:
        first = await made.attach()
        second = await made.attach()
        second.send(LISTEN.pack(6, 2, bytes(16), 80, 0, 0, 0))
        await second.status()
        second.send(PLAIN.pack(8, 3, second.generation, 0))
        await second.status()
        saved = list(made.registry.sessions())
        fresh = Registry(made.config, secrets.token_bytes)
        fresh.restore(saved, made.registry.next_generation)
        made.sessions._registry = fresh
        made.sessions.recovering = True
        back = await made.attach(resume=1, token=second.token)
        assert (back.tid, back.token) == (second.tid, second.token)
        assert back.generation > second.generation
        wrong = await made.connect()
        wrong.send(hello(resume=1, token=b"\1" * 16))
        assert (await wrong.status())[0] == 9
        again = await made.connect()
        again.send(hello(resume=1, token=second.token))
        assert (await again.status())[0] == 9
        assert first.tid == 0

    run(tmp_path, scenario)


# --- refusals ---

REFUSED = [
    pytest.param({"app": "nope"}, 3, 'no app "nope" is configured', id="no such app"),
    pytest.param({"app": "other"}, 3, f'uid {os.getuid()} may not run app "other"', id="app of another user"),
    pytest.param({"major": 1, "minor": 3}, 2, "the app speaks ABI 1.3, janusd 2.2", id="ABI major"),
    pytest.param({"rows": 1001}, 4, '1001 connections wanted, app "web" may have 1000', id="rows"),
    pytest.param({"rx": 257}, 4, '512 RX slots per I/O thread wanted, app "web" may have 256', id="RX slots"),
    pytest.param({"tx": 2**32 - 1}, 4, "TX slots wanted", id="TX slots"),
    pytest.param({"row": (63, *([0] * 7))}, 1, "row stride 63: must be 64 to 1024", id="row stride"),
    pytest.param({"row": (128, 0, 113, 0, 0, 0, 0, 0)}, 1, "row offset of raddr is 113", id="row offset"),
    pytest.param({"resume": 1}, 9, "no session waits for this token", id="resume of nothing"),
    pytest.param({"magic": 1}, 1, "not a HELLO of 96 bytes", id="magic"),
    pytest.param({"type_": 2}, 1, "not a HELLO", id="type"),
    pytest.param({"reserved": 1}, 1, "not a HELLO", id="reserved"),
    pytest.param({"reserved2": 1}, 1, "not a HELLO", id="reserved2"),
    pytest.param({"resume": 2}, 1, "not a HELLO", id="resume flag"),
    pytest.param({"app": "Web"}, 1, "not a HELLO", id="name with capitals"),
    pytest.param({"app": ""}, 1, "not a HELLO", id="no name"),
    pytest.param({"app": "w" * 32}, 1, "not a HELLO", id="name without NUL"),
    pytest.param({"app": "web\0x"}, 1, "not a HELLO", id="bytes after NUL"),
]


@pytest.mark.parametrize(("wish", "status", "part"), REFUSED)
def test_hello_is_refused_with_a_reason(tmp_path: Path, wish: dict, status: int, part: str) -> None:
    async def scenario(made: House) -> None:
        client = await made.connect()
        client.send(hello(**wish))
        got, text = await client.status()
        assert (got, part in text) == (status, True), text
        assert await client.hung_up()
        assert made.plane.created == []
        assert list(made.registry.sessions()) == []

    run(tmp_path, scenario)


def test_no_memory_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    async def scenario(made: House) -> None:
        made.plane.create_error = GlueError(errno.ENOMEM, "no room for regions")
        client = await made.connect()
        client.send(hello())
        assert await client.status() == (5, "no room for regions")
        assert list(made.registry.sessions()) == []

    run(tmp_path, scenario)


def test_failed_seal_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    async def scenario(made: House) -> None:
        client = await made.connect()
        client.send(hello())
        await client.welcome()
        made.plane.created[0].seal_error = GlueError(errno.ENOMEM, "cannot populate")
        client.send(PLAIN.pack(4, 1, client.generation, 0))
        assert await client.status() == (5, "cannot populate")
        assert made.sessions.attached() == []

    run(tmp_path, scenario)


LISTENS = [
    pytest.param(
        bytes(16), 81, 7, "may not listen on port 81; it may on: 80, 8000-8099", id="port not leased"
    ),
    pytest.param(bytes(16), 0, 7, "may not listen on port 0", id="port 0"),
    pytest.param(b"\1" * 16, 80, 6, "may not use address 101:101", id="address not leased"),
    pytest.param(V4, 40000, 7, "may not listen on port 40000", id="source port"),
]


@pytest.mark.parametrize(("address", "port", "status", "part"), LISTENS)
def test_listen_outside_the_lease(tmp_path: Path, address: bytes, port: int, status: int, part: str) -> None:
    async def scenario(made: House) -> None:
        client = await made.attach()
        for type_ in (6, 7):
            client.send(LISTEN.pack(type_, 9, address, port, 0, 0, 0))
            got, text = await client.status()
            assert (got, part in text) == (status, True), text
        client.send(LISTEN.pack(6, 10, bytes(16), 8001, 0, 0, 0))  # and it goes on
        assert await client.status() == (0, "")

    run(tmp_path, scenario)


# --- hostile peers ---

AFTER_READY = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"\0", id="one byte"),
    pytest.param(PLAIN.pack(8, 1, 0, 0), id="ONLINE of another generation"),
    pytest.param(PLAIN.pack(9, 1, 99, 0), id="BYE of another generation"),
    pytest.param(PLAIN.pack(4, 1, 1, 0), id="MAPPED twice"),
    pytest.param(PLAIN.pack(5, 1, 1, 0), id="READY"),
    pytest.param(PLAIN.pack(77, 1, 1, 0), id="unknown type"),
    pytest.param(PLAIN.pack(8, 1, 1, 7), id="reserved"),
    pytest.param(PLAIN.pack(8, 1, 1, 0)[:-1], id="short"),
    pytest.param(PLAIN.pack(8, 1, 1, 0) + b"\0", id="long"),
    pytest.param(LISTEN.pack(6, 1, bytes(16), 80, 1, 0, 0), id="LISTEN reserved"),
    pytest.param(LISTEN.pack(8, 1, bytes(16), 80, 0, 0, 0), id="ONLINE as long as LISTEN"),
    pytest.param(hello(), id="HELLO again"),
    pytest.param(bytes(4096), id="4 KiB"),
]


@pytest.mark.parametrize("data", AFTER_READY)
def test_a_bad_message_ends_the_session(tmp_path: Path, data: bytes) -> None:
    async def scenario(made: House) -> None:
        client = await made.attach()
        client.send(data)
        assert await client.hung_up()
        assert made.plane.created[0].calls[-2:] == ["stop", "reset_peers"]
        assert list(made.registry.sessions()) == []
        await made.attach()  # the next one is served

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(PLAIN.pack(8, 1, 1, 0), id="ONLINE"),
        pytest.param(PLAIN.pack(4, 1, 2, 0), id="MAPPED of another generation"),
        pytest.param(LISTEN.pack(6, 1, bytes(16), 80, 0, 0, 0), id="LISTEN"),
    ],
)
def test_before_mapped_nothing_else_may_come(tmp_path: Path, data: bytes) -> None:
    async def scenario(made: House) -> None:
        client = await made.connect()
        client.send(hello())
        await client.welcome()
        client.send(data)
        assert await client.hung_up()
        assert made.plane.created[0].calls == ["stop", "free"]

    run(tmp_path, scenario)


@pytest.mark.parametrize("how", ["hang-up", "message"])
def test_a_session_that_ends_while_it_is_sealed_is_not_torn_down_before(tmp_path: Path, how: str) -> None:
    async def scenario(made: House) -> None:
        client = await made.connect()
        client.send(hello())
        await client.welcome()
        session = made.plane.created[0]
        may_go_on = threading.Event()
        session.seal = lambda: (may_go_on.wait(5), session.calls.append("seal"))
        client.send(PLAIN.pack(4, 1, client.generation, 0))
        if how == "message":
            client.send(PLAIN.pack(8, 2, client.generation, 0))
        else:
            client.sock.close()
        while made.server.half_open():
            await asyncio.sleep(0)
        assert session.calls == []
        may_go_on.set()
        while made.sessions.attached():
            await asyncio.sleep(0)
        assert session.calls == ["seal", "stop", "free"]

    run(tmp_path, scenario)


def test_smuggled_descriptors_never_arrive(tmp_path: Path) -> None:
    async def scenario(made: House) -> None:
        client = await made.attach()
        before = len(os.listdir("/proc/self/fd"))
        fds = array.array("i", [client.sock.fileno()] * 2)
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)]
        for seq in range(50):
            client.sock.sendmsg([LISTEN.pack(6, seq, bytes(16), 80, 0, 0, 0)], control)
            assert (await client.status())[0] == 0
        assert len(os.listdir("/proc/self/fd")) == before

    run(tmp_path, scenario)


def test_repeated_listens_do_not_add_up(tmp_path: Path) -> None:
    async def scenario(made: House) -> None:
        client = await made.attach()
        client.send(PLAIN.pack(8, 1, client.generation, 0))
        await client.status()
        for seq in range(200):
            client.send(LISTEN.pack(6, seq, V4, 80, 0, 0, 0))
            client.send(PLAIN.pack(8, seq, client.generation, 0))
            assert (await client.status(), await client.status()) == ((0, ""), (0, ""))
        assert sum(s.first == 80 for s in made.plane.published) == 1
        assert made.plane.balance.circles[1][1] == 1

    run(tmp_path, scenario)


def test_a_peer_that_reads_no_replies_is_let_go(tmp_path: Path) -> None:
    async def scenario(made: House) -> None:
        client = await made.attach()
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            for seq in range(100_000):
                client.send(LISTEN.pack(6, seq % 2**32, V4, 80, 0, 0, 0))
                if seq % 64 == 0:
                    await turns(2)
        for _ in range(500):
            if not made.sessions.attached():
                break
            with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                client.send(LISTEN.pack(6, 1, V4, 80, 0, 0, 0))
            await asyncio.sleep(0.01)
        assert made.sessions.attached() == []

    run(tmp_path, scenario)


def test_sessions_per_user_are_bounded(tmp_path: Path) -> None:
    async def scenario(made: House) -> None:
        clients = [await made.attach() for _ in range(3)] + [await made.attach(app="api") for _ in range(8)]
        assert made.registry.sessions_of_uid(os.getuid()) == len(clients) == 11
        made.registry.sessions_of_uid = lambda uid: 16  # type: ignore[method-assign]
        extra = await made.connect()
        extra.send(hello(app="api"))
        status, text = await extra.status()
        assert (status, "has 16 sessions; the most is 16" in text) == (4, True)

    run(tmp_path, scenario)


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=600), max_size=6), st.booleans())
def test_random_messages_never_harm_the_server(
    tmp_path_factory: pytest.TempPathFactory, data: list[bytes], attached: bool
) -> None:
    async def scenario(made: House) -> None:
        client = await (made.attach() if attached else made.connect())
        with contextlib.suppress(OSError):
            for message in data:
                client.send(message)
        client.sock.close()
        await turns()
        assert (await made.attach()).tid == 0

    run(tmp_path_factory.mktemp("a"), scenario)


@given(st.binary(max_size=600))
def test_decoding_never_raises(data: bytes) -> None:
    messages.decode_hello(data)
    messages.decode_control(data)


@given(st.integers(0, 9), st.text(max_size=500))
def test_texts_are_cut_between_characters(status: int, text: str) -> None:
    raw = messages.encode_refused(messages.AttachStatus(status), text)
    assert len(raw) == 232
    assert raw[-1] == 0
    assert text.encode().startswith(raw[8:].rstrip(b"\0").decode().encode().rstrip(b"\0"))


CSB_LIST = struct.Struct("=IIQ")


@pytest.mark.parametrize("count", [1, 2, 3, 4096])
def test_a_list_is_decoded_whatever_its_length(count: int) -> None:
    hashes = bytes(range(256))[:8] * count
    data = CSB_LIST.pack(16, count, 7) + hashes
    assert messages.decode_control(data) == messages.CsbList(7, hashes)
    assert messages.decode_control(data[:-1]) is None
    assert messages.decode_control(data + bytes(8)) is None
    assert messages.decode_control(CSB_LIST.pack(16, count + 1, 7) + hashes) is None


def test_a_done_is_decoded() -> None:
    assert messages.decode_control(CSB.pack(17, 1, 7, 0, 0)) == messages.CsbDone(7, 1)
    assert messages.decode_control(CSB.pack(17, 1, 7, 1, 0)) is None
    assert messages.decode_control(CSB.pack(12, 1, 7, 0, 0)) is None
