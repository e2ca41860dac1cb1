"""The few value types that the stages hand on, in the order in which a sound passes.

capture makes `Block`; timing turns a sample index into an `Instant`; detect makes `Impulse`,
`Event`, `Direction` and `Rounds`; classify makes `Scores`. All are frozen; none does any work
beyond its own arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, Protocol, Self

import numpy as np
import numpy.typing as npt

PcmArray = npt.NDArray[np.int16] | npt.NDArray[np.int32] | npt.NDArray[np.float32]

Label = Literal["gunfire", "fireworks", "backfire", "other"]
LABELS: Final[tuple[Label, ...]] = ("gunfire", "fireworks", "backfire", "other")

Grade = Literal["gunfire", "probable_gunfire", "not_gunfire"]
ClockSource = Literal["pps", "gps", "ntp", "free"]

NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Unplaced:
    """Frames that were lost, nobody knows where between two samples.

    What is heard between them is in its place, or off by `frames`.
    """

    frames: int
    first_sample: int
    end_sample: int


@dataclass(frozen=True, slots=True)
class Block:
    """Successive frames of one stream, as the converter delivered them.

    Attributes
    ----------
    first_sample
        Index of `frames[0]` on the node's sample counter. Lost frames are counted in: the
        counter never runs behind the converter, and no sample changes its index later.
    frames
        Samples, shape [n, channels], dtype int16, int32 or float32 as delivered (24-bit samples
        stand in the upper bits of int32), so that capture can be proven bit for bit.
    sample_rate_hz
        Nominal rate.
    host_time_ns
        CLOCK_MONOTONIC of the first frame's conversion in ns, late but never early; None where
        there is no host clock to speak of (recordings, simulation).
    lost_before
        Frames known to be missing between the block before and this one.
    stream
        Counts openings of the device. Whatever was learnt of the clock of one stream says
        nothing of the next.
    waiting_frames
        Frames that had come after this block when it was handed on, and that wait; 0 where the
        source cannot run ahead (recordings).
    unplaced
        What of `lost_before` may be missing elsewhere: in the block before, in this, or in one of
        the next; None where its place is known.
    """

    first_sample: int
    frames: PcmArray
    sample_rate_hz: int
    host_time_ns: int | None = None
    lost_before: int = 0
    stream: int = 0
    waiting_frames: int = 0
    unplaced: Unplaced | None = None

    @property
    def waiting_s(self) -> float:
        """By how much whoever takes this block is behind its source, in s."""
        return self.waiting_frames / self.sample_rate_hz

    @property
    def end_sample(self) -> int:
        """Index of the frame after the last one."""
        return self.first_sample + len(self.frames)

    def samples(self, frames: slice = slice(None)) -> npt.NDArray[np.float32]:
        """Give (some) frames as float32 with full scale at 1, shape [n, channels]."""
        return to_full_scale(self.frames[frames])


def to_full_scale(pcm: PcmArray) -> npt.NDArray[np.float32]:
    """Scale integer PCM to float32 with full scale at 1; floats pass unchanged."""
    if pcm.dtype == np.int16:
        return pcm.astype(np.float32) * np.float32(2.0**-15)
    if pcm.dtype == np.int32:
        return pcm.astype(np.float32) * np.float32(2.0**-31)
    return pcm.astype(np.float32, copy=False)


class AudioSource(Protocol):
    """Where samples come from: a sound device, a recording, a simulated scene.

    Used as a context manager; entering opens it, leaving closes it. `blocks` yields until the
    source ends (a recording) or `close` is called from another thread or a signal handler
    (a device), and raises `DeviceError` or `RecordingError` when it breaks.
    """

    @property
    def sample_rate_hz(self) -> int:
        """Nominal rate of the blocks to come."""

    @property
    def channels(self) -> int:
        """Channels of the blocks to come."""

    def blocks(self) -> Iterator[Block]:
        """Yield blocks in order until the source ends."""

    def close(self) -> None:
        """End `blocks`; may be called from another thread, and twice."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment in UTC (ns since 1970, leap seconds as POSIX) and its standard error in s."""

    utc_ns: int
    sigma_s: float


@dataclass(frozen=True, slots=True)
class ClockQuality:
    """What disciplines the clock, and how far off it may be."""

    source: ClockSource
    sigma_s: float
    bound_s: float | None = None
    second_confirmed: bool = False
    holdover_s: float = 0.0


