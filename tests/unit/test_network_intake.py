"""From messages to the locator: who stands where, who listens, what waits and what is told."""

from __future__ import annotations

import datetime as dt
import gc
import json
import logging
import threading
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from node.errors import GunfireNodeError
from node.messages import Detection, Incident
from node.network.admission import Admission
from node.network.intake import Arrival, Intake
from node.network.keys import Keys
from node.network.locate_settings import InputSettings
from node.network.locator_process import LocatorProcess, _Worker
from node.network.medium import Weather
from node.network.notices import LINES_AT_ONCE, Notices
from node.network.outgoing import Outgoing
from tests.hil.fleet_ca import FleetCa
from tests.unit.locating import CONTRACT, NotingLocator, incident, serve_here
from tests.unit.signed_log import EXAMPLE, NS, SITE, SignedNode, changed
from tests.unit.test_network_admission import heard, now

NOW = dt.datetime.now(dt.UTC)


@pytest.fixture
def ca(tmp_path: Path) -> FleetCa:
    return FleetCa(tmp_path / "ca")


@pytest.fixture
def node(ca: FleetCa) -> SignedNode:
    made = SignedNode("roof-1", NOW)
    made.certified(ca)
    return made


@pytest.fixture
def intake(ca: FleetCa) -> Intake:
    return Intake(NotingLocator(), Admission(keys=Keys(ca.certificate_file)))


def noted(intake: Intake) -> NotingLocator:
    assert isinstance(intake.locator, NotingLocator)
    return intake.locator


def arrival(node: SignedNode, kind: str, payload: bytes, *, retained: bool = False) -> Arrival:
    return Arrival(f"gunfire/v1/{SITE}/{node.node_id}/{kind}", payload, retained)


def status(node: SignedNode, state: str, boot_id: str | None = None) -> Arrival:
    said = json.loads((CONTRACT / "status.json").read_text("utf-8"))
    said |= {"site": SITE, "node_id": node.node_id, "state": state}
    said["boot_id"] = boot_id or node.boot_id
    return arrival(node, "status", json.dumps(said).encode(), retained=True)


def test_a_detection_that_comes_before_its_nodes_birth_waits_for_it(
    intake: Intake, node: SignedNode
) -> None:
    # A broker that has kept detections for us gives them before what it retains.
    first, second = heard(node), heard(node)
    moment = now(node)
    assert intake.take(arrival(node, "detection", first), moment) == []
    assert intake.take(arrival(node, "detection", second), moment) == []
    found = intake.take(arrival(node, "node", node.birth(), retained=True), moment + NS)
    assert len(found) == 2
    assert [said.seq for said in noted(intake).pushed] == [1, 2]
    assert not intake.admission.refused


def test_one_that_says_no_place_waits_for_a_birth_that_does(node: SignedNode) -> None:
    intake = Intake(NotingLocator(), Admission(InputSettings(unsigned=True)))
    moment = now(node)
    payload = heard(node, position=None, local=None)
    node.origin = replace(node.origin, position=EXAMPLE.position)
    assert intake.take(arrival(node, "detection", payload), moment) == []
    assert len(intake.take(arrival(node, "node", node.birth()), moment + NS)) == 1
    assert not intake.admission.refused


def test_one_whose_birth_does_not_come_is_left_out_and_told_once(
    intake: Intake, node: SignedNode, caplog: pytest.LogCaptureFixture
) -> None:
    moment = now(node)
    for _ in range(3):
        intake.take(arrival(node, "detection", heard(node)), moment)
    with caplog.at_level(logging.WARNING):
        intake.turn(moment + 14 * NS)
        assert not caplog.records
        intake.turn(moment + 16 * NS)
    assert intake.admission.refused == {"unknown": 3}
    assert [record.getMessage() for record in caplog.records] == [
        "unknown: city/roof-1: no key counts for it: no certificate of it has come",
        "unknown: city/roof-1: no key counts for it: no certificate of it has come "
        "(2 times so far)",
    ]
    assert not intake._held_of


