"""How janusd starts, tells of itself and stops: checks, start-up table, command line, logs, sd_notify, slow path."""

import asyncio
import ipaddress
import json
import logging
import os
import re
import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from dpdk_glue.values import GlueError, SlowFrame, SlowReason
from janusd import attach, checks, frames, log_format, runtime_sockets
from janusd.__main__ import main
from janusd.checks import EX_NOPERM, StartError
from janusd.neighbours import Link
from janusd.notify import LoopWatch, Notifier
from janusd.slow_path import FRAMES_PER_TURN, SlowPath
from tests.unit.janusd_fakes import CONFIG, PORT, FakePlane, parse_config

ALL_CAPABILITIES = (1 << 41) - 1
CONFIGURED = parse_config().ports[0]

# --- checks ---


@pytest.mark.parametrize(
    ("device", "missing", "needs"),
    [
        pytest.param("net_af_packet0,iface=lo", 13, "CAP_NET_RAW", id="af_packet without NET_RAW"),
        pytest.param("net_af_packet0,iface=lo", 12, "CAP_NET_ADMIN", id="af_packet without NET_ADMIN"),
        pytest.param("net_tap0", 12, "CAP_NET_ADMIN", id="tap without NET_ADMIN"),
        pytest.param("net_af_xdp0,iface=lo", 21, "CAP_SYS_ADMIN", id="af_xdp without SYS_ADMIN"),
    ],
)
def test_a_missing_capability_is_named(device: str, missing: int, needs: str) -> None:
    port = replace(CONFIGURED, device=device)
    checks.check_capabilities(port, ALL_CAPABILITIES)
    with pytest.raises(
        StartError, match=rf'port "p0": device ".*" needs {needs}: run janusd as root'
    ) as caught:
        checks.check_capabilities(port, ALL_CAPABILITIES & ~(1 << missing))
    assert caught.value.exit_code == EX_NOPERM


def test_devices_without_needs_need_nothing() -> None:
    for device in ("net_null0", "net_ring0", "0000:3b:00.0"):
        checks.check_capabilities(replace(CONFIGURED, device=device), 0)


def test_a_missing_interface_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "effective_capabilities", lambda: ALL_CAPABILITIES)
    config = parse_config(CONFIG.replace("net_null0", "net_af_packet0,iface=no-such0"))
    with pytest.raises(StartError, match=r'there is no interface "no-such0" here; there are: .*lo'):
        checks.check_ports(config)


def test_an_address_of_the_kernel_is_refused() -> None:
    assert checks.kernel_owns(ipaddress.ip_address("127.0.0.1"))
    assert not checks.kernel_owns(ipaddress.ip_address("192.0.2.77"))
    assert not checks.kernel_owns(ipaddress.ip_address("2001:db8::77"))
    config = parse_config()
    (port,) = config.ports
    taken = replace(port, addresses=(ipaddress.ip_interface("127.0.0.1/8"),))
    with pytest.raises(
        StartError, match=r'port "p0": address 127.0.0.1 is the kernel\'s own here too: take it'
    ):
        checks.check_ports(replace(config, ports=(taken,)))


@pytest.mark.parametrize(
    ("wanted", "free", "use"),
    [(None, 32, True), (None, 31, False), (None, 0, False), (False, 100, False), (True, 32, True)],
)
def test_huge_pages_are_used_where_there_are_enough(wanted: bool | None, free: int, use: bool) -> None:
    got, warning = checks.choose_huge_pages(wanted, 64, free)
    assert got is use
    assert bool(warning) == (wanted is None and not use)
    if warning:
        assert f"{free} huge pages of 2 MiB are free, 32 are needed; mend: echo" in warning


def test_huge_pages_that_must_be_and_are_not() -> None:
    with pytest.raises(StartError, match=r"huge_pages = true, but 3 huge pages .* 32 are needed: echo 128 >"):
        checks.choose_huge_pages(True, 64, 3)


def test_a_processor_that_cannot_be_given_away_is_warned_of(tmp_path: Path) -> None:
    setting = tmp_path / "sched_autogroup_enabled"
    assert not checks.check_autogroup("yield", setting)  # a kernel without
    setting.write_text("1\n")
    assert "kernel.sched_autogroup_enabled to 0" in checks.check_autogroup("yield", setting)
    assert not checks.check_autogroup("adaptive", setting)
    setting.write_text("0\n")
    assert not checks.check_autogroup("yield", setting)


# --- the command line ---


