"""Near misses: what came close to being an event, or was one and was called something else.

For whoever asks why a node did not fire. The detector notes rises that fell short of its trigger,
the pipeline what it rejected, could not judge or put down to an echo or a seam; the latest are
kept, and nothing that is detected rests on them.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from node.detect.levels import Mask, Power
from node.settings import DetectSettings
from node.types import Label, Scores

# A rise that falls short by more is the street.
NEAR_DB: Final = 2.0
# The best of so long is kept: rain must not drive out what a technician looks for.
GROUP_S: Final = 2.0
# A rise that fires so soon after was the front of what fired.
FRONT_S: Final = 0.1
# One microphone that crackles must not drive them out either.
MOST_RISES: Final = 30
MOST_ALONE: Final = 15
MOST_JUDGED: Final = 55

Short = Literal["rise", "contrast", "coincidence"]


@dataclass(frozen=True, slots=True)
class ShortOfTrigger:
    """A rise that did not fire.

    Attributes
    ----------
    sample
        Of the millisecond that came closest.
    kind
        What failed: the rise over the background, that over the 50 ms before, or, where too few
        microphones came near, their number.
    rise_db, contrast_db
        Reached on `needed` microphones.
    rise_asked_db, contrast_asked_db
        That were asked for.
    reached, needed, microphones
        How many microphones reached both, how many must, how many are alive.
    """

    sample: int
    kind: Short
    rise_db: float
    rise_asked_db: float
    contrast_db: float
    contrast_asked_db: float
    reached: int
    needed: int
    microphones: int

    @property
    def margin_db(self) -> float:
        """The lesser of what is over, or below zero short of, the two that are asked."""
        return min(self.rise_db - self.rise_asked_db, self.contrast_db - self.contrast_asked_db)

    @property
    def sentence(self) -> str:
        """What happened, in words."""
        if self.kind == "coincidence":
            return (
                f"rose enough on {self.reached} of {self.microphones} microphones, where "
                f"{self.needed} must agree"
            )
        what, reached_db, asked_db = (
            ("the background", self.rise_db, self.rise_asked_db)
            if self.kind == "rise"
            else ("the 50 ms before", self.contrast_db, self.contrast_asked_db)
        )
        # Shown to a tenth, what falls short by less must not look as if it had reached it.
        shown_db = min(round(reached_db, 1), asked_db - 0.1)
        where = f", on {self.needed} of {self.microphones} microphones"
        return (
            f"rose {shown_db:.1f} dB over {what} where {asked_db:.1f} are asked"
            f"{where if self.microphones > 1 else ''}"
        )


@dataclass(frozen=True, slots=True)
class Rejected:
    """An event that was told, but not as gunfire.

    Attributes
    ----------
    sample
        The whole sample at or before its first onset, as in the name of the event.
    kind
        Judged to be something else, or clearly no kind of sound.
    label, scores
        As told last.
    asked
        The `scores.gunfire` from which it would have been probable gunfire.
    snr_db
        Of its loudest impulse.
    """

    sample: int
    kind: Literal["rejected", "abstained"]
    label: Label
    scores: Scores
    asked: float
    snr_db: float

    @property
    def sentence(self) -> str:
        """What happened, in words."""
        judged = "of no clear kind" if self.kind == "abstained" else f"judged {self.label}"
        # Cut, not rounded: what falls short must not look as if it had reached it.
        gunfire = math.floor(100 * self.scores.gunfire) / 100
        return f"heard, {judged}: gunfire {gunfire:.2f} where {self.asked:.2f} is asked"


@dataclass(frozen=True, slots=True)
class PutDownToEcho:
    """An event that was taken for echoes of the burst before it.

    Attributes
    ----------
    sample
        The whole sample at or before its first onset.
    kind
        Always "echo".
    of_sample
        The first sample of the burst's event.
    after_s
        How long after that burst's last shot it came.
    weaker_db
        By how much its loudest impulse is weaker than the burst's weakest shot.
    """

    sample: int
    kind: Literal["echo"]
    of_sample: int
    after_s: float
    weaker_db: float

    @property
    def sentence(self) -> str:
        """What happened, in words."""
        return (
            f"heard, taken for an echo: {self.after_s:.1f} s after a shot and {self.weaker_db:.0f} "
            "dB weaker"
        )


@dataclass(frozen=True, slots=True)
class PutDownToSeam:
    """An impulse that was no sound: there frames were lost, and two ends of sound met.

    Attributes
    ----------
    sample
        The whole sample at or before its onset.
    kind
        Always "seam".
    """

    sample: int
    kind: Literal["seam"] = "seam"

    @property
    def sentence(self) -> str:
        """What happened, in words."""
        return "no sound: frames were lost there, and all microphones jump at once"


JudgedMiss = Rejected | PutDownToEcho | PutDownToSeam
NearMiss = ShortOfTrigger | JudgedMiss


class ShortRises:
    """The latest rises that fell short of the trigger, the best of each two seconds."""

    def __init__(self, settings: DetectSettings, sample_rate_hz: int) -> None:
        self._settings = settings
        self._group = round(GROUP_S * sample_rate_hz)
        self._front = round(FRONT_S * sample_rate_hz)
        self._rises: deque[ShortOfTrigger] = deque(maxlen=MOST_RISES)
        self._alone: deque[ShortOfTrigger] = deque(maxlen=MOST_ALONE)

    @property
    def latest(self) -> tuple[ShortOfTrigger, ...]:
        """The newest last."""
        return tuple(sorted((*self._rises, *self._alone), key=lambda miss: miss.sample))

    def forget(self) -> None:
        """Forget all: sample indices mean something else now."""
        self._rises.clear()
        self._alone.clear()

    def fired(self, at_sample: int) -> None:
        """Take back what was but the front of an impulse."""
        for kept in (self._rises, self._alone):
            while kept and kept[-1].sample >= at_sample - self._front:
                kept.pop()

    def look(
        self,
        rise: Power,
        contrast: Power,
        alive: Mask,
        agreed: npt.NDArray[np.float64],
        spread: int,
        first_sample: int,
        frames: int,
    ) -> None:
        """Keep the best of some bins that did not fire, if it came near.

        Parameters
        ----------
        rise, contrast
            By how much each is above, or below zero short of, what is asked; shape [bins,
            channels], `spread` of them beside those to be looked at on either side.
        alive
            Which channels were; the same shape.
        agreed
            The lesser of both that enough channels reach, shape [bins].
        spread
            Bins within which channels agree.
        first_sample, frames
            Of the first bin, and in a bin.
        """
        looked_at = slice(spread, len(agreed) - spread)
        if len(agreed) <= 2 * spread:
            return
        best = spread + int(agreed[looked_at].argmax())
        margin = np.where(alive, np.minimum(rise, contrast), -np.inf)
        if agreed[best] < -NEAR_DB:
            # Not near, unless too few microphones heard it.
            of_one = margin[looked_at].max(axis=1)
            best = spread + int(of_one.argmax())
            if of_one[best - spread] < 0:
                return
        miss = self._at(best, rise, contrast, margin, alive, spread)
        self._keep(replace(miss, sample=first_sample + best * frames))

    def _at(
        self, i: int, rise: Power, contrast: Power, margin: Power, alive: Mask, spread: int
    ) -> ShortOfTrigger:
        """Describe the neighbourhood of bin `i`, as the vote sees it."""
        near = slice(i - spread, i + spread + 1)
        at = margin[near].argmax(axis=0)
        columns = np.arange(margin.shape[1])
        votes = margin[near][at, columns]
        microphones = int(np.count_nonzero(alive[i]))
        needed = microphones // 2 + 1
        agree = np.argsort(-votes)[:needed]
        rise_db = float(rise[near][at, columns][agree].min())
        contrast_db = float(contrast[near][at, columns][agree].min())
        reached = int(np.count_nonzero(votes >= 0))
        kind: Short = "rise" if rise_db <= contrast_db else "contrast"
        if min(rise_db, contrast_db) < -NEAR_DB:
            kind = "coincidence"
        asked = self._settings
        return ShortOfTrigger(
            sample=i,
            kind=kind,
            rise_db=rise_db + asked.threshold_db,
            rise_asked_db=asked.threshold_db,
            contrast_db=contrast_db + asked.contrast_db,
            contrast_asked_db=asked.contrast_db,
            reached=reached,
            needed=needed,
            microphones=microphones,
        )

    def _keep(self, miss: ShortOfTrigger) -> None:
        """Keep a near miss, or the better of it and the one just before."""
        for kept in (self._rises, self._alone):
            if kept and miss.sample - kept[-1].sample < self._group:
                if miss.margin_db <= kept[-1].margin_db:
                    return
                kept.pop()
        (self._alone if miss.kind == "coincidence" else self._rises).append(miss)


class JudgedMisses:
    """The latest events that were rejected, not judged, or put down to an echo or a seam."""

    def __init__(self) -> None:
        self._kept: dict[int, JudgedMiss] = {}

    @property
    def latest(self) -> tuple[JudgedMiss, ...]:
        """The newest last."""
        return tuple(self._kept.values())

    def forget(self) -> None:
        """Forget all: sample indices mean something else now."""
        self._kept.clear()

    def keep(self, miss: JudgedMiss) -> None:
        """Keep one, in place of what was said of the same event."""
        self._kept[miss.sample] = miss
        if len(self._kept) > MOST_JUDGED:
            del self._kept[next(iter(self._kept))]

    def knows(self, sample: int) -> bool:
        """Whether an event is among them."""
        return sample in self._kept

    def drop(self, sample: int) -> None:
        """Take an event back: it is gunfire after all."""
        self._kept.pop(sample, None)
