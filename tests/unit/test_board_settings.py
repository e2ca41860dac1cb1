"""Settings of the board: two things on one pin, or a pin that the node hears by, are refused."""

from pathlib import Path

import pytest

from node.errors import SettingsError
from node.settings import BoardSettings, load, load_board


def loaded(tmp_path: Path, text: str) -> object:
    file = tmp_path / "node.toml"
    file.write_text(f"[board]\n{text}\n")
    return load(file, {}).settings.board


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("led_pin = 27", "board.led_pin and board.button_pin are both 27"),
        ("tamper_pin = 17", "board.led_pin and board.tamper_pin are both 17"),
        ("led_pin = 18", "GPIO 18 is for the sound (I2S) of a sound hat"),
        ("button_pin = 21", "GPIO 21 is for the sound (I2S) of a sound hat"),
        ("tamper_pin = 15", "GPIO 15 is for the receiver's serial line"),
        ("tamper_pin = 2", "GPIO 2 is for I2C"),
        ("led_pin = 28", "less than or equal to 27"),
        ('led_pin = "17"', "should be a valid integer"),
        ("hot_c = 20\ncold_c = 20", "board.cold_c = 20 is not below board.hot_c = 20"),
        ('thermometer_id = "10-000803624bd1"', "should match pattern"),
    ],
)
def test_what_would_not_work_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as raised:
        loaded(tmp_path, text)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    "text", ["", "led_pin = 27\nbutton_pin = 17", "led_pin = 4", "tamper_pin = 0"]
)
def test_what_may_work_is_taken(tmp_path: Path, text: str) -> None:
    # The kernel does not give the pulse's pin away; where it is not used, it is as good as others.
    assert loaded(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "led_pin"),
    [
        ("[board]\nled_pin = 5\n", 5),
        ("[mqtt]\nurl = nonsense\n[board] # the light\nled_pin = 5\n[node]\nid = 7\n", 5),
        ("[board]\nled_pin = 5\n[board.more]\n", 5),
        ("[ board ]\nled_pin = 5\n[node]\nid = \n", 5),
        ('["board"]\nled_pin = 5\n[node]\nid = \n', 5),
        ("board.led_pin = 5\n[node]\nid = 7\n", 5),
        ("board.led_pin = 5\n[node]\nid = \n", 5),
        ("board = {led_pin = 5}\n[node]\nid = \n[x]\nboard.led_pin = 6\n", 5),
        ("[node]\nid = 7\n[capture]\nboard = {led_pin = 5}\n", 17),
        ("board = 7\n", 17),
        ("[board]\nled_pin = 18\n", 17),
        ("[board]\nled_pin = \n", 17),
        ("[board]\n\x00\n", 17),
    ],
)
def test_the_light_is_known_though_the_file_is_wrong_elsewhere(
    tmp_path: Path, text: str, led_pin: int
) -> None:
    file = tmp_path / "node.toml"
    file.write_text(text)
    assert load_board(file).led_pin == led_pin


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_the_light_is_known_in_a_file_that_notepad_saved_as_unicode(
    tmp_path: Path, encoding: str
) -> None:
    file = tmp_path / "node.toml"
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    file.write_bytes((mark + "[board]\r\nled_pin = 5\r\n").encode(encoding))
    assert load_board(file).led_pin == 5


def test_bytes_that_are_no_text_and_a_file_that_is_not_there_stop_no_light(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_bytes(b"[node]\nid = '\xff\xfe'\n[board]\nled_pin = 5\nenabled = true\n")
    assert load_board(file).enabled
    assert load_board(file).led_pin == 5
    assert load_board(tmp_path / "none.toml") == BoardSettings()