def test_unknown_ones_without_end_do_not_wait_without_end(
    intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.network.intake.MOST_HELD", 30)
    for number in range(60):
        ghost = SignedNode(f"ghost-{number}", NOW)
        intake.take(arrival(ghost, "detection", heard(ghost)), now(ghost))
    assert len(intake._held) == 30
    assert intake.admission.refused == {"unknown": 30}


def test_a_node_is_up_only_while_it_says_that_all_is_well(intake: Intake, node: SignedNode) -> None:
    moment = now(node)
    intake.take(status(node, "online"), moment)
    assert noted(intake).ups == {}  # nobody vouches for it yet
    intake.take(arrival(node, "node", node.birth(), retained=True), moment)
    assert noted(intake).ups == {(SITE, "roof-1"): True}
    older = "00000000-0000-5000-8000-000000000000"
    intake.take(status(node, "offline", older), moment)
    assert noted(intake).ups == {(SITE, "roof-1"): True}
    for state, up in (("degraded", False), ("online", True), ("offline", False)):
        intake.take(status(node, state), moment)
        assert noted(intake).ups == {(SITE, "roof-1"): up}


def test_the_weather_of_a_site_is_its_own_or_that_of_all(intake: Intake, node: SignedNode) -> None:
    moment = now(node)
    intake.take(arrival(node, "node", node.birth()), moment)
    assert noted(intake).weathers == {SITE: Weather()}
    intake.weather(Weather(temperature_c=7.0))
    assert noted(intake).weathers == {SITE: Weather(temperature_c=7.0)}
    topic = f"gunfire/v1/{SITE}/weather"
    intake.take(Arrival(topic, b'{"temperature_c": 9.5}', True), moment)
    intake.take(Arrival(topic, b'{"temperature_c": 950}', True), moment)
    intake.weather(Weather(temperature_c=8.0))
    assert noted(intake).weathers == {SITE: Weather(temperature_c=9.5)}


def test_a_weather_that_is_taken_back_is_that_of_all_again(
    intake: Intake, node: SignedNode, caplog: pytest.LogCaptureFixture
) -> None:
    moment = now(node)
    intake.take(arrival(node, "node", node.birth()), moment)
    topic = f"gunfire/v1/{SITE}/weather"
    with caplog.at_level(logging.WARNING):
        intake.take(Arrival(topic, b'{"temperature_c": 9.5}', True), moment)
        intake.take(Arrival(topic, b""), moment)  # so a retained message is cleared
    assert noted(intake).weathers == {SITE: Weather()}
    assert not caplog.records


class Faulty(NotingLocator):
    """One that some detections are too much for."""

    def hear(self, detection: Detection, now_ns: int) -> list[Incident]:
        if detection.seq == 2:
            raise ZeroDivisionError("two")
        return super().hear(detection, now_ns)


def test_a_defect_at_one_detection_does_not_silence_the_others(
    node: SignedNode, ca: FleetCa, caplog: pytest.LogCaptureFixture
) -> None:
    locator = Faulty()
    intake = Intake(locator, Admission(keys=Keys(ca.certificate_file)))
    intake.take(arrival(node, "node", node.birth()), now(node))
    found = [intake.take(arrival(node, "detection", heard(node)), now(node)) for _ in range(3)]
    assert [len(one) for one in found] == [1, 0, 1]
    assert "1 faults" in intake.report()
    assert "ZeroDivisionError: two" in caplog.text


def test_a_locator_in_a_process_of_its_own_says_the_same_in_the_same_order(
    node: SignedNode, ca: FleetCa, caplog: pytest.LogCaptureFixture
) -> None:
    news = threading.Event()
    here = Intake(NotingLocator(), Admission(keys=Keys(ca.certificate_file)))
    messages = [arrival(node, "node", node.birth())]
    messages += [arrival(node, "detection", heard(node)) for _ in range(50)]
    moment = now(node)
    expected = [one for message in messages for one in here.take(message, moment)]
    with LocatorProcess(Faulty, news.set) as there:
        intake = Intake(there, Admission(keys=Keys(ca.certificate_file)))
        found = [one for message in messages for one in intake.take(message, moment)]
        found += intake.turn(moment)
        assert news.wait(10)
        found += intake.finish()
    assert found == [expected[0], *expected[2:]]
    assert there.faults == 1
    assert "ZeroDivisionError: two" in caplog.text
    with pytest.raises(GunfireNodeError, match="process has ended"):
        there.tick(moment + NS)


def test_a_locator_that_cannot_be_made_is_told() -> None:
    with pytest.raises(GunfireNodeError, match="does not start"), LocatorProcess(_no_locator):
        pass


def _no_locator() -> NotingLocator:
    raise ImportError("pyproj")


class Busy(NotingLocator):
    """One that has a few things to do; with the first, further orders come and then no more."""

    def __init__(self, orders: Connection, *texts: str) -> None:
        super().__init__()
        self.done: list[str] = []
        self._orders, self._texts, self._due = orders, texts, 4

    def hear(self, detection: Detection, now_ns: int) -> list[Incident]:
        self.done.append(f"hear at {now_ns}")
        return super().hear(detection, now_ns)

    def work(self, now_ns: int) -> list[Incident] | None:
        self.done.append(f"work at {now_ns}")
        if not self._orders.closed:
            self._orders.send([("push", (text, 7)) for text in self._texts])
            self._orders.close()
        self._due -= 1
        return [incident("due", self._due)] if self._due >= 0 else None

    def push(self, detection: Detection, now_ns: int) -> list[Incident]:
        raise AssertionError("would do all that is due first")

    def tick(self, now_ns: int) -> list[Incident]:
        raise AssertionError("would do all that is due")


def test_what_comes_while_a_locator_is_busy_is_heard_before_more_of_what_is_due(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    orders, ours = Pipe(duplex=False)
    theirs, answers = Pipe(duplex=False)
    text = EXAMPLE.model_dump_json(by_alias=True)
    locator = Busy(ours, text, text)
    serve_here(monkeypatch, orders, answers, lambda: locator)
    gc.unfreeze()
    answers.close()
    assert locator.done == ["work at 0", "hear at 7", "hear at 7", "work at 7"]
    said = []
    while theirs.poll():
        try:
            said.append(theirs.recv()[0])
        except EOFError:
            break
    assert said == ["ready", "work", "push", "push", "work"]
    theirs.close()
    orders.close()


def test_a_tick_in_a_process_of_its_own_gives_the_doubts_and_leaves_what_is_due() -> None:
    _, ours = Pipe(duplex=False)
    theirs, answers = Pipe(duplex=False)
    locator = Busy(ours)
    locator.doubts[SITE, "roof-1"] = "its clock is off"
    worker = _Worker(locator, answers)
    worker.do("tick", (9,))
    assert theirs.recv() == ("tick", [], {(SITE, "roof-1"): "its clock is off"})
    assert locator.done == []
    assert worker.work()
    assert locator.done == ["work at 9"]
    assert theirs.recv() == ("work", [incident("due", 3)], None)


def test_time_never_runs_backwards_for_the_locator(intake: Intake, node: SignedNode) -> None:
    moment = now(node)
    intake.take(arrival(node, "node", node.birth()), moment)
    for later_ns in (5 * NS, 0, 9 * NS, -NS):
        intake.turn(moment + later_ns)
    moments = noted(intake).moments
    assert moments == sorted(moments)


@pytest.mark.parametrize("kind", ["detection", "node", "status", "weather", "nothing", ""])
@pytest.mark.parametrize(
    "payload", [b"", b"null", b"[" * 5000, b'{"schema":1}', b"\xff\x00", b"x" * 200_000]
)
def test_no_message_raises(intake: Intake, node: SignedNode, kind: str, payload: bytes) -> None:
    assert intake.take(arrival(node, kind, payload), now(node)) == []
    assert intake.take(Arrival(kind, payload), now(node)) == []


def test_a_flood_of_bad_messages_is_a_few_lines_and_a_number(
    intake: Intake, node: SignedNode, caplog: pytest.LogCaptureFixture
) -> None:
    moment = now(node)
    intake.admission.settings = InputSettings(per_node_at_once=100_000, per_node_s=10_000)
    intake.take(arrival(node, "node", node.birth()), moment)
    forged = changed(heard(node), grade="not_gunfire")
    with caplog.at_level(logging.WARNING):
        for _ in range(300):
            intake.take(arrival(node, "detection", forged), moment)
    assert intake.admission.refused == {"forged": 300}
    assert len(caplog.records) == 9  # the first, second, fourth … 256th
    assert "300 forged" in intake.report()


def test_many_names_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    notices = Notices()
    with caplog.at_level(logging.WARNING):
        for number in range(500):
            notices.tell("unknown", ("city", f"ghost-{number}"), "\x1b[2J", NS)
        notices.tell("unknown", ("city", "another"), "is new", 60 * NS)
    assert len(caplog.records) == LINES_AT_ONCE + 2
    assert caplog.records[-2].getMessage() == "and 480 lines more like these"
    assert all("\x1b" not in record.getMessage() for record in caplog.records)


def names(outgoing: Outgoing, window: int = 100) -> list[tuple[str, int]]:
    """Send what may be sent; give (name, revision) of each."""
    told: list[tuple[str, int]] = []
    known = {incident(name).incident_id: name for name in "abcdefgh"}
    while (one := outgoing.take(window)) is not None:
        outgoing.sent(len(told) + 1, one)
        told.append((known[one.incident_id], one.revision))
    return told


def filled(*of: tuple[str, int]) -> Outgoing:
    outgoing = Outgoing()
    for name, revision in of:
        outgoing.put(incident(name, revision))
    return outgoing


def test_incidents_go_out_in_order_and_again_after_a_break() -> None:
    order = [("a", 0), ("b", 0), ("a", 1), ("c", 0)]
    outgoing = filled(*order)
    assert names(outgoing, window=3) == order[:3]
    answered = outgoing.answered(1)
    assert isinstance(answered, Incident)
    assert answered.revision == 0
    outgoing.again(broken=True)
    assert names(outgoing) == order[1:]


def test_what_the_broker_refuses_waits_in_its_order() -> None:
    outgoing = filled(("a", 0), ("b", 0), ("c", 0))
    assert len(names(outgoing, window=2)) == 2
    for mid in (1, 2):
        refused = outgoing.answered(mid)
        assert refused is not None
        outgoing.refused(refused)
    assert len(outgoing) == 3
    outgoing.again(broken=False)
    assert names(outgoing) == [("a", 0), ("b", 0), ("c", 0)]


def test_a_long_silence_of_the_broker_keeps_the_last_revision_of_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("node.network.outgoing.MOST_WAITING", 10)
    outgoing = filled(*[(name, revision) for revision in range(4) for name in "abc"])
    assert outgoing.overtaken == 8
    left: Any = names(outgoing)
    assert [one for one in left if one[1] == 3] == [("a", 3), ("b", 3), ("c", 3)]
    assert outgoing.lost == 0
