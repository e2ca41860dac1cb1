"""Many nodes on one broker: Mosquitto on the very files that are shipped, under rising load.

Each simulated node has its own TLS connection, certificate, client id, last will and key, and says
what a node says; detections are signed. A subscriber measures how long each took from when it was
handed to the socket. Nodes, subscriber and broker are processes of their own that share this
machine's cores, so the broker's own processor time, which the kernel counts, is told beside the
rate. When a rate is carried: `tests.hil.load.fleet_stage`.

As shipped the broker saves all that it keeps, two retained messages a node among it, whenever any
of it has changed: with each message, and with each acknowledgement. Its one thread waits for the
disk meanwhile, which is no processor time. So all is measured a second time with a broker that
saves by the clock: the difference is what saving costs.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from tests.evidence import Claim, Detail
from tests.hil.load.fleet_stage import (
    BY_CLOCK,
    CARRIED_S,
    SHIPPED,
    Rate,
    Stage,
    at_rate,
    connected,
    sweep,
)
from tests.parts import Part, Tell

FEW_NODES: Final = 100
NODES: Final = 300
SUBSCRIPTION_PER_S: Final = (50, 500, 1000, 2000, 3000)
COUNTER_PER_S: Final = (500, 1000, 2000, 4000, 8000)
SELDOM_PER_S: Final = 20
MINUTES_S: Final = 4.0
AFTER_S: Final = 4.0
PER_HOUR: Final = (10, 1000)
FULL: Final = 0.7
"""Share of a core up to which a broker should be planned."""
KIB: Final = 1024


@dataclass(frozen=True)
class City:
    """What one way of saving came to.

    Attributes
    ----------
    by_words, by_count
        Rates raised until they were not carried, to a Subscription and to who only counts.
    seldom
        By number of nodes: `SELDOM_PER_S`, so that each message is saved by itself.
    minutes_s
        By number of nodes: the broker's processor time for an idle minute of one.
    connect_s
        Its processor time for a node that comes.
    after
        Cores that it takes when nothing is sent any more, after the highest rate was.
    empty_bytes, node_bytes
        Its memory without nodes, and for each.
    """

    by_words: list[Rate]
    by_count: list[Rate]
    seldom: dict[int, Rate]
    minutes_s: dict[int, float]
    connect_s: float
    after: float
    empty_bytes: int
    node_bytes: float
    message_bytes: int

    def most_nodes(self, per_hour: float) -> float:
        """Give how many nodes fill `FULL` of a core.

        By processor time alone. What a message and an idle minute cost is a straight line through
        what they cost with few and with many nodes: it rises where all is saved with each.
        """
        message_s, message_rise_s = _line({n: rate.cost_s for n, rate in self.seldom.items()})
        minute_s, minute_rise_s = _line(self.minutes_s)
        once = minute_s / 60 + per_hour / 3600 * message_s
        rise = minute_rise_s / 60 + per_hour / 3600 * message_rise_s
        if rise <= 0:
            return FULL / once
        return (math.sqrt(max(once, 0) ** 2 + 4 * rise * FULL) - max(once, 0)) / (2 * rise)


def measure(tell: Tell) -> Part:
    """Measure what one broker carries, as shipped and saving by the clock."""
    shipped = city(SHIPPED, "as shipped", tell)
    by_clock = city(BY_CLOCK, "saving by the clock", tell)
    return Part(
        (*_claims("as shipped", shipped), *_claims("saving by the clock", by_clock)),
        (_by_rate("as shipped", shipped), _by_rate("saving by the clock", by_clock)),
        draws=(
            lambda axes: _draw_latency(axes, shipped, by_clock),
            lambda axes: _draw_cost(axes, shipped, by_clock),
        ),
    )


def city(saving: str, name: str, tell: Tell) -> City:
    """Measure a broker that saves in some way.

    Rates are raised at a broker of their own each: one that was not equal to its load is busy for
    minutes after.
    """

    def say(what: str) -> None:
        tell(f"fleet, {name}: {what}")

    seldom, minutes_s, connect_s = {}, {}, {}
    with _staged(saving, say) as stage, stage.listener("counter", "auditor") as counter:
        empty_bytes = stage.broker_bytes()
        for nodes in (FEW_NODES, NODES):
            say(f"{nodes} nodes connect")
            connect_s[nodes] = connected(stage, nodes)
            size = stage.nodes.ask(do="prepare", count=nodes)["bytes"]
            say("a message now and then")
            seldom[nodes] = at_rate(stage, counter, "counter", SELDOM_PER_S)
            minutes_s[nodes] = _minute_s(stage)
        node_bytes = (stage.broker_bytes() - empty_bytes) / NODES
    with _staged(saving, say) as stage, stage.listener("subscription", "operator") as operator:
        connected(stage, NODES)
        by_words = sweep(stage, operator, "subscription", SUBSCRIPTION_PER_S, say)
    with _staged(saving, say) as stage, stage.listener("counter", "auditor") as counter:
        connected(stage, NODES)
        stage.nodes.ask(do="prepare", count=NODES)
        by_count = sweep(stage, counter, "counter", COUNTER_PER_S, say)
        say("nothing is sent any more")
        begun_s = stage.broker_s()
        time.sleep(AFTER_S)
        after = (stage.broker_s() - begun_s) / AFTER_S
    return City(
        by_words=by_words,
        by_count=by_count,
        seldom=seldom,
        minutes_s=minutes_s,
        connect_s=connect_s[NODES],
        after=after,
        empty_bytes=empty_bytes,
        node_bytes=node_bytes,
        message_bytes=size,
    )


@contextmanager
def _staged(saving: str, say: Tell) -> Iterator[Stage]:
    say("a broker starts")
    with tempfile.TemporaryDirectory(prefix="gunfire-fleet-") as scratch, ExitStack() as opened:
        yield Stage(Path(scratch) / "stage", NODES, saving, opened)


def _minute_s(stage: Stage) -> float:
    """Give the broker's processor time for an idle minute of a node."""
    begun_s = stage.broker_s()
    stage.nodes.ask(do="minutes", count=round(SELDOM_PER_S * MINUTES_S), seconds=MINUTES_S)
    return (stage.broker_s() - begun_s) / (SELDOM_PER_S * MINUTES_S)


