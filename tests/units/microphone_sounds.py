"""Sound for broken microphones to break: simulated, and recorded where the data is.

What a recording is not, a card is: exact zeros of 5 ms and more (redactions, padding) are cut out,
for they would rightly be called silent; levels are as published, many of them normalised; what an
MP3 left of them stays. Recordings of a group are put end to end.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import soundfile
from scipy import fft, signal

from node.capture import built_in_arrays
from node.simulate import packaged, render
from node.simulate.noise import HOP_FRAMES, StreetNoise

Sound = npt.NDArray[np.float64]
Recorded = tuple[npt.NDArray[np.int16], int]
"""Sound of one microphone end to end, and its rate."""

MICROPHONES: Final = 4
RATE_HZ: Final = 16_000
SIMULATED_S: Final = 600
ZEROS_S: Final = 0.005
APART_S: Final = 3e-4
GAIN_DB: Final = 1.0
CAPSULE_DBFS: Final = -90.0
HEADROOM: Final = 0.5  # of a normalised recording, for gains above 1


def recorded(folder: Path) -> dict[str, Recorded]:
    """Give the recordings end to end, by their kind; none where the folder is not there."""
    manifest = folder / "manifest.csv"
    if not manifest.exists():
        return {}
    pieces: dict[tuple[str, int], list[npt.NDArray[np.int16]]] = defaultdict(list)
    with manifest.open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            if row["label"] == "impulse_response":
                continue
            sound, rate = soundfile.read(folder / row["path"], dtype="int16")
            pieces[_kind(row), rate].append(_without_zeros(sound, rate))
    joined = {key: np.concatenate(sounds) for key, sounds in pieces.items()}
    return {
        f"{kind}, {rate / 1000:g} kHz": (pcm, rate)
        for (kind, rate), pcm in sorted(joined.items())
        if len(pcm) >= 10 * rate
    }


def _kind(row: Mapping[str, str]) -> str:
    source, label = row["source"], row["label"]
    if source.startswith("shotspotter"):
        return f"live fire {row['group']}"
    if label != "other":
        return label if label == "fireworks" else f"{label} {source}"
    return row["sound"] if source in ("urbansound8k_acii", "esc10_ogg") else source


def _without_zeros(sound: npt.NDArray[np.int16], rate: int) -> npt.NDArray[np.int16]:
    zero = sound == 0
    edges = np.flatnonzero(np.diff(zero, prepend=False, append=False))
    keep = np.ones(len(sound), dtype=bool)
    for first, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if end - first >= ZEROS_S * rate:
            keep[first:end] = False
    return np.asarray(sound[keep], dtype=np.int16)


def array_of(pcm: npt.NDArray[np.int16], rate: int, seed: int) -> Sound:
    """Hear a recording by four microphones: delays of a hand's breadth, gains, capsules' noise.

    All of one plane wave, and capsules of one phase: harder to tell from a copy than real ones are.
    """
    rng = np.random.default_rng(seed)
    n = len(pcm)
    size = fft.next_fast_len(n, real=True)
    spectrum = fft.rfft(pcm / 32768 * HEADROOM, size)
    omega = 2 * np.pi * fft.rfftfreq(size, 1 / rate)
    sound = rng.standard_normal((n, MICROPHONES)) * 10 ** (CAPSULE_DBFS / 20)
    for microphone in range(MICROPHONES):
        delay_s = rng.uniform(-APART_S, APART_S)
        gain = 10 ** (rng.normal(0, GAIN_DB) / 20)
        sound[:, microphone] += gain * fft.irfft(spectrum * np.exp(-1j * omega * delay_s), size)[:n]
    return sound


def simulated() -> Iterator[tuple[str, tuple[Sound, int]]]:
    """Yield ten minutes each of what a street does to microphones that work, and its rate."""
    rng = np.random.default_rng(7)
    night = _street(34.0, 0.0)
    yield "quiet night", (night, RATE_HZ)
    street = _street(60.0, 12.0)
    yield "street with traffic", (street, RATE_HZ)
    yield "rain on every housing", (street + _rain(rng), RATE_HZ)
    yield "wind in every microphone", (street + _wind(rng), RATE_HZ)
    yield "shots and fireworks next door that clip", (street + _bangs(rng), RATE_HZ)
    yield "a transformer by the mast", (_street(50.0, 3.0) + _tones((100, 200, 300, 400)), RATE_HZ)
    yield "an engine at 3000 rpm", (street + _engine(), RATE_HZ)
    yield "the packaged scene, looped", _scene()


def _street(level_db_a: float, vehicles_per_minute: float) -> Sound:
    """Give a street at the reference array's places, under 125 dB SPL full scale."""
    places_m = np.array([[0, 0, 0.2], [0.1, 0, 0], [-0.06, 0.09, 0], [-0.05, -0.1, 0]])
    noise = StreetNoise(
        places_m,
        sample_rate_hz=RATE_HZ,
        level_db_a=level_db_a,
        vehicles_per_minute=vehicles_per_minute,
        duration_s=SIMULATED_S,
        sound_speed_m_s=340.0,
        seed=np.random.SeedSequence(int(level_db_a)),
    )
    hops = -(-SIMULATED_S * RATE_HZ // HOP_FRAMES)
    sound = np.concatenate([noise.hop(i) for i in range(hops)])[: SIMULATED_S * RATE_HZ]
    full_scale_pa = 20e-6 * 10 ** (125 / 20)
    own = np.random.default_rng(3).standard_normal(sound.shape) * 10 ** (-97 / 20)
    return np.asarray(sound / full_scale_pa + own)


def _rain(rng: np.random.Generator) -> Sound:
    """Make drops on each housing, ten a second, heard by the others 20 dB weaker."""
    own = np.zeros((SIMULATED_S * RATE_HZ, MICROPHONES))
    n = round(0.006 * RATE_HZ)
    shape = np.exp(-np.arange(n) / (0.001 * RATE_HZ))
    for microphone in range(MICROPHONES):
        for at in rng.integers(0, len(own) - n, 10 * SIMULATED_S):
            size = 10 ** (rng.normal(-42, 8) / 20)
            own[at : at + n, microphone] += size * shape * rng.standard_normal(n)
    return np.asarray(own + 0.1 * (own.sum(axis=1, keepdims=True) - own))


def _wind(rng: np.random.Generator) -> Sound:
    """Make turbulence at each capsule by itself: gusts that all feel, and own ones."""
    n = SIMULATED_S * RATE_HZ
    sos = signal.butter(1, 60, "low", fs=RATE_HZ, output="sos")
    pressure = signal.sosfilt(sos, rng.standard_normal((n, MICROPHONES)), axis=0)
    pressure += 0.003 * signal.sosfilt(
        signal.butter(1, 800, "low", fs=RATE_HZ, output="sos"), rng.standard_normal(pressure.shape),
        axis=0,
    )  # fmt: skip
    every_s = np.arange(SIMULATED_S + 1)
    common = np.interp(np.arange(n) / RATE_HZ, every_s, rng.normal(0, 6, len(every_s)))
    own_knots = np.arange(0, SIMULATED_S + 0.3, 0.3)
    own = np.stack(
        [
            np.interp(np.arange(n) / RATE_HZ, own_knots, rng.normal(0, 4, len(own_knots)))
            for _ in range(MICROPHONES)
        ],
        axis=1,
    )
    gusts = 10 ** ((common[:, None] + own - 26) / 20)
    return np.asarray(pressure / pressure.std() * gusts)


def _bangs(rng: np.random.Generator) -> Sound:
    """Make bursts of bangs beyond full scale, up to ten a second, with tails of half a second."""
    sound = np.zeros((SIMULATED_S * RATE_HZ, MICROPHONES))
    tail = np.exp(-np.arange(RATE_HZ // 2) / (0.08 * RATE_HZ))
    at_s = 5.0
    while at_s < SIMULATED_S - 20:
        for _ in range(rng.integers(1, 60)):
            first = round(at_s * RATE_HZ)
            bang = rng.uniform(0.5, 6) * tail * rng.standard_normal(len(tail))
            for microphone, late in enumerate(rng.integers(0, 9, MICROPHONES)):
                sound[first + late : first + late + len(tail), microphone] += bang
            at_s += rng.uniform(0.1, 0.5)
        at_s += rng.uniform(5, 30)
    return sound


def _tones(hertz: tuple[float, ...]) -> Sound:
    t = np.arange(SIMULATED_S * RATE_HZ) / RATE_HZ
    sound = sum(0.01 / (i + 1) * np.sin(2 * np.pi * f * t) for i, f in enumerate(hertz))
    return np.asarray(sound)[:, None]


def _engine() -> Sound:
    t = np.arange(SIMULATED_S * RATE_HZ) / RATE_HZ
    turning_hz = 50 + np.sin(2 * np.pi * t / 11) + 0.4 * np.sin(2 * np.pi * t / 3.1)
    phase = 2 * np.pi * np.cumsum(turning_hz) / RATE_HZ
    near = 10 ** (-1.5 * np.sin(2 * np.pi * t / 60) ** 2)
    return np.asarray(0.05 * near * sum(np.sin(k * phase) / k for k in range(1, 9)))[:, None]


def _scene() -> tuple[Sound, int]:
    scene = packaged("street")
    (node,) = render(scene, built_in_arrays()).nodes
    pcm = np.concatenate(list(node.hops()))[:, :MICROPHONES]
    return np.tile(pcm / 2**31, (10, 1)), scene.sample_rate_hz
