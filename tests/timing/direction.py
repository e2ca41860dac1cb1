"""How well a direction is found, on impulses whose direction is known."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from node.capture.geometry import load_geometry
from node.detect.direction import (
    LOWEST_PLANAR_DEG,
    SOUND_SPEED_M_S,
    SOUND_SPEED_SIGMA,
    DirectionFinder,
)
from node.types import Direction
from tests.evidence import Claim, Detail
from tests.parts import Part, Tell
from tests.timing.array_scene import Ground, Heard, hear, towards

Float64Array = npt.NDArray[np.float64]
Estimate = tuple[float, float]
"""Azimuth and elevation in degrees."""

SEED: Final = 4711
RATE_HZ: Final = 48_000
ARRAYS: Final = {"tetrahedron": "tetrahedron_200mm", "square": "square_65mm"}
# Where sources are, in degrees: on streets, in windows, in the air; low ones for azimuth alone.
ELEVATIONS_DEG: Final = {"tetrahedron": (-5.0, 60.0), "square": (0.0, 15.0)}
# Great-circle errors, and those of azimuth, at the median and at 95 %, in degrees.
BARS_DEG: Final = {
    ("tetrahedron", 30.0, 0): (0.6, 1.3),
    ("tetrahedron", 20.0, 0): (1.3, 3.5),
    ("tetrahedron", 30.0, 3): (math.inf, 1.5),
    ("square", 30.0, 0): (0.8, 2.0),
    ("square", 20.0, 0): (1.5, 4.5),
}
IMPULSES: Final = 250
LOUD_IMPULSES: Final = 400
# Where the bars were set, in m; farther blasts have lost what tells their time best.
RANGES_M: Final = (50.0, 150.0, 400.0)
FAR_M: Final = (800.0,)
FAR_IMPULSES: Final = 150
SILENT_IMPULSES: Final = 120
# Over ground that mirrors: ranges, heights of arrays and of sources on streets and in windows, in
# m, how many of these are on streets, and what share of the pressure comes back.
GROUND_RANGES_M: Final = (30.0, 600.0)
NEAR_M: Final = (30.0, 100.0)
SENSOR_M: Final = (3.0, 15.0)
STREET_M: Final = (0.0, 2.0)
WINDOW_M: Final = (2.0, 20.0)
ON_STREETS: Final = 0.7
REFLECTION: Final = (0.3, 0.9)
GROUND_BARS_DEG: Final = (0.6, 1.3)
GROUND_IMPULSES: Final = 400
# What an answer that was refused counts as: more than any bar.
REFUSED_DEG: Final = 90.0
MIX_DB: Final = (15.0, 40.0)
MIXED: Final = 300
HOLD: Final = (0.90, 0.98)
CONE_SIGMAS: Final = 2.45
LINE_SIGMAS: Final = 1.96
COST_S: Final = 1e-3

# The peer, and how fine its grid is: finer ones gain little and take long.
PEER_IMPULSES: Final = {"tetrahedron": 60, "square": 250}
PEER_POINTS: Final = 20_000
PEER_AZIMUTHS: Final = 1440
PEER_FFT: Final = 256
PEER_HOP: Final = 64
PEER_HZ: Final = (300.0, 6000.0)
# It is told where the first arrival is.
PEER_GATE: Final = (160, 352)


@dataclass(frozen=True)
class _Trials:
    """Impulses at one array, what was found, and how far off that is."""

    heard: tuple[Heard, ...]
    found: tuple[Direction | None, ...]
    errors_deg: Float64Array


def measure(tell: Tell) -> Part:
    """Measure errors, honesty and cost of directions, and the peer's errors on the same sound."""
    claims: list[Claim] = []
    rows: list[tuple[str, ...]] = []
    trials: dict[tuple[str, float, int], _Trials] = {}
    for number, (key, bars_deg) in enumerate(BARS_DEG.items()):
        array, snr_db, echoes = key
        tell(_named(key))
        rng = np.random.default_rng(SEED + number)
        count = IMPULSES if snr_db < 30 or echoes else LOUD_IMPULSES
        trials[key] = _try(array, [snr_db] * count, rng, ELEVATIONS_DEG[array], echoes=echoes)
        claims += _errors(_named(key), trials[key].errors_deg, bars_deg)
        rows.append(_row(key, trials[key]))
    tell("a tetrahedron 800 m away")
    rows.append(_far())
    tell("a tetrahedron over ground that mirrors")
    ground_claims, row = _over_ground()
    claims += ground_claims
    rows.append(row)
    for array in ARRAYS:
        tell(f"{array}, whether its regions hold")
        claims.append(_honesty(array))
        claims.append(_honesty(array, over_ground_m=GROUND_RANGES_M))
        claims.append(_honesty(array, over_ground_m=NEAR_M))
    claims.append(_planar_silence())
    cost_s = _cost_s(trials[("tetrahedron", 30.0, 3)])
    claims.append(
        Claim(
            "one find, four microphones: median (of this machine)",
            1e3 * cost_s,
            "ms",
            "≤ 1",
            cost_s <= COST_S,
        )
    )
    if find_spec("pyroomacoustics") is None:
        rows.append(("pyroomacoustics is not installed: no comparison with it", *[""] * 3))
    else:
        for key in (key for key in BARS_DEG if key[2] == 0):
            tell(f"{_named(key)}: pyroomacoustics")
            peer_claims, row = _beside_peer(key, trials[key])
            claims += peer_claims
            rows.append(row)
    columns = ("direction", "median °", "95 % °", "refused")
    return Part(
        tuple(claims),
        (Detail("Directions (a refusal counts as 90° off)", columns, tuple(rows)),),
        lambda axes: _draw(axes, trials),
    )


