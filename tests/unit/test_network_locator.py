"""Detections in, incidents out: what the subscriber's side says as they come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.messages import Detection, Incident
from node.messages.detection import Local, Position
from node.network.incidents import Locator
from node.network.medium import Weather
from node.network.policy import LocateSettings
from node.types import NS_PER_S, Grade
from node.utc import parse_utc_ns
from tests.field.city import Air, azimuths_rad
from tests.field.detections import BEGIN_NS, FRAME, SITE, TICK_NS, FloatArray, Ground, Sender, holds

C_M_S = 340.3
"""At 15 °C."""
NODES_M = np.array(
    [[0, 0, 8], [400, 50, 8], [350, 420, 8], [-30, 380, 8], [180, -250, 8], [650, 250, 8.0]]
)
SHOT_M = np.array([150.0, 220.0, 0.0])
ELSEWHERE_M = np.array([330.0, 80.0, 0.0])
LOCAL = Ground()
PITTSBURGH = Ground((40.4406, -79.9959, 300.0))
SURVEY_M = 0.1
PUBLISHED_S = 0.6
"""After the sound came."""


class Town:
    """Nodes that hear shots, a locator that hears of them, and all that it said.

    Parameters
    ----------
    introduced
        Whether the locator is told beforehand where nodes stand.
    """

    def __init__(
        self,
        nodes_m: FloatArray = NODES_M,
        *,
        ground: Ground = LOCAL,
        air: Air | None = None,
        introduced: bool = True,
        **changed: Any,
    ) -> None:
        self.nodes_m, self.ground = nodes_m, ground
        self.air = air or Air(C_M_S, np.zeros(2))
        self.locator = Locator(LocateSettings(**changed))
        self.said: list[Incident] = []
        self.now_ns = BEGIN_NS - NS_PER_S
        self.senders = [
            Sender(f"node-{at}", ground.place(place_m, SURVEY_M))
            for at, place_m in enumerate(nodes_m)
        ]
        if introduced:
            for sender in self.senders:
                self.locator.place(SITE, sender.node_id, sender.place)
                self.locator.up(SITE, sender.node_id, True)

    def hears(
        self,
        fired_s: Sequence[float] = (1.0,),
        place_m: FloatArray = SHOT_M,
        *,
        by: Sequence[int] | None = None,
        late_s: dict[int, float] | None = None,
        bearings: bool = False,
        grade: Grade = "gunfire",
        apart: bool = False,
    ) -> list[Detection]:
        """Make what nodes say of shots from one place, in the order in which they hear them.

        Parameters
        ----------
        late_s
            By how much a node is late.
        apart
            Whether each shot is an event of its own.
        """
        by = range(len(self.nodes_m)) if by is None else by
        made = []
        delays_s = self.air.delays_s(place_m, self.nodes_m)
        azimuths = azimuths_rad(place_m, self.nodes_m)
        for node in by:
            heard = [float(at + delays_s[node] + (late_s or {}).get(node, 0.0)) for at in fired_s]
            for times in [[at] for at in heard] if apart else [heard]:
                azimuth_rad = float(azimuths[node]) if bearings else None
                made.append(
                    self.senders[node].detection(times, 1e-5, azimuth_rad=azimuth_rad, grade=grade)
                )
        return sorted(made, key=lambda one: one.onset_utc)

    def push(self, *detections: Detection, at_s: float | None = None) -> list[Incident]:
        """Hand detections over, a while after their last round or at a moment."""
        said: list[Incident] = []
        for one in detections:
            at_ns = parse_utc_ns(one.rounds[-1].utc) + round(PUBLISHED_S * NS_PER_S)
            at_ns = at_ns if at_s is None else BEGIN_NS + round(at_s * NS_PER_S)
            self.wait_until(at_ns)
            said += self._note(self.locator.push(one, self.now_ns))
        return said

    def wait_until(self, at_ns: int) -> list[Incident]:
        """Let time pass."""
        said: list[Incident] = []
        if at_ns - self.now_ns > 60 * NS_PER_S:
            said += self.wait_until(self.now_ns + 60 * NS_PER_S)
            self.now_ns = max(self.now_ns, at_ns - 60 * NS_PER_S)
        while self.now_ns + TICK_NS < at_ns:
            self.now_ns += TICK_NS
            said += self._note(self.locator.tick(self.now_ns))
        self.now_ns = max(self.now_ns, at_ns)
        return said

    def wait(self, seconds: float) -> list[Incident]:
        """Let some seconds pass."""
        return self.wait_until(self.now_ns + round(seconds * NS_PER_S))

    def finish(self) -> list[Incident]:
        """Settle all; give what stands in the end."""
        self._note(self.locator.finish())
        last = {one.incident_id: one for one in self.said}
        return [one for one in last.values() if one.type != "cancel"]

    def _note(self, said: list[Incident]) -> list[Incident]:
        self.said += said
        return said

    def metres(self, incident: Incident) -> FloatArray:
        place_m = self.ground.metres(incident)
        assert place_m is not None
        return place_m

    def off_m(self, incident: Incident, place_m: FloatArray = SHOT_M) -> float:
        return float(np.hypot(*(self.metres(incident) - place_m[:2])))


def fired_s(incident: Incident) -> list[float]:
    return [(parse_utc_ns(one.utc) - BEGIN_NS) / NS_PER_S for one in incident.rounds]


def used(incident: Incident) -> set[str]:
    return {one.node_id for one in incident.nodes if one.used}


def names(*nodes: int) -> set[str]:
    return {f"node-{at}" for at in nodes}


def has_clean_story(said: Sequence[Incident]) -> bool:
    """Whether each incident is new once, then only updated, and ends where it is taken back."""
    stories: dict[str, list[Incident]] = {}
    for one in said:
        stories.setdefault(one.incident_id, []).append(one)
    return all(
        [one.revision for one in story] == list(range(len(story)))
        and story[0].type == "new"
        and all(one.type == "update" for one in story[1:-1])
        and (len(story) == 1 or story[-1].type in ("update", "cancel"))
        for story in stories.values()
    )


# One shot


def test_a_shot_is_told_when_the_third_node_hears_it_and_bettered_by_the_others() -> None:
    town = Town()
    heard = town.hears(bearings=True)
    assert town.push(heard[0]) == []
    first, *_ = town.push(*heard[1:3])
    assert (first.type, first.revision) == ("new", 0)
    town.push(*heard[3:])
    (last,) = town.finish()
    assert last.incident_id == first.incident_id
    assert last.type == "update"
    assert used(last) == names(0, 1, 2, 3, 4, 5)
    assert town.off_m(last) < 0.5
    assert fired_s(last) == pytest.approx([1.0], abs=0.003)
    assert last.local is not None
    assert first.local is not None
    assert last.local.ellipse_95.major_m < first.local.ellipse_95.major_m
    assert last.grade == "gunfire"
    assert last.silent_nodes == ()


def test_the_ellipse_holds_the_place_with_an_air_that_nobody_measured() -> None:
    for of_c, wind_m_s in ((0.99, (3.0, 0.0)), (1.01, (0.0, -3.0)), (1.0, (-2.0, 2.0))):
        town = Town(air=Air(C_M_S * of_c, np.array(wind_m_s)))
        town.push(*town.hears())
        (incident,) = town.finish()
        assert incident.local is not None
        assert holds(incident.local.ellipse_95, town.metres(incident), SHOT_M[:2])
        assert town.off_m(incident) < 3


def test_two_nodes_with_bearings_are_enough() -> None:
    town = Town(NODES_M[:2])
    town.push(*town.hears(bearings=True))
    (incident,) = town.finish()
    assert town.off_m(incident) < 8
    assert incident.why is not None
    assert "bearings of 2" in incident.why


def test_two_nodes_without_bearings_are_not() -> None:
    town = Town(NODES_M[:2])
    town.push(*town.hears())
    assert town.finish() == []


def test_what_no_node_calls_gunfire_is_not_told() -> None:
    town = Town()
    town.push(*town.hears(grade="not_gunfire"))
    assert town.finish() == []


def test_a_surveyed_frame_and_places_on_earth_give_the_same_place() -> None:
    ends = []
    for ground in (LOCAL, PITTSBURGH):
        town = Town(ground=ground)
        town.push(*town.hears())
        (incident,) = town.finish()
        ends.append(town.metres(incident))
        assert (incident.local is None) == (ground is PITTSBURGH)
        assert (incident.position is None) == (ground is not PITTSBURGH)
    assert ends[0] == pytest.approx(ends[1], abs=0.1)


def test_nodes_need_not_be_introduced_where_their_detections_say_where_they_stand() -> None:
    town = Town(introduced=False)
    town.push(*town.hears())
    (incident,) = town.finish()
    assert town.off_m(incident) < 0.5


def test_where_a_node_was_surveyed_wins_over_what_its_detections_say() -> None:
    town = Town()
    wrong = town.senders[1]
    assert isinstance(wrong.place, Local)
    wrong.place = wrong.place.model_copy(update={"x_m": 9000.0, "y_m": -9000.0})
    town.push(*town.hears())
    (incident,) = town.finish()
    assert town.off_m(incident) < 0.5
    assert used(incident) == names(0, 1, 2, 3, 4, 5)


def test_a_node_that_says_nowhere_where_it_stands_is_left_out() -> None:
    town = Town(introduced=False)
    nameless = [one.model_copy(update={"local": None}) for one in town.hears(by=[0])]
    town.push(*nameless, *town.hears(by=[1, 2, 3, 4, 5]))
    (incident,) = town.finish()
    assert used(incident) == names(1, 2, 3, 4, 5)


def test_weather_settles_what_few_nodes_leave_open() -> None:
    cold = Air(331.3 * np.sqrt(1 - 15 / 273.15), np.array([-6.0, 0.0]))
    off_m = []
    for weather in (None, Weather(-15.0, 6.0, 90.0)):
        town = Town(NODES_M[[0, 1, 2, 5]], air=cold)
        if weather is not None:
            town.locator.weather(SITE, weather)
        shot_m = np.array([700.0, 500.0, 0.0])
        town.push(*town.hears(place_m=shot_m))
        (incident,) = town.finish()
        off_m.append(town.off_m(incident, shot_m))
    assert off_m[1] < 0.5 * off_m[0]


def test_a_place_whose_ellipse_is_too_large_is_not_told_and_why_is_said() -> None:
    town = Town(largest_ellipse_m=2.0)
    town.push(*town.hears())
    (incident,) = town.finish()
    assert incident.local is None
    assert incident.position is None
    assert all(one.local is None and one.position is None for one in incident.rounds)
    assert incident.why is not None
    assert "no place, its ellipse would reach" in incident.why
    assert incident.round_count == 1


# Several shots, echoes, several guns


@pytest.mark.parametrize("apart", [False, True])
def test_three_shots_at_an_even_cadence_are_three_rounds_of_one_incident(apart: bool) -> None:
    town = Town(NODES_M[:4])
    town.push(*town.hears((1.0, 1.25, 1.5), apart=apart))
    (incident,) = town.finish()
    assert incident.round_count == len(incident.rounds) == 3
    assert fired_s(incident) == pytest.approx([1.0, 1.25, 1.5], abs=0.004)
    assert incident.cadence_rpm == pytest.approx(240, rel=0.01)
    assert town.off_m(incident) < 1


@pytest.mark.parametrize("apart", [False, True])
def test_echo_families_make_no_further_incident(apart: bool) -> None:
    town = Town()
    heard = town.hears((1.0, 1.3, 1.6), apart=apart)
    for node, late_s in ((0, 0.21), (1, 0.13), (2, 0.32)):
        heard += town.hears((1.0, 1.3, 1.6), by=[node], late_s={node: late_s}, apart=apart)
    town.push(*sorted(heard, key=lambda one: one.rounds[-1].utc))
    (incident,) = town.finish()
    assert incident.round_count == 3
    assert town.off_m(incident) < 1


def test_the_mirror_of_shots_in_a_long_wall_is_no_incident() -> None:
    mirror_m = np.array([2 * 500 - SHOT_M[0], SHOT_M[1], 0.0])
    town = Town()
    heard = town.hears((1.0, 1.4)) + town.hears((1.0, 1.4), mirror_m, by=[0, 1, 4])
    town.push(*sorted(heard, key=lambda one: one.rounds[-1].utc))
    (incident,) = town.finish()
    assert town.off_m(incident) < 1


def test_two_shooters_apart_make_two_incidents() -> None:
    town = Town()
    heard = town.hears((1.0, 1.6), bearings=True)
    heard += town.hears((1.33,), ELSEWHERE_M, bearings=True)
    town.push(*sorted(heard, key=lambda one: one.rounds[-1].utc))
    one, other = sorted(town.finish(), key=lambda incident: -incident.round_count)
    assert fired_s(one) == pytest.approx([1.0, 1.6], abs=0.004)
    assert town.off_m(one) < 1
    assert fired_s(other) == pytest.approx([1.33], abs=0.004)
    assert town.off_m(other, ELSEWHERE_M) < 1


def test_shots_from_one_place_after_a_long_pause_are_another_incident() -> None:
    town = Town(gap_s=5.0)
    town.push(*town.hears((1.0,)))
    town.push(*town.hears((21.0,)))
    one, other = town.finish()
    assert one.incident_id != other.incident_id
    assert fired_s(one) == pytest.approx([1.0], abs=0.004)
    assert fired_s(other) == pytest.approx([21.0], abs=0.004)


def test_shots_from_one_place_soon_after_join_its_incident() -> None:
    town = Town(gap_s=5.0)
    town.push(*town.hears((1.0,)))
    town.push(*town.hears((4.0,)))
    (incident,) = town.finish()
    assert fired_s(incident) == pytest.approx([1.0, 4.0], abs=0.004)


def test_sites_know_nothing_of_each_other() -> None:
    town = Town(introduced=False)
    heard = town.hears()
    elsewhere = [one.model_copy(update={"site": "village"}) for one in heard[:2]]
    town.push(*elsewhere, *heard[2:4])
    assert town.finish() == []


# Nodes that are wrong, silent or down


@pytest.mark.parametrize("by_s", [-1.0, 1.0])
def test_a_clock_that_is_off_by_a_second_moves_nothing_and_is_told_after_two_incidents(
    by_s: float,
) -> None:
    town = Town()
    for at, place_m in enumerate((SHOT_M, ELSEWHERE_M)):
        town.push(*town.hears((1.0 + 30 * at,), place_m, late_s={2: by_s}))
        town.wait(25)
    one, other = town.finish()
    assert town.off_m(one) < 0.5
    assert town.off_m(other, ELSEWHERE_M) < 0.5
    assert set(town.locator.doubts) == {(SITE, "node-2")}
    said = town.locator.doubts[SITE, "node-2"]
    assert said.startswith("its clock seems ")
    assert float(said.split()[3]) == pytest.approx(1.0, abs=0.01)
    assert ("ahead" if by_s > 0 else "behind") in said
    assert "node-2" not in used(other)


def test_a_doubt_is_taken_back_after_honest_incidents() -> None:
    town = Town()
    for at in range(2):
        town.push(*town.hears((1.0 + 30 * at,), late_s={2: 1.0}))
        town.wait(25)
    assert (SITE, "node-2") in town.locator.doubts
    for at in range(2, 6):
        town.push(*town.hears((1.0 + 30 * at,)))
        town.wait(25)
    assert town.locator.doubts == {}


def test_a_node_that_ought_to_have_heard_a_shot_and_did_not_is_named() -> None:
    town = Town()
    town.push(*town.hears(by=[1, 2, 3, 4, 5]))
    (incident,) = town.finish()
    assert incident.silent_nodes == ("node-0",)


def test_a_node_farther_off_than_those_that_heard_a_shot_is_not_silent() -> None:
    town = Town()
    town.push(*town.hears(by=[0, 1, 2, 3, 4]))
    (incident,) = town.finish()
    assert incident.silent_nodes == ()


def test_a_node_that_is_down_is_not_silent() -> None:
    town = Town()
    town.locator.up(SITE, "node-0", False)
    town.push(*town.hears(by=[1, 2, 3, 4, 5]))
    (incident,) = town.finish()
    assert incident.silent_nodes == ()


def test_a_node_that_is_up_again_is_silent_again() -> None:
    town = Town()
    town.locator.up(SITE, "node-0", False)
    town.locator.up(SITE, "node-0", True)
    town.push(*town.hears(by=[1, 2, 3, 4, 5]))
    (incident,) = town.finish()
    assert incident.silent_nodes == ("node-0",)


def test_a_node_that_is_down_but_was_heard_counts() -> None:
    town = Town()
    town.locator.up(SITE, "node-0", False)
    town.push(*town.hears())
    (incident,) = town.finish()
    assert "node-0" in used(incident)


# As messages come


def test_each_incident_is_new_once_and_its_revisions_rise_by_one() -> None:
    town = Town()
    heard = town.hears((1.0, 1.6), apart=True) + town.hears((1.33,), ELSEWHERE_M)
    town.push(*sorted(heard, key=lambda one: one.rounds[-1].utc))
    town.wait(20)
    town.push(*town.hears((60.0,)))
    town.finish()
    assert has_clean_story(town.said)
    assert max(Counter((one.incident_id, one.revision) for one in town.said).values()) == 1


def test_a_detection_that_comes_again_changes_nothing() -> None:
    town = Town()
    heard = town.hears()
    town.push(*heard)
    town.wait(20)
    before = len(town.said)
    town.push(*heard, at_s=25.0)
    town.push(*heard, at_s=26.0)
    town.finish()
    assert len(town.said) == before


def test_a_detection_that_comes_twice_at_once_counts_once() -> None:
    once, twice = Town(), Town()
    once.push(*once.hears())
    twice.push(*(one for one in twice.hears() for _ in range(2)))
    assert twice.finish() == once.finish()


def test_the_same_revision_with_other_times_changes_nothing() -> None:
    town = Town()
    heard = town.hears()
    town.push(*heard)
    town.wait(2)
    (other,) = town.hears(by=[2], late_s={2: 0.5})
    (first,) = (one for one in heard if one.node_id == "node-2")
    town.push(other.model_copy(update={"event_id": first.event_id}), at_s=5.0)
    (incident,) = town.finish()
    assert used(incident) == names(0, 1, 2, 3, 4, 5)


def test_a_later_revision_of_a_detection_replaces_the_first() -> None:
    town = Town()
    heard = town.hears(late_s={2: 0.05})
    town.push(*heard)
    (wrong,) = (one for one in heard if one.node_id == "node-2")
    at_s = 1.0 + float(town.air.delays_s(SHOT_M, NODES_M)[2])
    right = town.senders[2].detection([at_s], 1e-5, again=wrong)
    town.wait(2)
    town.push(right, at_s=5.0)
    (incident,) = town.finish()
    assert "node-2" in used(incident)
    (witness,) = (one for one in incident.nodes if one.node_id == "node-2")
    assert witness.residual_s == pytest.approx(0, abs=0.002)
    assert has_clean_story(town.said)


def test_an_older_revision_that_comes_late_changes_nothing() -> None:
    ends = []
    for swapped in (False, True):
        town = Town()
        heard = town.hears()
        first = heard[0]
        onset_s = (parse_utc_ns(first.onset_utc) - BEGIN_NS) / NS_PER_S
        sender = town.senders[int(first.node_id[-1])]
        later = sender.detection([onset_s, onset_s + 0.4], 1e-5, again=first)
        pair = (later, first) if swapped else (first, later)
        town.push(*pair, at_s=2.5)
        town.push(*heard[1:], at_s=2.6)
        ends.append([(used(one), fired_s(one), one.local) for one in town.finish()])
    assert ends[0] == ends[1]


def test_a_later_revision_with_a_further_round_is_counted() -> None:
    town = Town()
    heard = town.hears((1.0,))
    town.push(*heard)
    delays_s = town.air.delays_s(SHOT_M, NODES_M)
    for one in heard:
        node = int(one.node_id[-1])
        times = [float(1.0 + delays_s[node]), float(1.5 + delays_s[node])]
        town.push(town.senders[node].detection(times, 1e-5, again=one), at_s=4.0)
    (incident,) = town.finish()
    assert fired_s(incident) == pytest.approx([1.0, 1.5], abs=0.004)
    assert has_clean_story(town.said)


def cancelled(one: Detection) -> Detection:
    return one.model_copy(update={"type": "cancel", "revision": one.revision + 1})


def test_a_detection_that_its_node_takes_back_is_withdrawn() -> None:
    town = Town()
    heard = town.hears()
    town.push(*heard)
    (gone,) = (one for one in heard if one.node_id == "node-1")
    town.push(cancelled(gone), at_s=4.0)
    (incident,) = town.finish()
    assert used(incident) == names(0, 2, 3, 4, 5)
    assert town.off_m(incident) < 0.5


def test_an_incident_whose_detections_are_taken_back_is_taken_back() -> None:
    town = Town(NODES_M[:3])
    heard = town.hears()
    town.push(*heard)
    town.wait(2)
    assert len({one.incident_id for one in town.said}) == 1
    town.push(cancelled(heard[0]), at_s=5.0)
    assert town.finish() == []
    assert town.said[-1].type == "cancel"
    assert has_clean_story(town.said)


def test_all_detections_taken_back_at_once_leave_no_incident() -> None:
    town = Town()
    heard = town.hears()
    town.push(*heard)
    town.wait(20)
    town.push(*map(cancelled, heard), at_s=30.0)
    assert town.finish() == []
    assert town.said[-1].type == "cancel"
    assert has_clean_story(town.said)


def test_what_comes_minutes_late_joins_its_incident() -> None:
    town = Town()
    heard = town.hears()
    late = [one for one in heard if one.node_id == "node-3"]
    town.push(*(one for one in heard if one not in late))
    town.wait(60)
    (before,) = {one.incident_id for one in town.said}
    assert "node-3" not in used(town.said[-1])
    town.push(*late, at_s=200.0)
    (incident,) = town.finish()
    assert incident.incident_id == before
    assert used(incident) == names(0, 1, 2, 3, 4, 5)
    assert has_clean_story(town.said)


def test_a_third_node_that_comes_minutes_late_still_makes_the_incident() -> None:
    town = Town(NODES_M[:3])
    heard = town.hears()
    town.push(*heard[:2])
    town.push(heard[2], at_s=200.0)
    (incident,) = town.finish()
    assert fired_s(incident) == pytest.approx([1.0], abs=0.004)


def test_what_comes_after_all_was_forgotten_changes_nothing() -> None:
    town = Town(keep_s=60.0)
    heard = town.hears()
    town.push(*heard[:5])
    town.wait(5)
    before = len(town.said)
    town.push(heard[5], at_s=300.0)
    town.finish()
    assert before == len([one for one in town.said if parse_utc_ns(one.utc) < BEGIN_NS + 10**10])


def test_the_same_stream_gives_the_same_messages() -> None:
    said = []
    for _ in range(2):
        town = Town()
        heard = town.hears((1.0, 1.6)) + town.hears((1.33,), ELSEWHERE_M)
        town.push(*sorted(heard, key=lambda one: one.rounds[-1].utc))
        town.finish()
        said.append(town.said)
    assert said[0] == said[1]


@settings(max_examples=15, derandomize=True)
@given(st.permutations(range(12)), st.booleans())
def test_the_order_in_which_nodes_messages_come_does_not_change_what_stands_in_the_end(
    order: list[int], bearings: bool
) -> None:
    town = Town()
    heard = town.hears((1.0, 1.6), bearings=bearings, apart=True)
    for at, which in enumerate(order):
        town.push(heard[which], at_s=3.0 + 0.15 * at)
    (incident,) = town.finish()
    assert fired_s(incident) == pytest.approx([1.0, 1.6], abs=0.004)
    assert town.off_m(incident) < 1
    assert used(incident) == names(0, 1, 2, 3, 4, 5)
    assert has_clean_story(town.said)


@settings(max_examples=8, derandomize=True)
@given(st.permutations(range(12)))
def test_neither_does_the_order_when_two_guns_are_fired(order: list[int]) -> None:
    town = Town()
    heard = town.hears((1.0, 1.6), bearings=True)
    heard += town.hears((1.33,), ELSEWHERE_M, bearings=True)
    for at, which in enumerate(order):
        town.push(heard[which], at_s=3.0 + 0.15 * at)
    ends = sorted(town.finish(), key=lambda incident: -incident.round_count)
    assert [one.round_count for one in ends] == [2, 1]
    for incident, place_m in zip(ends, (SHOT_M, ELSEWHERE_M), strict=True):
        assert town.off_m(incident, place_m) < 1
        assert used(incident) == names(0, 1, 2, 3, 4, 5)
    assert has_clean_story(town.said)


def test_nothing_is_said_before_anything_is_heard() -> None:
    locator = Locator()
    assert locator.tick(BEGIN_NS) == []
    assert locator.finish() == []
    assert locator.doubts == {}


@pytest.mark.parametrize(
    "place",
    [
        Position(lat_deg=90.0, lon_deg=0.0, alt_m=0.0, sigma_m=1.0),
        Position(lat_deg=-40.4406, lon_deg=100.0041, alt_m=0.0, sigma_m=1.0),
        Local(frame=FRAME, x_m=1e9, y_m=-1e9, z_m=0.0, sigma_m=0.0),
    ],
)
def test_a_node_that_claims_to_stand_at_the_end_of_the_world_harms_nobody(
    place: Position | Local,
) -> None:
    town = Town(ground=LOCAL if isinstance(place, Local) else PITTSBURGH)
    liar = Sender("liar", place)
    town.push(liar.detection([1.2], 1e-5), at_s=2.0)
    town.push(*town.hears(), at_s=2.5)
    (incident,) = town.finish()
    assert used(incident) == names(0, 1, 2, 3, 4, 5)
    assert town.off_m(incident) < 0.5


# What is heard at once, and what is due


def due(town: Town) -> list[list[Incident]]:
    """Do all that is due, one thing after the other."""
    return list(iter(lambda: town.locator.work(town.now_ns), None))


def test_hearing_leaves_what_is_due_to_work() -> None:
    town = Town()
    heard = town.hears()
    (told,) = town.push(*heard[:4])
    town.now_ns += NS_PER_S // 5
    for one in heard[4:]:
        assert town.locator.hear(one, town.now_ns) == []
    assert town.locator.work(town.now_ns) is None, "nothing is due yet"
    town.now_ns += NS_PER_S
    stray = town.hears((2.5,), ELSEWHERE_M, by=[0])[0]
    assert town.locator.hear(stray, town.now_ns) == []
    ((updated,),) = due(town)
    assert (updated.incident_id, updated.type) == (told.incident_id, "update")
    assert used(updated) == names(0, 1, 2, 3, 4, 5)
    assert town.locator.work(town.now_ns) is None


def test_pushing_is_to_let_time_pass_and_then_to_hear() -> None:
    said: list[list[list[Incident]]] = []
    for at_once in (True, False):
        town = Town()
        heard = town.hears((1.0, 1.6), apart=True) + town.hears((15.33,), ELSEWHERE_M)
        told = []
        for at, one in enumerate(sorted(heard, key=lambda one: one.rounds[-1].utc)):
            now_ns = parse_utc_ns(one.rounds[-1].utc) + (1 + at % 3) * NS_PER_S // 2
            town.now_ns = max(town.now_ns, now_ns)
            if at_once:
                told.append(town.locator.push(one, town.now_ns))
            else:
                before = town.locator.tick(town.now_ns)
                told.append(before + town.locator.hear(one, town.now_ns))
        said.append([*told, town.locator.finish()])
    assert said[0] == said[1]
    assert len([one for told in said[0] for one in told if one.type == "new"]) == 2
    assert any(len(told) > 1 or (told and told[0].type == "update") for told in said[0][:-1])


def test_time_that_passes_does_all_that_is_due_one_after_the_other() -> None:
    towns = Town(), Town()
    for town in towns:
        for one in town.hears() + town.hears((20.0,), ELSEWHERE_M):
            town.now_ns = max(town.now_ns, BEGIN_NS + 2 * NS_PER_S)
            town.locator.hear(one, town.now_ns)
        town.now_ns += 60 * NS_PER_S
    told = due(towns[0])
    assert sum(map(bool, told)) > 1
    assert towns[1].locator.tick(towns[1].now_ns) == [each for some in told for each in some]


@pytest.mark.parametrize("put_off", [False, True])
def test_what_was_heard_since_is_told_before_incidents_are_gone_through_unless_long_put_off(
    put_off: bool,
) -> None:
    town = Town()
    for at in range(2):  # that a clock is off is told once two incidents were gone through
        town.push(*town.hears((1.0 + 30 * at,), late_s={2: 1.0}))
        town.wait(25 if at == 0 else 4)
    assert town.locator.doubts == {}
    town.now_ns = BEGIN_NS + (90 if put_off else 45) * NS_PER_S  # nothing was done meanwhile
    since_s = (town.now_ns - BEGIN_NS) / NS_PER_S - 2.5
    told = [
        new
        for one in town.hears((since_s,), ELSEWHERE_M, by=[0, 1, 3, 4, 5])
        for new in town.locator.hear(one, town.now_ns)
    ]
    assert [one.type for one in told] == ["new"]
    town.now_ns += NS_PER_S
    orders = []
    while (new := town.locator.work(town.now_ns)) is not None:
        updated = any(one.incident_id == told[0].incident_id for one in new)
        orders.append((updated, bool(town.locator.doubts)))
    told_better, gone_through = (True, False), (False, True)
    assert orders[0] == (gone_through if put_off else told_better)
    assert orders[1] == ((True, True) if put_off else gone_through)


# Before all have told, and after


SLOWEST_S = 700 / 310 + PUBLISHED_S + 0.05
"""After a shot all have told that heard it up to 700 m off."""


def ring(nodes: int, away_m: float) -> FloatArray:
    """Place nodes round the shot."""
    at = 0.2 + np.arange(nodes) * 2 * np.pi / nodes
    east_m, north_m = SHOT_M[0] + away_m * np.sin(at), SHOT_M[1] + away_m * np.cos(at)
    return np.column_stack([east_m, north_m, np.full(nodes, 8.0)])


THREE_AND_A_FAR_ONE_M = np.vstack([NODES_M[:3], [150.0, 910.0, 8.0]])
"""Three that hear a shot, and one 690 m off that may."""

NEAR_AND_FAR_M = np.vstack([ring(3, 250.0), ring(8, 480.0), [[20_000.0, 0.0, 8.0]]])
"""Three that hear a shot, eight that hear it 0.7 s later, and one that hears others."""


def as_late_as(town: Town, late_s: float) -> None:
    """Have the last node tell a hundred times of what was no shot, so much later."""
    for at in range(100):
        onset_s = 1.0 + 0.2 * at
        stray = town.senders[-1].detection([onset_s], 1e-5, grade="not_gunfire")
        assert town.push(stray, at_s=onset_s + late_s) == []


def of_three(town: Town, late_s: float) -> list[Incident]:
    """Give what is said at once of a shot at 40 s whose three words come so much later."""
    said = []
    for one in town.hears((40.0,), by=[0, 1, 2]):
        came_s = (parse_utc_ns(one.onset_utc) - BEGIN_NS) / NS_PER_S
        said += town.push(one, at_s=came_s + late_s)
    return said


def louder(heard: list[Detection], snr_db: float) -> list[Detection]:
    """Let nodes hear it so much above the noise."""
    made = []
    for one in heard:
        rounds = tuple(each.model_copy(update={"snr_db": snr_db}) for each in one.rounds)
        made.append(one.model_copy(update={"rounds": rounds}))
    return made


def test_a_shot_is_told_at_the_third_word_while_others_may_still_come() -> None:
    town = Town(NEAR_AND_FAR_M, early_log_odds=4.0)
    as_late_as(town, 1.5)
    (first,) = of_three(town, 1.5)
    assert first.type == "new"
    assert used(first) == names(0, 1, 2)


def test_a_shot_that_all_others_ought_to_have_told_of_by_now_is_not_told() -> None:
    town = Town(NEAR_AND_FAR_M, early_log_odds=4.0)
    as_late_as(town, 0.0)
    assert of_three(town, 1.5) == []
    town.wait(20)
    assert town.finish() == town.said == []


def test_what_was_told_early_is_taken_back_when_all_others_stay_silent() -> None:
    town = Town(NEAR_AND_FAR_M, early_log_odds=4.0)
    as_late_as(town, 1.5)
    (first,) = of_three(town, 1.5)
    town.wait(5)
    assert all(one.type != "cancel" for one in town.said)
    town.wait(10)
    assert (town.said[-1].incident_id, town.said[-1].type) == (first.incident_id, "cancel")
    assert town.finish() == []
    assert has_clean_story(town.said)


def test_what_was_told_early_stands_where_the_others_were_down() -> None:
    town = Town(NEAR_AND_FAR_M, early_log_odds=4.0)
    for node in range(3, 11):
        town.locator.up(SITE, f"node-{node}", False)
    as_late_as(town, 1.5)
    (first,) = of_three(town, 1.5)
    (incident,) = town.finish()
    assert incident.incident_id == first.incident_id
    assert "cancel" not in {one.type for one in town.said}


@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_weak_source_is_told_once_when_all_must_have_told(at_the_end: bool) -> None:
    town = Town(THREE_AND_A_FAR_ONE_M)
    assert town.push(*town.hears(by=[0, 1, 2])) == []
    if at_the_end:
        town.finish()
    else:
        town.wait_until(BEGIN_NS + round((1.0 + SLOWEST_S - 0.05) * NS_PER_S))
        assert town.said == []
        (told,) = town.wait(0.6)
        assert (told.type, used(told)) == ("new", names(0, 1, 2))
        town.wait(30)
    assert {one.type for one in town.said[1:]} <= {"update"}
    assert has_clean_story(town.said)
    (incident,) = town.finish()
    assert town.off_m(incident) < 1


def test_where_nobody_else_listens_nobody_is_waited_for() -> None:
    town = Town(NODES_M[:3])
    assert [one.type for one in town.push(*town.hears())] == ["new"]


def test_a_strong_source_is_told_at_once() -> None:
    town = Town(THREE_AND_A_FAR_ONE_M)
    assert [one.type for one in town.push(*louder(town.hears(by=[0, 1, 2]), 35.0))] == ["new"]


def test_how_strong_a_source_told_at_once_must_be_is_set() -> None:
    town = Town(THREE_AND_A_FAR_ONE_M, early_log_odds=4.5)
    assert [one.type for one in town.push(*town.hears(by=[0, 1, 2]))] == ["new"]


def test_a_weak_source_that_all_others_are_silent_of_is_never_told() -> None:
    town = Town(NEAR_AND_FAR_M)
    as_late_as(town, 1.5)
    assert of_three(town, 1.5) == []
    town.wait(30)
    assert town.finish() == town.said == []


def test_a_weak_source_is_told_by_a_fourth_word_and_not_again_after_the_wait() -> None:
    town = Town()
    heard = town.hears()
    assert town.push(*heard[:3]) == []
    (told,) = town.push(heard[3])
    assert used(told) == {one.node_id for one in heard[:4]}
    town.wait(10)
    (incident,) = town.finish()
    assert incident.incident_id == told.incident_id
    assert has_clean_story(town.said)


def test_a_weak_source_whose_word_is_taken_back_during_the_wait_is_not_told() -> None:
    town = Town(THREE_AND_A_FAR_ONE_M)
    heard = town.hears(by=[0, 1, 2])
    assert town.push(*heard) == []
    assert town.push(cancelled(heard[-1])) == []
    town.wait(10)
    assert town.finish() == town.said == []


@pytest.mark.parametrize("lasting_s", [0.0, 8.0, 9.0])
def test_a_burst_that_lasts_is_looked_at_again_once_and_not_for_ever(lasting_s: float) -> None:
    town = Town(THREE_AND_A_FAR_ONE_M, early_log_odds=100.0)
    uneven = np.array([0.0, 0.09, 0.24, 0.3, 0.49, 0.56, 0.72, 0.79, 1.0])
    fired = np.unique(1.0 + lasting_s * uneven).tolist()
    assert town.push(*town.hears(fired, by=[0, 1, 2])) == []
    done: list[list[Incident]] = []
    for _ in range(50):
        town.now_ns += NS_PER_S // 10
        some = (town.locator.work(town.now_ns) for _ in range(20))
        done += [told for told in some if told is not None]
    assert 1 <= len(done) < 5
    assert [one.type for one in done[0]] == ["new"]
    town.said += [one for told in done for one in told]
    (incident,) = town.finish()
    assert fired_s(incident) == pytest.approx(fired, abs=0.004)
    assert has_clean_story(town.said)


# How much is told round a source, and what becomes of two at one place


@pytest.mark.parametrize(
    ("words", "ended_s", "told"), [(0, 58, True), (6, 58, False), (6, 5, True)]
)
def test_where_much_is_told_of_late_a_source_must_be_stronger(
    words: int, ended_s: int, told: bool
) -> None:
    town = Town(NODES_M[:3], least_log_odds=3.5)
    strays = [
        town.senders[at % 3].detection([ended_s - 3.0 * (3 * words - at)], 1e-5)
        for at in range(3 * words)
    ]
    assert town.push(*strays) == []
    town.push(*town.hears((75.0 if ended_s < 50 else 60.0,)))
    assert bool(town.finish()) is told


def test_two_incidents_at_one_place_become_one_by_a_shot_between_them_that_comes_late() -> None:
    town = Town(gap_s=5.0)
    town.push(*town.hears((1.0,)))
    town.push(*town.hears((8.0,)))
    town.wait(20)
    assert len({one.incident_id for one in town.said}) == 2
    town.push(*town.hears((4.5,)), at_s=40.0)
    town.wait(20)
    (incident,) = town.finish()
    assert fired_s(incident) == pytest.approx([1.0, 4.5, 8.0], abs=0.004)
    assert Counter(one.type for one in town.said)["cancel"] == 1
    assert has_clean_story(town.said)


def test_of_two_incidents_that_stand_at_one_place_the_weaker_ends_when_the_stronger_is_fitted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    town = Town(np.vstack([NODES_M, [300.0, -100.0, 8.0], [100.0, 150.0, 8.0]]), settle_s=60.0)
    town.push(*town.hears((1.0,), by=[0, 1, 2, 3, 4, 5]))
    (weaker,) = {one.incident_id for one in town.said}
    heard = town.hears((8.0,))
    town.push(*heard[:7])
    town.wait(10)
    assert len({one.incident_id for one in town.said}) == 2
    (site,) = town.locator._all()
    monkeypatch.setattr(site, "_settings", site._settings.model_copy(update={"gap_s": 20.0}))
    town.push(heard[7], at_s=25.0)
    said = town.wait(3)
    assert ("cancel", weaker) in {(one.type, one.incident_id) for one in said}
    assert town.locator.work(town.now_ns) is None


def test_one_word_that_is_off_at_several_incidents_is_no_doubt_and_a_wrong_clock_is() -> None:
    town = Town(np.vstack([NODES_M, [300.0, -100.0, 8.0]]))
    places_m = SHOT_M, ELSEWHERE_M, np.array([50.0, 350.0, 0.0])
    heard = town.hears((12.6,), by=[2])
    for at, place_m in enumerate(places_m):
        heard += town.hears((10.0 + 0.9 * at,), place_m, by=[0, 1, 3, 4, 5])
    town.push(*sorted(heard, key=lambda one: one.rounds[-1].utc))
    town.wait(25)
    assert len({one.incident_id for one in town.said}) == 3
    assert town.locator.doubts == {}
    for at, place_m in enumerate(places_m[:2]):
        town.push(*town.hears((60.0 + 30 * at,), place_m, late_s={6: 1.0}))
        town.wait(25)
    assert set(town.locator.doubts) == {(SITE, "node-6")}
    assert town.locator.doubts[SITE, "node-6"].endswith("s ahead, by 2 shots")


def test_a_word_that_was_off_once_makes_no_doubt_when_its_incident_is_told_anew() -> None:
    town = Town()
    heard = town.hears(late_s={2: 1.0})
    last = [one for one in heard if one.node_id == "node-5"]
    town.push(*(one for one in heard if one not in last))
    town.wait(20)
    town.push(*last, at_s=30.0)
    (incident,) = town.finish()
    assert used(incident) == names(0, 1, 3, 4, 5)
    assert all(one.doubt is None for told in town.said for one in told.nodes)
    assert town.locator.doubts == {}
