"""A recording of an array, heard again: its bearings, and its time by the pulse it carries.

The truth is the scene's. Its corners are of whole triangles, so that a bearing can be checked by
hand: 60 m east and 80 m north is 100 m at 36.87 degrees.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from test_pipeline import Listener

from node.capture import built_in_arrays
from node.errors import RecordingError, SceneError
from node.messages import Detection, to_json
from node.replay import Replay
from node.settings import DetectSettings
from node.simulate.render import render, write
from node.simulate.scene import parse
from node.timing import LeapTable
from node.types import NS_PER_S
from node.utc import parse_utc_ns, utc_text

QUIET = """
[street]
noise_db_a = 45.0
vehicles_per_minute = 0.0
"""
# Azimuth 36.87 from the street, 306.87 at 45 degrees above the horizon, 143.13 from the street.
SHOTS = """
[[sources]]
kind = "muzzle_blast"
calibre = "9mm"
time_s = 0.8
x_m = 60.0
y_m = 80.0
heading_deg = 210.0
[[sources]]
kind = "muzzle_blast"
calibre = "5.56"
time_s = 3.0
x_m = -40.0
y_m = 30.0
z_m = 54.0
heading_deg = 120.0
[[sources]]
kind = "muzzle_blast"
calibre = ".308"
time_s = 5.5
x_m = 120.0
y_m = -160.0
heading_deg = 330.0
"""
BEARINGS_DEG = [(36.87, -1.43), (306.87, 45.0), (143.13, -0.72)]
NODE = '[[nodes]]\nid = "corner"\nx_m = 0.0\ny_m = 0.0\n'
# The built-in tetrahedron, from first principles: edges of 200 mm, the first foot to the north.
TETRAHEDRON_M = [
    [0.0, 0.115470, -0.040825],
    [-0.1, -0.057735, -0.040825],
    [0.1, -0.057735, -0.040825],
    [0.0, 0.0, 0.122474],
]


def recorded(folder: Path, node: str, shots: str = SHOTS, seconds: float = 7.0) -> Path:
    """Make a scene's recording with its .json and truth.json."""
    scene = parse(f"duration_s = {seconds}\n{QUIET}{shots}{NODE}{node}")
    write(render(scene, built_in_arrays()), folder)
    return folder / "corner.wav"


def replayed(path: Path, **options: Any) -> list[Detection]:
    return list(Replay(Listener(), DetectSettings(), **options).detections(path))


def arrivals(path: Path) -> list[dict[str, Any]]:
    truth = json.loads((path.parent / "truth.json").read_text())
    return truth["nodes"][0]["arrivals"]


def tell(path: Path, **changes: object) -> None:
    """Change what the .json beside a recording says; None takes a key out."""
    beside = path.with_suffix(".json")
    told = json.loads(beside.read_text()) if beside.exists() else {}
    told |= changes
    beside.write_text(json.dumps({key: v for key, v in told.items() if v is not None}))


def off_deg(one: float, other: float) -> float:
    return abs((one - other + 180) % 360 - 180)


def assert_bearings_are_true(heard: list[Detection], *, elevation: bool = True) -> None:
    assert len(heard) == len(BEARINGS_DEG)
    for detection, (azimuth_deg, elevation_deg) in zip(heard, BEARINGS_DEG, strict=True):
        told = detection.direction
        assert told is not None
        assert told.sigma_deg < 2
        assert off_deg(told.azimuth_deg, azimuth_deg) <= min(3.0, 3 * told.sigma_deg)
        if elevation:
            assert told.elevation_deg == pytest.approx(elevation_deg, abs=0.5)


