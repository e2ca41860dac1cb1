"""Which groups a model learns from, is calibrated on, and is judged by.

A group is whole: a firing point, a recordist, a weapon's video, a display. The few sources with a
handful of groups are split by name, so that each part has some of each; the many others fall by a
hash of their name, so that new recordings never move an old one.
"""

from __future__ import annotations

import hashlib
from typing import Final, Literal

Part = Literal["train", "calibrate", "test"]

NAMED: Final[dict[str, Part]] = {
    # Live fire, by firing point.
    "FP1": "train",
    "FP2": "train",
    "FP3": "calibrate",
    "FP4": "train",
    "FP5": "test",
    "FP6": "train",
    # Close range, by weapon.
    "AK-12": "train",
    "AK-47": "calibrate",
    "M16": "test",
    "MG-42": "train",
    "ASUCICREPO+phoenix-pd-gunshot-detection/": "train",
    "IBM+MAX-Audio-Classifier/": "train",
    "hlaredo+AI-gunshot-detection-system/": "calibrate",
    "9lash+spotting_gunshots/": "test",
    # Displays and single shells.
    "Eunhyuk27": "train",
    "jitendralnx": "train",
    "sh00chen": "train",
    "jibijohndavid": "train",
    "MehrdadEshraghi": "train",
    "groodking": "train",
    "Kemeisha-W": "train",
    "Avani2007": "train",
    "joshuaayuda7-hash": "calibrate",
    "HalberdLLC": "calibrate",
    "daisukelab": "calibrate",
    "webdemozz": "test",
    "rrahmadz": "test",
    "srfoster": "test",
    # Impulses and ambience.
    "GoogleChrome+web-audio-samples/": "train",
    "GoogleChrome+web-audio-samples/pool": "train",
    "ColomboAcousticDrumkit": "train",
    "Millo-Drums_v.1": "test",
    "Millo_MultiLayered2": "calibrate",
    "Millo_MultiLayered3": "train",
    "HalberdLLC+starfish-static-js-noise-pollution-graphic/": "train",
    "justinsalamon+scaper/": "train",
    # The only recorded pops: too few to hold any back and still learn.
    "Meer332+TorqueVision": "train",
    "debian:torcs-data": "train",
}

_CALIBRATE_SHARE: Final = 0.15
_TEST_SHARE: Final = 0.20


def part_of(group: str) -> Part:
    """Give the part that a group belongs to."""
    if group in NAMED:
        return NAMED[group]
    draw = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8]) / 2**64
    if draw < _TEST_SHARE:
        return "test"
    if draw < _TEST_SHARE + _CALIBRATE_SHARE:
        return "calibrate"
    return "train"
