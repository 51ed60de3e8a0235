"""What must be true of the machine before janusd starts, each with a text that says what to mend."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from janusd.config import Config, IpAddress, PortConfig

EX_UNAVAILABLE, EX_SOFTWARE, EX_TEMPFAIL, EX_NOPERM, EX_CONFIG = 69, 70, 75, 77, 78

CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_ADMIN": 21}
NEEDED = {
    "net_af_packet": ("CAP_NET_ADMIN", "CAP_NET_RAW"),
    "net_tap": ("CAP_NET_ADMIN",),
    "net_af_xdp": ("CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN"),
    "net_pcap": ("CAP_NET_RAW",),
}
HUGE_PAGE_MIB = 2


class StartError(Exception):
    """janusd cannot start; the text says why, exit_code of what kind it is (sysexits.h)."""

    def __init__(self, text: str, exit_code: int = EX_UNAVAILABLE) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def check_ports(config: Config) -> None:
    """Devices exist, may be used, and their addresses are not the kernel's."""
    effective = effective_capabilities()
    for port in config.ports:
        check_capabilities(port, effective)
        _check_interface(port)
        for interface in port.addresses:
            if kernel_owns(interface.ip):
                owner = f'port "{port.name}": address {interface.ip} is the kernel\'s own here too'
                raise StartError(
                    f"{owner}: take it from its interface (ip address del), or configure another"
                )


def check_autogroup(mode: str, setting: Path = Path("/proc/sys/kernel/sched_autogroup_enabled")) -> str:
    """What is to be warned of when I/O threads are to give their processor away and cannot; empty: nothing."""
    try:
        divided = mode == "yield" and setting.read_text().strip() != "0"
    except OSError:  # a kernel without
        return ""
    return (
        '[io] mode = "yield": sched_yield() gives nothing to applications of another scheduling group: '
        "set the sysctl kernel.sched_autogroup_enabled to 0 (systemd/janus.sysctl.conf)"
        if divided
        else ""
    )


def effective_capabilities() -> int:
    """The process's effective capabilities, a bit each."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(match[1], 16) if match else 0


def check_capabilities(port: PortConfig, effective: int) -> None:
    """StartError: the port's device needs a capability that the process has not."""
    driver = next((name for name in NEEDED if port.device.startswith(name)), None)
    missing = [name for name in NEEDED.get(driver or "", ()) if not effective >> CAPABILITIES[name] & 1]
    if missing:
        raise StartError(
            f'port "{port.name}": device "{port.device}" needs {" and ".join(missing)}: '
            f"run janusd as root, or with these as AmbientCapabilities",
            EX_NOPERM,
        )


def _check_interface(port: PortConfig) -> None:
    match = re.match(r"(net_af_packet|net_af_xdp|net_pcap)[^,]*,(?:.*,)?iface=([^,]+)", port.device)
    if match is None:
        return
    try:
        socket.if_nametoindex(match[2])
    except OSError:
        names = ", ".join(name for _, name in socket.if_nameindex())
        where = f'port "{port.name}": device = "{port.device}"'
        raise StartError(f'{where}: there is no interface "{match[2]}" here; there are: {names}') from None


def kernel_owns(address: IpAddress) -> bool:
    """True when the kernel would take packets to this address itself."""
    family, name = (socket.AF_INET, "ipv4") if address.version == 4 else (socket.AF_INET6, "ipv6")
    nonlocal_bind = Path(f"/proc/sys/net/{name}/ip_nonlocal_bind")
    try:
        if nonlocal_bind.read_text().strip() != "0":
            return False
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((str(address), 0))
    except OSError:
        return False
    return True


def choose_huge_pages(wanted: bool | None, memory_mib: int, free: int) -> tuple[bool, str]:
    """Whether to use huge pages, and a warning. StartError: they are wanted and too few are free."""
    needed = -(-memory_mib // HUGE_PAGE_MIB)
    if wanted is False or free >= needed:
        return wanted is not False, ""
    text = f"{free} huge pages of {HUGE_PAGE_MIB} MiB are free, {needed} are needed"
    mend = f"echo {needed * 4} > /proc/sys/vm/nr_hugepages"
    if wanted:
        raise StartError(f'[eal] huge_pages = true, but {text}: {mend}, or set huge_pages to "auto" or false')
    return False, f"small pages are used, which is slower: {text}; mend: {mend}"
