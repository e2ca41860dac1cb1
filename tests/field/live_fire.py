"""The live-fire set through `Locator`: from its sensors' pulses (a), and from their sound (b).

The set is ShotSpotter Tech Note 098 (arXiv 2108.07377; CC BY 4.0), in ../shared/data/pittsburgh:
nine firing points, of which those are measured that lie there. Truth is its survey, good to 2.5 m.

(a) Every pulse that the sensors reported, echoes and clutter among them, goes in as a detection of
one round; nothing of the set's own choice of pulses does.
(b) Each sensor's sound goes through `node.replay`, and what it says into the locator.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import numpy.typing as npt

from node.classify import TfliteClassifier
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
from node.settings import DetectSettings
from node.types import NS_PER_S
from node.utc import parse_utc_ns, utc_text
from tests.evidence import Claim, Detail
from tests.field.city import at_least, at_most
from tests.parts import Draw, Part, Tell, recordings_folder

FloatArray = npt.NDArray[np.float64]

SITE: Final = "live-fire"
TRUTH_SIGMA_M: Final = 2.5
"""Standard error of the surveyed shooter, metres (the set's description)."""

PULSES: Final = LocateSettings(nodes=4, graded_nodes=0, least_grade="not_gunfire")
"""For pulses that nobody has classified: whatever four sensors agree on."""

LEAST: Final = 4
"""So many sensors make a shot one that counts."""
SHOWN_M: Final = 35.0
_PUBLISHED: Final = (
    (
        "their paper, nine firing points",
        "324 shots, 100 % of incidents detected, 96.9 % within 25 m, "
        "96 % of shots within 15 m where six or more sensors took part",
    ),
    (
        "2-D MLG here",
        "Mathias, Leonardi and Galati's closed form over all sensors of the set's own "
        "selected pulses, at a speed of sound for -1 °C, computed in the same run",
    ),
    ("weather", "the airfield's temperature and wind, as the set has them, go in with both"),
    ("(a)", "pulses have no class: whatever four sensors agree on is located"),
    (
        "(b)",
        "the shipped model learnt from these recordings, so that its grades here are no proof of "
        "it; `make evaluate` tells what models say that did not",
    ),
)

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


def tests(data: Path, firing_points: Iterable[str]) -> list[Test]:
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

    Mathias, Leonardi and Galati's closed form in two dimensions, over all sensors (arXiv
    2108.07377, §III; re-computed here).
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


def measure(tell: Tell) -> Part:
    """Locate every test, by its pulses and by its sound."""
    data = recordings_folder()
    all_tests = tests(data, ())
    if not all_tests:
        raise SystemExit(f"{data}: holds no pittsburgh/FP*/test_*; name the folder by --data")
    by_pulses, by_sound = [], []
    replay = Replay(TfliteClassifier.load(), DetectSettings(), site=SITE)
    for test in all_tests:
        tell(f"{test.name}, its pulses")
        by_pulses.append(of_pulses(test))
        tell(f"{test.name}, its sound")
        by_sound.append(of_sound(test, replay))
    points = sorted({test.firing_point for test in all_tests})
    theirs = [mlg(result.test, shot) for result in by_pulses for shot in result.test.shots]
    return Part(
        (*_of_pulses(by_pulses), *_theirs(theirs), *_of_sound(by_sound)),
        (
            _table("(a) from all pulses, by our own choice of them", by_pulses, points, LEAST),
            _table("(b) from sound, shots with four audible sensors", by_sound, points, LEAST),
            Detail("Beside them", ("what", "figures"), _PUBLISHED),
        ),
        draws=tuple(_picture(point, by_pulses, by_sound) for point in points),
    )


def _of_pulses(results: list[Result]) -> Iterator[Claim]:
    shots = [shot for result in results for shot in result.shots if shot.sensors >= LEAST]
    errors = np.array([shot.error_m for shot in shots])
    located = np.isfinite(errors)
    yield Claim("(a) shots that four sensors heard", len(shots), "")
    yield at_least("(a) located", 100 * located.mean(), "% of shots", 100)
    errors = np.where(located, errors, np.inf)
    yield at_most("(a) error, median", float(np.median(errors)), "m", 4.7)
    yield at_most("(a) error, 95th percentile", float(np.percentile(errors, 95)), "m", 10)
    yield at_least("(a) within 15 m", 100 * (errors <= 15).mean(), "% of shots", 100)
    yield Claim("(a) error, worst", float(errors.max()), "m")
    inside = [shot.inside_with_survey for shot in shots]
    yield Claim("(a) 95 % ellipse with the survey's 2.5 m", 100 * np.mean(inside), "% of shots")
    alone = [shot.inside for shot in shots]
    yield Claim("(a) 95 % ellipse, the survey taken for exact", 100 * np.mean(alone), "% of shots")
    yield Claim("(a) rounds exact", 100 * np.mean([r.rounds_exact for r in results]), "% of tests")
    yield Claim("(a) incidents beside the true one", _extra(results), "")


def _theirs(errors: list[float]) -> Iterator[Claim]:
    whose = "their best algorithm (2-D MLG) on their own choice of pulses"
    yield Claim(f"{whose}: median", float(np.median(errors)), "m")
    yield Claim(f"{whose}: 95th percentile", float(np.percentile(errors, 95)), "m")
    yield Claim(f"{whose}: worst", float(np.max(errors)), "m")


