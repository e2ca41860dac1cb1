"""How often shots are counted right among their echoes, by bearing and level at one array."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from node.detect.rounds import count_rounds
from tests.evidence import Claim, Detail
from tests.parts import Part, Tell
from tests.timing.train_scene import FIRES, RATE_HZ, Fire, Place, hear

SEED: Final = 3303
SNR_DB: Final = 40.0
TRAINS: Final = 400  # of each fire in each place
PAIRS: Final = 600
BARS: Final[dict[Place, float | None]] = {"open": None, "urban": 0.95, "canyon": 0.90}
# What tells here is where impulses come from, and how loud they are.
NO_SOUND: Final = np.zeros((1, 1), np.float32)
# A burst's rate, relative, against the truth.
CADENCE_OFF: Final = 0.01


@dataclass(frozen=True)
class _Counts:
    """What was told of some trains, one entry each."""

    told: tuple[int, ...]
    minimum: tuple[bool, ...]
    true: tuple[int, ...]
    cadence_off: tuple[float, ...]

    @property
    def exact(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Whether the count is the truth."""
        return np.equal(self.told, self.true)

    @property
    def honest(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Whether the count is the truth, or a minimum that is no larger."""
        low = np.less(self.told, self.true) & np.array(self.minimum)
        return self.exact | low


def measure(tell: Tell) -> Part:
    """Measure how many counts are exact, by place and fire, and what is told of two guns."""
    claims: list[Claim] = []
    rows: list[tuple[str, ...]] = []
    shares: dict[str, list[float]] = {}
    for number, (place, bar) in enumerate(BARS.items()):
        tell(f"one gun, {place}")
        rng = np.random.default_rng(SEED + number)
        counts = [_count((fire,), place, TRAINS, rng) for fire in FIRES]
        shares[place] = [float(c.exact.mean()) for c in counts]
        rows += [_row(f"{place}, {f}", c) for f, c in zip(FIRES, counts, strict=True)]
        exact = float(np.mean(shares[place]))
        shown = "" if bar is None else f"≥ {100 * bar:.0f}"
        claims.append(
            Claim(
                f"one gun, one array, {place}: exact count",
                100 * exact,
                "%",
                shown,
                bar is None or exact >= bar,
            )
        )
        off = np.concatenate([c.cadence_off for c in counts])
        if place == "urban":
            claims.append(
                Claim(
                    f"one gun, {place}: cadence within {100 * CADENCE_OFF:.0f} %, where told",
                    100 * float(np.mean(off <= CADENCE_OFF)),
                    "%",
                )
            )
    for number, place in enumerate(BARS):
        tell(f"two guns, {place}")
        rng = np.random.default_rng(SEED + 10 + number)
        two = _count(("semi", "semi"), place, PAIRS, rng)
        rows.append(_row(f"{place}, two guns", two))
        claims += [
            Claim(f"two guns at once, {place}: exact count", 100 * float(two.exact.mean()), "%"),
            Claim(
                f"two guns at once, {place}: told as “at least”",
                100 * float(np.mean(two.minimum)),
                "%",
            ),
            Claim(
                f"two guns at once, {place}: exact, or “at least” and no larger than the truth",
                100 * float(two.honest.mean()),
                "%",
            ),
        ]
    columns = ("trains", "exact %", "within 1 %", "at least %", "too many %")
    detail = Detail(f"Rounds by bearing and level, {SNR_DB:.0f} dB", columns, tuple(rows))
    return Part(tuple(claims), (detail,), lambda axes: _draw(axes, shares))


def _count(fires: tuple[Fire, ...], place: Place, trains: int, rng: np.random.Generator) -> _Counts:
    told, minimum, true, off = [], [], [], []
    for _ in range(trains):
        train = hear(fires, place, SNR_DB, rng)
        rounds = count_rounds(train.impulses, NO_SOUND, RATE_HZ, RATE_HZ)
        told.append(len(rounds.shots))
        minimum.append(rounds.is_minimum)
        true.append(train.rounds)
        if rounds.cadence_rpm is not None and train.cadence_rpm is not None:
            off.append(abs(rounds.cadence_rpm / train.cadence_rpm - 1))
    return _Counts(tuple(told), tuple(minimum), tuple(true), tuple(off))


def _row(name: str, counts: _Counts) -> tuple[str, ...]:
    off = np.subtract(counts.told, counts.true)
    shares = (counts.exact, np.abs(off) <= 1, np.array(counts.minimum), off > 0)
    return (name, *(f"{100 * float(share.mean()):.1f}" for share in shares))


def _draw(axes: Any, shares: dict[str, list[float]]) -> None:
    width = 0.8 / len(shares)
    for number, (place, exact) in enumerate(shares.items()):
        at = np.arange(len(exact)) + (number - (len(shares) - 1) / 2) * width
        axes.bar(at, [100 * share for share in exact], width, label=place)
    axes.set(ylim=(80, 100), ylabel="exact counts, %", title="Rounds of one gun at one array")
    axes.set_xticks(np.arange(len(FIRES)), FIRES)
    axes.grid(alpha=0.3, axis="y")
    axes.legend(fontsize="small")
