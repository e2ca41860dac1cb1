"""One node among ten that is wrong: found, told, and without weight in any place.

Each run is a city of ten nodes in which shots are fired one after another, a fifth of the arrivals
echoes as in `tests.field.city`. The same messages go to one locator without the wrong node and to
others with it: its clock a second off, its place a kilometre off, or its words contradicting each
other: two detections of each shot at once, from two places, each with three rounds of times and a
direction made up, and standard errors of nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np

from node.messages import Incident
from node.network.incidents import Locator
from node.types import NS_PER_S
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
    SITE,
    Delivery,
    FloatArray,
    Ground,
    Locates,
    Sender,
    feed,
    meet,
)
from tests.parts import Part, Tell

SEED: Final = 20_272
RUNS: Final = 100
NODES: Final = 10
SHOTS: Final = 6
EVERY_S: Final = 30.0
CLOCK_S: Final = 1e-4
URBAN_S: Final = 0.003
ECHOES: Final = 0.2
SECOND: Final = 1.0
KILOMETRE: Final = 1000.0
# A shot's incident says a time within so much of the true one.
SAME_S: Final = 0.3

NOT_USED: Final = 99.0
TOLD: Final = 95.0
MOVED_M: Final = 1.0
FALSELY_TOLD: Final = 1.0

Fault = Literal["clock a second off", "place a kilometre off", "contradicts itself"]
FAULTS: Final[tuple[Fault, ...]] = get_args(Fault)


@dataclass(frozen=True)
class Shot:
    """A shot as a locator placed it.

    Attributes
    ----------
    found_m
        Where; None where it was not placed.
    error_m
        How far off.
    used
        Whether the wrong node is among those that the place rests on.
    """

    found_m: FloatArray | None
    error_m: float | None
    used: bool


@dataclass(frozen=True)
class Run:
    """What one locator made of a run.

    Attributes
    ----------
    shots
        In order.
    others
        Incidents besides.
    doubted
        Nodes that it doubts in the end.
    """

    shots: tuple[Shot, ...]
    others: int
    doubted: frozenset[str]


@dataclass(frozen=True)
class Compared:
    """A run without the wrong node, and with it."""

    liar: str
    without: Run
    with_it: Run


def compare(
    rng: np.random.Generator, ground: Ground, fault: Fault, locator: Callable[[], Locates] = Locator
) -> Compared:
    """Fire shots in a city; have them placed without the wrong node and with it."""
    nodes_m = layout(rng, NODES)
    senders = senders_of(rng, ground, nodes_m)
    liar = int(rng.integers(NODES))
    wrong = _wrong(rng, ground, nodes_m[liar], senders[liar], fault)
    air = Air.of(rng, 0.01, 3.0)
    late_s = float(rng.choice([-SECOND, SECOND]))
    shots_m, honest, lies = [], [], []
    for number in range(SHOTS):
        shot_m, fired_s = shot(rng), 10 + EVERY_S * number
        shots_m.append(shot_m)
        heard_s = fired_s + air.delays_s(shot_m, nodes_m) + rng.normal(0, CLOCK_S, NODES)
        heard_s += rng.exponential(URBAN_S, NODES)
        azimuth_rad = azimuths_rad(shot_m, nodes_m)
        azimuth_rad = azimuth_rad + rng.normal(0, np.deg2rad(BEARING_SIGMA_DEG), NODES)
        echo = rng.random(NODES) < ECHOES
        echo[liar] = False
        heard_s += echo * (0.01 + rng.exponential(0.12, NODES))
        azimuth_rad = np.where(echo, rng.uniform(-np.pi, np.pi, NODES), azimuth_rad)
        told_deg = rng.uniform(*TOLD_SIGMA_DEG, NODES)
        published_s = heard_s + rng.uniform(*PUBLISH_S, NODES)
        for i, sender in enumerate(senders):
            at_s, seen_rad = float(heard_s[i]), float(azimuth_rad[i])
            if i != liar:
                detection = sender.detection(
                    [at_s], CLOCK_S, azimuth_rad=seen_rad, azimuth_sigma_deg=float(told_deg[i])
                )
                honest.append(Delivery(float(published_s[i]), detection))
                continue
            if fault == "contradicts itself":
                lies += [
                    Delivery(
                        float(published_s[i]),
                        one.detection(
                            (at_s + rng.uniform(-1, 1, 3)).tolist(),
                            0.0,
                            azimuth_rad=rng.uniform(-np.pi, np.pi),
                            azimuth_sigma_deg=0.0,
                        ),
                    )
                    for one in wrong
                ]
                continue
            if fault == "clock a second off":
                at_s += late_s
            detection = wrong[0].detection(
                [at_s], CLOCK_S, azimuth_rad=seen_rad, azimuth_sigma_deg=float(told_deg[i])
            )
            lies.append(Delivery(float(published_s[i]), detection))
    others = [sender for i, sender in enumerate(senders) if i != liar]
    name = senders[liar].node_id
    return Compared(
        name,
        _run(locator(), ground, others, honest, shots_m, name),
        _run(locator(), ground, [*others, wrong[0]], [*honest, *lies], shots_m, name),
    )


def measure(tell: Tell, runs: int = RUNS) -> Part:
    """Measure what one wrong node does to the places, and whether it is told."""
    claims: list[Claim] = []
    rows = []
    for fault in FAULTS:
        compared = []
        for run, stream in enumerate(np.random.SeedSequence(SEED).spawn(runs)):
            rng = np.random.default_rng(stream)
            compared.append(compare(rng, GROUNDS[run % len(GROUNDS)], fault))
            tell(f"a node that is wrong, {fault}: {run + 1} of {runs}")
        pairs = [
            (before, after)
            for one in compared
            for before, after in zip(one.without.shots, one.with_it.shots, strict=True)
        ]
        moved_m = np.array(
            [
                np.hypot(*(after.found_m - before.found_m))
                for before, after in pairs
                if before.found_m is not None and after.found_m is not None
            ]
        )
        placed = [after for _, after in pairs if after.found_m is not None]
        unused = sum(not after.used for after in placed)
        told = sum(one.liar in one.with_it.doubted for one in compared)
        wronged = sum(len(one.with_it.doubted - {one.liar}) for one in compared)
        blamed = sum(len(one.without.doubted) for one in compared)
        lost = sum(b.found_m is not None and a.found_m is None for b, a in pairs)
        p95_m = float(np.quantile(moved_m, 0.95)) if len(moved_m) else KILOMETRE
        whose = f"one of ten nodes wrong, {fault}: "
        claims += [
            at_least(
                f"{whose}not used",
                100 * unused / max(len(placed), 1),
                "% of places",
                NOT_USED,
                interval=wilson(unused, len(placed)),
            ),
            at_least(
                f"{whose}told within {SHOTS} shots",
                100 * told / runs,
                "% of runs",
                TOLD,
                interval=wilson(told, runs),
            ),
            at_most(f"{whose}moves a place by, 95th percentile", p95_m, "m", MOVED_M),
        ]
        honest = runs * (NODES - 1)
        claims.append(
            at_most(
                f"{whose}another node blamed",
                100 * wronged / honest,
                "% of honest nodes",
                FALSELY_TOLD,
                interval=wilson(wronged, honest),
            )
        )
        rows.append(
            (
                fault,
                _metres([b.error_m for b, _ in pairs], 0.5),
                _metres([b.error_m for b, _ in pairs], 0.95),
                _metres([a.error_m for _, a in pairs], 0.5),
                _metres([a.error_m for _, a in pairs], 0.95),
                f"{np.median(moved_m):.2f}" if len(moved_m) else "–",
                f"{np.max(moved_m):.1f}" if len(moved_m) else "–",
                f"{lost} of {len(pairs)}",
                f"{sum(one.with_it.others for one in compared)}",
                f"{blamed} of {honest}",
            )
        )
    detail = Detail(
        f"One of ten nodes wrong, {runs} cities with {SHOTS} shots each",
        (
            "fault",
            "without it: error, median m",
            "p95 m",
            "with it: median m",
            "p95 m",
            "moves, median m",
            "most, m",
            "places lost",
            "incidents besides",
            "blamed without it",
        ),
        tuple(rows),
    )
    return Part(tuple(claims), (detail,))


def _wrong(
    rng: np.random.Generator, ground: Ground, node_m: FloatArray, right: Sender, fault: Fault
) -> list[Sender]:
    """Give the wrong node's voices: one, or two that differ on where it stands."""
    towards = rng.uniform(-np.pi, np.pi)
    off_m = KILOMETRE * np.array([np.cos(towards), np.sin(towards), 0.0])
    elsewhere = Sender(right.node_id, ground.place(node_m + off_m, 0.7))
    if fault == "place a kilometre off":
        return [elsewhere]
    if fault == "contradicts itself":
        elsewhere.seq = 1_000_000  # so that the two name their events apart
        return [right, elsewhere]
    return [right]


