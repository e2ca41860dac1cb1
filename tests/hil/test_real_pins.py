"""Light and button on the pins of a real Pi.

Wire first:

    GPIO 17 (pin 11) ── 1 kΩ ── GPIO 27 (pin 13)

and nothing else on either: no LED, no button. The light's pin then presses the button. Name the
pins, on a Pi with lgpio, as somebody in the group gpio:

    GUNFIRE_LED_PIN=17 GUNFIRE_BUTTON_PIN=27 .venv/bin/pytest tests/hil/test_real_pins.py

With GPIOZERO_PIN_FACTORY=mock besides, the test itself is tried, on gpiozero's mock of that wire.
Not yet tried on hardware.
"""

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gpiozero import Device
from gpiozero.pins.mock import MockConnectedPin, MockFactory

from node.board import Board
from node.board.button import Button
from node.board.light import Code, Light, pattern
from node.board.pins import Contact, open_led
from node.settings import BoardSettings

MOCK = os.environ.get("GPIOZERO_PIN_FACTORY") == "mock"
LED_PIN = int(os.environ.get("GUNFIRE_LED_PIN", "-1"))
BUTTON_PIN = int(os.environ.get("GUNFIRE_BUTTON_PIN", "-1"))

pytestmark = pytest.mark.skipif(
    LED_PIN < 0 or BUTTON_PIN < 0,
    reason="no pins: wire them as this file says, and set GUNFIRE_LED_PIN and GUNFIRE_BUTTON_PIN",
)


@pytest.fixture(autouse=True)
def _wire() -> Iterator[None]:
    if MOCK:
        Device.pin_factory = factory = MockFactory()
        factory.pin(LED_PIN, pin_class=MockConnectedPin, input_pin=factory.pin(BUTTON_PIN))
    yield
    if MOCK:
        Device.pin_factory = None


def test_nothing_is_left_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    open_led(LED_PIN, True).close()
    assert list(tmp_path.iterdir()) == []


def test_the_wire_is_there() -> None:
    contact = Contact(BUTTON_PIN, "button_pin")
    led = open_led(LED_PIN, True)
    for high in (True, False, True, False):
        (led.on if high else led.off)()
        time.sleep(0.1)
        contact.changes(time.monotonic())
        time.sleep(0.1)
        contact.changes(time.monotonic())
        assert contact.closed is not high, f"is GPIO {LED_PIN} wired to GPIO {BUTTON_PIN}?"
    led.close()
    contact.close()


def test_a_press_asks_and_a_hold_begins_maintenance() -> None:
    led = open_led(LED_PIN, True)
    led.on()
    button = Button(Contact(BUTTON_PIN, "button_pin"), hold_s=1.0, maintenance_s=60.0)
    led.off()
    time.sleep(0.2)
    led.on()
    time.sleep(0.2)
    assert button.take_self_test(time.monotonic())
    led.off()
    time.sleep(1.2)
    assert button.reading(time.monotonic()).maintenance_left_s == pytest.approx(59.8, abs=0.1)
    led.on()
    time.sleep(0.2)
    assert not button.take_self_test(time.monotonic())
    button.close()
    led.close()


def test_a_rhythm_comes_out_of_the_pin_as_it_should() -> None:
    led = open_led(LED_PIN, True)
    contact = Contact(BUTTON_PIN, "button_pin")
    light = Light(led)
    light.show(Code.NO_BROKER)
    end_s = time.monotonic() + 6
    edges = []
    while time.monotonic() < end_s:
        light.show(Code.NO_BROKER)
        time.sleep(0.1)
        edges += contact.changes(time.monotonic())
    light.close()
    contact.close()
    lit_s = [
        after.at_s - edge.at_s
        for edge, after in itertools.pairwise(edges)
        if not edge.closed and after.at_s - edge.at_s > 0.2  # without the blinking before
    ]
    expected_s = [beat.seconds for beat in pattern(Code.NO_BROKER) if beat.on]
    assert lit_s[: len(expected_s)] == pytest.approx(expected_s, abs=0.02)


@pytest.mark.skipif(MOCK, reason="a mock has no temperature")
def test_the_chip_is_warm_and_the_supply_known() -> None:
    settings = BoardSettings(enabled=True, led_pin=LED_PIN, button_pin=BUTTON_PIN)
    with Board(settings) as board:
        reading = board.reading()
    assert reading.trouble == ()
    assert reading.soc_c is not None
    assert 0 < reading.soc_c < 100
    assert reading.power.under_voltage is not None
