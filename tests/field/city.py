"""Shots in simulated cities, placed: how far off, how far off they need be, how honest the ellipse.

The scenario of the research's table: a square kilometre, the speed of sound 1 % off, wind of 3 m/s
along each axis, streets that delay the first arrival by 3 ms in the mean, and every fifth node
hears an echo alone, late by 10 ms and an exponential 0.12 s, from anywhere. Here nodes stand at 4
to 12 m of height and shots are fired at 1.5 m. The bound is that of Cramér and Rao with the echoes
known and left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from node.network.incidents import Locator
from node.network.medium import Weather
from node.types import NS_PER_S, ClockSource
from node.utc import parse_utc_ns
from tests.evidence import Claim, Detail
from tests.field.detections import (
    BEGIN_NS,
    GROUNDS,
    BoolArray,
    Delivery,
    FloatArray,
    Ground,
    Locates,
    Sender,
    feed,
    holds,
    meet,
)
from tests.parts import Part, Tell

SEED: Final = 20_270
RUNS: Final = 400
C_M_S: Final = 343.0
SIDE_M: Final = 1000.0
APART_M: Final = 180.0
NOWHERE_M: Final = SIDE_M
NODE_HEIGHT_M: Final = (4.0, 12.0)
SHOT_HEIGHT_M: Final = 1.5
# A node tells an event once the sound after it was judged.
PUBLISH_S: Final = (0.8, 1.2)
SHOT_S: Final = 10.0
BEARING_SIGMA_DEG: Final = 3.0
# What the array itself vouches for; mounting and turbulence make up the rest of the 3°.
TOLD_SIGMA_DEG: Final = (1.0, 3.0)
DRAWS: Final = 100

BARS: Final = {6: (5.0, 25.0), 8: (4.0, 15.0), 12: (2.5, 8.0)}
"""Median and 95th percentile of the error in m, by the number of nodes."""
MOST_OF_BOUND: Final = 1.3
COVERS: Final = (90.0, 98.0)
TWO_NODES: Final = (8.0, 25.0, 85.0)
"""Median in m; and within how many m lie how many per cent."""

# c = 331.3 √(1 + T/273.15), as the locator has it, to tell it a temperature.
_C_AT_0_M_S: Final = 331.3
_THERMOMETER_K: Final = 2.5
_VANE_M_S: Final = 1.5


@dataclass(frozen=True)
class Conditions:
    """What a shot and its nodes are like.

    Attributes
    ----------
    clock_s, urban_s, place_m
        Standard error of an arrival's time, mean delay by streets, standard error of a node's
        place along each axis.
    speed, wind_m_s
        Relative standard deviation of the speed of sound, and that of the wind along each axis.
    echoes
        Share of nodes that hear an echo alone.
    bearings, weather
        Whether nodes tell directions; whether somebody tells the weather.
    heard_by
        So many of the nodes nearest the shot are there at all.
    """

    nodes: int
    clock_s: float = 1e-4
    clock: ClockSource = "pps"
    urban_s: float = 0.003
    place_m: float = 0.7
    speed: float = 0.01
    wind_m_s: float = 3.0
    echoes: float = 0.2
    bearings: bool = True
    weather: bool = False
    heard_by: int | None = None


TWO: Final = Conditions(8, urban_s=0.0, echoes=0.0, heard_by=2)


@dataclass(frozen=True)
class Air:
    """What the air was like: speed of sound in m/s, wind (east, north) in m/s."""

    speed_m_s: float
    wind_m_s: FloatArray

    @classmethod
    def of(cls, rng: np.random.Generator, speed: float, wind_m_s: float) -> Air:
        """Draw one."""
        return cls(C_M_S * (1 + rng.normal(0, speed)), rng.normal(0, wind_m_s, 2))

    def delays_s(self, shot_m: FloatArray, nodes_m: FloatArray) -> FloatArray:
        """Give how long sound takes from a place [3] to nodes [n, 3]."""
        way_m = nodes_m - shot_m
        distance_m = np.linalg.norm(way_m, axis=1)
        along_m_s = way_m[:, :2] @ self.wind_m_s / distance_m
        return np.asarray(distance_m / (self.speed_m_s + along_m_s))

    def weather(self, rng: np.random.Generator) -> Weather:
        """Give what a thermometer and a vane in the town say of it."""
        kelvin = 273.15 * (self.speed_m_s / _C_AT_0_M_S) ** 2
        east, north = self.wind_m_s + rng.normal(0, _VANE_M_S, 2)
        return Weather(
            temperature_c=kelvin - 273.15 + rng.normal(0, _THERMOMETER_K),
            wind_m_s=math.hypot(east, north),
            wind_from_deg=(math.degrees(math.atan2(east, north)) + 180) % 360,
        )


@dataclass(frozen=True)
class Outcome:
    """What became of one shot.

    Attributes
    ----------
    error_m
        How far off; `NOWHERE_M` where no place was told.
    bound_m
        What errors the bound allows, shape [draws], and their root mean square.
    covered
        Whether the 95 % ellipse held the shot; None where no place was told.
    late_sigmas
        Time of the shot as told less the true one, over what its `sigma_s` says.
    others
        Incidents besides.
    """

    error_m: float
    bound_m: FloatArray
    bound_rms_m: float
    covered: bool | None
    late_sigmas: float | None
    others: int


def layout(rng: np.random.Generator, nodes: int, side_m: float = SIDE_M) -> FloatArray:
    """Place nodes in a square, none close to another; shape [nodes, 3]."""
    places: list[FloatArray] = []
    while len(places) < nodes:
        place = rng.uniform(0, side_m, 2)
        if all(np.hypot(*(place - other)) > APART_M for other in places):
            places.append(place)
    return np.column_stack([places, rng.uniform(*NODE_HEIGHT_M, nodes)])


def shot(rng: np.random.Generator, side_m: float = SIDE_M) -> FloatArray:
    """Place a shot in a square, 50 m from its edges at least."""
    return np.array([*rng.uniform(50, side_m - 50, 2), SHOT_HEIGHT_M])


def azimuths_rad(shot_m: FloatArray, nodes_m: FloatArray) -> FloatArray:
    """Give where a shot lies as seen from nodes, clockwise from north."""
    east, north = (shot_m[:2] - nodes_m[:, :2]).T
    return np.asarray(np.arctan2(east, north))


def senders_of(
    rng: np.random.Generator,
    ground: Ground,
    nodes_m: FloatArray,
    *,
    place_m: float = 0.7,
    clock: ClockSource = "pps",
    clock_s: float = 1e-6,
) -> list[Sender]:
    """Make the nodes, each where its survey says that it stands."""
    surveyed_m = nodes_m + rng.normal(0, place_m, nodes_m.shape)
    return [
        Sender(f"node-{i:04d}", ground.place(place, place_m), clock, clock_s)
        for i, place in enumerate(surveyed_m)
    ]


def bound(
    shot_m: FloatArray, nodes_m: FloatArray, conditions: Conditions, direct: BoolArray
) -> FloatArray:
    """Give the covariance [2, 2] of a shot's place that no unbiased estimate can better.

    With the streets' delay taken as normal with its own standard deviation, the echoes left out,
    and the air known beforehand as well as it was drawn.
    """
    way_m = shot_m[:2] - nodes_m[:, :2]
    r = np.hypot(*way_m.T)
    u = way_m / r[:, None]
    sigma_s = np.hypot(max(conditions.clock_s, conditions.urban_s), conditions.place_m / C_M_S)
    # Of an arrival's time by x, y, the time of the shot, c and the wind (east, north).
    J = np.column_stack([u / C_M_S, np.ones(len(r)), -r / C_M_S**2, r[:, None] / C_M_S**2 * u])
    J = J[direct] / sigma_s
    wind = 1 / conditions.wind_m_s**2
    F = J.T @ J + np.diag([0, 0, 0, 1 / (conditions.speed * C_M_S) ** 2, wind, wind])
    if conditions.bearings:
        sigma_rad = np.hypot(np.deg2rad(BEARING_SIGMA_DEG), conditions.place_m / r)
        across = (np.column_stack([-u[:, 1], u[:, 0]]) / (r * sigma_rad)[:, None])[direct]
        F[:2, :2] += across.T @ across
    F[:2, :2] += np.eye(2) / SIDE_M**2  # it lies in this city, whatever was heard
    F[2, 2] += 1e-6
    return np.asarray(np.linalg.inv(F)[:2, :2])


def one_shot(
    rng: np.random.Generator,
    conditions: Conditions,
    ground: Ground,
    locator: Locates,
) -> Outcome:
    """Fire a shot in a new city; give what the locator makes of what its nodes say."""
    nodes_m = layout(rng, conditions.nodes)
    shot_m = shot(rng)
    air = Air.of(rng, conditions.speed, conditions.wind_m_s)
    if conditions.heard_by is not None:
        distance_m = np.linalg.norm(nodes_m - shot_m, axis=1)
        nodes_m = nodes_m[np.argsort(distance_m)[: conditions.heard_by]]
    n = len(nodes_m)
    heard_s = SHOT_S + air.delays_s(shot_m, nodes_m) + rng.normal(0, conditions.clock_s, n)
    heard_s += rng.exponential(1, n) * conditions.urban_s
    azimuth_rad = azimuths_rad(shot_m, nodes_m)
    azimuth_rad = azimuth_rad + rng.normal(0, np.deg2rad(BEARING_SIGMA_DEG), n)
    echo = rng.random(n) < conditions.echoes
    heard_s += echo * (0.01 + rng.exponential(0.12, n))
    azimuth_rad = np.where(echo, rng.uniform(-np.pi, np.pi, n), azimuth_rad)
    senders = senders_of(
        rng,
        ground,
        nodes_m,
        place_m=conditions.place_m,
        clock=conditions.clock,
        clock_s=conditions.clock_s,
    )
    told_deg = rng.uniform(*TOLD_SIGMA_DEG, n)
    published_s = heard_s + rng.uniform(*PUBLISH_S, n)
    meet(locator, senders, air.weather(rng) if conditions.weather else None)
    incidents = feed(
        locator,
        [
            Delivery(
                float(published_s[i]),
                sender.detection(
                    [float(heard_s[i])],
                    conditions.clock_s,
                    azimuth_rad=float(azimuth_rad[i]) if conditions.bearings else None,
                    azimuth_sigma_deg=float(told_deg[i]),
                ),
            )
            for i, sender in enumerate(senders)
        ],
    )
    covariance = bound(shot_m, nodes_m, conditions, ~echo)
    # Drawn apart, so that the city of a run does not hang on how many are drawn.
    draws = np.random.default_rng(SEED).multivariate_normal(np.zeros(2), covariance, DRAWS)
    placed = [one for one in incidents if ground.metres(one) is not None]
    bound_m, rms_m = np.hypot(*draws.T), math.sqrt(np.trace(covariance))
    if not placed:
        return Outcome(NOWHERE_M, bound_m, rms_m, None, None, len(incidents))
    # Of several, the one that most nodes bear out: whoever reads them cannot know better.
    told = max(placed, key=lambda one: sum(node.used for node in one.nodes))
    centre_m, ellipse = ground.metres(told), ground.ellipse(told)
    assert centre_m is not None
    assert ellipse is not None
    late_s = (parse_utc_ns(told.utc) - BEGIN_NS) / NS_PER_S - SHOT_S
    return Outcome(
        float(np.hypot(*(centre_m - shot_m[:2]))),
        bound_m,
        rms_m,
        holds(ellipse, centre_m, shot_m[:2]),
        late_s / max(told.sigma_s, 1e-9),
        len(incidents) - 1,
    )


@dataclass(frozen=True)
class Figures:
    """What many shots say; errors in m, shares in per cent.

    `of_bound` is the median error over the median of what the bound allows, `of_bound_rms` the
    same of the root mean square, of those that were placed; `timed` is how many shots' times lie
    within 1.96 of their standard errors.
    """

    runs: int
    median_m: float
    p95_m: float
    rms_m: float
    bound_median_m: float
    bound_rms_m: float
    covered: float
    placed: float
    within_15_m: float
    within_25_m: float
    timed: float
    others_per_shot: float

    @property
    def of_bound(self) -> float:
        """Median error over that of the bound."""
        return self.median_m / self.bound_median_m

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> Figures:
        """Sum up; a shot that was not placed counts as `NOWHERE_M` off."""
        error_m = np.array([one.error_m for one in outcomes])
        covered = [one.covered for one in outcomes if one.covered is not None]
        sigmas = [abs(one.late_sigmas) for one in outcomes if one.late_sigmas is not None]
        placed = np.array([one.covered is not None for one in outcomes])
        return cls(
            len(outcomes),
            _quantile(error_m, 0.5),
            _quantile(error_m, 0.95),
            _rms(error_m[placed]),
            float(np.median(np.concatenate([one.bound_m for one in outcomes]))),
            _rms(np.array([one.bound_rms_m for one in outcomes])),
            100 * float(np.mean(covered)) if covered else 0.0,
            100 * float(np.mean(placed)),
            100 * float(np.mean(error_m <= 15)),
            100 * float(np.mean(error_m <= 25)),
            100 * float(np.mean(np.array(sigmas) <= 1.96)) if sigmas else 0.0,
            sum(one.others for one in outcomes) / len(outcomes),
        )


def shots(
    conditions: Conditions,
    runs: int,
    *,
    seed: int = SEED,
    progress: Callable[[int], None] = lambda done: None,
    locator: Callable[[], Locates] = Locator,
) -> list[Outcome]:
    """Fire many shots, each in a city of its own; `progress` is told how many are done."""
    outcomes = []
    streams = np.random.SeedSequence((seed, conditions.nodes)).spawn(runs)
    for run, stream in enumerate(streams):
        ground = GROUNDS[run % len(GROUNDS)]
        outcomes.append(one_shot(np.random.default_rng(stream), conditions, ground, locator()))
        progress(run + 1)
    return outcomes


def measure(tell: Tell, runs: int = RUNS) -> Part:
    """Measure the claims of the simulated city, and what lies beside them."""
    claims: list[Claim] = []
    rows: list[tuple[str, ...]] = []
    curves: list[tuple[str, FloatArray, FloatArray]] = []
    for name, conditions in _table():
        outcomes = shots(
            conditions,
            runs,
            progress=lambda done, name=name: tell(  # type: ignore[misc]
                f"{name}: {done} of {runs}"
            ),
        )
        figures = Figures.of(outcomes)
        rows.append(_row(name, conditions, figures))
        if conditions == Conditions(conditions.nodes):
            claims += _claims(conditions.nodes, figures, outcomes)
            curves.append(
                (
                    f"{conditions.nodes} nodes",
                    np.array([one.error_m for one in outcomes]),
                    np.concatenate([one.bound_m for one in outcomes]),
                )
            )
        elif conditions == TWO:
            claims += _two_nodes(figures, outcomes)
    detail = Detail(
        f"Shots in simulated cities, {runs} of each",
        (
            "conditions", "nodes", "median m", "p95 m", "rms m", "bound: median m", "rms m",
            "≤ 15 m", "≤ 25 m", "placed", "ellipse holds", "time holds", "others a shot",
        ),
        tuple(rows),
    )  # fmt: skip
    return Part(tuple(claims), (detail,), lambda axes: _draw(axes, curves))


def wilson(holding: int, of: int) -> tuple[float, float]:
    """Give the 95 % interval of a share in per cent (Wilson's score)."""
    if not of:
        return (0.0, 100.0)
    z = 1.96
    share, spread = holding / of, z**2 / of
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / of + spread / 4 / of) / (1 + spread)
    # At the ends rounding may leave it a hair outside.
    return (100 * max(0.0, middle - half), 100 * min(1.0, middle + half))