def run_main(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, list(words))
    return done.exit_code, done.stdout, done.stderr


def test_check_says_ok_or_all_errors(tmp_path: Path) -> None:
    path = tmp_path / "j.toml"
    path.write_text(CONFIG)
    path.chmod(0o600)
    assert run_main("--config", str(path), "--check") == (0, "ok\n", "")
    path.write_text(CONFIG.replace("net_null0", "") + "x = 1\n")
    code, out, err = run_main("--config", str(path), "--check")
    assert (code, out) == (78, "")
    assert len(err.splitlines()) == 2
    assert all(line.startswith(f"{path}:") for line in err.splitlines())
    assert run_main("--config", str(tmp_path / "none.toml"))[0] == 78


# --- the start-up table ---


def test_a_failed_start_is_undone_in_reverse() -> None:
    daemon = pytest.importorskip("janusd.daemon", reason="the data plane is not built")
    done: list[str] = []

    def step(name: str, fails: bool = False) -> object:
        def start() -> None:
            done.append(f"+{name}")
            if fails:
                raise StartError("no")

        return daemon.Step(name, start, lambda: done.append(f"-{name}"))

    loop = asyncio.new_event_loop()
    made = daemon.Daemon(parse_config(), loop, Notifier({}))
    made.steps = lambda: [step("a"), step("b"), step("c", fails=True), step("d")]
    with pytest.raises(StartError):
        made.start()
    assert done == ["+a", "+b", "+c", "-b", "-a"]
    made.stop()
    assert len(done) == 5
    loop.close()


def test_every_step_has_a_name_of_its_own_and_the_lock_comes_before_what_others_could_lose() -> None:
    daemon = pytest.importorskip("janusd.daemon", reason="the data plane is not built")
    loop = asyncio.new_event_loop()
    names = [step.name for step in daemon.Daemon(parse_config(), loop, Notifier({})).steps()]
    loop.close()
    assert len(set(names)) == len(names)
    assert names.index("runtime directory") < min(
        names.index(n) for n in ("stats page", "EAL", "control API")
    )
    assert names.index("I/O threads") < names.index("attach server")


# --- sockets ---


def test_socket_replaces_a_stale_one_and_is_never_open_to_others(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    seen = []
    for _ in range(2):
        with socket.socket(socket.AF_UNIX) as sock:
            runtime_sockets.bind_for_group(
                path, os.getgid(), lambda: (sock.bind(str(path)), seen.append(path.stat().st_mode & 0o777))
            )
    assert seen == [0o660, 0o660]


def test_group_that_cannot_be_set_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "chown", refuse)
    with socket.socket(socket.AF_UNIX) as sock:
        path = tmp_path / "s.sock"
        runtime_sockets.bind_for_group(path, os.getgid() + 1, lambda: sock.bind(str(path)))
    assert "group cannot be set" in caplog.text


