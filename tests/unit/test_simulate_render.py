"""Rendered scenes: arrivals where geometry puts them, honest truth, the same bytes each time."""

import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.simulate_wave import delay_samples

from node.errors import SceneError
from node.simulate.echoes import Wall
from node.simulate.noise import HOP_FRAMES
from node.simulate.propagation import absorb
from node.simulate.pulses import REFERENCE_PA
from node.simulate.render import RenderedNode, render, write
from node.simulate.scene import Scene, SceneNode, SceneSource, Street

RATE = 48_000
TETRAHEDRON_M = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * 0.2 / np.sqrt(8)
ARRAYS = {"tetrahedron": TETRAHEDRON_M, "mono": np.zeros((1, 3))}
ECHOLESS = Street(noise_db_a=-20.0, vehicles_per_minute=0.0, ground_reflection=0.0, tail=False)
FAINT = {"self_noise_db_spl": -40.0}


def shot(**changed) -> SceneSource:
    table = {"kind": "muzzle_blast", "calibre": "9mm", "time_s": 0.1, "x_m": 60.0, "y_m": 80.0}
    return SceneSource.model_validate(table | changed)


def listener(**changed) -> SceneNode:
    return SceneNode(**({"id": "a", "x_m": 0, "y_m": 0, "array": "tetrahedron"} | FAINT | changed))


def scene(*sources: SceneSource, **changed) -> Scene:
    options = {"duration_s": 1.0, "street": ECHOLESS, "nodes": (listener(),)}
    return Scene(sources=sources, **(options | changed))


def heard(*sources: SceneSource, **changed) -> RenderedNode:
    return render(scene(*sources, **changed), ARRAYS).nodes[0]


def distances_m(node: RenderedNode, cue: int = 0) -> np.ndarray:
    return np.linalg.norm(node.microphones_m - node.cues[cue].place_m, axis=1)


@given(x_m=st.floats(-400, 400), y_m=st.floats(20, 400), time_s=st.floats(0, 0.5))
@settings(max_examples=25)
def test_arrivals_at_every_microphone_are_geometrys_to_less_than_a_microsecond(x_m, y_m, time_s):
    node = heard(shot(x_m=x_m, y_m=y_m, time_s=time_s), duration_s=3.0)
    wave = node.hear(0)
    speed = node.scene.atmosphere.sound_speed_m_s
    wanted = (time_s + distances_m(node) / speed) * RATE
    # The first sample that holds anything of the sound is the one after the onset, or, where
    # the sound has hardly begun there, the next.
    loud = np.abs(wave) > 1e-12 * np.abs(wave).max()
    after = int(wanted.min()) + loud.argmax(axis=0) - wanted
    assert np.all((after > -1e-6) & (after < 1.1))
    for channel in (1, 2, 3):
        apart = delay_samples(wave[:, channel], wave[:, 0])
        error_us = (apart - (wanted[channel] - wanted[0])) / RATE * 1e6
        assert abs(error_us) < 0.5


def test_a_shot_comes_as_loud_as_spreading_and_air_leave_it():
    node = heard(shot(x_m=0.0, y_m=200.0, heading_deg=90.0, peak_db_spl_1m=160.0))
    free = node.cues[0].sound.sample(distance_m=200.0, sample_rate_hz=RATE)
    free = np.pad(free, (0, 1000))
    wanted = absorb(free, 200.0, RATE, node.scene.atmosphere)
    energy_db = 10 * np.log10((node.hear(0) ** 2).sum(axis=0) / (wanted**2).sum())
    assert energy_db == pytest.approx(np.zeros(4), abs=0.05)
    peak_db = 20 * np.log10(np.abs(node.hear(0)).max() / REFERENCE_PA)
    assert 100 < peak_db < 160 - 20 * np.log10(200)


def test_the_recording_holds_the_sound_at_its_time_and_level():
    node = heard(shot(heading_deg=90.0))
    pcm = node.frames() / 2**31
    first = int(node.arrivals()[0].sample)
    # Only noise far below 0 dB SPL stands before; the capsule's vent leaves the front as it is.
    assert np.abs(pcm[: first - 50]).max() < 1e-5
    full_scale_pa = REFERENCE_PA * 10 ** (node.node.full_scale_db_spl / 20)
    assert np.abs(pcm).max() * full_scale_pa == pytest.approx(np.abs(node.hear(0)).max(), rel=0.02)


