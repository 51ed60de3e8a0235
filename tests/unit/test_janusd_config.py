"""janusd.config: one good file gives values; a bad one names file, line, key, value and what is allowed."""
# ruff: noqa: E501 - a bad configuration a line

import ipaddress
from pathlib import Path

import pytest

from janusd import config

PORT = '[[port]]\nname = "p0"\ndevice = "net_null0"\naddresses = ["10.77.0.1/24", "fd77::1/64"]\n'
APP = '[[app]]\nname = "web"\nusers = ["nobody"]\nports = ["80"]\n'
GOOD = PORT + APP


def errors_of(text: str) -> list[str]:
    with pytest.raises(config.ConfigError) as caught:
        config.parse(text, "j.toml")
    return caught.value.texts


def port_with(line: str) -> str:
    key = line.split("=")[0].strip()
    return "".join(f"{old}\n" for old in PORT.splitlines() if not old.startswith(key)) + line + "\n" + APP


def app_with(line: str) -> str:
    key = line.split("=")[0].strip()
    return PORT + "".join(f"{old}\n" for old in APP.splitlines() if not old.startswith(key)) + line + "\n"


def second_app(lines: str) -> str:
    return GOOD + f'[[app]]\nname = "api"\nusers = [1000]\n{lines}\n'


BAD = [
    pytest.param("[daemon\n" + GOOD, "j.toml: not valid TOML", id="syntax"),
    pytest.param("", "j.toml: port is missing: at least one [[port]]", id="empty file"),
    pytest.param("colour = 1\n" + GOOD, "j.toml:1: colour = 1: unknown key; known in the file: daemon", id="unknown key"),
    pytest.param("[demon]\n" + GOOD, "j.toml:1: demon", id="unknown table"),
    pytest.param("daemon = 1\n" + GOOD, "j.toml:1: daemon = 1: must be a table, written [daemon]", id="table as number"),
    pytest.param("[[daemon]]\n" + GOOD, "must be a table, written [daemon]", id="table as array"),
    pytest.param("[port]\nname = 'p'\n" + APP, "must be at most 16 tables, each written [[port]]", id="array as table"),
    pytest.param("[io]\nthread = 2\n" + GOOD, "j.toml:2: io.thread = 2: unknown key; known in [io]: threads", id="unknown key in table"),
    pytest.param("[io]\nthreads = 0\n" + GOOD, "j.toml:2: io.threads = 0: must be a whole number from 1 to 8", id="no I/O thread"),
    pytest.param("[io]\nthreads = 9\n" + GOOD, "io.threads = 9: must be a whole number from 1 to 8", id="9 I/O threads"),
    pytest.param("[io]\nthreads = true\n" + GOOD, "io.threads = true: must be a whole number", id="bool as number"),
    pytest.param("[io]\nthreads = 1.0\n" + GOOD, "io.threads = 1.0: must be a whole number", id="float as number"),
    pytest.param("[io]\ncpus = [0, 1]\n" + GOOD, "io.cpus = [0, 1]: must name one CPU for each of the 1", id="too many CPUs"),
    pytest.param("[io]\nthreads = 2\ncpus = [1, 1]\n" + GOOD, "must not name a CPU twice", id="a CPU twice"),
    pytest.param("[io]\ncpus = [-1]\n" + GOOD, "io.cpus[0] = -1: must be a CPU number from 0 to 1023", id="CPU -1"),
    pytest.param("[io]\ncpus = '0'\n" + GOOD, "io.cpus = '0': must be a list", id="CPUs as string"),
    pytest.param("[io]\nmode = 'fast'\n" + GOOD, "io.mode = 'fast': must be one of \"adaptive\", \"poll\", \"yield\"", id="mode"),
    pytest.param("[eal]\nhuge_pages = 'yes'\n" + GOOD, 'eal.huge_pages = \'yes\': must be "auto", true or false', id="huge pages"),
    pytest.param("[eal]\nmemory_mib = 1\n" + GOOD, "eal.memory_mib = 1: must be a whole number from 16", id="memory"),
    pytest.param("[eal]\noptions = ['-l 0']\n" + GOOD, "eal.options[0] = '-l 0': must be one EAL word", id="EAL word with a space"),
    pytest.param("[daemon]\nruntime_dir = 'run'\n" + GOOD, "daemon.runtime_dir = 'run': must be an absolute path", id="relative path"),
    pytest.param("[daemon]\nrecovery_s = -1\n" + GOOD, "daemon.recovery_s = -1: must be a number from 0.0 to 60.0", id="recovery"),
    pytest.param("[daemon]\nrecovery_s = nan\n" + GOOD, "daemon.recovery_s = nan: must be a number", id="recovery NaN"),
    pytest.param("[daemon]\nunknown_port = 'drop'\n" + GOOD, 'must be one of "reset", "silent"', id="unknown port"),
    pytest.param("[daemon]\nstats_name = 'janus'\n" + GOOD, "daemon.stats_name = 'janus': must be / and a name", id="stats name"),
    pytest.param("[daemon]\ngroup = 'a b'\n" + GOOD, "daemon.group = 'a b': must be a group name", id="group"),
    pytest.param("[daemon]\nlog_level = 3\n" + GOOD, 'daemon.log_level = 3: must be one of "debug"', id="log level"),
    pytest.param("[metrics]\nlisten = '9464'\n" + GOOD, "metrics.listen = '9464': must be an address and port", id="no address"),
    pytest.param("[metrics]\nlisten = '127.0.0.1:0'\n" + GOOD, "must be an address and port", id="port 0"),
    pytest.param("[metrics]\nlisten = '300.0.0.1:80'\n" + GOOD, "must be an address and port", id="bad address"),
    pytest.param(port_with("name = 'P0'"), "port[0].name = 'P0': must be a-z", id="port name"),
    pytest.param("[[port]]\naddresses = ['10.0.0.1/24']\n" + APP, "port[0].name is missing", id="no port name"),
    pytest.param("[[port]]\nname = 'p'\naddresses = ['10.0.0.1/24']\n" + APP, "port[0].device is missing: must be a vdev", id="no device"),
    pytest.param("[[port]]\nname = 'p'\ndevice = 'net_null0'\n" + APP, "port[0].addresses is missing", id="no addresses"),
    pytest.param(port_with("addresses = []"), "port[0].addresses = []: must have at least one", id="addresses empty"),
    pytest.param(port_with("addresses = ['10.77.0.1']"), "must be an address with its prefix length", id="no prefix"),
    pytest.param(port_with("addresses = ['10.77.0.256/24']"), "addresses[0] = '10.77.0.256/24': must be an address", id="not an address"),
    pytest.param(port_with("addresses = ['10.77.0.1/33']"), "must be an address with its prefix length", id="prefix 33"),
    pytest.param(port_with("addresses = ['10.77.0.0/24']"), "the network's own or its broadcast address", id="network address"),
    pytest.param(port_with("addresses = ['10.77.0.255/24']"), "the network's own or its broadcast address", id="broadcast"),
    pytest.param(port_with("addresses = ['127.0.0.1/8']"), "not a host's unicast address", id="loopback"),
    pytest.param(port_with("addresses = ['ff02::1/64']"), "not a host's unicast address", id="multicast"),
    pytest.param(port_with("addresses = ['10.77.0.1/0']"), "prefix length 0", id="prefix 0"),
    pytest.param(port_with("addresses = ['10.77.0.1/24', '10.77.0.1/16']"), "must not name an address twice", id="address twice"),
    pytest.param(port_with("addresses = [1]"), "port[0].addresses[0] = 1: must be an address", id="address as number"),
    pytest.param(port_with("gateways = ['10.0.0.1']"), "10.0.0.1 must be inside a prefix of port[0].addresses", id="gateway outside"),
    pytest.param(port_with("gateways = ['10.77.0.1']"), "must not be the port's own address", id="gateway is own"),
    pytest.param(port_with("gateways = ['10.77.0.2', '10.77.0.3']"), "at most one for IPv4", id="two gateways"),
    pytest.param(port_with("mtu = 9000"), "port[0].mtu = 9000: must be a whole number from 576 to 1500", id="mtu"),
    pytest.param(port_with("vlan = 4095"), "port[0].vlan = 4095: must be a whole number from 0 to 4094", id="vlan"),
    pytest.param(port_with("fragments = 'keep'"), "port[0].fragments = 'keep'", id="fragments"),
    pytest.param(port_with("promiscuous = 1"), "port[0].promiscuous = 1: must be true or false", id="bool as number 1"),
    pytest.param(PORT + GOOD, "port[1].name = 'p0': is already that of port[0]", id="port name twice"),
    pytest.param(PORT + GOOD, "port[1].addresses = '10.77.0.1': is already that of port[0]", id="address on two ports"),
    pytest.param(PORT + GOOD, "port[1].device = 'net_null0': is already that of port[0]", id="device twice"),
    pytest.param(app_with("name = 'Web'"), "app[0].name = 'Web': must be a-z", id="app name"),
    pytest.param(app_with("name = '" + "a" * 32 + "'"), "must be a-z, 0-9 and -, at most 31", id="app name long"),
    pytest.param(GOOD + APP.replace("80", "81"), "app[1].name = 'web': is already that of app[0]", id="app name twice"),
    pytest.param(app_with("users = ['no-such-user']"), "app[0].users[0] = 'no-such-user': must be a user name or uid", id="unknown user"),
    pytest.param(app_with("groups = ['no-such-group']"), "must be a group name or gid (there is none", id="unknown group"),
    pytest.param(app_with("users = [-1]"), "app[0].users[0] = -1: must be a user name or uid", id="uid -1"),
    pytest.param(app_with("users = []"), "users or groups must name who may run this app", id="nobody may run it"),
    pytest.param(app_with("ports = ['0']"), "app[0].ports[0] = '0': must be a TCP port or range", id="service port 0"),
    pytest.param(app_with("ports = ['90-80']"), "must be a TCP port or range", id="range backwards"),
    pytest.param(app_with("ports = ['80-65536']"), "must be a TCP port or range", id="range too long"),
    pytest.param(app_with("ports = ['http']"), "must be a TCP port or range", id="port by name"),
    pytest.param(app_with("ports = []"), "or source_ports must allow something", id="nothing allowed"),
    pytest.param(app_with("ports = ['80', '80-90']"), "ports = '80-90': overlaps ports 80 of app[0]", id="own ports overlap"),
    pytest.param(app_with("source_ports = '1-99'"), "source_ports = '1-99': overlaps ports 80", id="source port is service port"),
    pytest.param(app_with("source_ports = 'any'"), "source_ports = 'any': must be a TCP port or range", id="source ports"),
    pytest.param(app_with("addresses = ['10.0.0.1']"), "10.0.0.1 is no address of a [[port]]; those are: 10.77.0.1, fd77::1", id="foreign address"),
    pytest.param(app_with("addresses = ['fd77::1', 'fd77::1']"), "must not name an address twice", id="leased twice"),
    pytest.param(second_app('ports = ["80"]'), "app[1].ports = '80': overlaps ports 80 of app[0] on 10.77.0.1, fd77::1", id="apps share a port"),
    pytest.param(second_app('ports = ["70-90"]'), "app[1].ports = '70-90': overlaps ports 80 of app[0]", id="apps share in a range"),
    pytest.param(second_app('source_ports = "1-100"'), "app[1].source_ports = '1-100': overlaps ports 80", id="source range over a service"),
    pytest.param(app_with("threads_max = 257"), "app[0].threads_max = 257: must be a whole number from 1 to 256", id="threads"),
    pytest.param(app_with("connections_max = 0"), "app[0].connections_max = 0: must be", id="connections"),
    pytest.param(app_with("rx_slots = 1000"), "app[0].rx_slots = 1000: must be a power of two from 64", id="slots no power of two"),
    pytest.param(app_with("tx_slots = 32"), "app[0].tx_slots = 32: must be a power of two from 64", id="too few slots"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "part"), BAD)
