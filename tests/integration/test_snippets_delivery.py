"""Large messages beside the detections, against a real Mosquitto: late, last, and never in the way.

What a snippet holds does not matter here; how they are made is in test_privacy.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from unittest.mock import create_autospec

import pyrage
import pytest
from deliver_node import (
    DETECTION_TOPIC,
    NODE_ID,
    SITE,
    STATUS_TOPIC,
    append,
    make_detection,
    offline,
    wait_until,
)

from node.board.findings import Book
from node.deliver import (
    Appended,
    BrokerAddress,
    MqttPublisher,
    Outbox,
    Rendered,
    SessionOptions,
    Spool,
)
from node.errors import OutboxError
from node.keeper import Keeper
from node.messages import node_topic, with_transport
from node.network import PrivateBroker
from node.settings import Settings
from tests.faults.privacy import Heard, subscribed

TOPIC = node_topic(SITE, NODE_ID, "snippet")


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.sqlite3", 2**22) as opened:
        yield opened


def sending(
    outbox: Outbox, spool: Spool, url: str, protocol: Literal["5", "3.1.1"] = "5"
) -> MqttPublisher:
    publisher = MqttPublisher(
        outbox,
        BrokerAddress.from_url(url, protocol=protocol),
        NODE_ID,
        SessionOptions(keepalive_s=5, reconnect_max_s=1),
        detection_topic=DETECTION_TOPIC,
        status_topic=STATUS_TOPIC,
        offline=offline,
        stamp=with_transport,
        utc_now_ns=time.time_ns,
        spool=spool,
        spool_topic=TOPIC,
    )
    publisher.start()
    return publisher


def kinds(heard: Heard) -> list[str]:
    return [topic.rpartition("/")[2] for topic, _ in heard.messages]


def test_what_waited_on_disk_is_sent_after_the_detections_and_then_leaves_it(
    tmp_path: Path, outbox: Outbox
) -> None:
    before = Spool(tmp_path / "spool", 2**22)
    sent = [bytes([i]) * 200_000 for i in range(4)]
    for payload in sent:
        before.add(payload)
    for number in range(20):
        append(outbox, number)
    spool = Spool(tmp_path / "spool", 2**22)
    with PrivateBroker() as broker, subscribed(broker.port) as heard:
        publisher = sending(outbox, spool, broker.url)
        assert wait_until(lambda: spool.depth == 0)
        publisher.close()
    arrived = [kind for kind in kinds(heard) if kind != "status"]
    assert arrived == ["detection"] * 20 + ["snippet"] * 4
    assert heard.of("snippet") == sent


def test_one_that_the_broker_was_killed_with_is_sent_again(tmp_path: Path, outbox: Outbox) -> None:
    spool = Spool(tmp_path / "spool", 2**22)
    with PrivateBroker(tmp_path / "broker") as broker:
        publisher = sending(outbox, spool, broker.url)
        assert wait_until(lambda: publisher.delivery().connected)
        with subscribed(broker.port) as heard:
            spool.add(b"once more")
            assert wait_until(lambda: heard.of("snippet"))
        broker.kill()
        assert wait_until(lambda: not publisher.delivery().connected)
        assert spool.depth == 1, "it had not settled"
        broker.start()
        assert wait_until(lambda: spool.depth == 0), "the broker has said anew that it has it"
        publisher.close()


def test_one_that_is_too_large_for_the_broker_is_dropped_and_told_and_the_next_arrives(
    tmp_path: Path, outbox: Outbox
) -> None:
    spool = Spool(tmp_path / "spool", 2**22)
    spool.add(b"x" * 100_000)
    spool.add(b"small")
    with PrivateBroker(extra="max_packet_size 50000") as broker, subscribed(broker.port) as heard:
        publisher = sending(outbox, spool, broker.url)
        assert wait_until(lambda: heard.of("snippet"))
        append(outbox, 1)
        assert wait_until(lambda: heard.of("detection"))
        assert wait_until(lambda: spool.depth == 0)
        publisher.close()
    assert heard.of("snippet") == [b"small"]


def test_one_that_the_broker_hangs_up_on_without_a_word_holds_no_detection_up(
    tmp_path: Path, outbox: Outbox
) -> None:
    # In MQTT 3.1.1 a broker cannot say how much it takes.
    spool = Spool(tmp_path / "spool", 2**22)
    spool.add(b"x" * 100_000)
    append(outbox, 1)
    with PrivateBroker(extra="max_packet_size 50000") as broker:
        publisher = sending(outbox, spool, broker.url, protocol="3.1.1")
        assert wait_until(lambda: outbox.depth == 0, 10)
        assert spool.depth == 1
        publisher.close(0)


def test_one_that_the_access_list_refuses_holds_no_detection_up(
    tmp_path: Path, outbox: Outbox
) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read #\npattern write gunfire/v1/+/+/detection\n")
    spool = Spool(tmp_path / "spool", 2**22)
    spool.add(b"not let")
    with PrivateBroker(extra=f"acl_file {acl}") as broker, subscribed(broker.port) as heard:
        publisher = sending(outbox, spool, broker.url)
        assert wait_until(lambda: "refuses our snippet" in " ".join(publisher.delivery().reasons))
        append(outbox, 1)
        assert wait_until(lambda: heard.of("detection"))
        assert spool.depth == 1
        publisher.close(0.5)


def test_on_a_full_disk_the_snippets_go_and_the_detection_is_saved(tmp_path: Path) -> None:
    owner = str(pyrage.x25519.Identity.generate().to_public())
    settings = Settings.model_validate(
        {
            "node": {"id": NODE_ID, "site": SITE},
            "capture": {"channels": 1},
            "timing": {"chrony": False},
            "outbox": {"path": tmp_path / "outbox.sqlite3"},
            "integrity": {"key_file": tmp_path / "node.key"},
            "snippets": {"enabled": True, "recipient": owner},
        }
    )
    keeper = Keeper(settings, Book())
    spool = keeper.open_spool()
    assert spool is not None
    spool.add(b"sealed")

    def append_if_there_is_room(*_: object) -> Appended:
        if spool.depth:
            full = sqlite3.OperationalError("database or disk is full")
            full.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise OutboxError("outbox x: no space left on its disk") from full
        return Appended(1, is_new=True)

    outbox = create_autospec(Outbox, instance=True)
    outbox.append.side_effect = append_if_there_is_room
    keeper.take([make_detection(1)])
    keeper.save(outbox, lambda _detection, _link: Rendered(b""))
    assert len(keeper.latest) == 1
    assert spool.depth == 0
    assert keeper.snippets is not None
    assert "the disk was full" in (keeper.snippets.reason or "")