def _line(by_nodes: dict[int, float]) -> tuple[float, float]:
    """Lay a straight line through two points; give its value at no node, and its rise."""
    (few, at_few), (many, at_many) = sorted(by_nodes.items())
    rise = (at_many - at_few) / (many - few)
    return at_few - rise * few, rise


def _claims(name: str, of: City) -> list[Claim]:
    where = f"Mosquitto {name}, {NODES} nodes by TLS"
    claims = []
    for rates, whom in ((of.by_words, "`Subscription`"), (of.by_count, "who only counts")):
        carried = [rate for rate in rates if rate.carried]
        best = (carried or rates)[-1]
        unit = "/s, the highest tried" if rates[-1].carried else "/s"
        highest = f"{where}: highest rate carried to {whom}"
        claims += [
            Claim(highest, best.per_s if carried else 0.0, unit, "> 0", bool(carried)),
            Claim(f"{where}: socket to {whom} at that rate, median", best.p50_s, "s"),
            Claim(f"{where}: the same, 99th percentile", best.p99_s, "s"),
            Claim(f"{where}: messages for a second of a core, then", 1 / best.cost_s, "/s"),
        ]
    many = f"Mosquitto {name}, {NODES} nodes"
    tried = of.by_count[-1]
    return [
        *claims,
        Claim(f"{many}: a message now and then", 1e3 * of.seldom[NODES].cost_s, "ms of a core"),
        Claim(f"{many}: a node's idle minute", 1e3 * of.minutes_s[NODES], "ms of a core"),
        Claim(f"{many}: a node that connects", 1e3 * of.connect_s, "ms of a core"),
        Claim(f"{many}: when {tried.per_s:,}/s have ended, it still takes", of.after, "cores"),
        Claim(f"{many}: memory for each", of.node_bytes / KIB, "KiB"),
        *(
            Claim(
                f"Mosquitto {name}: nodes, each with {per_hour} detections an hour, that fill "
                f"{100 * FULL:g} % of a core",
                of.most_nodes(per_hour),
                "nodes",
            )
            for per_hour in PER_HOUR
        ),
    ]