def quantile_interval(values: FloatArray, q: float) -> tuple[float, float]:
    """Give the 95 % interval of a quantile, by order statistics alone."""
    n, ordered = len(values), np.sort(values)
    half = 1.96 * math.sqrt(n * q * (1 - q))
    low, high = max(0, math.floor(n * q - half)), min(n - 1, math.ceil(n * q + half))
    return (float(ordered[low]), float(ordered[high]))


def at_most(claim: str, value: float, unit: str, bar: float, **more: Any) -> Claim:
    """Make a claim that holds up to a bar."""
    return Claim(claim, value, unit, f"≤ {bar:g}", value <= bar, **more)


def at_least(claim: str, value: float, unit: str, bar: float, **more: Any) -> Claim:
    """Make a claim that holds from a bar on."""
    return Claim(claim, value, unit, f"≥ {bar:g}", value >= bar, **more)


def _table() -> list[tuple[str, Conditions]]:
    rows: list[tuple[str, Conditions]] = []
    for nodes in BARS:
        city = Conditions(nodes)
        rows += [
            ("PPS, streets, echoes", city),
            ("the same, the weather known", replace(city, weather=True)),
            ("the same, no bearings", replace(city, bearings=False)),
            (
                "NTP alone (10 ms), places to 2.5 m",
                replace(city, clock="ntp", clock_s=0.01, place_m=2.5, urban_s=0.0),
            ),
        ]
    rows += [
        ("two nearest of eight, no echoes", TWO),
        ("three nearest of eight, no echoes", replace(TWO, heard_by=3)),
        ("two nearest of eight, streets", replace(TWO, urban_s=0.003)),
    ]
    return rows