def test_bad_config_is_refused(text: str, part: str) -> None:
    texts = errors_of(text)
    assert any(part in line for line in texts), texts
    assert all(line.startswith("j.toml") for line in texts)


def test_there_are_enough_bad_configs() -> None:
    assert len(BAD) >= 40


def test_all_errors_are_told_at_once() -> None:
    texts = errors_of("[io]\nthreads = 0\nmode = 'x'\n" + app_with("threads_max = 0"))
    assert [t.split(": ")[1].split(" ")[0] for t in texts] == ["io.threads", "io.mode", "app[0].threads_max"]


def test_errors_name_the_line() -> None:
    (text,) = errors_of(PORT + "\n# a comment\n" + APP + "threads_max = 0\n")
    assert text.startswith(
        f"j.toml:{len(PORT.splitlines()) + 2 + len(APP.splitlines()) + 1}: app[0].threads_max = 0"
    )


def test_defaults() -> None:
    got = config.parse(GOOD, "j.toml")
    assert got.io == config.IoConfig(threads=1, cpus=(), mode="adaptive")
    assert got.eal.huge_pages is None
    assert got.metrics_listen == ("127.0.0.1", 9464)
    assert got.daemon.reset_unknown
    assert got.daemon.runtime_dir == Path("/run/janus")
    (app,) = got.apps
    assert app.addresses == (ipaddress.ip_address("10.77.0.1"), ipaddress.ip_address("fd77::1"))
    assert app.source_ports is None
    assert (app.threads_max, app.connections_max, app.rx_slots, app.tx_slots) == (8, 65536, 4096, 4096)


