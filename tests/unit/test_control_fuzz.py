"""The control API under 100,000 messages that hardly any client would send."""

import pytest

from tests.unit.control_fuzz import Fuzzer, HalfWay

BRIEF, LONG = 2000, 100_000


def test_no_message_crashes_or_half_changes_anything() -> None:
    fuzzer = Fuzzer(seed=1)
    fuzzer.run(BRIEF)
    wanted = {"result", "not_json", "bad_field", "too_long", "not_found", "unknown_thread", "bad_weight"}
    wanted |= {"epoch_mismatch", "not_allowed", "unconfirmed", "aborted", "unknown_app"}
    assert wanted <= fuzzer.answered.keys(), "the fuzzer does not reach all that it should"
    assert fuzzer.answered["result"] > BRIEF / 20


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_hundred_thousand_messages(seed: int) -> None:
    Fuzzer(seed=100 + seed).run(LONG // 4)


def test_a_planted_bug_is_found() -> None:
    """A fuzzer that does not see weights put in force one by one proves nothing."""
    with pytest.raises(AssertionError, match=r"became|not one update"):
        Fuzzer(seed=1, control=HalfWay).run(BRIEF)