def _claims(nodes: int, figures: Figures, outcomes: Sequence[Outcome]) -> list[Claim]:
    median_m, p95_m = BARS[nodes]
    error_m = np.array([one.error_m for one in outcomes])
    city = f"simulated city, {nodes} nodes, 20 % echoes: "
    return [
        at_most(
            f"{city}error, median", figures.median_m, "m", median_m,
            interval=quantile_interval(error_m, 0.5),
        ),
        at_most(
            f"{city}error, 95th percentile", figures.p95_m, "m", p95_m,
            interval=quantile_interval(error_m, 0.95),
        ),
        at_most(f"{city}median error", figures.of_bound, "× Cramér–Rao", MOST_OF_BOUND),
        _covers(city, figures, outcomes),
    ]  # fmt: skip


def _two_nodes(figures: Figures, outcomes: Sequence[Outcome]) -> list[Claim]:
    median_m, near_m, share = TWO_NODES
    error_m = np.array([one.error_m for one in outcomes])
    near = int(np.sum(error_m <= near_m))
    two = "two nodes with bearings: "
    return [
        at_most(
            f"{two}error, median", figures.median_m, "m", median_m,
            interval=quantile_interval(error_m, 0.5),
        ),
        at_least(
            f"{two}within {near_m:g} m", 100 * near / len(error_m), "% of shots", share,
            interval=wilson(near, len(error_m)),
        ),
        _covers(two, figures, outcomes),
    ]  # fmt: skip


