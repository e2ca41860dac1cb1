"""Shots that the trigger did not tell, found by what it did: the street's response, once more.

Beside `rounds`: a shot that falls into the reverberation of the one before does not stand out of
its surroundings, and no trigger tells it. But a second shot from the same place repeats the whole
response of the street to the first, so the sound after a shot, correlated with all that follows,
finds it (a matched filter; signal.md §6 has but the impulses). Pure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from node import dsp
from node.detect.response import BEFORE_S, SLACK_S, WORK_RATE_HZ, band_pass
from node.detect.rounds import rounds_of
from node.types import Event, Impulse, Rounds

Float64Array = npt.NDArray[np.float64]

# So much of a response is compared, and normalised correlation that tells a repeat: the middle of
# where recorded live fire (FP1, FP3, FP5) is counted best, 0.15 to 0.3 s and 0.45 to 0.55.
RESPONSE_S: Final = 0.2
ALIKE: Final = 0.5
# Two shots of energy S in a sound of energy N are alike by S / (S + N). Where the first does not
# stand so far out of the sound before it, what is alike is that sound: an insect, an engine.
STANDS_OUT: Final = 1 / (1 - ALIKE)
# Sound wanted before the first onset: as long as a response.
LEAD_S: Final = BEFORE_S + 2 * RESPONSE_S
# A shooter who turns is some dB weaker or louder, in energy.
LOUDNESS_DB: Final = 6.0
# Nearer peaks of the correlation are of one repeat: its ripple, and its echoes.
APART_S: Final = 0.08


@dataclass(frozen=True, slots=True)
class Repeat:
    """A repeat: how long after the first, how alike, how much louder in dB."""

    after_s: float
    alike: float
    louder_db: float


def with_repeats(
    event: Event,
    rounds: Rounds,
    sound: npt.NDArray[np.float32],
    first_sample: int,
    rate_hz: int,
    elsewhere: Sequence[float] = (),
) -> tuple[Event, Rounds] | None:
    """Add to an event what repeats its first shot.

    Parameters
    ----------
    event, rounds
        As told so far.
    sound
        Shape [n, channels]; from `LEAD_S` before the first shot to as long after the last as is
        searched.
    first_sample
        Index of `sound[0]` on the sample counter.
    rate_hz
        Of `sound`.
    elsewhere
        Onsets, on the sample counter, that other events have told.

    Returns
    -------
    The event with the impulses that were missing, and its rounds; None where there are no more.
    """
    known = [event.impulses[i] for i in rounds.shots]
    first = known[0]
    if len(known) > 1 and known[1].onset_sample - first.onset_sample < RESPONSE_S * rate_hz:
        return None  # its response is not its alone
    more: list[Impulse] = []
    for repeat in find_repeats(sound, (first.onset_sample - first_sample) / rate_hz, rate_hz):
        at = first.onset_sample + repeat.after_s * rate_hz
        taken = (*(shot.onset_sample for shot in (*known, *more)), *elsewhere)
        if min(abs(other - at) for other in taken) < APART_S * rate_hz:
            continue
        near = min(event.impulses, key=lambda i: abs(i.onset_sample - at))
        if abs(near.onset_sample - at) < SLACK_S * rate_hz:
            more.append(near)
            continue
        more.append(
            replace(
                first,
                onset_sample=at,
                sigma_samples=first.sigma_samples * math.sqrt(2),
                snr_db=first.snr_db + repeat.louder_db,
                peak_dbfs=min(0.0, first.peak_dbfs + repeat.louder_db),
                direction=None,
            )
        )
    if not more:
        return None
    shots = sorted({*known, *more}, key=lambda impulse: impulse.onset_sample)
    impulses = sorted({*event.impulses, *more}, key=lambda impulse: impulse.onset_sample)
    indices = [impulses.index(shot) for shot in shots]
    return (
        replace(event, impulses=tuple(impulses)),
        rounds_of(impulses, indices, rounds.is_minimum, rate_hz),
    )


def find_repeats(
    sound: npt.NDArray[np.float32], onset_s: float, sample_rate_hz: int
) -> list[Repeat]:
    """Find what follows an impulse and sounds like it, echoes and all.

    Parameters
    ----------
    sound
        Shape [n, channels], full scale at 1, from `LEAD_S` before the onset; the delays between
        the channels repeat as well, so all of them are correlated with one shift.
    onset_s
        Onset of the impulse, from `sound[0]`.
    sample_rate_hz
        Of `sound`.
    """
    step = max(1, sample_rate_hz // WORK_RATE_HZ)
    rate = sample_rate_hz / step
    span = round((BEFORE_S + RESPONSE_S) * rate)
    first = max(0, round((onset_s - BEFORE_S) * sample_rate_hz))
    y = band_pass(sample_rate_hz).thinned(sound, first % step, step)
    before, y = y[: first // step][-span:], y[first // step :]
    if len(before) < span or len(y) <= span:
        return []
    if np.sum(y[:span] ** 2) < STANDS_OUT * np.sum(before**2):
        return []
    size = dsp.fast_length(len(y))
    spectrum = sum(np.conj(np.fft.rfft(c[:span], size)) * np.fft.rfft(c, size) for c in y.T)
    match = np.fft.irfft(spectrum, size)[: len(y) - span + 1]
    sums = np.concatenate(([0.0], np.cumsum(np.sum(y**2, axis=1))))
    power = np.maximum(sums[span:] - sums[:-span], 1e-30)
    alike = match / np.sqrt(power * power[0])
    louder_db = 10 * np.log10(power / power[0])
    apart = round(APART_S * rate)
    return [
        Repeat(_top(alike, k) / rate, float(alike[k]), float(louder_db[k]))
        for k in dsp.find_peaks(alike, ALIKE, apart)
        if k >= apart and abs(louder_db[k]) <= LOUDNESS_DB
    ]


def _top(y: Float64Array, k: int) -> float:
    """Give where the parabola through a peak and its neighbours has its top."""
    a, b, c = y[k - 1 : k + 2]
    return k + 0.5 * float(a - c) / float(a - 2 * b + c)
