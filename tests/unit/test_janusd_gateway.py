"""Remote control: CURVE and ZAP let known keys in, and each may do what stands in the list."""

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import zmq
from click.testing import CliRunner
from zmq.auth import load_certificate

from janusd import ctl, ctl_client, gateway
from janusd.config import ConfigError
from janusd.curve_keys import KeyFileError, load_keys, write_keys
from janusd.gateway import Gateway
from tests.unit.control_panel import Panel
from tests.unit.test_janusd_control import served

__all__ = ["served"]

KEY = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"


@dataclass
class Remote:
    """A running gateway before a served panel, and who may come."""

    port: int
    directory: Path
    panel: Panel

    def ask(self, name: str | None, request: dict[str, object], timeout_ms: int = 5000) -> dict | None:
        """What the holder of a key gets for an answer; None: nothing."""
        with zmq.Context() as context, context.socket(zmq.DEALER) as sock:
            sock.setsockopt(zmq.LINGER, 0)
            sock.setsockopt(zmq.RCVTIMEO, timeout_ms)
            if name is not None:
                public, secret = load_certificate(self.directory / f"{name}.key_secret")
                assert secret is not None
                sock.setsockopt(zmq.CURVE_PUBLICKEY, public)
                sock.setsockopt(zmq.CURVE_SECRETKEY, secret)
                sock.setsockopt(zmq.CURVE_SERVERKEY, load_certificate(self.directory / "gateway.key")[0])
            sock.connect(f"tcp://127.0.0.1:{self.port}")
            sock.send(json.dumps({"version": 1, **request}).encode())
            try:
                return json.loads(sock.recv())
            except zmq.Again:
                return None


def text(directory: Path, socket: Path, port: int) -> str:
    clients = "".join(
        f'[[client]]\nname = "{name}"\npublic_key = "{load_certificate(directory / f"{name}.key")[0].decode()}"\n'
        f"change = {change}\n"
        for name, change in (("boss", "true"), ("guest", "false"))
    )
    return (
        f'[gateway]\nlisten = "127.0.0.1:{port}"\nsecret_key = "{directory}/gateway.key_secret"\n'
        f'socket = "{socket}"\n{clients}'
    )


@pytest.fixture
def remote(served: tuple[Path, Panel], tmp_path: Path) -> Iterator[Remote]:
    path, panel = served
    for name in ("gateway", "boss", "guest", "stranger"):
        write_keys(name, str(tmp_path))
    with zmq.Context() as context, context.socket(zmq.ROUTER) as sock:
        port = sock.bind_to_random_port("tcp://127.0.0.1")
    running = Gateway(gateway.parse(text(tmp_path, path, port), "gateway.toml"))
    done = threading.Event()

    def run() -> None:
        while not done.is_set():
            running.run(turns=1)

    thread = threading.Thread(target=run)
    thread.start()
    yield Remote(port, tmp_path, panel)
    done.set()
    thread.join(5)
    running.close()


def test_known_keys_do_what_they_may_and_strangers_hear_nothing(remote: Remote) -> None:
    shown = remote.ask("guest", {"id": "a", "verb": "csb_show", "app": "web"})
    assert shown is not None
    assert (shown["id"], shown["result"][0]["app"]) == ("a", "web")
    change = {"id": "b", "verb": "csb_set", "app": "web", "weights": {"0": 2}}
    refused = remote.ask("guest", change)
    assert refused is not None
    assert (refused["id"], refused["error"]["code"]) == ("b", "not_allowed")
    dry = remote.ask("guest", {**change, "dry_run": True})
    assert dry is not None
    assert dry["result"]["dry_run"]
    assert remote.panel.weights()[0] == 1.0
    done = remote.ask("boss", change)
    assert done is not None
    assert (done["id"], done["result"]["weights"]["0"]) == ("b", 2.0)
    assert remote.ask("stranger", {"verb": "status"}, timeout_ms=400) is None
    assert remote.ask(None, {"verb": "status"}, timeout_ms=400) is None


def test_janusd_hears_whom_it_is_for_and_nothing_malformed(
    remote: Remote, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "janusd.control")
    remote.ask("boss", {"verb": "csb_auto", "app": "web", "on": True, "via": "somebody else"})
    assert [record.fields["via"] for record in caplog.records] == ["boss"]
    bad = remote.ask("boss", {"id": "x", "verb": "csb_set", "app": "web", "weights": {"0": -1}})
    assert bad is not None
    assert (bad["id"], bad["error"]["code"]) == ("x", "bad_field")