def test_socket_activation_takes_the_listener_of_the_right_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "attach.sock"
    pid = os.fork()
    if pid == 0:  # descriptors from 3 on are a child's to arrange
        try:
            made = [
                socket.socket(socket.AF_UNIX, kind) for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET)
            ]
            made[1].bind(str(path))
            made[1].listen(1)
            fds = [os.dup(sock.fileno()) for sock in made]
            for wanted, fd in zip((3, 4), [os.dup2(fd, 100 + n) for n, fd in enumerate(fds)], strict=True):
                os.dup2(fd, wanted)
            os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="2")
            got = attach.open_listener(path, None)
            os._exit(0 if got.fileno() == 4 and not got.getblocking() else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    monkeypatch.setenv("LISTEN_PID", "1")  # another process's
    monkeypatch.setenv("LISTEN_FDS", "2")
    listener = attach.open_listener(tmp_path / "own.sock", None)
    assert listener.getsockname() == str(tmp_path / "own.sock")
    listener.close()


# --- sd_notify and the watchdog ---


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_notify(tmp_path: Path, abstract: bool) -> None:
    name = f"@janus-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name[1:] if abstract else name)
        Notifier({"NOTIFY_SOCKET": name}).send("READY=1", "STATUS=x")
        assert sock.recv(100) == b"READY=1\nSTATUS=x"


def test_notify_without_a_listener_is_silent(tmp_path: Path) -> None:
    Notifier({}).send("READY=1")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "none")}).send("READY=1")
    assert Notifier({"WATCHDOG_USEC": "5000000"}).watchdog_s == 5.0
    assert Notifier({"WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "1"}).watchdog_s == 0.0


def test_the_watchdog_is_fed_only_while_every_thread_moves() -> None:
    watch = LoopWatch()
    assert watch.moved([5, 5])
    assert watch.moved([6, 9])
    assert not watch.moved([7, 9])
    assert not watch.moved([8, 9])
    assert watch.moved([9, 10])


# --- logs ---


def record(**values: object) -> logging.LogRecord:
    made = logging.LogRecord("janusd.x", logging.WARNING, "", 0, "a sentence", (), None)
    made.fields = values
    return made


def test_text_log_is_one_line() -> None:
    line = log_format.TextFormatter(journal=False).format(record(a=1, b="two words", c='q"\n', d=""))
    assert re.fullmatch(
        r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d warning janusd.x: a sentence a=1 b="two words" c="q\\"\\n" d=""',
        line,
    )
    assert log_format.TextFormatter(journal=True).format(record()) == "<4>warning janusd.x: a sentence"


def test_json_log_is_an_object() -> None:
    entry = json.loads(log_format.JsonFormatter().format(record(a=1, b=Path("/x"))))
    entry.pop("time")
    assert entry == {"level": "warning", "module": "janusd.x", "message": "a sentence", "a": 1, "b": "/x"}


# --- the slow path ---

MAC, PEER = PORT.mac, bytes.fromhex("020000000002")
OWN, HOST = ipaddress.ip_address("10.77.0.1"), ipaddress.ip_address("10.77.0.2")


class Queue(FakePlane):
    """A data plane with frames in its queue."""

    def __init__(self, waiting: list[SlowFrame]) -> None:
        super().__init__()
        self.slow_path = SimpleNamespace(recv=lambda: waiting.pop(0) if waiting else None, send=self.send)


def a_slow_path(waiting: list[SlowFrame]) -> tuple[Queue, SlowPath]:
    plane = Queue(waiting)
    link = Link(MAC, (ipaddress.ip_interface("10.77.0.1/24"),))
    return plane, SlowPath(plane, {0: link}, lambda: 0.0)


def arp(request: bool) -> SlowFrame:
    raw = frames.build_arp(request=request, sender_mac=PEER, sender=HOST, target_mac=MAC, target=OWN)
    return SlowFrame(0, SlowReason.ARP, None, raw)


def test_slow_path_resolves_and_answers() -> None:
    packet = SlowFrame(0, SlowReason.NEIGHBOUR, HOST, bytes(6) + MAC + b"\x08\x00data")
    plane, slow = a_slow_path([packet, arp(request=False), arp(request=True)])
    slow.announce()
    assert slow.drain() is False
    assert plane.neighbours == {(0, HOST): PEER}
    announcement, question, data, answer = (frame for _, frame in plane.sent)
    assert frames.parse(announcement) == frames.Arp(True, MAC, OWN, OWN)
    assert frames.parse(question) == frames.Arp(True, MAC, OWN, HOST)
    assert data == PEER + packet.frame[6:]
    assert frames.parse(answer) == frames.Arp(False, MAC, OWN, HOST)


def test_slow_path_is_bounded_and_counts() -> None:
    junk = SlowFrame(0, SlowReason.UDP, None, b"junk")
    stranger = SlowFrame(7, SlowReason.ARP, None, arp(request=True).frame)
    plane, slow = a_slow_path([junk] * FRAMES_PER_TURN + [stranger])
    assert slow.drain() is True
    assert slow.drain() is False
    assert (slow.counters.frames, slow.counters.ignored) == (FRAMES_PER_TURN + 1, FRAMES_PER_TURN + 1)
    assert plane.sent == []


def test_slow_path_goes_on_when_a_port_is_full() -> None:
    plane, slow = a_slow_path([arp(request=True)])

    def full(port: int, frame: bytes) -> None:
        raise GlueError(105, "the port's queue is full")

    plane.slow_path.send = full
    slow.drain()
    assert slow.counters.not_sent == 1


def test_slow_path_says_who_claims_our_address(caplog: pytest.LogCaptureFixture) -> None:
    raw = frames.build_arp(request=True, sender_mac=PEER, sender=OWN, target_mac=None, target=OWN)
    _, slow = a_slow_path([SlowFrame(0, SlowReason.ARP, None, raw)])
    slow.drain()
    assert "another host uses an address of ours" in caplog.text
    assert caplog.records[0].fields == {"port": 0, "address": OWN, "mac": "02:00:00:00:00:02"}