def _try(
    array: str,
    snr_db: Sequence[float],
    rng: np.random.Generator,
    elevations_deg: tuple[float, float],
    *,
    ranges_m: tuple[float, ...] = RANGES_M,
    echoes: int = 0,
    speed_sigma: float = 0.0,
    over_ground_m: tuple[float, float] | None = None,
) -> _Trials:
    positions_m = load_geometry(ARRAYS[array], 4).positions_m
    finder = DirectionFinder(positions_m, RATE_HZ)
    before, after = finder.window()
    heard, found, errors_deg = [], [], []
    for snr in snr_db:
        azimuth_deg = rng.uniform(0, 360)
        ground: Ground | bool = False
        if over_ground_m:
            ground = _ground(rng)
            range_m = math.exp(rng.uniform(*np.log(over_ground_m)))
            elevation_deg = ground.elevation_deg(range_m)
        else:
            elevation_deg = rng.uniform(*elevations_deg)
            range_m = float(rng.choice(ranges_m))
        one = hear(
            positions_m,
            towards(azimuth_deg, elevation_deg),
            snr,
            rng,
            rate_hz=RATE_HZ,
            range_m=range_m,
            ground=ground,
            echoes=echoes,
            speed_m_s=SOUND_SPEED_M_S * (1 + speed_sigma * rng.standard_normal()),
        )
        at = int(one.onset)
        sound, onset = one.sound[at - before : at + after], before + one.onset - at
        direction = finder.find(sound, onset)
        heard.append(one)
        found.append(direction)
        estimate = None
        if direction is not None:
            estimate = (direction.azimuth_deg, direction.elevation_deg or 0.0)
        errors_deg.append(_off_deg(array, one, estimate))
    return _Trials(tuple(heard), tuple(found), np.array(errors_deg))


def _ground(rng: np.random.Generator) -> Ground:
    source_m = STREET_M if rng.random() < ON_STREETS else WINDOW_M
    return Ground(rng.uniform(*SENSOR_M), rng.uniform(*source_m), rng.uniform(*REFLECTION))


def _cost_s(trials: _Trials) -> float:
    """Time finds, one after the other as in a burst; give the median."""
    finder = DirectionFinder(load_geometry(ARRAYS["tetrahedron"], 4).positions_m, RATE_HZ)
    before, after = finder.window()
    costs_s = []
    for heard in trials.heard:
        at = int(heard.onset)
        sound, onset = heard.sound[at - before : at + after], before + heard.onset - at
        begun = time.perf_counter()
        finder.find(sound, onset)
        costs_s.append(time.perf_counter() - begun)
    return float(np.median(costs_s))


def _off_deg(array: str, heard: Heard, estimate: Estimate | None) -> float:
    if estimate is None:
        return REFUSED_DEG
    if array == "square":
        return abs((estimate[0] - heard.azimuth_deg + 180) % 360 - 180)
    return _apart_deg(towards(*estimate), heard.u)


