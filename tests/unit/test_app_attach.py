"""A TCP thread against a janusd made of a socket and two memfds: attach, rings, refusals, janusd's death."""

import errno
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _app import ffi, lib

HELLO, WELCOME, REFUSED, MAPPED, READY, LISTEN, UNLISTEN, ONLINE, BYE, REPLY = range(1, 11)
CSB_BEGIN, CSB_CHECK, CSB_ABORT, CSB_VIEW, CSB_LIST, CSB_DONE = range(12, 18)
PORT = 80
TURNS_MAX = 2_000_000


def mapped_ipv4(text: str) -> bytes:
    return b"\0" * 10 + b"\xff\xff" + socket.inet_aton(text)


class FakeJanusd:
    """The attach side of a janusd that says yes, unless a test says otherwise."""

    def __init__(self, path: Path, *, io_count: int = 1, rx_slots: int = 256, tx_slots: int = 256) -> None:
        self.path = path
        self.io_count, self.rx_slots, self.tx_slots = io_count, rx_slots, tx_slots
        self.sessions: list[Any] = []  # struct fake *, in the order of attaching
        self.hellos: list[Any] = []
        self.requests: list[tuple[int, int]] = []  # (type, port)
        self.csb_answers: list[bytes] = []
        self.answers: dict[int, tuple[int, str]] = {}  # port: what LISTEN gets
        self.refuse: tuple[int, str] | None = None
        self.change_welcome: Callable[[Any], None] = lambda welcome: None
        self.fds_less = 0
        self.connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.start()

    def start(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._spawn(self._accept, self._listener)

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def stop(self) -> None:
        """As SIGKILL: every socket closes, nothing is said."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.path.unlink()
        for connection in self.connections:
            connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for connection in self.connections:
            connection.close()
        self.connections.clear()
        self._threads.clear()

    def free(self) -> None:
        self.stop()
        for session in self.sessions:
            lib.fake_free(session)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            self._spawn(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            hello = ffi.new("struct attach_hello *")
            ffi.buffer(hello)[:] = connection.recv(4096)
            self.hellos.append(hello)
            if self.refuse:
                self._send(
                    connection, "attach_refused", type=REFUSED, status=self.refuse[0], text=self.refuse[1]
                )
                return
            generation = self._welcome(connection, hello)
            connection.recv(4096)  # MAPPED
            self._send(connection, "attach_plain", type=READY, generation=generation)
            self.view(connection, self.sessions[generation - 1])
            while data := connection.recv(65536):
                self._request(connection, data)
        except OSError:
            return

    def _welcome(self, connection: socket.socket, hello: Any) -> int:
        tid = len(self.sessions) if not hello.resume else hello.token[0]
        generation = len(self.sessions) + 1
        w = ffi.new("struct attach_welcome *")
        w.type, w.magic = WELCOME, lib.ATTACH_MAGIC
        w.abi_major, w.abi_minor = lib.SHM_ABI_MAJOR, lib.SHM_ABI_MINOR
        w.tid, w.address_count, w.generation, w.mtu = tid, 1, generation, 1500
        w.sizes.io_count, w.sizes.rx_slots_per_io = self.io_count, self.rx_slots
        w.sizes.tx_slots, w.sizes.rows, w.sizes.row_stride = self.tx_slots, 64, hello.row.stride
        w.source_port_first, w.source_port_last = 40000, 49999
        w.token[0] = tid
        w.addresses[0] = mapped_ipv4(f"10.0.0.{tid + 1}")
        self.change_welcome(w)
        session = lib.fake_new(ffi.addressof(w.sizes), tid, generation, 0x1234)
        self.sessions.append(session)
        bells = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(self.io_count)]
        fds = [lib.fake_fd(session, i) for i in range(5)] + bells
        socket.send_fds(connection, [bytes(ffi.buffer(w))], fds[: len(fds) - self.fds_less])
        for fd in bells:
            os.close(fd)
        return generation

    def view(self, connection: socket.socket, session: Any) -> None:
        """The whole circle is this session's."""
        self.csb(connection, CSB_VIEW, lib.fake_fd(session, 5), bytes=lib.fake_view_bytes())

    @staticmethod
    def csb(connection: socket.socket, type_: int, fd: int | None, **fields: int) -> None:
        message = ffi.new("struct attach_csb *", {"type": type_, **fields})
        socket.send_fds(connection, [bytes(ffi.buffer(message))], [] if fd is None else [fd])

    def _request(self, connection: socket.socket, data: bytes) -> None:
        plain = ffi.from_buffer("struct attach_plain *", data.ljust(ffi.sizeof("struct attach_plain"), b"\0"))
        port = 0
        if plain.type in (LISTEN, UNLISTEN):
            port = ffi.from_buffer("struct attach_listen *", data).port
        if plain.type in (CSB_LIST, CSB_DONE):
            self.csb_answers.append(data)
            return
        self.requests.append((plain.type, port))
        if plain.type != BYE:
            status, text = self.answers.get(port, (0, ""))
            self._send(connection, "attach_reply", type=REPLY, seq=plain.seq, status=status, text=text)

    def _send(self, connection: socket.socket, kind: str, **fields: Any) -> None:
        message = ffi.new(f"struct {kind} *")
        for name, value in fields.items():
            setattr(message, name, value.encode() if isinstance(value, str) else value)
        connection.send(bytes(ffi.buffer(message)))


@pytest.fixture(params=[1, 3], ids=["one I/O thread", "three I/O threads"])
def janusd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FakeJanusd]:
    made = FakeJanusd(tmp_path / "attach.sock", io_count=request.param)
    yield made
    made.free()


