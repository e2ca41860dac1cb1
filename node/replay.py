"""The live pipeline over recordings: what `gunfire-node replay`, the benches and the tests run.

A recording says who heard it, when and where (the .json beside it, or options); the clock is then
plain arithmetic on its first sample's time. Two runs give the same bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import node
from node.capture import RecordingIdentity, RecordingSource, load_geometry
from node.errors import RecordingError
from node.messages import Detection, Local, Origin, Position, recording_boot_id
from node.pipeline import Pipeline
from node.settings import DetectSettings
from node.timing import RecordingClock
from node.types import NS_PER_S, Classifier, ClockQuality
from node.utc import LATEST_UTC_NS

# The sidecars of the live-fire set give the start to the millisecond, and say nothing of the clock.
STATED_TO_S: Final = 1e-3
UNKNOWN_S: Final = 1e9
# A single fix of a GPS receiver under open sky is good to some metres.
UNSTATED_POSITION_M: Final = 10.0


@dataclass(frozen=True)
class Replay:
    """How recordings are heard.

    Attributes
    ----------
    classifier, detect
        As in the daemon.
    site
        Name of the site in the messages.
    start_utc_ns
        UTC of the first sample, above what the recording says.
    array
        Array geometry by name or file, above what the recording says.
    """

    classifier: Classifier
    detect: DetectSettings
    site: str = "replay"
    start_utc_ns: int | None = None
    array: str | None = None

    def detections(
        self, path: Path, progress: Callable[[float], None] = lambda _: None
    ) -> Iterator[Detection]:
        """Yield the detections of one recording, in order of onset.

        Parameters
        ----------
        progress
            Called with the seconds of sound done since the last call.

        Raises
        ------
        RecordingError, SceneError
            The recording or the array is not what it should be.
        """
        with RecordingSource(path, start_utc_ns=self.start_utc_ns) as source:
            if self.array is not None:
                load_geometry(self.array, channels=source.channels)
            pipeline = self._pipeline(source)
            try:
                for block in source.blocks():
                    yield from pipeline.push(block)
                    progress(len(block.frames) / block.sample_rate_hz)
            except RecordingError:
                # A file that breaks off has told the truth up to there.
                yield from pipeline.flush()
                raise
            yield from pipeline.flush()

    def _pipeline(self, source: RecordingSource) -> Pipeline:
        identity = source.identity
        start_ns = identity.start_utc_ns or 0
        if start_ns + source.frames * NS_PER_S // source.sample_rate_hz >= LATEST_UTC_NS:
            raise RecordingError(f"{source.path}: ends after the year 2262; mend its start")
        sigma_s = UNKNOWN_S if identity.start_utc_ns is None else STATED_TO_S
        return Pipeline(
            origin=self._origin(source.path, identity),
            settings=self.detect,
            clock=RecordingClock(
                start_ns, source.sample_rate_hz, ClockQuality(source="free", sigma_s=sigma_s)
            ),
            classifier=self.classifier,
            sample_rate_hz=source.sample_rate_hz,
            channels=source.channels,
        )

    def _origin(self, path: Path, identity: RecordingIdentity) -> Origin:
        node_id = identity.node_id or path.stem
        # A file may be named as it likes, a level of a topic may not.
        fitting = re.sub(r"[^A-Za-z0-9._-]", "-", node_id).lstrip("._-")[:48]
        if fitting != node_id:
            fitting = f"{fitting or 'recording'}-{hashlib.sha256(node_id.encode()).hexdigest()[:8]}"
        node_id = fitting
        position, local = identity.position, identity.local
        return Origin(
            site=self.site,
            node_id=node_id,
            boot_id=recording_boot_id(node_id, identity.start_utc_ns or 0),
            firmware=node.__version__,
            position=None
            if position is None
            else Position(
                lat_deg=position.lat_deg,
                lon_deg=position.lon_deg,
                alt_m=position.alt_m,
                sigma_m=position.sigma_m or UNSTATED_POSITION_M,
            ),
            local=None
            if local is None
            else Local(
                frame=self.site, x_m=local.x_m, y_m=local.y_m, z_m=local.z_m, sigma_m=local.sigma_m
            ),
        )
