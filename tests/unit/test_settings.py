"""Settings: what is wrong is named, with where it stands and what is allowed."""

import errno
import os
from pathlib import Path

import pytest

from node.errors import SettingsError
from node.settings import CaptureSettings, Settings, load, load_board


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "node.toml"
    file.write_text(text)
    return file


def test_without_a_file_or_environment_every_setting_has_a_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.settings.DEFAULT_FILE", tmp_path / "none.toml")
    loaded = load(None, {})
    assert loaded.origins == {}
    assert loaded.settings.capture.sample_rate_hz == 48000


def test_the_environment_stands_above_the_file_and_each_origin_is_kept(tmp_path: Path) -> None:
    file = written(tmp_path, '[node]\nid = "roof-1"\nsite = "here"\n')
    loaded = load(file, {"GUNFIRE_NODE__NODE__SITE": "there", "HOME": "/root"})
    assert (loaded.settings.node.id, loaded.settings.node.site) == ("roof-1", "there")
    assert loaded.origins == {"node.id": str(file), "node.site": "GUNFIRE_NODE__NODE__SITE"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[capture]\nsample_rate = 48000", "capture.sample_rate: no such setting; did you mean"),
        ('[capture]\nchannels = "4"', 'capture.channels = "4": input should be a valid integer'),
        ("[capture]\nchannels = true", "capture.channels = true: input should be a valid integer"),
        ("[capture]\nsample_rate_hz = 48", "greater than or equal to 16000"),
        ("[capture]\nbits = 20", "capture.bits = 20: input should be 16, 24 or 32"),
        ("[detect]\nthreshold_db = nan", "detect.threshold_db"),
        ("[detect]\ngap_s = inf", "detect.gap_s"),
        ('[node]\nid = "a/b"', "one level of an MQTT topic"),
        ('[mqtt]\nurl = "http://x"', "must start with mqtt:// or mqtts://"),
        ('[mqtt]\nurl = "mqtt://x:99999"', "mqtt.url"),
        ("[node.position]\nlat_deg = 1.0", "node.position.lon_deg: is missing"),
        ("[sensors]\na = 1", "sensors: no such setting; there are node, capture"),
        ("mqtt = 1", "mqtt: is a section; write [mqtt] in single brackets"),
        ('[node]\n"a\\nb" = 1', 'node."a\\nb": no such setting'),
        ('[""]', '"": no such setting'),
        (f"a{'.a' * 400} = 1", "is nested too deep"),
        ("channels = ", "is not TOML"),
        ("x = " + "[" * 5000, "is not TOML"),
        ("x = " + "9" * 5000, "is not TOML"),
        ('[outbox]\npath = ""', "is not the name of a file"),
        ('[classify]\nmodel = "a\\u0000b"', "is not the name of a file"),
        ('[mqtt]\nurl = "mqtt://host/path"', "must end with host or host:port"),
        ('[mqtt]\nurl = "mqtt://host"\nca_file = "ca.pem"', "write mqtts://"),
        ('[timing]\ngpsd = "localhost"', 'timing.gpsd = "localhost": must be host:port, such as'),
        ('[timing]\ngpsd = ":2947"', "must be host:port"),
        ('[timing]\ngpsd = "localhost:0"', "must be host:port"),
        ("[timing]\npps_channel = 8", "timing.pps_channel = 8: input should be less than or equal"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(
    tmp_path: Path, text: str, sentence: str
) -> None:
    file = written(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load(file, {})
    assert sentence in str(caught.value)
    assert str(caught.value).startswith(str(file))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "[timing]\npps_channel = 4",
            "timing.pps_channel names channel 4, but capture.channels = 4; they count from 0",
        ),
        (
            "[capture]\nchannels = 2\nsilent_channels = [0, 2]",
            "capture.silent_channels names channel 2, but capture.channels = 2; they count from 0",
        ),
        (
            "[capture]\nsilent_channels = [2, 3]\n[timing]\npps_channel = 3",
            "timing.pps_channel = 3 is among capture.silent_channels too; a channel that carries "
            "the pulse is not silent",
        ),
        (
            "[capture]\nchannels = 3\nsilent_channels = [0, 1]\n[timing]\npps_channel = 2",
            "capture.channels = 3, of which timing.pps_channel and capture.silent_channels leave "
            "none for a microphone",
        ),
    ],
)
def test_channels_that_do_not_go_together_are_named_in_one_sentence(
    tmp_path: Path, text: str, sentence: str
) -> None:
    file = written(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load(file, {})
    assert str(caught.value) == f"{file}: {sentence}"


def test_what_does_not_go_together_names_each_place_that_set_it(tmp_path: Path) -> None:
    file = written(tmp_path, '[capture]\nchannels = 2\n[mqtt]\nurl = "mqtt://me:secret@host"\n')
    variable = "GUNFIRE_NODE__TIMING__PPS_CHANNEL"
    with pytest.raises(SettingsError) as caught:
        load(file, {variable: "2"})
    assert str(caught.value) == (
        f"{file} and {variable}: timing.pps_channel names channel 2, but capture.channels = 2; "
        "they count from 0"
    )


@pytest.mark.parametrize(
    ("silent", "pulse", "microphones"),
    [
        ((), None, (0, 1, 2, 3, 4, 5)),
        ((), 4, (0, 1, 2, 3, 5)),
        ((), 0, (1, 2, 3, 4, 5)),
        ((4, 5), None, (0, 1, 2, 3)),
        ((5, 0), 2, (1, 3, 4)),
    ],
)
def test_microphones_are_the_channels_that_nothing_else_is_on_in_the_cards_order(
    silent: tuple[int, ...], pulse: int | None, microphones: tuple[int, ...]
) -> None:
    capture = CaptureSettings(channels=6, silent_channels=silent)
    assert capture.microphones(pulse) == microphones


def test_every_wrong_setting_gets_a_line_of_its_own(tmp_path: Path) -> None:
    file = written(tmp_path, "[capture]\nchannels = 0\nbits = 8\nfoo = 1\n")
    with pytest.raises(SettingsError) as caught:
        load(file, {})
    assert len(str(caught.value).splitlines()) == 3


def test_a_missing_or_binary_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot be read: No such file.*; name the file"):
        load(tmp_path / "none.toml", {})
    with pytest.raises(SettingsError, match="cannot be read: Is a directory; name the file"):
        load(tmp_path, {})
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="not UTF-8"):
        load(binary, {})