@pytest.fixture
def plain_janusd(tmp_path: Path) -> Iterator[FakeJanusd]:
    made = FakeJanusd(tmp_path / "attach.sock")
    yield made
    made.free()


class Refused(Exception):
    """What struct janus_error says."""

    def __init__(self, error: Any) -> None:
        super().__init__(error.code, ffi.string(error.text).decode())


def attach(path: Path, app: bytes = b"test") -> Any:
    error = ffi.new("struct janus_error *")
    strings = ffi.new("char[]", app), ffi.new("char[]", str(path).encode())
    options = ffi.new("struct janus_options *", {"app": strings[0], "socket_path": strings[1], "msl_ms": 10})
    thread = lib.thread_open(options, error)
    if thread == ffi.NULL:
        raise Refused(error)
    return thread


def check(rc: int, error: Any) -> None:
    if rc < 0:
        raise Refused(error)


def listen(thread: Any, port: int = PORT) -> None:
    error = ffi.new("struct janus_error *")
    check(lib.thread_listen(thread, ffi.NULL, port, 0, error), error)
    check(lib.thread_online(thread, error), error)


def stats(thread: Any) -> Any:
    filled = ffi.new("struct janus_stats *")
    lib.thread_get_stats(thread, filled)
    return filled


class Transfer:
    """A client that sends data to an echo server and takes it back."""

    def __init__(self, janusd: FakeJanusd, data: bytes) -> None:
        self.janusd, self.data = janusd, data
        self.server, self.client = attach(janusd.path), attach(janusd.path)
        listen(self.server)
        error = ffi.new("struct janus_error *")
        conn = ffi.new("uint32_t *")
        server_addr = ffi.new("struct ip_addr *", [mapped_ipv4("10.0.0.1")])
        check(lib.thread_online(self.client, error), error)
        args = ffi.NULL, 0, server_addr, PORT, 0, conn, error
        check(lib.thread_connect(self.client, *args), error)
        self.conn = conn[0]
        self.sent = 0
        self.received = bytearray()
        self.buffer = ffi.new("char[65536]")
        self.fakes: tuple[Any, Any] | None = janusd.sessions[0], janusd.sessions[1]
        self.error = 0

    def turn(self) -> None:
        lib.app_echo(self.server)
        lib.thread_poll(self.client)
        event = ffi.new("struct tcp_event *")
        while lib.thread_next_event(self.client, event):
            self.error = self.error or lib.thread_conn_error(self.client, self.conn)
        while n := lib.thread_recv(self.client, self.conn, self.buffer, 65536):
            self.received += ffi.buffer(self.buffer, n)[:]
        if self.sent < len(self.data):
            chunk = self.data[self.sent : self.sent + 65536]
            self.sent += max(lib.thread_send(self.client, self.conn, chunk, len(chunk)), 0)
        lib.thread_flush(self.client)
        if self.fakes:
            server, client = self.fakes
            lib.fake_pump(client, server)
            lib.fake_pump(server, client)

    def run(self, until: Callable[[], bool]) -> None:
        for _ in range(TURNS_MAX):
            if until():
                return
            self.turn()
        raise AssertionError(f"sent {self.sent}, received {len(self.received)} of {len(self.data)}")

    def is_complete(self) -> bool:
        return len(self.received) == len(self.data)

    def is_empty(self) -> bool:
        used = [stats(thread).usage for thread in (self.server, self.client)]
        return not any(u.conns or u.time_wait or u.rx_slots_held or u.tx_slots_held for u in used)

    def close(self) -> None:
        lib.thread_close(self.client)
        lib.thread_close(self.server)


