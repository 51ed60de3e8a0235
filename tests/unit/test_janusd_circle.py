"""janusd.weights, balancer and state: shares by construction, few moves, the same circle after a restart."""

import secrets
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from janusd import state, weights
from janusd.balancer import Balancer
from janusd.policy import Credentials
from janusd.registry import Registry, Session
from janusd.weights import NOBODY, SLOT_COUNT, divide, inherit, points, quotas, shares
from janusd.wishes import Wishes
from tests.unit.janusd_fakes import parse_config

WEIGHTS = st.dictionaries(st.integers(0, 255), st.floats(0, weights.WEIGHT_MAX), max_size=40)


@given(WEIGHTS)
def test_quotas_follow_weights(wish: dict[int, float]) -> None:
    quota = quotas(wish)
    serving = {tid: w for tid, w in wish.items() if w > 0}
    assert sum(quota.values()) == (SLOT_COUNT if serving else 0)
    total = sum(serving.values())
    for tid, weight in wish.items():
        assert (quota[tid] > 0) == (weight > 0)
        if weight > 0:
            assert abs(quota[tid] - SLOT_COUNT * weight / total) <= len(serving) + 1


@given(st.lists(WEIGHTS, max_size=6))
def test_divide_moves_no_slot_without_need(changes: list[dict[int, float]]) -> None:
    owners = [NOBODY] * SLOT_COUNT
    for wish in changes:
        quota = quotas(wish)
        before = {tid: owners.count(tid) for tid in set(owners)}
        after = divide(owners, wish)
        assert {tid: after.count(tid) for tid in set(after) - {NOBODY}} == {
            t: n for t, n in quota.items() if n
        }
        if any(quota.values()):
            moved = sum(was != now for was, now in zip(owners, after, strict=True))
            assert moved == sum(max(0, n - before.get(tid, 0)) for tid, n in quota.items())
        owners = after


def owner_by_points(listed: list[tuple[int, int]], key: int) -> int:
    """The rule of H_new, as sdk/csb/lookup.h has it."""
    return next((tid for point, tid in listed if point >= key), listed[0][1])


@given(WEIGHTS, st.integers(0, 2**32 - 1))
def test_points_mean_the_same_as_owners(wish: dict[int, float], key: int) -> None:
    owners = divide([NOBODY] * SLOT_COUNT, wish)
    listed = points(owners)
    assert len(listed) <= SLOT_COUNT
    assert listed == sorted(set(listed))
    if not listed:
        assert NOBODY in owners
        return
    assert owner_by_points(listed, key) == owners[key >> 20]


def test_a_thread_that_comes_back_gets_its_slots_back() -> None:
    two = divide(divide([NOBODY] * SLOT_COUNT, {0: 1}), {0: 1, 1: 1})
    three = divide(two, {0: 1, 1: 1, 2: 1})
    assert shares(three) == pytest.approx({0: 1 / 3, 1: 1 / 3, 2: 1 / 3}, abs=1e-3)
    back = divide(three, {0: 1, 1: 1})
    assert back == two


@given(WEIGHTS, st.sets(st.integers(0, 255)))
def test_inheritance_moves_the_slots_of_the_dead_alone(wish: dict[int, float], dead: set[int]) -> None:
    owners = divide([NOBODY] * SLOT_COUNT, wish)
    left = {tid: weight for tid, weight in wish.items() if tid not in dead}
    after = inherit(owners, left)
    if not any(left.values()):
        assert set(after) == {NOBODY}
        return
    assert all(now == was for was, now in zip(owners, after, strict=True) if was in left)
    assert set(after) <= set(left)


def test_weight_zero_drains() -> None:
    owners = divide([NOBODY] * SLOT_COUNT, {0: 1, 1: 1})
    assert set(divide(owners, {0: 0, 1: 1})) == {1}
    assert set(divide(owners, {0: 0, 1: 0})) == {NOBODY}


# --- what outlives janusd ---


def a_house() -> tuple[Registry, Balancer, list[Session]]:
    config = parse_config()
    registry, balancer = Registry(config, secrets.token_bytes), Balancer(secrets.token_bytes)
    who = Credentials(1, 2, frozenset({3}))
    found = []
    for tid in range(2):
        session = registry.attach(config.apps[0], who, None)
        assert isinstance(session, Session)
        registry.listen(session, None, 80)
        registry.online(session)
        balancer.join("web", tid)
        found.append(session)
    return registry, balancer, found


