"""What a node takes from a server, and what it refuses; the server is real, with TLS."""

import datetime as dt
import itertools
import json
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Snapshot, Timestamp

from node.errors import ProvisioningError
from provisioning.places import Places
from provisioning.update import pull
from provisioning.update import repository as owners_side
from provisioning.update.memory import Refusal
from provisioning.update.pull import (
    MOST_ARCHIVE_BYTES,
    Offer,
    Puller,
    Running,
    Source,
    UnreachableError,
    choose,
)
from provisioning.update.release import Facts
from provisioning.update.repository import Repository
from tests.hil.fleet_ca import FleetCa
from tests.hil.release_server import ReleaseServer, small_release

HERE = Running("1.0.0", "trixie", "arm64", frozenset({2}))


@dataclass
class World:
    """An owner, his server, and a node."""

    folder: Path
    fleet: Path
    server: ReleaseServer
    places: Places
    root: bytes
    ca: FleetCa

    @property
    def repository(self) -> Repository:
        return Repository(self.fleet, lambda role: "")

    @property
    def metadata(self) -> Path:
        return self.fleet / "releases" / "metadata"

    def publish(self, version: str, **options: str) -> Path:
        archive = small_release(self.folder / "built", version, **options)
        self.repository.add(archive)
        return archive

    def puller(self, free_bytes: int = 2**40, url: str = "") -> Puller:
        source = Source(f"{url or self.server.url}/releases", self.root)
        return Puller(self.places, source, self.places.releases / ".incoming", lambda _: free_bytes)

    def pulled(self, running: Running = HERE) -> Path:
        puller = self.puller()
        offers, _ = puller.offers()
        offer, why_not = choose(offers, running, {})
        assert offer, why_not
        return puller.pull(offer)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    ca = FleetCa(tmp_path / "ca")
    places = Places(tmp_path / "node")
    places.authority_file.parent.mkdir(parents=True)
    shutil.copy(ca.certificate_file, places.authority_file)
    places.releases.mkdir(parents=True)
    repository = Repository(tmp_path / "fleet", lambda role: "")
    repository.make()
    with ReleaseServer(tmp_path / "fleet", ca) as server:
        yield World(tmp_path, tmp_path / "fleet", server, places, repository.root, ca)


def test_the_highest_release_arrives_as_it_was_signed(world: World) -> None:
    world.publish("1.1.0")
    archive = world.publish("1.10.0")
    world.publish("1.9.0", architecture="amd64")
    assert world.pulled().read_bytes() == archive.read_bytes()


def test_nothing_new_is_nothing_to_do(world: World) -> None:
    world.publish("1.0.0")
    offers, wrong = world.puller().offers()
    assert (choose(offers, HERE, {}), wrong) == ((None, []), [])


def test_a_release_by_another_owner_is_refused(world: World) -> None:
    forger = Repository(world.folder / "forger", lambda role: "")
    forger.make()
    forger.add(small_release(world.folder / "built", "9.0.0"))
    shutil.rmtree(world.metadata.parent)
    shutil.copytree(world.folder / "forger" / "releases", world.metadata.parent)
    with pytest.raises(ProvisioningError, match="not signed for this fleet"):
        world.puller().offers()


@pytest.mark.parametrize("name", ["timestamp.json", ".snapshot.json", ".targets.json"])
def test_a_change_of_one_word_in_what_was_signed_is_refused(world: World, name: str) -> None:
    world.publish("1.1.0")
    world.server.answers[name] = lambda content: content.replace(b'"version": ', b'"version": 1')
    with pytest.raises(ProvisioningError, match="not signed for this fleet"):
        world.puller().offers()


def test_a_changed_archive_is_refused(world: World) -> None:
    world.publish("1.1.0")
    world.server.answers[".tar.zst"] = lambda content: bytes([content[0] ^ 1]) + content[1:]
    with pytest.raises(ProvisioningError, match="not signed for this fleet"):
        world.pulled()


def test_a_truncated_archive_is_refused(world: World) -> None:
    world.publish("1.1.0")
    world.server.answers[".tar.zst"] = lambda content: content[:-1]
    with pytest.raises(ProvisioningError):
        world.pulled()
    world.server.answers[".tar.zst"] = lambda content: iter([content[:100]])
    with pytest.raises(ProvisioningError):
        world.pulled()


@pytest.mark.parametrize("name", ["timestamp.json", ".snapshot.json", ".targets.json", ".tar.zst"])
@pytest.mark.timeout(30)
def test_what_never_ends_is_cut_off(world: World, name: str) -> None:
    world.publish("1.1.0")
    world.server.answers[name] = lambda _: itertools.repeat(b"x" * 65536)
    with pytest.raises(ProvisioningError, match="sends more than was signed"):
        world.pulled()


