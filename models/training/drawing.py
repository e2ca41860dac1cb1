"""What a process that draws pictures runs.

Not in `__main__`: a spawned process does not import a package's `__main__`, and finds nothing there
(multiprocessing's `spawn.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.training import corpus, pictures


def draw_shards(
    sources: Sequence[Path],
    tiers: str,
    yamnet: Path,
    folder: Path,
    seed: int,
    fold: int,
    numbers: range,
) -> None:
    """Draw the shards of a fold that are not there yet, from the recordings of some folders.

    Each job reads their manifests itself, rather than having the clips with it: where more waits
    than a pipe holds as the processes end, Debian 12's Python waits for ever (CPython's issue
    94777).
    """
    clips = [clip for source in sources for clip in corpus.read_manifest(source, tiers)]
    pictures.draw_shards(clips, yamnet, folder, seed, fold, numbers)
