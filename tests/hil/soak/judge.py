"""What a soak claims, and whether it holds: of a series and a tally, whoever took them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from tests.evidence import Claim, Detail
from tests.hil.soak.ledger import Tally
from tests.hil.soak.series import Sample, column
from tests.hil.soak.slope import Slope, rise, slope

FILE: Final = "outcome.json"
HOUR_S: Final = 3600.0
DAY_S: Final = 86_400.0
MB: Final = 1e6
BAR_MB: Final = 1.0
"""A day, of memory."""
REST_BAR_MB: Final = 3.0
"""In all that comes after its warm-up, for a run of less than a day."""
WARM_UP_S: Final = 6 * HOUR_S
"""Before which nothing is said of growth; a quarter of a run that is shorter than four of them."""
SHARE: Final = 0.25

_COLUMNS: Final = (
    ("memory of its own", "anonymous_bytes", 1 / MB, "MB"),
    ("memory in all", "resident_bytes", 1 / MB, "MB"),
    ("blocks that Python's objects take up", "blocks", 1.0, ""),
    ("descriptors", "descriptors", 1.0, ""),
    ("threads", "threads", 1.0, ""),
    ("detections that wait", "outbox_depth", 1.0, ""),
    ("outbox on disk", "outbox_bytes", 1 / MB, "MB"),
    ("log", "log_bytes", 1 / MB, "MB"),
    ("clock's σ", "clock_sigma_s", 1e6, "µs"),
    ("broker's memory", "broker_bytes", 1 / MB, "MB"),
)


@dataclass(frozen=True)
class Outcome:
    """A run that is over, or that has begun.

    Attributes
    ----------
    name
        Of the part of the evidence: `soak-simulated` or `soak-real`.
    what
        How the node heard, in a few words.
    asked_s
        Seconds that the node is to hear.
    full_s
        From what length on a run is evidence.
    heard_s, wall_s
        Seconds that it heard, and that this took.
    tally
        What was received.
    troubles
        What went wrong on purpose, and how often.
    plants
        What the node was told to do wrong.
    commit
        Of what ran.
    """

    name: str
    what: str
    asked_s: float
    full_s: float
    heard_s: float = 0.0
    wall_s: float = 0.0
    tally: Tally = field(default_factory=Tally)
    troubles: dict[str, int] = field(default_factory=dict)
    plants: tuple[str, ...] = ()
    commit: str = ""

    @property
    def is_evidence(self) -> bool:
        """Whether it is long enough, and of a node that nobody meddled with."""
        return self.heard_s >= self.full_s and not self.plants

    def save(self, folder: Path) -> None:
        """Keep it beside the series."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=1))


def load(folder: Path, samples: Sequence[Sample]) -> Outcome:
    """Read an outcome that was kept; of a run that died, as far as its series goes."""
    said = json.loads((folder / FILE).read_text())
    tally = said.pop("tally")
    others = tuple((kind, count) for kind, count in tally.pop("others"))
    plants = tuple(said.pop("plants"))
    outcome = Outcome(tally=Tally(**tally, others=others), plants=plants, **said)
    if outcome.heard_s or not samples:
        return outcome
    return replace(outcome, heard_s=samples[-1].at_s, wall_s=samples[-1].wall_s)


def warm_up_s(heard_s: float) -> float:
    """Give how much of a run's beginning says nothing of growth."""
    return min(WARM_UP_S, SHARE * heard_s)


def claims(outcome: Outcome, samples: Sequence[Sample]) -> tuple[Claim, ...]:
    """Judge a run."""
    warm_s = warm_up_s(outcome.heard_s)
    tally, hours = outcome.tally, outcome.heard_s / HOUR_S
    after = f"after {warm_s / HOUR_S:.2g} h of warming up"
    # What is not connected has a socket less: that says nothing of what is left open.
    met = [sample for sample in samples if sample.broker_bytes]
    lost = max((sample.samples_lost for sample in samples), default=0)
    most = max((sample.outbox_depth for sample in samples), default=0)
    return (
        Claim(f"{outcome.what}: heard", hours, "h", f"{outcome.asked_s / HOUR_S:g}",
              outcome.heard_s >= 0.999 * outcome.asked_s),
        Claim(f"the same: times real time, in {outcome.wall_s / HOUR_S:.3g} h of wall time; by the "
              f"node's own seconds of CPU {_by_cpu(samples):.3g}",
              outcome.heard_s / max(outcome.wall_s, 1e-9), "×"),
        _memory("memory of its own alone", "anonymous_bytes", outcome, samples, after),
        *_blocks(outcome, samples, after),
        _memory("memory in all", "resident_bytes", outcome, samples, after),
        _count("descriptors", "descriptors", met, warm_s, after),
        _count("threads", "threads", met, warm_s, after),
        Claim(f"detections lost, of {tally.made:,} ({tally.again:,} copies came again after the "
              "broker had been away)", tally.lost, "", "0", tally.lost == 0 and tally.made > 0),
        Claim("numbers that two detections have, detections with two, events told twice",
              tally.doubled, "", "0", tally.doubled == 0),
        Claim("detections that are not signed, or not linked to the one before",
              tally.unlinked, "", "0", tally.unlinked == 0),
        Claim(f"shots that no detection tells to 1 ms, of {tally.shots:,}",
              tally.unheard, "", "0", tally.unheard == 0 and tally.shots > 0),
        Claim(f"detections that wait in the end ({most:,} at the most)",
              tally.waiting, "", "0", tally.waiting == 0),
        Claim("samples that the card lost", lost, "", "0", lost == 0),
        Claim("longest that the node kept sound waiting, real time",
              max(column(samples, "waited_s"), default=0.0), "s"),
        Claim("bytes of log a day", _a_day(samples, "log_bytes") / MB, "MB"),
    )  # fmt: skip


