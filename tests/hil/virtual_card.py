"""A sound card without hardware: builds the ALSA plug-in in wavclock/ and configures it.

The card has a clock of its own, overruns as a real one does, loses frames, hears something else or
vanishes on command, and writes down when its first frame was. PortAudio reads ALSA's configuration
once, as it starts, so a process that is to see the card is started with `VirtualCard.environment`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

SOURCES = Path(__file__).parent / "wavclock"
FORMATS = {16: "S16_LE", 24: "S24_3LE", 32: "S32_LE"}


def missing_tools() -> str | None:
    """Say what the plug-in cannot be built without, or None."""
    for tool, package in (("make", "make"), ("cc", "gcc")):
        if not shutil.which(tool):
            return f"{tool} (apt: {package})"
    if not Path("/usr/include/alsa/pcm_external.h").exists():
        return "ALSA's headers (apt: libasound2-dev)"
    return None


def build_plugin(folder: Path) -> Path:
    """Build the plug-in into a folder and give its path."""
    plugin = folder / "libasound_module_pcm_wavclock.so"
    subprocess.run(["make", "-s", "-C", SOURCES, f"OUT={plugin}"], check=True)
    return plugin


@dataclass(frozen=True)
class Truth:
    """When the card's frame 0 was converted, and how fast its clock truly runs."""

    frame0_monotonic_ns: int
    frame0_utc_ns: int
    rate_hz: float

    # Whole: a float of so many nanoseconds goes by steps of a quarter of a microsecond.
    def utc_ns(self, frame: float) -> int:
        return self.frame0_utc_ns + round(frame / self.rate_hz * 1e9)

    def monotonic_ns(self, frame: float) -> int:
        return self.frame0_monotonic_ns + round(frame / self.rate_hz * 1e9)


class VirtualCard:
    """One virtual sound card.

    Parameters
    ----------
    folder
        For its files; made if it is not there.
    plugin
        What `build_plugin` gave.
    frames
        What it plays, shape [n, channels]: int16, or int32 (24-bit samples in the upper bits).
    sample_rate_hz
        Nominal rate, and the only one that it offers.
    bits
        16, 24 (packed in 3 bytes) or 32.
    ppm
        By how much its clock runs fast, in parts per million.
    align
        Whether frame 0 falls on a whole second of UTC (silence comes before it), or on the start
        of the stream.
    loop
        Whether it begins again when all was played; else silence comes after it.
    name
        What the device is called.
    """

    def __init__(
        self,
        folder: Path,
        plugin: Path,
        frames: npt.NDArray[np.integer],
        sample_rate_hz: int,
        *,
        bits: int = 32,
        ppm: float = 0.0,
        align: bool = False,
        loop: bool = False,
        name: str = "microphones",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self._bits = bits
        self._folder = folder
        self._truth = folder / "truth.json"
        self._control = folder / "control"
        self.configuration = folder / "asound.conf"
        samples = folder / "samples.raw"
        samples.write_bytes(_pack(frames, bits))
        self.configuration.write_text(
            f"""</usr/share/alsa/alsa.conf>
pcm_type.wavclock {{ lib "{plugin}" }}
pcm.{name} {{
  type wavclock
  file "{samples}"
  format {FORMATS[bits]}
  rate {sample_rate_hz}
  channels {frames.shape[1]}
  ppm {ppm:.6f}
  align {int(align)}
  loop {int(loop)}
  truth "{self._truth}"
  control "{self._control}"
}}
"""
        )

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a process that is to see the card."""
        return os.environ | {"ALSA_CONFIG_PATH": str(self.configuration)}

    def truth(self) -> Truth:
        """Give what the card wrote as the stream started."""
        said = json.loads(self._truth.read_text())
        return Truth(said["frame0_monotonic_ns"], said["frame0_utc_ns"], said["rate_hz"])

    def unplug(self) -> None:
        """Take the card away for good."""
        self._command("unplug")

    def stall(self) -> None:
        """Stop the card's clock; it stays there, but delivers no more."""
        self._command("stall")

    def skip(self, frames: int) -> None:
        """Let the card lose its next frames, with no overrun and no flag."""
        self._command(f"skip {frames}")

    def play(self, frames: npt.NDArray[np.integer], seen_as: Path | None = None) -> None:
        """Have the card hear something else from now on, as long as what it was made with.

        `seen_as` is its folder as the process that reads the card sees it, where that differs.
        """
        file = self._folder / f"samples-{time.monotonic_ns()}.raw"
        file.write_bytes(_pack(frames, self._bits))
        file.chmod(0o644)
        self._command(f"play {(seen_as or self._folder) / file.name}")

    def drift(self, ppm: float) -> None:
        """Have its clock run fast by so much from now on; `truth` is then of the new rate."""
        self._command(f"ppm {ppm:.6f}")

    def hide(self) -> None:
        """Hide it from whoever looks for one; a stream that runs goes on."""
        self._configure(f"pcm.{self.name} {{", "pcm.elsewhere {")

    def show(self, before: int = 0) -> None:
        """Show it again, behind so many others: PortAudio numbers devices in their order."""
        self._configure("pcm.elsewhere {", f"pcm.{self.name} {{", before)

    def _configure(self, old: str, new: str, others: int = 0) -> None:
        text = self.configuration.read_text()
        assert text.count(old) == 1, text
        kept = [line for line in text.splitlines() if not line.startswith("pcm.other")]
        lines = [*(f"pcm.other{i} {{ type null }}" for i in range(others)), *kept]
        changed = self.configuration.with_suffix(".new")
        changed.write_text("\n".join(lines).replace(old, new) + "\n")
        changed.replace(self.configuration)

    def _command(self, text: str, timeout_s: float = 5.0) -> None:
        written = self._control.with_suffix(".new")
        written.write_text(text + "\n")
        written.rename(self._control)
        deadline = time.monotonic() + timeout_s
        while self._control.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the virtual card did not take {text!r}; is a stream running?")
            time.sleep(0.005)


def _pack(frames: npt.NDArray[np.integer], bits: int) -> bytes:
    if bits == 16:
        return frames.astype("<i2").tobytes()
    wide = np.ascontiguousarray(frames, "<i4")
    if bits == 32:
        return wide.tobytes()
    return wide.view(np.uint8).reshape(*wide.shape, 4)[..., 1:].tobytes()
