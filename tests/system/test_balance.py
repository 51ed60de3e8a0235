"""Load moves between the threads of an app on a real janusd, and no kernel client notices."""

import os
import random
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace

import pytest

from bench.rig import REPO, Janusd
from bench.rig.processes import python, wait_until
from janusd.ctl_client import CtlError
from tests.system.balance_load import balancer, client, echo, load, no_harm, syns_sent_again
from tests.system.census import logs_are_clean
from tests.system.conftest import SERVED, StartRig
from tests.system.stream import digest, echo_both_ways

ECHO = "tests.system.apps.census:handle"
RUN = ("-m", "janus_tcp", "run", ECHO, "--port", "8000", "--app", "web")
UPDATES = 100
SPOOF_S = os.environ.get("JANUS_SPOOF_S", "3")  # how long SYNs are sent: 16 are a million of them


def owners(rig: Janusd) -> dict[int, int]:
    """The thread of each connection, by the client's port."""
    return {
        row["remote_port"]: row["tid"] for row in rig.ctl("conns")["conns"] if row["state"] == "ESTABLISHED"
    }


def counted(rig: Janusd, kind: str, counter: str) -> int:
    """A counter of the data plane, of all objects of a kind."""
    return sum(row["counters"].get(counter, 0) for row in rig.rows("stats") if row["kind"] == kind)


@pytest.mark.timeout(120)
def test_a_hundred_updates_under_load_break_nothing(rig: Janusd) -> None:
    app = rig.serve(ECHO, port=8000, workers=3)
    draw, ctl, worst = random.Random(7), client(rig), 0.0
    with load(rig, 8000) as running:
        updates = 0
        while not running.errors and (
            updates < UPDATES or running.connections <= UPDATES or running.streams <= 3
        ):
            updates += 1
            weights = {str(tid): float(draw.choice((0, 1, 1, 2, 5))) for tid in range(3)}
            weights[str(draw.randrange(3))] = 1.0
            done = ctl.ask("csb_set", app="web", weights=weights)
            worst = max(worst, done["phases_ms"].get("drain", 0) + done["phases_ms"].get("seal", 0))
    assert sum(u["outcome"] == "published" for u in balancer(rig)["updates"]) >= 60
    no_harm(rig)
    held_us = [t["held_us"] for t in balancer(rig)["threads"]]
    assert all(held_us), "each thread has worked for an update"
    waited, dropped = counted(rig, "io", "syns_held"), counted(rig, "app", "drop.syn_moving")
    assert waited > 0
    assert dropped == 0, "newcomers have waited for updates to end, and need not come again"
    print(
        f"{updates} updates, {running.streams} streams, {running.connections} connections, "
        f"worst drain {worst:.2f} ms, worst part of a turn {max(held_us)} us, "
        f"{waited} SYNs held, {syns_sent_again(rig)} sent again"
    )
    logs_are_clean(rig.process, app)


@pytest.mark.timeout(60)
def test_threads_join_and_leave_under_load(rig: Janusd) -> None:
    app = rig.serve(ECHO, port=8000, workers=2)
    with load(rig, 8000) as running:
        more = rig.app(*RUN, "--workers", "2", name="more")
        wait_until(lambda: len(balancer(rig)["threads"]) == 4, 10, "four threads share the keys")
        time.sleep(1)
        tid = min(t["tid"] for t in balancer(rig)["threads"])
        client(rig).ask("csb_drain", app="web", tid=tid)
        time.sleep(0.5)
        client(rig).ask("csb_undrain", app="web", tid=tid)
        idle = running.idle
        running.idle = []
        for sock in idle:  # else what more serves could not end in time
            sock.close()
        os.kill(more.pid, signal.SIGTERM)  # to it alone: a second signal to a worker wants no waiting
        assert more.wait(20) == 0
        wait_until(lambda: len(balancer(rig)["threads"]) == 2, 10, "two threads share the keys")
    no_harm(rig)
    logs_are_clean(rig.process, app, more)


@pytest.mark.timeout(60)
def test_exceptions_are_collected_anew_when_half_of_them_have_closed(rig: Janusd) -> None:
    rig.serve(ECHO, port=8000, workers=2)
    held = [rig.network.connect(8000) for _ in range(150)]
    # Nothing is collected while a change waits to be confirmed: so all that close have closed by then.
    client(rig).ask("csb_drain", app="web", tid=0, confirm_s=50)
    before = balancer(rig)["exceptions"]
    assert before > 32
    for sock in held[:140]:
        sock.close()
    wait_until(
        lambda: sum(row["connections"] for row in rig.rows("threads")) == 10, 20, "the others have closed"
    )
    client(rig).ask("csb_confirm", app="web")
    wait_until(lambda: balancer(rig)["exceptions"] <= 10, 15, "the exceptions that have closed are gone")
    last = balancer(rig)["updates"][-1]
    assert (last["outcome"], last["moved_slots"]) == ("published", 0)
    assert last["reason"].startswith("refresh: "), last
    for sock in held[140:]:
        echo(sock, b"still here")
        sock.close()
    no_harm(rig)


