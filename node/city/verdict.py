"""Truth beside incidents: what became of each sound of the city. Pure.

In come what happened and the incidents as they came from the broker; out go rows and a verdict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from node.city.streets import City, Sound, to_scene
from node.messages import Incident
from node.types import NS_PER_S
from node.utc import parse_utc_ns

# An incident is of a sound that was made within so much of it; sounds of the city lie farther
# apart in one or the other.
SAME_SOUND_S: Final = 0.4
SAME_PLACE_M: Final = 100.0
LARGEST_ERROR_M: Final = 10.0
LATEST_S: Final = 2.5
"""From when the third honest node has heard it."""
NODES_NEEDED: Final = 3


@dataclass(frozen=True)
class Arrived:
    """An incident as it came from the broker, and when (UTC, ns)."""

    incident: Incident
    utc_ns: int

    @property
    def alerts(self) -> bool:
        """Whether it says that there was, or probably was, a shot."""
        return self.incident.type != "cancel" and self.incident.grade != "not_gunfire"


@dataclass(frozen=True)
class Outcome:
    """What became of one sound, or an incident that no sound explains.

    Attributes
    ----------
    sound, incident
        One of them may be None; the incident is as it was told last.
    place_m
        Where the incident is, east and north in the scene, in m; None where it says no place.
    error_m
        From there to the truth.
    alerted
        Whether any revision of it said that there was, or probably was, a shot.
    after_s
        From the (first) shot to the first such revision on the broker.
    after_third_s
        From when the third honest node heard it.
    again
        Whether another incident is of the same shot, and nearer.
    """

    sound: Sound | None
    incident: Incident | None
    place_m: tuple[float, float] | None = None
    error_m: float | None = None
    alerted: bool = False
    after_s: float | None = None
    after_third_s: float | None = None
    again: bool = False

    @property
    def is_shot(self) -> bool:
        """Whether it ought to be an incident."""
        return self.sound is not None and self.sound.label == "gunfire"

    @property
    def wrong(self) -> str:
        """Say what is not as it should be; nothing where all is."""
        if not self.is_shot:
            return "taken for a shot" if self.alerted else ""
        if self.sound is None or self.incident is None or not self.alerted:
            return "not on the map"
        if self.incident.type == "cancel":
            return "taken back"
        if self.again:
            return "told twice"
        if self.error_m is None or self.error_m > LARGEST_ERROR_M:
            return f"more than {LARGEST_ERROR_M:g} m off"
        if self.incident.round_count != self.sound.rounds:
            return "rounds miscounted"
        if self.after_third_s is None or self.after_third_s > LATEST_S:
            return f"later than {LATEST_S:g} s"
        return ""


@dataclass(frozen=True)
class Verdict:
    """What the whole comes to.

    Attributes
    ----------
    outcomes
        In order of time; incidents that nothing explains come last.
    doubts
        The nodes that were doubted, and how.
    city
        What was played.
    """

    outcomes: tuple[Outcome, ...]
    doubts: Mapping[str, str]
    city: City

    @property
    def found_out(self) -> bool:
        """Whether the node that lies was found, and no other was doubted."""
        return set(self.doubts) == ({self.city.lie.node_id} if self.city.lie else set())

    @property
    def holds(self) -> bool:
        """Whether all is as it should be."""
        return self.found_out and not any(outcome.wrong for outcome in self.outcomes)

    @property
    def sentence(self) -> str:
        """Say it."""
        shots = [o for o in self.outcomes if o.is_shot and not o.again]
        if self.holds and shots:
            error_m = max(o.error_m or 0.0 for o in shots)
            late_s = max(o.after_third_s or 0.0 for o in shots)
            rounds = sum(o.sound.rounds for o in shots if o.sound)
            lie = f"; {self.city.lie}: it was found out" if self.city.lie else ""
            return (
                f"{len(shots)} of {len(shots)} shootings on the map, at worst {error_m:.1f} m off "
                f"and {late_s:.1f} s after the third node heard it, all {rounds} rounds counted; "
                f"nothing else was{lie}"
            )
        wrong = [o.wrong for o in self.outcomes if o.wrong]
        parts = [f"{len(wrong)} of {len(self.outcomes)} rows ({', '.join(sorted(set(wrong)))})"]
        parts *= bool(wrong)
        if not self.found_out and self.city.lie and self.city.lie.node_id not in self.doubts:
            parts.append(f"{self.city.lie}, and nobody noticed")
        others = set(self.doubts) - ({self.city.lie.node_id} if self.city.lie else set())
        if others:
            parts.append(f"doubted wrongly: {', '.join(sorted(others))}")
        return "; ".join(parts) or "no shot was played"


def judge(
    city: City, start_utc_ns: int, arrived: Sequence[Arrived], doubts: Mapping[str, str]
) -> Verdict:
    """Set each sound of a city beside the incident of it, and look at what is left over.

    Parameters
    ----------
    city
        What was played.
    start_utc_ns
        UTC of the scene's start.
    arrived
        Every revision of every incident, in the order in which they came.
    doubts
        What was told of nodes.
    """
    left: dict[str, list[Arrived]] = {}
    for one in arrived:
        left.setdefault(one.incident.incident_id, []).append(one)
    sounds = city.sounds()
    of_sound: dict[int, list[Arrived]] = {}

    def give(*, shots: bool, gone: bool) -> None:
        """Give incidents to sounds, each pair by its distance."""
        pairs = sorted(
            (away_m, i, incident_id)
            for i, sound in enumerate(sounds)
            if (sound.label == "gunfire") == shots
            for incident_id, told in left.items()
            if (told[-1].incident.type == "cancel") == gone
            and (away_m := _away_m(sound, start_utc_ns, told[-1].incident)) is not None
        )
        for _, i, incident_id in pairs:
            if i not in of_sound and incident_id in left:
                of_sound[i] = left.pop(incident_id)

    # Shots choose first, and of incidents those that stand: the rest may be of a look-alike.
    for shots in (True, False):
        for gone in (False, True):
            give(shots=shots, gone=gone)
    outcomes = [
        _outcome(city, start_utc_ns, sound, of_sound.get(i, ())) for i, sound in enumerate(sounds)
    ]
    for told in left.values():
        incident = told[-1].incident
        own = [s for s in sounds if s.label == "gunfire" and _fits(s, start_utc_ns, incident)]
        if not own:
            outcomes.append(_outcome(city, start_utc_ns, None, told))
        elif incident.type != "cancel":
            outcomes.append(replace(_outcome(city, start_utc_ns, own[0], told), again=True))
        # Else it was of a shot, and has made way for another of that shot.
    return Verdict(tuple(outcomes), dict(doubts), city)


def _fits(sound: Sound, start_utc_ns: int, incident: Incident) -> bool:
    return _away_m(sound, start_utc_ns, incident) is not None


def place_of(incident: Incident) -> tuple[float, float] | None:
    """Give where an incident is, east and north in the scene, in m."""
    if incident.position is not None:
        return to_scene(incident.position.lat_deg, incident.position.lon_deg)
    return None


def _away_m(sound: Sound, start_utc_ns: int, incident: Incident) -> float | None:
    """Give how far an incident is from a sound; None where it can be of it in no way."""
    after_s = (parse_utc_ns(incident.utc) - start_utc_ns) / NS_PER_S
    times_s = sound.times_s
    if not times_s[0] - SAME_SOUND_S <= after_s <= times_s[-1] + SAME_SOUND_S:
        return None
    place_m = place_of(incident)
    if place_m is None:
        return SAME_PLACE_M
    away_m = math.dist(place_m, sound.place_m)
    return away_m if away_m <= SAME_PLACE_M else None


def _outcome(
    city: City, start_utc_ns: int, sound: Sound | None, told: Sequence[Arrived]
) -> Outcome:
    if not told:
        return Outcome(sound, None)
    incident = told[-1].incident
    place_m = place_of(incident)
    alert = next((one for one in told if one.alerts), None)
    after_s = after_third_s = error_m = None
    if sound is not None and alert is not None:
        from_start_s = (alert.utc_ns - start_utc_ns) / NS_PER_S
        after_s = from_start_s - sound.times_s[0]
        after_third_s = from_start_s - city.heard_s(sound, NODES_NEEDED)
    if sound is not None and place_m is not None:
        error_m = math.dist(place_m, sound.place_m)
    return Outcome(sound, incident, place_m, error_m, alert is not None, after_s, after_third_s)