@pytest.fixture(scope="module")
def corner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a recording of the tetrahedron, to be read only."""
    return recorded(tmp_path_factory.mktemp("corner"), 'array = "tetrahedron_200mm"\n')


@pytest.fixture
def copy(corner: Path, tmp_path: Path) -> Path:
    """Give the same recording with a .json of its own, to be changed."""
    (tmp_path / "corner.wav").symlink_to(corner)
    (tmp_path / "corner.json").write_bytes(corner.with_suffix(".json").read_bytes())
    return tmp_path / "corner.wav"


def test_the_truth_that_these_tests_rest_on_is_the_hand_worked_one(corner: Path) -> None:
    assert [(a["azimuth_deg"], a["elevation_deg"]) for a in arrivals(corner)] == [
        pytest.approx(bearing, abs=0.01) for bearing in BEARINGS_DEG
    ]


def test_each_shot_is_heard_where_it_was_fired(corner: Path) -> None:
    assert_bearings_are_true(replayed(corner))


@pytest.mark.parametrize("heading_deg", [70.0, -135.0])
def test_a_turned_array_hears_the_same_true_bearings(tmp_path: Path, heading_deg: float) -> None:
    node = f'array = "tetrahedron_200mm"\nheading_deg = {heading_deg}\n'
    assert_bearings_are_true(replayed(recorded(tmp_path, node)))


# From 50 m the answer of the ground comes 1 ms after the shot, from 3 degrees below it.
LOW = """
[[sources]]
kind = "muzzle_blast"
calibre = "9mm"
time_s = 0.8
x_m = 30.0
y_m = 40.0
z_m = 1.5
heading_deg = 210.0
[[sources]]
kind = "muzzle_blast"
calibre = ".308"
time_s = 3.0
x_m = -40.0
y_m = 30.0
z_m = 1.5
heading_deg = 330.0
"""


def test_the_ground_below_an_array_pulls_no_near_shot_down(tmp_path: Path) -> None:
    heard = replayed(recorded(tmp_path, 'array = "tetrahedron_200mm"\nz_m = 6.0\n', LOW, 4.5))
    assert len(heard) == 2
    for detection in heard:
        assert detection.direction is not None
        # atan2(1.5 - 6, 50).
        assert detection.direction.elevation_deg == pytest.approx(-5.14, abs=0.5)
        assert detection.direction.sigma_deg < 0.5


def test_a_heading_that_is_off_turns_every_bearing_by_as_much(corner: Path, copy: Path) -> None:
    tell(copy, heading_deg=70.0)
    for true, turned in zip(replayed(corner), replayed(copy), strict=True):
        assert true.direction is not None
        assert turned.direction is not None
        assert off_deg(turned.direction.azimuth_deg, true.direction.azimuth_deg + 70) < 0.02
        assert turned.direction.elevation_deg == true.direction.elevation_deg


def test_a_flat_array_tells_azimuths_and_only_elevations_well_above_the_horizon(
    tmp_path: Path,
) -> None:
    heard = replayed(recorded(tmp_path, 'array = "square_65mm"\n'))
    assert_bearings_are_true(heard, elevation=False)
    low, high, far = (d.direction for d in heard if d.direction is not None)
    assert (low.elevation_deg, far.elevation_deg) == (None, None)
    assert high.elevation_deg == pytest.approx(45, abs=3)


def test_places_of_microphones_in_the_json_are_as_good_as_an_arrays_name(
    corner: Path, copy: Path
) -> None:
    tell(copy, array=None, microphones_m=TETRAHEDRON_M)
    heard = replayed(copy)
    assert_bearings_are_true(heard)
    assert heard[0].direction == replayed(corner)[0].direction


def test_places_of_microphones_stand_above_an_array_and_an_option_above_both(copy: Path) -> None:
    # Its feet named the other way round: the wrong array gives other bearings, or none.
    mirrored = [[-x, y, z] for x, y, z in TETRAHEDRON_M]
    tell(copy, microphones_m=mirrored)
    wrong = replayed(copy)[0].direction
    assert wrong is None or off_deg(wrong.azimuth_deg, 36.87) > 10
    assert_bearings_are_true(replayed(copy, array="tetrahedron_200mm"))


def test_an_array_may_be_a_file_beside_the_recording(copy: Path) -> None:
    (copy.parent / "mast.toml").write_text(f"positions_m = {TETRAHEDRON_M}\n")
    tell(copy, array="mast.toml")
    assert_bearings_are_true(replayed(copy))


def test_delays_of_an_arrays_file_are_taken_off(copy: Path) -> None:
    tell(copy, array="mast.toml")
    # A channel said to be late by 100 us, which it is not: the wave then fits no plane one, or
    # its bearing is off by degrees.
    (copy.parent / "mast.toml").write_text(
        f"positions_m = {TETRAHEDRON_M}\ndelays_s = [1e-4, 0, 0, 0]\n"
    )
    late = replayed(copy)[0].direction
    assert late is None or off_deg(late.azimuth_deg, 36.87) > 3


@pytest.mark.parametrize("array", [None, "mono"])
def test_a_recording_without_an_arrays_geometry_tells_no_direction(
    copy: Path, array: str | None
) -> None:
    tell(copy, array=array)
    heard = replayed(copy)
    assert len(heard) == 3
    assert [d.direction for d in heard] == [None] * 3
    assert json.loads(to_json(heard[0]))["direction"] is None


def test_a_recording_of_one_microphone_tells_no_direction(tmp_path: Path) -> None:
    heard = replayed(recorded(tmp_path, 'array = "mono"\n'))
    assert [d.direction for d in heard] == [None] * 3
    assert heard[0].audio.channels == 1


def test_two_runs_give_the_same_bytes(corner: Path) -> None:
    once, again = ([to_json(d) for d in replayed(corner)] for _ in range(2))
    assert once == again
    assert len(once) == 3


# With the pulse. The card runs 35 ppm fast: by 9 s its count alone is 315 us late.
LATER = """
[[sources]]
kind = "muzzle_blast"
calibre = "9mm"
time_s = 1.2
x_m = 60.0
y_m = 80.0
heading_deg = 210.0
[[sources]]
kind = "muzzle_blast"
calibre = "9mm"
time_s = 8.7
x_m = 60.0
y_m = 80.0
heading_deg = 210.0
[[sources]]
kind = "muzzle_blast"
calibre = "9mm"
time_s = 11.4
x_m = 60.0
y_m = 80.0
heading_deg = 210.0
"""
FAST = 'array = "tetrahedron_200mm"\nclock_ppm = 35.0\n'


def errors_us(path: Path, heard: list[Detection]) -> list[float]:
    """Give how late each onset is against the nearest true arrival, in microseconds."""
    true = [parse_utc_ns(arrival["utc"]) for arrival in arrivals(path)]
    told = [parse_utc_ns(detection.onset_utc) for detection in heard]
    return [min((at - utc for utc in true), key=abs) / 1e3 for at in told]


# From the south, where channel 0, the tetrahedron's northern foot, is the last to hear.
SOUTHERN_DEG = (145.0, 160.0, 180.0, 200.0, 215.0)
SOUTHERN = "".join(
    f"""
