"""`gunfire-node verify`: whether a log of messages is whole, unaltered and of this fleet."""

from __future__ import annotations

import bisect
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

from node.authority import offer_certificates, read_trust
from node.cli._shared import printable, progress
from node.errors import IdentityError
from node.messages.chain import Chain, Finding
from node.messages.trust import Trust
from node.messages.verify import LONGEST_LINE, Report, Verifier

MOST_SHOWN: Final = 20
_TOLD_BYTES: Final = 2**20
_PACKED: Final = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")  # gzip bzip2 xz zstd

file_option = click.Path(path_type=Path)


@click.command("verify")
@click.argument("files", nargs=-1, required=True, type=file_option, metavar="FILE...")
@click.option("--ca", type=file_option, metavar="PEM", help="Certificate of the fleet's CA.")
@click.option("--crl", type=file_option, metavar="PEM", help="Its revocation list.")
@click.option(
    "--certificates",
    type=file_option,
    metavar="DIR|PEM",
    help="Certificates of nodes, beside those in the log's own node messages.",
)
@click.option("--key", type=file_option, metavar="PEM", help="Instead of a CA: one public key.")
@click.option(
    "--first-seq",
    type=click.IntRange(min=1),
    help="Number that each node's messages should begin with; 1 for its whole life.",
)
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
def command(
    files: tuple[Path, ...],
    ca: Path | None,
    crl: Path | None,
    certificates: Path | None,
    key: Path | None,
    first_seq: int | None,
    as_json: bool,
) -> None:
    """Check signatures and chains of a log, and name what was altered, left out or put in.

    A FILE holds a message a line, as `gunfire-node watch --jsonl` or `mosquitto_sub -v` print
    them; several are one log. Ends with 0 if all holds, 1 if something was found, 2 if it cannot
    be judged.

    Example: gunfire-node verify detections.jsonl --ca ca.pem --crl crl.pem
    """
    if (ca is None) == (key is None):
        raise click.UsageError("give the fleet's CA with --ca, or one node's public key with --key")
    if ca is None and (crl or certificates):
        raise click.UsageError("--crl and --certificates go with --ca")
    log = _Log(files)
    verifier = Verifier(read_trust(ca, crl, key), log.place)
    if certificates is not None:
        offer_certificates(verifier.trust, certificates)
    with progress(2 * log.bytes, "verifying") as advance:
        for line, _ in log.lines(advance):
            verifier.gather(line)
        for line, number in log.lines(advance):
            verifier.take(line, number)
    report = verifier.report(first_seq)
    if as_json:
        click.echo(
            json.dumps(_document(report, verifier.trust, log, first_seq), ensure_ascii=False)
        )
    else:
        _print(report, verifier.trust, log, first_seq)
    nothing_to_judge = not report.holds and not report.count
    sys.exit(0 if report.holds else 2 if nothing_to_judge else 1)


class _Log:
    """Files read as one, line by line, more than once."""

    def __init__(self, files: tuple[Path, ...]) -> None:
        self._files = files
        self._begins: list[int] = []
        self._sizes: list[int] = []
        for file in files:
            if not file.is_file():
                what = "is not a regular file" if file.exists() else "is not there"
                raise IdentityError(f"{file}: {what}: give a file, since it is read twice")
            with _opened(file) as opened:
                if opened.read(6).startswith(_PACKED):
                    raise IdentityError(f"{file}: is compressed: unpack it first")
                self._sizes.append(os.fstat(opened.fileno()).st_size)
        self.bytes = sum(self._sizes)

    def lines(self, advance: Callable[[float], None]) -> Iterator[tuple[bytes, int]]:
        """Give each line and its number over all files, from 1; the same ones each time.

        What is added to a file meanwhile is left out: its certificates were not gathered.
        """
        number = 0
        self._begins = []
        for path, size in zip(self._files, self._sizes, strict=True):
            self._begins.append(number)
            with _opened(path) as file:
                untold = 0
                for line in _lines(file, size):
                    number += 1
                    yield line, number
                    untold += len(line)
                    if untold >= _TOLD_BYTES:
                        advance(untold)
                        untold = 0
                advance(untold)

    def place(self, line: int) -> str:
        """Say where a line is."""
        if not line:
            return ""
        which = bisect.bisect_left(self._begins, line) - 1
        return f"{self._files[which]}:{line - self._begins[which]}"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise IdentityError(f"{path}: cannot be read: {error.strerror}") from None


