"""The button: a press asks, a hold begins and ends maintenance, water does neither for ever."""

from collections.abc import Iterator

import pytest
from gpiozero import Device
from gpiozero.pins.mock import MockFactory, MockPin
from hypothesis import given
from hypothesis import strategies as st

from node.board.button import STUCK_S, Button
from node.board.pins import Contact

HOLD_S = 3.0
MAINTENANCE_S = 600.0


class Bench:
    """A button on a mock pin, with a clock that is set by hand."""

    def __init__(self, pressed: bool = False) -> None:
        Device.pin_factory = MockFactory()
        self.now_s = 1000.0
        self._pin: MockPin = Device.pin_factory.pin(27)
        if pressed:
            # The pin is pulled up as it is opened: only a wire holds it down.
            self._pin._set_pull = lambda _: self._pin.drive_low()
        self._contact = Contact(27, "button_pin", lambda: self.now_s)
        self.button = Button(self._contact, HOLD_S, MAINTENANCE_S)

    def down(self, seconds: float = 0.0) -> None:
        self._pin.drive_low()
        self.now_s += seconds

    def up(self, seconds: float = 0.0) -> None:
        self._pin.drive_high()
        self.now_s += seconds

    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    def asked(self) -> bool:
        return self.button.take_self_test(self.now_s)

    def maintenance_left_s(self) -> float | None:
        return self.button.reading(self.now_s).maintenance_left_s

    def stuck(self) -> bool:
        return self.button.reading(self.now_s).stuck


@pytest.fixture(autouse=True)
def _no_pins_left_behind() -> Iterator[None]:
    yield
    Device.pin_factory = None


def test_a_short_press_asks_once_for_a_self_test() -> None:
    bench = Bench()
    bench.down(0.2)
    bench.up(1)
    assert bench.asked()
    assert not bench.asked()
    assert bench.maintenance_left_s() is None


def test_a_press_that_bounces_is_one_press() -> None:
    bench = Bench()
    for _ in range(4):
        bench.down(0.004)
        bench.up(0.003)
    bench.down(0.3)
    for _ in range(4):
        bench.up(0.004)
        bench.down(0.003)
    bench.up(1)
    assert bench.asked()
    assert not bench.asked()


def test_a_spark_is_no_press() -> None:
    bench = Bench()
    bench.down(0.02)
    bench.up(1)
    assert not bench.asked()


def test_a_hold_begins_maintenance_while_it_is_still_held() -> None:
    bench = Bench()
    bench.down(HOLD_S - 0.1)
    assert bench.maintenance_left_s() is None
    bench.wait(0.2)
    assert bench.maintenance_left_s() == pytest.approx(MAINTENANCE_S - 0.1)
    bench.wait(2)
    bench.up(1)
    assert bench.maintenance_left_s() == pytest.approx(MAINTENANCE_S - 3.1)
    assert not bench.asked()


def test_a_hold_counts_though_nobody_polled_meanwhile() -> None:
    bench = Bench()
    bench.down(4)
    bench.up(6)
    assert bench.maintenance_left_s() == pytest.approx(MAINTENANCE_S - 7)
    assert not bench.asked()


def test_maintenance_ends_by_itself() -> None:
    bench = Bench()
    bench.down(4)
    bench.up(MAINTENANCE_S)
    assert bench.maintenance_left_s() is None


def test_another_hold_ends_maintenance_and_a_third_begins_it_again() -> None:
    bench = Bench()
    bench.down(4)
    bench.up(10)
    bench.down(4)
    bench.up(1)
    assert bench.maintenance_left_s() is None
    bench.down(4)
    bench.up(1)
    assert bench.maintenance_left_s() is not None


def test_a_press_in_maintenance_asks_and_leaves_it_as_it_is() -> None:
    bench = Bench()
    bench.down(4)
    bench.up(10)
    bench.down(0.2)
    bench.up(1)
    assert bench.asked()
    assert bench.maintenance_left_s() is not None


def test_a_stuck_button_is_told_and_its_maintenance_ends_for_good() -> None:
    bench = Bench()
    bench.down(STUCK_S - 1)
    assert bench.maintenance_left_s() is not None
    assert not bench.stuck()
    bench.wait(2)
    assert bench.stuck()
    bench.wait(MAINTENANCE_S)
    assert bench.maintenance_left_s() is None
    bench.wait(10 * MAINTENANCE_S)
    assert bench.maintenance_left_s() is None
    assert bench.stuck()
    bench.up(1)
    assert not bench.stuck()
    assert not bench.asked()


def test_a_button_that_is_down_as_the_node_starts_has_to_come_up_first() -> None:
    bench = Bench(pressed=True)
    bench.wait(10)
    assert bench.maintenance_left_s() is None
    bench.up(1)
    assert not bench.asked()
    bench.down(0.2)
    bench.up(1)
    assert bench.asked()


def test_water_that_presses_for_ever_is_told_and_asks_for_nothing() -> None:
    bench = Bench()
    for _ in range(20):
        bench.down(0.3)
        bench.up(0.3)
    assert bench.stuck()
    bench.asked()
    bench.down(0.3)
    bench.up(0.3)
    assert not bench.asked()
    bench.wait(60)
    assert not bench.stuck()
    bench.down(0.3)
    bench.up(0.3)
    assert bench.asked()


STEPS = st.lists(
    st.tuples(st.sampled_from(["down", "up"]), st.floats(0.001, 900)), min_size=1, max_size=30
)


@given(steps=STEPS, polls=st.lists(st.booleans(), min_size=30, max_size=30))
def test_how_often_one_polls_changes_nothing(
    steps: list[tuple[str, float]], polls: list[bool]
) -> None:
    seldom, often = Bench(), Bench()
    asked = [False, False]
    for (what, seconds), poll in zip(steps, polls, strict=False):
        for i, bench in enumerate((seldom, often)):
            getattr(bench, what)()
            for part in (0.03, 0.3, 0.67):
                bench.wait(seconds * part)
                if bench is often and poll:
                    asked[i] |= bench.asked()
    for i, bench in enumerate((seldom, often)):
        asked[i] |= bench.asked()
    assert asked[0] == asked[1]
    assert seldom.maintenance_left_s() == pytest.approx(often.maintenance_left_s())
    assert seldom.stuck() == often.stuck()


@given(steps=STEPS)
def test_maintenance_never_lasts_longer_than_it_may(steps: list[tuple[str, float]]) -> None:
    bench = Bench()
    for what, seconds in steps:
        getattr(bench, what)(seconds)
        left_s = bench.maintenance_left_s()
        assert left_s is None or 0 < left_s < MAINTENANCE_S + 1e-6
    bench.wait(HOLD_S)
    bench.maintenance_left_s()
    bench.wait(MAINTENANCE_S)
    assert bench.maintenance_left_s() is None
