"""Certificates for TLS: read anew for each connection, watched, and their dates told.

Under the address and the session. Reads files and nothing else; what time it is, is handed in.
"""

from __future__ import annotations

import os
import re
import ssl
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from node.errors import BrokerError
from node.files import Mark, mark, open_to_others

WARN_DAYS: Final = 30
"""How long before its end a certificate is told of."""

LONG_PAST_UTC_NS: Final = 1_767_225_600 * 10**9
"""The start of 2026: a clock before it is wrong, since this was written later."""

Marks = tuple[Mark | None, ...]
"""Time of change, size and inode of some files."""

_DAY_NS: Final = 86_400 * 10**9
# What the reasons say that are of certificates: how they begin; settings, and what of their files.
_NOT_TAKEN_UP: Final = "new certificates are not taken up"
_CERT, _CA = "mqtt.cert_file", "mqtt.ca_file"
_EXPIRED, _EXPIRES = "expired on", "expires on"
_ENDS: Final = re.compile(rf"({re.escape(_CERT)}|{re.escape(_CA)}) .* ({_EXPIRED}|{_EXPIRES}) ")


@dataclass(frozen=True, slots=True)
class Validity:
    """From when to when a certificate holds (UTC, ns), and the setting and file it is from."""

    source: str
    not_before_utc_ns: int
    not_after_utc_ns: int

    def trouble(self, utc_ns: int) -> str:
        """Say that it has expired or soon will; nothing while it holds for long."""
        left_ns = self.not_after_utc_ns - utc_ns
        if left_ns > WARN_DAYS * _DAY_NS:
            return ""
        day = _day(self.not_after_utc_ns)
        advice = "put a new one in its place, it is taken up without a restart"
        if left_ns <= 0:
            return f"{self.source} {_EXPIRED} {day}: check this machine's clock, or {advice}"
        return f"{self.source} {_EXPIRES} {day}, in {left_ns // _DAY_NS} days: {advice}"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files that TLS is spoken with; the system's CA certificates if `ca_file` is None."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Read the files.

        Raises
        ------
        BrokerError
            One cannot be used, or others may read the key.
        """
        for name in ("ca_file", "cert_file", "key_file"):
            path = getattr(self, name)
            if path is not None and os.path.exists(path) and not os.path.isfile(path):
                # A pipe would keep us for ever.
                raise BrokerError(f"mqtt.{name} {path}: is not a regular file; set it to a file")
        if missing := self.missing():
            raise BrokerError(
                f"{', '.join(missing)}: not there yet: enrol this node "
                "(docs/do/install-a-node.md); they are taken up without a restart"
            )
        try:
            context = ssl.create_default_context(
                cafile=None if self.ca_file is None else str(self.ca_file)
            )
        except (OSError, ValueError) as error:
            raise BrokerError(
                f"mqtt.ca_file {self.ca_file}: cannot be used ({error}): name a readable PEM file "
                "of CA certificates"
            ) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert_file is None:
            if self.key_file is not None:
                raise BrokerError(
                    "mqtt.key_file is set but mqtt.cert_file is not: set both or neither"
                )
            return context
        self._refuse_a_key_that_others_read()
        try:
            # The empty password keeps OpenSSL from asking for one at a terminal.
            context.load_cert_chain(self.cert_file, self.key_file, password="")
        except (OSError, ValueError) as error:
            raise BrokerError(
                f"mqtt.cert_file {self.cert_file} with mqtt.key_file {self.key_file}: cannot be "
                f"used ({error}): name a readable PEM certificate and the key that belongs to it, "
                "without a password"
            ) from error
        return context

    def missing(self) -> tuple[str, ...]:
        """Give the settings whose files are not there, each with its file."""
        return tuple(
            f"mqtt.{name} {path}"
            for name in ("ca_file", "cert_file", "key_file")
            if (path := getattr(self, name)) is not None and not os.path.lexists(path)
        )

    def marks(self) -> Marks:
        """Give what changes when a file does: its time of change, size and inode."""
        return tuple(mark(path) for path in self._paths())

    def validities(self) -> tuple[Validity, ...]:
        """Give the dates of the client's certificate and of the CA's, as far as they can be read.

        Of a bundle of many CA certificates nothing is told: most have nothing to do with us.
        """
        found: list[Validity] = []
        for name, path in ((_CERT, self.cert_file), (_CA, self.ca_file)):
            certificates = [] if path is None else _certificates(path)
            if name == _CA and len(certificates) > 1:
                continue
            found.extend(
                Validity(
                    f"{name} {path}",
                    _utc_ns(certificate.not_valid_before_utc),
                    _utc_ns(certificate.not_valid_after_utc),
                )
                for certificate in certificates[:1]  # others are the chain above the first
            )
        return tuple(found)

    def clock_doubt(self, utc_ns: int) -> str:
        """Say why a clock is evidently wrong: it stands before what has certainly been.

        An operator's certificate was in force when it was put here.
        """
        since = max(
            [LONG_PAST_UTC_NS, *(validity.not_before_utc_ns for validity in self.validities())]
        )
        if utc_ns >= since:
            return ""
        return (
            f"waits for the clock: it says {_day(utc_ns)}, but certificates here are from "
            f"{_day(since)}: see that GPS or NTP sets it, or set it by hand"
        )

    def _paths(self) -> Iterator[Path]:
        return (path for path in (self.ca_file, self.cert_file, self.key_file) if path is not None)

    def _refuse_a_key_that_others_read(self) -> None:
        path = self.key_file or self.cert_file
        if path is None:
            return
        try:
            mode = path.stat().st_mode
            holds_key = self.key_file is not None or b"PRIVATE KEY" in path.read_bytes()
        except OSError:
            return  # loading it says why
        if holds_key and open_to_others(path, mode):
            raise BrokerError(
                f"mqtt.key_file {path}: others than its owner may use it (mode {mode & 0o777:o}): "
                f"run `chmod 600 {path}`; if it was so for long, have a new key certified"
            )


class TlsWatch:
    """The files of the present connection: what they say, and whether newer ones stand there.

    `read`, `changed` and `renewed` are for one thread; `warnings` may be called from any.
    """

    def __init__(self) -> None:
        self._files: TlsFiles | None = None
        self._read_marks: Marks = ()
        self._seen_marks: Marks = ()
        self._validities: tuple[Validity, ...] = ()
        self._unusable = ""

    def read(self, files: TlsFiles | None) -> ssl.SSLContext | None:
        """Read the files for a new connection; raises `BrokerError` as `TlsFiles.context` does."""
        self._files = files
        self._validities = ()
        self._unusable = ""
        if files is None:
            return None
        self._read_marks = self._seen_marks = files.marks()  # before, so that no change is missed
        self._validities = files.validities()
        return files.context()

    def changed(self) -> bool:
        """Say whether other files stand there than were read, and stand still between two looks."""
        if self._files is None:
            return False
        before, self._seen_marks = self._seen_marks, self._files.marks()
        if self._seen_marks == self._read_marks:
            self._unusable = ""
            return False
        return self._seen_marks == before  # else someone may be writing

    def renewed(self) -> bool:
        """Say whether other files stand there than were read, stand still, and can be used."""
        if self._files is None or not self.changed():
            return False
        try:
            self._files.context()
        except BrokerError as error:
            self._unusable = f"{_NOT_TAKEN_UP}, the old are used on: {error}"
            return False
        return True

    def warnings(self, utc_ns: int | None) -> tuple[str, ...]:
        """Say what is wrong with files that work still."""
        dates = () if utc_ns is None else (dates.trouble(utc_ns) for dates in self._validities)
        return tuple(sentence for sentence in (self._unusable, *dates) if sentence)


def is_of_certificates(reason: str) -> bool:
    """Say whether a reason is of certificates that are to be replaced, while sending goes on."""
    return reason.startswith(_NOT_TAKEN_UP) or _ENDS.match(reason) is not None


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on oddities of old CA certificates
            return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):
        return []


def _utc_ns(moment: datetime) -> int:
    return int(moment.timestamp()) * 10**9


def _day(utc_ns: int) -> str:
    return datetime.fromtimestamp(utc_ns // 10**9, UTC).strftime("%Y-%m-%d")
