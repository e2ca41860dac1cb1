"""Renders the library that streets are put together from: noise, sounds, and a receiver's pulse."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

import numpy as np

from node.capture import built_in_arrays
from node.simulate.pps import PulseChannel
from node.simulate.render import RenderedNode, render
from node.simulate.scene import parse
from tests.hil.soak.library import PPM, Bed, Kind, Library, Sound

ARRAYS: Final = {1: "mono", 4: "tetrahedron_200mm"}
"""By number of microphones."""
BED_S: Final = 90
"""A minute of the street begins anywhere in the first part of one."""
BED_NOISE_DB_A: Final = 55.0
VEHICLES: Final[tuple[float, ...]] = (0, 0, 0, 0, 4, 4, 4, 4, 12, 12, 12, 12)
"""Vehicles a minute, of each stretch of noise."""
PULSES_S: Final = 125
"""After so many seconds a pulse falls on the same part of a sample again: the loop has no seam."""
FULL_SCALE_DB_SPL: Final = 125.0
SHOTS, FIREWORKS, BACKFIRES, CLATTERS = 48, 16, 10, 10


@contextmanager
def rendered(
    kept: Path | None, sample_rate_hz: int, microphones: int, tell: Callable[[str], None]
) -> Iterator[Library]:
    """Give a library: one that is kept from run to run, or else for this run alone."""
    with tempfile.TemporaryDirectory(prefix="gunfire-soak-sounds-") as scratch:
        yield make(kept or Path(scratch), sample_rate_hz, microphones, tell)


def make(
    folder: Path, sample_rate_hz: int, microphones: int, tell: Callable[[str], None]
) -> Library:
    """Render a library into a folder; one that is there already is taken as it is."""
    if not (folder / "library.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        _render(folder, sample_rate_hz, microphones, tell)
    library = Library.load(folder)
    if (library.sample_rate_hz, library.microphones) != (sample_rate_hz, microphones):
        raise ValueError(f"{folder} holds the library of another card")
    return library


def _render(
    folder: Path, sample_rate_hz: int, microphones: int, tell: Callable[[str], None]
) -> None:
    rng = np.random.default_rng(20)
    beds: list[Bed] = []
    sounds: list[Sound] = []
    first = 0
    with (folder / "frames.raw").open("wb") as file:
        for number, vehicles in enumerate(VEHICLES):
            tell(f"rendering the street's noise, {number + 1} of {len(VEHICLES)}")
            node = _node(sample_rate_hz, microphones, BED_S, 100 + number, "", vehicles)
            for hop in node.hops():
                file.write(hop.tobytes())
            beds.append(Bed(vehicles, first, node.frame_count))
            first += node.frame_count
        for number, (kind, rounds, long_s, sources) in enumerate(_sources(rng)):
            if number % 10 == 0:
                tell(f"rendering sounds, {number} so far")
            node = _node(sample_rate_hz, microphones, long_s, 500 + number, sources)
            for hop in node.hops():
                file.write(hop.tobytes())
            onset = node.arrivals()[0].sample
            sounds.append(Sound(kind, first, node.frame_count, onset, rounds))
            first += node.frame_count
    pulses = PulseChannel(0, sample_rate_hz * (1 + PPM * 1e-6), 24, rng)
    frames = round(PULSES_S * sample_rate_hz * (1 + PPM * 1e-6))
    (folder / "pulses.raw").write_bytes(pulses.hop(0, frames).tobytes())
    record = {
        "pulse_frames": frames,
        "sample_rate_hz": sample_rate_hz,
        "microphones": microphones,
        "beds": [asdict(bed) for bed in beds],
        "sounds": [asdict(sound) for sound in sounds],
    }
    (folder / "library.json").write_text(json.dumps(record, indent=1))


def _node(
    rate_hz: int,
    microphones: int,
    long_s: float,
    seed: int,
    sources: str,
    vehicles: float | None = None,
) -> RenderedNode:
    """Set up a scene; without a number of vehicles there is nothing in it but its sources."""
    noise_db_a, own_db = (-20.0, -40.0) if vehicles is None else (BED_NOISE_DB_A, 30.0)
    scene = parse(
        f'name = "soak"\nduration_s = {float(long_s)}\nseed = {seed}\nsample_rate_hz = {rate_hz}\n'
        f"start_utc = 2026-01-01T00:00:00Z\n[street]\nnoise_db_a = {noise_db_a}\n"
        f"vehicles_per_minute = {float(vehicles or 0)}\ntail_s = 0.4\ntail_db = -10.0\n{sources}"
        f'[[nodes]]\nid = "roof"\nx_m = 0.0\ny_m = 0.0\nz_m = 6.0\n'
        f'array = "{ARRAYS[microphones]}"\nself_noise_db_spl = {own_db}\n'
        f"full_scale_db_spl = {FULL_SCALE_DB_SPL}\n"
    )
    return render(scene, built_in_arrays()).nodes[0]


def _sources(rng: np.random.Generator) -> Iterator[tuple[Kind, int, float, str]]:
    """Give kind, rounds, length in s and the scene's tables of each sound."""
    for number in range(SHOTS):
        rounds = 3 if number % 8 == 7 else 1
        place = _place(rng, 50, 130)
        calibre = rng.choice(["9mm", "5.56", "7.62x39"])
        shot = "".join(
            f'[[sources]]\nkind = "muzzle_blast"\ncalibre = "{calibre}"\nheading_deg = '
            f"{rng.uniform(0, 360):.0f}\ntime_s = {0.25 * i:.2f}\n{place}"
            for i in range(rounds)
        )
        yield "shot", rounds, 2.0 + 0.25 * rounds, shot
    for number in range(FIREWORKS):
        if number % 2:
            place = _place(rng, 120, 250)
            yield "firework", 0, 6.0, f'[[sources]]\nkind = "aerial_shell"\ntime_s = 0.0\n{place}'
        else:
            crackers = f'kind = "firecracker"\ncount = {rng.integers(1, 12)}\ntime_s = 0.0\n'
            yield "firework", 0, 4.0, f"[[sources]]\n{crackers}{_place(rng, 20, 90)}"
    for _ in range(BACKFIRES):
        pops = f'kind = "backfire"\npops = {rng.integers(1, 4)}\ntime_s = 0.0\n'
        yield "backfire", 0, 3.0, f"[[sources]]\n{pops}{_place(rng, 10, 40)}"
    for number in range(CLATTERS):
        kind = "hammer" if number % 2 else "door_slam"
        place = _place(rng, 8, 40)
        yield "clatter", 0, 3.0, f'[[sources]]\nkind = "{kind}"\ntime_s = 0.0\n{place}'


def _place(rng: np.random.Generator, near_m: float, far_m: float) -> str:
    distance_m, bearing = rng.uniform(near_m, far_m), rng.uniform(0, 2 * np.pi)
    return f"x_m = {distance_m * np.sin(bearing):.1f}\ny_m = {distance_m * np.cos(bearing):.1f}\n"