[[sources]]
kind = "muzzle_blast"
calibre = "9mm"
time_s = {1 + 1.5 * k}
x_m = {(60 + 7 * k) * math.sin(math.radians(azimuth_deg)):.3f}
y_m = {(60 + 7 * k) * math.cos(math.radians(azimuth_deg)):.3f}
heading_deg = {(azimuth_deg + 180) % 360}
"""
    for k, azimuth_deg in enumerate(SOUTHERN_DEG)
)


def test_an_onset_is_channel_0s_also_for_a_shot_from_the_south(tmp_path: Path) -> None:
    path = recorded(tmp_path, 'array = "tetrahedron_200mm"\n', SOUTHERN, 9.0)
    heard = replayed(path)
    assert len(heard) == len(SOUTHERN_DEG)
    assert max(map(abs, errors_us(path, heard))) < 150


@pytest.fixture(scope="module")
def pulsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded(tmp_path_factory.mktemp("pulsed"), FAST + "pps = true\n", LATER, 13.0)


def test_a_pulse_takes_out_that_the_card_runs_fast(pulsed: Path) -> None:
    after_lock = [d for d in replayed(pulsed) if d.revision == 0][1:]
    assert [d.clock.source for d in after_lock] == ["pps", "pps"]
    assert max(map(abs, errors_us(pulsed, after_lock))) < 100
    assert all(d.clock.sigma_s < 2e-6 for d in after_lock)


@pytest.mark.parametrize("off_s", [-0.07, 0.004, 0.06])
def test_a_pulse_is_taken_though_the_stated_start_is_off(
    pulsed: Path, tmp_path: Path, off_s: float
) -> None:
    (tmp_path / "corner.wav").symlink_to(pulsed)
    told = json.loads(pulsed.with_suffix(".json").read_text())
    start_ns = parse_utc_ns(told["timestamp"]) + round(off_s * 1e9)
    (tmp_path / "corner.json").write_text(json.dumps(told | {"timestamp": utc_text(start_ns)}))
    right = [d.onset_utc for d in replayed(pulsed) if d.clock.source == "pps"]
    off = [d.onset_utc for d in replayed(tmp_path / "corner.wav") if d.clock.source == "pps"]
    assert len(off) == len(right) > 2
    for one, other in zip(right, off, strict=True):
        assert abs(parse_utc_ns(one) - parse_utc_ns(other)) < 1000


def test_without_the_pulse_a_fast_card_is_late_by_what_it_ran_ahead(tmp_path: Path) -> None:
    path = recorded(tmp_path, FAST, LATER, 13.0)
    heard = replayed(path)
    assert [d.clock.source for d in heard] == ["free"] * 3
    first, second, third = errors_us(path, heard)
    # 35 us in each of the 7.5 s and the 2.7 s between the shots.
    assert second - first == pytest.approx(7.5 * 35, abs=30)
    assert third - second == pytest.approx(2.7 * 35, abs=30)


def test_what_was_told_before_the_pulse_locked_is_told_again_by_it(pulsed: Path) -> None:
    first, again, *_ = replayed(pulsed)
    assert (first.revision, first.type, first.clock.source) == (0, "new", "free")
    assert (again.revision, again.type, again.clock.source) == (1, "update", "pps")
    assert again.event_id == first.event_id
    assert again.clock.sigma_s < first.clock.sigma_s
    assert abs(errors_us(pulsed, [again])[0]) < 100


def test_a_leap_second_that_the_system_knows_of_is_told(
    pulsed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *_, before = replayed(pulsed)
    onset_s = parse_utc_ns(before.onset_utc) // NS_PER_S
    ahead = LeapTable((*LeapTable().changes, (onset_s - 1, 38)))
    monkeypatch.setattr(LeapTable, "load", lambda: ahead)
    *_, leapt = replayed(pulsed)
    assert leapt.clock.source == "pps"
    assert parse_utc_ns(leapt.onset_utc) == parse_utc_ns(before.onset_utc) - NS_PER_S


def test_a_pulse_that_nobody_told_of_is_found_where_the_array_leaves_one_channel(
    pulsed: Path, tmp_path: Path, silent: Callable[..., Path]
) -> None:
    told = replayed(pulsed)
    (tmp_path / "corner.wav").symlink_to(pulsed)
    start = json.loads(pulsed.with_suffix(".json").read_text())["timestamp"]
    (tmp_path / "corner.json").write_text(json.dumps({"timestamp": start}))
    found = replayed(tmp_path / "corner.wav", array="tetrahedron_200mm")
    assert [d.onset_utc for d in found] == [d.onset_utc for d in told]
    assert [d.clock for d in found] == [d.clock for d in told]
    said = replayed(tmp_path / "corner.wav", array="tetrahedron_200mm", pps_channel=4)
    assert [d.onset_utc for d in said] == [d.onset_utc for d in told]
    with pytest.raises(SceneError, match="4 microphones, the source 5 channels"):
        replayed(silent(5), array="tetrahedron_200mm")


def test_the_pulses_channel_is_no_microphone_and_spoils_no_bearing(pulsed: Path) -> None:
    for detection in replayed(pulsed):
        assert detection.audio.channels == 4
        assert detection.direction is not None
        assert off_deg(detection.direction.azimuth_deg, 36.87) < 1.5


# What cannot be replayed is refused by a sentence that names the file.


@pytest.fixture
def silent(tmp_path: Path) -> Callable[..., Path]:
    """Make a recording of some channels whose .json says as told."""

    def make(channels: int, **sidecar: object) -> Path:
        path = tmp_path / "mast 3.wav"
        soundfile.write(path, np.zeros((4800, channels), np.int16), 48_000)
        tell(path, **sidecar)
        return path

    return make


THREE_M = TETRAHEDRON_M[:3]


@pytest.mark.parametrize(
    ("channels", "sidecar", "told"),
    [
        (5, {"array": "square_65mm"}, "4 microphones, the source 5 channels; choose the array"),
        (4, {"array": "square_65mm", "pps_channel": 3}, "4 microphones, the source 3 channels"),
        (4, {"array": "cube"}, "not built in; choose one of mono"),
        (4, {"array": "gone.toml"}, "gone.toml: cannot read the array (No such file"),
        (4, {"microphones_m": THREE_M}, "places 3 microphones, the recording has 4 channels"),
        (
            4,
            {"microphones_m": TETRAHEDRON_M, "pps_channel": 3},
            "places 4 microphones, the recording has 3 channels",
        ),
        (4, {"pps_channel": 4}, "in channel 4, but there are 4, counted from 0"),
        (1, {"pps_channel": 0}, "only the channel of the pulse, no microphone"),
    ],
)
def test_an_array_that_does_not_fit_its_recording_is_refused_by_the_files_name(
    silent: Callable[..., Path], channels: int, sidecar: dict[str, object], told: str
) -> None:
    path = silent(channels, **sidecar)
    with pytest.raises((RecordingError, SceneError)) as caught:
        replayed(path)
    assert told in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_an_option_that_does_not_fit_names_the_recording_that_it_does_not_fit(
    silent: Callable[..., Path],
) -> None:
    path = silent(2, array="mono")
    with pytest.raises(SceneError, match="4 microphones, the source 2 channels") as caught:
        replayed(path, array="square_65mm")
    assert str(path) in str(caught.value)