BEHIND = Wall(x1_m=-100, y1_m=-20, x2_m=100, y2_m=-20, height_m=20, reflection=0.9)


@pytest.mark.parametrize(
    ("surface", "way_m"),
    [
        ({"street": ECHOLESS.model_copy(update={"ground_reflection": 0.9})}, np.hypot(50, 8)),
        ({"walls": (BEHIND,)}, np.hypot(90, 4)),
    ],
)
def test_the_ground_and_a_wall_answer_when_and_as_loud_as_geometry_says(surface, way_m):
    one = {"nodes": (listener(array="mono", z_m=6.0),)}
    source = shot(x_m=0.0, y_m=50.0, z_m=2.0, rear_attenuation_db=0.0)
    plain = heard(source, **one).hear(0)[:, 0]
    node = heard(source, **surface, **one)
    echoed = node.hear(0)[:, 0]
    echo = echoed - np.pad(plain, (0, len(echoed) - len(plain)))
    at = (way_m - np.hypot(50, 4)) / node.scene.atmosphere.sound_speed_m_s * RATE
    assert np.abs(echo[: int(at)]).max() < 1e-9
    assert np.abs(echo).argmax() - at < 8
    weaker = np.abs(echo).max() / np.abs(plain).max()
    assert weaker == pytest.approx(0.9 * np.hypot(50, 4) / way_m, rel=0.15)


def test_a_scattered_tail_follows_the_sound_and_dies():
    street = ECHOLESS.model_copy(update={"tail": True, "tail_db": -6.0, "tail_s": 0.4})
    dry, wet = heard(shot()).hear(0), heard(shot(), street=street).hear(0)
    np.testing.assert_allclose(wet[:200], dry[:200], atol=1e-9)
    assert np.abs(wet[2000:4000]).max() > 3 * np.abs(wet[15_000:17_000]).max()
    ratio_db = 10 * np.log10((wet[1500:] ** 2).sum() / (dry**2).sum())
    assert -14 < ratio_db < 0


@pytest.mark.parametrize(
    ("place", "azimuth_deg", "elevation_deg"),
    [
        ((0, 100, 4), 0.0, 0.0),
        ((100, 0, 4), 90.0, 0.0),
        ((0, -100, 4), 180.0, 0.0),
        ((-100, 0, 104), 270.0, 45.0),
    ],
)
def test_truth_tells_the_way_to_the_source_clockwise_from_north(place, azimuth_deg, elevation_deg):
    x_m, y_m, z_m = place
    (arrival,) = heard(shot(x_m=x_m, y_m=y_m, z_m=z_m)).arrivals()
    assert arrival.azimuth_deg == pytest.approx(azimuth_deg, abs=1e-9)
    assert arrival.elevation_deg == pytest.approx(elevation_deg, abs=1e-9)


def test_a_heading_turns_the_array_clockwise():
    straight = heard(shot()).microphones_m
    turned = heard(shot(), nodes=(listener(heading_deg=90.0),)).microphones_m
    x, y, z = (straight - [0, 0, 4]).T
    assert turned - [0, 0, 4] == pytest.approx(np.stack([y, -x, z], axis=1))


def test_truth_is_the_line_that_the_design_fixes():
    shell = SceneSource.model_validate(
        {"kind": "aerial_shell", "fuse_s": 2.0, "burst_height_m": 60.0}
        | {"time_s": 0.5, "x_m": 0.0, "y_m": 30.0, "z_m": 0.0}
    )
    start_utc = datetime(2026, 5, 1, 12, tzinfo=UTC)
    rendered = render(scene(shell, shot(), duration_s=3.0, start_utc=start_utc), ARRAYS)
    truth = json.loads(rendered.truth.model_dump_json())
    assert list(truth) == ["sources", "nodes"]
    assert list(truth["sources"][0]) == ["kind", "utc", "x_m", "y_m", "z_m", "label"]
    assert [(s["kind"], s["label"]) for s in truth["sources"]] == [
        ("lift_charge", "fireworks"),
        ("shell_burst", "fireworks"),
        ("muzzle_blast", "gunfire"),
    ]
    assert truth["sources"][1]["utc"] == "2026-05-01T12:00:02.500000000Z"
    assert truth["sources"][1]["z_m"] == 60.0
    (node,) = truth["nodes"]
    assert node["node_id"] == "a"
    keys = ["source", "utc", "sample", "azimuth_deg", "elevation_deg"]
    assert all(list(arrival) == keys for arrival in node["arrivals"])
    assert [arrival["source"] for arrival in node["arrivals"]] == [2, 0, 1]
    seconds = float(node["arrivals"][0]["utc"][17:-1])
    assert seconds == pytest.approx(node["arrivals"][0]["sample"] / RATE, abs=2e-9)


