"""What the emulated sound card hears: a recorded shot, over and over, and what it is to be told as.

Where the live-fire set of ../shared/data is absent, a simulated street stands in, and the evidence
says so. What the node should make of it is what `gunfire-node replay` makes of the same samples on
this machine: hearing is judged elsewhere (`make field`, `make evaluate`).
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import soundfile
from scipy.signal import resample_poly

from node.simulate.render import RenderedNode
from node.utc import parse_utc_ns, utc_text
from tests.evidence import ROOT
from tests.hil.process import GUNFIRE_NODE
from tests.hil.shots import street
from tests.hil.virtual_card import VirtualCard

RATE: Final = 48_000
CHANNELS: Final = 1
"""As many as the node asks for: QEMU hands on what the card here gives, as it is."""
RECORDING: Final = Path("pittsburgh/FP2/test_020/test_020.audio.SCP-00-BNQ-0681.flac")
"""Three rounds of a pistol, at a roof some hundred metres away (CC BY 4.0, arXiv 2108.07377)."""
START_NS: Final = parse_utc_ns("2026-01-01T00:00:00Z")


@dataclass(frozen=True)
class Expected:
    """What is to be told of one pass: at which second of the recording, and as what."""

    onset_s: float
    label: str
    grade: str
    round_count: int


@dataclass(frozen=True)
class Sound:
    """A recording that the card plays in a loop."""

    frames: npt.NDArray[np.int16]
    about: str

    @property
    def seconds(self) -> float:
        return len(self.frames) / RATE

    def card(self, folder: Path, plugin: Path) -> VirtualCard:
        """Make a card that plays it, from a whole second of UTC on."""
        return VirtualCard(folder, plugin, self.frames, RATE, bits=16, align=True, loop=True)

    def expected(self, folder: Path) -> list[Expected]:
        """Say what replay hears in it: the gunfire alone, by the last word on each."""
        file = folder / "heard.wav"
        # Twice, and told of the second time: the floor has settled, and its end is no edge.
        soundfile.write(file, np.concatenate([self.frames] * 3), RATE)
        done = subprocess.run(
            [*GUNFIRE_NODE, "replay", file, "--start", utc_text(START_NS), "--jsonl"],
            capture_output=True,
            text=True,
            check=True,
        )
        told: dict[str, dict[str, Any]] = {}
        for line in done.stdout.splitlines():
            said = json.loads(line)
            told[said["event_id"]] = said
        heard = []
        for said in told.values():
            onset_s = (parse_utc_ns(said["onset_utc"]) - START_NS) / 1e9 - self.seconds
            if 0 <= onset_s < self.seconds and said["grade"] != "not_gunfire":
                heard.append(Expected(onset_s, said["label"], said["grade"], said["round_count"]))
        assert heard, "replay hears no gunfire in what is to be played"
        return heard


def recorded() -> Sound:
    """Give the recorded shot, or a simulated one where there is no recording."""
    file = Path(os.environ.get("DATA", ROOT / "../shared/data")) / RECORDING
    if file.exists():
        samples, rate = soundfile.read(file, dtype="float64")
        up = resample_poly(samples, RATE // rate, 1)
        mono = np.clip(up * 32767, -32768, 32767).astype(np.int16)
        return Sound(np.stack([mono] * CHANNELS, axis=1), f"recorded live fire ({file.name})")
    simulated: RenderedNode = street(12.0)
    return Sound((simulated.frames()[:, :CHANNELS] >> 16).astype(np.int16), "a simulated street")
