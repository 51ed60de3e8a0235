"""The control API, janusctl, the stats page and the metrics, over a data plane of lists."""

import asyncio
import contextlib
import ipaddress
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import zmq
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from dpdk_glue.values import IoThreadInfo, Row
from janusd import api_schema as schema
from janusd import ctl, ctl_client, metrics, stats_page, thread_counters
from janusd.api import ApiServer, serve_bytes
from janusd.balancer import Balancer
from janusd.config_reader import key_lines
from janusd.control import Peer, Reply
from janusd.messages import Hello
from janusd.metrics import JanusCollector, MetricsServer, Snapshot
from janusd.neighbours import Link
from janusd.policy import Credentials
from janusd.registry import Registry
from janusd.sessions import Attached, Sessions
from janusd.slow_path import SlowPath
from janusd.stats_page import StatsPage, StatsPageError
from janusd.views import TCP_STATES, Views
from tests.unit.janusd_fakes import A_PAGE, PORT, FakePlane, parse_config
from tests.unit.janusd_fakes import stats_page as make_page
from tests.unit.test_janusd_registry import HELLO

ROOT = Path(__file__).parents[2]
OWN4 = ipaddress.ip_address("10.77.0.1")
IO = IoThreadInfo(turns=9, busy_turns=3, sleeps=1, busy_cycles=100, cycles_hz=10**9, cpu=None, running=True)


ROOT_PEER = Peer(0, 0, 1, may_change=True)


def answer_bytes(data: bytes, answer: Callable[[schema.AnyRequest], schema.Result]) -> bytes:
    """The reply to a request that only reads: there is one, at once."""
    replies: list[bytes] = []
    serve_bytes(data, ROOT_PEER, lambda request, _, reply: reply(answer(request)), replies.append)
    [reply] = replies
    return reply


class House:
    """Views over two attached threads with some connections."""

    def __init__(self) -> None:
        self.config = parse_config()
        self.plane = FakePlane()
        self.plane.io_threads = SimpleNamespace(count=1, info=lambda number: IO)
        self.registry = Registry(self.config, secrets.token_bytes)
        self.balancer = Balancer(secrets.token_bytes)
        self.sessions = Sessions(
            self.config,
            self.plane,
            self.registry,
            self.balancer,
            lambda: None,
            {"p0": PORT},
            SimpleNamespace(time=lambda: 0.0, call_later=lambda *_: None),
        )
        self.sessions.start()
        link = Link(PORT.mac, (ipaddress.ip_interface("10.77.0.1/24"),))
        self.slow_path = SlowPath(self.plane, {0: link}, lambda: 0.0)
        self.views = Views(
            self.config,
            self.plane,
            {"p0": 0},
            self.registry,
            self.balancer,
            self.sessions,
            self.slow_path,
            StatsPage(A_PAGE),
            42,
            False,
            lambda: 1.5,
        )

    def attach(self, connections: int) -> Attached:
        who = Credentials(100, next(iter(self.config.apps[0].uids)), frozenset())
        hello: Hello = HELLO
        attached = self.sessions.admit(who, hello)
        assert isinstance(attached, Attached)
        attached.plane.connections = [a_row(n) for n in range(connections)]
        self.sessions.sealed(attached)
        self.sessions.listen(attached, None, 80)
        self.sessions.online(attached, lambda: None)
        return attached

    def ask(self, **request: object) -> dict:
        data = json.dumps({"version": 1, "id": "7", **request}).encode()
        return json.loads(answer_bytes(data, self.views.answer))


def a_row(n: int) -> Row:
    return Row(
        row=n,
        state=5,
        local=OWN4,
        local_port=80,
        remote=ipaddress.ip_address("fd77::2" if n % 2 else "10.77.0.2"),
        remote_port=1024 + n,
        snd_nxt=n,
        rcv_nxt=n,
    )


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr(
        "tests.unit.janusd_fakes.FakeSession.rows", lambda self, start=0: iter(self.connections[start:])
    )
    made = House()
    made.attach(5)
    made.attach(7)
    return made


# --- the schema ---


def test_status(house: House) -> None:
    reply = house.ask(verb="status")
    assert (reply["version"], reply["id"]) == (1, "7")
    result = reply["result"]
    assert (result["pid"], result["uptime_s"], result["threads"], result["services"]) == (42, 1.5, 2, 4)
    assert result["io_threads"][0]["cycles_hz"] == 10**9


