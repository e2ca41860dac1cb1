"""A mounting: taps tell plugs that are exchanged, claps where the array points and how it tilts."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial

import click
import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

from node.capture import SimulatedSource, built_in_arrays, load_geometry
from node.check.aim import Aim, Side, aim, aim_finding, parse_bearing
from node.check.mount import CLAPS, MountEar, Tap, taps_finding
from node.check.stand import Stand
from node.cli._mount import Degrees, bearing_or_none
from node.settings import CaptureSettings, Settings
from node.simulate.render import render
from node.simulate.scene import parse
from node.types import NS_PER_S

RATE = 48_000
QUIET_S = 3.0
CLAPPED_S = (6.0, 8.0, 10.0)

Frames = npt.NDArray[np.float32]


def settings(array: str = "tetrahedron_200mm", channels: int = 4, **capture: object) -> Settings:
    return Settings.model_validate(
        {"capture": {"array": array, "channels": channels, **capture}, "timing": {"chrony": False}}
    )


def heard(ear: MountEar, frames: Frames) -> Iterator[float]:
    """Have an ear hear, block by block; yields the time."""
    source = SimulatedSource(frames, RATE, paced=False)
    with source:
        for block in source.blocks():
            ear.take(replace(block, host_time_ns=block.first_sample * NS_PER_S // RATE))
            yield block.end_sample / RATE


def ear_of(given: Settings) -> MountEar:
    return MountEar(given, given.capture.channels, RATE)


def rubbed(channel: int, through_the_frame_db: float = -25.0, channels: int = 4) -> Frames:
    """Give quiet, and then a second of a finger on a capsule, which the others hear faintly."""
    rng = np.random.default_rng(channel)
    n, from_s = round((QUIET_S + 1.5) * RATE), round(QUIET_S * RATE)
    sound = rng.normal(0, 1e-3, (n, channels))
    finger = rng.normal(0, 0.1, n - from_s)
    for other in range(channels):
        by = 1.0 if other == channel else 10 ** (through_the_frame_db / 20)
        sound[from_s:, other] += by * finger
    return sound.astype(np.float32)


def tapped(channel: int, asked: int, **how: float) -> Tap:
    ear, tap = ear_of(settings()), Tap(asked)
    for now_s in heard(ear, rubbed(channel, **how)):  # type: ignore[arg-type]
        ear.tap = tap if now_s > QUIET_S - 0.3 else None
    return tap


def test_a_finger_on_a_capsule_is_heard_in_its_own_channel() -> None:
    for microphone in range(4):
        assert tapped(microphone, microphone).heard == microphone
    assert tapped(1, 1).sentence == "heard in its own channel"


def test_an_exchanged_plug_is_told() -> None:
    tap = tapped(2, 1)
    assert tap.heard == 2
    assert "CHANNEL OF MICROPHONE 2" in tap.sentence


def test_a_frame_that_carries_the_finger_to_all_and_a_dead_capsule_tell_nothing() -> None:
    everywhere = tapped(0, 0, through_the_frame_db=-2.0)
    assert everywhere.heard is None
    assert "not told apart" in everywhere.sentence
    ear, dead = ear_of(settings()), Tap(0)
    quiet = np.random.default_rng(9).normal(0, 1e-3, (4 * RATE, 4)).astype(np.float32)
    for now_s in heard(ear, quiet):
        ear.tap = dead if now_s > QUIET_S else None
    assert dead.heard is None
    assert "is it connected?" in dead.sentence


def test_taps_make_a_finding_that_says_which_plug_goes_where() -> None:
    assert taps_finding([0, 1, 2, 3], (0, 1, 2, 3)).verdict == "pass"
    swapped = taps_finding([0, 2, 1, 3], (0, 1, 2, 3))
    assert swapped.verdict == "fail"
    assert swapped.figure == "tapped: microphone 1 in channel 2, 2 in channel 1"
    assert "plug 1 into channel 1, 2 into channel 2" in swapped.next_step
    assert "rows of the array's file in the order [0, 2, 1, 3]" in swapped.next_step
    beside_pulse = taps_finding([1, 0], (0, 3))
    assert "0 in channel 3, 1 in channel 0" in beside_pulse.figure
    unheard = taps_finding([0, None, 2, 3], (0, 1, 2, 3))
    assert (unheard.verdict, "microphone 1" in unheard.figure) == ("warn", True)


def test_the_rows_that_a_finding_gives_put_the_plugs_right() -> None:
    """Rows are of channels: the k-th says where the microphone in channel k stands."""
    places = ["north", "west", "east", "top"]
    heard_in = [1, 2, 0, 3]  # the microphone meant for channel k is in this one
    advice = taps_finding(heard_in, (0, 1, 2, 3)).next_step
    rows = [int(n) for n in advice.partition("[")[2].rstrip("]").split(",")]
    in_channel = {channel: places[k] for k, channel in enumerate(heard_in)}
    assert [places[row] for row in rows] == [in_channel[channel] for channel in range(4)]


# Claps.


@cache
def clapped(
    array: str, bearing_deg: float, heading_deg: float, pitch_deg: float = 0, roll_deg: float = 0
) -> Frames:
    """Render claps (small firecrackers) from 6 m at the height of the array."""
    mounted = load_geometry(array, 4).oriented(heading_deg, pitch_deg, roll_deg).positions_m
    x, y = (6 * f(math.radians(bearing_deg)) for f in (math.sin, math.cos))
    sources = "".join(
        f'[[sources]]\nkind = "firecracker"\npeak_db_spl_1m = 118.0\ntime_s = {at}\nx_m = {x}\n'
        f"y_m = {y}\nz_m = 6.0\n"
        for at in CLAPPED_S
    )
    scene = parse(
        'name = "claps"\nduration_s = 12.0\nseed = 4\nstart_utc = 2026-06-01T12:00:00Z\n'
        "[street]\nnoise_db_a = 45.0\nground_reflection = 0.3\n" + sources + "[[nodes]]\n"
        f'id = "n1"\nx_m = 0.0\ny_m = 0.0\nz_m = 6.0\nmicrophones_m = {mounted.tolist()}\n'
    )
    pcm = render(scene, built_in_arrays()).nodes[0].frames()
    return (pcm / 2.0**31).astype(np.float32)


def side(
    bearing_deg: float,
    heading_deg: float,
    array: str = "tetrahedron_200mm",
    order: tuple[int, ...] = (0, 1, 2, 3),
    pitch_deg: float = 0,
    roll_deg: float = 0,
) -> Side:
    """Hear claps from a side by an array that is mounted so, with its channels in this order."""
    ear = ear_of(settings(array))
    frames = clapped(array, bearing_deg, heading_deg, pitch_deg, roll_deg)[:, list(order)]
    ear.listen_for_claps(order_proven=True)
    for _ in heard(ear, frames):
        pass
    directions = [d.direction for d in ear.claps]
    assert len(directions) == CLAPS
    assert all(d is not None for d in directions)
    return Side(
        bearing_deg, tuple((d.azimuth_deg, d.elevation_deg) for d in directions if d is not None)
    )


@pytest.mark.parametrize("array", ["tetrahedron_200mm", "square_65mm"])
def test_claps_from_a_known_side_give_the_heading_as_lines_for_the_settings(array: str) -> None:
    found = aim([side(70.0, 40.0, array)], CaptureSettings(heading_deg=0.0))
    assert found.trouble == ""
    assert found.heading_deg == pytest.approx(40.0, abs=2.0)
    told = aim_finding(found, CaptureSettings(heading_deg=0.0))
    assert told.verdict == "warn"
    assert f"heading_deg = {found.heading_deg:.1f}" in told.next_step
    assert found.toml() == f"[capture]\nheading_deg = {found.heading_deg:.1f}"
    assert aim_finding(found, CaptureSettings(heading_deg=40.0)).verdict == "pass"


def test_the_lines_that_are_given_make_the_bearings_right() -> None:
    """By the geometry's own `oriented`, what was heard turns into what was told."""
    sides = [side(70.0, 40.0, pitch_deg=6.0, roll_deg=-9.0),
             side(160.0, 40.0, pitch_deg=6.0, roll_deg=-9.0)]  # fmt: skip
    found = aim(sides, CaptureSettings())
    assert found.pitch_deg is not None
    assert found.roll_deg is not None
    assert (found.heading_deg, found.pitch_deg, found.roll_deg) == (
        pytest.approx(40.0, abs=2.0), pytest.approx(6.0, abs=2.0), pytest.approx(-9.0, abs=2.0)
    )  # fmt: skip
    nominal = load_geometry("tetrahedron_200mm", 4)
    mounted = nominal.oriented(found.heading_deg, found.pitch_deg, found.roll_deg)
    turn = np.linalg.lstsq(nominal.positions_m, mounted.positions_m, rcond=None)[0].T
    for told in sides:
        azimuth, up = np.deg2rad(told.claps[0][0]), np.deg2rad(told.claps[0][1] or 0.0)
        heard_unit = [np.sin(azimuth) * np.cos(up), np.cos(azimuth) * np.cos(up), np.sin(up)]
        east, north, _ = turn @ heard_unit
        bearing_deg = np.degrees(np.arctan2(east, north)) % 360
        assert bearing_deg == pytest.approx(told.bearing_deg, abs=2.5)
    assert "pitch_deg = " in aim_finding(found, CaptureSettings(heading_deg=40.0)).next_step