def pattern(n: int) -> bytes:
    return bytes(i * 131 % 251 for i in range(n))


def test_attach_says_who_we_are(plain_janusd: FakeJanusd) -> None:
    thread = attach(plain_janusd.path, b"web-1")
    hello = plain_janusd.hellos[0]
    assert ffi.string(hello.app) == b"web-1"
    assert (hello.abi_major, hello.resume, hello.rows) == (lib.SHM_ABI_MAJOR, 0, 0)
    assert 64 <= hello.row.stride <= 1024
    assert lib.thread_tid(thread) == 0
    assert lib.thread_attached(thread, ffi.NULL)
    assert stats(thread).attached == 1
    lib.thread_close(thread)


def test_a_transfer_both_ways_and_every_slot_comes_back(janusd: FakeJanusd) -> None:
    transfer = Transfer(janusd, pattern(500_000))
    transfer.run(transfer.is_complete)
    assert transfer.received == transfer.data
    lib.thread_close_conn(transfer.client, transfer.conn)
    transfer.run(transfer.is_empty)
    for _ in range(3):
        transfer.turn()
    for session in janusd.sessions:
        assert lib.fake_rx_free(session) == janusd.io_count * janusd.rx_slots
        assert lib.fake_bad(session) == 0
        assert lib.fake_heartbeat(session) > 0
    assert lib.fake_rows_used(janusd.sessions[0]) == 1
    for thread in (transfer.server, transfer.client):
        found = stats(thread)
        assert found.tx_slots_free == janusd.tx_slots
        assert found.rx_slots_free == janusd.io_count * janusd.rx_slots
        assert found.ring_violations == 0
    transfer.close()


