"""Outbox, publisher, a real Mosquitto, a real subscriber: what is heard arrives."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from deliver_node import (
    append,
    id_of,
    online,
    publisher,
    wait_until,
)

from node.deliver import BrokerAddress, Outbox
from node.messages import Detection, Status, parse_status
from node.network import PrivateBroker, Subscription, Word
from tests.hil.shots import detections

NODE = Path(__file__).with_name("deliver_node.py")
IN_TIME_S = 20
# What was alone under way in the very moment of such a death is held back for a minute (`Backlog`).
SUSPECT_IN_TIME_S = 90


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[PrivateBroker]:
    folder = tmp_path / "broker"
    folder.mkdir()
    with PrivateBroker(folder) as running:
        yield running


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.sqlite3", 2**22) as opened:
        yield opened


def delayed(detection: Detection) -> bool:
    assert detection.transport is not None
    return detection.transport.delayed


@contextmanager
def node_running(outbox: Path, url: str, first: int, count: int) -> Iterator[None]:
    """Run a node of its own that has so many detections; it is killed at the end."""
    with subprocess.Popen(
        [sys.executable, NODE, outbox, url, str(first), str(count)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            told = [process.stdout.readline().strip() for _ in range(count)]
            assert told == [id_of(number) for number in range(first, first + count)]
            yield
        finally:
            process.kill()


def test_a_detection_made_while_connected_arrives_at_once_and_is_not_called_delayed(
    broker: PrivateBroker, outbox: Outbox
) -> None:
    with Subscription(BrokerAddress.from_url(broker.url)) as words:
        sender = publisher(outbox, broker.url)
        sender.start()
        assert wait_until(lambda: sender.delivery().connected)
        append(outbox, 1)
        (arrived,) = detections(words, IN_TIME_S, wanted=1)
        assert arrived.event_id == id_of(1)
        assert not delayed(arrived)
        assert wait_until(lambda: outbox.depth == 0)
        assert sender.delivery().reasons == ()
        sender.close()


def test_a_node_starts_without_a_broker_and_sends_when_there_is_one(
    broker: PrivateBroker, outbox: Outbox
) -> None:
    address = BrokerAddress.from_url(broker.url)
    with Subscription(address, client_id="city", session_expiry_s=3600):
        pass
    broker.stop()
    sender = publisher(outbox, broker.url)
    sender.start()
    append(outbox, 1)
    assert wait_until(lambda: "nothing listens" in " ".join(sender.delivery().reasons))
    append(outbox, 2)
    broker.start()
    with Subscription(address, client_id="city", session_expiry_s=3600) as words:
        arrived = detections(words, IN_TIME_S, wanted=2)
    assert [detection.event_id for detection in arrived] == [id_of(1), id_of(2)]
    assert all(delayed(detection) for detection in arrived)
    assert wait_until(lambda: outbox.depth == 0)
    sender.close()


def test_broker_stopped_and_node_killed_midway_every_event_arrives_once_and_late_ones_say_so(
    broker: PrivateBroker, tmp_path: Path
) -> None:
    address = BrokerAddress.from_url(broker.url)
    file = tmp_path / "node.sqlite3"
    with Subscription(address, client_id="city", session_expiry_s=3600) as words:
        with node_running(file, broker.url, first=0, count=10):
            # In any order: those made before it was connected are late, behind the fresh ones.
            first_ten = detections(words, IN_TIME_S, wanted=10)
            assert sorted(detection.seq for detection in first_ten) == list(range(1, 11))
            assert {detection.event_id for detection in first_ten} == {id_of(n) for n in range(10)}

        broker.kill()
        with node_running(file, broker.url, first=10, count=10):
            pass

        broker.start()
        with node_running(file, broker.url, first=20, count=10):
            late = detections(words, IN_TIME_S, wanted=20)
            assert sorted(detection.seq for detection in late) == list(range(11, 31))
            assert {detection.event_id for detection in late} == {id_of(n) for n in range(10, 30)}
            assert all(delayed(detection) for detection in late if detection.seq <= 20)
            assert detections(words, 1.5, wanted=1) == []


def test_what_a_dying_node_had_under_way_arrives_after_its_restart(
    broker: PrivateBroker, tmp_path: Path
) -> None:
    file = tmp_path / "node.sqlite3"
    with Subscription(BrokerAddress.from_url(broker.url)) as words:
        with node_running(file, broker.url, first=0, count=300):
            pass  # killed while it sends
        with node_running(file, broker.url, first=300, count=1):
            arrived = detections(words, IN_TIME_S, wanted=301)
            assert {detection.event_id for detection in arrived} == {id_of(n) for n in range(301)}
            assert len(arrived) == 301


def test_late_ones_are_sent_in_order_of_onset(broker: PrivateBroker, outbox: Outbox) -> None:
    for number in (5, 3, 9, 1, 7):
        append(outbox, number)
    with Subscription(BrokerAddress.from_url(broker.url)) as words:
        sender = publisher(outbox, broker.url)
        sender.start()
        arrived = detections(words, IN_TIME_S, wanted=5)
        sender.close()
    assert [detection.event_id for detection in arrived] == [id_of(n) for n in (1, 3, 5, 7, 9)]
    assert all(delayed(detection) for detection in arrived)


def test_what_the_broker_acknowledged_survives_its_death_for_a_subscriber_who_was_away(
    broker: PrivateBroker, outbox: Outbox
) -> None:
    address = BrokerAddress.from_url(broker.url)
    with Subscription(address, client_id="city", session_expiry_s=3600):
        pass
    sender = publisher(outbox, broker.url)
    sender.start()
    for number in range(50):
        append(outbox, number)
    assert wait_until(lambda: outbox.depth == 0)
    sender.close()
    broker.kill()
    broker.start()
    with Subscription(address, client_id="city", session_expiry_s=3600) as words:
        arrived = detections(words, IN_TIME_S, wanted=50)
    assert {detection.event_id for detection in arrived} == {id_of(n) for n in range(50)}


def test_what_was_acknowledged_in_the_instant_of_the_brokers_death_is_sent_again(
    broker: PrivateBroker, outbox: Outbox
) -> None:
    # Mosquitto acknowledges a moment before it saves, whatever its settings.
    address = BrokerAddress.from_url(broker.url)
    with Subscription(address, client_id="city", session_expiry_s=3600):
        pass
    sender = publisher(outbox, broker.url)
    sender.start()
    for life in range(6):
        assert wait_until(lambda: sender.delivery().connected)
        before = sender.delivery().acknowledged
        for number in range(10 * life, 10 * life + 10):
            append(outbox, number)
        assert wait_until(lambda before=before: sender.delivery().acknowledged > before, 5)
        broker.kill()
        broker.start()
    with Subscription(address, client_id="city", session_expiry_s=3600) as words:
        arrived = detections(words, SUSPECT_IN_TIME_S, wanted=60)
    sender.close()
    assert {detection.event_id for detection in arrived} == {id_of(n) for n in range(60)}


def statuses(words: Subscription, seconds: float) -> Iterator[tuple[Word, Status]]:
    for word in words.within(seconds):
        if isinstance(word.message, Status):
            yield word, word.message


def test_the_last_will_says_offline_when_a_node_is_killed_and_names_its_boot(
    broker: PrivateBroker, tmp_path: Path
) -> None:
    with Subscription(BrokerAddress.from_url(broker.url)) as words:
        with node_running(tmp_path / "node.sqlite3", broker.url, first=0, count=1):
            _, up = next(statuses(words, 10))
        _, down = next(statuses(words, 10))
    assert (up.state, down.state) == ("online", "offline")
    assert down.boot_id == up.boot_id
    assert "cut off" in down.reasons[0]
    assert down.clock is None
    with Subscription(BrokerAddress.from_url(broker.url), kinds=["status"]) as words:
        word, kept = next(statuses(words, 10))
    assert word.retained
    assert kept == down


def test_a_clean_stop_sends_what_waits_and_leaves_a_retained_offline_without_the_last_will(
    broker: PrivateBroker, outbox: Outbox
) -> None:
    sender = publisher(outbox, broker.url)
    sender.start()
    sender.set_status(online())
    for number in range(100):
        append(outbox, number)
    sender.close(drain_s=10)
    assert outbox.depth == 0
    with Subscription(BrokerAddress.from_url(broker.url)) as words:
        _, kept = next(statuses(words, 10))
    assert (kept.state, kept.reasons) == ("offline", ("stopped",))


def test_a_status_set_while_the_broker_was_away_is_told_when_it_is_back(
    broker: PrivateBroker, outbox: Outbox
) -> None:
    sender = publisher(outbox, broker.url)
    sender.start()
    sender.set_status(online())
    assert wait_until(lambda: sender.delivery().connected)
    broker.stop()
    assert wait_until(lambda: not sender.delivery().connected)
    word = online()
    sender.set_status(word)
    broker.start()
    with Subscription(BrokerAddress.from_url(broker.url)) as words:
        told = [status for _, status in zip(range(1), statuses(words, 10), strict=False)]
        assert wait_until(lambda: sender.delivery().connected)
        assert told
        told += list(statuses(words, 2))
    assert parse_status(word) in [status for _, status in told]
    sender.close()


def test_close_does_not_hang_without_a_broker(broker: PrivateBroker, outbox: Outbox) -> None:
    broker.stop()
    sender = publisher(outbox, broker.url)
    sender.start()
    append(outbox, 1)
    sender.close(drain_s=0.2)
    assert outbox.depth == 1
