"""What this node vouches for: its detections, how far their chain has come, and what it is.

Between the daemon, which knows when, and the messages, which know how. In come detections and the
outbox's links; out go signed bytes for the outbox and the broker.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from node.deliver import Chain, Link, Rendered
from node.identity import Identity
from node.messages import (
    Array,
    Detection,
    Gap,
    Origin,
    Privacy,
    build_checkpoint,
    build_node,
    numbered,
    to_json,
)
from node.messages.signing import NO_HASH, Signer
from node.types import ModelIdentity

CHECKPOINT_DETECTIONS: Final = 100
CHECKPOINT_S: Final = 600.0
"""A checkpoint is due after so many detections, or so long after the last one if there is news."""

MOVED_S: Final = 3600.0
"""A position that is still being averaged moves all the time: it is told so often."""


class Witness:
    """Signs in a node's name.

    Parameters
    ----------
    identity
        Its key, and the certificate over it.
    array, privacy
        What the birth message says of them.
    """

    def __init__(self, identity: Identity, array: Array, privacy: Privacy) -> None:
        self.identity = identity
        self._signer = Signer(identity.private_key, identity.certificate)
        self._array = array
        self._privacy = privacy
        self._told = Chain(0, None, ())
        self._told_s = -math.inf
        self._born: Origin | None = None
        self._born_s = -math.inf

    def certify(self, identity: Identity) -> None:
        """Go on with another certificate over the same key, and have the birth message say it."""
        self.identity = identity
        self._signer = Signer(identity.private_key, identity.certificate)
        self._born = None

    def render(self, detection: Detection, link: Link) -> Rendered:
        """Make a detection what it is for good: numbered, linked to the one before, signed."""
        sealed, digest = self._signer.seal(numbered(detection, link.seq), link.prev_digest)
        return Rendered(to_json(sealed), digest)

    def checkpoint(
        self, origin: Origin, chain: Chain, *, utc_ns: int, now_s: float, at_once: bool = False
    ) -> bytes | None:
        """Give a signed checkpoint if one is due.

        Parameters
        ----------
        now_s
            Of a clock that only counts on.
        at_once
            Whether any news at all makes it due.
        """
        if not chain.seq or not (at_once or self._is_due(chain, now_s)) or chain == self._told:
            return None
        self._told, self._told_s = chain, now_s
        signed, _ = self._signer.sign(
            build_checkpoint(
                origin,
                utc_ns=utc_ns,
                seq=chain.seq,
                head=chain.digest or NO_HASH,
                gaps=[
                    Gap(from_seq=g.from_seq, to_seq=g.to_seq, count=g.count, reason=g.reason)
                    for g in chain.gaps
                ],
                key_id=self._signer.key.key_id,
            )
        )
        return to_json(signed)

    def forget(self) -> None:
        """Have the next checkpoint say all again, as after a connection."""
        self._told = Chain(0, None, ())

    def _is_due(self, chain: Chain, now_s: float) -> bool:
        # While the outbox is full a gap grows with each detection; that is news, but no new gap.
        starts = {gap.from_seq for gap in chain.gaps}
        return (
            not self._told.seq
            or chain.seq - self._told.seq >= CHECKPOINT_DETECTIONS
            or now_s - self._told_s >= CHECKPOINT_S
            or not starts <= {gap.from_seq for gap in self._told.gaps}
        )

    def birth(
        self, origin: Origin, model: ModelIdentity, *, utc_ns: int, now_s: float
    ) -> bytes | None:
        """Give the signed birth message at first, and when the node stands elsewhere."""
        if (born := self._born) is not None:
            rests = born.position is not None and now_s - self._born_s < MOVED_S
            if (replace(origin, position=born.position) if rests else origin) == born:
                return None
        self._born, self._born_s = origin, now_s
        node = build_node(
            origin,
            utc_ns=utc_ns,
            array=self._array,
            model=model,
            key=self._signer.key,
            privacy=self._privacy,
        )
        return to_json(self._signer.sign(node)[0])