def test_what_arrives_after_the_end_is_not_in_the_truth_of_a_node():
    rendered = render(scene(shot(time_s=0.99)), ARRAYS)
    assert len(rendered.truth.sources) == 1
    assert rendered.truth.nodes[0].arrivals == ()
    assert rendered.nodes[0].frames().shape == (RATE, 4)


def test_two_runs_write_the_same_bytes(tmp_path: Path):
    noisy = scene(
        shot(), street=Street(facades=3), nodes=(listener(), listener(id="b", x_m=40.0, bits=16))
    )
    for run in ("one", "two"):
        write(render(noisy, ARRAYS), tmp_path / run)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["NODES.toml", "a.json", "a.wav", "b.json", "b.wav", "truth.json"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_further_node_or_source_changes_nothing_of_what_was_heard_before():
    street = Street(facades=0)
    alone = heard(shot(), street=street).frames()
    later = heard(shot(), shot(time_s=0.5), street=street).frames()
    beside = render(
        scene(shot(), street=street, nodes=(listener(), listener(id="b", x_m=9.0))), ARRAYS
    )
    np.testing.assert_array_equal(beside.nodes[0].frames(), alone)
    np.testing.assert_array_equal(later[:30_000], alone[:30_000])


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_files_hold_the_frames_bit_for_bit_and_say_whose_they_are(tmp_path: Path, bits):
    rendered = render(
        scene(shot(), street=Street(), nodes=(listener(bits=bits, sigma_m=0.7),)), ARRAYS
    )
    shares: list[float] = []
    write(rendered, tmp_path, shares.append)
    pcm, rate = soundfile.read(tmp_path / "a.wav", dtype="int32", always_2d=True)
    assert rate == RATE
    assert soundfile.info(tmp_path / "a.wav").subtype == f"PCM_{bits}"
    np.testing.assert_array_equal(pcm, rendered.nodes[0].frames())
    sidecar = json.loads((tmp_path / "a.json").read_text())
    assert sidecar["serial_number"] == "a"
    assert sidecar["timestamp"] == "2026-01-01T00:00:00.000000000Z"
    assert sidecar["location"] == {"x": 0.0, "y": 0.0, "z": 4.0, "sigma_m": 0.7}
    assert sidecar["array"] == "tetrahedron"
    nodes = tomllib.loads((tmp_path / "NODES.toml").read_text())["node"]
    assert nodes == [{"id": "a", "x_m": 0.0, "y_m": 0.0, "z_m": 4.0, "sigma_m": 0.7}]
    truth = json.loads((tmp_path / "truth.json").read_text())
    assert truth == json.loads(rendered.truth.model_dump_json())
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_hops_join_to_the_whole_and_none_is_longer_than_the_rest_of_memory_allows():
    node = heard(shot(), street=Street())
    hops = list(node.hops())
    assert {len(hop) for hop in hops[:-1]} == {HOP_FRAMES}
    np.testing.assert_array_equal(np.concatenate(hops), node.frames())


def test_microphones_may_stand_in_the_scene_itself():
    node = heard(shot(), nodes=(listener(array=None, microphones_m=((0, 0, 0), (0.5, 0, 0))),))
    assert node.channels == 2
    assert distances_m(node)[0] - distances_m(node)[1] == pytest.approx(0.3, abs=0.01)


def test_an_array_that_nobody_knows_is_named_beside_those_that_are_known():
    with pytest.raises(SceneError, match="a: array 'ring' is not known; known are mono, tetra"):
        render(scene(nodes=(listener(array="ring"),)), ARRAYS)


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(SceneError, match=r"taken: cannot be written: File exists"):
        write(render(scene(), ARRAYS), tmp_path / "taken")


def test_a_full_disk_is_named(tmp_path: Path):
    (tmp_path / "a.wav").symlink_to("/dev/full")
    with pytest.raises(SceneError, match=r"a\.wav: cannot be written: "):
        write(render(scene(street=Street(), duration_s=5.0), ARRAYS), tmp_path)
