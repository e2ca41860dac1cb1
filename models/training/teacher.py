"""What a network that has heard far more says of a sound: a second target to learn from.

YAMNet (Google, Apache-2.0; learnt from AudioSet's two million clips) knows drums, doors and close
shots of hundreds of recorders, where we have a few of each; distant shots it does not hear. Our
network learns to say what it would say of the same sound, as a second target (Hinton, Vinyals &
Dean, "Distilling the knowledge in a neural network", arXiv:1503.02531). Nothing of it is shipped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

from models.evaluation.networks import Network
from node.classify import features
from node.errors import ModelError

RATE_HZ: Final = 16_000
FRAME: Final = 15_600
_PEAK: Final = 0.7
LOGITS: Final = (-6.0, 4.0)
"""Scores are told apart within these log-odds: of less than 0.25 % nothing is to be learnt."""

FAMILIES: Final[dict[str, tuple[tuple[int, int], ...]]] = {
    # Ranges of yamnet_class_map.csv, first and last.
    "explosion": ((420, 420),),
    "gunshot": ((421, 421),),
    "machine gun": ((422, 422),),
    "fusillade": ((423, 423),),
    "artillery": ((424, 424),),
    "cap gun": ((425, 425),),
    "fireworks": ((426, 426),),
    "firecracker": ((427, 427),),
    "burst": ((428, 428),),
    "boom": ((429, 430),),
    "bang": ((460, 460),),
    "slap, whack": ((461, 462),),
    "smash": ((463, 464),),
    "whip": ((466, 466),),
    "thump": ((454, 455), (465, 465)),
    "basketball": ((459, 459),),
    "door": ((348, 351), (355, 357)),
    "slam": ((352, 352),),
    "knock": ((353, 354),),
    "dishes, coins, glass": ((358, 359), (373, 375), (435, 437)),
    "wood": ((431, 434),),
    "drum": ((156, 165),),
    "cymbal": ((166, 171),),
    "music": ((132, 155), (172, 276)),
    "voice": ((0, 55), (59, 60), (63, 66)),
    "clapping": ((56, 58), (61, 62)),
    "dog": ((69, 75), (117, 117)),
    "animal": ((67, 68), (76, 116), (118, 131)),
    "wind": ((277, 279),),
    "thunder": ((280, 281),),
    "water": ((282, 291), (438, 450)),
    "fire": ((292, 293),),
    "horn": ((302, 304), (312, 313)),
    "siren": ((316, 319), (382, 397)),
    "vehicle": ((294, 301), (305, 311), (314, 315), (320, 328), (335, 336)),
    "engine": ((337, 347),),
    "aircraft": ((329, 334),),
    "hammer": ((413, 413),),
    "jackhammer": ((414, 414),),
    "power tool": ((412, 412), (415, 419)),
    "mechanism": ((360, 372), (376, 381), (398, 411)),
    "rustle, scratch": ((467, 474), (481, 486)),
    "silence": ((494, 494),),
    "noise": ((487, 487), (507, 517)),
}


class Teacher:
    """Says of a sound what YAMNet hears in it.

    Parameters
    ----------
    model
        `yamnet.tflite` as Google publishes it: 15,600 samples at 16 kHz to 521 scores.

    Raises
    ------
    ModelError
        It is not there.
    """

    def __init__(self, model: Path) -> None:
        if not model.exists():
            raise ModelError(f"{model}: no YAMNet there to learn from; name it as --teacher")
        self._network = Network(model)

    def heard(self, sound: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
        """Give the highest log-odds in each of `FAMILIES`, `LOGITS` as 0…255.

        Parameters
        ----------
        sound
            One channel at `features.RATE_HZ`; its level makes no difference.
        """
        wanted = FRAME * features.RATE_HZ // RATE_HZ
        level = sound[:wanted] * (_PEAK / (np.max(np.abs(sound[:wanted])) + 1e-9))
        frame = np.zeros(FRAME, dtype=np.float32)
        resampled = resample_poly(level, 4, 3)[:FRAME]
        frame[: len(resampled)] = resampled
        scores = np.clip(self._network(frame)[0].astype(np.float64), 1e-6, 1 - 1e-6)
        best = [
            max(float(scores[first : last + 1].max()) for first, last in ranges)
            for ranges in FAMILIES.values()
        ]
        odds = np.log(best) - np.log1p(-np.array(best))
        share = (np.clip(odds, *LOGITS) - LOGITS[0]) / (LOGITS[1] - LOGITS[0])
        return np.rint(255 * share).astype(np.uint8)
