"""Which arrivals belong to which shot: several shots at once, echoes, clutter, two shooters.

Ten nodes in a square kilometre, the speed of sound 0.5 % off, wind of 3 m/s along each axis. A node
hears a shot with a probability of 0.85; each shot brings it an echo with one of 0.3, late by 30 ms
and an exponential 0.15 s, from anywhere; and each node hears 0.3 bangs of its own in 4 s. Shots of
different places lie 200 m apart at least.

Nodes tell it in two ways. In the first every arrival is a detection of its own with its own
direction, as in the research. In the second they group arrivals as `node.detect` does: one
detection for all that comes within 0.5 s of quiet, with the direction of the first arrival alone,
told again with more rounds if the burst goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.optimize import linear_sum_assignment

from node.messages import Detection, Incident
from node.network.incidents import Locator
from node.settings import DetectSettings
from node.types import NS_PER_S, Grade
from node.utc import parse_utc_ns
from tests.evidence import Claim, Detail
from tests.field.city import (
    BEARING_SIGMA_DEG,
    PUBLISH_S,
    TOLD_SIGMA_DEG,
    Air,
    at_least,
    at_most,
    azimuths_rad,
    layout,
    senders_of,
    shot,
    wilson,
)
from tests.field.detections import (
    BEGIN_NS,
    GROUNDS,
    Delivery,
    FloatArray,
    Ground,
    Locates,
    Sender,
    feed,
    meet,
)
from tests.parts import Part, Tell

SEED: Final = 20_271
RUNS: Final = 300
NODES: Final = 10
CLOCK_S: Final = 1e-3
SPEED: Final = 0.005
WIND_M_S: Final = 3.0
HEARD: Final = 0.85
ECHO: Final = 0.3
ECHO_LATE_S: Final = (0.03, 0.15)
CLUTTER: Final = 0.3
POOL_S: Final = 4.0
WITHIN_S: Final = 2.0
SHOTS_APART_M: Final = 200.0
NEAR_M: Final = 25.0
BEGINS_S: Final = 10.0
ROUNDS: Final = 3
# A hand fires again after so much, in s.
CADENCE_S: Final = (0.25, 0.6)
# A node takes some echoes for rounds; most it leaves out.
ECHO_TAKEN: Final = 0.2
SAME_BEARING_RAD: Final = float(np.deg2rad(15.0))

RECALL: Final = 98.0
FALSE: Final = 1.0
TOLD_APART: Final = 90.0


@dataclass(frozen=True)
class Heard:
    """One arrival at one node: seconds after the begin, direction, what it is."""

    node: int
    at_s: float
    azimuth_rad: float
    grade: Grade = "gunfire"
    echo: bool = False


@dataclass(frozen=True)
class Shooter:
    """One place that shots come from, and when, in s after the begin."""

    place_m: FloatArray
    fired_s: tuple[float, ...]


@dataclass(frozen=True)
class City:
    """One pool of arrivals, with its truth.

    Attributes
    ----------
    shooters
        The truth.
    deliveries
        What the subscriber gets.
    """

    ground: Ground
    senders: list[Sender]
    shooters: list[Shooter]
    deliveries: list[Delivery]


@dataclass(frozen=True)
class Told:
    """What became of one pool.

    Attributes
    ----------
    shots, found, false
        Places shot from; those that an incident of their own lies within 25 m of; incidents
        besides.
    apart
        Whether each place has an incident with the right number of rounds, and there is no other.
    right_rounds
        Incidents found with the right number of rounds.
    errors_m
        Of those found.
    """

    shots: int
    found: int
    false: int
    apart: bool
    right_rounds: int
    errors_m: tuple[float, ...]


Say = Callable[[np.random.Generator, Sequence[Sender], Sequence[Heard]], list[Delivery]]


def one_by_one(
    rng: np.random.Generator, senders: Sequence[Sender], heard: Sequence[Heard]
) -> list[Delivery]:
    """Tell each arrival as a detection of its own."""
    return [
        Delivery(
            one.at_s + rng.uniform(*PUBLISH_S),
            _detection(rng, senders[one.node], [one], one.grade),
        )
        for one in sorted(heard, key=lambda one: one.at_s)
    ]


def by_event(
    rng: np.random.Generator, senders: Sequence[Sender], heard: Sequence[Heard]
) -> list[Delivery]:
    """Tell arrivals as nodes do: grouped into events, most echoes left out."""
    deliveries = []
    settings = DetectSettings()
    for node, sender in enumerate(senders):
        mine = sorted((one for one in heard if one.node == node), key=lambda one: one.at_s)
        events: list[list[Heard]] = []
        for one in mine:
            if (
                events
                and one.at_s - events[-1][-1].at_s <= settings.gap_s
                and one.at_s - events[-1][0].at_s <= settings.event_s
            ):
                events[-1].append(one)
            else:
                events.append([one])
        told: tuple[list[Heard], Detection] | None = None
        for event in events:
            # The first arrival is taken for a shot whatever it was.
            rounds = [
                one
                for i, one in enumerate(event)
                if i == 0 or not one.echo or rng.random() < ECHO_TAKEN
            ]
            grade: Grade = (
                "gunfire" if any(one.grade == "gunfire" for one in rounds) else event[0].grade
            )
            again = None
            if told is not None and _goes_on(told[0], rounds, settings.burst_s):
                rounds, again = [*told[0], *rounds], told[1]
            detection = _detection(rng, sender, rounds, grade, again)
            told = (rounds, detection)
            ended_s = event[-1].at_s + settings.gap_s
            deliveries.append(Delivery(ended_s + rng.uniform(*PUBLISH_S), detection))
    return deliveries


def shots_at_once(
    rng: np.random.Generator, ground: Ground, say: Say, clutter: Sequence[Grade]
) -> City:
    """Fire one to three shots from different places within 2 s."""
    nodes_m = layout(rng, NODES)
    shooters = [
        Shooter(place_m, (BEGINS_S + rng.uniform(0, WITHIN_S),))
        for place_m in _places(rng, int(rng.integers(1, 4)))
    ]
    return _city(rng, ground, nodes_m, shooters, say, clutter)


def two_shooters(
    rng: np.random.Generator, ground: Ground, say: Say, clutter: Sequence[Grade]
) -> City:
    """Have two shooters fire three rounds each, interleaved within 2 s."""
    nodes_m = layout(rng, NODES)
    shooters = []
    for place_m in _places(rng, 2):
        gaps_s = rng.uniform(*CADENCE_S, ROUNDS - 1)
        first_s = BEGINS_S + rng.uniform(0, WITHIN_S - gaps_s.sum() - 0.4)
        fired_s = first_s + np.concatenate([[0.0], np.cumsum(gaps_s)])
        shooters.append(Shooter(place_m, tuple(fired_s.tolist())))
    return _city(rng, ground, nodes_m, shooters, say, clutter)


def judge(city: City, incidents: Sequence[Incident]) -> Told:
    """Set incidents against the truth: each place may be found by one incident, each way round."""
    far_m = 1e6
    cost = np.full((len(city.shooters), len(incidents)), far_m)
    for j, incident in enumerate(incidents):
        found_m = city.ground.metres(incident)
        # One that was fired at another time is no finding, however near it lies.
        begun_s = (parse_utc_ns(incident.utc) - BEGIN_NS) / NS_PER_S
        for i, shooter in enumerate(city.shooters):
            near_s = min(abs(begun_s - fired_s) for fired_s in shooter.fired_s)
            if found_m is not None and near_s <= NEAR_M / 300:
                cost[i, j] = np.hypot(*(found_m - shooter.place_m[:2]))
    cost[cost > NEAR_M] = far_m
    pairs = [
        (i, j) for i, j in zip(*linear_sum_assignment(cost), strict=True) if cost[i, j] < far_m
    ]
    right = sum(incidents[j].round_count == len(city.shooters[i].fired_s) for i, j in pairs)
    false = len(incidents) - len(pairs)
    return Told(
        len(city.shooters),
        len(pairs),
        false,
        right == len(city.shooters) and false == 0,
        right,
        tuple(float(cost[i, j]) for i, j in pairs),
    )


@dataclass(frozen=True)
class Figures:
    """Many pools summed up; shares in per cent."""

    pools: int
    shots: int
    found: int
    false: int
    apart: int
    right_rounds: int
    median_m: float

    @property
    def recall(self) -> float:
        """Share of places found within 25 m."""
        return 100 * self.found / self.shots

    @property
    def false_per_shot(self) -> float:
        """Incidents besides, in per cent of the places shot from."""
        return 100 * self.false / self.shots

    @classmethod
    def of(cls, pools: Sequence[Told]) -> Figures:
        """Sum up."""
        errors_m = [error_m for pool in pools for error_m in pool.errors_m]
        return cls(
            len(pools),
            sum(pool.shots for pool in pools),
            sum(pool.found for pool in pools),
            sum(pool.false for pool in pools),
            sum(pool.apart for pool in pools),
            sum(pool.right_rounds for pool in pools),
            float(np.median(errors_m)) if errors_m else 0.0,
        )


Scene = Callable[[np.random.Generator, Ground, Say, Sequence[Grade]], City]


def pools(
    scene: Scene,
    say: Say,
    clutter: Sequence[Grade],
    runs: int,
    *,
    seed: int = SEED,
    progress: Callable[[int], None] = lambda done: None,
    locator: Callable[[], Locates] = Locator,
) -> list[Told]:
    """Judge many pools, each in a city of its own; `progress` is told how many are done."""
    told = []
    for run, stream in enumerate(np.random.SeedSequence(seed).spawn(runs)):
        city = scene(np.random.default_rng(stream), GROUNDS[run % len(GROUNDS)], say, clutter)
        subscriber = locator()
        meet(subscriber, city.senders)
        told.append(judge(city, feed(subscriber, city.deliveries)))
        progress(run + 1)
    return told


def measure(tell: Tell, runs: int = RUNS) -> Part:
    """Measure what is found of several shots at once, and of two shooters."""
    harmless: tuple[Grade, ...] = ("not_gunfire",)
    gunfire: tuple[Grade, ...] = ("gunfire",)
    table: list[tuple[str, Scene, Say, str, Sequence[Grade]]] = [
        (f"{what}; {how}; {whose}", scene, say, how, clutter)
        for what, scene in (
            ("1 to 3 shots within 2 s", shots_at_once),
            ("two shooters, 3 rounds each", two_shooters),
        )
        for how, say in (("a detection for each arrival", one_by_one), ("as nodes tell", by_event))
        for whose, clutter in (
            ("clutter graded gunfire", gunfire),
            ("clutter graded not_gunfire", harmless),
        )
    ]
    claims: list[Claim] = []
    rows = []
    for name, scene, say, how, clutter in table:
        figures = Figures.of(
            pools(
                scene,
                say,
                clutter,
                runs,
                progress=lambda done, name=name: tell(f"{name}: {done} of {runs}"),  # type: ignore[misc]
            )
        )
        rows.append(
            (
                name,
                f"{figures.recall:.1f} %",
                f"{figures.false_per_shot:.2f} %",
                f"{figures.median_m:.1f}",
                f"{100 * figures.right_rounds / figures.shots:.1f} %",
                f"{100 * figures.apart / figures.pools:.1f} %",
            )
        )
        if clutter is gunfire and scene is shots_at_once:
            claims += _at_once(how, figures)
        elif clutter is gunfire:
            claims.append(_apart(how, figures))
    detail = Detail(
        f"Several shots at once, {runs} pools of each",
        ("pools", "found", "false a place", "error, median, m", "rounds right", "all right"),
        tuple(rows),
    )
    return Part(tuple(claims), (detail,))


def _at_once(how: str, figures: Figures) -> list[Claim]:
    what = f"1 to 3 shots within 2 s, echoes and clutter, {how}: "
    return [
        at_least(
            f"{what}within {NEAR_M:g} m",
            figures.recall,
            "% of shots",
            RECALL,
            interval=wilson(figures.found, figures.shots),
        ),
        at_most(f"{what}false incidents", figures.false_per_shot, "% of shots", FALSE),
    ]


def _apart(how: str, figures: Figures) -> Claim:
    return at_least(
        f"two shooters apart, 3 rounds each, {how}: told apart, both within {NEAR_M:g} m, "
        "rounds right",
        100 * figures.apart / figures.pools,
        "% of cases",
        TOLD_APART,
        interval=wilson(figures.apart, figures.pools),
    )


def _city(
    rng: np.random.Generator,
    ground: Ground,
    nodes_m: FloatArray,
    shooters: list[Shooter],
    say: Say,
    clutter: Sequence[Grade],
) -> City:
    air = Air.of(rng, SPEED, WIND_M_S)
    heard: list[Heard] = []
    for shooter in shooters:
        delays_s = air.delays_s(shooter.place_m, nodes_m)
        azimuth_rad = azimuths_rad(shooter.place_m, nodes_m)
        for fired_s in shooter.fired_s:
            at_s = fired_s + delays_s + rng.normal(0, CLOCK_S, NODES)
            seen_rad = azimuth_rad + rng.normal(0, np.deg2rad(BEARING_SIGMA_DEG), NODES)
            for i in range(NODES):
                if rng.random() < HEARD:
                    heard.append(Heard(i, float(at_s[i]), float(seen_rad[i])))
                if rng.random() < ECHO:
                    late_s = ECHO_LATE_S[0] + rng.exponential(ECHO_LATE_S[1])
                    heard.append(
                        Heard(i, float(at_s[i]) + late_s, rng.uniform(-np.pi, np.pi), echo=True)
                    )
    for i in range(NODES):
        if rng.random() < CLUTTER:
            at = BEGINS_S + rng.uniform(0, POOL_S)
            grade = clutter[int(rng.integers(len(clutter)))]
            heard.append(Heard(i, at, rng.uniform(-np.pi, np.pi), grade))
    senders = senders_of(rng, ground, nodes_m)
    return City(ground, senders, shooters, say(rng, senders, heard))


def _places(rng: np.random.Generator, count: int) -> list[FloatArray]:
    places: list[FloatArray] = []
    while len(places) < count:
        place_m = shot(rng)
        if all(np.hypot(*(place_m - other)[:2]) > SHOTS_APART_M for other in places):
            places.append(place_m)
    return places


def _detection(
    rng: np.random.Generator,
    sender: Sender,
    rounds: Sequence[Heard],
    grade: Grade,
    again: Detection | None = None,
) -> Detection:
    return sender.detection(
        [one.at_s for one in rounds],
        CLOCK_S,
        azimuth_rad=rounds[0].azimuth_rad,
        azimuth_sigma_deg=rng.uniform(*TOLD_SIGMA_DEG),
        grade=grade,
        again=again,
    )


def _goes_on(told: Sequence[Heard], rounds: Sequence[Heard], burst_s: float) -> bool:
    """Whether an event continues the burst before it: soon enough, and from the same bearing."""
    turned = rounds[0].azimuth_rad - told[0].azimuth_rad
    apart_rad = abs((turned + np.pi) % (2 * np.pi) - np.pi)
    return rounds[0].at_s - told[-1].at_s <= burst_s and apart_rad <= SAME_BEARING_RAD
