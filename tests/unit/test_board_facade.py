"""The board: what is fitted is told, what cannot be opened is a sentence, and nothing raises."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpiozero import LED, Device
from gpiozero.pins.mock import MockFactory

from node.board import Board, ButtonReading, Code, PowerReading
from node.settings import BoardSettings

ALL = BoardSettings(enabled=True, tamper_pin=22)


@pytest.fixture
def mock_pins() -> Iterator[MockFactory]:
    Device.pin_factory = MockFactory()
    yield Device.pin_factory
    Device.pin_factory.reset()
    Device.pin_factory = None


@pytest.mark.usefixtures("mock_pins")
def test_a_board_tells_all_that_is_fitted(tmp_path: Path) -> None:
    with Board(ALL, sys_root=tmp_path) as board:
        reading = board.reading()
    assert reading.light is Code.STARTING
    assert reading.button == ButtonReading(pressed=False, stuck=False, maintenance_left_s=None)
    assert reading.tamper is not None
    assert reading.tamper.open  # nothing is wired to a mock pin
    assert (reading.enclosure_c, reading.soc_c) == (None, None)
    assert reading.power == PowerReading(None, None)
    assert reading.trouble == ()


def test_what_is_shown_is_lit_and_a_press_is_taken_once(mock_pins: MockFactory) -> None:
    with Board(ALL) as board:
        board.show(Code.MAINTENANCE)
        time.sleep(0.9)
        assert board.reading().light is Code.MAINTENANCE
        assert mock_pins.pin(17).state
        mock_pins.pin(27).drive_low()
        time.sleep(0.1)
        assert board.reading().button.pressed
        mock_pins.pin(27).drive_high()
        time.sleep(0.1)
        assert board.take_self_test()
        assert not board.take_self_test()
    assert not mock_pins.pin(17).state


def test_after_its_end_every_pin_is_free(mock_pins: MockFactory) -> None:
    with Board(ALL):
        pass
    with Board(ALL) as board:
        assert board.reading().trouble == ()
    assert mock_pins.pin(17).function == "input"


@pytest.mark.usefixtures("mock_pins")
def test_a_pin_that_cannot_be_opened_stops_none_of_the_others() -> None:
    with LED(17), Board(ALL) as board:
        board.show(Code.WELL)
        reading = board.reading()
        assert reading.light is None
        assert reading.button is not None
        (sentence,) = reading.trouble
        assert "GPIO 17 (board.led_pin)" in sentence


def test_one_reason_for_all_pins_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "nonsense")
    with Board(ALL) as board:
        board.show(Code.WELL)
        assert not board.take_self_test()
        reading = board.reading()
    assert (reading.light, reading.button, reading.tamper) == (None, None, None)
    assert len(reading.trouble) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_light_that_fails_is_told(mock_pins: MockFactory) -> None:
    with Board(ALL) as board:
        mock_pins.pin(17).function = "input"  # writing to it raises now
        give_up_s = time.monotonic() + 30
        while (reading := board.reading()).light is not None and time.monotonic() < give_up_s:
            time.sleep(0.05)
        mock_pins.pin(17).function = "output"
    assert reading.light is None
    assert "GPIO 17" in reading.trouble[0]


def test_without_a_board_gpiozero_is_never_imported(tmp_path: Path) -> None:
    warmth = tmp_path / "class/thermal/thermal_zone0/temp"
    warmth.parent.mkdir(parents=True)
    warmth.write_text("61000")
    program = f"""
import sys
from pathlib import Path
from node.board import Board, Code
from node.settings import BoardSettings
with Board(BoardSettings(), sys_root=Path({str(tmp_path)!r})) as board:
    board.show(Code.WELL)
    assert not board.take_self_test()
    reading = board.reading()
assert (reading.light, reading.button, reading.tamper) == (None, None, None)
assert reading.soc_c == 61 and reading.trouble == ()
assert "gpiozero" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