def test_every_verb_answers_and_no_verb_asks_an_app(house: House) -> None:
    for verb in ("status", "ports", "apps", "services", "threads", "conns", "stats", "neighbours"):
        assert "result" in house.ask(verb=verb), verb
    (port,) = house.ask(verb="ports")["result"]
    assert (port["rx_packets"], port["tx_bytes"], port["drops"]) == (10, 1000, {"runt": 3, "rx_missed": 1})
    web, api, _ = house.ask(verb="apps")["result"]
    assert (web["threads"], web["shares"], api["threads"]) == (2, {"0": 0.5, "1": 0.5}, 0)
    services = house.ask(verb="services")["result"]
    assert {(s["ports"], s["kind"], tuple(s["tids"])) for s in services} == {
        ("40000-49999", "source", (0, 1)),
        ("80", "listen", (0, 1)),
    }
    threads = house.ask(verb="threads", app="web")["result"]
    assert [(t["tid"], t["state"], t["rx_slots_held"]) for t in threads] == [
        (0, "online", 56),
        (1, "online", 56),
    ]
    assert house.ask(verb="threads", app="api")["result"] == []


def test_connections_come_in_pages_without_gap_or_double(house: House) -> None:
    seen, cursor, pages = [], None, 0
    while True:
        result = house.ask(verb="conns", limit=3, **({"cursor": cursor} if cursor else {}))["result"]
        seen += [(c["tid"], c["row"]) for c in result["conns"]]
        cursor, pages = result["cursor"], pages + 1
        if cursor is None:
            break
    assert seen == [(0, n) for n in range(5)] + [(1, n) for n in range(7)]
    assert pages == 4
    assert [c["row"] for c in house.ask(verb="conns", tid=1)["result"]["conns"]] == list(range(7))
    assert house.ask(verb="conns", app="api")["result"] == {"conns": [], "cursor": None}
    assert house.ask(verb="conns", limit=1)["result"]["conns"][0]["state"] == "ESTABLISHED"


BAD = [
    pytest.param(b"", "not_json", "", id="nothing"),
    pytest.param(b"{", "not_json", "", id="cut"),
    pytest.param(b"\xff\xfe", "not_json", "", id="bytes"),
    pytest.param(b"[" * 100_000, "too_long", "", id="deep and long"),
    pytest.param(b"[" * 30_000, "bad_field", "", id="deep"),
    pytest.param(b"[]", "bad_field", "", id="a list"),
    pytest.param(b'{"version":1}', "bad_field", "verb", id="no verb"),
    pytest.param(b'{"version":1,"verb":"reboot"}', "bad_field", "verb", id="unknown verb"),
    pytest.param(b'{"verb":"status"}', "bad_field", "version", id="no version"),
    pytest.param(b'{"version":2,"verb":"status"}', "bad_field", "version", id="another version"),
    pytest.param(b'{"version":"1","verb":"status"}', "bad_field", "version", id="version as text"),
    pytest.param(b'{"version":1,"verb":"status","x":1}', "bad_field", "x", id="unknown field"),
    pytest.param(b'{"version":1,"verb":"conns","limit":0}', "bad_field", "limit", id="limit 0"),
    pytest.param(b'{"version":1,"verb":"conns","limit":1001}', "bad_field", "limit", id="limit 1001"),
    pytest.param(b'{"version":1,"verb":"conns","tid":256}', "bad_field", "tid", id="tid 256"),
    pytest.param(b'{"version":1,"verb":"conns","cursor":"x"}', "bad_field", "cursor", id="cursor"),
    pytest.param(
        b'{"version":1,"verb":"conns","cursor":"web/0/4294967296"}', "bad_field", "cursor", id="row 2^32"
    ),
    pytest.param(b'{"version":1,"verb":"conns","app":"nope"}', "not_found", "app", id="app"),
    pytest.param(b'{"version":1,"verb":"threads","app":"nope"}', "not_found", "app", id="app of threads"),
]


@pytest.mark.parametrize(("data", "code", "field"), BAD)
def test_bad_requests_are_answered_by_the_name_of_the_field(
    house: House, data: bytes, code: str, field: str
) -> None:
    error = json.loads(answer_bytes(data, house.views.answer))["error"]
    assert (error["code"], error["field"]) == (code, field), error


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
FIELDS = st.sampled_from(["version", "id", "verb", "app", "tid", "limit", "cursor", "x"])
VERBS = st.sampled_from(["status", "conns", "threads", "stats", "STATUS", ""])
REQUESTS = st.dictionaries(FIELDS, JSON | VERBS | st.just(1), max_size=6)
PROBE = House()


