"""Publishes a batch of messages and returns when the broker has them all: for replays.

Beside the publisher, which serves a node for ever, this is a single errand: what goes wrong is
the caller's to hear of at once.
"""

from collections.abc import Iterable
from typing import Final

from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from node.deliver.address import BrokerAddress, explain
from node.errors import BrokerError

ANSWER_S: Final = 30.0


def publish_batch(address: BrokerAddress, messages: Iterable[tuple[str, bytes]]) -> int:
    """Publish (topic, payload) pairs with QoS 1, in order; give how many there were.

    Raises
    ------
    BrokerError
        The broker cannot be reached, does not answer, or refuses a message.
    """
    refusals: list[str] = []
    client = Client(
        CallbackAPIVersion.VERSION2,
        protocol=MQTTProtocolVersion.MQTTv5,
        reconnect_on_failure=False,
    )
    client.on_connect = lambda _c, _u, _f, code, _p: (
        refusals.append(str(code)) if code.is_failure else None
    )
    client.on_publish = lambda _c, _u, _m, code, _p: (
        refusals.append(str(code)) if code.is_failure else None
    )
    client.username_pw_set(address.username, address.password)
    if address.tls is not None:
        client.tls_set_context(address.tls)
    try:
        client.connect(address.host, address.port)
    except (OSError, ValueError) as error:
        raise BrokerError(f"broker {address}: {explain(error)}") from error
    client.loop_start()
    try:
        sent = [client.publish(topic, payload, qos=1) for topic, payload in messages]
        for info in sent:
            info.wait_for_publish(ANSWER_S)
    except (RuntimeError, ValueError) as error:
        raise BrokerError(f"broker {address}: the connection was lost ({error})") from error
    finally:
        client.disconnect()
        client.loop_stop()
    if refusals:
        raise BrokerError(
            f"broker {address}: refused {len(refusals)} of {len(sent)} messages ({refusals[0]}): "
            "check user, password and access list"
        )
    if not all(info.is_published() for info in sent):
        raise BrokerError(f"broker {address}: did not acknowledge all within {ANSWER_S:g} s")
    return len(sent)
