"""An array calibrated by recordings: from sounds to a file that the node can use."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from test_detect_calibrate import NOMINAL_M, built, rms

from node.calibration import calibrate_array, write_array
from node.capture import load_geometry
from node.cli.replay import command
from node.errors import CalibrationError, RecordingError, SceneError
from node.pipeline import Array
from node.settings import DetectSettings
from tests.timing.array_scene import Mismatch, hear, towards

RATE_HZ = 48_000
NOISE = 0.01
SPEED_M_S = 340.3  # at the 15 °C of the settings
PLACES_M, LATE_S = built(NOMINAL_M, seed=3, delay_s=8e-6)
FIXED = Mismatch(delay_s=0.0, place_m=0.0)
ARRAY = "tetrahedron_200mm"


def record(path: Path, impulses: int, elevations_deg=(-5.0, 60.0), seed=0) -> Path:
    """Write impulses from all round, a second apart, as the clumsy array hears them."""
    rng = np.random.default_rng(seed)
    sound = rng.normal(0, NOISE, ((impulses + 1) * RATE_HZ, 4)).astype(np.float32)
    for number in range(impulses):
        u = towards(rng.uniform(0, 360), rng.uniform(*elevations_deg))
        speed_m_s = SPEED_M_S * (1 + 0.005 * rng.standard_normal())
        heard = hear(PLACES_M, u, 34.0, rng, rate_hz=RATE_HZ, mismatch=FIXED,
                     delays_s=LATE_S, speed_m_s=speed_m_s)  # fmt: skip
        at = number * RATE_HZ + RATE_HZ // 2
        sound[at : at + len(heard.sound)] = heard.sound
    soundfile.write(path, sound, RATE_HZ, subtype="PCM_16")
    return path


def timing_error_s(positions_m, delays_s) -> float:
    """Give by how much channels are late that should not be, root mean square over directions."""
    wrong_s = []
    for azimuth_deg in range(0, 360, 15):
        u = towards(azimuth_deg, 20.0)
        off_s = delays_s - LATE_S - (positions_m - PLACES_M) @ u / SPEED_M_S
        wrong_s.append(off_s - off_s.mean())
    return rms(wrong_s)


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("range")
    return [record(folder / f"{part}.wav", 40, seed=part) for part in range(2)]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("few") / "few.wav", 3)


def run(*arguments: object):
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


def test_a_clumsy_array_gets_a_file_that_is_nearer_to_the_truth(heard, tmp_path):
    out = tmp_path / "mast.toml"

    done = run(*heard, "--array", ARRAY, "--calibrate", out)

    assert done.exit_code == 0, done.output
    told = load_geometry(out, 4)
    assert told.name == "mast"
    assert told.calibrated
    assert rms(told.positions_m - PLACES_M) < 0.3 * rms(NOMINAL_M - PLACES_M)
    wrong_s = timing_error_s(told.positions_m, told.delays_s)
    assert wrong_s < 0.4 * timing_error_s(NOMINAL_M, np.zeros(4))
    assert told.timing_sigma_s is not None
    assert wrong_s < 2 * told.timing_sigma_s < 5e-6
    assert f"{ARRAY}: 80 of 8" in done.output
    assert "microphone 3: " in done.output
    assert list(tmp_path.iterdir()) == [out]


def test_a_calibrated_array_is_calibrated_further_and_stays_what_it_is(heard, tmp_path):
    first = calibrate_array(heard, ARRAY, DetectSettings())
    write_array(tmp_path / "first.toml", first)

    again = calibrate_array(heard, str(tmp_path / "first.toml"), DetectSettings())

    off_m = again.calibration.positions_m - first.calibration.positions_m
    assert rms(off_m) < first.calibration.position_sigma_m
    assert first.calibration.residual_s < 0.5 * first.calibration.nominal_residual_s
    assert again.calibration.nominal_residual_s < 1.2 * first.calibration.residual_s


def test_a_channel_that_carries_a_pulse_is_no_microphone(heard, tmp_path):
    sound, rate = soundfile.read(heard[0], dtype="float32")
    five = tmp_path / "five.wav"
    soundfile.write(five, np.insert(sound, 1, 0.0, axis=1), rate, subtype="PCM_16")
    five.with_suffix(".json").write_text('{"pps_channel": 1}')

    told = calibrate_array([five], ARRAY, DetectSettings())

    plain = calibrate_array(heard[:1], ARRAY, DetectSettings())
    assert np.array_equal(told.calibration.positions_m, plain.calibration.positions_m)


def test_too_few_impulses_calibrate_nothing(few, tmp_path):
    out = tmp_path / "mast.toml"

    with pytest.raises(CalibrationError, match=r"3 of 3 impulses .* 30 are needed"):
        calibrate_array([few], ARRAY, DetectSettings())
    assert not out.exists()


def test_impulses_along_the_horizon_alone_calibrate_nothing(tmp_path):
    flat = record(tmp_path / "flat.wav", 40, elevations_deg=(0.0, 1.0))

    with pytest.raises(CalibrationError, match="too few sides"):
        calibrate_array([flat], ARRAY, DetectSettings())


def test_what_headers_and_arrays_tell_is_refused_before_anything_is_heard(few, tmp_path):
    def hear_nothing(_seconds: float) -> None:
        pytest.fail("listened first")

    with pytest.raises(CalibrationError, match="in a plane"):
        calibrate_array([few], "square_65mm", DetectSettings(), hear_nothing)
    with pytest.raises(RecordingError, match=r"none\.wav"):
        calibrate_array([few, tmp_path / "none.wav"], ARRAY, DetectSettings(), hear_nothing)
    with pytest.raises(SceneError, match=r"few\.wav: array 'round' is not built in"):
        calibrate_array([few], "round", DetectSettings(), hear_nothing)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("mast.toml", "exists already"), ("mast.txt", "end in .toml"), ("no/mast.toml", "no folder")],
)
def test_a_file_that_could_not_be_written_is_refused_before_the_work(few, tmp_path, name, reason):
    (tmp_path / "mast.toml").write_text("mine")

    done = run(few, "--array", ARRAY, "--calibrate", tmp_path / name)

    assert isinstance(done.exception, CalibrationError)
    assert reason.replace("no folder", "is not a folder") in str(done.exception)
    assert (tmp_path / "mast.toml").read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "needs --array"),
        (("--array", ARRAY, "--jsonl"), "no --jsonl"),
        (("--array", ARRAY, "--broker", "mqtt://localhost"), "--broker"),
        (("--array", ARRAY, "--plot", "a.png"), "--plot"),
    ],
)
def test_calibrating_goes_with_an_array_and_with_nothing_else(few, tmp_path, arguments, reason):
    done = run(few, "--calibrate", tmp_path / "mast.toml", *arguments)

    assert done.exit_code == 2
    assert reason in done.output


def test_the_error_of_a_calibrated_array_is_read_and_stays_when_it_is_mounted(tmp_path):
    path = tmp_path / "mast.toml"
    text = "positions_m = [[0, 0, 0], [0.1, 0, 0]]\n"
    path.write_text(text + "delays_s = [0.0, 1e-6]\ntiming_sigma_s = 0.9e-6\n")
    assert load_geometry(path, 2).oriented(30.0).timing_sigma_s == 0.9e-6
    assert load_geometry(ARRAY, 4).timing_sigma_s is None

    path.write_text(text + "timing_sigma_s = 0.9e-6\n")
    with pytest.raises(SceneError, match="without delays_s"):
        load_geometry(path, 2)
    for wrong in ("-1e-9", "0.9", "nan"):
        path.write_text(text + f"delays_s = [0.0, 1e-6]\ntiming_sigma_s = {wrong}\n")
        with pytest.raises(SceneError, match="timing_sigma_s"):
            load_geometry(path, 2)


def test_a_calibrated_array_knows_its_bearings_better(heard, tmp_path):
    path = tmp_path / "mast.toml"
    write_array(path, calibrate_array(heard, ARRAY, DetectSettings()))
    rng = np.random.default_rng(4)
    u = towards(40.0, 20.0)
    one = hear(PLACES_M, u, 34.0, rng, mismatch=FIXED, delays_s=LATE_S, speed_m_s=SPEED_M_S)

    errors_deg = {}
    for name in (ARRAY, str(path)):
        array = Array.of(load_geometry(name, 4), RATE_HZ, settings=DetectSettings())
        before, after = array.finder.window()
        first = int(one.onset) - before
        found = array.finder.find(one.sound[first : first + before + after], one.onset - first)
        off = np.clip(u @ towards(found.azimuth_deg, found.elevation_deg), -1, 1)
        errors_deg[name] = np.degrees(np.arccos(off))
        sigma_deg = found.sigma_deg

    assert errors_deg[str(path)] < 0.7 * errors_deg[ARRAY]
    assert errors_deg[str(path)] < 3 * sigma_deg
