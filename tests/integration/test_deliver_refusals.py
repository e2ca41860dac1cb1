"""A real Mosquitto that says no: each refusal is told, and no detection is lost to it."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from deliver_node import (
    DETECTION_TOPIC,
    NODE_ID,
    append,
    id_of,
    make_detection,
    online,
    publisher,
    wait_until,
)

from node.deliver import BrokerAddress, MqttPublisher, Outbox, Rendered
from node.errors import BrokerError
from node.messages import Detection, to_json
from node.network import PrivateBroker, Subscription


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.sqlite3", 2**22) as opened:
        yield opened


def reasons(sender: MqttPublisher) -> str:
    return " | ".join(sender.delivery().reasons)


def ids(words: Subscription, count: int) -> list[str]:
    taken: list[str] = []
    for word in words.within(15):
        if isinstance(word.message, Detection):
            taken.append(word.message.event_id)
        if len(taken) == count:
            break
    return taken


def append_huge(outbox: Outbox, number: int) -> None:
    """Append a detection of some 100 kB, as no broker with a bound would take it."""
    detection = make_detection(number)
    huge = detection.model_copy(update={"rounds": detection.rounds * 1000})
    outbox.append(detection.event_id, 0, number, lambda _link: Rendered(to_json(huge)))


def test_a_refusal_by_the_access_list_is_told_and_mended_without_a_restart(
    tmp_path: Path, outbox: Outbox
) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read gunfire/#\ntopic write gunfire/v1/+/+/status\n")
    with PrivateBroker(extra=f"acl_file {acl}") as broker:
        sender = publisher(outbox, broker.url)
        sender.start()
        sender.set_status(online())
        append(outbox, 1)
        append(outbox, 2)
        assert wait_until(lambda: "Not authorized" in reasons(sender))
        assert DETECTION_TOPIC in reasons(sender)
        assert sender.delivery().connected
        assert outbox.depth == 2

        acl.write_text("topic readwrite gunfire/#\n")
        broker.reload(f"acl_file {acl}")
        with Subscription(BrokerAddress.from_url(broker.url)) as words:
            assert ids(words, 2) == [id_of(1), id_of(2)]
        assert wait_until(lambda: outbox.depth == 0 and not sender.delivery().reasons)
        sender.close()


def test_a_message_larger_than_the_broker_announces_is_set_aside_and_the_rest_go_on(
    outbox: Outbox,
) -> None:
    with (
        PrivateBroker(extra="max_packet_size 20000") as broker,
        Subscription(BrokerAddress.from_url(broker.url)) as words,
    ):
        append_huge(outbox, 0)
        append(outbox, 1)
        sender = publisher(outbox, broker.url)
        sender.start()
        assert ids(words, 1) == [id_of(1)]
        assert wait_until(lambda: (outbox.depth, outbox.refused) == (0, 1))
        assert "refused by the broker for good" in reasons(sender)
        assert "20000" in next(iter(outbox.refusals().values()))
        sender.close()


def test_what_was_set_aside_is_offered_again_at_the_next_start(outbox: Outbox) -> None:
    append_huge(outbox, 0)
    with PrivateBroker(extra="max_packet_size 20000") as narrow:
        sender = publisher(outbox, narrow.url)
        sender.start()
        assert wait_until(lambda: (outbox.depth, outbox.refused) == (0, 1))
        sender.close()
    with (
        PrivateBroker() as mended,
        Subscription(BrokerAddress.from_url(mended.url)) as words,
    ):
        sender = publisher(outbox, mended.url)
        sender.start()
        assert ids(words, 1) == [id_of(0)]
        assert wait_until(lambda: (outbox.depth, outbox.refused) == (0, 0))
        assert not sender.delivery().reasons
        sender.close()


def test_a_message_that_makes_the_broker_answer_what_cannot_be_read_is_found_and_set_aside(
    outbox: Outbox,
) -> None:
    # Mosquitto answers one above this limit with a reason code that MQTT 5 does not have for a
    # PUBACK, and paho drops the connection over it: for ever, were the message not found.
    with (
        PrivateBroker(extra="message_size_limit 20000") as broker,
        Subscription(BrokerAddress.from_url(broker.url)) as words,
    ):
        append(outbox, 1)
        append_huge(outbox, 2)
        append(outbox, 3)
        sender = publisher(outbox, broker.url)
        sender.start()
        assert sorted(ids(words, 2)) == sorted([id_of(1), id_of(3)])
        assert wait_until(lambda: (outbox.depth, outbox.refused) == (0, 1))
        assert list(outbox.refusals()) == [2]
        sender.close()


def test_after_all_got_through_one_at_a_time_several_go_at_once_again(outbox: Outbox) -> None:
    with PrivateBroker() as broker:
        for number in range(3):
            append(outbox, number)
        sender = publisher(outbox, broker.url)
        sender._one_at_a_time = True  # as after a broker that hung up on several, once
        sender.start()
        assert wait_until(lambda: outbox.depth == 0)
        assert wait_until(lambda: not sender._one_at_a_time)
        assert sender._backlog._window > 1
        sender.close()


def test_a_refused_password_is_told_without_telling_the_password(
    tmp_path: Path, outbox: Outbox
) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run(
        ["mosquitto_passwd", "-b", "-c", passwords, NODE_ID, "right"],
        check=True,
        capture_output=True,
    )
    with PrivateBroker(extra=f"password_file {passwords}\nallow_anonymous false") as broker:
        wrong = broker.url.replace("//", f"//{NODE_ID}:wrong@")
        sender = publisher(outbox, wrong)
        sender.start()
        assert wait_until(lambda: "refused us" in reasons(sender))
        assert "wrong" not in reasons(sender)
        sender.close(drain_s=0)

        right = publisher(outbox, broker.url.replace("//", f"//{NODE_ID}:right@"))
        right.start()
        assert wait_until(lambda: right.delivery().connected)
        right.close()


def test_two_nodes_of_one_name_are_told_so(outbox: Outbox, tmp_path: Path) -> None:
    with PrivateBroker() as broker, Outbox(tmp_path / "other.sqlite3", 2**20) as other:
        senders = publisher(outbox, broker.url), publisher(other, broker.url)
        for sender in senders:
            sender.start()
        assert wait_until(lambda: any(f"is called {NODE_ID}" in reasons(s) for s in senders), 30)
        for sender in senders:
            sender.close(drain_s=0)


def test_a_row_that_cannot_be_read_back_is_set_aside_and_the_rest_go_on(outbox: Outbox) -> None:
    with PrivateBroker() as broker, Subscription(BrokerAddress.from_url(broker.url)) as words:
        outbox.append("spoilt", 0, 0, lambda _link: Rendered(b'{"schema": "gunf'))
        append(outbox, 1)
        sender = publisher(outbox, broker.url)
        sender.start()
        assert ids(words, 1) == [id_of(1)]
        assert wait_until(lambda: outbox.refused == 1)
        sender.close()


def test_a_subscriber_passes_over_what_is_not_a_message_and_what_came_before(
    outbox: Outbox,
) -> None:
    with PrivateBroker() as broker, Subscription(BrokerAddress.from_url(broker.url)) as words:
        sender = publisher(outbox, broker.url)
        sender.start()
        outbox.append(
            "not-json", 0, 0, lambda _link: Rendered(b'{"transport": null, "surprise": 1}')
        )
        append(outbox, 1)
        assert wait_until(lambda: outbox.depth == 0)
        append(outbox, 1)  # the same once more, as after a lost acknowledgement
        append(outbox, 2)
        assert ids(words, 2) == [id_of(1), id_of(2)]
        assert (words.invalid, words.repeated) == (1, 1)
        sender.close()


def test_a_subscriber_without_a_broker_is_told_what_to_do() -> None:
    with PrivateBroker() as broker:
        url = broker.url
    with (
        pytest.raises(BrokerError, match=r"nothing listens there: check mqtt\.url"),
        Subscription(BrokerAddress.from_url(url)),
    ):
        pass


def test_a_private_broker_that_cannot_start_says_why() -> None:
    with (
        pytest.raises(BrokerError, match=r"does not start: Error: .*nonsense"),
        PrivateBroker(extra="nonsense 1"),
    ):
        pass


def test_a_defect_in_a_callback_is_counted_and_told_and_sending_goes_on(outbox: Outbox) -> None:
    with PrivateBroker() as broker, Subscription(BrokerAddress.from_url(broker.url)) as words:
        sender = publisher(outbox, broker.url)
        broken = iter([True, False])
        healthy = sender.published

        def published(mid: int, code: object) -> None:
            if next(broken, False):
                raise RuntimeError("a defect")
            healthy(mid, code)  # type: ignore[arg-type]

        sender.published = published  # type: ignore[method-assign]
        sender.start()
        append(outbox, 1)
        assert wait_until(lambda: sender.delivery().faults == 1)
        assert "a defect" in reasons(sender)
        append(outbox, 2)
        assert set(ids(words, 2)) == {id_of(1), id_of(2)}
        assert wait_until(lambda: outbox.depth == 1)
        sender.close(drain_s=0)
