"""Simulation as a test: drawn seeds, seeds that once failed, and the same seed twice.

A failure names its seed: `python -m tests.sim --seed S` prints that run packet by packet.
"""

import os

import pytest

from tests.sim import runner

# Failed before the mend that the name tells of.  A seed means what sim_draw() makes of it: whoever changes the
# drawing looks for new ones by undoing the mend.
KNOWN_BAD = {
    "what waits behind a hole kept out what fills it": 374,
    "hole, many connections, few slots": 116,
    "segments became longer during recovery, and cwnd was less than one": 10662,
    "a user timeout counted from before there was anything to wait for": 131923,
    "the wheel kept what paced a connection that had given its extension back": 316124,
    "an ACK was delayed that the peer's tail probe did not wait for": 32708,
    "who had closed was not told that its peer had given up half-open; nobody could tell it": 491163,
    "a closed window was held against a peer whose answers were lost": 529757,
    "data of before came into a port used again at once: the last timestamp had been a FIN's out of order": 474476,
}
ADVERSARIES_KNOWN_BAD = {
    "a cookie made segments larger than a tiny MSS": 139,
    "each read told of a window that its field cannot say": 250016,
}


def test_drawn_seeds() -> None:
    """JANUS_SEEDS seeds from JANUS_FIRST_SEED on: every oracle of the simulator holds."""
    count, first = int(os.environ.get("JANUS_SEEDS", "200")), int(os.environ.get("JANUS_FIRST_SEED", "1"))
    outcomes = list(runner.run_many(range(first, first + count)))
    failed = [f"SEED={o.seed} {o.failure}" for o in outcomes if o.failure]
    assert not failed, "\n".join(failed)
    assert len(outcomes) == count
    if count >= 100:  # the faults and the ways out of them were there
        for name in (
            "lost",
            "doubled",
            "damaged",
            "overtaken",
            "recut",
            "timeouts",
            "fast_retransmits",
            "cookies",
            "marked",
            "ecn_reductions",
        ):
            assert sum(o.counts[name] for o in outcomes) > 0, name


@pytest.mark.parametrize("seed", KNOWN_BAD.values(), ids=KNOWN_BAD.keys())
def test_seed_that_once_failed(seed: int) -> None:
    """All invariants are checked after each packet."""
    [outcome] = runner.run_many([seed], check_every=1)
    assert outcome.failure is None, f"SEED={seed} {outcome.failure}"


def test_same_seed_gives_the_same_packets() -> None:
    """Nothing but the seed decides: two runs send the same bytes at the same times."""
    failed = [f"SEED={o.seed} {o.failure}" for o in runner.run_many(range(1, 40), twice=True) if o.failure]
    assert not failed, "\n".join(failed)


def test_other_seeds_give_other_packets() -> None:
    hashes = [o.trace_hash for o in runner.run_many(range(1, 40))]
    assert len(set(hashes)) == len(hashes)


def test_adversaries() -> None:
    """JANUS_SEEDS seeds of one core against scripted adversaries, every vice among them."""
    count, first = int(os.environ.get("JANUS_SEEDS", "200")), int(os.environ.get("JANUS_FIRST_SEED", "1"))
    outcomes = list(runner.run_many(range(first, first + count), campaign=runner.ADVERSARY))
    failed = [f"SEED={o.seed} {o.failure}" for o in outcomes if o.failure]
    assert not failed, "\n".join(failed)
    assert len(outcomes) == count
    if count >= 100:
        silent = [name for name in outcomes[0].counts if not any(o.counts[name] for o in outcomes)]
        assert not silent, "none of the seeds has seen these"


@pytest.mark.parametrize("seed", ADVERSARIES_KNOWN_BAD.values(), ids=ADVERSARIES_KNOWN_BAD.keys())
def test_adversary_that_once_won(seed: int) -> None:
    outcomes = runner.run_many([seed], check_every=1, campaign=runner.ADVERSARY)
    assert [o.failure for o in outcomes] == [None]
