"""make demo: the main job on this machine, shown to whoever runs it.

Two namespaces with a veth pair, janusd on one end, the example HTTP server as user nobody with two workers,
curl and wrk on the other end; a table of what was seen.  All of it is undone at the end, also after Ctrl-C
or a failure.  With DEMO=hold in the environment it stays up until Ctrl-C."""

import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from types import FrameType

from bench.rig import AppPolicy, Janusd, JanusdConfig, Network, Workdir, missing_privileges
from bench.rig.janusd import HUGE_PAGES_FILE, METRICS_PORT
from bench.rig.network import SERVER_ADDRESS
from bench.rig.processes import python

WORKERS = 2
CONNECTIONS = 64
SECONDS = 5
URL = f"http://{SERVER_ADDRESS}/"


def say(text: str) -> None:
    """A line of progress."""
    print(f"== {text}", flush=True)


def client(network: Network, *words: str) -> str:
    """Run a client program; its output."""
    done = subprocess.run(
        ["ip", "netns", "exec", network.cli, *words], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{words[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def accepted_by_thread(janusd: Janusd) -> dict[int, int]:
    """Connections that each TCP thread has accepted so far."""
    return {row["tid"]: row["counters"]["connections_accepted"] for row in janusd.rows("threads")}


def drops(janusd: Janusd) -> dict[str, int]:
    """Dropped frames by reason."""
    seen: dict[str, int] = {}
    for row in janusd.rows("ports"):
        for reason, count in row["drops"].items():
            if count:
                seen[reason] = seen.get(reason, 0) + count
    return seen


def load(janusd: Janusd) -> list[tuple[str, str]]:
    """Fetch, load, and the rows of the table."""
    network = janusd.network
    say(f"curl {URL}")
    print(client(network, "curl", "-sSi", "--max-time", "10", URL))
    say(f"wrk: {CONNECTIONS} connections for {SECONDS} s")
    before, dropped = accepted_by_thread(janusd), drops(janusd)
    kept = client(network, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--latency", URL)
    say("ab: a connection for each request")
    short = client(network, "ab", "-q", "-n", "5000", "-c", "32", URL)
    shares = {tid: count - before.get(tid, 0) for tid, count in accepted_by_thread(janusd).items()}
    total = sum(shares.values())
    new_drops = {reason: count - dropped.get(reason, 0) for reason, count in drops(janusd).items()}
    return [
        ("requests/s, connections kept (wrk)", find(r"Requests/sec:\s+([\d.]+)", kept)),
        ("latency p50, p99", ", ".join(find(rf"{part}%\s+(\S+)", kept) for part in (50, 99))),
        ("failed requests (wrk)", re.sub(r"\s+", " ", find(r"(Socket errors.*|Non-2xx.*)", kept, "0"))),
        ("connections/s, one request each (ab)", find(r"Requests per second:\s+([\d.]+)", short)),
        ("failed requests (ab)", find(r"Failed requests:\s+(\d+)", short)),
        ("connections accepted", str(total)),
        *(
            (f"  by TCP thread {tid}", f"{count} ({100 * count / max(total, 1):.0f} %)")
            for tid, count in sorted(shares.items())
        ),
        ("dropped frames", ", ".join(f"{k} {v}" for k, v in sorted(new_drops.items()) if v) or "none"),
    ]


def find(pattern: str, text: str, otherwise: str = "?") -> str:
    """The first group of the first match."""
    match = re.search(pattern, text)
    return match[1] if match else otherwise


def hold(janusd: Janusd) -> None:
    """Say how to look around, and wait for Ctrl-C."""
    inside, socket_path = janusd.network.cli, janusd.runtime_dir / "ctl.sock"
    ctl = f"{python()} -m janusd.ctl --socket {socket_path}"
    print(
        f"""
It stays up until Ctrl-C.
  the page      ip netns exec {inside} curl {URL}
  janusctl      {ctl} status
                {ctl} threads
                {ctl} --watch stats
                {ctl} --json conns
  metrics       http://127.0.0.1:{METRICS_PORT}/metrics, inside janusd's namespace:
                ip netns exec {janusd.network.srv} curl -s http://127.0.0.1:{METRICS_PORT}/metrics
"""
    )
    try:
        signal.pause()
    except KeyboardInterrupt:
        print()


def run() -> None:
    """The demo, from nothing to nothing."""
    with ExitStack() as stack:
        huge_pages = HUGE_PAGES_FILE.read_text()
        stack.callback(restore_huge_pages, huge_pages)
        workdir = stack.enter_context(Workdir("demo"))
        say("two namespaces, a veth pair, janusd on one end")
        network = stack.enter_context(Network("demo", workdir.path))
        policy = AppPolicy(name="web", ports=("80",))
        janusd = stack.enter_context(Janusd(network, workdir.path, JanusdConfig(apps=(policy,))))
        say(f"examples/http_server.py as user nobody, {WORKERS} workers")
        janusd.serve("examples.http_server:handle", port=80, workers=WORKERS)
        rows = load(janusd)
        print()
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            print(f"  {name:{width}}  {value}")
        if os.environ.get("DEMO") == "hold":
            hold(janusd)
        say("taking it all down")


def restore_huge_pages(before: str) -> None:
    """Give back the huge pages that the demo has reserved."""
    if HUGE_PAGES_FILE.read_text() != before:
        HUGE_PAGES_FILE.write_text(before)


def main() -> int:
    """The command line; there are no words."""
    signal.signal(signal.SIGTERM, interrupt)
    if missing := missing_privileges():
        print(f"demo: {missing}", file=sys.stderr)
        return 1
    try:
        run()
    except KeyboardInterrupt:
        print("\ndemo: interrupted, all is taken down", file=sys.stderr)
        return 130
    except (RuntimeError, TimeoutError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    return 0


def interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM is a Ctrl-C."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
