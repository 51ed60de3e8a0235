"""EAL, ports and regions without a network; each function runs in a process of its own."""

import ctypes
import errno
import fcntl
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from dpdk_glue.data_plane import DataPlane
from dpdk_glue.eal import eal_words, free_huge_pages, start_eal
from dpdk_glue.values import GlueError, Lease, PortConfig, SessionConfig
from tests.dpdk.rig import LEASE, OURS, PEER, ROW, Rig
from tests.dpdk.wire_side import until

RING = "net_ring0"  # what is sent on its queue comes back on it
FALLOC_FL_PUNCH_HOLE, FALLOC_FL_KEEP_SIZE = 2, 1
libc = ctypes.CDLL(None, use_errno=True)


def eal_leaves_the_main_thread_alone() -> None:
    before = os.sched_getaffinity(0)
    start_eal(eal_words(huge_pages=False))
    assert os.sched_getaffinity(0) == before
    rung: list[int] = []
    signal.signal(signal.SIGALRM, lambda *_: rung.append(threading.get_native_id()))
    plane = DataPlane()
    plane.ports.open(PortConfig(name="null", device="net_null0,size=64"))
    plane.io_threads.start()
    for _ in range(20):
        os.kill(os.getpid(), signal.SIGALRM)
    until(lambda: rung, "the signal in Python")
    assert set(rung) == {os.getpid()}
    assert subprocess.run([sys.executable, "-c", "pass"], check=False).returncode == 0
    plane.close()


def io_threads_are_pinned_and_nobody_else() -> None:
    """Each I/O thread runs on its cpu and no other; the rest of the process keeps what it had."""
    before = os.sched_getaffinity(0)
    cpus = sorted(before)[-2:][::-1]
    start_eal(eal_words(huge_pages=False))
    plane = DataPlane(io_threads=len(cpus), cpus=cpus)
    plane.ports.open(PortConfig(name="null", device="net_null0,size=64"))
    plane.io_threads.start()
    tasks = {
        (task / "comm").read_text().strip(): int(task.name) for task in Path("/proc/self/task").iterdir()
    }
    for io, cpu in enumerate(cpus):
        assert os.sched_getaffinity(tasks[f"janus-io{io}"]) == {cpu}
        assert plane.io_threads.info(io).cpu == cpu
    assert os.sched_getaffinity(0) == before
    plane.close()


def eal_starts_once_and_says_why_not() -> None:
    with pytest.raises(GlueError, match="start EAL first"):
        DataPlane()
    with pytest.raises(GlueError, match="EAL does not start") as refused:
        start_eal(["--no-huge", "--in-memory", "-l", "0"])
    assert "legacy-mem" in str(refused.value)
    with pytest.raises(GlueError, match="EAL does not start"):
        start_eal(eal_words(huge_pages=False))


def missing_devices_are_named() -> None:
    start_eal(eal_words(huge_pages=False))
    plane = DataPlane()
    cases = {
        "net_af_packet0,iface=gluenone": "gluenone",
        "net_nonesuch0": "net_nonesuch0",
        "0000:99:00.0": "0000:99:00.0",
    }
    for device, says in cases.items():
        with pytest.raises(GlueError, match=says):
            plane.ports.open(PortConfig(name="wan", device=device))
    with pytest.raises(GlueError, match="mtu must be 576 to 1500"):
        plane.ports.open(PortConfig(name="wan", device="net_null0", mtu=9000))
    assert plane.ports.open(PortConfig(name="wan", device="net_null0")) == 0
    with pytest.raises(GlueError, match="is port wan already"):
        plane.ports.open(PortConfig(name="again", device="net_null0"))
    with pytest.raises(GlueError):
        plane.ports.info(1)
    info = plane.ports.info(0)
    assert (info.name, info.driver, info.link_up) == ("wan", "net_null", True)
    plane.close()


def bad_options_are_refused() -> None:
    start_eal(eal_words(huge_pages=False))
    with pytest.raises(ValueError, match="io_threads must be 1 to 8"):
        DataPlane(io_threads=9)
    with pytest.raises(ValueError, match="cpus names 1 processors for 2"):
        DataPlane(io_threads=2, cpus=[0])
    with pytest.raises(GlueError, match="mbufs must be"):
        DataPlane(mbufs=1)
    with pytest.raises(GlueError, match="raise memory_mib"):
        DataPlane(mbufs=4_000_000)
    plane = DataPlane(cpus=[1023])
    with pytest.raises(GlueError, match="cannot be pinned to cpu 1023"):
        plane.io_threads.start()
    plane.close()


def what_has_no_route_is_dropped_without_blame() -> None:
    rig = Rig(device=RING)
    rig.apps[0].send(rig.packet())
    rig.apps[0].send(rig.packet(dst="192.0.2.1"))
    rig.apps[0].send(rig.packet(dst=str(OURS)))
    assert [flags for _, flags in rig.completed(0, 3)] == [0, 2, 2], "no route, and no way back to ourselves"
    until(lambda: rig.plane.ports.stats(0).rx_packets == 1, "the packet, looped")
    assert rig.sessions[0].info().violations == 0
    assert rig.sessions[0].slots().held == 0, "it is for the peer, so it is dropped on arrival"
    rig.close()


def huge_pages_or_not() -> None:
    rig = Rig(device="net_null0,size=64", huge_pages=free_huge_pages() >= 64)
    info = rig.sessions[0].info()
    assert _page_kib() == (2048 if info.huge else 4)
    rig.close()


def _page_kib() -> int:
    lines = Path("/proc/self/smaps").read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if "memfd:janus-a2j" in line)
    return next(int(line.split()[1]) for line in lines[at:] if line.startswith("KernelPageSize:"))


