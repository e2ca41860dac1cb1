"""Which rounds of other nodes are searched together with a node's own."""

from __future__ import annotations

import math

import numpy as np
import pytest

from node.messages.detection import Local
from node.network.memory import Memory
from node.network.neighbours import SLACK_S, SLOWEST_M_S, beside
from node.types import Grade
from tests.field.city import azimuths_rad
from tests.field.detections import BEGIN_NS, FRAME, Sender

C_M_S = 340.0
REACH_M = 1500.0
NODES_M = np.array([[0, 0, 5], [300, 0, 5], [0, 400, 5], [-2500, -2500, 5.0]])
SHOT_M = np.array([150.0, 220.0, 5.0])


class Street:
    """A memory of what a few nodes heard, and what of it is searched."""

    def __init__(self) -> None:
        self.memory = Memory(BEGIN_NS, REACH_M)
        self.senders: list[Sender] = []
        for at, (x, y, z) in enumerate(NODES_M.tolist()):
            place = Local(frame=FRAME, x_m=x, y_m=y, z_m=z, sigma_m=0.5)
            self.senders.append(Sender(f"node-{at}", place))
            self.memory.place(f"node-{at}", (x, y, z), 0.5)

    def hear(
        self,
        node: int,
        *times_s: float,
        azimuth_rad: float | None = None,
        grade: Grade = "gunfire",
    ) -> list[int]:
        """Have a node hear rounds; give their rows."""
        made = self.senders[node].detection(times_s, 1e-4, azimuth_rad=azimuth_rad, grade=grade)
        return list(map(int, self.memory.take(made, node).rows))

    def beside(self, own: list[int]) -> list[int]:
        """Give the rows that are searched with some of the first node."""
        found = beside(self.memory, 0, np.array(own), reach_m=REACH_M, speed_m_s=C_M_S)
        return sorted(found.tolist())


def test_a_round_of_another_node_is_taken_that_a_shots_sound_may_have_reached_by_then() -> None:
    street = Street()
    own = street.hear(0, 10.0)
    most_s = 300 / SLOWEST_M_S + SLACK_S
    early, late = street.hear(1, 10.0 - most_s + 0.01), street.hear(1, 10.0 + most_s - 0.01)
    street.hear(1, 10.0 - most_s - 0.01)
    street.hear(1, 10.0 + most_s + 0.01)
    street.hear(3, 10.0)  # 3.5 km: no shot reaches both
    assert street.beside(own) == early + late


def test_a_round_is_taken_that_is_in_time_for_any_of_the_nodes_own() -> None:
    street = Street()
    own = street.hear(0, 10.0, 14.0)
    of_second = street.hear(1, 14.5)
    assert street.beside(own) == of_second
    assert street.beside(own[:1]) == []


def test_a_round_that_belongs_to_an_incident_is_not_taken() -> None:
    street = Street()
    own = street.hear(0, 10.0)
    claimed, free = street.hear(1, 10.2), street.hear(1, 10.3)
    street.memory.claim(np.array(claimed), 7)
    assert street.beside(own) == free


def test_nothing_else_of_the_node_itself_is_taken() -> None:
    street = Street()
    own = street.hear(0, 10.0)
    street.hear(0, 10.2)
    other = street.hear(1, 10.2)
    assert street.beside(own) == other


def test_of_a_node_three_at_most_are_taken_the_likeliest_gunfire() -> None:
    street = Street()
    own = street.hear(0, 10.0)
    street.hear(1, 10.05, grade="not_gunfire")
    sure = [row for at_s in (10.1, 10.2, 10.3) for row in street.hear(1, at_s)]
    street.hear(1, 10.4, grade="probable_gunfire")
    of_another = street.hear(2, 10.5)
    assert street.beside(own) == sure + of_another


def test_of_a_long_burst_the_first_round_is_taken_before_later_ones_of_another_event() -> None:
    street = Street()
    own = street.hear(0, 10.0)
    burst = street.hear(1, 10.1, 10.2, 10.3, 10.4)
    single = street.hear(1, 10.5)
    assert street.beside(own) == burst[:2] + single


@pytest.mark.parametrize(("off_deg", "meets"), [(0, True), (25, True), (-25, True), (35, False)])
def test_bearings_that_miss_each_other_by_more_than_thirty_degrees_are_of_two_shots(
    off_deg: float, meets: bool
) -> None:
    street = Street()
    times_s = 10.0 + np.linalg.norm(NODES_M - SHOT_M, axis=1) / C_M_S
    azimuths = azimuths_rad(SHOT_M, NODES_M)
    own = street.hear(0, float(times_s[0]), azimuth_rad=float(azimuths[0]))
    turned = float(azimuths[1]) + math.radians(off_deg)
    other = street.hear(1, float(times_s[1]), azimuth_rad=turned)
    assert street.beside(own) == (other if meets else [])


def test_only_an_events_first_round_is_judged_by_its_bearing() -> None:
    times_s = 10.0 + np.linalg.norm(NODES_M - SHOT_M, axis=1) / C_M_S
    azimuths = azimuths_rad(SHOT_M, NODES_M)
    street = Street()
    own = street.hear(0, float(times_s[0]), float(times_s[0]) + 0.1, azimuth_rad=float(azimuths[0]))
    first, second = street.hear(
        1, float(times_s[1]), float(times_s[1]) + 0.1, azimuth_rad=float(azimuths[1]) + math.pi / 2
    )
    assert street.beside(own) == [second]
    assert street.beside(own[1:]) == [first, second]


def test_a_round_without_a_bearing_is_taken_by_its_time_alone() -> None:
    street = Street()
    own = street.hear(0, 10.0, azimuth_rad=math.pi)
    other = street.hear(1, 10.2)
    assert street.beside(own) == other