def _by_rate(name: str, of: City) -> Detail:
    rows = [
        (
            str(nodes),
            rate.kind,
            f"{rate.per_s:,.0f}",
            f"{rate.sent_per_s:,.0f}",
            *(f"{1e3 * s:.1f}" for s in (rate.p50_s, rate.p95_s, rate.p99_s)),
            f"{rate.missing:,}",
            *(f"{cores:.2f}" for cores in (rate.broker, rate.nodes, rate.listener)),
            f"{1e6 * rate.cost_s:.0f}",
            "yes" if rate.carried else "no",
        )
        for nodes, rate in (
            *((NODES, rate) for rate in (*of.by_words, *of.by_count)),
            *of.seldom.items(),
        )
    ]
    columns = (
        "nodes", "heard by", "asked /s", "sent /s", "median ms", "95 % ms", "99 % ms", "late",
        "broker's cores", "nodes'", "subscriber's", "broker µs a message", "carried",
    )  # fmt: skip
    title = (
        f"Signed detections of {of.message_bytes:,} bytes by TLS through Mosquitto {name}, which "
        f"had {of.empty_bytes / KIB**2:.1f} MiB before the first node; {psutil.cpu_count()} cores "
        "that all share"
    )
    return Detail(title, columns, tuple(rows))


def _draw_latency(axes: Any, shipped: City, by_clock: City) -> None:
    for of, name, style in ((shipped, "as shipped", "-"), (by_clock, "by the clock", "--")):
        for rates, colour in ((of.by_words, "C0"), (of.by_count, "C1")):
            at = [rate.sent_per_s for rate in rates]
            label = f"{name}, {rates[0].kind}, median"
            took_ms = [1e3 * rate.p50_s for rate in rates]
            axes.plot(at, took_ms, style, marker="o", ms=3, color=colour, label=label)
            axes.fill_between(
                at, took_ms, [1e3 * rate.p99_s for rate in rates], color=colour, alpha=0.1
            )
    axes.axhline(1e3 * CARRIED_S, linestyle=":", color="gray")
    axes.set(
        title=f"{NODES} nodes, one broker: socket to subscriber, median to 99 %",
        xlabel="messages a second",
        ylabel="ms",
        xscale="log",
        yscale="log",
    )
    axes.legend(fontsize="small")
    axes.grid(visible=True, alpha=0.3)


def _draw_cost(axes: Any, shipped: City, by_clock: City) -> None:
    for of, name, style in ((shipped, "as shipped", "-"), (by_clock, "by the clock", "--")):
        rates: Sequence[Rate] = (of.seldom[NODES], *of.by_count)
        at = [rate.sent_per_s for rate in rates]
        cost_us = [1e6 * rate.cost_s for rate in rates]
        axes.plot(at, cost_us, style, marker="o", ms=3, label=f"{NODES} nodes, {name}")
        few = of.seldom[FEW_NODES]
        axes.plot(few.sent_per_s, 1e6 * few.cost_s, "s", label=f"{FEW_NODES} nodes, {name}")
    axes.set(
        title="the broker's own processor time for a message",
        xlabel="messages a second",
        ylabel="µs",
        xscale="log",
        yscale="log",
    )
    axes.legend(fontsize="small")
    axes.grid(visible=True, alpha=0.3)
