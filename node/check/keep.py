"""Self-test of what judges, keeps and signs, and of the board; nothing is made or changed."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from node.board import Board, Code
from node.board.findings import Finding
from node.classify import TfliteClassifier
from node.examine import board_findings, room_finding
from node.identity import load_identity
from node.messages.signing import Signer
from node.settings import Settings
from node.timing import utc_now_ns

# Its thermometer takes 0.75 s, and twice that where the bus is asked anew.
BOARD_S: Final = 3.0


def model(settings: Settings) -> Iterator[Finding]:
    """Have the classifier judge a second of noise."""
    classifier = TfliteClassifier.load(settings.classify.model)
    rate = settings.capture.sample_rate_hz
    before, after = classifier.window(rate)
    noise = np.random.default_rng(0).normal(0, 1e-3, (before + after, 1)).astype(np.float32)
    scores = classifier.judge([noise], rate).scores
    identity = classifier.identity
    fooled = scores.gunfire >= identity.gunfire_threshold
    yield Finding(
        "model",
        "fail" if fooled else "pass",
        f"{identity.name} {identity.version}, noise gives gunfire {scores.gunfire:.2f}",
    )


def disk(settings: Settings) -> Iterator[Finding]:
    """Write a few bytes where the outbox is, and see what room there is."""
    outbox = Path(os.path.realpath(settings.outbox.path))
    folder = outbox.parent
    while not folder.exists():
        folder = folder.parent  # the daemon makes what is missing
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        broken = error.errno in (errno.EROFS, errno.EIO)
        advice = "make it writable for this user, or set outbox.path"
        if full:
            advice = "free some space"
        elif broken:
            advice = "the disk is read-only or broken: see `dmesg`, then change the card"
        yield Finding("disk", "fail", f"{folder}: {error.strerror}", advice)
        return
    yield room_finding(folder / outbox.name, settings.outbox.max_bytes)


def signing_key(settings: Settings) -> Iterator[Finding]:
    """Read the key and its certificate; one that is not there yet is not made."""
    integrity, who = settings.integrity, settings.node
    certified = integrity.certificate_file is not None and integrity.certificate_file.exists()
    if not certified and not os.path.lexists(integrity.key_file):
        figure = f"{integrity.key_file}: not there yet; the first start makes it"
        advice = "enrol this node: docs/do/install-a-node.md"
        yield Finding("signing key", "warn", figure, advice, lit=False)
        return
    identity = load_identity(integrity.key_file, integrity.certificate_file, who.id, who.site)
    key_id = Signer(identity.private_key).key.key_id
    trouble = identity.reason(utc_now_ns())
    if trouble:
        what, _, advice = trouble.partition(": ")
        yield Finding("signing key", "warn", f"key_id {key_id}: {what}", advice)
    elif identity.certificate is None:
        yield Finding(
            "signing key",
            "warn",
            f"key_id {key_id}, without a certificate: nobody else can tell whose it is",
            "enrol this node: docs/do/install-a-node.md",
            lit=False,
        )
    else:
        yield Finding("signing key", "pass", f"key_id {key_id}, certified as {who.id}")


def snippets(settings: Settings) -> Iterator[Finding]:
    """Tell whether sound leaves this node, and to whom."""
    chosen = settings.snippets
    if not chosen.enabled:
        yield Finding("snippets", "pass", "off: no sound leaves this node")
        return
    seconds = chosen.before_s + chosen.after_s
    yield Finding(
        "snippets",
        "pass",
        f"on: {seconds:g} s round each of {', '.join(chosen.grades)} go out, encrypted to "
        f"{chosen.recipient}",
    )


def board(settings: Settings) -> Iterator[Finding]:
    """Read the board; its light says meanwhile that a self-test runs."""
    with Board(settings.board) as opened:
        opened.show(Code.SELF_TEST)
        until_s = time.monotonic() + BOARD_S
        reading = opened.reading()
        while settings.board.thermometer and reading.enclosure_c is None:
            if time.monotonic() > until_s:
                break
            time.sleep(0.1)
            reading = opened.reading()
        found = tuple(board_findings(reading, settings.board))
    # Maintenance is a state of a node that runs.
    yield from (finding for finding in found if finding.check != "maintenance")