def test_apps_may_use_the_same_port_on_different_addresses() -> None:
    text = (
        PORT
        + APP
        + 'addresses = ["10.77.0.1"]\n[[app]]\nname="b"\ngroups=[7]\nports=[80]\naddresses=["fd77::1"]\n'
    )
    assert [app.name for app in config.parse(text, "j.toml").apps] == ["web", "b"]


def test_port_of() -> None:
    got = config.parse(GOOD, "j.toml")
    port = got.port_of(ipaddress.ip_address("fd77::1"))
    assert port is got.ports[0]
    assert got.port_of(ipaddress.ip_address("10.77.0.2")) is None


def test_metrics_can_be_off_or_ipv6() -> None:
    assert config.parse("[metrics]\nlisten=''\n" + GOOD, "j").metrics_listen is None
    assert config.parse("[metrics]\nlisten='[::1]:9'\n" + GOOD, "j").metrics_listen == ("::1", 9)


def test_shipped_config_is_good() -> None:
    path = Path(__file__).parents[2] / "configs" / "janusd.toml"
    got = config.parse(path.read_text(), str(path))
    assert got.apps[0].name == "default"


def test_world_writable_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j.toml"
    path.write_text(GOOD)
    path.chmod(0o646)
    with pytest.raises(config.ConfigError, match=r"is writable by everyone \(mode 0646\): chmod o-w"):
        config.load(str(path))
    path.chmod(0o644)
    assert config.load(str(path)).path == str(path)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match="cannot be read: No such file"):
        config.load(str(tmp_path / "none.toml"))
    with pytest.raises(config.ConfigError, match="cannot be read: Is a directory"):
        config.load(str(tmp_path))
    path = tmp_path / "j.toml"
    path.write_bytes(b"a = '\xff'\n")
    path.chmod(0o600)
    with pytest.raises(config.ConfigError, match="is not UTF-8: byte 5 is 0xff"):
        config.load(str(path))