def _run(
    locator: Locates,
    ground: Ground,
    senders: Sequence[Sender],
    deliveries: Sequence[Delivery],
    shots_m: Sequence[FloatArray],
    liar: str,
) -> Run:
    meet(locator, senders)
    incidents = feed(locator, deliveries)
    doubted = frozenset(node for site, node in locator.doubts if site == SITE)
    shots, taken = [], set()
    for number, shot_m in enumerate(shots_m):
        fired_s = 10 + EVERY_S * number
        mine = [
            one
            for one in incidents
            if abs((parse_utc_ns(one.utc) - BEGIN_NS) / NS_PER_S - fired_s) <= SAME_S
            and ground.metres(one) is not None
        ]
        if not mine:
            shots.append(Shot(None, None, used=False))
            continue
        told: Incident = max(mine, key=lambda one: sum(node.used for node in one.nodes))
        taken.add(told.incident_id)
        found_m = ground.metres(told)
        assert found_m is not None
        used = any(node.used for node in told.nodes if node.node_id == liar)
        shots.append(Shot(found_m, float(np.hypot(*(found_m - shot_m[:2]))), used))
    return Run(tuple(shots), len(incidents) - len(taken), doubted)


def _metres(errors_m: Sequence[float | None], q: float) -> str:
    known = [error_m for error_m in errors_m if error_m is not None]
    return f"{np.quantile(known, q):.1f}" if known else "–"