@pytest.mark.parametrize("when", ["at once", "in the middle", "unread data"])
def test_janusd_dies_and_comes_back_and_connections_go_on(janusd: FakeJanusd, when: str) -> None:
    transfer = Transfer(janusd, pattern(400_000))
    limit = {"at once": 1, "in the middle": 150_000, "unread data": 150_000}[when]
    transfer.run(lambda: len(transfer.received) >= limit)
    if when == "unread data":
        for _ in range(50):  # the client reads no more: data waits in its slots
            lib.app_echo(transfer.server)
            lib.thread_poll(transfer.client)
            lib.thread_flush(transfer.client)
            lib.fake_pump(janusd.sessions[1], janusd.sessions[0])
            lib.fake_pump(janusd.sessions[0], janusd.sessions[1])
        assert stats(transfer.client).usage.rx_slots_held > 0
    janusd.stop()
    transfer.fakes = None
    transfer.run(
        lambda: not any(lib.thread_attached(t, ffi.NULL) for t in (transfer.server, transfer.client))
    )
    janusd.requests.clear()
    janusd.start()
    transfer.run(lambda: all(lib.thread_attached(t, ffi.NULL) for t in (transfer.server, transfer.client)))
    assert [h.resume for h in janusd.hellos] == [0, 0, 1, 1]
    by_tid = {h.token[0]: s for h, s in zip(janusd.hellos[2:], janusd.sessions[2:], strict=True)}
    transfer.fakes = by_tid[0], by_tid[1]
    assert [lib.fake_rows_used(s) for s in transfer.fakes] == [1, 1]
    transfer.run(transfer.is_complete)
    assert transfer.received == transfer.data
    assert sorted(janusd.requests) == [(LISTEN, PORT), (ONLINE, 0), (ONLINE, 0)]
    lib.thread_close_conn(transfer.client, transfer.conn)
    transfer.run(transfer.is_empty)
    for _ in range(3):
        transfer.turn()
    for thread in (transfer.server, transfer.client):
        found = stats(thread)
        assert found.attached == 2
        assert found.tx_slots_free == janusd.tx_slots
        assert found.rx_slots_free == janusd.io_count * janusd.rx_slots
    for session in by_tid.values():
        assert lib.fake_rx_free(session) == janusd.io_count * janusd.rx_slots
        assert lib.fake_bad(session) == 0
    transfer.close()


def test_janusd_ends_a_session_in_its_header(plain_janusd: FakeJanusd) -> None:
    thread = attach(plain_janusd.path)
    lib.fake_close_session(plain_janusd.sessions[0])
    for _ in range(TURNS_MAX):
        lib.thread_poll(thread)
        lib.thread_flush(thread)
        if stats(thread).attached == 2:
            break
    assert stats(thread).attached == 2
    lib.thread_close(thread)


def test_loss_on_the_way(plain_janusd: FakeJanusd) -> None:
    transfer = Transfer(plain_janusd, pattern(200_000))
    for session in plain_janusd.sessions:
        lib.fake_drop(session, 37)
    transfer.run(transfer.is_complete)
    assert transfer.received == transfer.data
    transfer.close()


@pytest.mark.parametrize(
    ("slot", "offset", "length", "kind"),
    [
        pytest.param(256, 128, 40, 1, id="slot beyond the region"),
        pytest.param(2**32 - 1, 128, 40, 1, id="no slot"),
        pytest.param(0, 2000, 100, 1, id="packet beyond its slot"),
        pytest.param(0, 65535, 65535, 1, id="offset and length beyond all"),
        pytest.param(0, 128, 40, 0, id="kind 0"),
        pytest.param(0, 128, 40, 77, id="unknown kind"),
        pytest.param(0, 128, 40, 2, id="a return in the RX ring"),
    ],
)
def test_impossible_descriptors_are_counted(
    plain_janusd: FakeJanusd, slot: int, offset: int, length: int, kind: int
) -> None:
    thread = attach(plain_janusd.path)
    lib.fake_push(plain_janusd.sessions[0], 0, slot, offset, length, kind)
    lib.thread_poll(thread)
    assert stats(thread).ring_violations == 1
    lib.thread_close(thread)


@pytest.mark.parametrize(
    ("slot", "generation", "kind"),
    [(0, 0, 2), (256, 0, 2), (2**32 - 1, 9, 2), (3, 0, 1)],
    ids=["a slot that was not sent", "slot beyond the region", "no slot", "wrong kind"],
)
def test_impossible_completions_are_counted(
    plain_janusd: FakeJanusd, slot: int, generation: int, kind: int
) -> None:
    thread = attach(plain_janusd.path)
    lib.fake_push_done(plain_janusd.sessions[0], 0, slot, generation, kind)
    lib.thread_poll(thread)
    found = stats(thread)
    assert found.ring_violations == 1
    assert found.tx_slots_free == plain_janusd.tx_slots
    lib.thread_close(thread)


