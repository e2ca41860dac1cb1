"""Simulated sounds to learn from, by kind: emissions in free air, before any street.

Between `node.simulate` (single pulses, air) and `models.training.surroundings` (houses, echoes,
background, microphone). What sets a class apart lies in its kinds: `synthetic_guns`,
`synthetic_fireworks`, `synthetic_engine`, `synthetic_street`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

from models.training import (
    synthetic_engine,
    synthetic_fireworks,
    synthetic_guns,
    synthetic_street,
)
from node.types import Label

Sound = npt.NDArray[np.float64]
_Engines = Sequence[npt.NDArray[np.floating]]

KINDS: Final[dict[Label, tuple[tuple[str, float], ...]]] = {
    "gunfire": (
        ("single_shot", 0.44),
        ("supersonic_shot", 0.16),
        ("double_tap", 0.08),
        ("semi_automatic", 0.15),
        ("full_automatic", 0.10),
        ("several_shooters", 0.07),
    ),
    "fireworks": (
        ("shell_burst", 0.17),
        ("flash_salute", 0.12),
        ("shell", 0.14),
        ("salvo", 0.10),
        ("finale", 0.06),
        ("firecracker", 0.12),
        ("cracker_string", 0.14),
        ("crackle", 0.05),
        ("bottle_rocket", 0.05),
        ("screamer", 0.02),
        ("roman_candle", 0.03),
    ),
    "backfire": (
        ("backfire", 0.25),
        ("backfire_series", 0.45),
        ("anti_lag", 0.15),
        ("burble", 0.15),
    ),
    "other": (
        ("door", 0.04),
        ("car_door", 0.06),
        ("dumpster", 0.05),
        ("container", 0.05),
        ("metal_plate", 0.05),
        ("gate", 0.03),
        ("hammer_metal", 0.06),
        ("hammer_wood", 0.06),
        ("nail_gun", 0.09),
        ("plank", 0.06),
        ("knock", 0.04),
        ("clap", 0.05),
        ("drum", 0.04),
        ("snare", 0.04),
        ("basketball", 0.03),
        ("jackhammer", 0.08),
        ("pile_driver", 0.03),
        ("engine_knock", 0.03),
        ("tyre_burst", 0.03),
        ("balloon", 0.02),
        ("whip", 0.02),
        ("sonic_boom", 0.01),
        ("thunder", 0.03),
    ),
}
"""The kinds of each class, and the share of each."""

_MAKERS: Final[dict[str, Callable[[np.random.Generator], Sound]]] = {
    **{
        maker.__name__: maker
        for maker in (
            synthetic_guns.single_shot,
            synthetic_guns.supersonic_shot,
            synthetic_guns.double_tap,
            synthetic_guns.semi_automatic,
            synthetic_guns.full_automatic,
            synthetic_guns.several_shooters,
            synthetic_fireworks.shell_burst,
            synthetic_fireworks.flash_salute,
            synthetic_fireworks.shell,
            synthetic_fireworks.salvo,
            synthetic_fireworks.finale,
            synthetic_fireworks.firecracker,
            synthetic_fireworks.cracker_string,
            synthetic_fireworks.crackle,
            synthetic_fireworks.bottle_rocket,
            synthetic_fireworks.screamer,
            synthetic_fireworks.roman_candle,
            synthetic_street.tyre_burst,
            synthetic_street.balloon,
            synthetic_street.whip,
            synthetic_street.sonic_boom,
            synthetic_street.thunder,
        )
    },
    **{name: partial(synthetic_street.blow, name) for name in synthetic_street.BLOWS},
}
_OVER_ENGINES: Final[dict[str, Callable[[np.random.Generator, _Engines], Sound]]] = {
    maker.__name__: maker
    for maker in (
        synthetic_engine.backfire,
        synthetic_engine.backfire_series,
        synthetic_engine.anti_lag,
        synthetic_engine.burble,
    )
}


def simulated(label: Label, draw: np.random.Generator, engines: _Engines = ()) -> Sound:
    """Simulate a moment of a class.

    Parameters
    ----------
    label
        The class; its kind is drawn from `KINDS`.
    draw
        Random numbers: the same state gives the same sound.
    engines
        Recordings of engines at the internal rate, for backfires; simulated ones if none.

    Returns
    -------
    Sound at a node in free air, 10 m to 1.5 km away, peak 1, shape [SPAN], onset at `LEAD`; what
    belongs to it (a bullet's N-wave, a whistle, earlier rounds, an engine) may come before.
    """
    names, weights = zip(*KINDS[label], strict=True)
    shares = np.array(weights)
    return kind(names[int(draw.choice(len(names), p=shares / shares.sum()))], draw, engines)


def kind(name: str, draw: np.random.Generator, engines: _Engines = ()) -> Sound:
    """Simulate one of the kinds of `KINDS`, as `simulated` does.

    Raises
    ------
    KeyError
        For a name that is none of them.
    """
    over_engine = _OVER_ENGINES.get(name)
    sound = over_engine(draw, engines) if over_engine else _MAKERS[name](draw)
    return sound / np.max(np.abs(sound))
