"""What can be heard in a street, by kind, its figures drawn at random from ranges or set by hand.

`node.simulate.sources` offers them by name. Levels and durations are those gathered in the
project's research: muzzle blasts after Dater 2014 and NIOSH (levels), the rest (and all durations)
assumptions with a wide spread, of which each field tells its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, ClassVar, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from node.simulate.pulses import Blast, Pulse, Ring, Sound, peak_pa
from node.types import Label

Calibre = Literal[".22LR", "9mm", ".45ACP", "5.56", "7.62x39", ".308", "12ga"]

# Peak level at 1 m to the side in dB SPL (low, high), positive phase at 10 m in s (middle).
CALIBRES: Final[Mapping[Calibre, tuple[float, float, float]]] = MappingProxyType(
    {
        ".22LR": (140.0, 155.0, 0.20e-3),
        "9mm": (159.0, 162.0, 0.35e-3),
        ".45ACP": (157.0, 161.0, 0.40e-3),
        "5.56": (162.0, 165.0, 0.45e-3),
        "7.62x39": (162.0, 166.0, 0.50e-3),
        ".308": (165.0, 170.0, 0.55e-3),
        "12ga": (157.0, 163.0, 0.70e-3),
    }
)
_DURATION_SPREAD: Final = 0.1  # standard deviation of the log of a positive phase
BURST_PHASE_S: Final = (1e-3, 4e-3)
"""Positive phase of an aerial shell's burst at 10 m: a shorter blast than that is a shot's."""


class Kind(BaseModel):
    """A kind's parameters; what is absent is drawn from the range that its description tells."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    label: ClassVar[Label]

    def draw(self, rng: np.random.Generator) -> Sound:
        """Settle what was left open; the same draws are made whatever was given."""
        raise NotImplementedError


PeakLevel = Annotated[float | None, Field(ge=60, le=200)]
Duration = Annotated[float | None, Field(gt=0, le=0.05)]
Frequency = Annotated[float | None, Field(ge=20, le=10_000)]


class MuzzleBlast(Kind):
    """A shot: the gas that follows the bullet out of the muzzle."""

    label = "gunfire"
    kind: Literal["muzzle_blast"] = "muzzle_blast"
    calibre: Calibre | None = Field(default=None, description="Cartridge; any if absent.")
    peak_db_spl_1m: PeakLevel = Field(
        default=None, description="Peak level at 1 m to the side in dB SPL; by calibre if absent."
    )
    positive_phase_s: Duration = Field(
        default=None, description="Positive phase at 10 m in s; by calibre, within 10 %, if absent."
    )
    rear_attenuation_db: float | None = Field(
        default=None, ge=0, le=40, description="Weaker to the rear than to the front; 10 to 20 dB."
    )

    def draw(self, rng: np.random.Generator) -> Sound:
        """Settle what was left open."""
        any_calibre = tuple(CALIBRES)[int(rng.integers(len(CALIBRES)))]
        low, high, middle_s = CALIBRES[self.calibre or any_calibre]
        level = _between(self.peak_db_spl_1m, rng, low, high)
        lengthening = np.exp(_DURATION_SPREAD * rng.standard_normal())
        phase_s = self.positive_phase_s or middle_s * lengthening
        rear = _between(self.rear_attenuation_db, rng, 10, 20)
        return Sound(self.kind, self.label, ((0.0, Blast(peak_pa(level), phase_s)),), rear)