def _of_sound(results: list[Result]) -> Iterator[Claim]:
    shots = [shot for result in results for shot in result.shots]
    heard = np.array([shot.error_m for shot in shots if shot.sensors >= LEAST])
    errors = np.where(np.isfinite(heard), heard, np.inf)
    yield Claim("(b) shots with four audible sensors", len(heard), "")
    yield at_least("(b) of them within 25 m", 100 * (errors <= 25).mean(), "% of shots", 97)
    yield at_least("(b) of them within 15 m", 100 * (errors <= 15).mean(), "% of shots", 90)
    yield Claim("(b) of them: error, median", float(np.median(errors)), "m")
    yield Claim(
        "(b) of them: 95 % ellipse",
        100
        * np.mean(
            [shot.inside for shot in shots if shot.sensors >= LEAST and np.isfinite(shot.error_m)]
        ),
        "% of located",
    )
    rest = [shot for shot in shots if shot.sensors < LEAST]
    honest = [shot.inside or not np.isfinite(shot.error_m) for shot in rest]
    yield at_least(
        f"(b) the other {len(rest)}: an ellipse that holds the truth, or a refusal",
        100 * float(np.mean(honest)) if rest else 100.0,
        "% of shots",
        100,
    )
    told = [len(result.incidents) >= 1 for result in results]
    yield at_least("(b) tests that became an incident", 100 * np.mean(told), "% of tests", 100)
    yield at_most("(b) incidents beside the true one", _extra(results), "", 0)
    grades = [incident.grade != "not_gunfire" for r in results for incident in r.incidents]
    yield at_least(
        "(b) incidents graded gunfire or probable gunfire", 100 * np.mean(grades), "%", 100
    )
    exact = [result.rounds_exact for result in results]
    yield at_least("(b) rounds exact", 100 * np.mean(exact), "% of tests", 95)


def _extra(results: list[Result]) -> int:
    return sum(max(0, len(result.incidents) - 1) for result in results)


def _table(title: str, results: list[Result], points: list[str], least: int) -> Detail:
    rows = []
    for point in points:
        mine = [result for result in results if result.test.firing_point == point]
        shots = [shot for result in mine for shot in result.shots if shot.sensors >= least]
        errors = np.array([shot.error_m for shot in shots])
        placed = errors[np.isfinite(errors)]
        theirs = [mlg(result.test, shot) for result in mine for shot in result.test.shots]
        p50, p90, p95 = np.percentile(placed, [50, 90, 95])
        rows.append(
            (
                point,
                f"{sum(bool(r.incidents) for r in mine)} of {len(mine)}, {_extra(mine)} extra",
                f"{len(placed)} of {len(shots)}",
                f"{sum(r.rounds_exact for r in mine)} of {len(mine)}",
                f"{p50:.1f} / {p90:.1f} / {p95:.1f}",
                f"{100 * np.mean(errors <= 15):.0f} / {100 * np.mean(errors <= 25):.0f} %",
                f"{100 * np.mean([s.inside for s in shots]):.0f} / "
                f"{100 * np.mean([s.inside_with_survey for s in shots]):.0f} %",
                f"{np.median(theirs):.1f} / {np.percentile(theirs, 95):.1f}",
            )
        )
    return Detail(
        title,
        (
            "firing point",
            "incidents of tests",
            "shots located",
            "rounds exact",
            "error median / p90 / p95, m",
            "within 15 / 25 m",
            "in the ellipse, without / with the survey's error",
            "their MLG median / p95, m",
        ),
        tuple(rows),
    )


def _picture(point: str, by_pulses: list[Result], by_sound: list[Result]) -> Draw:
    def draw(axes: Any) -> None:
        for results, colour, marker, name in (
            (by_pulses, "tab:blue", "o", "(a) pulses"),
            (by_sound, "tab:orange", "x", "(b) sound"),
        ):
            off = [
                (place.x_m - result.test.shooter_m[0], place.y_m - result.test.shooter_m[1])
                for result in results
                if result.test.firing_point == point
                for incident in result.incidents
                for place in [incident.local]
                if place is not None
            ]
            far = [o for o in off if max(map(abs, o)) > SHOWN_M]
            near = np.array([o for o in off if max(map(abs, o)) <= SHOWN_M]).reshape(-1, 2)
            said = f"{name}: {len(near)}" + (f", {len(far)} beyond" if far else "")
            axes.scatter(*near.T, c=colour, marker=marker, s=22, alpha=0.7, label=said)
        for radius in (15, 25):
            circle = np.linspace(0, 2 * np.pi, 120)
            axes.plot(radius * np.cos(circle), radius * np.sin(circle), "k:", lw=0.8)
            axes.annotate(f"{radius} m", (0, radius), ha="center", va="bottom", fontsize=8)
        axes.plot(0, 0, "k+", ms=12)
        axes.set(
            title=f"{point}: incidents round the surveyed shooter",
            aspect="equal",
            xlim=(-SHOWN_M, SHOWN_M),
            ylim=(-SHOWN_M, SHOWN_M),
            xlabel="east of the shooter, m",
            ylabel="north, m",
        )
        axes.legend(fontsize=8, loc="upper right")

    return draw
