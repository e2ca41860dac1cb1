"""The tamper switch: an opened lid, or a cut wire, is told for a day after it was shut."""

from collections.abc import Iterator

import pytest
from gpiozero import Device
from gpiozero.pins.mock import MockFactory, MockPin

from node.board.pins import Contact
from node.board.tamper import LATCHED_S, Tamper, TamperReading


class Bench:
    """A switch on a mock pin, with a clock that is set by hand."""

    def __init__(self, shut: bool = True) -> None:
        Device.pin_factory = MockFactory()
        self.now_s = 50.0
        self._pin: MockPin = Device.pin_factory.pin(22)
        if shut:
            # The pin is pulled up as it is opened: only a shut switch holds it down.
            self._pin._set_pull = lambda _: self._pin.drive_low()
        self._tamper = Tamper(Contact(22, "tamper_pin", lambda: self.now_s))

    def open(self, seconds: float) -> None:
        self._pin.drive_high()
        self.now_s += seconds

    def shut(self, seconds: float) -> None:
        self._pin.drive_low()
        self.now_s += seconds

    def reading(self) -> TamperReading:
        return self._tamper.reading(self.now_s)


@pytest.fixture(autouse=True)
def _no_pins_left_behind() -> Iterator[None]:
    yield
    Device.pin_factory = None


def test_a_shut_lid_says_nothing() -> None:
    assert Bench().reading() == TamperReading(False, 0, latched=False)


def test_an_open_lid_says_since_when() -> None:
    bench = Bench()
    bench.open(20)
    assert bench.reading() == TamperReading(True, 1, latched=True)


def test_it_is_told_for_a_day_after_it_was_shut_though_nobody_polled_meanwhile() -> None:
    bench = Bench()
    bench.open(20)
    bench.shut(60)
    assert bench.reading() == TamperReading(False, 1, latched=True)
    bench.shut(LATCHED_S - 61)
    assert bench.reading().latched
    bench.shut(2)
    assert bench.reading() == TamperReading(False, 1, latched=False)


def test_every_opening_is_counted_but_no_bounce_is() -> None:
    bench = Bench()
    for _ in range(3):
        bench.open(0.01)
        bench.shut(0.01)
        bench.open(5)
        bench.shut(5)
    assert bench.reading().count == 3


def test_a_lid_that_is_open_at_the_start_counts() -> None:
    bench = Bench(shut=False)
    bench.open(7)
    assert bench.reading() == TamperReading(True, 1, latched=True)
    bench.shut(5)
    assert bench.reading() == TamperReading(False, 1, latched=True)