def test_an_impossible_index_is_counted_and_survived(plain_janusd: FakeJanusd) -> None:
    thread = attach(plain_janusd.path)
    lib.fake_set_rx_head(plain_janusd.sessions[0], 0, 100_000)
    lib.thread_poll(thread)
    assert stats(thread).ring_violations == 1
    lib.fake_set_rx_head(plain_janusd.sessions[0], 0, 0)
    lib.thread_poll(thread)
    assert stats(thread).ring_violations == 1
    lib.thread_close(thread)


def test_a_marker_is_no_packet(plain_janusd: FakeJanusd) -> None:
    thread = attach(plain_janusd.path)
    lib.fake_push(plain_janusd.sessions[0], 0, 2**32 - 1, 0, 0, 3)
    lib.thread_poll(thread)
    assert stats(thread).ring_violations == 0
    lib.thread_close(thread)


def test_sleep_is_announced_and_never_with_work_waiting(plain_janusd: FakeJanusd) -> None:
    thread = attach(plain_janusd.path)
    session = plain_janusd.sessions[0]
    assert lib.thread_arm(thread)
    assert lib.fake_sleeping(session)
    lib.thread_disarm(thread)
    assert not lib.fake_sleeping(session)
    lib.fake_push(session, 0, 0, 128, 40, 1)
    assert not lib.thread_arm(thread)
    assert not lib.fake_sleeping(session)
    lib.thread_wait(thread, 2**64 - 1)  # returns at once: there is something
    assert stats(thread).sleeps == 0
    lib.thread_close(thread)


def test_the_death_of_janusd_ends_a_sleep(plain_janusd: FakeJanusd) -> None:
    thread = attach(plain_janusd.path)
    plain_janusd.stop()
    lib.thread_wait(thread, 2**64 - 1)
    lib.thread_poll(thread)
    error = ffi.new("struct janus_error *")
    while not (found := ffi.string(error.text)):
        lib.thread_poll(thread)
        assert not lib.thread_attached(thread, error)
    assert found.startswith(b"no janusd: ")
    plain_janusd.start()
    lib.thread_close(thread)


def test_nothing_keeps_a_thread_awake_while_janusd_is_away(plain_janusd: FakeJanusd) -> None:
    thread = attach(plain_janusd.path)
    plain_janusd.stop()
    lib.fake_free(plain_janusd.sessions.pop())  # its end of the doorbell is closed now, as the kernel does
    error = ffi.new("struct janus_error *")
    while not ffi.string(error.text):
        lib.thread_poll(thread)
        assert not lib.thread_attached(thread, error)
    assert select.select([lib.thread_fd(thread)], [], [], 0)[0] == []
    plain_janusd.start()
    lib.thread_close(thread)


def test_a_crowd_before_janusds_door_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "attach.sock"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    listener.listen(0)
    crowd = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    for sock in crowd:
        sock.setblocking(False)
    assert [sock.connect_ex(str(path)) for sock in crowd] == [0, errno.EAGAIN]
    outcome: list[int] = []

    def try_it() -> None:
        try:
            attach(path)
        except Refused as refused:
            outcome.append(refused.args[0])

    trying = threading.Thread(target=try_it)
    trying.start()
    listener.accept()[0].close()
    connection, _ = listener.accept()  # it has come after all
    assert len(connection.recv(4096)) == ffi.sizeof("struct attach_hello")
    connection.close()
    trying.join()
    assert outcome == [errno.ECONNRESET]
    for sock in (listener, *crowd):
        sock.close()


class BusyJanusd(FakeJanusd):
    """Says twice that too many are under way."""

    @property
    def refuse(self) -> tuple[int, str] | None:
        return (11, "try again") if len(self.hellos) <= 2 else None

    @refuse.setter
    def refuse(self, _: object) -> None:
        pass


