"""The classifier that the pipeline asks: windows round impulses in, one verdict out.

`judge` is the node's way: the trigger says where to look. `classify_stream` looks everywhere, with
no trigger in between, for `gunfire-node classify` and for evaluation. Both go through the same
picture, network and verdict.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt

import node
from node.classify import calibration, features, sidecar
from node.classify.runner import Runner
from node.classify.stream import Windows
from node.types import LABELS, Judgement, ModelIdentity, Scores

BEFORE_S: Final = 0.30
"""Sound wanted before an onset. Training draws the onset at 0.08–0.34 s of a picture."""
LOOKS: Final = (0, 8, 16)
"""Frames by which the picture moves over one impulse's window."""
AFTER_S: Final = (features.WINDOW + LOOKS[-1] * features.HOP) / features.RATE_HZ - BEFORE_S
LOUD_ENOUGH_DB: Final = 12.0
"""Impulses weaker than the loudest by more are left out of the verdict: echoes and crackle."""
MOST_IMPULSES: Final = 8

SHIPPED: Final = "gunfire.tflite"

_OTHER: Final = LABELS.index("other")

Evidence = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StreamJudgement:
    """What the classifier says of a whole recording.

    `events` counts the separate stretches in which something other than the street was heard.
    """

    judgement: Judgement
    events: int
    seconds: float


class TfliteClassifier:
    """Judges sounds by an int8 TFLite network; implements `node.types.Classifier`."""

    def __init__(self, runner: Runner, card: sidecar.Sidecar) -> None:
        self._runner = runner
        self._card = card
        self._identity = ModelIdentity(
            name=card.name,
            version=card.version,
            sha256=card.sha256,
            gunfire_threshold=card.thresholds.gunfire,
            probable_threshold=card.thresholds.probable,
        )

    @classmethod
    def load(cls, model: Path | None = None, runtime_name: str | None = None) -> Self:
        """Load a model and the .json beside it; the shipped one if None.

        Raises
        ------
        ModelError
            Either file is missing, unreadable, misshapen, or not the other's.
        """
        path = shipped_model() if model is None else model
        card = sidecar.read(path.with_suffix(".json"))
        return cls(Runner(path, card, runtime_name), card)

    @property
    def identity(self) -> ModelIdentity:
        """Say which model judges."""
        return self._identity

    def window(self, sample_rate_hz: int) -> tuple[int, int]:
        """Give the frames wanted before and after an onset, at a rate."""
        return (
            round(BEFORE_S * sample_rate_hz),
            int(np.ceil(AFTER_S * sample_rate_hz)) + 1,
        )

    def judge(self, windows: Iterable[npt.NDArray[np.float32]], sample_rate_hz: int) -> Judgement:
        """Judge an event from the windows round its impulses.

        The best of the `LOOKS` at the loudest impulses speak (`calibration.pooled`): at most
        `MOST_IMPULSES`, none more than `LOUD_ENOUGH_DB` below the loudest.

        Parameters
        ----------
        windows
            One per impulse, shape [n, channels] with n of `window`; a shorter one (the stream
            began or ended there) is filled up with silence at its end. Each is let go before the
            next is asked for.
        sample_rate_hz
            Rate of the windows.
        """
        probability = calibration.probabilities(
            self.evidence(windows, sample_rate_hz), self._card.calibration
        )
        return self.verdict(calibration.as_scores(probability))

    def verdict(self, scores: Scores) -> Judgement:
        """Say what scores amount to: label, abstention, grade."""
        return calibration.verdict(scores, self._card.thresholds)

    def evidence(self, windows: Iterable[npt.NDArray[np.float32]], sample_rate_hz: int) -> Evidence:
        """Give what `judge` goes by before any calibration: log-evidence of each class, [4]."""
        sounds = [features.pick_channel(window) for window in windows]
        peaks = np.array([np.max(np.abs(sound), initial=0.0) for sound in sounds])
        chosen = np.argsort(-peaks, kind="stable")[:MOST_IMPULSES]
        chosen = chosen[peaks[chosen] >= peaks.max(initial=0.0) * 10 ** (-LOUD_ENOUGH_DB / 20)]
        pictures = [
            picture
            for index in chosen
            for picture in self._looks(features.resample(sounds[index], sample_rate_hz))
        ]
        if not pictures:
            return calibration.NOTHING_HEARD
        return calibration.pooled(self._runner.logits(np.stack(pictures)))

    def classify_stream(
        self, blocks: Iterable[features.Sound], sample_rate_hz: int
    ) -> StreamJudgement:
        """Judge a recording of any length, block by block, with no trigger.

        The verdict is that of its best stretch of 8 s, the one with the most evidence for any
        class but `other`; within it the best windows speak (`calibration.best_heard`). The looks
        at an onset on the border of two stretches are divided between them.

        Parameters
        ----------
        blocks
            Successive samples of shape [n, channels] (or [n]), full scale at 1.
        sample_rate_hz
            Their rate.
        """
        evidence, events, seconds = self.stream_evidence(blocks, sample_rate_hz)
        probability = calibration.probabilities(evidence, self._card.stream_calibration)
        judgement = self.verdict(calibration.as_scores(probability))
        return StreamJudgement(judgement=judgement, events=events, seconds=seconds)

    def stream_evidence(
        self, blocks: Iterable[features.Sound], sample_rate_hz: int
    ) -> tuple[Evidence, int, float]:
        """Give what `classify_stream` goes by.

        Log-evidence of each class before any calibration, shape [4], of the best stretch; the
        events, which the calibrated chance of `other` sets apart; the seconds.
        """
        best = calibration.NOTHING_HEARD
        events = 0
        inside = False
        windows = Windows(sample_rate_hz)
        for pictures in windows.over(blocks):
            drawn = [picture for picture in pictures if picture is not None]
            if not drawn:
                inside = False
                continue
            logits = self._runner.logits(np.stack(drawn))
            segment = calibration.best_heard(logits)
            if segment[_OTHER] < best[_OTHER]:
                best = segment
            rows = iter(calibration.probabilities(logits, self._card.stream_calibration))
            for picture in pictures:
                heard = picture is not None and bool(next(rows)[_OTHER] < calibration.CLEAR)
                events += int(heard and not inside)
                inside = heard
        return best, events, windows.seconds

    def _looks(self, sound: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float32]]:
        """Draw the pictures of one impulse's window; none of digital silence."""
        wanted = features.WINDOW + LOOKS[-1] * features.HOP
        sound = np.pad(sound[:wanted], (0, max(0, wanted - len(sound))))
        power = features.mel_power(sound)
        drawn = (features.picture(power[look : look + features.FRAMES]) for look in LOOKS)
        return [picture for picture in drawn if picture is not None]


def shipped_model() -> Path:
    """Find the model that came with the package: inside the wheel, or in a checkout."""
    package = Path(node.__file__).parent
    in_wheel = package / "model" / SHIPPED
    return in_wheel if in_wheel.exists() else package.parent / "models" / SHIPPED
