"""The .json beside a .tflite: what the model is, how to read its outputs, where it was cut.

`models/training` writes it; the runner holds the model against it; the grades come from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from node.classify import features
from node.errors import ModelError
from node.types import LABELS, Label

FORMAT = "gunfire.model/1"

Probability = Annotated[float, Field(gt=0, lt=1)]
FourFloats = tuple[float, float, float, float]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Tensor(_Part):
    """Shape and quantisation of one end of the network."""

    shape: tuple[int, ...]
    scale: float = Field(gt=0)
    zero_point: int = Field(ge=-128, le=127)


class Calibration(_Part):
    """Vector scaling: logits · `scale` + `bias`, then softmax."""

    scale: FourFloats
    bias: FourFloats


class Thresholds(_Part):
    """Cuts on `scores.gunfire`."""

    gunfire: Probability
    probable: Probability

    @model_validator(mode="after")
    def _ordered(self) -> Thresholds:
        if self.probable > self.gunfire:
            raise ValueError("the threshold of probable gunfire is above the one of gunfire")
        return self


class Sidecar(_Part):
    """All that a node must know of a model.

    `golden` holds the int8 outputs for `runner.golden_inputs`, by which any machine can tell that
    its runtime computes what ours did; `training` is for people.
    """

    format: Literal["gunfire.model/1"]
    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    labels: tuple[Label, ...]
    features: dict[str, int | float]
    input: Tensor
    output: Tensor
    calibration: Calibration
    stream_calibration: Calibration
    thresholds: Thresholds
    golden: tuple[tuple[int, int, int, int], ...]
    training: dict[str, Any]

    @model_validator(mode="after")
    def _fits_this_release(self) -> Sidecar:
        if self.labels != LABELS:
            raise ValueError(f"the labels are not {', '.join(LABELS)} in this order")
        if self.features != features.describe():
            raise ValueError("the features are not those of this release")
        return self


def read(path: Path) -> Sidecar:
    """Read the sidecar of a model.

    Raises
    ------
    ModelError
        The file is missing, no JSON, or does not fit this release; the message names the field.
    """
    try:
        return Sidecar.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(
            f"model description {path}: {error.strerror or error}; it belongs beside its .tflite"
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ModelError(
            f"model description {path}: {where}: {first['msg']}; copy the .tflite and the .json "
            "of one release"
        ) from error
