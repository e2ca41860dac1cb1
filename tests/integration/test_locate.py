"""`gunfire-node locate` at a real Mosquitto, with real keys: what moves an incident, what not."""

from __future__ import annotations

import json
import logging
import math
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from deliver_node import wait_until
from paho.mqtt import publish
from paho.mqtt.client import CallbackAPIVersion, Client

from node.deliver import BrokerAddress, publish_batch
from node.errors import BrokerError, GunfireNodeError
from node.messages import (
    Array,
    Detection,
    Incident,
    Microphone,
    Origin,
    Privacy,
    build_node,
    incident_topic,
    node_topic,
    parse_incident,
    to_json,
    with_transport,
)
from node.messages.detection import Position
from node.messages.signing import Signer
from node.network import PrivateBroker
from node.network.admission import Admission
from node.network.intake import Intake, Locates
from node.network.keys import Keys
from node.network.service import LocateService
from node.types import NS_PER_S, ModelIdentity
from tests.field.detections import SITE, Ground, Sender
from tests.hil.fleet_ca import FleetCa
from tests.hil.process import GUNFIRE_NODE
from tests.unit.locating import CONTRACT, NotingLocator

GROUND = Ground((40.4406, -79.9959, 300.0))
SPEED_M_S = 343.0
SPOTS_M = {
    "roof-1": (0.0, 0.0), "roof-2": (620.0, 60.0), "roof-3": (310.0, 560.0),
    "roof-4": (-40.0, 610.0), "roof-5": (640.0, 650.0), "roof-6": (300.0, -120.0),
}  # fmt: skip
SHOT_M = (260.0, 240.0)
MODEL = ModelIdentity("test", "1", "0" * 64, 0.7, 0.35)


