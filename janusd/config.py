"""The configuration: what configs/janusd.toml says, validated, as frozen values.

`load` either gives a Config in which everything fits together or raises ConfigError with all errors at once.
Nothing is started, opened or resolved here but user and group names.
"""

from __future__ import annotations

import grp
import ipaddress
import os
import pwd
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from janusd.config_reader import Errors, Table, parse_toml

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface

PORTS_MAX = 16  # GLUE_PORTS_MAX
APPS_MAX = 63  # GLUE_APPS_MAX - 1
ADDRESSES_MAX = 64  # GLUE_ADDRESSES_MAX
IO_THREADS_MAX = 8  # SHM_IO_MAX
TIDS_MAX = 256  # SHM_TID_MAX
LEASE_ADDRESSES_MAX = 16  # ATTACH_ADDRESSES_MAX
SLOTS_MIN, SLOTS_MAX = 64, 1 << 20
CPU_MAX = 1023
APP_NAME = r"[a-z][a-z0-9-]{0,30}"


class ConfigError(Exception):
    """The configuration cannot be used; one text per error."""

    def __init__(self, texts: list[str]) -> None:
        super().__init__("\n".join(texts))
        self.texts = texts


@dataclass(frozen=True)
class PortRange:
    """TCP ports first to last, both included."""

    first: int
    last: int

    def overlaps(self, other: PortRange) -> bool:
        """True when a port is in both."""
        return self.first <= other.last and other.first <= self.last

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


@dataclass(frozen=True)
class DaemonConfig:
    """[daemon]."""

    runtime_dir: Path
    group: str
    admin_group: str
    read_group: str
    stats_name: str
    recovery_s: float
    reset_unknown: bool
    log_level: str
    log_format: str


@dataclass(frozen=True)
class EalConfig:
    """[eal]; huge_pages None: use them where there are some."""

    huge_pages: bool | None
    memory_mib: int
    options: tuple[str, ...]


Mode = Literal["adaptive", "poll", "yield"]


@dataclass(frozen=True)
class IoConfig:
    """[io]; cpus empty: not pinned."""

    threads: int
    cpus: tuple[int, ...]
    mode: Mode


@dataclass(frozen=True)
class PortConfig:
    """[[port]]."""

    name: str
    device: str
    addresses: tuple[IpInterface, ...]
    gateways: tuple[IpAddress, ...]
    mtu: int
    promiscuous: bool
    vlan: int
    reassemble: bool
    tso: bool
    lro: bool


@dataclass(frozen=True)
class AppConfig:
    """[[app]]: who may run it, what it may use, and how much of it. Quotas are per TCP thread."""

    name: str
    uids: frozenset[int]
    gids: frozenset[int]
    addresses: tuple[IpAddress, ...]
    ports: tuple[PortRange, ...]
    source_ports: PortRange | None
    threads_max: int
    connections_max: int
    rx_slots: int
    tx_slots: int
    automatic: bool


@dataclass(frozen=True)
class Config:
    """The whole file."""

    path: str
    daemon: DaemonConfig
    eal: EalConfig
    io: IoConfig
    ports: tuple[PortConfig, ...]
    metrics_listen: tuple[str, int] | None
    apps: tuple[AppConfig, ...]

    def port_of(self, address: IpAddress) -> PortConfig | None:
        """The port that has this address."""
        return next((p for p in self.ports if any(i.ip == address for i in p.addresses)), None)


def load(path: str) -> Config:
    """Read and validate a file; ConfigError says all that is wrong."""
    return parse(read(path), path)


def read(path: str) -> str:
    """The text of a configuration file that not everyone may write."""
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read()
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from error
    if stat.S_ISREG(mode) and mode & stat.S_IWOTH:
        raise ConfigError(
            [f"{path}: is writable by everyone (mode {stat.S_IMODE(mode):04o}): chmod o-w {path}"]
        )
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(
            [f"{path}: is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}"]
        ) from error


