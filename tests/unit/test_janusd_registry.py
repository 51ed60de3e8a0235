"""janusd.registry and policy: who may attach as what, and what may be listened on."""

import ipaddress
import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dpdk_glue.values import RowLayout
from janusd import policy
from janusd.config import AppConfig, PortRange
from janusd.messages import AttachStatus, Hello
from janusd.policy import Credentials, Grant, Refusal
from janusd.registry import Registry, Session
from tests.unit.janusd_fakes import parse_config

CONFIG = parse_config()
WEB, API, OTHER = CONFIG.apps
V4, V6 = ipaddress.ip_address("10.77.0.1"), ipaddress.ip_address("fd77::1")
ROW = RowLayout(stride=128, state=0, raddr=8, rport=24, lport=26, laddr_index=28, snd_nxt=32, rcv_nxt=36)
HELLO = Hello(2, 0, "web", None, 0, 0, 0, ROW)
ME = Credentials(100, next(iter(WEB.uids)), frozenset({5}))


def a_registry() -> Registry:
    count = itertools.count()
    return Registry(CONFIG, lambda size: next(count).to_bytes(size, "big"))


def attach(registry: Registry, app: AppConfig = WEB, token: bytes | None = None) -> Session:
    session = registry.attach(app, ME, token)
    assert isinstance(session, Session), session
    return session


def test_tids_are_the_lowest_free_ones() -> None:
    registry = a_registry()
    first, second, third = attach(registry), attach(registry), attach(registry)
    assert [s.tid for s in (first, second, third)] == [0, 1, 2]
    refused = registry.attach(WEB, ME, None)
    assert isinstance(refused, Refusal)
    assert refused.status is AttachStatus.QUOTA
    registry.detach(second)
    registry.detach(second)
    assert attach(registry).tid == 1
    assert attach(registry, API).tid == 0


def test_generations_and_tokens_are_never_used_twice() -> None:
    registry = a_registry()
    seen = set()
    for _ in range(5):
        session = attach(registry)
        seen.add((session.generation, session.token))
        registry.detach(session)
    assert len(seen) == len({g for g, _ in seen}) == 5


def test_generation_wraps_past_zero() -> None:
    registry = a_registry()
    registry.restore([], 0xFFFFFFFF)
    assert [attach(registry).generation, attach(registry).generation] == [0xFFFFFFFF, 1]


def test_services_are_those_of_online_threads() -> None:
    registry = a_registry()
    a, b = attach(registry), attach(registry)
    assert registry.listen(a, V4, 80) is None
    assert registry.listen(b, None, 80) is None
    assert registry.services() == []
    registry.online(a)
    assert [(s.address, str(s.ports)) for s in registry.services()] == [
        (V4, "40000-49999"),
        (V6, "40000-49999"),
        (V4, "80"),
    ]
    registry.online(b)
    assert len(registry.services()) == 4
    registry.unlisten(b, None, 80)
    assert (V4, "80") in [(s.address, str(s.ports)) for s in registry.services()]
    registry.detach(a)
    registry.detach(b)
    assert registry.services() == []


def test_a_port_of_another_app_is_taken() -> None:
    """The configuration keeps leases apart; the registry does not rely on it."""
    greedy = replace(API, ports=(PortRange(1, 65535),))
    config = replace(CONFIG, apps=(WEB, greedy))
    registry = Registry(config, lambda size: bytes(size))
    web, api = attach(registry), attach(registry, greedy)
    assert registry.listen(web, V4, 80) is None
    refused = registry.listen(api, None, 80)
    assert refused is not None
    assert (refused.status, refused.text) == (
        AttachStatus.PORT_TAKEN,
        'port 80 of 10.77.0.1 is served by app "web"',
    )
    assert registry.listen(api, V6, 80) is None


def test_listens_of_an_app_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("janusd.registry.SERVICES_PER_APP_MAX", 10)
    registry = a_registry()
    session = attach(registry)
    for port in range(8000, 8005):
        assert registry.listen(session, None, port) is None
    refused = registry.listen(session, None, 8005)
    assert refused is not None
    assert refused.status is AttachStatus.QUOTA
    assert registry.listen(session, None, 8000) is None


def test_resume_is_for_the_right_token_user_and_app_once() -> None:
    old = a_registry()
    session = attach(old)
    old.listen(session, None, 80)
    old.listen(session, V4, 8000)
    old.online(session)
    registry = a_registry()
    registry.restore([replace(session)], old.next_generation)
    assert registry.waiting() == 1
    for app, who, token in [
        (WEB, ME, b"x" * 16),
        (WEB, replace(ME, uid=77), session.token),
        (API, ME, session.token),
    ]:
        refused = registry.attach(app, who, token)
        assert isinstance(refused, Refusal)
        assert refused.status is AttachStatus.BAD_TOKEN
    back = attach(registry, token=session.token)
    assert (back.tid, back.token, back.attached) == (session.tid, session.token, True)
    assert back.generation > session.generation
    assert isinstance(registry.attach(WEB, ME, session.token), Refusal)
    assert registry.waiting() == 1  # until it is online again
    registry.listen(back, None, 80)
    registry.online(back)
    assert registry.waiting() == 0
    assert back.listens == {(V4, 80), (V6, 80)}  # 8000 was not repeated


