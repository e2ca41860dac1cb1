"""Where a broker is: URLs, certificates, and what is said of failures."""

import contextlib
import os
import socket
import ssl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from node.deliver import BrokerAddress
from node.deliver.address import explain, explain_refusal, new_client
from node.deliver.session import backoff_s
from node.errors import BrokerError
from node.settings import MqttSettings


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("mqtt://broker.local", "broker.local", 1883),
        ("mqtts://broker.local", "broker.local", 8883),
        ("mqtt://10.0.0.1:2000", "10.0.0.1", 2000),
        ("mqtt://[::1]:2000", "::1", 2000),
    ],
)
def test_a_url_names_host_and_port(url: str, host: str, port: int) -> None:
    address = BrokerAddress.from_url(url)
    assert (address.host, address.port) == (host, port)
    assert (address.tls is not None) == url.startswith("mqtts")


def test_user_and_password_are_read_decoded_and_never_written_out() -> None:
    address = BrokerAddress.from_url("mqtt://node%201:p%40ss@broker:1883")
    assert (address.username, address.password) == ("node 1", "p@ss")
    assert str(address) == "mqtt://broker:1883"


@pytest.mark.parametrize(
    "url", ["", "broker", "http://broker", "mqtt://", "mqtt://b:0", "mqtt://b:99999", "mqtt://b:x"]
)
def test_what_is_not_an_address_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(BrokerError, match=r"not an address: write mqtt://host:port"):
        BrokerAddress.from_url(url)


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_a_broker_error(text: str) -> None:
    with contextlib.suppress(BrokerError):
        BrokerAddress.from_url("mqtt://" + text)


def test_certificates_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    junk.chmod(0o600)
    for files, named in (
        ({"ca_file": tmp_path / "absent.pem"}, "mqtt.ca_file .*absent.pem"),
        ({"ca_file": junk}, "mqtt.ca_file .*junk.pem"),
        ({"cert_file": junk, "key_file": junk}, "mqtt.cert_file .*junk.pem"),
        ({"key_file": junk}, "mqtt.key_file is set but mqtt.cert_file is not"),
    ):
        with pytest.raises(BrokerError, match=named):
            BrokerAddress.from_settings(MqttSettings(url="mqtts://broker", **files))


def test_before_a_node_is_enrolled_it_starts_all_the_same(tmp_path: Path) -> None:
    files = {f"{name}_file": tmp_path / name for name in ("ca", "cert", "key")}
    settings = MqttSettings(url="mqtts://broker", **files)
    (address,) = BrokerAddress.all_from_settings(settings, may_come=True)
    assert address.tls is not None
    with pytest.raises(BrokerError, match=r"mqtt.ca_file .*, mqtt.key_file .*: not there yet"):
        address.tls.context()
    files["ca_file"].write_text("junk")
    for name in ("cert_file", "key_file"):
        files[name].touch()
    with pytest.raises(BrokerError, match=r"mqtt\.ca_file"):
        BrokerAddress.all_from_settings(settings, may_come=True)


@pytest.mark.parametrize("name", ["ca_file", "cert_file", "key_file"])
def test_a_pipe_is_no_certificate_and_nobody_waits_for_it(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    files = {"cert_file": tmp_path / "none", name: tmp_path / "pipe"}
    with pytest.raises(BrokerError, match=rf"mqtt\.{name} .*: is not a regular file; set it to"):
        BrokerAddress.from_url("mqtts://broker", **files)


def test_a_certificate_that_is_not_yet_valid_points_at_the_clock() -> None:
    error = ssl.SSLCertVerificationError()
    error.verify_message = "certificate is not yet valid"
    assert "check this machine's clock" in explain(error)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (ConnectionRefusedError(), "nothing listens there"),
        (socket.gaierror(-2, "Name or service not known"), "its name is not known"),
        (TimeoutError(), "does not answer"),
        (OSError(101, "Network is unreachable"), "Network is unreachable"),
    ],
)
def test_each_failure_says_what_to_check(error: Exception, advice: str) -> None:
    assert advice in explain(error)
    assert "mqtt.url" in explain(error)


def test_a_broker_of_an_older_mqtt_is_no_matter_of_passwords() -> None:
    older = explain_refusal(ReasonCode(PacketTypes.CONNACK, identifier=0x84))
    assert older == (
        "refused us (Unsupported protocol version): set mqtt.protocol to the version of MQTT that "
        "it speaks"
    )
    stranger = explain_refusal(ReasonCode(PacketTypes.CONNACK, identifier=0x87), ", and more")
    assert stranger.endswith("check user, password and certificate, and more")


@given(st.integers(0, 10**6), st.floats(1, 3600))
def test_pauses_double_from_a_second_with_jitter_and_stay_below_the_longest(
    attempt: int, longest_s: float
) -> None:
    pause = backoff_s(attempt, longest_s)
    assert 0.5 <= pause <= longest_s
    assert pause <= 2.0 ** max(attempt - 1, 0) if attempt < 30 else pause >= longest_s / 2


def test_a_client_binds_no_address_which_its_unit_forbids(monkeypatch: pytest.MonkeyPatch) -> None:
    """`SocketBindDeny=any` needs a kernel with BPF, which the tests' containers have not."""

    class Unbound(socket.socket):
        def bind(self, address: object) -> None:
            raise PermissionError(1, "Operation not permitted")

    with socket.create_server(("127.0.0.1", 0)) as server:
        address = BrokerAddress.from_url(f"mqtt://127.0.0.1:{server.getsockname()[1]}")
        client = new_client(address, None, timeout_s=5.0)
        monkeypatch.setattr(socket, "socket", Unbound)
        client.connect(address.host, address.port)
        client.disconnect()
        monkeypatch.undo()
