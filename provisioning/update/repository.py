"""The owner's side of an update: releases signed by The Update Framework, as files to serve.

Any web server serves what is written here, under `<url>/metadata` and `<url>/targets`; it need not
be trusted. Of the four keys, root and targets belong on a medium that is not there all the time;
snapshot and timestamp stay, so that a timer renews what ends soon (docs/decisions/0029-updates.md).
"""

from __future__ import annotations

import datetime as dt
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.exceptions import RepositoryError, StorageError
from tuf.api.metadata import (
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from node.errors import ProvisioningError
from node.files import sync_folder
from provisioning.fleet.files import PUBLIC, SECRET, make_folder, now, own, read, write
from provisioning.update.archive import facts_of
from provisioning.update.release import Facts, number

Role = Literal["root", "targets", "snapshot", "timestamp"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
Passphrase = Callable[[str], str]
"""Gives the passphrase of a role's key."""
OFTEN: Final[tuple[Role, ...]] = ("snapshot", "timestamp")
"""Signed without anybody there: their keys have no passphrase."""
# A node that was kept in a drawer for a year still finds the root; a server that is held back from
# telling news (a freeze) is found out within a month.
LIFE_DAYS: Final[dict[Role, int]] = {
    "root": 3650,
    "targets": 365,
    "snapshot": 90,
    "timestamp": 30,
}
_CLOSED: Final = b"BEGIN ENCRYPTED"
_BACKUP: Final = "take it from your backup"
_SERIALIZER: Final = JSONSerializer(compact=False)
_Signed = TypeVar("_Signed", Root, Targets, Snapshot, Timestamp)


class Repository:
    """Releases in a fleet's folder.

    Parameters
    ----------
    folder
        The fleet's. `releases/` in it is what is served, `release-keys/` what never is.
    passphrase
        Asked for where a key has one.
    """

    def __init__(self, folder: Path, passphrase: Passphrase) -> None:
        self._served = folder / "releases"
        self._keys = folder / "release-keys"
        self._passphrase = passphrase

    @property
    def root(self) -> bytes:
        """The root of trust, for invitations: the newest."""
        version = self._load("root", Root).signed.version
        return read(self._metadata / f"{version}.root.json", _BACKUP)

    @property
    def releases(self) -> list[Facts]:
        """What is published, the newest first."""
        targets = self._load("targets", Targets).signed.targets
        facts = [Facts.of(name, target.custom) for name, target in targets.items()]
        return sorted(facts, key=lambda f: (f.number, f.name), reverse=True)

    @property
    def ends(self) -> dict[Role, dt.datetime]:
        """Until when each role's file is good."""
        kinds: dict[Role, Any] = dict(zip(ROLES, (Root, Targets, Snapshot, Timestamp), strict=True))
        return {role: self._load(role, kind).signed.expires for role, kind in kinds.items()}

    def make(self, passphrase: str | None = None) -> None:
        """Make keys and an empty repository; a passphrase closes the keys of root and targets.

        Raises
        ------
        ProvisioningError
            There is one already.
        """
        if self._keys.exists() or self._metadata.exists():
            raise ProvisioningError(
                f"{self._keys}: keys for releases are there already, and are never replaced: nodes "
                "trust them; give another folder by --fleet"
            )
        make_folder(self._keys, 0o700)
        for folder in (self._served, self._metadata, self._served / "targets"):
            make_folder(folder, 0o755)
        root = Root(expires=_in_days(LIFE_DAYS["root"]))
        for role in ROLES:
            signer = CryptoSigner.generate_ed25519()
            root.add_key(signer.public_key, role)
            closed = role not in OFTEN and passphrase
            self._write_key(role, signer, passphrase if closed else None)
        targets = Metadata(Targets(expires=_in_days(LIFE_DAYS["targets"])))
        self._sign("root", Metadata(root), self._signer("root", passphrase))
        self._sign("targets", targets, self._signer("targets", passphrase))
        self._sign_snapshot(Metadata(Snapshot()), 1)
        self._sign_timestamp(Metadata(Timestamp()), 1)

    def add(self, archive: Path) -> Facts:
        """Publish a release.

        Raises
        ------
        ProvisioningError
            It is not what its name says, or not above what is published for that system; or it
            cannot be read, or copied.
        """
        try:
            facts = facts_of(archive)
            self._check_above(facts)
            target = TargetFile.from_file(facts.name, str(archive), ["sha256"])
        except (OSError, StorageError) as error:
            raise ProvisioningError(
                f"{archive}: cannot be read ({error}); build it anew, or copy it again"
            ) from None
        target.unrecognized_fields["custom"] = facts.model_dump()
        signer = self._opened("targets")
        with self._alone():
            self._check_above(facts)  # somebody else may have published one meanwhile
            _copy(archive, self._file_of(target))
            targets = self._load("targets", Targets)
            targets.signed.targets[facts.name] = target
            self._sign_targets(targets, signer)
            self._publish()
        return facts

    def withdraw(self, version: str) -> list[Facts]:
        """Offer a version no more; nodes that have it already keep it.

        Raises
        ------
        ProvisioningError
            It is not published.
        """
        self._published(version)
        signer = self._opened("targets")
        with self._alone():
            gone = self._published(version)
            targets = self._load("targets", Targets)
            files = [self._file_of(targets.signed.targets.pop(facts.name)) for facts in gone]
            self._sign_targets(targets, signer)
            self._publish()
            for file in files:
                _remove(file)
        return gone

    def refresh(self) -> list[Role]:
        """Sign anew what a timer may: snapshot and timestamp. Give what else ends within 60 days.

        What has no passphrase and ends so is signed anew, too.
        """
        with self._alone():
            soon = _in_days(60)
            ending: list[Role] = [role for role in ("root", "targets") if self.ends[role] < soon]
            left = [role for role in ending if not self._signs_alone(role)]
            if "root" in ending and "root" not in left:
                self._renew_root(self._signer("root", None))
            if "targets" in ending and "targets" not in left:
                self._sign_targets(self._load("targets", Targets), self._signer("targets", None))
            self._publish()
        return left

    def renew(self) -> None:
        """Sign targets and root anew, with their passphrase, for as long as at first."""
        root, targets = self._opened("root"), self._opened("targets")
        with self._alone():
            self._renew_root(root)
            self._sign_targets(self._load("targets", Targets), targets)
            self._publish()

    def replace_key(self, role: Role, passphrase: str | None = None) -> None:
        """Have a new key sign for a role, by the word of the root's key; the old one never again.

        Raises
        ------
        ProvisioningError
            The role is the root's own.
        """
        if role == "root":
            raise ProvisioningError(
                "root: its key is what nodes trust from their first boot on; make another "
                "repository, and give nodes its root by their card"
            )
        roots, signer = self._opened("root"), CryptoSigner.generate_ed25519()
        with self._alone():
            root = self._load("root", Root)
            for old in list(root.signed.roles[role].keyids):
                root.signed.revoke_key(old, role)
            root.signed.add_key(signer.public_key, role)
            root.signed.version += 1
            self._sign("root", root, roots)
            self._write_key(role, signer, passphrase if role == "targets" else None)
            if role == "targets":
                self._sign_targets(self._load("targets", Targets), signer)
            self._publish()

    @property
    def _metadata(self) -> Path:
        return self._served / "metadata"

    def _file_of(self, target: TargetFile) -> Path:
        return self._served / "targets" / f"{target.hashes['sha256']}.{target.path}"

    def _check_above(self, facts: Facts) -> None:
        for known in self.releases:
            same = (known.debian, known.architecture) == (facts.debian, facts.architecture)
            if same and known.number >= facts.number:
                raise ProvisioningError(
                    f"{facts.name}: {known.version} is published already, and nodes take nothing "
                    "that is not above it; raise the version in pyproject.toml, and build it anew"
                )

    def _published(self, version: str) -> list[Facts]:
        number(version)
        found = [facts for facts in self.releases if facts.version == version]
        if not found:
            raise ProvisioningError(
                f"{version}: is not published; see `gunfire-fleet release list`"
            )
        return found

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Have nobody else sign meanwhile: no version is signed twice. Ask for passphrases before.

        A timer's `refresh` waits for as long as it takes to copy a release.
        """
        try:
            descriptor = os.open(self._keys, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise ProvisioningError(
                f"{self._keys}: cannot be opened: {error.strerror}: run `gunfire-fleet release "
                "init`, or bring the medium that the keys are kept on"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _renew_root(self, signer: CryptoSigner) -> None:
        root = self._load("root", Root)
        root.signed.version += 1
        root.signed.expires = _in_days(LIFE_DAYS["root"])
        self._sign("root", root, signer)

    def _sign_targets(self, targets: Metadata[Targets], signer: CryptoSigner) -> None:
        targets.signed.version += 1
        targets.signed.expires = _in_days(LIFE_DAYS["targets"])
        self._sign("targets", targets, signer)

    def _publish(self) -> None:
        """Have the newest targets count: sign what leads to them; the last file makes it so.

        What a cut has kept from nodes reaches them by the next.
        """
        version = self._load("targets", Targets).signed.version
        snapshot = self._load("snapshot", Snapshot)
        timestamp = self._load("timestamp", Timestamp)
        snapshot.signed.version += 1
        self._sign_snapshot(snapshot, version)
        timestamp.signed.version += 1
        self._sign_timestamp(timestamp, snapshot.signed.version)

    def _sign_snapshot(self, snapshot: Metadata[Snapshot], targets_version: int) -> None:
        snapshot.signed.meta["targets.json"] = MetaFile(targets_version)
        snapshot.signed.expires = _in_days(LIFE_DAYS["snapshot"])
        self._sign("snapshot", snapshot, self._signer("snapshot", None))

    def _sign_timestamp(self, timestamp: Metadata[Timestamp], snapshot_version: int) -> None:
        timestamp.signed.snapshot_meta = MetaFile(snapshot_version)
        timestamp.signed.expires = _in_days(LIFE_DAYS["timestamp"])
        self._sign("timestamp", timestamp, self._signer("timestamp", None))

    def _sign(self, role: Role, metadata: Metadata[_Signed], signer: CryptoSigner) -> None:
        metadata.sign(signer)
        name = "timestamp" if role == "timestamp" else f"{metadata.signed.version}.{role}"
        write(self._metadata / f"{name}.json", metadata.to_bytes(_SERIALIZER), PUBLIC)

    def _load(self, role: Role, kind: type[_Signed]) -> Metadata[_Signed]:
        """Read a role's newest file."""
        name = "timestamp.json" if role == "timestamp" else f"*.{role}.json"
        files = sorted(self._metadata.glob(name), key=_version_of)
        if not files:
            raise ProvisioningError(
                f"{self._metadata}: there are no releases yet; run `gunfire-fleet release init`"
            )
        try:
            metadata = Metadata[_Signed].from_bytes(read(files[-1], _BACKUP))
        except RepositoryError as error:
            raise ProvisioningError(f"{files[-1]}: is damaged ({error}); {_BACKUP}") from None
        if not isinstance(metadata.signed, kind):
            raise ProvisioningError(f"{files[-1]}: is of another kind; {_BACKUP}")
        return metadata

    def _opened(self, role: Role) -> CryptoSigner:
        """Open a role's key, by its passphrase where it has one."""
        closed = _CLOSED in self._key(role)
        return self._signer(role, self._passphrase(role) if closed else None)

    def _signs_alone(self, role: Role) -> bool:
        return (self._keys / f"{role}.pem").exists() and _CLOSED not in self._key(role)

    def _key(self, role: Role) -> bytes:
        return read(
            self._keys / f"{role}.pem",
            f"bring the medium that the {role} key is kept on, or its copy",
        )

    def _signer(self, role: Role, passphrase: str | None) -> CryptoSigner:
        pem = self._key(role)
        try:
            key = load_pem_private_key(pem, None if passphrase is None else passphrase.encode())
        except (ValueError, TypeError):
            raise ProvisioningError(
                f"{self._keys / f'{role}.pem'}: does not open; give the passphrase that it was "
                "made with"
            ) from None
        return CryptoSigner(key, SSlibKey.from_crypto(key.public_key()))

    def _write_key(self, role: Role, signer: CryptoSigner, passphrase: str | None) -> None:
        closing: KeySerializationEncryption = NoEncryption()
        if passphrase:
            closing = BestAvailableEncryption(passphrase.encode())
        key = load_pem_private_key(signer.private_bytes, None)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, closing)
        write(self._keys / f"{role}.pem", pem, SECRET)


def _version_of(file: Path) -> int:
    first = file.name.partition(".")[0]
    return int(first) if first.isdigit() else 0


def _in_days(days: int) -> dt.datetime:
    return now() + dt.timedelta(days=days)


def _copy(source: Path, target: Path) -> None:
    """Copy a file, whole or not at all."""
    fresh = target.with_name(f".{target.name}.new")
    try:
        try:
            shutil.copyfile(source, fresh)
            with fresh.open("rb") as opened:
                own(opened.fileno(), target.parent)
                os.fchmod(opened.fileno(), PUBLIC)
                os.fsync(opened.fileno())
            fresh.replace(target)
        finally:
            fresh.unlink(missing_ok=True)
        sync_folder(target.parent)
    except OSError as error:
        raise ProvisioningError(
            f"{target.parent}: {source.name} cannot be copied to it: {error.strerror}: make room, "
            "and add it again"
        ) from None


def _remove(file: Path) -> None:
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise ProvisioningError(
            f"{file}: is offered no more, but cannot be removed: {error.strerror}: remove it by "
            "hand"
        ) from None
