"""What the nodes of a site heard lately, and that it is forgotten."""

from __future__ import annotations

import numpy as np
import pytest

from node.messages import Detection
from node.messages.detection import Local
from node.network.memory import NOBODY, Memory
from node.types import Grade
from tests.field.detections import BEGIN_NS, Sender

REACH_M = 1500.0
ROWS = 4096
"""So many rows are there before there must be more."""


class Site:
    """A memory, and senders in a row of nodes 100 m apart."""

    def __init__(self, nodes: int = 4) -> None:
        self.memory = Memory(BEGIN_NS, REACH_M)
        self.senders: list[Sender] = []
        for at in range(nodes):
            place = Local(frame="f", x_m=100.0 * at, y_m=0.0, z_m=5.0, sigma_m=0.5)
            self.senders.append(Sender(f"node-{at}", place))
            self.memory.place(f"node-{at}", (100.0 * at, 0.0, 5.0), 0.5)

    def hear(self, node: int, *times_s: float, grade: Grade = "gunfire") -> Detection:
        """Have the memory take what a node heard."""
        made = self.senders[node].detection(times_s, 1e-4, grade=grade)
        self.memory.take(made, node)
        return made

    def rows(
        self, begins_s: float = -1e3, ends_s: float = 1e4, far_m: float = REACH_M
    ) -> list[int]:
        """Give the rows that are heard round the first node."""
        return sorted(self.memory.heard(np.zeros(3), REACH_M, begins_s, ends_s).tolist())


def test_a_node_whose_place_is_not_known_has_no_index() -> None:
    memory = Site().memory
    assert memory.node("node-2") == 2
    assert memory.node("stranger") is None


def test_a_node_that_moves_keeps_its_index() -> None:
    memory = Site().memory
    memory.place("node-1", (7.0, 8.0, 9.0), 0.1)
    assert memory.node("node-1") == 1
    assert memory.places_m[1].tolist() == [7.0, 8.0, 9.0]
    assert memory.near(np.zeros(3), 50.0).tolist() == [0, 1]


def test_nodes_within_a_radius_come_in_order() -> None:
    memory = Site(9).memory
    assert memory.near(np.array([420.0, 0.0, 0.0]), 130.0).tolist() == [3, 4, 5]


def test_each_round_is_a_row_with_its_time_and_what_it_is_worth() -> None:
    site = Site()
    site.hear(1, 2.0, 2.5)
    rows = np.array(site.rows())
    assert site.memory.column("time_s", rows) == pytest.approx([2.0, 2.5])
    assert site.memory.nodes_of(rows).tolist() == [1, 1]
    assert site.memory.column("first", rows).tolist() == [True, False]
    assert site.memory.column("graded", rows).tolist() == [True, True]


def test_what_is_no_gunfire_is_likelier_clutter() -> None:
    site = Site()
    for node, grade in enumerate(("gunfire", "probable_gunfire", "not_gunfire")):
        site.hear(node, 1.0, grade=grade)  # type: ignore[arg-type]
    clutter = site.memory.column("clutter_per_s", np.array(site.rows()))
    assert clutter[0] < clutter[1] < clutter[2]


def test_only_what_was_heard_in_the_span_is_given() -> None:
    site = Site()
    for at_s in (0.5, 7.9, 8.1, 30.0):
        site.hear(0, at_s)
    assert site.memory.column("time_s", np.array(site.rows(7.0, 9.0))) == pytest.approx([7.9, 8.1])
    assert site.rows(100.0, 200.0) == []


def test_what_was_heard_before_the_beginning_is_found_as_well() -> None:
    site = Site()
    site.hear(0, -20.0)
    assert len(site.rows(-30.0, 0.0)) == 1


def test_a_later_revision_takes_the_place_of_the_first() -> None:
    site = Site()
    first = site.hear(0, 1.0)
    site.memory.take(site.senders[0].detection([1.0, 1.4], 1e-4, again=first), 0)
    times = site.memory.column("time_s", np.array(site.rows()))
    assert times == pytest.approx([1.0, 1.4])
    event = site.memory.event(0, first.event_id)
    assert event is not None
    assert event.revision == 1


def test_what_is_withdrawn_is_neither_heard_nor_remembered() -> None:
    site = Site()
    gone, stays = site.hear(0, 1.0), site.hear(1, 1.2)
    (row,) = site.memory.take(site.senders[2].detection([3.0], 1e-4), 2).rows
    withdrawn = site.memory.withdraw(0, gone.event_id)
    assert withdrawn is not None
    assert not site.memory.remembers(withdrawn.rows).any()
    assert site.memory.remembers(np.array([row])).all()
    assert site.memory.event(0, gone.event_id) is None
    assert site.memory.withdraw(0, gone.event_id) is None
    assert site.memory.event(1, stays.event_id) is not None
    assert len(site.rows()) == 2


def test_an_event_is_known_by_its_node_and_its_id() -> None:
    site = Site()
    heard = site.hear(0, 1.0)
    assert site.memory.event(1, heard.event_id) is None


