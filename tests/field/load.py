"""What a locator bears: detections a second on one core, and how its cost grows with the city."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from scipy.spatial import cKDTree

from node.messages import Incident
from node.network.incidents import Locator
from node.types import NS_PER_S
from node.utc import parse_utc_ns
from tests.evidence import Claim, Detail
from tests.field.city import at_least, at_most
from tests.field.detections import BEGIN_NS, Locates, meet
from tests.field.stream import AS_NODES_GRADE, EVEN, PER_NODE_S, Fired, Stream
from tests.parts import Part, Tell

SEED: Final = 20_273
NODES: Final = 2000
PER_S: Final = 1000.0
SECONDS: Final = 20.0
WARM_S: Final = 6.0
"""Until the windows are full: what comes before is not measured."""

SIZES: Final = (100, 300, 1000, 3000, 10_000)
SIZES_SECONDS: Final = 12.0
# A small city says little in 12 s.
LEAST_DETECTIONS: Final = 2500

# As often as the live service lets time pass.
TICK_NS: Final = NS_PER_S // 20

PER_CORE_S: Final = 500.0
SLOPE: Final = 1.1
NEAR_M: Final = 25.0
# The square of nodes ends somewhere: a shot nearer to its edge than this is heard from one side.
EDGE_M: Final = 300.0


@dataclass(frozen=True)
class Borne:
    """What a locator did of a stream.

    Attributes
    ----------
    detections, seconds
        How many were taken after the warm-up, and how much stream that is.
    cost_s
        Processor time of it, ticks included.
    worst_s
        The longest that one call took.
    shots, found, false
        Shots fired after the warm-up and well inside; those placed within 25 m; incidents far from
        any shot.
    """

    nodes: int
    detections: int
    seconds: float
    cost_s: float
    worst_s: float
    shots: int
    found: int
    incidents: int
    false: int

    @property
    def per_core_s(self) -> float:
        """Detections that one core takes in a second."""
        return self.detections / self.cost_s

    @property
    def each_ms(self) -> float:
        """Cost of a detection in ms."""
        return 1e3 * self.cost_s / self.detections


def bear(
    nodes: int,
    seconds: float,
    *,
    per_s: float | None = None,
    seed: int = SEED,
    clutter: tuple[float, float, float] = AS_NODES_GRADE,
    warm_s: float = WARM_S,
    locator: Callable[[], Locates] = Locator,
    progress: Callable[[float], None] = lambda done_s: None,
) -> Borne:
    """Run a stream through a locator; `progress` is told how many seconds of it are done."""
    stream = Stream(nodes, seed, per_s, clutter=clutter)
    subscriber = locator()
    meet(subscriber, stream.senders)
    last: dict[str, Incident] = {}
    detections, cost_s, worst_s = 0, 0.0, 0.0
    tick_ns = BEGIN_NS

    for number, deliveries in enumerate(stream.slices(warm_s + seconds)):
        warm = number >= warm_s
        told: list[Incident] = []
        begun_s = time.process_time()
        for delivery in deliveries:
            now_ns = BEGIN_NS + round(delivery.at_s * NS_PER_S)
            while tick_ns < now_ns:
                told += subscriber.tick(tick_ns)
                tick_ns += TICK_NS
            before_s = time.perf_counter()
            told += subscriber.push(delivery.detection, now_ns)
            if warm:
                worst_s = max(worst_s, time.perf_counter() - before_s)
        if warm:
            cost_s += time.process_time() - begun_s
            detections += len(deliveries)
        for incident in told:
            last[incident.incident_id] = incident
        progress(number + 1.0)
        gc.collect()  # of what making the messages left behind: not the locator's
    for incident in subscriber.finish():
        last[incident.incident_id] = incident
    standing = [one for one in last.values() if one.type != "cancel"]
    # Of the last seconds not all has come.
    until_s = warm_s + seconds - 4.0
    shots, found, false = _judge(stream, standing, warm_s, until_s)
    return Borne(nodes, detections, seconds, cost_s, worst_s, shots, found, len(standing), false)


def measure(tell: Tell) -> Part:
    """Measure what one core bears, and how that grows from 100 to 10,000 nodes."""
    city = bear(
        NODES,
        SECONDS,
        per_s=PER_S,
        progress=lambda done_s: tell(f"{NODES} nodes, {PER_S:g} detections/s: {done_s:.0f} s"),
    )
    sizes = [
        bear(
            nodes,
            max(SIZES_SECONDS, LEAST_DETECTIONS / (nodes * PER_NODE_S)),
            progress=lambda done_s, nodes=nodes: tell(f"{nodes} nodes: {done_s:.0f} s"),  # type: ignore[misc]
        )
        for nodes in SIZES
    ]
    even = bear(
        NODES,
        SECONDS,
        per_s=PER_S,
        clutter=EVEN,
        progress=lambda done_s: tell(f"clutter of every grade alike: {done_s:.0f} s"),
    )
    slope = slope_of(sizes)
    claims = [
        at_least(
            f"locating: detections on one core, {NODES:,} nodes, {PER_S:g} detections/s",
            city.per_core_s,
            "per second",
            PER_CORE_S,
        ),
        at_most(
            f"locating: cost of a second of the city grows with nodes ({SIZES[0]} to "
            f"{SIZES[-1]:,}) to the power of",
            slope,
            "",
            SLOPE,
        ),
        Claim("locating: longest that one detection took", 1e3 * city.worst_s, "ms"),
        Claim(
            "locating: the same, were a third of all clutter called gunfire and a third probable",
            even.per_core_s,
            "per second",
        ),
    ]
    detail = Detail(
        "A night of fireworks: half of shots, half clutter (in the second row graded evenly)",
        (
            "nodes", "detections", "cores", "ms each", "per core and s", "longest call, ms",
            "shots", f"within {NEAR_M:g} m", "incidents", "far from any shot",
        ),
        tuple(_row(one) for one in (city, even, *sizes)),
    )  # fmt: skip
    return Part(tuple(claims), (detail,), lambda axes: _draw(axes, sizes, slope))


def slope_of(sizes: list[Borne]) -> float:
    """Give the power of the number of nodes that the cost of a second of the city grows with."""
    nodes = np.log([one.nodes for one in sizes])
    cost = np.log([one.cost_s / one.seconds for one in sizes])
    return float(np.polyfit(nodes, cost, 1)[0])


def _judge(
    stream: Stream, incidents: list[Incident], from_s: float, until_s: float
) -> tuple[int, int, int]:
    """Give how many shots there were, how many were found, and incidents that are of none."""
    places, begun_s = [], []
    for one in incidents:
        if (found_m := stream.ground.metres(one)) is not None:
            places.append(found_m)
            begun_s.append((parse_utc_ns(one.utc) - BEGIN_NS) / NS_PER_S)
    inner: list[Fired] = [
        one
        for one in stream.fired
        if from_s <= one.at_s < until_s and stream.is_inside(one.place_m, EDGE_M)
    ]
    if not places:
        return len(inner), 0, 0
    # Of place and time at once: 25 m are 73 ms of sound.
    told = cKDTree(_in_m(np.array(places), np.array(begun_s)))
    near, _ = told.query(
        _in_m(np.array([one.place_m for one in inner]), np.array([one.at_s for one in inner]))
    )
    truth = cKDTree(
        _in_m(
            np.array([one.place_m for one in stream.fired]),
            np.array([one.at_s for one in stream.fired]),
        )
    )
    away, _ = truth.query(told.data)
    return len(inner), int(np.sum(near <= NEAR_M)), int(np.sum(away > 4 * NEAR_M))


def _in_m(places_m: Any, at_s: Any) -> Any:
    return np.column_stack([places_m, 100.0 * at_s])


def _row(one: Borne) -> tuple[str, ...]:
    return (
        f"{one.nodes:,}",
        f"{one.detections / one.seconds:,.0f}/s",
        f"{one.cost_s / one.seconds:.2f}",
        f"{one.each_ms:.2f}",
        f"{one.per_core_s:,.0f}",
        f"{1e3 * one.worst_s:.0f}",
        f"{one.shots}",
        f"{100 * one.found / max(one.shots, 1):.1f} %",
        f"{one.incidents}",
        f"{one.false}",
    )


def _draw(axes: Any, sizes: list[Borne], slope: float) -> None:
    nodes = np.array([one.nodes for one in sizes])
    cores = np.array([one.cost_s / one.seconds for one in sizes])
    axes.loglog(nodes, cores, "o", label="measured")
    middle = np.exp(np.mean(np.log(cores)) - slope * np.mean(np.log(nodes)))
    axes.loglog(nodes, middle * nodes**slope, "-", label=f"nodes to the power of {slope:.2f}")
    axes.loglog(
        nodes, cores[0] * nodes / nodes[0], ":", color="gray", label="in proportion to the smallest"
    )
    axes.set(
        title=f"locating at {PER_NODE_S:g} detections/s from each node, 10 nodes a km²",
        xlabel="nodes",
        ylabel="cores that it takes",
    )
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize="small")
