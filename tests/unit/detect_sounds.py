"""Small sounds for the detector's tests: blasts, street noise, and how they are pushed."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from scipy import signal

from node.detect import Detector
from node.settings import DetectSettings
from node.types import Block, Event, Impulse

Sound = npt.NDArray[np.float32]


def blast(
    sample_rate_hz: int,
    onset: float = 0.0,
    positive_s: float = 4e-4,
    rise_s: float = 4e-5,
    seconds: float = 0.05,
) -> npt.NDArray[np.float64]:
    """Give a Friedlander wave of peak 1 that starts `onset` samples in, its front worn by the air.

    Distance turns the shock into a soft rise of 20–200 us (signal.md §2).
    """
    t = (np.arange(round(seconds * sample_rate_hz)) - onset) / sample_rate_hz
    after = np.maximum(t, 0)
    wave = (
        (1 - after / positive_s) * np.exp(-after / positive_s) * (1 - np.exp(-after / rise_s)) ** 3
    )
    wave[t < 0] = 0
    return wave / np.abs(wave).max()


def street(
    rng: np.random.Generator,
    sample_rate_hz: int,
    seconds: float,
    channels: int = 1,
    rms: float = 0.01,
) -> npt.NDArray[np.float64]:
    """Give pink noise of which the channels share 60 % of the power, shape [n, channels]."""
    n = round(seconds * sample_rate_hz)
    frequency = np.maximum(np.fft.rfftfreq(n, 1 / sample_rate_hz), 20.0)

    def pink(columns: int) -> npt.NDArray[np.float64]:
        white = np.fft.rfft(rng.standard_normal((n, columns)), axis=0)
        x = np.fft.irfft(white / np.sqrt(frequency)[:, None], n, axis=0)
        return x / x.std()

    return rms * (np.sqrt(0.6) * pink(1) + np.sqrt(0.4) * pink(channels))


def add_blast(
    x: npt.NDArray[np.float64],
    sample_rate_hz: int,
    at_sample: float,
    peak: float,
    delays: Iterable[int] = (0,),
    **shape: float,
) -> None:
    """Add a blast to every channel in place, on channel c `delays[c]` samples later."""
    whole = int(at_sample)
    wave = peak * blast(sample_rate_hz, at_sample - whole, **shape)
    for channel, delay in zip(range(x.shape[1]), delays, strict=True):
        x[whole + delay : whole + delay + len(wave), channel] += wave


def hear(
    x: npt.NDArray[np.floating] | npt.NDArray[np.int16],
    sample_rate_hz: int,
    *,
    cuts: Iterable[int] | None = None,
    settings: DetectSettings | None = None,
) -> list[Event]:
    """Push a recording in blocks that end at `cuts` (by default every 1024 frames)."""
    frames = x if x.dtype == np.int16 else x.astype(np.float32)
    detector = Detector(settings or DetectSettings(), sample_rate_hz, x.shape[1])
    events: list[Event] = []
    first = 0
    for end in [*(range(1024, len(x), 1024) if cuts is None else cuts), len(x)]:
        events += detector.push(Block(first, frames[first:end], sample_rate_hz))
        first = end
    return events + detector.flush()


def impulses(events: list[Event]) -> list[Impulse]:
    """Give all impulses of some events."""
    return [impulse for event in events for impulse in event.impulses]


def hum(sample_rate_hz: int, n: int, amplitude: float) -> npt.NDArray[np.float64]:
    """Give a mains hum with harmonics far up, as a broken ground makes it."""
    t = np.arange(n) / sample_rate_hz
    return amplitude * signal.square(2 * np.pi * 50 * t)
