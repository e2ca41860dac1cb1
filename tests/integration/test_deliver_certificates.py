"""Certificates in time: renewed without a restart, their end told, no TLS by a wrong clock."""

import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from deliver_node import (
    DETECTION_TOPIC,
    NODE_ID,
    STATUS_TOPIC,
    append,
    offline,
    online,
    wait_until,
)
from hil.fleet_ca import Files, FleetCa

from node.deliver import BrokerAddress, MqttPublisher, Outbox, SessionOptions, session
from node.errors import BrokerError
from node.messages import with_transport
from node.network import PrivateBroker
from node.settings import MqttSettings

# paho leaves the socket of a failed handshake to the garbage collector, which says so.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket")

LONG = timedelta(days=400)
DAY_NS = 86_400 * 10**9


def issue(
    authority: FleetCa,
    name: str,
    ends: timedelta = LONG,
    begins: timedelta = -LONG,
    addresses: Sequence[str] = (),
) -> Files:
    """Issue a certificate that begins and ends so far from now."""
    now = datetime.now(UTC)
    return authority.issue(name, addresses=addresses, not_before=now + begins, not_after=now + ends)


@pytest.fixture
def authority(tmp_path: Path) -> FleetCa:
    return FleetCa(tmp_path)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    with Outbox(tmp_path / "outbox.sqlite3", 2**22) as opened:
        yield opened


class City:
    """A Mosquitto that lets in whom the authority knows; its log says who came."""

    def __init__(self, authority: FleetCa, folder: Path, ends: timedelta = LONG) -> None:
        certificate, key = issue(authority, "server", ends, addresses=["127.0.0.1"])
        self.log = folder / "mosquitto.log"
        self._broker = PrivateBroker(
            extra=f"log_type all\nlog_dest file {self.log}\ncafile {authority.certificate_file}\n"
            f"certfile {certificate}\nkeyfile {key}\nrequire_certificate true\n"
            "use_identity_as_username true\n"
        )

    @property
    def url(self) -> str:
        return f"mqtts://127.0.0.1:{self._broker.port}"

    def connections(self) -> int:
        return self.log.read_text().count("New connection")

    def let_in(self, user: str) -> bool:
        return f"u'{user}'" in self.log.read_text()

    def __enter__(self) -> "City":
        self._broker.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._broker.__exit__()


def publisher(
    outbox: Outbox,
    address: BrokerAddress,
    utc_now_ns: Callable[[], int] = time.time_ns,
    clock_trusted: Callable[[], bool] = lambda: False,
    reconnect_max_s: float = 1,
) -> MqttPublisher:
    return MqttPublisher(
        outbox,
        address,
        NODE_ID,
        SessionOptions(keepalive_s=5, reconnect_max_s=reconnect_max_s),
        detection_topic=DETECTION_TOPIC,
        status_topic=STATUS_TOPIC,
        offline=offline,
        stamp=with_transport,
        utc_now_ns=utc_now_ns,
        clock_trusted=clock_trusted,
    )


def address(city: City, authority: FleetCa, files: tuple[Path, Path]) -> BrokerAddress:
    return BrokerAddress.from_url(
        city.url, ca_file=authority.certificate_file, cert_file=files[0], key_file=files[1]
    )


def reasons(sender: MqttPublisher) -> str:
    return " | ".join(sender.delivery().reasons)