def _apart_deg(u: Float64Array, v: Float64Array) -> float:
    return math.degrees(math.atan2(float(np.linalg.norm(np.cross(u, v))), float(u @ v)))


def _named(key: tuple[str, float, int]) -> str:
    array, snr_db, echoes = key
    size = "tetrahedron 200 mm" if array == "tetrahedron" else "square 65 mm (azimuth)"
    return f"{size}, {snr_db:.0f} dB" + (f", {echoes} early echoes" if echoes else "")


def _errors(what: str, errors_deg: Float64Array, bars_deg: tuple[float, float]) -> list[Claim]:
    middle, most = (float(v) for v in np.percentile(errors_deg, [50, 95]))
    claims = []
    for name, value, bar in zip(("median", "95 %"), (middle, most), bars_deg, strict=True):
        shown = f"≤ {bar}" if math.isfinite(bar) else ""
        claims.append(Claim(f"{what}: error, {name}", value, "°", shown, value <= bar))
    return claims


def _row(key: tuple[str, float, int], trials: _Trials) -> tuple[str, ...]:
    middle, most = np.percentile(trials.errors_deg, [50, 95])
    refused = sum(direction is None for direction in trials.found)
    return (_named(key), f"{middle:.2f}", f"{most:.2f}", f"{refused}/{len(trials.found)}")


def _honesty(array: str, *, over_ground_m: tuple[float, float] | None = None) -> Claim:
    """Count the 95 % regions that hold the truth, over a mix of noise, ranges and temperatures."""
    rng = np.random.default_rng(SEED + 20 + len(array) + round(sum(over_ground_m or ())))
    snr_db = rng.uniform(*MIX_DB, MIXED).tolist()
    trials = _try(
        array,
        snr_db,
        rng,
        (-5.0, 60.0),
        ranges_m=RANGES_M + FAR_M,
        speed_sigma=SOUND_SPEED_SIGMA,
        over_ground_m=over_ground_m,
    )
    inside = [
        _holds(direction, heard)
        for direction, heard in zip(trials.found, trials.heard, strict=True)
        if direction is not None
    ]
    share = float(np.mean(inside))
    low, high = HOLD
    bar = f"{100 * low:.0f}–{100 * high:.0f}"
    scene = f"{array}, 15–40 dB"
    if over_ground_m:
        scene += ", over ground, {:.0f}–{:.0f} m".format(*over_ground_m)
    name = f"{scene}: 95 % regions that hold the truth ({len(inside)} of {MIXED} told)"
    return Claim(name, 100 * share, "%", bar, low <= share <= high, _interval(inside))


def _holds(direction: Direction, heard: Heard) -> bool:
    if direction.elevation_deg is None:
        off_deg = abs((direction.azimuth_deg - heard.azimuth_deg + 180) % 360 - 180)
        return off_deg <= LINE_SIGMAS * direction.sigma_deg
    u = towards(direction.azimuth_deg, direction.elevation_deg)
    return _apart_deg(u, heard.u) <= CONE_SIGMAS * direction.sigma_deg


def _interval(inside: Sequence[bool]) -> tuple[float, float]:
    """Give the 95 % interval of a share in per cent (Wilson)."""
    n, share, z = len(inside), float(np.mean(inside)), 1.96
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return 100 * (middle - half), 100 * (middle + half)


def _far() -> tuple[str, ...]:
    """Measure blasts from farther than the bars are for."""
    key = ("tetrahedron", 30.0, 0)
    rng = np.random.default_rng(SEED + 40)
    trials = _try(key[0], [key[1]] * FAR_IMPULSES, rng, ELEVATIONS_DEG[key[0]], ranges_m=FAR_M)
    return (f"{_named(key)}, from {FAR_M[0]:.0f} m", *_row(key, trials)[1:])


def _over_ground() -> tuple[list[Claim], tuple[str, ...]]:
    """Measure blasts whose reflection from the ground comes at once, or up to 50 ms later."""
    key = ("tetrahedron", 30.0, 0)
    rng = np.random.default_rng(SEED + 60)
    trials = _try(
        key[0],
        [key[1]] * GROUND_IMPULSES,
        rng,
        ELEVATIONS_DEG[key[0]],
        over_ground_m=GROUND_RANGES_M,
    )
    name = f"{_named(key)}, over ground"
    return _errors(name, trials.errors_deg, GROUND_BARS_DEG), (name, *_row(key, trials)[1:])


