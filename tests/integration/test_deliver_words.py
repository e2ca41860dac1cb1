"""What a node says beside its detections reaches a real Mosquitto: kept, told, and asides."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from deliver_listener import Listener
from deliver_node import SITE, STATUS_TOPIC, append, online, publisher, wait_until

from node.deliver import Outbox
from node.messages import node_topic
from node.network import PrivateBroker

BIRTH = node_topic(SITE, "node-1", "node")
CHECKPOINT = node_topic(SITE, "node-1", "checkpoint")
HEALTH = node_topic(SITE, "node-1", "health")


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.sqlite3", 2**22) as opened:
        yield opened


def test_a_kept_word_is_retained_and_a_broker_that_forgot_it_is_told_again(outbox: Outbox) -> None:
    with PrivateBroker() as broker:
        sender = publisher(outbox, broker.url)
        sender.keep(BIRTH, b"born")
        sender.start()
        with Listener(broker.port) as city:
            assert city.wait(lambda: city.on(BIRTH) == [b"born"])
        broker.stop()  # it keeps nothing on disk
        assert wait_until(lambda: not sender.delivery().connected)
        broker.start()
        with Listener(broker.port) as city:
            assert city.wait(lambda: city.on(BIRTH) == [b"born"])
            assert city.heard[0].retain
        sender.close()


def test_of_what_is_told_the_newest_arrives_once_unretained_and_not_again_after_a_reconnect(
    outbox: Outbox,
) -> None:
    with PrivateBroker() as broker:
        broker.stop()
        sender = publisher(outbox, broker.url)
        sender.start()
        for number in range(5):
            sender.tell(CHECKPOINT, b"%d" % number)
        broker.start()
        assert wait_until(lambda: sender.delivery().connected)
        sender.set_status(online())
        with Listener(broker.port) as city:
            assert city.wait(lambda: city.on(STATUS_TOPIC))
            assert city.on(CHECKPOINT) == []  # it came before, and is not retained
            sender.tell(CHECKPOINT, b"5")
            assert city.wait(lambda: city.on(CHECKPOINT) == [b"5"])
            assert not city.heard[-1].retain
        broker.stop()
        assert wait_until(lambda: not sender.delivery().connected)
        broker.start()
        with Listener(broker.port) as city:
            before = len(city.on(STATUS_TOPIC))
            sender.set_status(online())
            assert city.wait(lambda: len(city.on(STATUS_TOPIC)) > before)
            assert city.on(CHECKPOINT) == []
        sender.close()


def test_what_is_told_last_is_sent_before_the_goodbye(outbox: Outbox) -> None:
    with PrivateBroker() as broker, Listener(broker.port) as city:
        sender = publisher(outbox, broker.url)
        sender.start()
        assert wait_until(lambda: sender.delivery().connected)
        append(outbox, 1)
        sender.tell(CHECKPOINT, b"last")
        sender.close(drain_s=10)
        assert city.wait(lambda: b"stopped" in b"".join(city.on(STATUS_TOPIC)))
        topics = [message.topic for message in city.heard]
        assert topics.index(CHECKPOINT) < topics.index(STATUS_TOPIC)
        assert outbox.depth == 0


# Two kinds of limit: one is announced, over the other Mosquitto's answer cannot be read.
@pytest.mark.parametrize("limit", ["max_packet_size 20000", "message_size_limit 20000"])
def test_a_word_that_the_broker_can_never_take_is_told_and_the_rest_go_on(
    outbox: Outbox, limit: str
) -> None:
    with PrivateBroker(extra=limit) as broker, Listener(broker.port) as city:
        sender = publisher(outbox, broker.url)
        sender.keep(BIRTH, b"x" * 30_000)
        sender.keep(STATUS_TOPIC, online())
        sender.start()
        assert wait_until(lambda: "our node cannot be sent" in str(sender.delivery().reasons))
        assert city.wait(lambda: city.on(STATUS_TOPIC))
        sender.keep(BIRTH, b"shorter")
        assert city.wait(lambda: city.on(BIRTH) == [b"shorter"])
        assert wait_until(lambda: sender.delivery().reasons == ())
        sender.close()


def test_a_word_that_the_broker_hangs_up_on_without_one_holds_no_detection_up(
    outbox: Outbox,
) -> None:
    # In MQTT 3.1.1 a broker cannot say how much it takes.
    with PrivateBroker(extra="max_packet_size 20000") as broker:
        sender = publisher(outbox, broker.url, protocol="3.1.1")
        sender.keep(BIRTH, b"x" * 30_000)
        for number in range(3):
            append(outbox, number)
        sender.start()
        assert wait_until(lambda: outbox.depth == 0, 60)
        append(outbox, 3)
        assert wait_until(lambda: outbox.depth == 0)
        sender.close(drain_s=0)


def test_an_aside_carries_an_expiry_so_that_no_subscriber_gets_it_hours_late(
    outbox: Outbox,
) -> None:
    with PrivateBroker() as broker, Listener(broker.port) as city:
        sender = publisher(outbox, broker.url)
        sender.start()
        assert wait_until(lambda: sender.delivery().connected)
        sender.say(HEALTH, b"well")
        assert city.wait(lambda: city.on(HEALTH) == [b"well"])
        assert 290 <= city.heard[-1].properties.MessageExpiryInterval <= 300
        sender.close()
