"""A node's way to a release: The Update Framework's client, with bounds of its own.

The server need not be trusted, but for being there: what is taken was signed for this fleet, is not
older than what was seen before, and has not ended. Out comes an archive that is what was signed.
"""

from __future__ import annotations

import math
import os
import shutil
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Self

import urllib3
from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    RepositoryError,
    SlowRetrievalError,
)
from tuf.api.metadata import Metadata, TargetFile, Targets
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from node.errors import ProvisioningError
from node.files import sync_folder
from provisioning.memory import read_memory
from provisioning.places import Places
from provisioning.update.memory import Refusal
from provisioning.update.release import Facts

MOST_ARCHIVE_BYTES: Final = 512 * 2**20
SPARE_BYTES: Final = 64 * 2**20
"""Left free beside a release: the outbox goes on meanwhile."""
_SILENCE_S: Final = 30.0
_METADATA_WITHIN_S: Final = 600.0  # all of it: 1 MB by 15 kbit/s
_ARCHIVE_WITHIN_S: Final = 2 * 3600.0  # 512 MB by 0.6 Mbit/s
_BLOCK: Final = 2**17
_CONFIG: Final = UpdaterConfig(
    max_root_rotations=64,
    max_delegations=0,
    root_max_length=64 * 2**10,
    timestamp_max_length=16 * 2**10,
    snapshot_max_length=64 * 2**10,
    targets_max_length=2**20,
)


class UnreachableError(ProvisioningError):
    """The server is not there, or gives nothing: it may later."""


@dataclass(frozen=True)
class Source:
    """Where releases come from, and the root that they are trusted by."""

    url: str
    root: bytes

    @classmethod
    def load(cls, places: Places) -> Self | None:
        """Read it from what first boot has taken from the card; None where nothing is said."""
        said = read_memory(places).update
        return None if said is None else cls(said.url.rstrip("/"), said.root.encode())


@dataclass(frozen=True)
class Offer:
    """A release that is offered."""

    facts: Facts
    target: TargetFile


@dataclass(frozen=True)
class Running:
    """What runs here: what may take its place hangs on that."""

    version: str
    debian: str
    architecture: str
    reads: frozenset[int]


def choose(
    offers: Sequence[Offer], running: Running, refused: Mapping[str, Refusal]
) -> tuple[Offer | None, list[str]]:
    """Give the highest release that this node may take, and why not those above it."""
    why_not: list[str] = []
    for offer in sorted(offers, key=lambda o: o.facts.number, reverse=True):
        facts = offer.facts
        if facts.architecture != running.architecture:
            continue  # another node's
        if facts.number <= tuple(map(int, running.version.split("."))):
            break
        refusal = refused.get(facts.version)
        if facts.debian != running.debian:
            why_not.append(
                f"{facts.version} is for Debian {facts.debian}, this node has {running.debian}: "
                "its card is to be written anew"
            )
        elif facts.outbox_format not in running.reads:
            why_not.append(
                f"{facts.version} writes its outbox in format {facts.outbox_format}, which "
                f"{running.version} could not read if it had to come back: publish one between "
                "that reads both"
            )
        elif refusal is not None and not refusal.again:
            why_not.append(f"{facts.version} was taken back: {refusal.why}")
        else:
            return offer, why_not
    return None, why_not


