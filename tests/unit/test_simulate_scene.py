"""Scenes: what may stand in one, and what is said of what may not."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from node.errors import SceneError
from node.simulate.cast import cues, walls
from node.simulate.echoes import Wall
from node.simulate.propagation import Atmosphere
from node.simulate.scene import (
    AerialShell,
    Scene,
    SceneNode,
    SceneSource,
    Street,
    load,
    packaged,
    packaged_names,
    parse,
)
from node.simulate.sounds import (
    Backfire,
    DoorSlam,
    Firecracker,
    Hammer,
    LiftCharge,
    MuzzleBlast,
    ShellBurst,
)

NODE = '[[nodes]]\nid = "a"\nx_m = 0\ny_m = 0\narray = "mono"\n'
SHOT = '[[sources]]\nkind = "muzzle_blast"\ntime_s = 1\nx_m = 50\ny_m = 0\n'
BASE = "duration_s = 5\n"


def test_a_scene_needs_only_a_duration_and_a_node():
    scene = parse(BASE + NODE)
    assert scene.sample_rate_hz == 48_000
    assert scene.start_utc == datetime(2026, 1, 1, tzinfo=UTC)
    assert scene.nodes[0].bits == 24


def test_a_source_carries_its_kinds_parameters_in_its_own_table():
    scene = parse(BASE + NODE + SHOT + 'calibre = ".308"\n')
    assert scene.sources[0].sound.kind == "muzzle_blast"
    assert scene.sources[0].sound.calibre == ".308"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("duration_s = ", "is not TOML"),
        pytest.param("duration_s = " + "[" * 5000, "is not TOML", id="nested too deep"),
        pytest.param("duration_s = " + "9" * 5000, "is not TOML", id="too many digits"),
        (NODE, "duration_s is missing"),
        (BASE, "nodes is missing"),
        (BASE + "nodes = []\n", "nodes is [], but it should have at least 1 item"),
        ("duration_s = 0\n" + NODE, "duration_s is 0, but it should be greater than 0"),
        ("duration_s = inf\n" + NODE, "duration_s is inf, but it should be a finite number"),
        ('duration_s = "long"\n' + NODE, "duration_s is 'long', but it should be a valid number"),
        (BASE + "colour = 1\n" + NODE, "colour is not a key"),
        (BASE + NODE + "bits = 20\n", "nodes[0].bits is 20, but it should be 16, 24 or 32"),
        (BASE + NODE + "microphones_m = [[0, 0, 0]]\n", "nodes[0]: node 'a' needs either arr"),
        (BASE + NODE + NODE, "nodes: id 'a' is used 2 times"),
        (BASE + NODE.replace('"a"', '"a/b"'), "nodes[0].id: 'a/b' must be up to 64 let"),
        (BASE + NODE + SHOT.replace("muzzle_blast", "cough"), "sources[0].kind 'cough' is not kn"),
        (BASE + NODE + SHOT.replace('kind = "muzzle_blast"', ""), "sources[0].kind is missing"),
        (BASE + NODE + SHOT + 'calibre = "10mm"\n', "sources[0].calibre is '10mm', but it should"),
        (BASE + NODE + SHOT + "fuse_s = 3\n", "sources[0].fuse_s is not a key"),
        (BASE + NODE + SHOT + "z_m = -1\n", "sources[0].z_m is -1, but it should be greater"),
        (BASE + NODE + SHOT.replace("= 1\n", "= 5\n"), "sources[0].time_s is 5, but the scene en"),
        (BASE + NODE + "[atmosphere]\ntemperature_c = 80\n", "atmosphere.temperature_c is 80, but"),
        (
            "start_utc = 2026-01-01T00:00:00\n" + BASE + NODE,
            "start_utc is 2026-01-01T00:00:00, but it",
        ),
        ("start_utc = 3\n" + BASE + NODE, "start_utc is 3, but it should be a time such as 20"),
        (BASE + "walls = 3\n" + NODE, "walls is 3, but it should be a list"),
        (BASE + NODE + "[[walls]]\nx1_m = 1\ny1_m = 1\nx2_m = 1\ny2_m = 1\n", "walls[0]: ends wh"),
    ],
)
def test_what_is_wrong_is_named_on_one_line_with_what_is_allowed(text, said):
    with pytest.raises(SceneError) as error:
        parse(text, "scene.toml")
    assert str(error.value).startswith(f"scene.toml: {said}")
    assert "\n" not in str(error.value)


def test_two_mistakes_are_counted():
    with pytest.raises(SceneError, match=r"colour is not a key .* \(and 1 more\)"):
        parse("colour = 1\nsound = 2\n" + BASE + NODE)


def test_a_scene_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(SceneError, match=r"none\.toml: cannot be read: No such file"):
        load(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b'name = "stra\xdfe"')
    with pytest.raises(SceneError, match=r"latin\.toml: is not UTF-8"):
        load(tmp_path / "latin.toml")
    (tmp_path / "good.toml").write_text(BASE + NODE)
    assert isinstance(load(tmp_path / "good.toml"), Scene)


def test_scenes_come_with_the_package():
    assert set(packaged_names()) >= {"street", "city"}
    assert packaged("street").name == "street"
    with pytest.raises(SceneError, match="no scene 'moon' comes with the package; city, street do"):
        packaged("moon")


def test_the_demos_street_holds_shots_and_what_is_taken_for_them_apart_in_time():
    scene = packaged("street")
    settled = cues(scene)
    kinds = [cue.sound.kind for cue in settled]
    assert kinds.count("muzzle_blast") == 3
    assert {"lift_charge", "shell_burst", "firecracker", "backfire"} <= set(kinds)
    calibres = [s.sound.calibre for s in scene.sources if s.sound.kind == "muzzle_blast"]
    assert len(set(calibres)) == 3
    shots_m = [np.linalg.norm(c.place_m) for c in settled if c.sound.kind == "muzzle_blast"]
    assert all(55 < distance < 300 for distance in shots_m)
    heard_s = [c.time_s + np.linalg.norm(c.place_m - [0, 0, 6]) / 339 for c in settled]
    assert np.diff(heard_s).min() >= 2.5


def test_the_blast_of_a_larger_shell_lasts_longer():
    shell = '[[sources]]\nkind = "aerial_shell"\ntime_s = 1\nx_m = 50\ny_m = 9\nz_m = 0\n'
    for seed in range(10):
        text = f"seed = {seed}\n" + BASE + NODE + shell
        small = cues(parse(text + "diameter_mm = 60\n"))[1].sound.pulses[0][1]
        large = cues(parse(text + "diameter_mm = 120\n"))[1].sound.pulses[0][1]
        assert large.positive_phase_s == pytest.approx(2 * small.positive_phase_s)


def test_a_shell_thumps_on_the_ground_and_bursts_above_by_its_fuse():
    shell = '[[sources]]\nkind = "aerial_shell"\ntime_s = 1\nx_m = 50\ny_m = 9\nz_m = 0\n'
    lift, burst = cues(parse(BASE + NODE + shell + "fuse_s = 2.5\nburst_height_m = 80\n"))
    assert (lift.sound.kind, burst.sound.kind) == ("lift_charge", "shell_burst")
    assert burst.time_s - lift.time_s == 2.5
    np.testing.assert_array_equal(burst.place_m - lift.place_m, [0, 0, 80])
    for seed in range(20):
        lift, burst = cues(parse(f"seed = {seed}\n" + BASE + NODE + shell))
        assert 2.0 <= burst.time_s - lift.time_s <= 4.0


def test_a_new_source_changes_nothing_of_those_before_it():
    one = cues(parse(BASE + NODE + SHOT))
    two = cues(parse(BASE + NODE + SHOT + SHOT))
    assert one[0].sound == two[0].sound
    assert two[1].sound != two[0].sound


def test_facades_at_random_join_the_walls():
    text = BASE + "[street]\nfacades = 4\n[[walls]]\nx1_m = 0\ny1_m = 9\nx2_m = 9\ny2_m = 9\n"
    assert len(walls(parse(text + NODE))) == 5
    assert walls(parse(text + NODE)) == walls(parse(text + NODE))


def test_the_page_on_scenes_tells_every_key_and_its_default():
    page = (Path(__file__).parents[2] / "docs/look-up/scenes.md").read_text(encoding="utf-8")
    models = [Scene, Atmosphere, Street, Wall, SceneSource, SceneNode, AerialShell]
    models += [MuzzleBlast, ShellBurst, LiftCharge, Firecracker, Backfire, DoorSlam, Hammer]
    for model in models:
        for key, field in model.model_fields.items():
            if key in ("kind", "sound"):
                continue
            rows = [row for row in page.splitlines() if row.startswith(f"| `{key}` |")]
            assert any(field.description in row.replace("µs", "us") for row in rows), key
            if isinstance(field.default, float | int) and not isinstance(field.default, bool):
                assert any(f"`{field.default}`" in row for row in rows), key