@pytest.mark.parametrize(
    ("array", "order", "said"),
    [
        ("square_65mm", (1, 0, 3, 2), "mirrored"),
        ("tetrahedron_200mm", (0, 2, 1, 3), "mirrored"),
        ("tetrahedron_200mm", (1, 2, 3, 0), "mirrored or rotated"),
        ("tetrahedron_200mm", (3, 1, 2, 0), "mirrored or rotated"),
    ],
)
def test_channels_in_another_order_are_told_by_two_sides(
    array: str, order: tuple[int, ...], said: str
) -> None:
    sides = [side(20.0, 0.0, array, order), side(110.0, 0.0, array, order)]
    found = aim(sides, CaptureSettings())
    assert said in found.trouble
    told = aim_finding(found, CaptureSettings())
    assert told.verdict == "fail"
    assert "tap the microphones" in told.next_step


def test_claps_that_disagree_are_refused() -> None:
    echo = Side(0.0, ((10.0, 0.0), (12.0, 0.0), (95.0, 0.0)))
    found = aim([echo], CaptureSettings())
    assert "differ by up to 85°" in found.trouble
    assert math.isnan(found.heading_deg)
    apart = [Side(0.0, ((10.0, 0.0),) * 3), Side(90.0, ((50.0, 0.0),) * 3)]
    assert "90° apart, but are heard 40° apart" in aim(apart, CaptureSettings()).trouble