def parse(text: str, path: str) -> Config:
    """Validate the text of a file called path; ConfigError says all that is wrong."""
    document, errors = parse_toml(text, path)
    if errors.texts:
        raise ConfigError(errors.texts)
    root = Table("", document, errors)
    daemon = _daemon(root.get_table("daemon"))
    eal = _eal(root.get_table("eal"))
    io = _io(root.get_table("io"))
    ports = tuple(_port(table) for table in root.get_tables("port", most=PORTS_MAX))
    metrics_listen = _metrics(root.get_table("metrics"))
    own = tuple(interface.ip for port in ports for interface in port.addresses)
    apps = tuple(_app(table, own) for table in root.get_tables("app", most=APPS_MAX))
    root.finish()
    if not ports and "port" not in document:
        errors.add_missing("port", "at least one [[port]] with name, device and addresses")
    _check_ports(ports, errors)
    _check_apps(apps, errors)
    if errors.texts:
        raise ConfigError(errors.texts)
    return Config(path, daemon, eal, io, ports, metrics_listen, apps)


def _daemon(table: Table) -> DaemonConfig:
    group = r"[a-z_][a-z0-9_-]{0,31}"
    config = DaemonConfig(
        runtime_dir=Path(
            table.get_text(
                "runtime_dir", "/run/janus", r"/[^\0]{1,70}", "an absolute path of at most 71 characters"
            )
        ),
        group=table.get_text("group", "janus-apps", group, "a group name"),
        admin_group=table.get_text("admin_group", "janus-admin", group, "a group name"),
        read_group=table.get_text("read_group", "", rf"({group})?", 'a group name, or "" for none'),
        stats_name=table.get_text(
            "stats_name", "/janus.stats", r"/[A-Za-z0-9._-]{1,63}", "/ and a name without further /"
        ),
        recovery_s=table.get_float("recovery_s", 3.0, 0.0, 60.0),
        reset_unknown=table.get_choice("unknown_port", "reset", ("reset", "silent")) == "reset",
        log_level=table.get_choice("log_level", "info", ("debug", "info", "warning", "error")),
        log_format=table.get_choice("log_format", "text", ("text", "json")),
    )
    table.finish()
    return config


