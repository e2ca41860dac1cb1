"""The owner's side of an update: releases signed by The Update Framework, as files to serve.

Any web server serves what is written here, under `<url>/metadata` and `<url>/targets`; it need not
be trusted. Of the four keys, root and targets belong on a medium that is not there all the time;
snapshot and timestamp stay, so that a timer renews what ends soon (docs/decisions/0029-updates.md).
"""

from __future__ import annotations

import datetime as dt
import os
import shutil
from collections.abc import Callable
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
from tuf.api.exceptions import RepositoryError
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
from provisioning.fleet.files import PUBLIC, SECRET, make_folder, now, own, write
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
        return (self._metadata / f"{version}.root.json").read_bytes()

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
        self._sign("root", Metadata(root), passphrase)
        self._sign("targets", Metadata(Targets(expires=_in_days(LIFE_DAYS["targets"]))), passphrase)
        self._sign_snapshot(Metadata(Snapshot()), 1)
        self._sign_timestamp(Metadata(Timestamp()), 1)

    def add(self, archive: Path) -> Facts:
        """Publish a release.

        Raises
        ------
        ProvisioningError
            It is not what its name says, or not above what is published for that system.
        """
        facts = facts_of(archive)
        targets = self._load("targets", Targets)
        for known in self.releases:
            same = (known.debian, known.architecture) == (facts.debian, facts.architecture)
            if same and known.number >= facts.number:
                raise ProvisioningError(
                    f"{archive.name}: {known.version} is published already, and nodes take nothing "
                    "that is not above it; raise the version in pyproject.toml, and build it anew"
                )
        target = TargetFile.from_file(facts.name, str(archive), ["sha256"])
        target.unrecognized_fields["custom"] = facts.model_dump()
        served = self._served / "targets" / f"{target.hashes['sha256']}.{facts.name}"
        _copy(archive, served)
        targets.signed.targets[facts.name] = target
        self._publish(targets)
        return facts

    def withdraw(self, version: str) -> list[Facts]:
        """Offer a version no more; nodes that have it already keep it.

        Raises
        ------
        ProvisioningError
            It is not published.
        """
        number(version)
        gone = [facts for facts in self.releases if facts.version == version]
        if not gone:
            raise ProvisioningError(
                f"{version}: is not published; see `gunfire-fleet release list`"
            )
        targets = self._load("targets", Targets)
        files = []
        for facts in gone:
            target = targets.signed.targets.pop(facts.name)
            files.append(self._served / "targets" / f"{target.hashes['sha256']}.{facts.name}")
        self._publish(targets)
        for file in files:
            file.unlink(missing_ok=True)
        return gone

    def refresh(self) -> list[Role]:
        """Sign anew what a timer may: snapshot and timestamp. Give what else ends within 60 days.

        What has no passphrase and ends so is signed anew, too.
        """
        soon = _in_days(60)
        ending: list[Role] = [role for role in ("root", "targets") if self.ends[role] < soon]
        left = [role for role in ending if not self._signs_alone(role)]
        if "root" in ending and "root" not in left:
            root = self._load("root", Root)
            root.signed.version += 1
            root.signed.expires = _in_days(LIFE_DAYS["root"])
            self._sign("root", root, None)
        if "targets" in ending and "targets" not in left:
            self._publish(self._load("targets", Targets))
        else:
            self._publish(None)
        return left

    def renew(self) -> None:
        """Sign targets and root anew, with their passphrase, for as long as at first."""
        root = self._load("root", Root)
        root.signed.version += 1
        root.signed.expires = _in_days(LIFE_DAYS["root"])
        self._sign("root", root, self._asked("root"))
        self._publish(self._load("targets", Targets))

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
        root = self._load("root", Root)
        signer = CryptoSigner.generate_ed25519()
        for old in list(root.signed.roles[role].keyids):
            root.signed.revoke_key(old, role)
        root.signed.add_key(signer.public_key, role)
        root.signed.version += 1
        self._sign("root", root, self._asked("root"))
        self._write_key(role, signer, passphrase if role == "targets" else None)
        if role == "targets":
            self._publish(self._load("targets", Targets), passphrase)
        else:
            self._publish(None)

    @property
    def _metadata(self) -> Path:
        return self._served / "metadata"

    def _publish(self, targets: Metadata[Targets] | None, passphrase: str | None = None) -> None:
        """Sign what has changed, and what leads to it; the last file written makes it count."""
        snapshot = self._load("snapshot", Snapshot)
        if targets is not None:
            targets.signed.version += 1
            targets.signed.expires = _in_days(LIFE_DAYS["targets"])
            self._sign("targets", targets, passphrase or self._asked("targets"))
            version = targets.signed.version
        else:
            version = snapshot.signed.meta["targets.json"].version
        timestamp = self._load("timestamp", Timestamp)
        snapshot.signed.version += 1
        self._sign_snapshot(snapshot, version)
        timestamp.signed.version += 1
        self._sign_timestamp(timestamp, snapshot.signed.version)

    def _sign_snapshot(self, snapshot: Metadata[Snapshot], targets_version: int) -> None:
        snapshot.signed.meta["targets.json"] = MetaFile(targets_version)
        snapshot.signed.expires = _in_days(LIFE_DAYS["snapshot"])
        self._sign("snapshot", snapshot, None)

    def _sign_timestamp(self, timestamp: Metadata[Timestamp], snapshot_version: int) -> None:
        timestamp.signed.snapshot_meta = MetaFile(snapshot_version)
        timestamp.signed.expires = _in_days(LIFE_DAYS["timestamp"])
        self._sign("timestamp", timestamp, None)

    def _sign(self, role: Role, metadata: Metadata[_Signed], passphrase: str | None) -> None:
        metadata.sign(self._signer(role, passphrase))
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
            metadata = Metadata[_Signed].from_file(str(files[-1]))
        except RepositoryError as error:
            raise ProvisioningError(
                f"{files[-1]}: is damaged ({error}); take it from your backup"
            ) from None
        if not isinstance(metadata.signed, kind):
            raise ProvisioningError(f"{files[-1]}: is of another kind; take it from your backup")
        return metadata

    def _asked(self, role: Role) -> str | None:
        closed = _CLOSED in self._key_file(role).read_bytes()
        return self._passphrase(role) if closed else None

    def _signs_alone(self, role: Role) -> bool:
        file = self._keys / f"{role}.pem"
        return file.exists() and _CLOSED not in file.read_bytes()

    def _key_file(self, role: Role) -> Path:
        file = self._keys / f"{role}.pem"
        if not file.exists():
            raise ProvisioningError(
                f"{file}: is not here; bring the medium that the {role} key is kept on, or its copy"
            )
        return file

    def _signer(self, role: Role, passphrase: str | None) -> CryptoSigner:
        file = self._key_file(role)
        try:
            key = load_pem_private_key(
                file.read_bytes(), None if passphrase is None else passphrase.encode()
            )
        except (ValueError, TypeError):
            raise ProvisioningError(
                f"{file}: does not open; give the passphrase that it was made with"
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
    fresh = target.with_name(f".{target.name}.new")
    shutil.copyfile(source, fresh)
    with fresh.open("rb") as opened:
        own(opened.fileno(), target.parent)
        os.fchmod(opened.fileno(), PUBLIC)
        os.fsync(opened.fileno())
    fresh.replace(target)
    sync_folder(target.parent)