def test_a_busy_janusd_is_asked_again(tmp_path: Path) -> None:
    busy = BusyJanusd(tmp_path / "attach.sock")
    lib.thread_close(attach(busy.path))
    assert len(busy.hellos) == 3
    busy.free()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (2, errno.EPROTO),
        (3, errno.EACCES),
        (4, errno.EDQUOT),
        (5, errno.ENOMEM),
        (10, errno.ECONNREFUSED),
        (999, errno.EINVAL),
    ],
)
def test_a_refusal_keeps_janusds_words(plain_janusd: FakeJanusd, status: int, code: int) -> None:
    plain_janusd.refuse = status, "uid 1000 may not run app 'test'"
    with pytest.raises(Refused) as caught:
        attach(plain_janusd.path)
    assert caught.value.args == (code, "janusd refuses: uid 1000 may not run app 'test'")


@pytest.mark.parametrize(
    ("status", "code"), [(6, errno.EADDRNOTAVAIL), (7, errno.EACCES), (8, errno.EADDRINUSE)]
)
def test_a_refused_listen_leaves_nothing_behind(plain_janusd: FakeJanusd, status: int, code: int) -> None:
    thread = attach(plain_janusd.path)
    plain_janusd.answers[PORT] = status, "port 80 is app 'other's"
    with pytest.raises(Refused) as caught:
        listen(thread)
    assert caught.value.args == (code, "janusd refuses: port 80 is app 'other's")
    plain_janusd.answers.clear()
    listen(thread)
    with pytest.raises(Refused, match="listens on it already"):
        listen(thread)
    error = ffi.new("struct janus_error *")
    assert lib.thread_unlisten(thread, ffi.NULL, PORT, error) == 0
    assert lib.thread_unlisten(thread, ffi.NULL, PORT, error) == -errno.ENOENT
    assert plain_janusd.requests == [(LISTEN, 80), (LISTEN, 80), (ONLINE, 0), (UNLISTEN, 80)]
    lib.thread_close(thread)


def test_no_janusd(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        attach(tmp_path / "attach.sock")
    assert caught.value.args[0] == errno.ENOENT
    assert "start janusd" in caught.value.args[1]


@pytest.mark.parametrize("name", [b"", b"x" * 32], ids=["empty", "too long"])
def test_a_bad_app_name(tmp_path: Path, name: bytes) -> None:
    with pytest.raises(Refused, match="allowed are 1 to 31"):
        attach(tmp_path / "attach.sock", name)


def _abi(w: Any) -> None:
    w.abi_major = 99


def _magic(w: Any) -> None:
    w.magic = 1


def _addresses(w: Any) -> None:
    w.address_count = 17


def _mtu(w: Any) -> None:
    w.mtu = 100


@pytest.mark.parametrize(
    ("change", "code"),
    [(_abi, errno.EPROTO), (_magic, errno.EPROTO), (_addresses, errno.EPROTO), (_mtu, errno.EINVAL)],
    ids=["another ABI", "no magic", "too many addresses", "impossible MTU"],
)
def test_a_welcome_that_makes_no_sense(
    plain_janusd: FakeJanusd, change: Callable[[Any], None], code: int
) -> None:
    plain_janusd.change_welcome = change
    with pytest.raises(Refused) as caught:
        attach(plain_janusd.path)
    assert caught.value.args[0] == code


def test_a_welcome_with_too_few_descriptors_leaks_none(plain_janusd: FakeJanusd) -> None:
    before = len(os.listdir("/proc/self/fd"))
    plain_janusd.fds_less = 1
    with pytest.raises(Refused, match="not consistent"):
        attach(plain_janusd.path)
    plain_janusd.stop()
    lib.fake_free(plain_janusd.sessions.pop())
    assert len(os.listdir("/proc/self/fd")) <= before
    plain_janusd.start()