@pytest.mark.timeout(120)
def test_spoofed_syns_of_live_connections_move_and_reset_none(rig: Janusd) -> None:
    app = rig.serve(ECHO, port=8000, workers=3)
    held = [rig.network.connect(8000) for _ in range(100)]
    streams, rest = held[:3], held[3:]
    wait_until(lambda: len(owners(rig)) == len(held), 5, "every connection is listed")
    before, draw, right = owners(rig), random.Random(3), [0] * len(streams)
    ports = [str(sock.getsockname()[1]) for sock in held]
    words = [python(), "-m", "tests.system.spoof", "v1", rig.network.server_mac(), SPOOF_S, "8000", *ports]
    with subprocess.Popen(
        ["ip", "netns", "exec", rig.network.cli, *words], cwd=REPO, stdout=subprocess.PIPE, text=True
    ) as flood:

        def stream(number: int) -> None:
            while flood.poll() is None:
                assert echo_both_ways(streams[number], 1 << 20) == digest(1 << 20)
                right[number] += 1

        with ThreadPoolExecutor(len(streams)) as pool:
            running = [pool.submit(stream, number) for number in range(len(streams))]
            while flood.poll() is None:
                weights = {str(tid): float(draw.choice((1, 2, 5))) for tid in range(3)}
                client(rig).ask("csb_set", app="web", weights=weights)
                time.sleep(0.05)
            for one in running:
                one.result(30)
        assert flood.stdout is not None
        sent = int(flood.stdout.read())
    for number, sock in enumerate(rest):
        echo(sock, b"still here %d" % number)
    assert owners(rig) == before
    met = sum(
        row["counters"].get(f"drop.{reason}", 0)
        for row in rig.rows("threads")
        for reason in ("paws", "out_of_window", "challenged")
    )
    published = sum(u["moved_slots"] > 0 and u["outcome"] == "published" for u in balancer(rig)["updates"])
    assert met > 1000, f"{met} of {sent} SYNs have met their connections"
    assert published > 3
    assert min(right) > 0
    no_harm(rig)
    for sock in held:
        sock.close()
    print(f"{sent} SYNs, {met} met connections, {published} updates, streams {right}")
    logs_are_clean(rig.process, app)


@pytest.mark.timeout(60)
def test_two_io_threads(start_rig: StartRig) -> None:
    rig = start_rig(replace(SERVED, io_threads=2))
    app = rig.serve(ECHO, port=8000, workers=2)
    with load(rig, 8000):
        for weight in (3.0, 1.0, 0.0, 1.0) * 3:
            client(rig).ask("csb_set", app="web", weights={"0": weight})
    no_harm(rig)
    logs_are_clean(rig.process, app)


@pytest.mark.timeout(60)
def test_a_thread_that_hangs_ends_the_update_and_a_killed_one_frees_the_others(rig: Janusd) -> None:
    app = rig.serve(ECHO, port=8000, workers=2)
    victim = next(row["pid"] for row in rig.rows("threads") if row["tid"] == 0)
    os.kill(victim, signal.SIGSTOP)
    before = balancer(rig)
    with pytest.raises(CtlError, match="no answer in 2 s to collect from thread 0"):
        client(rig).ask("csb_set", app="web", weights={"1": 3.0})
    after = balancer(rig)
    assert (after["epoch"], after["exceptions"]) == (before["epoch"], before["exceptions"])
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: balancer(rig)["epoch"] >= after["epoch"] + 2, 10, "it has left and is replaced")
    assert sorted(t["tid"] for t in balancer(rig)["threads"]) == [0, 1]
    assert client(rig).ask("csb_set", app="web", weights={"1": 3.0})["shares"]["1"] == 0.75
    logs_are_clean(rig.process)
    assert app.alive()


@pytest.mark.timeout(90)
def test_janusd_is_killed_while_load_moves_and_connections_go_on(rig: Janusd) -> None:
    app = rig.serve(ECHO, port=8000, workers=3)
    with ExitStack() as stack:
        idle = [stack.enter_context(rig.network.connect(8000, timeout=30)) for _ in range(200)]
        for round_ in range(3):
            threading.Thread(target=move_for_ever, args=(rig,), daemon=True).start()
            time.sleep(0.3 + 0.11 * round_)
            rig.kill()
            rig.start()
            wait_until(lambda: not balancer(rig)["rebuilding"], 20, "the exceptions are known again")
            for number, sock in enumerate(idle):
                echo(sock, b"round %d, %d" % (round_, number))
    no_harm(rig)
    logs_are_clean(rig.process, app)


def move_for_ever(rig: Janusd) -> None:
    """Updates until janusd is gone."""
    ctl = client(rig)
    ctl_weights = ({"0": 3.0, "1": 0.0}, {"0": 0.0, "1": 2.0, "2": 5.0}, {"0": 1.0, "1": 1.0, "2": 1.0})
    with suppress(CtlError):
        while rig.process.alive():
            for weights in ctl_weights:
                ctl.ask("csb_set", app="web", weights=weights)
