"""The live-fire set through `Locator`: from its sensors' pulses (a), and from their sound (b).

The set is ShotSpotter Tech Note 098 (arXiv 2108.07377; CC BY 4.0), in ../shared/data/pittsburgh: nine
firing points, of which those are measured that lie there. Truth is its survey, good to 2.5 m.

(a) Every pulse that the sensors reported, echoes and clutter among them, goes in as a detection of
one round; nothing of the set's own choice of pulses does.
(b) Each sensor's sound goes through `node.replay`, and what it says into the locator.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import numpy.typing as npt

from node.messages import Detection, Incident
from node.messages.detection import (
    DETECTION_SCHEMA,
    Audio,
    Clock,
    Local,
    Model,
    Round,
    Scores,
    Thresholds,
)
from node.network.incidents import Locator
from node.network.medium import Weather
from node.network.policy import LocateSettings
from node.replay import Replay
from node.types import NS_PER_S
from node.utc import parse_utc_ns, utc_text

FloatArray = npt.NDArray[np.float64]

SITE: Final = "live-fire"
TRUTH_SIGMA_M: Final = 2.5
"""Standard error of the surveyed shooter, metres (the set's description)."""

PULSES: Final = LocateSettings(nodes=4, graded_nodes=0, least_grade="not_gunfire")
"""For pulses that nobody has classified: whatever four sensors agree on."""

_PUBLISHED_AFTER_NS: Final = NS_PER_S
_TO_S: Final = 1e-3  # the set gives times to a millisecond
_SAME_SHOT_S: Final = 0.1
# The set's ratio is another than ours: of the same pulses, in their sound, ours reads so much more.
_SNR_DB: Final = 20.0


@dataclass(frozen=True)
class Shot:
    """A shot of the set: how its own analysts timed it at their sensors."""

    pulses: dict[str, int]

    def fired_ns(self, test: Test) -> int:
        """Give when it was fired, by the median over those sensors."""
        back = [
            at - round(test.away_m(sensor) / test.speed_m_s * NS_PER_S)
            for sensor, at in self.pulses.items()
        ]
        return int(np.median(back))


@dataclass(frozen=True)
class Test:
    """A test of the set: one or three shots from one place."""

    folder: Path

    @property
    def firing_point(self) -> str:
        """Its firing point."""
        return self.folder.parent.name

    @property
    def name(self) -> str:
        """Its firing point and number."""
        return f"{self.firing_point}/{self.folder.name}"

    @cached_property
    def survey(self) -> dict[str, Any]:
        """The truth."""
        return self._read("survey")

    @property
    def rounds(self) -> int:
        """How many shots were fired."""
        return int(self.survey["num_rounds"])

    @cached_property
    def shooter_m(self) -> FloatArray:
        """Where they were, shape [3]."""
        place = self.survey["survey_location"]
        return np.array([place["x"], place["y"], place["z"]])

    @cached_property
    def weather(self) -> Weather:
        """What the airfield measured."""
        said = self._read("weather")
        return Weather(said["temperature"], said["speed"], said["direction"])

    @property
    def speed_m_s(self) -> float:
        """Speed of sound by that temperature."""
        return 20.05 * float(np.sqrt(273.15 + (self.weather.temperature_c or 0.0)))

    @cached_property
    def pulses(self) -> list[dict[str, Any]]:
        """Every pulse that a sensor reported; the set tells some twice."""
        seen: dict[tuple[str, str], dict[str, Any]] = {}
        for pulse in self._read("allpulses"):
            seen.setdefault((pulse["serial_number"], pulse["arrival_time_utc"]), pulse)
        return sorted(seen.values(), key=lambda pulse: str(pulse["arrival_time_utc"]))

    @cached_property
    def sensors_m(self) -> dict[str, FloatArray]:
        """Where each sensor with a pulse stands."""
        return {
            p["serial_number"]: np.array([p["location"][axis] for axis in "xyz"])
            for p in self._read("allpulses")
        }

    @cached_property
    def shots(self) -> list[Shot]:
        """The shots, with the pulses that the set's own analysts chose."""
        by_id = {pulse["pulse_uuid"]: pulse for pulse in self._read("allpulses")}
        return [
            Shot(
                {
                    by_id[name]["serial_number"]: parse_utc_ns(by_id[name]["arrival_time_utc"])
                    for name in shot["pulse_uuids"]
                    if name in by_id
                }
            )
            for shot in self._read("nlos-tuples")
        ]

    @property
    def recordings(self) -> list[Path]:
        """The sensors' sound."""
        return sorted(self.folder.glob("*.flac"))

    def away_m(self, sensor: str) -> float:
        """Give the distance from the shooter to a sensor."""
        return float(np.linalg.norm(self.sensors_m[sensor] - self.shooter_m))

    def audible(self, shot: Shot) -> int:
        """Count the recordings in which the set's analysts placed the shot."""
        names = {path.name.split(".audio.")[1].removesuffix(".flac") for path in self.recordings}
        return len(names & shot.pulses.keys())

    def _read(self, what: str) -> Any:
        return json.loads((self.folder / f"{self.folder.name}.{what}.json").read_text())


@dataclass(frozen=True)
class Found:
    """What came of one shot.

    Attributes
    ----------
    error_m
        From the surveyed place to the one found; NaN where none was.
    off
        Squared distance in standard errors, by the ellipse told; and with the survey's own error.
    """

    test: Test
    sensors: int
    error_m: float
    inside: bool
    inside_with_survey: bool
    major_m: float


@dataclass(frozen=True)
class Result:
    """What came of one test: its incidents and its shots."""

    test: Test
    incidents: list[Incident]
    shots: list[Found]
    heard: list[Detection] = field(repr=False, default_factory=list)

    @property
    def rounds_exact(self) -> bool:
        """Whether the one incident has as many shots as were fired."""
        return len(self.incidents) == 1 and self.incidents[0].round_count == self.test.rounds


def tests(data: Path, firing_points: Iterable[str] = ()) -> list[Test]:
    """Give the tests of some firing points, or of all."""
    root = data / "pittsburgh"
    points = firing_points or sorted(folder.name for folder in root.glob("FP*"))
    return [Test(folder) for point in points for folder in sorted((root / point).glob("test_*"))]


def of_pulses(test: Test, settings: LocateSettings = PULSES) -> Result:
    """Locate a test by its sensors' pulses (a)."""
    detections = [_detection(number, pulse) for number, pulse in enumerate(test.pulses)]
    incidents = locate(detections, test, settings)
    found = [_found(test, shot, len(shot.pulses), incidents) for shot in test.shots]
    return Result(test, incidents, found, detections)


def of_sound(test: Test, replay: Replay, settings: LocateSettings | None = None) -> Result:
    """Locate a test by its sensors' sound (b)."""
    detections = [d for path in test.recordings for d in replay.detections(path)]
    incidents = locate(detections, test, settings or LocateSettings())
    found = [_found(test, shot, test.audible(shot), incidents) for shot in test.shots]
    return Result(test, incidents, found, detections)


def locate(detections: Iterable[Detection], test: Test, settings: LocateSettings) -> list[Incident]:
    """Give the incidents that stand after all detections came, in the order of their times."""
    locator = Locator(settings)
    standing: dict[str, Incident] = {}
    ready = sorted(
        (parse_utc_ns(d.rounds[-1].utc) + _PUBLISHED_AFTER_NS, d.revision, n, d)
        for n, d in enumerate(detections)
    )
    for at_ns, _, n, detection in ready:
        if n == ready[0][2]:
            for one in {d.site for *_, d in ready}:
                locator.weather(one, test.weather)
        for incident in locator.push(detection, at_ns):
            standing[incident.incident_id] = incident
    for incident in locator.finish():
        standing[incident.incident_id] = incident
    return sorted((i for i in standing.values() if i.type != "cancel"), key=lambda i: i.utc)


def _found(test: Test, shot: Shot, sensors: int, incidents: list[Incident]) -> Found:
    fired_ns = shot.fired_ns(test)
    near = [
        (abs(parse_utc_ns(one.utc) - fired_ns), one.local)
        for incident in incidents
        for one in incident.rounds
        if one.local is not None
    ]
    near = [entry for entry in near if entry[0] < _SAME_SHOT_S * NS_PER_S]
    if not near:
        return Found(test, sensors, np.nan, False, False, np.nan)
    place = min(near, key=lambda entry: entry[0])[1]
    off = np.array([place.x_m, place.y_m]) - test.shooter_m[:2]
    covariance = _covariance(place.ellipse_95)
    with_survey = covariance + TRUTH_SIGMA_M**2 * np.eye(2)
    return Found(
        test,
        sensors,
        float(np.hypot(*off)),
        bool(off @ np.linalg.solve(covariance, off) <= 5.991),
        bool(off @ np.linalg.solve(with_survey, off) <= 5.991),
        place.ellipse_95.major_m,
    )


def _covariance(around: Any) -> FloatArray:
    bearing = np.radians(around.bearing_deg)
    along, across = (
        np.array([np.sin(bearing), np.cos(bearing)]),
        np.array([np.cos(bearing), -np.sin(bearing)]),
    )
    return np.asarray(
        (around.major_m**2 * np.outer(along, along) + around.minor_m**2 * np.outer(across, across))
        / 5.991
    )


def _detection(number: int, pulse: dict[str, Any]) -> Detection:
    utc = utc_text(parse_utc_ns(pulse["arrival_time_utc"]))
    place = pulse["location"]
    sensor = pulse["serial_number"]
    return Detection(
        schema=DETECTION_SCHEMA,
        event_id=str(uuid5(NAMESPACE_URL, f"{sensor}/{utc}")),
        revision=0,
        type="new",
        site=SITE,
        node_id=sensor,
        boot_id=str(uuid5(NAMESPACE_URL, sensor)),
        seq=number + 1,
        onset_utc=utc,
        rounds=(
            Round(
                utc=utc,
                sigma_s=_TO_S,
                snr_db=pulse["signal_to_noise_dB"] + _SNR_DB,
                peak_dbfs=0.0,
                peak_db_spl=pulse["power_dB_SPL"],
            ),
        ),
        round_count=1,
        round_count_is_minimum=True,
        cadence_rpm=None,
        label="other",
        abstained=True,
        grade="not_gunfire",
        scores=Scores(gunfire=0.25, fireworks=0.25, backfire=0.25, other=0.25),
        thresholds=Thresholds(gunfire=1.0, probable=1.0),
        clock=Clock(
            source="pps", sigma_s=1e-4, bound_s=None, second_confirmed=True, holdover_s=0.0
        ),
        position=None,
        local=Local(frame=SITE, x_m=place["x"], y_m=place["y"], z_m=place["z"], sigma_m=None),
        direction=None,
        audio=Audio(sample_rate_hz=12_000, channels=1, lost_samples=0, clipped=False),
        model=Model(name="none", version="0", sha256="0" * 64),
        firmware="none",
        snippet=None,
    )


def mlg(test: Test, shot: Shot) -> float:
    """Locate a shot by the set's own selected pulses and best algorithm; the error in m.

    Mathias, Leonardi and Galati's closed form in two dimensions, over all sensors (arXiv 2108.07377,
    §III; re-computed here).
    """
    places = np.array([test.sensors_m[sensor][:2] for sensor in shot.pulses])
    times = np.array(list(shot.pulses.values()), np.float64)
    times = (times - times[0]) / NS_PER_S
    c = 20.03 * np.sqrt(273.15 - 1.0)
    middle, mean = places.mean(0), times.mean()
    away, along = places - middle, c * (times - mean)
    matrix = np.column_stack([away, -along, np.full(len(times), -c / 2)])
    right = 0.5 * ((away**2).sum(1) - along**2)
    place = np.linalg.lstsq(matrix, right, rcond=None)[0][:2] + middle
    return float(np.hypot(*(place - test.shooter_m[:2])))


def each(
    data: Path,
    locate_one: Callable[[Test], Result],
    firing_points: Iterable[str] = (),
    progress: Callable[[], None] = lambda: None,
) -> Iterator[Result]:
    """Locate every test."""
    for test in tests(data, firing_points):
        yield locate_one(test)
        progress()
