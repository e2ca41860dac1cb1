"""[mqtt]: one broker or several, which version, and what does not go together."""

import pytest
from pydantic import ValidationError

from node.settings import MqttSettings


def test_one_url_is_one_broker_and_urls_stand_in_its_place_in_order() -> None:
    assert MqttSettings().brokers == ("mqtt://localhost:1883",)
    assert MqttSettings(url="mqtt://a").brokers == ("mqtt://a",)
    assert MqttSettings(urls=("mqtts://a", "mqtt://b")).brokers == ("mqtts://a", "mqtt://b")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"url": "mqtt://a", "urls": ("mqtt://b",)}, "both set"),
        ({"urls": ("mqtt://a", "mqtt://a")}, "twice"),
        ({"urls": ("mqtt://a", "mqtt://u:p@A:1883/")}, "twice"),
        ({"urls": ("mqtt://a",), "ca_file": "/ca"}, "without TLS"),
        ({"protocol": "3.1.1", "expiry_s": 60}, "needs mqtt.protocol"),
        ({"protocol": "4"}, "'5' or '3.1.1'"),
        ({"urls": ("http://a",)}, "mqtt://"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        MqttSettings.model_validate(values)


def test_certificates_are_for_those_of_the_brokers_that_speak_tls() -> None:
    assert MqttSettings(urls=("mqtts://a", "mqtt://b"), ca_file="/ca").ca_file is not None


@pytest.mark.parametrize(
    "url",
    [
        "mqtt://192.168.1.300",
        "mqtt://b..local",
        "mqtt://b;c",
        f"mqtt://{'b.' * 150}local",
        "mqtt://brok\ter",
        "mqtt://[::1:8883",
        "mqtt://u:secret@bro℀ker:8883",
        "\x01mqtt://b",
    ],
)
def test_a_host_that_nobody_can_have_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match=r"such as mqtt://|its host or port is not right"):
        MqttSettings(url=url)


@pytest.mark.parametrize(
    "url", ["mqtt://my_broker", "mqtt://broker.example.org.", "mqtt://[fe80::1%eth0]:8883"]
)
def test_a_host_that_may_be_is_taken(url: str) -> None:
    assert MqttSettings(url=url).url == url


def test_the_scheme_of_a_broker_may_be_in_capitals() -> None:
    assert MqttSettings(url="MQTTS://a", ca_file="/ca").ca_file is not None
