"""The label on a node's lid: who it is, for eyes and for a camera; no secret on it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from node.errors import ProvisioningError
from provisioning.first_boot_file import FirstBootFile
from provisioning.whole import write_whole

FORMAT: Final = "gunfire-node/1"
KINDS: Final = (".pdf", ".png", ".svg")
# A roll that common label printers have.
WIDTH_MM: Final = 62.0
HEIGHT_MM: Final = 29.0
_MM_PER_INCH: Final = 25.4
_DPI: Final = 300


@dataclass(frozen=True)
class Label:
    """What a label says.

    Attributes
    ----------
    authority
        SHA-256 of the fleet's CA certificate, hexadecimal; empty where there is none.
    """

    node_id: str
    site: str
    authority: str

    @classmethod
    def of(cls, file: FirstBootFile) -> Label:
        """Take it from a first-boot file."""
        settings = file.settings
        print_ = authority_print(settings.enrolment.ca) if settings.enrolment else ""
        return cls(settings.node.id, settings.node.site, print_)

    @property
    def code(self) -> str:
        """What the QR code holds: names that cannot hold a blank, so blanks part them."""
        parts = [FORMAT, f"site={self.site}", f"id={self.node_id}"]
        return " ".join([*parts, f"ca={self.authority}"] if self.authority else parts)


def authority_print(pem: str) -> str:
    """Give the SHA-256 of a CA's certificate, as `openssl x509 -fingerprint -sha256` does."""
    first = x509.load_pem_x509_certificates(pem.encode())[0]
    return first.fingerprint(SHA256()).hex()


def need_kind(path: Path) -> str:
    """Give a drawing's kind by its ending; raises ProvisioningError where it is none of ours."""
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise ProvisioningError(f"{path}: must end with {', '.join(KINDS)}")
    return kind


def draw(label: Label, path: Path) -> None:
    """Draw a label, by the file's ending as PDF, PNG or SVG.

    Raises
    ------
    ProvisioningError
        It is another ending, or cannot be written.
    """
    kind = need_kind(path)
    import segno
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A node that hangs outside is scratched and bleached: a quarter of the code may be lost.
    matrix = [list(row) for row in segno.make(label.code, error="q", micro=False).matrix_iter()]
    figure = Figure(figsize=(WIDTH_MM / _MM_PER_INCH, HEIGHT_MM / _MM_PER_INCH), dpi=_DPI)
    FigureCanvasAgg(figure)
    square = HEIGHT_MM / WIDTH_MM
    axes = figure.add_axes((0, 0, square, 1))
    axes.imshow(matrix, cmap="binary", interpolation="nearest")
    axes.axis("off")
    x = square + 0.02
    group = [label.authority[i : i + 4] for i in range(0, 32, 4)] if label.authority else []
    for y, text, size in (
        (0.78, label.node_id, _size(label.node_id, 15)),
        (0.58, label.site, _size(label.site, 11)),
        (0.34, "acoustic gunfire sensor", 7),
        (0.20, " ".join(group[:4]), 6),
        (0.10, " ".join(group[4:]), 6),
    ):
        figure.text(x, y, text, fontsize=size, family="monospace" if y < 0.3 else "sans-serif")
    drawn = io.BytesIO()
    figure.savefig(drawn, format=kind[1:])
    try:
        write_whole(path, drawn.getvalue())
    except OSError as error:
        raise ProvisioningError(f"{path}: cannot be written: {error.strerror}") from None


def _size(text: str, largest: float) -> float:
    """Give a size of letters at which a name fits beside the code."""
    return min(largest, 150 / max(len(text), 1))
