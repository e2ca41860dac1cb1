"""Detections as nodes send them, made from times of arrival: what the simulated cities speak with.

`Ground` turns metres of a simulated city into places as messages give them, and an incident's place
back; `Sender` is a node that speaks; `feed` hands a stream of detections to a `Locator` as a broker
would and gives what it says in the end. Nothing of the truth goes in with them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from pyproj import Transformer
from pyproj.enums import TransformDirection

from node.messages import Detection, Incident
from node.messages.detection import (
    DETECTION_SCHEMA,
    Audio,
    Clock,
    Direction,
    Local,
    Model,
    Position,
    Round,
    Scores,
    Thresholds,
)
from node.messages.incident import Ellipse, IncidentRound
from node.network.medium import Weather
from node.types import NS_PER_S, ClockSource, Grade
from node.utc import utc_text

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

SITE: Final = "city"
FRAME: Final = "survey"
BEGIN_NS: Final = 1_798_761_600 * NS_PER_S  # 2027-01-01T00:00:00Z
TICK_NS: Final = NS_PER_S // 4

THRESHOLDS: Final = Thresholds(gunfire=0.7, probable=0.35)
_SCORES: Final[dict[Grade, Scores]] = {
    "gunfire": Scores(gunfire=0.93, fireworks=0.04, backfire=0.01, other=0.02),
    "probable_gunfire": Scores(gunfire=0.48, fireworks=0.42, backfire=0.04, other=0.06),
    "not_gunfire": Scores(gunfire=0.04, fireworks=0.11, backfire=0.05, other=0.8),
}
_AUDIO: Final = Audio(sample_rate_hz=48_000, channels=4, lost_samples=0, clipped=False)
_MODEL: Final = Model(name="gunfire-node", version="1.0.0", sha256="9f" * 32)


@dataclass(frozen=True)
class Ground:
    """Where a simulated city lies.

    Attributes
    ----------
    origin
        Latitude and longitude in degrees and height in m (WGS 84) of the city's corner; None where
        places are told in a surveyed local frame.
    """

    origin: tuple[float, float, float] | None = None

    def place(self, east_north_up_m: FloatArray, sigma_m: float) -> Position | Local:
        """Give a node's place as its messages do."""
        east, north, up = (float(value) for value in east_north_up_m)
        if self.origin is None:
            return Local(frame=FRAME, x_m=east, y_m=north, z_m=up, sigma_m=sigma_m)
        lon, lat, alt = self._tangent.transform(
            east, north, up, direction=TransformDirection.INVERSE
        )
        return Position(lat_deg=lat, lon_deg=lon, alt_m=alt, sigma_m=sigma_m)

    def metres(self, of: Incident | IncidentRound) -> FloatArray | None:
        """Give (east, north) in m of where a shot was fired; None where no place was found."""
        if self.origin is None:
            return None if of.local is None else np.array([of.local.x_m, of.local.y_m])
        if of.position is None:
            return None
        alt = self.origin[2] if of.position.alt_m is None else of.position.alt_m
        return np.array(self._tangent.transform(of.position.lon_deg, of.position.lat_deg, alt)[:2])

    def ellipse(self, of: Incident | IncidentRound) -> Ellipse | None:
        """Give the ellipse round that place."""
        place = of.local if self.origin is None else of.position
        return None if place is None else place.ellipse_95

    @cached_property
    def _tangent(self) -> Transformer:
        lat, lon, alt = self.origin or (0.0, 0.0, 0.0)
        return Transformer.from_pipeline(
            "+proj=pipeline +step +proj=unitconvert +xy_in=deg +xy_out=rad "
            "+step +proj=cart +ellps=WGS84 "
            f"+step +proj=topocentric +ellps=WGS84 +lat_0={lat} +lon_0={lon} +h_0={alt}"
        )


GROUNDS: Final = (
    Ground(),
    Ground((40.4406, -79.9959, 300.0)),  # Pittsburgh
    Ground(),
    Ground((-33.8688, 151.2093, 20.0)),  # Sydney
    Ground(),
    Ground((-16.8, 179.9955, 10.0)),  # Taveuni: the 180th meridian runs through this city
    Ground(),
    Ground((69.6492, 18.9553, 5.0)),  # Tromsø
)
"""In half of the runs nodes tell geographic places, in the other half a surveyed frame."""


def holds(ellipse: Ellipse, centre_m: FloatArray, place_m: FloatArray) -> bool:
    """Whether an ellipse round `centre_m` holds a place; both (east, north) in m."""
    bearing = np.deg2rad(ellipse.bearing_deg)
    east, north = place_m - centre_m
    along = east * np.sin(bearing) + north * np.cos(bearing)
    across = east * np.cos(bearing) - north * np.sin(bearing)
    # A half axis may round to nothing where a message gives millimetres.
    major, minor = max(ellipse.major_m, 1e-3), max(ellipse.minor_m, 1e-3)
    return bool((along / major) ** 2 + (across / minor) ** 2 <= 1)