def drips(piece: bytes) -> Iterator[bytes]:
    """Send something often enough that nobody takes the server for silent."""
    while True:
        yield piece
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["timestamp.json", ".snapshot.json", ".targets.json", ".tar.zst"])
@pytest.mark.timeout(30)
def test_what_drips_is_cut_off_in_time(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(pull, "_METADATA_WITHIN_S", 1.0)
    monkeypatch.setattr(pull, "_ARCHIVE_WITHIN_S", 1.0)
    world.publish("1.1.0")
    world.server.answers[name] = lambda _: drips(b"x")
    began_s = time.monotonic()
    with pytest.raises(UnreachableError, match="takes more than 1 s"):
        world.pulled()
    assert time.monotonic() - began_s < 5.0


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@contextmanager
def raw_server(ca: FleetCa, answer: Iterable[bytes]) -> Iterator[str]:
    """Answer one request by whatever bytes; gives where."""
    files = ca.issue("raw", addresses=["127.0.0.1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)

    def serve() -> None:
        with suppress(OSError), context.wrap_socket(listening.accept()[0], server_side=True) as one:
            one.recv(4096)
            for piece in answer:
                one.sendall(piece)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{listening.getsockname()[1]}"
        thread.join(5.0)


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX: ", CHUNKED], ids=["head", "chunk"])
@pytest.mark.timeout(30)
def test_what_drips_before_any_content_is_cut_off_in_time_too(
    world: World, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    monkeypatch.setattr(pull, "_METADATA_WITHIN_S", 1.0)
    began_s = time.monotonic()
    with (
        raw_server(world.ca, itertools.chain([head], drips(b"1"))) as url,
        pytest.raises(UnreachableError, match="takes more than 1 s"),
    ):
        world.puller(url=url).offers()
    assert time.monotonic() - began_s < 5.0


def test_what_a_kill_left_of_what_was_learned_is_removed(world: World) -> None:
    world.publish("1.1.0")
    world.pulled()
    (world.places.memory / "tuf" / "tmpabcd1234").write_bytes(b"{")
    world.pulled()
    assert not list((world.places.memory / "tuf").glob("tmp*"))


def test_what_was_seen_once_is_not_taken_back_by_older_files(world: World) -> None:
    world.publish("1.1.0")
    older = world.folder / "older"
    shutil.copytree(world.metadata, older)
    world.publish("1.2.0")
    assert len(world.puller().offers()[0]) == 2
    shutil.copy(older / "timestamp.json", world.metadata)
    with pytest.raises(ProvisioningError, match="older than what was seen"):
        world.puller().offers()


def test_an_older_snapshot_under_a_new_timestamp_is_refused(world: World) -> None:
    world.publish("1.1.0")
    world.publish("1.2.0")
    world.puller().offers()
    # Whoever has the timestamp's key alone, which lies on the server.
    timestamp = Metadata[Timestamp].from_file(str(world.metadata / "timestamp.json"))
    timestamp.signed.version += 1
    timestamp.signed.snapshot_meta.version -= 1
    signer = world.repository._signer("timestamp", None)
    timestamp.sign(signer)
    timestamp.to_file(str(world.metadata / "timestamp.json"))
    with pytest.raises(ProvisioningError, match="older than what was seen"):
        world.puller().offers()


def test_a_server_whose_news_are_held_back_is_found_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    monkeypatch.setattr(owners_side, "_in_days", lambda days: past.replace(microsecond=0))
    world.repository.refresh()
    with pytest.raises(ProvisioningError, match="release refresh"):
        world.puller().offers()


def test_a_new_key_is_taken_by_the_roots_word_and_the_old_one_is_not_any_more(
    world: World,
) -> None:
    world.publish("1.1.0")
    world.puller().offers()
    stolen = world.repository._signer("timestamp", None)
    world.repository.replace_key("timestamp")
    assert world.pulled()
    timestamp = Metadata[Timestamp].from_file(str(world.metadata / "timestamp.json"))
    timestamp.signed.version += 1
    timestamp.sign(stolen)
    timestamp.to_file(str(world.metadata / "timestamp.json"))
    with pytest.raises(ProvisioningError, match="not signed for this fleet"):
        world.puller().offers()


def test_only_the_fleets_server_is_believed_to_be_there(world: World) -> None:
    world.publish("1.1.0")
    world.places.authority_file.unlink()
    with pytest.raises(UnreachableError, match="CERTIFICATE_VERIFY_FAILED"):
        world.puller().offers()


def test_a_server_that_is_not_there_or_has_nothing_may_be_there_later(world: World) -> None:
    with pytest.raises(UnreachableError, match="not reached"):
        world.puller(url="https://127.0.0.1:1").offers()
    shutil.rmtree(world.metadata)
    with pytest.raises(UnreachableError, match="answers 404"):
        world.puller().offers()


def test_without_room_nothing_is_downloaded(world: World) -> None:
    archive = world.publish("1.1.0")
    puller = world.puller(free_bytes=archive.stat().st_size + 64 * 2**20)
    (offer,), _ = puller.offers()
    with pytest.raises(ProvisioningError, match="there is no room"):
        puller.pull(offer)
    assert not any(path.endswith(".zst") for path in world.server.asked)


def test_what_is_too_large_is_not_downloaded(world: World) -> None:
    world.publish("1.1.0")
    puller = world.puller()
    (offer,), _ = puller.offers()
    offer.target.length = MOST_ARCHIVE_BYTES + 1
    with pytest.raises(ProvisioningError, match="are the most"):
        puller.pull(offer)


def test_a_power_cut_in_what_was_learned_is_mended_by_asking_again(world: World) -> None:
    world.publish("1.1.0")
    world.pulled()
    learned = world.places.memory / "tuf"
    files = [file for file in learned.rglob("*") if file.is_file()]
    assert len(files) >= 5
    for file in files:
        file.write_bytes(b"")
        assert world.pulled()


def test_what_is_signed_but_wrongly_said_is_told(world: World) -> None:
    world.publish("1.1.0")
    repository = world.repository
    targets = repository._load("targets", owners_side.Targets)
    (target,) = targets.signed.targets.values()
    target.unrecognized_fields["custom"]["architecture"] = "amd64"
    repository._sign_targets(targets, repository._opened("targets"))
    repository._publish()
    offers, wrong = world.puller().offers()
    assert offers == []
    assert "its owner calls it gunfire-node-1.1.0-trixie-amd64" in wrong[0]
    assert Metadata[Snapshot].from_file(str(world.metadata / "3.snapshot.json"))


def offer(version: str, **different: object) -> Offer:
    said = {"debian": "trixie", "architecture": "arm64", "outbox_format": 2, "unpacked_bytes": 1}
    facts = Facts.model_validate({**said, "version": version, **different})
    return Offer(facts, owners_side.TargetFile(1, {"sha256": "0"}, facts.name))


AGAIN = Refusal(why="it did not reach the broker", again=True)


@pytest.mark.parametrize(
    ("offers", "refused", "taken", "word"),
    [
        ([], {}, None, ""),
        ([offer("1.0.0"), offer("0.9.0")], {}, None, ""),
        ([offer("1.0.1"), offer("1.0.10"), offer("1.0.9")], {}, "1.0.10", ""),
        ([offer("2.0.0", architecture="amd64"), offer("1.1.0")], {}, "1.1.0", ""),
        ([offer("2.0.0", debian="forky"), offer("1.1.0")], {}, "1.1.0", "for Debian forky"),
        ([offer("2.0.0", outbox_format=3)], {}, None, "could not read"),
        ([offer("2.0.0", outbox_format=1)], {}, None, "could not read"),
        ([offer("2.0.0", outbox_format=3), offer("1.1.0")], {}, "1.1.0", "format 3"),
        ([offer("1.2.0")], {"1.2.0": Refusal(why="it was deaf")}, None, "it was deaf"),
        ([offer("1.2.0"), offer("1.1.0")], {"1.2.0": Refusal(why="no")}, "1.1.0", "1.2.0"),
        ([offer("1.2.0")], {"1.2.0": AGAIN}, "1.2.0", ""),
    ],
)
def test_which_release_is_taken(
    offers: list[Offer], refused: dict[str, Refusal], taken: str | None, word: str
) -> None:
    found, why_not = choose(offers, HERE, refused)
    assert (found and found.facts.version) == taken
    assert word in " ".join(why_not)
    assert bool(word) == bool(why_not)


def test_a_release_that_reads_both_formats_lets_the_next_one_in() -> None:
    found, _ = choose([offer("2.0.0", outbox_format=3)], replace(HERE, reads=frozenset({2, 3})), {})
    assert found


def test_where_releases_come_from_is_what_the_card_said(world: World) -> None:
    places, file = world.places, world.places.memory / "first-boot.json"
    places.memory.mkdir(parents=True, exist_ok=True)
    assert Source.load(places) is None
    said = {"url": "https://broker.local:8885/releases/", "root": world.root.decode()}
    file.write_text(json.dumps({"update": said}))
    assert Source.load(places) == Source("https://broker.local:8885/releases", world.root)
    for wrong in (None, {**said, "url": "http://broker.local/releases"}, {"url": said["url"]}):
        file.write_text(json.dumps({"update": wrong}))
        assert Source.load(places) is None  # first boot has told it
