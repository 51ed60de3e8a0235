"""`%{ }%`: Python with the fields of Linux's struct tcp_info that the core has, under their names."""

import builtins
from collections import Counter
from typing import Any

from _tcp import lib

from tests.packet_scripts.script import Unsupported
from tests.packet_scripts.sockets import Sockets

# The numbers of Linux's states, which scripts use by name.
STATES = {
    "TCP_ESTABLISHED": (1, "ESTABLISHED"),
    "TCP_SYN_SENT": (2, "SYN_SENT"),
    "TCP_SYN_RECV": (3, "SYN_RECEIVED"),
    "TCP_FIN_WAIT1": (4, "FIN_WAIT_1"),
    "TCP_FIN_WAIT2": (5, "FIN_WAIT_2"),
    "TCP_TIME_WAIT": (6, "TIME_WAIT"),
    "TCP_CLOSE": (7, "CLOSED"),
    "TCP_CLOSE_WAIT": (8, "CLOSE_WAIT"),
    "TCP_LAST_ACK": (9, "LAST_ACK"),
    "TCP_LISTEN": (10, "LISTEN"),
    "TCP_CLOSING": (11, "CLOSING"),
}
OPTIONS = {"TCPI_OPT_TIMESTAMPS": 1, "TCPI_OPT_SACK": 2, "TCPI_OPT_WSCALE": 4, "TCPI_OPT_ECN": 8}
OPTIONS |= {"TCPI_OPT_ECN_SEEN": 16, "TCPI_OPT_SYN_DATA": 32}
SSTHRESH_NONE = 2**31 - 1


class Names(dict[str, Any]):
    """Variables of an assertion; one that the core cannot tell is a skip, not a failure."""

    def __missing__(self, name: str) -> Any:
        if name.startswith(("tcpi_", "tcpv_", "TCP_", "TCPI_", "sk_")):
            raise Unsupported(f"value {name}")
        if hasattr(builtins, name):
            return getattr(builtins, name)
        raise NameError(name)


def values_of(sockets: Sockets) -> dict[str, Any]:
    if sockets.latest is None or sockets.latest.conn is None:
        raise Unsupported("an assertion without a connection")
    info = sockets.info(sockets.latest)
    states = {getattr(lib, f"TCP_STATE_{ours}"): linux for linux, ours in STATES.values()}
    segment = max(info.smss, 1)
    return {
        "tcpi_state": states[info.state],
        "tcpi_options": info.timestamps
        | info.sack << 1
        | bool(info.wscale_snd or info.wscale_rcv) << 2
        | info.ecn << 3,
        "tcpi_snd_wscale": info.wscale_snd,
        "tcpi_rcv_wscale": info.wscale_rcv,
        "tcpi_rto": info.rto_us,
        "tcpi_rtt": info.srtt_us,
        "tcpi_rttvar": info.rttvar_us,
        "tcpi_snd_mss": info.smss,
        "tcpi_snd_cwnd": info.cwnd_bytes // segment,
        "tcpi_snd_ssthresh": SSTHRESH_NONE
        if info.ssthresh_bytes == 2**32 - 1
        else info.ssthresh_bytes // segment,
        "tcpi_unacked": -(-info.flight_bytes // segment),
        "tcpi_notsent_bytes": info.unsent_bytes,
        "tcpi_snd_wnd": info.snd_wnd,
        "tcpi_rcv_wnd": info.rcv_wnd,
    }


def run(text: str, sockets: Sockets) -> None:
    """AssertionError with the values that the text names, Unsupported for those that do not exist."""
    known = Names({name: number for name, (number, _) in STATES.items()})
    known |= OPTIONS
    counters = lib.tcp_counters(sockets.machine.tcp)
    known["drops"] = Counter(sockets.machine.drops)
    known["counters"] = counters
    code = compile(text, "<assertion>", "exec")
    wanted = [n for n in code.co_names if n.startswith("tcpi_")]
    values = values_of(sockets) if wanted else {}
    known |= values
    try:
        exec(code, {"__builtins__": {}}, known)
    except AssertionError as e:
        shown = ", ".join(f"{n}={values.get(n)}" for n in wanted)
        raise AssertionError(f"{text}  ({shown}) {e}") from None
