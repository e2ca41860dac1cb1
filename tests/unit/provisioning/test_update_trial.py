"""When a release that is tried is good, and when bad: the rules, without a node."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.update.memory import Standing
from provisioning.update.trial import CLOCKS, CONDITIONS, MOST_ENDS, Judge, Verdict, best, lacks

WITHIN_S, HOLD_S = 600.0, 60.0
WELL = Standing(
    hears=True, clock="pps", connected=True, condition="ok", firmware="1.1.0", boot_id="a"
)
standings = st.builds(
    Standing,
    hears=st.booleans(),
    clock=st.sampled_from(CLOCKS),
    connected=st.booleans(),
    condition=st.sampled_from(CONDITIONS),
    firmware=st.just("1.1.0"),
    boot_id=st.just("a"),
)


def but(**different: Any) -> Standing:
    return WELL.model_copy(update=different)


@dataclass
class Ended:
    verdict: Verdict
    at_s: float


def judged(before: Standing, looks: list[tuple[float, Standing | None]]) -> Ended:
    """Judge a node that stands so from each second on."""
    judge = Judge("1.1.0", before, 0.0, WITHIN_S, HOLD_S)
    for second in range(int(WITHIN_S) + 2):
        now = [standing for since_s, standing in looks if since_s <= second][-1]
        verdict = judge.look(float(second), now)
        if verdict is not None:
            return Ended(verdict, float(second))
    raise AssertionError("no verdict when the time was up")


def test_a_release_that_does_all_as_before_is_kept_after_a_while() -> None:
    ended = judged(WELL, [(0, None), (8, WELL)])
    assert ended.verdict.good
    assert ended.at_s == 8 + HOLD_S


@pytest.mark.parametrize(
    ("before", "now", "good", "word"),
    [
        (WELL, None, False, "does not tell"),
        (WELL, but(firmware="1.0.0"), False, "does not tell"),
        (WELL, but(hears=False), False, "does not hear"),
        (WELL, but(clock="gps"), False, "by gps, and was by pps"),
        (WELL, but(clock="free"), False, "by free"),
        (but(clock="ntp"), but(clock="free"), False, "by free, and was by ntp"),
        (but(clock="ntp"), but(clock="pps"), True, "as before"),
        (WELL, but(connected=False), False, "does not reach the broker"),
        (WELL, but(condition="degraded"), False, "is degraded, and was ok"),
        (but(condition="degraded"), but(condition="failed"), False, "is failed"),
        (but(condition="failed"), but(condition="failed"), True, "as before"),
        # Not the release's fault: hoped for until the time is up.
        (but(connected=False), but(connected=False), True, "broker, as was so before"),
        (but(hears=False), but(hears=False), True, "hear, as was so before"),
        (Standing(), None, True, "as was so before"),
        (but(connected=False), but(connected=False, hears=False), False, "does not hear"),
    ],
)
def test_what_is_worse_than_before_is_taken_back(
    before: Standing, now: Standing | None, good: bool, word: str
) -> None:
    ended = judged(before, [(0, now)])
    assert ended.verdict.good is good
    assert word in ended.verdict.why
    if not good:
        assert ended.at_s == WITHIN_S


def test_a_broker_that_was_away_before_is_waited_for_and_counts_once_it_is_there() -> None:
    away = but(connected=False)
    ended = judged(away, [(0, away), (300, WELL)])
    assert ended.verdict.good
    assert ended.at_s == 300 + HOLD_S


def test_what_comes_late_but_in_time_is_kept() -> None:
    assert judged(WELL, [(0, but(clock="free")), (WITHIN_S - 1, WELL)]).verdict.good


def test_a_daemon_that_starts_anew_has_to_hold_anew() -> None:
    ended = judged(WELL, [(0, WELL), (50, but(boot_id="b"))])
    assert ended.at_s == 50 + HOLD_S
    lapsed = judged(WELL, [(0, WELL), (50, but(connected=False)), (51, WELL)])
    assert lapsed.at_s == 51 + HOLD_S


def test_a_daemon_that_does_not_stay_up_is_bad_at_once() -> None:
    judge = Judge("1.1.0", WELL, 0.0, WITHIN_S, HOLD_S)
    assert judge.look(1.0, None, MOST_ENDS - 1) is None
    verdict = judge.look(2.0, WELL, MOST_ENDS)
    assert verdict == Verdict(False, f"the daemon ended {MOST_ENDS} times")


@given(before=standings, now=standings)
def test_nothing_is_kept_that_is_worse_in_any_respect(before: Standing, now: Standing) -> None:
    worse = (
        before.hears > now.hears
        or before.connected > now.connected
        or CLOCKS.index(now.clock) < CLOCKS.index(before.clock)
        or CONDITIONS.index(now.condition) < CONDITIONS.index(before.condition)
    )
    assert judged(before, [(0, now)]).verdict.good is not worse


@given(one=standings, other=standings)
def test_the_better_of_two_looks_asks_for_what_either_had(one: Standing, other: Standing) -> None:
    floor = best(one, other)
    assert best(one, None) == one
    assert not lacks(floor, "1.1.0", one)
    assert not lacks(floor, "1.1.0", other)