def test_restore_keeps_what_the_configuration_allows() -> None:
    def saved(app: str, tid: int, port: int) -> Session:
        return Session(app, tid, 1, 1, 1, bytes([tid] * 16), {(V4, port)}, True)

    registry = a_registry()
    registry.restore([saved("web", 0, 80), saved("web", 0, 80), saved("web", 9, 80), saved("gone", 0, 80)], 5)
    registry.restore([saved("web", 1, 9999)], 5)
    assert [(s.app, s.tid, s.listens) for s in registry.sessions()] == [
        ("web", 0, {(V4, 80)}),
        ("web", 1, set()),
    ]
    assert attach(registry).tid == 2  # tids that wait are not given away
    assert [s.tid for s in registry.expire()] == [0, 1]
    assert registry.waiting() == 0


class RegistryMachine(RuleBasedStateMachine):
    """Whatever happens: one app per (address, port), no tid twice, services only of threads online."""

    def __init__(self) -> None:
        super().__init__()
        self.registry = a_registry()
        self.live: list[Session] = []

    @rule(app=st.sampled_from([WEB, API]))
    def attach(self, app: AppConfig) -> None:
        session = self.registry.attach(app, ME, None)
        if isinstance(session, Session):
            self.live.append(session)
        else:
            assert sum(s.app == app.name for s in self.live) == app.threads_max

    @rule(data=st.data(), address=st.sampled_from([None, V4, V6]), port=st.sampled_from([80, 443, 8000, 1]))
    def listen(self, data: st.DataObject, address: object, port: int) -> None:
        if self.live:
            session = data.draw(st.sampled_from(self.live))
            on = data.draw(st.booleans())
            (self.registry.listen if on else self.registry.unlisten)(session, address, port)

    @rule(data=st.data())
    def online(self, data: st.DataObject) -> None:
        if self.live:
            self.registry.online(data.draw(st.sampled_from(self.live)))

    @rule(data=st.data())
    def detach(self, data: st.DataObject) -> None:
        if self.live:
            session = data.draw(st.sampled_from(self.live))
            self.live.remove(session)
            self.registry.detach(session)

    @invariant()
    def holds(self) -> None:
        assert sorted((s.app, s.tid) for s in self.live) == [(s.app, s.tid) for s in self.registry.sessions()]
        served = [(s.address, p, s.app) for s in self.registry.services() for p in (s.ports.first,)]
        assert len({(a, p) for a, p, _ in served}) == len(served)
        online = {s.app for s in self.live if s.online}
        assert {app for _, _, app in served} <= online


TestRegistryMachine = RegistryMachine.TestCase

# --- policy ---


def test_users_and_groups_decide() -> None:
    group = replace(WEB, uids=frozenset(), gids=frozenset({5}))
    config = replace(CONFIG, apps=(group, OTHER))
    assert policy.find_app(config, ME, "web") is group
    refused = policy.find_app(config, replace(ME, gids=frozenset({6})), "web")
    assert isinstance(refused, Refusal)
    assert 'may not run app "web"' in refused.text
    assert "may run no app" in refused.text
    refused = policy.find_app(config, ME, "wep")
    assert isinstance(refused, Refusal)
    assert refused.text == f'no app "wep" is configured; uid {ME.uid} may run: web'


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_grants_are_within_the_policy(rows: int, rx: int, tx: int) -> None:
    got = policy.grant(WEB, replace(HELLO, rows=rows, rx_slots_per_io=rx, tx_slots=tx), 2)
    if isinstance(got, Refusal):
        assert got.status is AttachStatus.QUOTA
        assert rows > WEB.connections_max or rx > WEB.rx_slots or tx > WEB.tx_slots
        return
    assert isinstance(got, Grant)
    sizes = got.sizes
    assert sizes.io_count == 2
    assert sizes.rows == (rows or WEB.connections_max)
    for wanted, given_, most in (
        (rx, sizes.rx_slots_per_io, WEB.rx_slots),
        (tx, sizes.tx_slots, WEB.tx_slots),
    ):
        assert max(64, wanted) <= given_ <= most if wanted else given_ == most
        assert given_ & (given_ - 1) == 0


@given(st.builds(RowLayout, **dict.fromkeys(vars(ROW), st.integers(0, 65535))))
def test_a_row_layout_that_passes_lies_inside_its_row(row: RowLayout) -> None:
    if policy.check_row_layout(row):
        return
    assert 64 <= row.stride <= 1024
    assert row.raddr + 16 <= row.stride
    assert max(row.snd_nxt, row.rcv_nxt) + 4 <= row.stride


def test_sessions_of_a_user_are_bounded_by_the_largest_app() -> None:
    assert policy.admit_session(CONFIG, ME, 15) is None
    assert policy.admit_session(CONFIG, ME, 16) is not None
    big = replace(CONFIG, apps=(replace(WEB, threads_max=64),))
    assert policy.admit_session(big, ME, 63) is None
    assert policy.admit_session(big, ME, 64) is not None