@dataclass
class Sender:
    """A node that speaks: it numbers its detections and names its events.

    Attributes
    ----------
    place
        Where it says that it stands.
    clock, clock_sigma_s
        What disciplines its clock, and how well.
    begin_ns
        UTC that its times count from.
    """

    node_id: str
    place: Position | Local
    clock: ClockSource = "pps"
    clock_sigma_s: float = 1e-6
    site: str = SITE
    seq: int = 0
    begin_ns: int = BEGIN_NS
    boot_id: str = field(init=False)

    def __post_init__(self) -> None:
        self.boot_id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{self.site}/{self.node_id}/boot"))

    def detection(
        self,
        onsets_s: Sequence[float],
        sigma_s: float,
        *,
        azimuth_rad: float | None = None,
        azimuth_sigma_deg: float = 3.0,
        grade: Grade = "gunfire",
        again: Detection | None = None,
    ) -> Detection:
        """Make a message.

        Parameters
        ----------
        onsets_s
            Of its rounds, in s after `begin_ns` by the node's own clock.
        sigma_s
            What it says is the standard error of each.
        azimuth_rad
            Direction of the first round, clockwise from north; None where it tells none.
        again
            A detection of the same event that this one is a later revision of.
        """
        self.seq += 1
        times_ns = sorted(self.begin_ns + round(onset_s * NS_PER_S) for onset_s in onsets_s)
        rounds = tuple(
            Round(
                utc=utc_text(at_ns), sigma_s=sigma_s, snr_db=25.0, peak_dbfs=-9.0, peak_db_spl=None
            )
            for at_ns in times_ns
        )
        revision = 0 if again is None else again.revision + 1
        name = f"{self.boot_id}/{self.seq}"
        return Detection(
            schema=DETECTION_SCHEMA,
            event_id=str(uuid.uuid5(uuid.NAMESPACE_URL, name)) if again is None else again.event_id,
            revision=revision,
            type="update" if revision else "new",
            site=self.site,
            node_id=self.node_id,
            boot_id=self.boot_id,
            seq=self.seq,
            onset_utc=rounds[0].utc,
            rounds=rounds,
            round_count=len(rounds),
            round_count_is_minimum=False,
            cadence_rpm=None,
            label="other" if grade == "not_gunfire" else "gunfire",
            abstained=False,
            grade=grade,
            scores=_SCORES[grade],
            thresholds=THRESHOLDS,
            clock=Clock(
                source=self.clock,
                sigma_s=self.clock_sigma_s,
                bound_s=5 * self.clock_sigma_s,
                second_confirmed=True,
                holdover_s=0.0,
            ),
            position=self.place if isinstance(self.place, Position) else None,
            local=self.place if isinstance(self.place, Local) else None,
            direction=None
            if azimuth_rad is None
            else Direction(
                azimuth_deg=float(np.rad2deg(azimuth_rad)) % 360,
                elevation_deg=None,
                sigma_deg=azimuth_sigma_deg,
                airborne_probability=None,
            ),
            audio=_AUDIO,
            model=_MODEL,
            firmware="0.0.test",
            snippet=None,
        )


@dataclass(frozen=True)
class Delivery:
    """A detection, and when it came to the subscriber, in s after `BEGIN_NS`."""

    at_s: float
    detection: Detection


class Locates(Protocol):
    """What of a `Locator` is used here."""

    def place(self, site: str, node_id: str, place: Position | Local) -> None:
        """As `Locator.place`."""

    def up(self, site: str, node_id: str, up: bool) -> None:
        """As `Locator.up`."""

    def weather(self, site: str, weather: Weather) -> None:
        """As `Locator.weather`."""

    def push(self, detection: Detection, now_ns: int) -> list[Incident]:
        """As `Locator.push`."""

    def tick(self, now_ns: int) -> list[Incident]:
        """As `Locator.tick`."""

    def finish(self) -> list[Incident]:
        """As `Locator.finish`."""

    @property
    def doubts(self) -> dict[tuple[str, str], str]:
        """As `Locator.doubts`."""


def meet(locator: Locates, senders: Iterable[Sender], weather: Weather | None = None) -> None:
    """Tell a locator what it knows before anything is heard, as retained messages would."""
    for sender in senders:
        locator.place(sender.site, sender.node_id, sender.place)
        locator.up(sender.site, sender.node_id, True)
    if weather is not None:
        locator.weather(SITE, weather)


def feed(locator: Locates, deliveries: Iterable[Delivery]) -> list[Incident]:
    """Hand over detections as they come, let time pass between; give what stands in the end.

    That is the highest revision of each incident, without those that were taken back, in the order
    in which they were first told.
    """
    last: dict[str, Incident] = {}

    def note(incidents: list[Incident]) -> None:
        for incident in incidents:
            known = last.get(incident.incident_id)
            if known is None or incident.revision > known.revision:
                last[incident.incident_id] = incident

    next_tick_ns = None
    for delivery in sorted(deliveries, key=lambda delivery: delivery.at_s):
        now_ns = BEGIN_NS + round(delivery.at_s * NS_PER_S)
        next_tick_ns = now_ns if next_tick_ns is None else next_tick_ns
        while next_tick_ns < now_ns:
            note(locator.tick(next_tick_ns))
            next_tick_ns += TICK_NS
        note(locator.push(delivery.detection, now_ns))
    note(locator.finish())
    return [incident for incident in last.values() if incident.type != "cancel"]