def _word(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[\x21-\x7e]{1,200}", value):
        raise ValueError
    return value


def _eal(table: Table) -> EalConfig:
    huge = table.take("huge_pages")
    if huge not in (None, "auto") and not isinstance(huge, bool):
        table.bad("huge_pages", 'must be "auto", true or false')
        huge = None
    config = EalConfig(
        huge_pages=huge if isinstance(huge, bool) else None,
        memory_mib=table.get_int("memory_mib", 64, 16, 1 << 20),
        options=table.get_list(
            "options", _word, "one EAL word without spaces, of at most 200 characters", most=32
        )
        or (),
    )
    table.finish()
    return config


def _cpu(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= CPU_MAX:
        raise ValueError
    return value


def _io(table: Table) -> IoConfig:
    threads = table.get_int("threads", 1, 1, IO_THREADS_MAX)
    cpus = table.get_list("cpus", _cpu, f"a CPU number from 0 to {CPU_MAX}", most=IO_THREADS_MAX) or ()
    mode = table.get_choice("mode", "adaptive", ("adaptive", "poll", "yield"))
    if cpus and len(cpus) != threads:
        table.bad("cpus", f"must name one CPU for each of the {threads} I/O threads, or none at all")
    elif len(set(cpus)) != len(cpus):
        table.bad("cpus", "must not name a CPU twice")
    table.finish()
    return IoConfig(threads, cpus, cast(Mode, mode))


def _address(value: Any) -> IpAddress:
    if not isinstance(value, str):
        raise ValueError("not a string")
    address = ipaddress.ip_address(value)
    if isinstance(address, ipaddress.IPv6Address) and (address.scope_id or address.ipv4_mapped):
        raise ValueError("neither a scope nor an IPv4-mapped address")
    if (
        address.is_multicast
        or address.is_unspecified
        or address.is_loopback
        or str(address) == "255.255.255.255"
    ):
        raise ValueError("not a host's unicast address")
    return address


def _interface(value: Any) -> IpInterface:
    if not isinstance(value, str) or "/" not in value:
        raise ValueError("no prefix length")
    _address(value.partition("/")[0])
    interface = ipaddress.ip_interface(value)
    network = interface.network
    if network.prefixlen == 0:
        raise ValueError("prefix length 0")
    edges = (network.network_address, network.broadcast_address)
    if network.version == 4 and network.prefixlen < 31 and interface.ip in edges:
        raise ValueError("the network's own or its broadcast address")
    return interface


_PORT_NAME = "a-z, 0-9, - and _, at most 16, a letter first"
_DEVICE = 'a vdev such as "net_af_packet0,iface=veth0", or a PCI address such as "0000:3b:00.0"'


def _port(table: Table) -> PortConfig:
    addresses = table.get_list(
        "addresses", _interface, 'an address with its prefix length, as "10.0.0.1/24"', most=16
    )
    gateways = table.get_list("gateways", _address, "an IPv4 or IPv6 unicast address", most=2) or ()
    config = PortConfig(
        name=table.get_text("name", None, r"[a-z][a-z0-9_-]{0,15}", _PORT_NAME),
        device=table.get_text("device", None, r"[\x21-\x7e]{1,200}", _DEVICE),
        addresses=addresses or (),
        gateways=gateways,
        mtu=table.get_int("mtu", 1500, 576, 1500),
        promiscuous=table.get_bool("promiscuous", False),
        vlan=table.get_int("vlan", 0, 0, 4094),
        reassemble=table.get_choice("fragments", "drop", ("drop", "reassemble")) == "reassemble",
        tso=table.get_bool("tso", True),
        lro=table.get_bool("lro", False),
    )
    if addresses is None:
        table.errors.add_missing(
            table.key("addresses"), 'must be a list such as ["10.0.0.1/24", "fd00::1/64"]'
        )
    elif not addresses and table.take("addresses") == []:
        table.bad("addresses", "must have at least one address")
    for gateway in gateways:
        if not any(gateway in interface.network for interface in config.addresses):
            table.bad("gateways", f"{gateway} must be inside a prefix of {table.key('addresses')}")
        if any(gateway == interface.ip for interface in config.addresses):
            table.bad("gateways", f"{gateway} must not be the port's own address")
    if len({gateway.version for gateway in gateways}) != len(gateways):
        table.bad("gateways", "must be at most one for IPv4 and one for IPv6")
    table.finish()
    return config


def _metrics(table: Table) -> tuple[str, int] | None:
    text = table.take("listen")
    table.finish()
    if text is None:
        return ("127.0.0.1", 9464)
    if text == "":
        return None
    match = (
        re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})", text)
        if isinstance(text, str)
        else None
    )
    try:
        if match is None or not 1 <= int(match[3]) <= 65535:
            raise ValueError
        return (str(ipaddress.ip_address(match[1] or match[2])), int(match[3]))
    except ValueError:
        table.bad(
            "listen", 'must be an address and port such as "127.0.0.1:9464" or "[::1]:9464", or "" for none'
        )
        return None


def _port_range(value: Any) -> PortRange:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError
    first, last = int(match[1]), int(match[2] or match[1])
    if not 1 <= first <= last <= 65535:
        raise ValueError
    return PortRange(first, last)


def _ids(lookup: Callable[[str], int]) -> Callable[[Any], int]:
    def parse_id(value: Any) -> int:
        if isinstance(value, str):
            try:
                return lookup(value)
            except KeyError:
                raise ValueError("there is none of this name here") from None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**32 - 1:
            raise ValueError
        return value

    return parse_id


_PORTS = 'a TCP port or range from 1 to 65535, such as "80" or "8000-8099"'