def _planar_silence() -> Claim:
    """Count elevations that a level square tells of sources too low for it."""
    rng = np.random.default_rng(SEED + 50)
    snr_db = rng.uniform(20.0, 40.0, SILENT_IMPULSES).tolist()
    trials = _try("square", snr_db, rng, (-10.0, LOWEST_PLANAR_DEG), speed_sigma=SOUND_SPEED_SIGMA)
    told = sum(d is not None and d.elevation_deg is not None for d in trials.found)
    name = f"square: elevations told below {LOWEST_PLANAR_DEG:.0f}° (of {SILENT_IMPULSES})"
    return Claim(name, float(told), "", "0", told == 0)


def _beside_peer(
    key: tuple[str, float, int], trials: _Trials
) -> tuple[list[Claim], tuple[str, ...]]:
    """Compare with NormMUSIC on the same impulses."""
    array = key[0]
    locate = _norm_music(array)
    heard = trials.heard[: PEER_IMPULSES[array]]
    begun = time.perf_counter()
    theirs_deg = np.array([_off_deg(array, one, locate(one)) for one in heard])
    cost_ms = 1e3 * (time.perf_counter() - begun) / len(heard)
    claims = []
    figures = []
    for name, percent in (("median", 50), ("95 %", 95)):
        ours, theirs = (
            float(np.percentile(errors_deg, percent))
            for errors_deg in (trials.errors_deg[: len(heard)], theirs_deg)
        )
        figures.append(f"{theirs:.2f}")
        label = f"{_named(key)}: error, {name}, over NormMUSIC's"
        claims.append(Claim(label, ours / theirs, "ratio", "≤ 1", ours <= theirs))
    name = f"pyroomacoustics NormMUSIC, {cost_ms:.0f} ms each: {_named(key)}"
    return claims, (name, *figures, f"0/{len(heard)}")


def _norm_music(array: str) -> Callable[[Heard], Estimate]:
    """Make NormMUSIC: on windows of the first arrival, over a grid that is fine enough."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pyroomacoustics import doa
    positions_m = load_geometry(ARRAYS[array], 4).positions_m
    kind = doa.algorithms["NormMUSIC"]
    if array == "square":
        grid = np.linspace(-np.pi, np.pi, PEER_AZIMUTHS, endpoint=False)
        finder = kind(positions_m[:, :2].T, RATE_HZ, PEER_FFT, c=343.0, num_src=1, azimuth=grid)
    else:
        finder = kind(
            positions_m.T, RATE_HZ, PEER_FFT, c=343.0, num_src=1, dim=3, n_grid=PEER_POINTS
        )
    window = np.hanning(PEER_FFT)

    def locate(heard: Heard) -> Estimate:
        at = round(heard.onset)
        gated = heard.sound[at - PEER_GATE[0] : at + PEER_GATE[1]].astype(np.float64)
        starts = range(0, len(gated) - PEER_FFT + 1, PEER_HOP)
        frames = np.stack([np.fft.rfft(gated[k : k + PEER_FFT].T * window) for k in starts])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            finder.locate_sources(frames.transpose(1, 2, 0), num_src=1, freq_range=list(PEER_HZ))
        # Its azimuth runs counter-clockwise from east.
        azimuth_deg = 90.0 - math.degrees(float(finder.azimuth_recon[0]))
        elevation_deg = 0.0
        if array != "square":
            elevation_deg = 90.0 - math.degrees(float(finder.colatitude_recon[0]))
        return azimuth_deg % 360, elevation_deg

    return locate


def _draw(axes: Any, trials: dict[tuple[str, float, int], _Trials]) -> None:
    for key, one in trials.items():
        errors_deg = np.sort(one.errors_deg)
        axes.plot(errors_deg, np.arange(1, len(errors_deg) + 1) / len(errors_deg),
                  label=_named(key))  # fmt: skip
    axes.set(xscale="log", xlim=(0.05, 10), xlabel="error, °", ylabel="share of impulses",
             title="Direction of a first arrival")  # fmt: skip
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