def janusctl(remote: Remote, *words: str, key: str = "boss", server: str = "gateway") -> tuple[int, str, str]:
    """What janusctl says from another machine."""
    where = ["--remote", f"tcp://127.0.0.1:{remote.port}", "--key", f"{remote.directory}/{key}.key_secret"]
    where += ["--server-key", f"{remote.directory}/{server}.key"]
    result = CliRunner().invoke(ctl.main, [*where, *words])
    return result.exit_code, result.stdout, result.stderr


def test_janusctl_from_another_machine(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = janusctl(remote, "csb", "set", "web", "0=2", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["weights"]["0"] == 2.0
    assert "web" in janusctl(remote, "csb", "show", key="guest")[1]
    assert janusctl(remote, "csb", "drain", "web", "1", key="guest")[0] == 77
    assert remote.panel.weights() == {0: 2.0, 1: 1.0, 2: 1.0}

    monkeypatch.setattr(ctl_client, "TIMEOUT_S", 0.3)
    for key, server in (("stranger", "gateway"), ("boss", "guest")):
        code, _, err = janusctl(remote, "csb", "show", key=key, server=server)
        assert (code, "with this key in its list?" in err) == (69, True)


def test_janusctl_wants_its_keys_and_keeps_its_secret(tmp_path: Path) -> None:
    write_keys("me", str(tmp_path))
    secret, public = tmp_path / "me.key_secret", tmp_path / "me.key"
    far = ("--remote", "tcp://192.0.2.1:9465")

    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(ctl.main, [*words, "csb", "show"])
        return result.exit_code, result.stderr

    assert run(*far)[0] == 2
    assert run(*far, "--key", str(secret))[0] == 2
    assert run("--remote", "ipc:///x", "--key", str(secret), "--server-key", str(public))[0] == 2
    code, err = run(*far, "--key", f"{tmp_path}/none", "--server-key", str(public))
    assert (code, "no key" in err) == (78, True)
    code, err = run(*far, "--key", str(secret), "--server-key", f"{tmp_path}/none")
    assert (code, "no public key" in err) == (78, True)
    secret.chmod(0o644)
    code, err = run(*far, "--key", str(secret), "--server-key", str(public))
    assert (code, "others may read it (mode 0644)" in err) == (77, True)


def changed(old: str, new: str) -> Callable[[str], str]:
    return lambda good: good.replace(old, new)


GOOD = f'[gateway]\nlisten = "192.0.2.1:9465"\n[[client]]\nname = "a"\npublic_key = "{KEY}"\n'


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (changed("192.0.2.1", "0.0.0.0"), "no wildcard"),
        (changed("192.0.2.1", "[::]"), "no wildcard"),
        (changed("192.0.2.1", "example.org"), "no wildcard"),
        (changed(":9465", ":0"), "no wildcard"),
        (changed('listen = "192.0.2.1:9465"\n', ""), "gateway.listen"),
        (changed(KEY, KEY[1:]), "40 characters"),
        (changed('name = "a"\n', ""), "client[0].name"),
        (changed('name = "a"\n', 'name = "a"\nadmin = true\n'), "unknown key"),
        (lambda good: good + good[good.index("[[client]]") :], "must be unique"),
    ],
)
def test_a_bad_configuration_is_refused(spoil: Callable[[str], str], what: str) -> None:
    gateway.parse(GOOD, "g.toml")
    with pytest.raises(ConfigError) as error:
        gateway.parse(spoil(GOOD), "g.toml")
    assert what in " ".join(error.value.texts)


def test_a_secret_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    write_keys("gateway", str(tmp_path))
    path = tmp_path / "gateway.key_secret"
    assert path.stat().st_mode & 0o077 == 0
    load_keys(path)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="others may read"):
        load_keys(path)
    with pytest.raises(KeyFileError, match="no key"):
        load_keys(tmp_path / "none")
    (tmp_path / "gateway.key").chmod(0o600)
    with pytest.raises(KeyFileError, match="no secret key"):
        load_keys(tmp_path / "gateway.key")


def test_the_shipped_configuration_is_right_but_for_its_key() -> None:
    source = (Path(__file__).parents[2] / "configs/gateway.toml").read_text()
    assert gateway.parse(source, "gateway.toml").clients == ()
    uncommented = source.replace("# [[client]]", "[[client]]").replace("# name =", "name =")
    uncommented = uncommented.replace("# public_key", "public_key").replace("# change", "change")
    assert len(gateway.parse(uncommented, "gateway.toml").clients) == 1