@given(st.binary(max_size=300) | REQUESTS.map(lambda r: json.dumps(r).encode()))
def test_whatever_comes_gets_one_bounded_answer(data: bytes) -> None:
    reply = json.loads(answer_bytes(data, PROBE.views.answer))
    assert ("result" in reply) != ("error" in reply)
    assert len(reply["id"]) <= 64
    if "error" in reply:
        assert reply["error"]["code"] in ("not_json", "bad_field", "not_found", "too_long")


def test_a_fault_of_our_own_is_answered_too(house: House) -> None:
    def broken(request: object) -> schema.Result:
        raise RuntimeError("no")

    reply = json.loads(answer_bytes(b'{"version":1,"id":"a","verb":"status"}', broken))
    assert (reply["id"], reply["error"]["code"]) == ("a", "internal")


def test_the_document_tells_every_verb_and_field() -> None:
    text = (ROOT / "docs/control-api.md").read_text()
    for struct in (
        *schema.AnyRequest.__args__,
        *(s for s in vars(schema).values() if hasattr(s, "__struct_fields__")),
    ):
        for field in struct.__struct_fields__:
            assert f"`{field}`" in text, f"{struct.__name__}.{field} is not in docs/control-api.md"
    for verb in schema.AnyRequest.__args__:
        assert f"### {schema.verb_name(verb)}\n" in text


# --- over ZeroMQ ---


@pytest.fixture
def served(tmp_path: Path, house: House) -> Iterator[Path]:
    """The API on a socket, served by a thread with a loop of its own."""
    path = tmp_path / "ctl.sock"
    loop = asyncio.new_event_loop()
    server: list[ApiServer] = []

    def run() -> None:
        asyncio.set_event_loop(loop)

        def answer(request: schema.AnyRequest, peer: Peer, reply: Reply) -> None:
            reply(house.views.answer(request))

        server.append(ApiServer(path, None, answer, loop, may_change=True))
        server[0].start()
        ready.set()
        loop.run_forever()
        server[0].stop()

    ready = threading.Event()
    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(5)
    yield path
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


def test_api_serves_req_and_dealer_and_survives_garbage(served: Path) -> None:
    assert served.stat().st_mode & 0o777 == 0o660
    with zmq.Context() as context:
        for kind in (zmq.REQ, zmq.DEALER):
            with context.socket(kind) as sock:
                sock.setsockopt(zmq.RCVTIMEO, 5000)
                sock.connect(f"ipc://{served}")
                for n in range(50):
                    sock.send(json.dumps({"version": 1, "id": str(n), "verb": "status"}).encode())
                    assert json.loads(sock.recv())["id"] == str(n)
        with context.socket(zmq.DEALER) as sock:
            sock.setsockopt(zmq.RCVTIMEO, 5000)
            sock.setsockopt(zmq.LINGER, 0)
            sock.connect(f"ipc://{served}")
            sock.send_multipart([b"a", b"b", b"c", b"d"])  # odd envelopes get no answer
            sock.send(b"junk")
            assert json.loads(sock.recv())["error"]["code"] == "not_json"
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(served))
        raw.sendall(os.urandom(4096))
    client = ctl_client.Client(str(served))
    assert client.ask("status")["pid"] == 42


def test_a_message_that_is_too_long_is_cut_off(served: Path) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as sock:
        sock.setsockopt(zmq.RCVTIMEO, 300)
        sock.setsockopt(zmq.LINGER, 0)
        sock.setsockopt(zmq.RECONNECT_IVL, -1)
        sock.connect(f"ipc://{served}")
        sock.send(b" " * (schema.REQUEST_BYTES_MAX + 1))
        with pytest.raises(zmq.Again):
            sock.recv()


# --- janusctl ---


def run_ctl(*args: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(ctl.main, list(args))
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize(
    "verb", ["status", "ports", "apps", "services", "threads", "conns", "stats", "neighbours"]
)
def test_janusctl_prints_tables_and_json(served: Path, verb: str) -> None:
    code, out, err = run_ctl("--socket", str(served), verb)
    assert (code, err) == (0, "")
    assert out.strip()
    code, out, err = run_ctl("--socket", str(served), "--json", verb)
    assert (code, err) == (0, "")
    assert isinstance(json.loads(out), list | dict)


def test_janusctl_pages_through_connections(served: Path) -> None:
    _, out, _ = run_ctl("--socket", str(served), "--json", "conns")
    assert len(json.loads(out)["conns"]) == 12
    _, out, _ = run_ctl("--socket", str(served), "conns", "--limit", "4")
    assert "there are more" in out
    assert "10.77.0.1:80" in out
    assert "[fd77::2]:1027" in out


def test_janusctl_says_what_is_wrong(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, _, err = run_ctl("--socket", str(tmp_path / "none.sock"), "status")
    assert (code, "janusd is not running here: there is no" in err) == (69, True)
    code, _, err = run_ctl("--socket", str(served), "conns", "--app", "nope")
    assert (code, err) == (65, 'janusctl: app: no app "nope" is configured; there are: web, api, other\n')
    monkeypatch.setattr(ctl_client.os, "access", lambda path, mode: False)
    code, _, err = run_ctl("--socket", str(served), "status")
    assert (code, "no permission" in err) == (77, True)


def test_janusctl_gives_up_on_a_dead_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctl_client, "TIMEOUT_S", 0.05)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "dead.sock"))
    code, _, err = run_ctl("--socket", str(tmp_path / "dead.sock"), "status")
    assert (code, "does not answer" in err) == (69, True)