def _app(table: Table, own: tuple[IpAddress, ...]) -> AppConfig:
    users = table.get_list(
        "users", _ids(lambda name: pwd.getpwnam(name).pw_uid), "a user name or uid", most=256
    )
    groups = table.get_list(
        "groups", _ids(lambda name: grp.getgrnam(name).gr_gid), "a group name or gid", most=256
    )
    addresses = table.get_list("addresses", _address, "an address of a [[port]]", most=LEASE_ADDRESSES_MAX)
    ports = table.get_list("ports", _port_range, _PORTS, most=31) or ()
    source_text = table.take("source_ports")
    source_ports = None
    if source_text is not None and source_text != "":
        try:
            source_ports = _port_range(source_text)
        except ValueError:
            table.bad("source_ports", f'must be {_PORTS}, or "" for none')
    for address in addresses or ():
        if address not in own:
            shown = ", ".join(map(str, own)) or "none"
            table.bad("addresses", f"{address} is no address of a [[port]]; those are: {shown}")
    if addresses is not None and len(set(addresses)) != len(addresses):
        table.bad("addresses", "must not name an address twice")
    if addresses is None and len(own) > LEASE_ADDRESSES_MAX:
        table.errors.add_missing(
            table.key("addresses"),
            f"the ports have more than {LEASE_ADDRESSES_MAX}: name those that it may use",
        )
    if not users and not groups:
        table.errors.add_missing(table.key("users"), "users or groups must name who may run this app")
    if not ports and source_ports is None:
        table.errors.add_missing(
            table.key("ports"), f"ports (each {_PORTS}) or source_ports must allow something"
        )
    config = AppConfig(
        name=table.get_text("name", None, APP_NAME, "a-z, 0-9 and -, at most 31, a letter first"),
        uids=frozenset(users or ()),
        gids=frozenset(groups or ()),
        addresses=own if addresses is None else addresses,
        ports=ports,
        source_ports=source_ports,
        threads_max=table.get_int("threads_max", 8, 1, TIDS_MAX),
        connections_max=table.get_int("connections_max", 65536, 1, 1 << 30),
        rx_slots=table.get_power_of_two("rx_slots", 4096, SLOTS_MIN, SLOTS_MAX),
        tx_slots=table.get_power_of_two("tx_slots", 4096, SLOTS_MIN, SLOTS_MAX),
        automatic=table.get_bool("automatic", False),
    )
    table.finish()
    return config


def _check_ports(ports: tuple[PortConfig, ...], errors: Errors) -> None:
    """What must be unique over all ports is."""
    seen: dict[object, str] = {}
    for index, port in enumerate(ports):
        here = f"port[{index}]"
        for key, value in [
            ("name", port.name),
            ("device", port.device),
            *(("addresses", i.ip) for i in port.addresses),
        ]:
            if value and (first := seen.setdefault((key, value), here)) != here:
                errors.add(f"{here}.{key}", str(value), f"is already that of {first}: must be unique")
        if len({interface.ip for interface in port.addresses}) != len(port.addresses):
            errors.add(
                f"{here}.addresses", [str(i) for i in port.addresses], "must not name an address twice"
            )


def _check_apps(apps: tuple[AppConfig, ...], errors: Errors) -> None:
    """No two apps can ever use the same (address, port), and no service port is a source port."""
    names: dict[str, int] = {}
    for index, app in enumerate(apps):
        if app.name and names.setdefault(app.name, index) != index:
            errors.add(
                f"app[{index}].name", app.name, f"is already that of app[{names[app.name]}]: must be unique"
            )
        for other in range(index + 1):
            _check_overlap(apps, other, index, errors)


def _check_overlap(apps: tuple[AppConfig, ...], i: int, j: int, errors: Errors) -> None:
    """The leases of apps i <= j are disjoint."""
    first, second = apps[i], apps[j]
    shared = sorted(str(address) for address in set(first.addresses) & set(second.addresses))
    if not shared:
        return
    where = f"on {', '.join(shared)}: an (address, port) belongs to one app"
    kinds_first = [("ports", r) for r in first.ports] + [
        ("source_ports", r) for r in (first.source_ports,) if r
    ]
    kinds_second = [("ports", r) for r in second.ports] + [
        ("source_ports", r) for r in (second.source_ports,) if r
    ]
    for x, (key, range_) in enumerate(kinds_second):
        for y, (other_key, other_range) in enumerate(kinds_first):
            if (i != j or y < x) and range_.overlaps(other_range):
                errors.add(
                    f"app[{j}].{key}", str(range_), f"overlaps {other_key} {other_range} of app[{i}] {where}"
                )
