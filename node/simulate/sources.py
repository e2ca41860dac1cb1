"""The start of a simulated sound: a kind by name and its parameters in, free-field pressure out.

`emit` settles a kind of `node.simulate.sounds` and samples it at a distance;
`node.simulate.propagation` comes next. The training code uses it as the scenes do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Final, get_args

import numpy as np
import numpy.typing as npt
from pydantic import Field, TypeAdapter, ValidationError

from node.errors import SceneError
from node.simulate.explain import one_line
from node.simulate.pulses import Sound
from node.simulate.sounds import (
    Backfire,
    DoorSlam,
    Firecracker,
    Hammer,
    Kind,
    LiftCharge,
    MuzzleBlast,
    ShellBurst,
)
from node.types import Label

Float64Array = npt.NDArray[np.float64]

Source = Annotated[
    MuzzleBlast | ShellBurst | LiftCharge | Firecracker | Backfire | DoorSlam | Hammer,
    Field(discriminator="kind"),
]
_KINDS: Final[tuple[type[Kind], ...]] = get_args(get_args(Source)[0])
_SOURCE: Final[TypeAdapter[Any]] = TypeAdapter(Source)

SOURCE_KINDS: Final[Mapping[str, Label]] = MappingProxyType(
    {kind.model_fields["kind"].default: kind.label for kind in _KINDS}
)


@dataclass(frozen=True)
class Emission:
    """A source as it would be heard in the free field, at a distance, before absorption.

    Attributes
    ----------
    pressure_pa
        Pressure in Pa, shape [n].
    onset_sample
        Where it first leaves zero, in fractional samples from `pressure_pa[0]`.
    label, kind
        What it is.
    """

    pressure_pa: Float64Array
    onset_sample: float
    label: Label
    kind: str


def draw(kind: str, rng: np.random.Generator, **parameters: Any) -> Sound:
    """Settle a source of a kind: `parameters` as given, the rest drawn from `rng`.

    Raises
    ------
    SceneError
        For an unknown kind or parameter, or a value out of its range.
    """
    try:
        source: Kind = _SOURCE.validate_python({"kind": kind, **parameters})
    except ValidationError as error:
        raise SceneError(one_line(error)) from None
    return source.draw(rng)


def emit(
    kind: str,
    *,
    distance_m: float,
    sample_rate_hz: float,
    rng: np.random.Generator,
    onset_sample: float = 0.0,
    off_axis_deg: float | None = None,
    **parameters: Any,
) -> Emission:
    """Draw a source and sample it in the free field.

    Parameters
    ----------
    kind
        One of `SOURCE_KINDS`.
    distance_m
        How far away, in m: it sets the spreading and, for blasts, the lengthening by weak-shock
        propagation. Absorption is `node.simulate.propagation.absorb`'s.
    sample_rate_hz
        Any rate; the source is band-limited below half of it.
    rng
        Settles what `parameters` leave open; the same state gives the same bytes.
    onset_sample
        Where the sound starts, in fractional samples, at least 0.
    off_axis_deg
        Angle between the source's front and the listener; drawn over the circle if None. It
        matters to muzzle blasts alone.
    **parameters
        The kind's own, such as `calibre`; see `node.simulate.sounds`.

    Raises
    ------
    SceneError
        For an unknown kind or parameter, or a value out of its range.
    """
    if not distance_m > 0 or not sample_rate_hz > 0 or not onset_sample >= 0:
        raise SceneError("distance_m and sample_rate_hz must be above 0, onset_sample at least 0")
    any_angle_deg = float(rng.uniform(0, 180))
    sound = draw(kind, rng, **parameters)
    pressure = sound.sample(
        distance_m=distance_m,
        sample_rate_hz=sample_rate_hz,
        onset_sample=onset_sample,
        off_axis_deg=any_angle_deg if off_axis_deg is None else off_axis_deg,
    )
    return Emission(pressure, onset_sample, sound.label, sound.kind)