def test_a_file_that_may_hold_a_password_is_not_to_be_opened_to_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    file = written(tmp_path, "")
    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(SettingsError, match="cannot be read: Permission denied") as caught:
        load(file, {})
    said = f"`sudo chgrp gunfire-node {file} && sudo chmod 640 {file}`"
    assert said in str(caught.value)


def test_a_byte_order_mark_before_the_first_line_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text("[board]\nled_pin = 5\n", encoding="utf-8-sig")
    assert load(file, {}).settings.board.led_pin == 5
    assert load_board(file).led_pin == 5


def test_a_misspelt_variable_of_the_environment_is_refused_by_its_name() -> None:
    with pytest.raises(SettingsError, match=r"GUNFIRE_NODE__CAPTURE__DEVICES: capture\.devices"):
        load(None, {"GUNFIRE_NODE__CAPTURE__DEVICES": "x"})


def test_a_table_in_a_variable_is_told_as_the_origin_of_what_is_in_it() -> None:
    variable = "GUNFIRE_NODE__NODE__POSITION"
    place = "{lat_deg = 1.0, lon_deg = 2.0, alt_m = 3.0, sigma_m = 4.0}"
    loaded = load(None, {variable: place})
    assert loaded.origins["node.position.lat_deg"] == variable
    with pytest.raises(SettingsError, match=rf"{variable}: node\.position\.alt_m: is missing"):
        load(None, {variable: "{lat_deg = 1.0, lon_deg = 2.0, sigma_m = 4.0}"})


def test_a_password_is_never_repeated(tmp_path: Path) -> None:
    file = written(tmp_path, '[mqtt]\nurl = "mqtt://me:secret@host:99999"\n')
    with pytest.raises(SettingsError) as caught:
        load(file, {})
    assert "secret" not in str(caught.value)


def test_every_setting_has_a_sentence() -> None:
    schema = Settings.model_json_schema()
    for name, section in schema["$defs"].items():
        for key, field in section["properties"].items():
            assert field.get("description", "").endswith("."), f"{name}.{key}"


@pytest.mark.parametrize(
    "text",
    [
        'mqtt.url = "mqtt://user:pa/secret@host"',
        'mqtt.url = "mqtt://user:pa@secret@host:99999"',
        'mqtt.url = "mqtt://user:pa\\"secret@host:0"',
        'mqtt.url = "mqtt://user:pa secret@host"',
        '"mqtt://user:secret@host" = 1',
        'mqtt.url = "user:secret@host"',
        'mqtt.url = "mqtt:/user:secret@host"',
        'mqtt.urls = ["mqtt://a", "me:pa//secret@host"]',
        'mqtt.url = "mqtt://user:secret#more@host"',
        'mqtt.url = "mqtt://user:secret"',
        'mqtt.url = "mqtts://user:secret@bro℀ker:8883"',
        'mqtt = "secret"',
        '[[mqtt]]\nurl = "secret"',
        'node.id = "-----BEGIN PRIVATE KEY-----secret"',
        'node.id = {password = "secret"}',
    ],
)
def test_no_error_repeats_a_password_wherever_it_stands(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(written(tmp_path, text), {})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["mqtt://broker.local:0", "mqtt://[::1]:0", "http://a/b"])
def test_what_holds_no_password_is_repeated(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(written(tmp_path, f'mqtt.url = "{text}"'), {})
    assert f'"{text}"' in str(caught.value)


@pytest.mark.parametrize("name", ["integrity.key_file", "mqtt.cert_file", "classify.model"])
def test_the_outbox_takes_no_file_of_another_use(tmp_path: Path, name: str) -> None:
    (tmp_path / "other").symlink_to("one")
    text = f'outbox.path = "{tmp_path}/x/../one"\n{name} = "{tmp_path}/other"\n'
    with pytest.raises(SettingsError, match=rf"outbox\.path and {name} are one file"):
        load(written(tmp_path, text + 'mqtt.url = "mqtts://a"'), {})


def test_a_variable_named_by_a_password_does_not_repeat_it() -> None:
    for end in ("", "__X"):
        with pytest.raises(SettingsError) as caught:
            load(None, {f"GUNFIRE_NODE__MQTT//u:secret@h{end}": "1", "GUNFIRE_NODE__MQTT": "1"})
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", [f"a{'.a' * 5000} = 1", f"[node]\nheight_m = 0x{'f' * 5000}"])
def test_what_nests_or_counts_without_end_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="too"):
        load(written(tmp_path, text), {})
