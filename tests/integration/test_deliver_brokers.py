"""Several real Mosquittos, in order of preference: one that fails costs no detection."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from deliver_listener import Listener
from deliver_node import (
    DETECTION_TOPIC,
    NODE_ID,
    STATUS_TOPIC,
    append,
    id_of,
    offline,
    online,
    wait_until,
)

from node.deliver import BrokerAddress, Delivery, MqttPublisher, Outbox, SessionOptions
from node.messages import parse_detection, with_transport
from node.network import PrivateBroker


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.sqlite3", 2**22) as opened:
        yield opened


def publisher(outbox: Outbox, *urls: str, **options: object) -> MqttPublisher:
    return MqttPublisher(
        outbox,
        [BrokerAddress.from_url(url) for url in urls],
        NODE_ID,
        SessionOptions(**{"keepalive_s": 5, "reconnect_max_s": 1, "return_s": 1, **options}),  # type: ignore[arg-type]
        detection_topic=DETECTION_TOPIC,
        status_topic=STATUS_TOPIC,
        offline=offline,
        stamp=with_transport,
        utc_now_ns=lambda: 1_800_000_000 * 10**9,
    )


def ids(city: Listener) -> set[str]:
    return {parse_detection(payload).event_id for payload in city.on(DETECTION_TOPIC)}


def test_the_next_broker_is_used_while_the_preferred_one_is_away_and_no_longer(
    outbox: Outbox,
) -> None:
    with PrivateBroker() as preferred, PrivateBroker() as other, Listener(other.port) as there:
        sender = publisher(outbox, preferred.url, other.url)
        sender.set_status(online())
        sender.start()
        assert wait_until(lambda: sender.delivery().connected)
        assert sender.delivery().reasons == ()
        with Listener(preferred.port) as here:
            append(outbox, 1)
            assert here.wait(lambda: ids(here) == {id_of(1)})
        preferred.kill()
        append(outbox, 2)
        assert there.wait(lambda: id_of(2) in ids(there))
        (reason,) = sender.delivery().reasons
        assert reason.startswith(f"broker {other.url} is used, since the preferred one fails")

        preferred.start()
        with Listener(preferred.port) as here:
            assert here.wait(lambda: here.on(STATUS_TOPIC))
            assert wait_until(lambda: sender.delivery().reasons == ())
            append(outbox, 3)
            assert here.wait(lambda: id_of(3) in ids(here))
            # Where the node was for a while, nobody is to believe that it still is.
            assert there.wait(lambda: b'"offline"' in there.on(STATUS_TOPIC)[-1])
            assert wait_until(lambda: outbox.depth == 0)
            assert ids(here) | ids(there) >= {id_of(2), id_of(3)}
            sender.close()


def test_detections_heard_through_many_changes_of_broker_all_arrive(outbox: Outbox) -> None:
    with (
        PrivateBroker() as preferred,
        PrivateBroker() as other,
        Listener(other.port) as there,
    ):
        sender = publisher(outbox, preferred.url, other.url)
        sender.start()
        arrived: set[str] = set()
        expected: set[str] = set()

        def hear(numbers: range) -> None:
            for number in numbers:
                append(outbox, number)
                expected.add(id_of(number))

        def all_came(*listeners: Listener) -> bool:
            arrived.update(*map(ids, listeners))
            return expected <= arrived

        for life in range(3):
            with Listener(preferred.port) as here:
                hear(range(40 * life, 40 * life + 20))
                assert wait_until(lambda here=here: all_came(here, there))
                preferred.kill()
                hear(range(40 * life + 20, 40 * life + 40))
            assert wait_until(lambda: all_came(there))
            preferred.start()
            assert wait_until(lambda: sender.delivery() == _well(sender))
        assert wait_until(lambda: outbox.depth == 0)
        sender.close()


def _well(sender: MqttPublisher) -> Delivery:
    return replace(sender.delivery(), connected=True, reasons=())


def test_with_every_broker_away_each_is_tried_and_the_reason_names_one(outbox: Outbox) -> None:
    with PrivateBroker() as preferred, PrivateBroker() as other:
        urls = preferred.url, other.url
    sender = publisher(outbox, *urls)
    sender.start()
    assert wait_until(lambda: other.url in " ".join(sender.delivery().reasons))
    assert wait_until(lambda: preferred.url in " ".join(sender.delivery().reasons))
    assert "nothing listens there" in " ".join(sender.delivery().reasons)
    sender.close(drain_s=0)
