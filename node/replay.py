"""The live pipeline over recordings: what `gunfire-node replay`, the benches and the tests run.

A recording says who heard it, when and where (the .json beside it, or options); the clock is then
plain arithmetic on its first sample's time. Two runs give the same bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import node
from node.capture import (
    ArrayGeometry,
    RecordingIdentity,
    RecordingSource,
    make_geometry,
)
from node.detect import ChannelOrder, SitePrior
from node.errors import RecordingError, SceneError
from node.messages import Detection, Local, Origin, Position, recording_boot_id
from node.pipeline import Array, Pipeline
from node.settings import DetectSettings
from node.timing import LeapTable, PpsSampleClock, RecordingClock
from node.types import NS_PER_S, Classifier, ClockQuality, SampleClock
from node.utc import LATEST_UTC_NS

# The sidecars of the live-fire set give the start to the millisecond, and say nothing of the clock.
STATED_TO_S: Final = 1e-3
FOR_PULSES_S: Final = 10.0
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
    pps_channel
        Channel with a receiver's pulse, above what the recording says. Where neither says so and
        the recording has one channel more than its array, the one that pulses is taken.
    prior
        What stands round the node.
    """

    classifier: Classifier
    detect: DetectSettings
    site: str = "replay"
    start_utc_ns: int | None = None
    array: str | None = None
    pps_channel: int | None = None
    prior: SitePrior = field(default_factory=SitePrior)

    def detections(
        self, path: Path, progress: Callable[[float], None] = lambda _: None
    ) -> Iterator[Detection]:
        """Yield the detections of one recording.

        New ones come in order of onset; revisions of earlier ones come between them.

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
        pulse = self._pulse_channel(source)
        geometry = self._geometry(source, pulse)
        return Pipeline(
            origin=self._origin(source.path, identity),
            settings=self.detect,
            clock=_clock(source, start_ns, pulse),
            classifier=self.classifier,
            sample_rate_hz=source.sample_rate_hz,
            channels=source.channels,
            microphones=[c for c in range(source.channels) if c != pulse],
            array=None
            if geometry is None
            else Array.of(
                geometry.oriented(identity.heading_deg, identity.pitch_deg, identity.roll_deg),
                source.sample_rate_hz,
                settings=self.detect,
                prior=self.prior,
            ),
        )

    def _pulse_channel(self, source: RecordingSource) -> int | None:
        """Give the channel of the pulse, as told or as heard; None where there is none."""
        told = source.identity.pps_channel if self.pps_channel is None else self.pps_channel
        if told is not None:
            return told
        try:
            self._geometry(source, None)
        except (RecordingError, SceneError):
            try:
                self._geometry(source, source.channels - 1)
            except (RecordingError, SceneError):
                return None
            pulsing = _pulsing(source.path)
            return pulsing[0] if len(pulsing) == 1 else None
        return None

    def _geometry(self, source: RecordingSource, pulse: int | None) -> ArrayGeometry | None:
        """Give the array as it is named; None where nothing names one."""
        identity = source.identity
        if pulse is not None and pulse >= source.channels:
            raise RecordingError(
                f"{source.path}: the pulse is said to be in channel {pulse}, but there are "
                f"{source.channels}, counted from 0; mend the .json beside it, or --pps-channel"
            )
        microphones = source.channels - (pulse is not None)
        if not microphones:
            raise RecordingError(f"{source.path}: has only the channel of the pulse, no microphone")
        if self.array is not None:
            return source.geometry(self.array, microphones)
        if identity.microphones_m is not None:
            if len(identity.microphones_m) != microphones:
                raise RecordingError(
                    f"{source.path}: the .json beside it places {len(identity.microphones_m)} "
                    f"microphones, the recording has {microphones} channels of sound"
                )
            return make_geometry("of the recording", identity.microphones_m)
        if identity.array is None:
            return None
        beside = source.path.parent / identity.array
        array = beside if beside.suffix == ".toml" else identity.array
        return source.geometry(array, microphones)

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


def _pulsing(path: Path) -> tuple[int, ...]:
    """Listen to the beginning of a recording for channels that carry a pulse a second."""
    with RecordingSource(path) as source:
        order = ChannelOrder(source.channels, source.sample_rate_hz, pps_channel=0)
        for block in source.blocks():
            order.observe(block)
            if block.end_sample > FOR_PULSES_S * source.sample_rate_hz:
                break
    return order.pulsing


def _clock(source: RecordingSource, start_ns: int, pulse: int | None) -> SampleClock:
    """Give the clock of a recording: by its pulse, if it has one, else by its stated start."""
    identity, rate = source.identity, source.sample_rate_hz
    stated = identity.start_utc_ns is not None
    quality = ClockQuality(source="free", sigma_s=STATED_TO_S if stated else UNKNOWN_S)
    leaps = LeapTable.load()
    clock = RecordingClock(start_ns, rate, quality, leaps)
    if pulse is None:
        return clock
    return PpsSampleClock(rate, pulse, clock, trust_coarse=stated, leaps=leaps)