class ShellBurst(Kind):
    """An aerial shell's break: a large charge in a paper shell, longer and softer than a shot."""

    label = "fireworks"
    kind: Literal["shell_burst"] = "shell_burst"
    peak_db_spl_1m: PeakLevel = Field(
        default=None, description="Peak level at 1 m in dB SPL; 160 to 172 if absent."
    )
    positive_phase_s: Duration = Field(
        default=None, description="Positive phase at 10 m in s; 1 to 4 ms if absent."
    )
    rise_s: Duration = Field(
        default=None, description="Time constant of the front in s; 20 to 200 us if absent."
    )

    def draw(self, rng: np.random.Generator) -> Sound:
        """Settle what was left open."""
        level = _between(self.peak_db_spl_1m, rng, 160, 172)
        phase_s = _between(self.positive_phase_s, rng, *BURST_PHASE_S)
        rise_s = _between(self.rise_s, rng, 20e-6, 200e-6)
        return Sound(self.kind, self.label, ((0.0, Blast(peak_pa(level), phase_s, rise_s)),))


class LiftCharge(Kind):
    """The thump of a mortar that throws an aerial shell up."""

    label = "fireworks"
    kind: Literal["lift_charge"] = "lift_charge"
    peak_db_spl_1m: PeakLevel = Field(
        default=None, description="Peak level at 1 m in dB SPL; 136 to 150 if absent."
    )
    frequency_hz: Frequency = Field(
        default=None, description="Main frequency in Hz; 60 to 200 if absent."
    )

    def draw(self, rng: np.random.Generator) -> Sound:
        """Settle what was left open."""
        level = _between(self.peak_db_spl_1m, rng, 136, 150)
        frequency = _between(self.frequency_hz, rng, 60, 200)
        return Sound(
            self.kind, self.label, ((0.0, Ring(peak_pa(level), frequency, 2.2 * frequency)),)
        )


class Firecracker(Kind):
    """One cracker, or a string of them, each with a charge of its own."""

    label = "fireworks"
    kind: Literal["firecracker"] = "firecracker"
    count: int = Field(default=1, ge=1, le=500, description="Crackers in the string.")
    rate_hz: float | None = Field(
        default=None, gt=0, le=200, description="Mean crackers a second; 10 to 30 if absent."
    )
    peak_db_spl_1m: PeakLevel = Field(
        default=None, description="Median peak level at 1 m in dB SPL; 143 to 157 if absent."
    )
    positive_phase_s: Duration = Field(
        default=None, description="Median positive phase at 10 m in s; 0.12 to 0.25 ms if absent."
    )

    def draw(self, rng: np.random.Generator) -> Sound:
        """Settle what was left open: charges differ by 2.5 dB, fuses burn irregularly."""
        level = _between(self.peak_db_spl_1m, rng, 143, 157)
        phase_s = _between(self.positive_phase_s, rng, 0.12e-3, 0.25e-3)
        rate_hz = _between(self.rate_hz, rng, 10, 30)
        gaps_s = rng.gamma(2.0, 1 / (2 * rate_hz), self.count)
        levels = level + 2.5 * rng.standard_normal(self.count)
        phases_s = phase_s * np.exp(0.15 * rng.standard_normal(self.count))
        return Sound(
            self.kind,
            self.label,
            tuple(
                (float(delay_s), Blast(peak_pa(one_level), float(one_phase_s)))
                for delay_s, one_level, one_phase_s in zip(
                    np.cumsum(gaps_s) - gaps_s[0], levels, phases_s, strict=True
                )
            ),
        )


class Backfire(Kind):
    """Unburnt fuel that goes off in an exhaust: one to a few irregular pops, each a damped note."""

    label = "backfire"
    kind: Literal["backfire"] = "backfire"
    pops: int | None = Field(default=None, ge=1, le=20, description="Pops; 1 to 4 if absent.")
    peak_db_spl_1m: PeakLevel = Field(
        default=None, description="Median peak level at 1 m in dB SPL; 125 to 140 if absent."
    )
    frequency_hz: Frequency = Field(
        default=None, description="The pipe's note in Hz; 150 to 600 if absent."
    )

    def draw(self, rng: np.random.Generator) -> Sound:
        """Settle what was left open."""
        any_count = int(rng.integers(1, 5))
        count = self.pops or any_count
        level = _between(self.peak_db_spl_1m, rng, 125, 140)
        frequency = _between(self.frequency_hz, rng, 150, 600)
        overtone = frequency * rng.uniform(2, 3)
        pulses: list[tuple[float, Pulse]] = []
        start_s = 0.0
        for _ in range(count):
            peak = peak_pa(level + 4 * rng.standard_normal())
            drift = np.exp(0.05 * rng.standard_normal())
            pulses.append((start_s, Ring(0.85 * peak, frequency * drift, 1.5 * frequency)))
            pulses.append((start_s, Ring(0.25 * peak, overtone * drift, 3 * frequency)))
            start_s += 0.06 + float(rng.gamma(2.0, 0.06))
        return Sound(self.kind, self.label, tuple(pulses))