def wishes(*apps: str) -> dict[str, Wishes]:
    return {app: Wishes() for app in apps}


def test_what_operators_want_outlives_janusd(tmp_path: Path) -> None:
    registry, balancer, _ = a_house()
    before = {"web": Wishes(False, True, {0: 2.0, 1: 0.0}, {1: 3.0}), "gone": Wishes()}
    state.save(tmp_path, registry, balancer, before)
    after = wishes("web", "api")
    state.load(tmp_path, Registry(parse_config(), secrets.token_bytes), Balancer(secrets.token_bytes), after)
    assert after == {"web": before["web"], "api": Wishes()}
    after["web"].configure(False)
    assert after["web"].on, "janusd.toml says what it said before"
    after["web"].configure(True)
    after["web"].configure(False)
    assert not after["web"].on, "the file has been changed since"


def test_state_is_the_same_after_a_restart(tmp_path: Path) -> None:
    registry, balancer, sessions = a_house()
    state.save(tmp_path, registry, balancer, wishes("web", "api"))
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600
    fresh, circles = Registry(parse_config(), secrets.token_bytes), Balancer(secrets.token_bytes)
    assert state.load(tmp_path, fresh, circles, wishes("web", "api")) == 2
    assert circles.circle("web") == balancer.circle("web")
    assert circles.is_held("web")
    assert circles.circle("api").secret == balancer.circle("api").secret
    assert fresh.next_generation == registry.next_generation
    for before, after in zip(sessions, fresh.sessions(), strict=True):
        assert (after.tid, after.token, after.listens, after.online) == (
            before.tid,
            before.token,
            before.listens,
            True,
        )
        assert not after.attached
    assert fresh.services() == registry.services()


def test_a_thread_that_was_not_online_is_not_on_the_circle(tmp_path: Path) -> None:
    registry, balancer, sessions = a_house()
    registry.detach(sessions[0])
    state.save(tmp_path, registry, balancer, wishes("web"))
    fresh, circles = Registry(parse_config(), secrets.token_bytes), Balancer(secrets.token_bytes)
    assert state.load(tmp_path, fresh, circles, wishes("web")) == 1
    assert circles.circle("web").shares() == {1: 1.0}


def test_no_state_is_no_error(tmp_path: Path) -> None:
    _, balancer, _ = a_house()
    assert state.load(tmp_path, Registry(parse_config(), secrets.token_bytes), balancer, wishes("web")) == 0


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_state_is_refused(tmp_path_factory: pytest.TempPathFactory, at: int, value: int) -> None:
    directory = tmp_path_factory.mktemp("s")
    registry, balancer, _ = a_house()
    state.save(directory, registry, balancer, wishes("web"))
    path = directory / "state.json"
    data = bytearray(path.read_bytes())
    at %= len(data)
    if data[at] == value:
        return
    data[at] = value
    path.write_bytes(data)
    with pytest.raises(state.StateError):
        state.load(
            directory,
            Registry(parse_config(), secrets.token_bytes),
            Balancer(secrets.token_bytes),
            wishes("web"),
        )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"version":9,"next_generation":1,"circles":[],"sessions":[]}',
        b'{"version":2,"next_generation":1,"circles":[{"app":"web","secret":"","epoch":1,"weights":{},"owners":[],'
        b'"homes":[],"flagged":"0","drained":{}}],"sessions":[]}',
        b'{"version":2,"next_generation":1,"circles":[],"sessions":[{"app":"web","tid":0,"uid":0,"pid":0,'
        b'"generation":1,"token":"","online":true,"listens":[]}]}',
        b'{"version":3,"next_generation":1,"circles":[],"sessions":[],"wishes":[{"app":"web","configured":true,'
        b'"on":true,"base":{},"undo":{"0":-1}}]}',
    ],
    ids=[
        "empty",
        "no fields",
        "a list",
        "another version",
        "circle without slots",
        "session without token",
        "a weight below 0",
    ],
)
def test_a_state_that_does_not_fit_is_refused(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "state.json").write_bytes(b"%08x\n" % zlib.crc32(body) + body)
    registry, balancer, _ = a_house()
    with pytest.raises(state.StateError):
        state.load(tmp_path, registry, balancer, wishes("web"))