def test_certificates_put_in_place_of_others_are_taken_up_without_a_restart(
    authority: FleetCa, outbox: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_LOOK_AT_FILES_S", 0.1)
    old = issue(authority, "old-name")
    new = issue(authority, "new-name")
    with City(authority, tmp_path) as city:
        sender = publisher(outbox, address(city, authority, old))
        sender.set_status(online())
        sender.start()
        assert wait_until(lambda: city.let_in("old-name"))
        assert wait_until(lambda: sender.delivery().connected)
        new[0].replace(old[0])  # the key is still the old one's
        assert wait_until(lambda: "the old are used on" in reasons(sender))
        append(outbox, 1)
        assert wait_until(lambda: sender.delivery().acknowledged == 1)
        assert not city.let_in("new-name")
        new[1].replace(old[1])
        assert wait_until(lambda: city.let_in("new-name"))
        append(outbox, 2)
        assert wait_until(lambda: outbox.depth == 0)
        assert sender.delivery().reasons == ()
        sender.close()


def test_a_certificate_that_ends_within_thirty_days_is_told(
    authority: FleetCa, outbox: Outbox, tmp_path: Path
) -> None:
    with City(authority, tmp_path) as city:
        for days, told in ((29.5, "expires on"), (31, "")):
            files = issue(authority, "node-1", timedelta(days=days))
            sender = publisher(outbox, address(city, authority, files))
            sender.start()
            assert wait_until(lambda sender=sender: sender.delivery().connected)
            assert (reasons(sender) == "") == (told == "")
            assert told in reasons(sender)
            assert str(files[0]) in reasons(sender) or not told
            sender.close()


def test_an_expired_certificate_of_ours_is_named(
    authority: FleetCa, outbox: Outbox, tmp_path: Path
) -> None:
    files = issue(authority, "node-1", -timedelta(days=1))
    with City(authority, tmp_path) as city:
        sender = publisher(outbox, address(city, authority, files))
        sender.start()
        assert wait_until(lambda: f"mqtt.cert_file {files[0]} expired on" in reasons(sender))
        assert wait_until(lambda: "not connected yet" not in reasons(sender))
        assert not sender.delivery().connected
        sender.close(drain_s=0)


def test_an_expired_certificate_of_the_broker_is_told_as_such(
    authority: FleetCa, outbox: Outbox, tmp_path: Path
) -> None:
    files = issue(authority, "node-1")
    with City(authority, tmp_path, ends=-timedelta(days=1)) as city:
        sender = publisher(outbox, address(city, authority, files))
        sender.start()
        assert wait_until(lambda: "certificate has expired" in reasons(sender))
        assert "the dates of the broker's certificate" in reasons(sender)
        sender.close(drain_s=0)


def test_no_tls_is_tried_by_a_clock_before_the_certificates_until_it_is_set(
    authority: FleetCa, outbox: Outbox, tmp_path: Path
) -> None:
    # As a Pi without a clock's battery starts: in the past, by more or by less.
    files = issue(authority, "node-1", begins=-timedelta(days=10))
    with City(authority, tmp_path) as city:
        before = city.connections()
        now_ns = [0]
        sender = publisher(outbox, address(city, authority, files), lambda: now_ns[0])
        sender.start()
        assert wait_until(lambda: "waits for the clock: it says 1970-01-01" in reasons(sender))
        now_ns[0] = time.time_ns() - 11 * DAY_NS
        day = datetime.fromtimestamp(now_ns[0] / 1e9, UTC).strftime("%Y-%m-%d")
        assert wait_until(lambda: f"it says {day}" in reasons(sender))
        assert not city.let_in("node-1")
        assert city.connections() == before
        now_ns[0] = time.time_ns()
        assert wait_until(lambda: sender.delivery().connected)
        sender.close()


def test_a_clock_that_nothing_disciplines_but_that_is_evidently_sane_is_not_waited_for(
    authority: FleetCa, outbox: Outbox, tmp_path: Path
) -> None:
    with City(authority, tmp_path) as city:
        sender = publisher(outbox, address(city, authority, issue(authority, "node-1")))
        sender.start()
        assert wait_until(lambda: sender.delivery().connected)
        sender.close()


def test_a_disciplined_clock_is_believed_before_the_certificates(
    authority: FleetCa, outbox: Outbox, tmp_path: Path
) -> None:
    # A certificate for tomorrow: the fault is its own, and TLS says so.
    files = issue(authority, "node-1", begins=timedelta(days=1))
    with City(authority, tmp_path) as city:
        sender = publisher(outbox, address(city, authority, files), clock_trusted=lambda: True)
        sender.start()
        assert wait_until(lambda: "not connected yet" not in reasons(sender))
        assert "waits for the clock" not in reasons(sender)
        sender.close(drain_s=0)


def test_without_tls_no_clock_is_waited_for(outbox: Outbox) -> None:
    with PrivateBroker() as broker:
        sender = publisher(outbox, BrokerAddress.from_url(broker.url), lambda: 0)
        sender.start()
        assert wait_until(lambda: sender.delivery().connected)
        sender.close()


def test_a_key_that_others_may_read_is_refused_unless_systemd_put_it_there(
    authority: FleetCa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = issue(authority, "node-1")
    for mode in (0o640, 0o604, 0o620):
        key.chmod(mode)
        with pytest.raises(BrokerError, match=rf"mqtt.key_file .*mode {mode:o}.*chmod 600"):
            BrokerAddress.from_url("mqtts://b", cert_file=certificate, key_file=key)
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    both.chmod(0o644)
    with pytest.raises(BrokerError, match="mode 644"):
        BrokerAddress.from_url("mqtts://b", cert_file=both)
    both.chmod(0o400)
    BrokerAddress.from_url("mqtts://b", cert_file=both)
    key.chmod(0o440)
    credentials = tmp_path / "credentials"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    credentials.mkdir()
    moved = credentials / "key"
    key.replace(moved)
    found = BrokerAddress.from_url("mqtts://b", cert_file=certificate, key_file=moved)
    assert found.tls is not None
    assert found.tls.context().minimum_version == ssl.TLSVersion.TLSv1_2
    moved.chmod(0o444)
    with pytest.raises(BrokerError, match="mode 444"):
        BrokerAddress.from_url("mqtts://b", cert_file=certificate, key_file=moved)


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(
    authority: FleetCa, tmp_path: Path
) -> None:
    certificate, key = issue(authority, "node-1")
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    key.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(BrokerError, match="without a password"):
        BrokerAddress.from_url("mqtts://b", cert_file=certificate, key_file=key)


def test_a_node_that_is_enrolled_while_it_waits_connects_at_once_without_a_restart(
    authority: FleetCa, outbox: Outbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "FIRST_PAUSE_S", 3600.0)
    with City(authority, tmp_path) as city:
        files = {f"{name}_file": tmp_path / f"to-come.{name}" for name in ("ca", "cert", "key")}
        settings = MqttSettings(url=city.url, reconnect_max_s=3600, **files)
        (waits,) = BrokerAddress.all_from_settings(settings, may_come=True)
        sender = publisher(outbox, waits, reconnect_max_s=3600)
        sender.start()
        assert wait_until(lambda: "not there yet: enrol this node" in reasons(sender))
        issued = issue(authority, NODE_ID)
        issued.key.replace(files["key_file"])
        files["ca_file"].write_bytes(authority.certificate_file.read_bytes())
        issued.certificate.replace(files["cert_file"])
        assert wait_until(lambda: sender.delivery().connected)
        sender.close()