def test_janusctl_watches(served: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "janusd.ctl",
        "--socket",
        str(served),
        "--json",
        "--watch",
        "--interval",
        "0.1",
        "status",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.terminate()
    assert [line["pid"] for line in lines] == [42] * 3


# --- the stats page ---


def test_page_adds_up_the_blocks_of_an_object() -> None:
    page = StatsPage(A_PAGE)
    assert page.info() == stats_page.PageInfo(4711, 1_700_000_000_000_000)
    found = {(c.kind, c.number, c.sub): c for c in page.read()}
    assert set(found) == {("io", 0, 0), ("port", 0, 0), ("app", 1, 0), ("thread", 1, 2)}
    port = found["port", 0, 0]
    assert (port.name, port.counters["rx_packets"], port.counters["drop.runt"]) == ("p0", 10, 3)


@pytest.mark.parametrize(
    ("page", "part"),
    [
        pytest.param(b"", "too short", id="empty"),
        pytest.param(make_page([], magic=1), "reader knows 1", id="magic"),
        pytest.param(make_page([], version=2), "has version 2, this reader knows 1", id="version"),
        pytest.param(make_page([], seq=3), "changes faster", id="always being changed"),
        pytest.param(A_PAGE[:-3000], "ends within its blocks", id="cut"),
    ],
)
def test_page_that_cannot_be_read(page: bytes, part: str) -> None:
    with pytest.raises(StatsPageError, match=part):
        StatsPage(page).read()


def test_page_layout_is_that_of_the_header(tmp_path: Path) -> None:
    source = """#include <stdio.h>
    #include "shm/page.h"
    int main(void) { printf("%zu %zu %zu %zu %zu %d %d\\n", sizeof(struct page_header),
        offsetof(struct page_kind_entry, counter_names), offsetof(struct page_block, counters),
        offsetof(struct page_header, started_us), offsetof(struct page_block, name), PAGE_VERSION,
        PAGE_NO_IO);
        printf("%u\\n", PAGE_MAGIC); }"""
    program = tmp_path / "probe"
    subprocess.run(
        ["gcc", "-std=c11", f"-I{ROOT}/sdk", "-x", "c", "-", "-o", str(program)],
        input=source,
        text=True,
        check=True,
    )
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout.split()
    assert list(map(int, printed)) == [
        stats_page.HEADER_BYTES,
        stats_page.KIND_BYTES,
        stats_page.BLOCK_BYTES,
        40,
        32,
        stats_page.VERSION,
        stats_page.NO_IO,
        stats_page.MAGIC,
    ]


def test_page_under_a_name(tmp_path: Path) -> None:
    name = f"/janus.test.{os.getpid()}"
    fd = stats_page.create(name, 0o444)
    try:
        os.write(fd, A_PAGE)
        assert os.fstat(fd).st_mode & 0o777 == 0o444
        assert len(stats_page.open_page(name).read()) == 4
    finally:
        os.close(fd)
        stats_page.unlink(name)
    stats_page.unlink(name)
    with pytest.raises(StatsPageError, match="is janusd running"):
        stats_page.open_page(name)


def test_connections_are_never_more_than_rows() -> None:
    counters = [0] * 4 + [7, 3, 4] + [0] * 33
    assert thread_counters.connections(counters, 100) == 6
    assert thread_counters.connections(counters, 5) == 5
    assert thread_counters.connections([2**64 - 1] * 6 + [0], 5) == 5
    assert thread_counters.connections([0] * 6 + [9], 5) == 0
    assert thread_counters.connections([], 5) == 0


def test_counter_names_are_those_of_the_core() -> None:
    header = (ROOT / "sdk/tcp/counters.h").read_text()
    body = header.split("struct tcp_counters {")[1].split("};")[0]
    body = re.sub(r"/\*.*?\*/", "", body)
    names = [name for line in re.findall(r"uint64_t ([^;]+);", body) for name in re.split(r",\s*", line)]
    assert names == [*thread_counters.NAMES, "dropped[TCP_DROP_COUNT]"]
    drops = re.findall(r'^DROP\(\w+, "(\w+)"', (ROOT / "sdk/tcp/drops.def").read_text(), re.MULTILINE)
    assert tuple(drops) == thread_counters.DROPS
    states = re.findall(r"TCP_STATE_(\w+) = (\d+)", (ROOT / "sdk/tcp/tcp.h").read_text())
    assert [name.replace("_", "-") for name, _ in states] == list(TCP_STATES)


# --- metrics ---


@pytest.fixture
def scraped() -> Iterator[MetricsServer]:
    collector = JanusCollector(StatsPage(A_PAGE))
    collector.snapshot = Snapshot(
        release="1.2",
        tcp={("web", 2): tuple(range(40))},
        connections={("web", 2): 3},
        threads={"web": 1, "api": 0},
        control={"attach_refused": 3},
        devices={"p0": {"rx_missed": 4}},
    )
    server = MetricsServer(("127.0.0.1", 0), collector)
    server.start()
    yield server
    server.stop()


def get(port: int, path: str = "/metrics", method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_metrics_have_conventional_names_and_few_labels(scraped: MetricsServer) -> None:
    status, text = get(scraped.port)
    assert status == 200
    samples = {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }
    assert samples["janus_port_rx_packets_total", (("port", "p0"),)] == 10
    assert samples["janus_drops_total", (("app", ""), ("port", "p0"), ("reason", "runt"))] == 3
    assert samples["janus_drops_total", (("app", "web"), ("port", ""), ("reason", "ring_full"))] == 4
    assert samples["janus_thread_rx_packets_total", (("app", "web"), ("tid", "2"))] == 5
    assert samples["janus_connections", (("app", "web"), ("tid", "2"))] == 3
    assert samples["janus_tcp_segments_sent_total", (("app", "web"), ("tid", "2"))] == 1
    assert samples["janus_io_turns_total", (("io", "0"),)] == 100
    assert samples["janus_threads", (("app", "api"),)] == 0
    assert samples["janus_control_events_total", (("event", "attach_refused"),)] == 3
    assert samples["janus_start_time_seconds", ()] == 1.7e9
    assert not any("none" in str(labels) for _, labels in samples)
    assert all(name.startswith("janus_") for name, _ in samples)


def test_metrics_answer_nothing_else(scraped: MetricsServer) -> None:
    assert get(scraped.port, "/")[0] == 404
    assert get(scraped.port, method="POST")[0] == 405
    with socket.create_connection(("127.0.0.1", scraped.port), timeout=10) as sock:
        sock.sendall(b"hello\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 400")
    with socket.create_connection(("127.0.0.1", scraped.port), timeout=10) as sock:
        sock.sendall(b"x" * 100_000)
        with contextlib.suppress(ConnectionError):
            assert sock.recv(100) == b""


def test_slow_clients_do_not_keep_others_waiting(scraped: MetricsServer) -> None:
    before = threading.active_count()
    slow = []
    for _ in range(metrics.CLIENTS_MAX + 50):
        slow.append(socket.create_connection(("127.0.0.1", scraped.port), timeout=10))
        slow[-1].sendall(b"GET /metr")
    assert get(scraped.port)[0] == 200
    assert threading.active_count() == before
    for sock in slow:
        sock.close()


def test_clients_get_5_seconds_in_all(scraped: MetricsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "REQUEST_TIMEOUT_S", 0.1)
    with socket.create_connection(("127.0.0.1", scraped.port), timeout=10) as sock:
        sock.sendall(b"GET")
        assert sock.recv(100) == b""


def test_a_page_in_trouble_is_503() -> None:
    page = StatsPage(make_page([], seq=3))
    server = MetricsServer(("127.0.0.1", 0), JanusCollector(page))
    server.start()
    try:
        assert get(server.port)[0] == 503
    finally:
        server.stop()


def test_a_taken_address_is_an_error(scraped: MetricsServer) -> None:
    server = MetricsServer(("127.0.0.1", scraped.port), JanusCollector(StatsPage(A_PAGE)))
    with pytest.raises(OSError, match="address already in use"):
        server.start()
    server.stop()


def test_key_lines_know_tables_and_arrays() -> None:
    assert key_lines("a = 1\n[io]\nthreads = 1\n[[port]]\nname = 'x'\n[[port]]\nname='y'") == {
        "a": 1,
        "io": 2,
        "io.threads": 3,
        "port[0]": 4,
        "port[0].name": 5,
        "port[1]": 6,
        "port[1].name": 7,
    }