def an_app_cannot_pull_pages_from_under_janusd() -> None:
    rig = Rig(device="net_null0,size=64,copy=0", mode="adaptive")
    info = rig.sessions[0].info()
    for fd in (info.j2a_fd, info.a2j_fd, info.csb_fd):
        for resize in (0, 1 << 30):
            with pytest.raises(OSError, match="not permitted"):
                os.ftruncate(fd, resize)
        mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
        assert libc.fallocate(fd, mode, ctypes.c_long(0), ctypes.c_long(2 << 20)) == -1
        assert ctypes.get_errno() == errno.EPERM
        with pytest.raises(PermissionError):
            mmap.mmap(fd, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        child = os.fork()
        if child == 0:
            os.setuid(65534)
            try:
                os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
            except OSError as error:
                os._exit(error.errno or 1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.EACCES
    rig.close()


def an_app_may_pull_away_its_rows_alone() -> None:
    rig = Rig(device="net_null0,size=64,copy=0", mode="adaptive")
    info, app = rig.sessions[0].info(), rig.apps[0]
    maps = Path("/proc/self/maps").read_text()
    assert maps.count("memfd:janus-rows") == 1, "by the app alone"
    for resize in (0, 1 << 30):
        with pytest.raises(OSError, match="not permitted"):
            os.ftruncate(info.rows_fd, resize)
    here = bytes(10) + b"\xff\xff" + PEER.packed
    for i in (0, 1, 900):
        app.set_row(i, raddr=here, rport=2000 + i, lport=80, laddr_index=0, snd_nxt=i, rcv_nxt=7, state=5)
    fcntl.fcntl(info.rows_fd, fcntl.F_SETFL, os.O_NONBLOCK | os.O_APPEND)
    assert [r.row for r in rig.sessions[0].rows()] == [0, 1, 900]
    mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
    assert libc.fallocate(info.rows_fd, mode, ctypes.c_long(0), ctypes.c_long(info.rows_bytes)) == 0
    assert list(rig.sessions[0].rows()) == []
    assert os.fstat(info.rows_fd).st_blocks == 0
    app.set_row(900, raddr=here, rport=1, lport=80, laddr_index=0, snd_nxt=1, rcv_nxt=7, state=5)
    assert [r.row for r in rig.sessions[0].rows()] == [900]
    rig.close()


def sessions_come_and_go_without_a_leak() -> None:
    start_eal(eal_words(huge_pages=False))
    plane = DataPlane()
    plane.ports.open(PortConfig(name="null", device="net_null0,size=64"))
    plane.io_threads.start()
    plane.apps.add(1, "web", (1, 2))
    config = SessionConfig(
        app=1, tid=0, generation=1, lease=LEASE, row=ROW, rows=64, rx_slots_per_io=64, tx_slots=64
    )

    def once() -> None:
        session = plane.sessions.create(config)
        session.seal()
        session.start()
        with pytest.raises(GlueError, match="tid 0 of app web has a session already"):
            plane.sessions.create(config)
        assert session.stop().free == 64
        session.free()
        session.free()

    once()
    fds, memory = len(os.listdir("/proc/self/fd")), _rss_kib()
    for _ in range(50):
        once()
    assert len(os.listdir("/proc/self/fd")) == fds
    assert _rss_kib() < memory + 4096
    with pytest.raises(GlueError, match="no app 2"):
        plane.sessions.create(SessionConfig(app=2, tid=0, generation=1, lease=LEASE, row=ROW))
    with pytest.raises(GlueError, match="powers of two"):
        plane.sessions.create(SessionConfig(app=1, tid=0, generation=1, lease=LEASE, row=ROW, tx_slots=100))
    with pytest.raises(GlueError, match="at most 256 threads"):
        plane.sessions.create(SessionConfig(app=1, tid=256, generation=1, lease=LEASE, row=ROW))
    with pytest.raises(GlueError, match="1 to 16 addresses"):
        plane.sessions.create(SessionConfig(app=1, tid=0, generation=1, lease=Lease((), ()), row=ROW))
    plane.close()


def _rss_kib() -> int:
    return next(
        int(line.split()[1])
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmRSS:")
    )


def an_idle_io_thread_sleeps() -> None:
    rig = Rig(device="net_ring0", io_threads=2)
    begin, busy = rig.plane.io_threads.info(0), time.process_time()
    until(lambda: rig.plane.io_threads.info(0).sleeps > begin.sleeps + 500, "500 naps")
    turns = rig.plane.io_threads.info(0).turns - begin.turns
    assert turns < 5000, f"{turns} turns for 500 naps: it spins"
    print(f"cpu seconds: {time.process_time() - busy:.3f}")
    rig.close()


def app_memory_wild_writes_do_no_harm() -> None:
    """The app overwrites all of A2J with noise for a while; janusd counts, closes the session, and lives."""
    import random

    rig = Rig(device="net_ring0", tids=(0, 1))
    app = rig.apps[0]
    rng = random.Random(7)
    end = app.offsets.tx_slots
    for _ in range(2000):
        at = rng.randrange(0, end - 64)
        noise = rng.randbytes(64)
        from _shm import ffi

        ffi.memmove(app.a2j + at, noise, 64)
    app.index(app.a2j, app.at[0].tx_head)[0] = 0x7FFFFFFF
    until(lambda: rig.sessions[0].info().closed, "the session closed")
    rig.apps[1].send(rig.packet())
    rig.completed(1)
    list(rig.sessions[0].rows())
    rig.close()
