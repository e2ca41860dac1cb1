"""The plots, small enough to lie in the page itself."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from tests.report.kept import ReportError


@dataclass(frozen=True)
class Picture:
    """A picture as the page holds it, with its size in pixels."""

    name: str
    uri: str
    width: int
    height: int


def embed(file: Path) -> Picture:
    """Encode a picture anew as a `data:` address, in a third of the bytes.

    Without loss: the few thin lines of a rare colour are what a palette would drop.

    Raises
    ------
    ReportError
        If it is not a picture.
    """
    try:
        with Image.open(file) as opened:
            picture = opened.convert("RGBA")
    except (OSError, UnidentifiedImageError) as error:
        raise ReportError(
            f"{file} cannot be read as a picture ({error}): get it back with "
            f"`git checkout -- docs/evidence/{file.name}`, or measure its table anew."
        ) from error
    paper = Image.new("RGBA", picture.size, "white")  # a plot without a ground is meant for paper
    paper.alpha_composite(picture)
    encoded = io.BytesIO()
    paper.convert("RGB").save(encoded, "WEBP", lossless=True)
    text = base64.b64encode(encoded.getvalue()).decode("ascii")
    return Picture(file.name, f"data:image/webp;base64,{text}", *picture.size)