class Puller:
    """Asks the server, and downloads.

    Parameters
    ----------
    places, source
        Of this node.
    incoming
        A folder for what is half there, on the disk of the releases.
    free_bytes
        How much room a folder's disk has.
    """

    def __init__(
        self,
        places: Places,
        source: Source,
        incoming: Path,
        free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
    ) -> None:
        self._metadata = places.memory / "tuf"
        self._source = source
        self._incoming = incoming
        self._free_bytes = free_bytes
        self._fetcher = _Fetcher(places.authority_file, incoming)
        self._updater: Updater | None = None

    def offers(self) -> tuple[list[Offer], list[str]]:
        """Learn what is offered, and what of it is not as it must be.

        Raises
        ------
        UnreachableError
            The server is not there.
        ProvisioningError
            What it says was not signed for this fleet, is old, or has ended.
        """
        self._metadata.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        for half in self._metadata.glob("tmp*"):  # of python-tuf, where it was killed
            half.unlink()
        self._fetcher.end_within(_METADATA_WITHIN_S)
        with self._told():
            updater = Updater(
                str(self._metadata),
                f"{self._source.url}/metadata/",
                target_base_url=f"{self._source.url}/targets/",
                fetcher=self._fetcher,
                config=_CONFIG,
                bootstrap=self._source.root,
            )
            updater.refresh()
            _sync(self._metadata)  # or a power cut brings what is old back
            told = Metadata[Targets].from_file(str(self._metadata / "targets.json"))
            offers, wrong = [], []
            for name in told.signed.targets:
                target = updater.get_targetinfo(name)
                assert target is not None  # noqa: S101 - it is in there
                try:
                    offers.append(Offer(Facts.of(name, target.custom), target))
                except ProvisioningError as error:
                    wrong.append(str(error))
        self._updater = updater
        return offers, wrong

    def room_wanted(self, offer: Offer) -> int:
        """Give how many bytes are missing on the disk for a release."""
        need = 2 * offer.target.length + offer.facts.unpacked_bytes + SPARE_BYTES
        return max(0, need - self._free_bytes(self._incoming))

    def pull(self, offer: Offer) -> Path:
        """Download a release, and give its archive, which is what was signed.

        Raises
        ------
        UnreachableError
            The server is not there any more, or takes too long.
        ProvisioningError
            There is no room, or it is not what was signed.
        """
        assert self._updater is not None  # noqa: S101 - somebody has asked what is offered
        facts = offer.facts
        if offer.target.length > MOST_ARCHIVE_BYTES:
            raise ProvisioningError(
                f"{facts.version}: has {offer.target.length / 2**20:.0f} MB, and "
                f"{MOST_ARCHIVE_BYTES / 2**20:.0f} are the most: publish a smaller one"
            )
        if wanted := self.room_wanted(offer):
            raise ProvisioningError(
                f"{facts.version}: there is no room for it, {wanted / 2**20:.0f} MB are missing on "
                "/data: publish a smaller one, or take a larger card"
            )
        self._incoming.mkdir(mode=0o700, exist_ok=True)
        archive = self._incoming / facts.name
        self._fetcher.end_within(_ARCHIVE_WITHIN_S)
        with self._told():
            self._updater.download_target(offer.target, str(archive))
        return archive

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say what went wrong so that an owner can mend it."""
        url = self._source.url
        try:
            yield
        except ExpiredMetadataError as error:
            raise ProvisioningError(
                f"{url}: its signatures have ended ({error}): run `gunfire-fleet release refresh`, "
                "and look that nobody holds the server's news back"
            ) from None
        except DownloadLengthMismatchError as error:
            raise ProvisioningError(
                f"{url}: sends more than was signed ({error}): somebody is at the server"
            ) from None
        except RepositoryError as error:
            raise ProvisioningError(
                f"{url}: what it sends was not signed for this fleet, or is older than what was "
                f"seen ({error}): nothing of it is taken; look who is at the server, or give the "
                "node its fleet's root by its card"
            ) from None
        except DownloadHTTPError as error:
            raise UnreachableError(f"{url}: answers {error.status_code}") from None
        except DownloadError as error:
            cause = error.__cause__ or error
            raise UnreachableError(f"{url}: not reached ({cause})") from None


class _Fetcher(FetcherInterface):
    """Fetches by urllib3: TLS by the fleet's authority or a public one, no detours, in time."""

    def __init__(self, authority: Path, scratch: Path) -> None:
        self._authority = authority
        self._scratch = scratch
        self._pool: urllib3.PoolManager | None = None
        self._within_s = self._end_s = math.inf

    def end_within(self, seconds: float) -> None:
        """Give all that is fetched from now on so much time together."""
        self._within_s, self._end_s = seconds, time.monotonic() + seconds

    def check_time(self) -> None:
        """Raise SlowRetrievalError where the time is up."""
        if time.monotonic() > self._end_s:
            raise SlowRetrievalError(f"takes more than {self._within_s:.0f} s")

    @contextmanager
    def download_file(self, url: str, max_length: int) -> Iterator[IO[bytes]]:
        """Download into a file on the disk of the releases: /tmp is in memory."""
        received = 0
        with tempfile.TemporaryFile(dir=self._scratch) as file:
            for block in self.fetch(url):
                received += len(block)
                if received > max_length:
                    raise DownloadLengthMismatchError(f"{url} has more than {max_length} bytes")
                file.write(block)
            file.seek(0)
            yield file

    def _fetch(self, url: str) -> Iterator[bytes]:
        if self._pool is None:
            context = ssl.create_default_context()
            if self._authority.exists():
                context.load_verify_locations(self._authority)
            context.sslsocket_class = _checked(self.check_time)
            self._pool = urllib3.PoolManager(
                ssl_context=context,
                retries=False,
                timeout=urllib3.Timeout(_SILENCE_S),
                headers={"User-Agent": "gunfire-node", "Accept-Encoding": "identity"},
            )
        answer = self._pool.request("GET", url, preload_content=False, redirect=False)
        if answer.status != 200:
            answer.close()
            raise DownloadHTTPError(f"{url}: {answer.status}", answer.status)
        return _blocks(answer)


def _checked(check: Callable[[], None]) -> type[ssl.SSLSocket]:
    """Give sockets that look at the time before each piece, whatever is read of them.

    A server that sends a byte now and then, in its answer's head too, is never silent for long.
    """

    class Socket(ssl.SSLSocket):
        def recv_into(self, *args: Any, **options: Any) -> int:
            check()
            return super().recv_into(*args, **options)

    return Socket


def _blocks(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    try:
        yield from answer.stream(_BLOCK, decode_content=False)
    except urllib3.exceptions.HTTPError as error:
        raise DownloadError(f"broke off: {error}") from error
    finally:
        answer.close()


def _sync(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    for inner in (folder, *(f for f in folder.iterdir() if f.is_dir())):
        sync_folder(inner)
