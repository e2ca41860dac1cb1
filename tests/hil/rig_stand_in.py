"""What stands in for a rig's player and witness where there is none: two programs about a card.

    python rig_stand_in.py play FOLDER WAV
    python rig_stand_in.py listen FOLDER

FOLDER is a virtual card's (`tests.hil.virtual_card`), with the pulse of its last channel in
`pulse.npy`. The player has that card hear the WAV file's microphones; the witness, on a crystal of
its own, hears a receiver's pulse and the WAV file's marks as they come out of that player.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile
from scipy.ndimage import map_coordinates, spline_filter1d
from scipy.special import ndtr

INSIDE = "/card"
"""The folder as the container sees it (`tests.hil.unit_stage.CARD`)."""
RATE = 48_000
PPM = -13.0
BLOCK = 2400
PULSE_S, PULSE = 0.1, 0.2
RISE_S = 20e-6
NOISE = 1e-5

Floats = npt.NDArray[np.float64]


def play(folder: Path, wav: Path) -> None:
    """Have the card hear a file, and whatever is opened of it later."""
    sound, _ = soundfile.read(wav, dtype="int32")
    file = folder / f"played-{time.monotonic_ns()}.raw"
    pulse = np.resize(np.load(folder / "pulse.npy"), len(sound))  # over and over
    np.column_stack([sound[:, :-1], pulse]).astype("<i4").tofile(file)
    file.chmod(0o644)
    marks = folder / "marks.new"
    with marks.open("wb") as to:
        np.save(to, sound[:, -1])
    marks.replace(folder / "marks.npy")
    again = folder / "samples.new"
    again.hardlink_to(file)
    again.replace(folder / "samples.raw")
    order = folder / "control.new"
    order.write_text(f"play {INSIDE}/{file.name}\n")
    order.replace(folder / "control")
    signal.pause()


class Truth:
    """What was last written down of the card, and of the marks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen = (0, 0)
        self._marks: Floats | None = None
        self._frame0_utc_ns, self._rate_hz = 0, float(RATE)

    def marks(self, base_s: int, at_s: Floats) -> Floats:
        """Give what comes out of the marks' output at times after a whole second of UTC."""
        self._look()
        if self._marks is None or not self._frame0_utc_ns:
            return np.zeros(len(at_s))
        frame0_s = (self._frame0_utc_ns - base_s * 1_000_000_000) / 1e9
        at = (at_s - frame0_s) * self._rate_hz % len(self._marks)
        return np.asarray(
            map_coordinates(self._marks, [at], order=3, mode="grid-wrap", prefilter=False)
        )

    def _look(self) -> None:
        files = self._folder / "truth.json", self._folder / "marks.npy"
        try:
            seen = files[0].stat().st_mtime_ns, files[1].stat().st_mtime_ns
            if seen == self._seen:
                return
            said = json.loads(files[0].read_text())
        except (OSError, ValueError):
            return  # none yet, or it is being written
        self._seen = seen
        self._frame0_utc_ns, self._rate_hz = said["frame0_utc_ns"], said["rate_hz"]
        self._marks = spline_filter1d(np.load(files[1]) / 2.0**31, mode="grid-wrap")


def listen(folder: Path) -> None:
    """Write what the witness hears."""
    truth, rng = Truth(folder), np.random.default_rng(4)
    rate = RATE * (1 + PPM * 1e-6)
    began_ns = time.time_ns()
    base_s, began_s = began_ns // 1_000_000_000, began_ns % 1_000_000_000 / 1e9
    done = 0
    while True:
        done += BLOCK
        time.sleep(max(0.0, began_s + base_s + done / rate - time.time()))
        at_s = began_s + np.arange(done - BLOCK, done) / rate
        phase_s = at_s % 1.0
        pulse = sum(
            sign * ndtr((phase_s - edge_s) / RISE_S)
            for edge_s, sign in ((0.0, 1), (PULSE_S, -1), (1.0, 1))
        )
        heard = np.column_stack([PULSE * pulse, truth.marks(base_s, at_s)])
        heard += rng.normal(0.0, NOISE, heard.shape)
        sys.stdout.buffer.write((heard * 2.0**31).astype("<i4").tobytes())
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    if sys.argv[1] == "play":
        play(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        listen(Path(sys.argv[2]))
