"""Three days in a street, written down beforehand: what sounds when, and what goes wrong when.

Pure, and the same for the same seed: the card plays it, and the judge knows by it what was to be
heard. An hour's life goes by the hour of the day: nights are still, evenings are not, and for an
hour before midnight there are fireworks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from tests.hil.soak.library import Kind, Library

HOUR_S: Final = 3600
DAY_S: Final = 86_400
STARTS_AT_H: Final = 18
"""Hour of the day at which the street begins: so a short run has an evening to hear."""
SLOT_S: Final = 12.0
"""One sound at most in each, so that every shot is an event of its own."""
CALM_END_S: Final = 1200.0
"""Before the end, in which nothing goes wrong: what waits has to drain."""

TroubleKind = Literal[
    "broker stopped", "broker killed", "pulse away", "clock stepped", "clock adrift"
]


@dataclass(frozen=True)
class Life:
    """An hour of the day: gain of the noise in dB, vehicles a minute, and sounds an hour."""

    gain_db: float
    vehicles: tuple[float, ...]
    sounds: dict[Kind, float]


NIGHT: Final = Life(-13.0, (0,), {"shot": 3, "clatter": 2})
MORNING: Final = Life(-3.0, (4, 12), {"shot": 5, "backfire": 3, "clatter": 8})
DAY: Final = Life(0.0, (4, 4, 12), {"shot": 8, "firework": 1, "backfire": 3, "clatter": 8})
EVENING: Final = Life(-4.0, (0, 4, 4), {"shot": 16, "firework": 8, "backfire": 3, "clatter": 5})
REVELRY: Final = Life(-2.0, (4,), {"shot": 24, "firework": 140, "backfire": 2, "clatter": 5})


def life_at(hour_of_day: int) -> Life:
    """Give how a street lives at an hour of the day."""
    if hour_of_day == 23:
        return REVELRY
    if hour_of_day >= 18:
        return EVENING
    if hour_of_day >= 10:
        return DAY
    return MORNING if hour_of_day >= 6 else NIGHT


@dataclass(frozen=True)
class Placed:
    """A sound in the street: which of the library's, and at which of the card's samples."""

    number: int
    first: int


@dataclass(frozen=True)
class Trouble:
    """Something that goes wrong, from when and for how long, in s of the street; by how much."""

    kind: TroubleKind
    at_s: float
    for_s: float
    by_s: float = 0.0

    @property
    def end_s(self) -> float:
        """When it is over."""
        return self.at_s + self.for_s


@dataclass(frozen=True)
class Street:
    """So many hours of a street.

    Attributes
    ----------
    library
        What it is put together from.
    hours
        How long.
    seed
        Which of all streets.
    """

    library: Library
    hours: float
    seed: int = 7

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.hours * HOUR_S

    def sounds(self, hour: int) -> list[Placed]:
        """Give the sounds that begin within an hour, in order; the last slots may be cut off."""
        life = life_at((STARTS_AT_H + hour) % 24)
        rng = np.random.default_rng([self.seed, 1, hour])
        kinds = [kind for kind, often in life.sounds.items() for _ in range(rng.poisson(often))]
        slots = rng.permutation(round(HOUR_S / SLOT_S) - 1)[: len(kinds)]
        placed = []
        for kind, slot in zip(kinds, slots, strict=False):
            at_s = hour * HOUR_S + slot * SLOT_S + rng.uniform(0.0, 4.0)
            first = round(at_s * self.library.sample_rate_hz)
            placed.append(Placed(int(rng.choice(self.library.of(kind))), first))
        return sorted(placed, key=lambda sound: sound.first)

    def bed(self, minute: int) -> tuple[int, int]:
        """Give the noise of a minute: the bed's number, and its frame at the minute's start."""
        life = self._life(minute * 60.0)
        rng = np.random.default_rng([self.seed, 2, minute])
        number = int(rng.choice(self.library.with_vehicles(float(rng.choice(life.vehicles)))))
        # A second more than a minute is heard of each, in which the next one is faded in.
        last = self.library.beds[number].frames - 62 * self.library.sample_rate_hz
        return number, int(rng.integers(last))

    def gain_db(self, at_s: float) -> float:
        """Give the gain of the noise, which goes over half an hour from one hour's to the next."""
        here, next_ = self._life(at_s).gain_db, self._life(at_s + HOUR_S).gain_db
        share = max(0.0, (at_s % HOUR_S) / HOUR_S * 2 - 1)
        return here + share * (next_ - here)

    def _life(self, at_s: float) -> Life:
        return life_at((STARTS_AT_H + int(at_s // HOUR_S)) % 24)

    def onsets(self) -> Iterator[float]:
        """Yield the sample at which each shot, or burst of shots, reaches channel 0."""
        for hour in range(int(np.ceil(self.hours))):
            for placed in self.sounds(hour):
                sound = self.library.sounds[placed.number]
                if sound.rounds:
                    yield placed.first + sound.onset

    def troubles(self) -> list[Trouble]:
        """Give what goes wrong, by when it begins; nothing does shortly before the end."""
        rng = np.random.default_rng([self.seed, 3])
        found: list[Trouble] = []
        for number, at_s in enumerate(np.arange(0.0, self.seconds, 3 * HOUR_S)):
            kind: TroubleKind = "broker killed" if number % 4 == 3 else "broker stopped"
            found.append(Trouble(kind, at_s + _hours(rng, 0.3, 2.0), _hours(rng, 0.05, 0.6)))
        for number, at_s in enumerate(np.arange(0.0, self.seconds, 6 * HOUR_S)):
            # Every fourth is longer than a pulse's count is carried on for.
            for_s = _hours(rng, 1.2, 1.6) if number % 4 == 3 else _hours(rng, 0.05, 0.6)
            found.append(Trouble("pulse away", at_s + _hours(rng, 0.4, 2.0), for_s))
        for number, at_s in enumerate(np.arange(0.0, self.seconds, 12 * HOUR_S)):
            by_s = (0.05, -1.7, 2.0, -0.002)[number % 4]
            stepped_s = at_s + _hours(rng, 1.0, 2.0)
            found.append(Trouble("clock stepped", stepped_s, _hours(rng, 0.1, 0.5), by_s))
            adrift_s = at_s + _hours(rng, 5.0, 8.0)
            found.append(Trouble("clock adrift", adrift_s, _hours(rng, 0.2, 1.5)))
        ends_s = self.seconds - CALM_END_S
        return sorted((t for t in found if t.end_s < ends_s), key=lambda trouble: trouble.at_s)


def _hours(rng: np.random.Generator, least: float, most: float) -> float:
    return float(rng.uniform(least, most)) * HOUR_S