@dataclass(frozen=True, slots=True)
class HostReading:
    """One bracketed reading of the host's clocks.

    `utc_minus_monotonic_ns` is CLOCK_REALTIME minus CLOCK_MONOTONIC; it changes only when the
    host's clock is stepped, since both are slewed together. `monotonic_ns` is when it was read,
    `width_ns` the width of the bracket.
    """

    monotonic_ns: int
    utc_minus_monotonic_ns: int
    width_ns: int
    quality: ClockQuality


@dataclass(frozen=True, slots=True)
class ReceiverReading:
    """What a GNSS receiver said in one message.

    Attributes
    ----------
    monotonic_ns
        CLOCK_MONOTONIC when the message was read: after the second that it names, by up to one.
    utc_ns
        The time that it names, as the receiver has it.
    valid
        Whether its UTC may be believed: it has a fix, and knows the leap seconds.
    """

    monotonic_ns: int
    utc_ns: int
    valid: bool


class SampleClock(Protocol):
    """Maps the sample counter to UTC, and says why one may believe it. Pure: it reads no clock."""

    def observe_block(self, block: Block) -> None:
        """Learn from a block's host time stamp."""

    def observe_host(self, reading: HostReading) -> None:
        """Learn the host's UTC offset and discipline."""

    def observe_receiver(self, reading: ReceiverReading) -> None:
        """Learn which second a GNSS receiver says it is."""

    def at(self, sample: float) -> Instant:
        """Give the UTC of a (fractional) sample index."""

    def quality(self) -> ClockQuality:
        """Say what disciplines the clock now."""


@dataclass(frozen=True, slots=True)
class Direction:
    """Where a sound came from, as seen from the node.

    Attributes
    ----------
    azimuth_deg
        Clockwise from true north, 0 to 360.
    elevation_deg
        Above the horizon; None where the array cannot tell.
    sigma_deg
        Standard error along each axis of the sky. A cone of 2.45 sigma round the direction holds
        95 % (two axes); of an azimuth alone, ±1.96 sigma do.
    airborne_probability
        Probability that the source was in the air, higher than what stands round the node; None
        where the elevation is not known.
    """

    azimuth_deg: float
    elevation_deg: float | None
    sigma_deg: float
    airborne_probability: float | None = None


@dataclass(frozen=True, slots=True)
class Impulse:
    """One impulsive arrival.

    `onset_sample` is fractional, on the node's sample counter, and refers to channel 0;
    `sigma_samples` is its standard error. `snr_db` is the peak over the background's rms in the
    trigger band, `peak_dbfs` the peak of the loudest channel. A `clipped` impulse still has a time.
    `direction` is None until it was sought, and where it could not be told.
    """

    onset_sample: float
    sigma_samples: float
    snr_db: float
    peak_dbfs: float
    clipped: bool = False
    direction: Direction | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Impulses that belong together, in order of onset; never empty.

    `lost_samples` counts the frames lost inside the stretch that the event was judged on.
    """

    impulses: tuple[Impulse, ...]
    lost_samples: int = 0

    @property
    def first_sample(self) -> int:
        """The whole sample at or before the first onset: with node and boot it names the event."""
        return int(np.floor(self.impulses[0].onset_sample))


@dataclass(frozen=True, slots=True)
class Rounds:
    """Which impulses of an event are shots, told from echoes and clutter.

    Attributes
    ----------
    shots
        Indices into `Event.impulses`, ascending, never empty. By bearing the first arrival is one,
        since an echo cannot lead; by response only if it is of those that repeat. So the first
        shot, and with it `onset_utc`, may be another once more of the event is known.
    is_minimum
        Whether there may have been more.
    cadence_rpm
        Rounds a minute; None where there are fewer than three, or no steady rate.
    """

    shots: tuple[int, ...]
    is_minimum: bool
    cadence_rpm: float | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """Calibrated class probabilities; they sum to 1."""

    gunfire: float
    fireworks: float
    backfire: float
    other: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the classifier says of an event."""

    scores: Scores
    label: Label
    abstained: bool
    grade: Grade


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model judged, and the two thresholds on `scores.gunfire` that its file carries."""

    name: str
    version: str
    sha256: str
    gunfire_threshold: float
    probable_threshold: float


class Classifier(Protocol):
    """Judges the sound round an impulse."""

    @property
    def identity(self) -> ModelIdentity:
        """Which model judges."""

    def window(self, sample_rate_hz: int) -> tuple[int, int]:
        """Give the frames wanted before and after an onset, at a rate."""

    def judge(self, windows: Iterable[npt.NDArray[np.float32]], sample_rate_hz: int) -> Judgement:
        """Judge an event from windows of shape [n, channels], one per impulse."""

    def verdict(self, scores: Scores) -> Judgement:
        """Say what scores amount to: label, abstention, grade."""