def _lines(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Give lines; of one that is longer than any message only so much that this shows."""
    while file.tell() < size and (line := file.readline(LONGEST_LINE + 1)):
        yield line
        while len(line) > LONGEST_LINE and not line.endswith(b"\n"):
            line = file.readline(LONGEST_LINE + 1)


def _print(report: Report, trust: Trust, log: _Log, first_seq: int | None) -> None:
    silent = 0
    for chain in report.chains.values():
        silent += not chain.messages and not chain.keys
        if chain.messages or chain.keys or silent <= MOST_SHOWN:
            click.echo(_chain_sentence(chain))
    if silent > MOST_SHOWN:
        click.echo(f"and {silent - MOST_SHOWN} more nodes, of which no key is known either")
    for finding in report.findings[:MOST_SHOWN]:
        number = f" seq {finding.seq}" if finding.seq is not None and finding.line else ""
        parts = (log.place(finding.line), f"{finding.node}{number}", printable(finding.sentence))
        click.echo(": ".join((finding.kind.upper(), *filter(None, parts))))
    if report.count > MOST_SHOWN:
        click.echo(f"and {report.count - MOST_SHOWN} more")
    for note in _notes(report, trust, first_seq):
        click.echo(f"note: {note}")
    if report.holds:
        click.echo("holds: every message is signed, unaltered and in its place")
    elif not report.count:
        click.echo("nothing to judge: the log holds no signed detection")
    else:
        click.echo(f"DOES NOT HOLD: {report.count} found")


def _chain_sentence(chain: Chain) -> str:
    if not chain.messages:
        return f"{chain.name}: no detection that is signed by a key that counts"
    keys = ", ".join(_key(key) for key in chain.keys)
    again = f", {chain.repeats} of them again" if chain.repeats else ""
    return (
        f"{chain.name}: {chain.messages} messages{again}, seq {chain.first_seq} to "
        f"{chain.last_seq}, key {keys}"
    )


def _key(key: Any) -> str:
    serials = " and ".join(key.certificates)
    return f"{key.key_id} (certificate {serials})" if serials else str(key.key_id)


def _notes(report: Report, trust: Trust, first_seq: int | None) -> Iterator[str]:
    for chain in report.chains.values():
        if chain.messages and chain.first_seq != 1 and first_seq is None:
            yield (
                f"{chain.name}: begins with seq {chain.first_seq}; what came before was not "
                "looked for (--first-seq)"
            )
        for gap in sorted(chain.gaps, key=lambda gap: gap.from_seq):
            count = "an unknown number" if gap.count is None else str(gap.count)
            yield (
                f"{chain.name}: the node itself says that {count} of seq {gap.from_seq} to "
                f"{gap.to_seq} were {gap.reason}"
            )
        if not chain.messages and chain.newest is not None and chain.newest.seq:
            yield (
                f"{chain.name}: a checkpoint vouches for all up to seq {chain.newest.seq}, and the "
                "log holds none of them; whether it should is asked by --first-seq"
            )
        if chain.messages and (chain.newest is None or chain.newest.seq < (chain.last_seq or 0)):
            upto = "none of them" if chain.newest is None else f"seq {chain.newest.seq}"
            yield (
                f"{chain.name}: the newest checkpoint vouches for {upto}; a tail that was cut off "
                "after that would not show"
            )
    if trust.crl_utc is not None:
        yield f"revocations are known up to {trust.crl_utc:%Y-%m-%dT%H:%M:%SZ}"
    elif trust.can_revoke:
        yield "no revocation list was given (--crl): a key counts here though it may be revoked"
    if report.not_judged:
        yield f"{report.not_judged} messages are of kinds that are not signed"


def _document(report: Report, trust: Trust, log: _Log, first_seq: int | None) -> dict[str, Any]:
    return {
        "holds": report.holds,
        "nodes": [_node(chain) for chain in report.chains.values()],
        "findings": [_found(finding, log) for finding in report.findings],
        "found": report.count,
        "not_judged": report.not_judged,
        "notes": list(_notes(report, trust, first_seq)),
    }


def _node(chain: Chain) -> dict[str, Any]:
    return {
        "node": chain.name,
        "messages": chain.messages,
        "repeats": chain.repeats,
        "first_seq": chain.first_seq,
        "last_seq": chain.last_seq,
        "checkpoint_seq": chain.newest.seq if chain.newest else None,
        "keys": [{"key_id": k.key_id, "certificates": k.certificates} for k in chain.keys],
        "gaps": [
            gap.model_dump(mode="json") for gap in sorted(chain.gaps, key=lambda g: g.from_seq)
        ],
    }


def _found(finding: Finding, log: _Log) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "node": finding.node or None,
        "seq": finding.seq,
        "where": log.place(finding.line) or None,
        "sentence": finding.sentence,
    }
