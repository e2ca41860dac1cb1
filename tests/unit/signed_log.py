"""Logs as subscribers keep them: detections of real keys, linked and signed, with certificates."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.messages import (
    Array,
    Checkpoint,
    Detection,
    Gap,
    Microphone,
    Origin,
    Privacy,
    build_checkpoint,
    build_node,
    parse_detection,
    recording_boot_id,
    to_json,
)
from node.messages.signing import NO_HASH, Signer
from node.messages.wire import with_transport
from node.types import ModelIdentity
from node.utc import utc_text
from tests.hil.fleet_ca import FleetCa

EXAMPLE = parse_detection(
    (Path(__file__).parent.parent / "contract" / "detection.json").read_bytes()
)
SITE = "city"
MODEL = ModelIdentity("test", "1", "0" * 64, 0.7, 0.4)
NS = 10**9


class SignedNode:
    """A node that signs, in memory.

    Parameters
    ----------
    begin
        Onset of its first detection; one follows each second.
    """

    def __init__(
        self,
        node_id: str,
        begin: dt.datetime,
        key: Ed25519PrivateKey | None = None,
        site: str = SITE,
    ) -> None:
        self.node_id = node_id
        self.key = key or Ed25519PrivateKey.generate()
        self.begin_ns = round(begin.timestamp()) * NS
        self.boot_id = recording_boot_id(node_id, self.begin_ns)
        self.origin = Origin(site, node_id, self.boot_id, "0.0.test")
        self.signer = Signer(self.key)
        self.seq = 0
        self.head: str | None = None

    def certified(self, ca: FleetCa, **options: Any) -> Path:
        """Have a CA certify the key; the certificate goes into the birth message."""
        issued = ca.issue(self.node_id, organization=self.origin.site, key=self.key, **options)
        self.signer = Signer(self.key, issued.certificate.read_text())
        return issued.certificate

    def birth(self) -> bytes:
        signed, _ = self.signer.sign(
            build_node(
                self.origin,
                utc_ns=self.begin_ns,
                array=Array(
                    name="mono",
                    channels=1,
                    sample_rate_hz=48_000,
                    microphones=(Microphone(x_m=0, y_m=0, z_m=0),),
                ),
                model=MODEL,
                key=self.signer.key,
                privacy=Privacy(snippets=False, snippet_seconds=0, publish_rejected=True),
            )
        )
        return to_json(signed)

    def detection(self, **changes: Any) -> bytes:
        """Give the next one."""
        self.seq += 1
        onset = utc_text(self.begin_ns + self.seq * NS + self.seq % 997 * 1_000_003)
        first = EXAMPLE.rounds[0].model_copy(update={"utc": onset})
        sealed, self.head = self.signer.seal(
            EXAMPLE.model_copy(
                update={
                    "site": self.origin.site,
                    "node_id": self.node_id,
                    "boot_id": self.boot_id,
                    "event_id": f"00000000-0000-5000-8000-{self.seq:012x}",
                    "seq": self.seq,
                    "onset_utc": onset,
                    "rounds": (first, EXAMPLE.rounds[1]),
                    **changes,
                }
            ),
            self.head,
        )
        return with_transport(to_json(sealed), self.begin_ns + (self.seq + 1) * NS, False)

    def checkpoint(self, gaps: tuple[Gap, ...] = ()) -> bytes:
        checkpoint: Checkpoint = build_checkpoint(
            self.origin,
            utc_ns=self.begin_ns + (self.seq + 1) * NS,
            seq=self.seq,
            head=self.head or NO_HASH,
            gaps=gaps,
            key_id=self.signer.key.key_id,
        )
        return to_json(self.signer.sign(checkpoint)[0])

    def log(self, count: int) -> Iterator[bytes]:
        """Give a birth message, detections, and a checkpoint after each hundred and at the end."""
        yield self.birth()
        for n in range(1, count + 1):
            yield self.detection()
            if n % 100 == 0 or n == count:
                yield self.checkpoint()


def changed(line: bytes, **changes: Any) -> bytes:
    """Change a message, and leave its signature as it was."""
    return json.dumps({**json.loads(line), **changes}, separators=(",", ":")).encode()


def number(line: bytes) -> int | None:
    """Give the number of a detection; None for other messages."""
    document = json.loads(line)
    return document["seq"] if document["schema"].startswith(Detection.__name__.lower(), 8) else None