class City:
    """Nodes with certified keys on known roofs, that hear shots."""

    def __init__(self, ca: FleetCa, begin_ns: int | None = None) -> None:
        self.begin_ns = begin_ns or time.time_ns()
        self.senders: dict[str, Sender] = {}
        self.signers: dict[str, Signer] = {}
        for name, (east, north) in SPOTS_M.items():
            place = GROUND.place(np.array([east, north, 12.0]), 1.0)
            self.senders[name] = Sender(name, place, begin_ns=self.begin_ns)
            key = Ed25519PrivateKey.generate()
            issued = ca.issue(name, organization=SITE, key=key)
            self.signers[name] = Signer(key, issued.certificate.read_text())

    def births(self) -> list[tuple[str, bytes]]:
        said = []
        for name, sender in self.senders.items():
            assert isinstance(sender.place, Position)
            node = build_node(
                Origin(SITE, name, sender.boot_id, "0.0.test", sender.place),
                utc_ns=self.begin_ns,
                array=Array(
                    name="mono",
                    channels=1,
                    sample_rate_hz=48_000,
                    microphones=(Microphone(x_m=0, y_m=0, z_m=0),),
                ),
                model=MODEL,
                key=self.signers[name].key,
                privacy=Privacy(snippets=False, snippet_seconds=0, publish_rejected=True),
            )
            signed, _ = self.signers[name].sign(node)
            said.append((node_topic(SITE, name, "node"), to_json(signed)))
        return said

    def statuses(self) -> list[tuple[str, bytes]]:
        example = json.loads((CONTRACT / "status.json").read_text("utf-8"))
        return [
            (
                node_topic(SITE, name, "status"),
                json.dumps(
                    example
                    | {"site": SITE, "node_id": name, "boot_id": sender.boot_id, "state": "online"}
                ).encode(),
            )
            for name, sender in self.senders.items()
        ]

    def enter(self, broker: PrivateBroker) -> None:
        said = [*self.births(), *self.statuses()]
        messages = [(topic, payload, 1, True) for topic, payload in said]
        publish.multiple(messages, port=broker.port)

    def shot(
        self,
        at_s: float,
        spot: tuple[float, float] = SHOT_M,
        *,
        late: dict[str, float] | None = None,
    ) -> list[Detection]:
        """Give what each node hears of a shot, in the order of arrival."""
        arrivals = {name: math.dist(spot, place) / SPEED_M_S for name, place in SPOTS_M.items()}
        return [
            self.senders[name].detection([at_s + after_s + (late or {}).get(name, 0.0)], 3e-4)
            for name, after_s in sorted(arrivals.items(), key=lambda item: item[1])
        ]

    def sealed(self, said: Detection) -> tuple[str, bytes]:
        signed, _ = self.signers[said.node_id].seal(said, None)
        payload = with_transport(to_json(signed), time.time_ns(), delayed=False)
        return node_topic(SITE, said.node_id, "detection"), payload

    def now_s(self) -> float:
        return (time.time_ns() - self.begin_ns) / NS_PER_S


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> FleetCa:
    return FleetCa(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def broker() -> Iterator[PrivateBroker]:
    with PrivateBroker() as running:
        yield running


@contextmanager
def serving(
    broker: PrivateBroker, ca: FleetCa, locator: Locates, **options: Any
) -> Iterator[LocateService]:
    intake = Intake(locator, Admission(keys=Keys(ca.certificate_file)))
    service = LocateService(BrokerAddress.from_url(broker.url), intake, **options)
    thread = threading.Thread(target=service.run)
    thread.start()
    try:
        assert wait_until(lambda: service._client is not None, 10)
        yield service
    finally:
        service.close()
        thread.join(20)
        assert not thread.is_alive()


@contextmanager
def hearing(broker: PrivateBroker) -> Iterator[list[tuple[float, Incident]]]:
    """Give the incidents that arrive, each with when; of a subscriber whom restarts do not lose."""
    came: list[tuple[float, Incident]] = []
    subscribed = threading.Event()
    client = Client(CallbackAPIVersion.VERSION2, client_id="hearing", clean_session=False)
    client.reconnect_delay_set(1, 1)
    client.on_message = lambda _c, _u, m: came.append((time.time(), parse_incident(m.payload)))
    client.on_connect = lambda c, *_: c.subscribe(incident_topic("+"), qos=1)
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect("127.0.0.1", broker.port)
    client.loop_start()
    try:
        assert subscribed.wait(10)
        yield came
    finally:
        client.disconnect()
        client.loop_stop()


def send(broker: PrivateBroker, *messages: tuple[str, bytes]) -> None:
    publish_batch(BrokerAddress.from_url(broker.url), messages)


def test_what_is_located_is_published_once_each_and_in_order(
    broker: PrivateBroker, ca: FleetCa
) -> None:
    city = City(ca)
    city.enter(broker)
    said = [city.senders["roof-1"].detection([city.now_s()], 1e-3) for _ in range(60)]
    told: list[Incident] = []
    with serving(broker, ca, NotingLocator(), told=told.append), hearing(broker) as came:
        send(broker, *(city.sealed(one) for one in said))
        assert wait_until(lambda: len(came) >= 60, 10)
        time.sleep(0.2)
    assert [one for _, one in came] == told
    assert len(told) == 60


def test_incidents_wait_for_a_broker_that_is_away_and_detections_for_us(
    tmp_path: Path, ca: FleetCa
) -> None:
    city = City(ca)
    with PrivateBroker(folder=tmp_path / "broker") as broker:
        city.enter(broker)
        locator = NotingLocator()
        said = [city.senders["roof-1"].detection([city.now_s()], 1e-3) for _ in range(30)]
        with hearing(broker) as came:
            with serving(broker, ca, locator, client_id="city", session_expiry_s=60) as service:
                send(broker, *(city.sealed(one) for one in said[:10]))
                assert wait_until(lambda: len(came) == 10, 10)
                broker.kill()
                assert wait_until(lambda: service.away != "", 10)
                for detection in said[10:20]:  # what was on its way when the line broke
                    for one in locator.push(detection, time.time_ns()):
                        service.outgoing.put(one)
                broker.start()
                assert wait_until(lambda: len({one.incident_id for _, one in came}) == 20, 20)
            send(broker, *(city.sealed(one) for one in said[20:]))  # nobody locates now
            with serving(broker, ca, locator, client_id="city", session_expiry_s=60):
                assert wait_until(lambda: len({one.incident_id for _, one in came}) == 30, 10)
    first = list(dict.fromkeys(one.incident_id for _, one in came))
    order = [one.event_id for one in said]
    assert [one.event_id for one in locator.pushed] == order
    again = NotingLocator()
    assert first == [again.push(one, 0)[0].incident_id for one in said]


def test_a_broker_that_refuses_incidents_is_told_and_has_them_once_it_lets_us(
    tmp_path: Path, ca: FleetCa, caplog: pytest.LogCaptureFixture
) -> None:
    access = tmp_path / "acl"
    words = "".join(f"topic write gunfire/v1/+/+/{k}\n" for k in ("node", "status", "detection"))
    access.write_text(f"topic read gunfire/v1/#\n{words}")
    extra = f"acl_file {access}"
    city = City(ca)
    with PrivateBroker(extra=extra) as broker, pytest.MonkeyPatch.context() as patch:
        patch.setattr("node.network.service._REFUSED_AGAIN_S", 0.3)
        city.enter(broker)
        with (
            caplog.at_level(logging.ERROR),
            hearing(broker) as came,
            serving(broker, ca, NotingLocator()) as service,
        ):
            send(broker, city.sealed(city.senders["roof-1"].detection([city.now_s()], 1e-3)))
            advice = f"let this user write gunfire/v1/{SITE}/incident"
            assert wait_until(lambda: advice in caplog.text, 10)
            assert "refusals by the broker" in service.report()
            assert not came
            access.write_text("topic readwrite gunfire/v1/#\n")
            broker.reload(extra)
            assert wait_until(lambda: len(came) == 1, 10)


def test_bad_messages_reach_no_locator_and_are_counted(broker: PrivateBroker, ca: FleetCa) -> None:
    city = City(ca)
    city.enter(broker)
    locator = NotingLocator()
    good = city.sealed(city.senders["roof-1"].detection([city.now_s()], 1e-3))
    topic = good[0]
    stolen = json.loads(good[1]) | {"onset_utc": "2026-01-01T00:00:00.000000000Z"}
    other_key = city.signers["roof-2"].seal(
        city.senders["roof-1"].detection([city.now_s()], 1e-3), None
    )[0]
    free = city.senders["roof-1"].detection([city.now_s()], 1e-3)
    free = free.model_copy(
        update={"clock": free.clock.model_copy(update={"source": "free", "sigma_s": 1e9})}
    )
    bad = [
        (topic, b"{"),
        (topic, b"x" * 100_000),
        (topic, b"y" * 900_000),
        (topic, json.dumps(stolen).encode()),
        (topic, to_json(other_key)),
        (topic, to_json(city.senders["roof-1"].detection([city.now_s()], 1e-3))),
        (node_topic(SITE, "roof-3", "detection"), good[1]),
        city.sealed(city.senders["roof-1"].detection([city.now_s() + 60], 1e-3)),
        city.sealed(city.senders["roof-1"].detection([city.now_s() - 3000], 1e-3)),
        city.sealed(free),
    ]
    with serving(broker, ca, locator) as service:
        send(broker, *bad, good, good)
        assert wait_until(lambda: service._intake.admission.refused["repeated"] == 1, 10)
        refused = dict(service._intake.admission.refused)
        assert "1 messages too long to be any" in service.report()
    assert [one.event_id for one in locator.pushed] == [json.loads(good[1])["event_id"]]
    assert refused == {
        "unreadable": 3, "forged": 1, "unsigned": 1, "misplaced": 1, "future": 1, "late": 1,
        "clock": 1, "repeated": 1,
    }  # fmt: skip


@contextmanager
def locating(broker: PrivateBroker, *words: object) -> Iterator[subprocess.Popen[str]]:
    """Run the command; it is ready when it says that it is connected."""
    process = subprocess.Popen(
        [*GUNFIRE_NODE, "locate", "--broker", broker.url, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "connected to" in line:
                break
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=20)


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    process.send_signal(signal.SIGTERM)
    out, told = process.communicate(timeout=30)
    assert process.returncode == 0, told
    return out, told


def off_m(incident: Incident, spot: tuple[float, float] = SHOT_M) -> float:
    place = GROUND.metres(incident)
    assert place is not None
    return math.dist(spot, place.tolist())


def test_a_shot_is_placed_and_published_while_everybody_lies_about_it(
    broker: PrivateBroker, ca: FleetCa, tmp_path: Path
) -> None:
    city = City(ca)
    city.enter(broker)
    stranger = City(FleetCa(tmp_path / "other"))
    stranger.begin_ns = city.begin_ns
    with (
        hearing(broker) as came,
        locating(broker, "--ca", ca.certificate_file, "--jsonl") as process,
    ):
        at_s = city.now_s() - 2.5
        said = city.shot(at_s)
        for one in said:
            topic, payload = city.sealed(one)
            moved = json.loads(payload)
            moved["rounds"][0]["utc"] = moved["onset_utc"] = moved["onset_utc"][:-4] + "000Z"
            lies = [
                (topic, json.dumps(moved).encode()),  # altered on the way
                (topic, stranger.sealed(one)[1]),  # signed with a key of another fleet
                (topic, to_json(one)),  # not signed
                (topic, b"{" + payload),
                (node_topic(SITE, "ghost", "detection"), payload),
            ]
            send(broker, *lies, (topic, payload), (topic, payload), *lies[:1])
        far = city.senders["roof-2"].detection([city.now_s() + 30], 3e-4)
        send(broker, city.sealed(far))
        assert wait_until(lambda: any(len(one.nodes) == 6 for _, one in came), 10)
        out, told = ended(process)
    incidents = [parse_incident(line) for line in out.splitlines()]
    assert [one for _, one in came][: len(incidents)] == incidents
    assert {one.incident_id for one in incidents} == {incidents[-1].incident_id}
    last = incidents[-1]
    assert off_m(last) < 3
    assert (last.round_count, last.grade, last.silent_nodes) == (1, "gunfire", ())
    assert {witness.event_id for witness in last.nodes} == {one.event_id for one in said}
    report = told.splitlines()[-1]
    for kind in ("1 future", "6 misplaced", "6 unreadable", "6 unsigned", "18 forged"):
        assert kind in report
    assert "6 detections of 6 nodes" in report


def test_an_incident_is_out_soon_after_the_third_node_has_spoken(
    broker: PrivateBroker, ca: FleetCa
) -> None:
    city = City(ca)
    city.enter(broker)
    waits_s: list[float] = []
    with (
        hearing(broker) as came,
        locating(broker, "--ca", ca.certificate_file, "--quiet") as process,
    ):
        for spot in ((260.0, 240.0), (100.0, 100.0), (500.0, 200.0)):
            before = len(came)
            said = city.shot(city.now_s() - 2.5, spot)
            send(broker, *map(city.sealed, said[:2]))
            third_s = time.time()
            send(broker, *map(city.sealed, said[2:]))
            assert wait_until(lambda before=before: len(came) > before, 5)
            assert came[before][1].type == "new"
            waits_s.append(came[before][0] - third_s)
            time.sleep(0.7)  # until it is told anew with all six
        out, _ = ended(process)
    assert out == ""
    assert sorted(waits_s)[1] < 0.5, waits_s


def test_detections_that_came_while_the_locator_was_away_are_located(
    broker: PrivateBroker, ca: FleetCa
) -> None:
    city = City(ca)
    city.enter(broker)
    words = ("--ca", ca.certificate_file, "--name", "city", "--jsonl")
    with locating(broker, *words) as process:
        ended(process)
    send(broker, *map(city.sealed, city.shot(city.now_s() - 2.5)))
    with hearing(broker) as came, locating(broker, *words) as process:
        assert wait_until(lambda: len(came) > 0, 10)
        _, told = ended(process)
    assert off_m(came[-1][1]) < 3
    assert told.splitlines()[-1].endswith(f"left out: none; {len(came)} published")


def test_a_locators_process_that_dies_ends_the_command_and_says_so(
    broker: PrivateBroker, ca: FleetCa
) -> None:
    city = City(ca)
    city.enter(broker)
    with locating(broker, "--ca", ca.certificate_file) as process:
        children = psutil.Process(process.pid).children()
        (child,) = [one for one in children if "resource_tracker" not in " ".join(one.cmdline())]
        child.kill()
        _, told = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "the locator's process has ended" in told


def test_a_clock_that_is_set_back_ends_it_aloud_for_it_would_hear_nothing(
    broker: PrivateBroker, ca: FleetCa
) -> None:
    city = City(ca)
    city.enter(broker)
    locator = NotingLocator()
    ahead_s = [3600.0]  # as a dead battery leaves it, until the network's time comes
    service = LocateService(
        BrokerAddress.from_url(broker.url),
        Intake(locator, Admission(keys=Keys(ca.certificate_file))),
        now_ns=lambda: time.time_ns() + round(ahead_s[0] * NS_PER_S),
    )
    raised: list[Exception] = []

    def run() -> None:
        try:
            service.run()
        except GunfireNodeError as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert wait_until(lambda: len(locator.moments) > 3, 10)
        ahead_s[0] = 3595.0  # what a slew or a leap does is no matter
        time.sleep(0.3)
        assert thread.is_alive()
        ahead_s[0] = 0.0
        thread.join(10)
    finally:
        service.close()
    assert [str(error) for error in raised] == [
        "this machine's clock was set back by 3,600 s: start the locator again, once the clock is "
        "right"
    ]
    assert locator.finished == 1


def test_without_a_broker_it_ends_and_says_why(ca: FleetCa) -> None:
    intake = Intake(NotingLocator(), Admission(keys=Keys(ca.certificate_file)))
    service = LocateService(BrokerAddress.from_url("mqtt://127.0.0.1:9"), intake)
    with pytest.raises(BrokerError, match="nothing listens there"):
        service.run()