def memory_growth(outcome: Outcome, samples: Sequence[Sample], of: str) -> tuple[Slope, str, float]:
    """Give how fast memory grows after a run's warm-up, in what unit, and what is asked of it."""
    warm_s = warm_up_s(outcome.heard_s)
    megabytes = [value / MB for value in column(samples, of)]
    grown = slope(column(samples, "at_s"), megabytes, warm_s)
    if outcome.asked_s < DAY_S:
        # A node of an hour still fills its caches: what that would make in a day says nothing.
        return grown.times((outcome.heard_s - warm_s) / DAY_S), "MB", REST_BAR_MB
    return grown, "MB a day", BAR_MB


def _memory(name: str, of: str, outcome: Outcome, samples: Sequence[Sample], after: str) -> Claim:
    grown, unit, bar = memory_growth(outcome, samples, of)
    return Claim(
        f"growth of {name}, {after}: Theil–Sen over {grown.stretches} stretches",
        _finite(grown.per_day), unit, f"≤ {bar:g}, its 95 % too", grown.verdict(bar) == "flat",
        _interval(grown),
    )  # fmt: skip


def _blocks(outcome: Outcome, samples: Sequence[Sample], after: str) -> tuple[Claim, ...]:
    """Say whether it is objects that grow, where Python was asked."""
    if not any(sample.blocks for sample in samples):
        return ()
    warm_s = warm_up_s(outcome.heard_s)
    grown = slope(column(samples, "at_s"), column(samples, "blocks"), warm_s)
    what = f"growth of the blocks that Python's objects take up, {after}"
    return (Claim(what, _finite(grown.per_day), "a day", interval=_interval(grown)),)


def _count(name: str, of: str, samples: Sequence[Sample], warm_s: float, after: str) -> Claim:
    more = rise(column(samples, "at_s"), column(samples, of), warm_s)
    return Claim(f"{name} more in the last twelfth than in the first, {after}",
                 _finite(more), "", "≤ 0", more <= 0)  # fmt: skip


def details(outcome: Outcome, samples: Sequence[Sample]) -> tuple[Detail, ...]:
    """Give what the claims are made of."""
    rows = []
    for name, of, scale, unit in _COLUMNS:
        values = np.array(column(samples, of)) * scale
        if values.any():  # what nobody asked for is left out
            figures = (values[0], np.min(values), np.median(values), np.max(values), values[-1])
            rows.append((f"{name}, {unit}" if unit else name, *(f"{v:.4g}" for v in figures)))
    lived = [(kind, str(count)) for kind, count in sorted(outcome.troubles.items())]
    lived += [(f"{kind} messages received", f"{n:,}") for kind, n in outcome.tally.others]
    sources = [sample.clock_source for sample in samples]
    for source in sorted(set(sources)):
        lived.append((f"clock by {source}, share", f"{sources.count(source) / len(sources):.3f}"))
    return (
        Detail(f"{outcome.name}: {len(samples):,} samples",
               ("", "first", "least", "median", "most", "last"), tuple(rows)),
        Detail(f"{outcome.name}: lived through", ("", ""), tuple(lived)),
    )  # fmt: skip


def _by_cpu(samples: Sequence[Sample]) -> float:
    if len(samples) < 2 or samples[-1].cpu_s <= samples[0].cpu_s:
        return math.nan
    first, last = samples[0], samples[-1]
    return (last.at_s - first.at_s) / (last.cpu_s - first.cpu_s)


def _a_day(samples: Sequence[Sample], of: str) -> float:
    if len(samples) < 2:
        return 0.0
    values = column(samples, of)
    return (values[-1] - values[0]) / max(samples[-1].at_s - samples[0].at_s, 1.0) * DAY_S


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _interval(grown: Slope) -> tuple[float, float] | None:
    both = (grown.low, grown.high)
    return both if all(map(math.isfinite, both)) else None
