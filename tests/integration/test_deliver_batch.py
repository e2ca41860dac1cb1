"""A batch is published whole or the reason why not is told, soon, with a real Mosquitto."""

import socket
import time
from collections.abc import Callable

import pytest

from node.deliver import BrokerAddress, batch, check_broker, publish_batch
from node.errors import BrokerError
from node.network import PrivateBroker

THREE = [(f"gunfire/v1/site/node-{i}/detection", b"{}") for i in range(3)]
ERRANDS = [check_broker, lambda address: publish_batch(address, iter(THREE))]


@pytest.mark.parametrize("errand", ERRANDS)
def test_a_broker_that_lets_nobody_in_is_told_at_once(
    errand: Callable[[BrokerAddress], object],
) -> None:
    with PrivateBroker(extra="allow_anonymous false") as broker:
        begun_s = time.monotonic()
        with pytest.raises(BrokerError, match=r"refused us \(Not authorized\): check user"):
            errand(BrokerAddress.from_url(broker.url))
        assert time.monotonic() - begun_s < 3


@pytest.mark.parametrize("errand", ERRANDS)
def test_a_broker_that_stays_mute_is_waited_for_once(
    errand: Callable[[BrokerAddress], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "CONNECT_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        begun_s = time.monotonic()
        with pytest.raises(BrokerError, match="does not answer: check"):
            errand(BrokerAddress.from_url(f"mqtt://127.0.0.1:{mute.getsockname()[1]}"))
        assert time.monotonic() - begun_s < 3


def test_a_batch_is_counted_and_a_check_leaves_nothing_behind() -> None:
    with PrivateBroker() as broker:
        address = BrokerAddress.from_url(broker.url)
        check_broker(address)
        assert publish_batch(address, iter(THREE)) == 3
        assert publish_batch(address, []) == 0
        many = [(f"gunfire/v1/site/node/{i}", b"x" * 500) for i in range(500)]
        assert publish_batch(address, many) == 500


def test_a_connection_lost_over_a_message_is_told_before_the_deadline() -> None:
    with PrivateBroker(extra="max_packet_size 20000") as broker:
        address = BrokerAddress.from_url(broker.url)
        begun_s = time.monotonic()
        with pytest.raises(BrokerError, match="the connection was lost"):
            publish_batch(address, [THREE[0], ("gunfire/v1/site/node/detection", b"x" * 30_000)])
        assert time.monotonic() - begun_s < 5


def test_a_refused_message_is_told(tmp_path_factory: pytest.TempPathFactory) -> None:
    acl = tmp_path_factory.mktemp("acl") / "acl"
    acl.write_text("topic read gunfire/#\n")
    with (
        PrivateBroker(extra=f"acl_file {acl}") as broker,
        pytest.raises(BrokerError, match=r"refused 3 of 3 messages \(Not authorized\)"),
    ):
        publish_batch(BrokerAddress.from_url(broker.url), THREE)
