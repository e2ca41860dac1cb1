"""Stands in for the classifier where there is no model: what is heard is timed, not judged."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from node.types import Judgement, ModelIdentity, Scores


class Abstainer:
    """Judges nothing: every event is timed and published, and says that nobody judged it."""

    identity = ModelIdentity("none", "0", "0" * 64, gunfire_threshold=1.0, probable_threshold=1.0)

    def window(self, sample_rate_hz: int) -> tuple[int, int]:
        """Want nothing but the onset."""
        return 0, 1

    def judge(self, windows: Iterable[npt.NDArray[np.float32]], sample_rate_hz: int) -> Judgement:
        """Abstain."""
        return self.verdict(Scores(0.25, 0.25, 0.25, 0.25))

    def verdict(self, scores: Scores) -> Judgement:
        """Abstain."""
        return Judgement(scores, "other", True, "not_gunfire")