def test_one_side_takes_the_tilt_from_the_settings() -> None:
    told = side(70.0, 40.0, pitch_deg=20.0)
    found = aim([told], CaptureSettings(pitch_deg=20.0))
    assert found.heading_deg == pytest.approx(40.0, abs=2.0)
    assert (found.pitch_deg, found.roll_deg) == (None, None)


def test_a_heading_within_its_error_is_left_as_it_is() -> None:
    near = Aim(41.5, 0.5, -0.8, 0.4)
    assert aim_finding(near, CaptureSettings(heading_deg=40.0)).verdict == "pass"
    across_north = Aim(359.0, None, None, 0.4)
    assert aim_finding(across_north, CaptureSettings(heading_deg=0.0)).verdict == "pass"
    tilted = Aim(40.0, 5.0, 0.0, 0.4)
    assert aim_finding(tilted, CaptureSettings(heading_deg=40.0)).verdict == "warn"


@pytest.mark.parametrize(
    ("text", "bearing_deg"),
    [("90", 90.0), ("90°", 90.0), ("-10", 350.0), ("3h", 130.0), ("12 o'clock", 40.0),
     ("13h", None), ("left", None), ("nan", None)],
)  # fmt: skip
def test_a_bearing_is_degrees_or_an_hour_of_the_clock(text: str, bearing_deg: float | None) -> None:
    assert parse_bearing(text, 40.0) == bearing_deg


def test_whoever_mistypes_an_angle_is_asked_again() -> None:
    @click.command()
    def asks() -> None:
        degrees = click.prompt("mark", type=Degrees(-360, 360))
        bearing_deg = click.prompt("where", default="", value_proc=partial(bearing_or_none, 10.0))
        click.echo(f"{degrees} {bearing_deg}")

    said = CliRunner().invoke(asks, input="nan\n10\n9O\n3h\n").output
    assert "'nan' is no number of degrees" in said
    assert "'9O' is neither degrees nor an hour" in said
    assert said.endswith("10.0 100.0\n")
    assert CliRunner().invoke(asks, input="10\n\n").output.endswith("10.0 None\n")


def test_one_microphone_is_neither_tapped_nor_aimed() -> None:
    assert ear_of(settings("mono", 1)).is_point
    assert not ear_of(settings()).is_point


def test_the_stand_hears_on_while_nobody_asks() -> None:
    ear = ear_of(settings())
    source = SimulatedSource(rubbed(2), RATE, paced=True)
    tap = Tap(2)
    with Stand(source, ear) as stand:
        while ear.watch.heard_s < 1:
            stand.raise_failure()
        stand.tap(tap)
        for _ in range(400):
            if tap.heard is not None:
                break
            time.sleep(0.02)
        stand.tap(None)
    assert tap.heard == 2
