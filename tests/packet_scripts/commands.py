"""Option lines and shell commands of a script: what has a counterpart is set, what changes nothing is passed over."""

import re
import shlex
from dataclasses import dataclass

from _tcp import lib

from tests.packet_scripts.machine import SETTINGS, Machine
from tests.packet_scripts.script import Unsupported

ADDRESSES = {
    "ipv4": ("192.168.0.1", "192.0.2.1"),
    "ipv6": ("fd3d:a0b:17d6::1", "2001:db8::1"),
    "ipv4-mapped-ipv6": ("192.168.0.1", "192.0.2.1"),
}
# Options of the program that say how to run, not what to show.
PASSED_OVER = {
    "verbose",
    "debug",
    "dry_run",
    "gateway_ip",
    "netmask_ip",
    "non_fatal",
    "so_filename",
    "init_scripts",
}
# What a sysctl asks for, and the value with which it asks for what the core does anyway; "" for any.
SYSCTLS = {
    "tcp_fastopen": "0",
    "tcp_no_metrics_save": "",
    "tcp_metrics_save": "",
    "tcp_tso_win_divisor": "",
    "tcp_min_tso_segs": "",
    "tcp_autocorking": "0",
    "tcp_slow_start_after_idle": "1",
    "tcp_fack": "0",
    "tcp_dsack": "0",
    "tcp_frto": "0",
    "tcp_early_retrans": "0",
    "tcp_recovery": "0",
    "tcp_syncookies": "1",
    "tcp_synack_retries": "3",
    "tcp_mtu_probing": "0",
    "tcp_moderate_rcvbuf": "0",
}


ECN = {"0": int(lib.TCP_ECN_OFF), "1": int(lib.TCP_ECN_ON), "2": int(lib.TCP_ECN_PASSIVE)}
# Switching one of these off is no matter until a SYN has the option.
SWITCHES = {"tcp_timestamps": "TS", "tcp_sack": "sackOK", "tcp_window_scaling": "wscale"}


@dataclass
class Settings:
    """How a script is run."""

    local_ip: str = ADDRESSES["ipv4"][0]
    remote_ip: str = ADDRESSES["ipv4"][1]
    bind_port: int = 8080
    connect_port: int = 8080
    tolerance_us: int = 4000
    ts_tick_us: int = 0
    strict_segments: bool = False


def apply_options(options: dict[str, str], s: Settings, machine: Machine) -> None:
    """`--name=value` lines."""
    s.local_ip, s.remote_ip = ADDRESSES[options.get("ip_version", "ipv4")]
    for name, value in options.items():
        if name == "so_flags":
            set_all(value, machine)
        elif name == "mtu":
            machine.set("mtu", int(value))
        elif name in ("local_ip", "remote_ip"):
            setattr(s, name, value)
        elif name in ("bind_port", "connect_port"):
            setattr(s, name, int(value))
        elif name == "tolerance_usecs":
            s.tolerance_us = int(value)
        elif name == "tcp_ts_tick_usecs":
            s.ts_tick_us = int(value)
        elif name == "strict_segments":
            s.strict_segments = True
        elif name != "ip_version" and name not in PASSED_OVER:
            raise Unsupported(f"option --{name}")


def set_all(flags: str, machine: Machine) -> None:
    for item in filter(None, flags.split(",")):
        name, _, value = item.partition("=")
        if name not in SETTINGS:
            raise Unsupported(f"setting {name}")
        machine.set(name, int(value))


def apply_sysctl(name: str, value: str, machine: Machine) -> None:
    name = name.removeprefix("net.ipv4.")
    if name == "tcp_congestion_control" and value in ("reno", "cubic"):
        machine.set("congestion_control", int(lib.TCP_CC_NEWRENO if value == "reno" else lib.TCP_CC_CUBIC))
    elif name in ("tcp_rmem", "tcp_wmem"):
        buffer = "rcv_buf" if name == "tcp_rmem" else "snd_buf"
        machine.set(f"{buffer}_bytes", int(value.split()[1]))
        machine.set(f"{buffer}_max_bytes", int(value.split()[2]))
    elif name == "tcp_ecn" and value in ECN:
        machine.set("ecn", ECN[value])
    elif name == "tcp_max_syn_backlog":
        machine.set("half_open_max", int(value))
    elif name in SWITCHES and value in ("0", "1"):
        machine.switched_off.discard(SWITCHES[name])
        machine.switched_off |= {SWITCHES[name]} if value == "0" else set()
    elif name == "tcp_fin_timeout":
        machine.set("fin_wait_2_ms", int(value) * 1000)
    elif name not in SYSCTLS or SYSCTLS[name] not in ("", value):
        raise Unsupported(f"sysctl {name}={value}")


def apply_command(text: str, machine: Machine) -> None:
    """A shell command: sysctls are settings, defaults.sh sets what is the default here; anything else is a skip."""
    for line in filter(None, (part.strip() for part in re.split(r"[\n;]|&&", text))):
        words = shlex.split(line, comments=True)
        if not words or (words[0].endswith(("defaults.sh", "set_sysctls.py")) and len(words) == 1):
            continue
        if words[0] == "sysctl" or words[0].endswith("set_sysctls.py"):
            for word in (w for w in words[1:] if not w.startswith("-")):
                path, equals, value = word.partition("=")
                if not equals:
                    raise Unsupported(f"shell command: {line}")
                apply_sysctl(path.removeprefix("/proc/sys/").replace("/", "."), value, machine)
        else:
            raise Unsupported(f"shell command: {line}")