def test_rows_survive_when_more_are_needed_than_there_is_room_for() -> None:
    site = Site()
    first = site.hear(0, 0.25, 0.75)
    held = np.array(site.rows())
    site.memory.claim(held, 7)
    for at in range(ROWS // 10 + 50):
        site.hear(at % 4, *(1.0 + 0.05 * at + 0.001 * np.arange(10)))
    assert site.memory.remembers(held).all()
    assert site.memory.column("time_s", held) == pytest.approx([0.25, 0.75])
    assert site.memory.claimed_by(held).tolist() == [7, 7]
    assert len(site.rows()) == 2 + 10 * (ROWS // 10 + 50)
    assert [event.event_id for event in site.memory.events_of(held)] == [first.event_id] * 2


def test_rows_are_found_by_their_numbers_after_older_ones_were_forgotten() -> None:
    site = Site()
    site.hear(0, 0.0)
    for at in range(ROWS // 10 - 1):
        site.hear(at % 4, *(1.0 + 0.01 * at + 0.001 * np.arange(10)))
    kept = site.hear(1, 90.0, 91.0)
    held = np.array(site.rows(80.0, 100.0))
    site.memory.claim(held, 3)
    site.memory.forget(50.0)
    for at in range(ROWS // 10):
        site.hear(at % 4, *(100.0 + 0.01 * at + 0.001 * np.arange(10)))
    assert site.memory.column("time_s", held) == pytest.approx([90.0, 91.0])
    assert site.memory.claimed_by(held).tolist() == [3, 3]
    assert site.memory.events_of(held)[0].event_id == kept.event_id
    assert not site.memory.remembers(np.array([0])).any()


def test_forgetting_frees_what_is_old_and_keeps_what_is_not() -> None:
    site = Site()
    old, new = site.hear(0, 1.0), site.hear(1, 100.0)
    site.memory.forget(50.0)
    assert site.memory.event(0, old.event_id) is None
    assert site.memory.event(1, new.event_id) is not None
    assert len(site.rows()) == 1


def test_an_hour_of_detections_takes_no_more_room_than_a_minute() -> None:
    site = Site()
    for at in range(3 * ROWS):
        site.hear(at % 4, 0.3 * at)
        if at % 50 == 0:
            site.memory.forget(0.3 * at - 60)
    memory = site.memory
    assert len(memory._columns["time_s"]) == ROWS
    assert len(memory._events) < 300
    assert len(memory._numbers) == len(memory._order) == len(memory._events)
    assert sum(map(len, memory._blocks.values())) < 300
    assert len(memory._block_keys) < 12


def test_what_is_withdrawn_is_freed_in_the_end() -> None:
    site = Site()
    for at in range(100):
        gone = site.hear(0, 0.1 * at)
        site.memory.withdraw(0, gone.event_id)
    site.memory.forget(1000.0)
    assert not site.memory._events
    assert not site.memory._numbers


def test_an_event_that_comes_late_is_freed_with_those_of_its_time_or_soon_after() -> None:
    site = Site()
    site.hear(0, 100.0)
    site.hear(1, 2.0)  # was cut off
    site.hear(2, 130.0)
    site.memory.forget(120.0)
    assert len(site.memory._events) == 1


def test_claims_are_nobodys_at_first_and_can_be_given_back() -> None:
    site = Site()
    site.hear(0, 1.0, 2.0, 3.0)
    rows = np.array(site.rows())
    assert (site.memory.claimed_by(rows) == NOBODY).all()
    site.memory.claim(rows[1:], 5)
    assert site.memory.claimed_by(rows).tolist() == [NOBODY, 5, 5]
    site.memory.claim(rows, NOBODY)
    assert (site.memory.claimed_by(rows) == NOBODY).all()


def test_a_pool_is_sorted_and_knows_its_silent_nodes_and_its_rows() -> None:
    site = Site()
    site.hear(3, 1.5)
    site.hear(1, 1.2, 1.0)
    rows = np.array(site.rows())[::-1]
    pool = site.memory.pool(np.array([0, 1, 3]), rows)
    assert pool.node.tolist() == [1, 1, 2]
    assert pool.time_s == pytest.approx([1.0, 1.2, 1.5])
    assert pool.place_m[:, 0].tolist() == [0.0, 100.0, 300.0]
    assert pool.heard.tolist() == [1, 2]
    assert site.memory.column("time_s", pool.key) == pytest.approx(pool.time_s)


def test_a_node_far_away_is_not_heard_here() -> None:
    site = Site()
    site.memory.place("far", (50_000.0, -50_000.0, 0.0), 1.0)
    far = Local(frame="f", x_m=5e4, y_m=-5e4, z_m=0.0, sigma_m=1.0)
    site.memory.take(Sender("far", far).detection([1.0], 1e-4), 4)
    assert site.rows() == []
    there = np.array([50_000.0, -50_000.0, 0.0])
    assert len(site.memory.heard(there, REACH_M, 0.0, 2.0)) == 1


def test_a_node_that_is_down_is_deaf_once_what_is_known_of_nodes_is_worked_out_anew() -> None:
    down = {"node-1"}
    memory = Memory(BEGIN_NS, REACH_M, down)
    for at in range(3):
        memory.place(f"node-{at}", (100.0 * at, 0.0, 5.0), 0.5)
    assert memory.is_deaf(np.array([2, 1, 0])).tolist() == [False, True, False]
    down.clear()
    down.add("node-2")
    memory.replant()
    assert memory.is_deaf(np.array([2, 1, 0])).tolist() == [True, False, False]


def test_a_node_that_is_placed_while_it_is_down_is_deaf() -> None:
    memory = Memory(BEGIN_NS, REACH_M, {"node-1"})
    memory.place("node-0", (0.0, 0.0, 5.0), 0.5)
    assert memory.is_deaf(np.array([0])).tolist() == [False]
    memory.place("node-1", (100.0, 0.0, 5.0), 0.5)
    assert memory.is_deaf(np.array([0, 1])).tolist() == [False, True]