class DoorSlam(Kind):
    """A car's or a house's door: a thump, then its panel."""

    label = "other"
    kind: Literal["door_slam"] = "door_slam"
    peak_db_spl_1m: PeakLevel = Field(
        default=None, description="Peak level at 1 m in dB SPL; 100 to 118 if absent."
    )
    frequency_hz: Frequency = Field(
        default=None, description="The panel's note in Hz; 120 to 450 if absent."
    )

    def draw(self, rng: np.random.Generator) -> Sound:
        """Settle what was left open."""
        peak = peak_pa(_between(self.peak_db_spl_1m, rng, 100, 118))
        panel = _between(self.frequency_hz, rng, 120, 450)
        thump = float(rng.uniform(40, 90))
        latch_s = float(rng.uniform(0.004, 0.015))
        rattle = float(rng.uniform(900, 2500))
        return Sound(
            self.kind,
            self.label,
            (
                (0.0, Ring(0.7 * peak, thump, 1.2 * thump)),
                (0.0, Ring(0.5 * peak, panel, 0.35 * panel, soft=False)),
                (latch_s, Ring(0.3 * peak, rattle, 0.3 * rattle, soft=False)),
            ),
        )


class Hammer(Kind):
    """Blows of a hammer or a nail gun: a contact, a ringing work piece, mostly a rebound."""

    label = "other"
    kind: Literal["hammer"] = "hammer"
    strokes: int = Field(default=1, ge=1, le=100, description="Blows in the series.")
    peak_db_spl_1m: PeakLevel = Field(
        default=None, description="Peak level at 1 m in dB SPL; 105 to 125 if absent."
    )
    frequency_hz: Frequency = Field(
        default=None, description="The work piece's note in Hz; 1200 to 5000 if absent."
    )

    def draw(self, rng: np.random.Generator) -> Sound:
        """Settle what was left open: a hand keeps a beat of 0.4 to 0.8 s within 5 %."""
        level = _between(self.peak_db_spl_1m, rng, 105, 125)
        note = _between(self.frequency_hz, rng, 1200, 5000)
        partial = note * rng.uniform(1.4, 1.9)
        fall_per_s = float(rng.uniform(200, 1200))
        rebound_s = float(rng.uniform(0.002, 0.008))
        beat_s = float(rng.uniform(0.4, 0.8))
        pulses: list[tuple[float, Pulse]] = []
        start_s = 0.0
        for _ in range(self.strokes):
            peak = peak_pa(level + 1.5 * rng.standard_normal())
            pulses += [
                (start_s, Blast(0.4 * peak, 0.3e-3)),
                (start_s, Ring(0.5 * peak, note, fall_per_s, soft=False)),
                (start_s, Ring(0.2 * peak, partial, 1.5 * fall_per_s, soft=False)),
                (start_s + rebound_s, Ring(0.25 * peak, note, fall_per_s, soft=False)),
            ]
            start_s += beat_s * float(1 + 0.05 * rng.standard_normal())
        return Sound(self.kind, self.label, tuple(pulses))


def _between(given: float | None, rng: np.random.Generator, low: float, high: float) -> float:
    drawn = float(rng.uniform(low, high))
    return drawn if given is None else given