def _covers(whose: str, figures: Figures, outcomes: Sequence[Outcome]) -> Claim:
    covered = [one.covered for one in outcomes if one.covered is not None]
    low, high = COVERS
    return Claim(
        f"{whose}the 95 % ellipse holds",
        figures.covered,
        "% of shots",
        f"{low:g} to {high:g}",
        low <= figures.covered <= high,
        interval=wilson(sum(covered), len(covered)),
    )


def _row(name: str, conditions: Conditions, figures: Figures) -> tuple[str, ...]:
    return (
        name,
        str(conditions.heard_by or conditions.nodes),
        f"{figures.median_m:.1f}",
        f"{figures.p95_m:.1f}",
        f"{figures.rms_m:.1f}",
        f"{figures.bound_median_m:.1f}",
        f"{figures.bound_rms_m:.1f}",
        f"{figures.within_15_m:.0f} %",
        f"{figures.within_25_m:.0f} %",
        f"{figures.placed:.1f} %",
        f"{figures.covered:.1f} %",
        f"{figures.timed:.1f} %",
        f"{figures.others_per_shot:.3f}",
    )


def _draw(axes: Any, curves: Sequence[tuple[str, FloatArray, FloatArray]]) -> None:
    for i, (label, error_m, bound_m) in enumerate(curves):
        for values, style, of in ((error_m, "-", ""), (bound_m, ":", ", Cramér–Rao")):
            share = np.arange(1, len(values) + 1) / len(values)
            axes.plot(np.sort(values), 100 * share, style, color=f"C{i}", label=label + of)
    axes.set(
        title="shots in simulated cities, 20 % echoes",
        xlabel="error, m",
        ylabel="% of shots within it",
        xscale="log",
        xlim=(0.1, SIDE_M),
        ylim=(0, 100),
    )
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small")


def _quantile(values: FloatArray, q: float) -> float:
    return float(np.quantile(values, q, method="higher"))


def _rms(values: FloatArray) -> float:
    return float(np.sqrt(np.mean(np.square(values)))) if len(values) else 0.0
