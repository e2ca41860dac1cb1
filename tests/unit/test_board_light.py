"""The light: every code is told from every other by counting, and none is shown that is not so."""

import itertools
import time
from collections.abc import Iterator

import pytest
from gpiozero import LED, Device
from gpiozero.pins.mock import MockFactory, MockPin
from hypothesis import given
from hypothesis import strategies as st

from node.board import light
from node.board.light import Beat, Code, Light, gravest, pattern

FAULTS = tuple(code for code in Code if code.is_fault)
SLACK_S = 0.15  # of a thread on a busy machine

# What each number means is printed, learnt and painted on enclosures: it never changes.
NUMBERS = {
    (1, 1): "NO_PULSE",
    (1, 2): "NO_BROKER",
    (1, 3): "CLOCK",
    (1, 4): "RECEIVER",
    (1, 5): "MICROPHONE",
    (1, 6): "BOARD",
    (1, 7): "STORE",
    (2, 1): "SOUND_CARD",
    (2, 2): "MICROPHONES",
    (2, 3): "SETTINGS",
    (2, 4): "MODEL",
    (2, 5): "KEY",
    (2, 6): "DISK",
}


def counted(beats: list[Beat], quicker: float = 1) -> tuple[int, int] | None:
    """Count as a person does: from a pause to the next, long flashes and short ones."""
    beats = [Beat(beat.on, beat.seconds * quicker) for beat in beats]
    groups = [
        [beat.seconds for beat in group if beat.on]
        for dark, group in itertools.groupby(beats, lambda beat: not beat.on and beat.seconds > 1.6)
        if not dark
    ]
    whole = groups[1:-1]  # the first and last may have begun before, or not have ended
    if not whole:
        return None
    flashes = whole[0]
    return sum(s > 0.7 for s in flashes), sum(s < 0.5 for s in flashes)


def test_the_numbers_of_faults_never_change() -> None:
    assert {(code.long, code.short): code.name for code in FAULTS} == NUMBERS


@given(code=st.sampled_from(FAULTS), begin=st.integers(0, 30), late_s=st.data())
def test_a_fault_is_counted_right_whenever_one_begins_to_look(
    code: Code, begin: int, late_s: st.DataObject
) -> None:
    beats = itertools.islice(itertools.cycle(pattern(code)), begin, begin + 60)
    seen = [
        Beat(beat.on, beat.seconds + late_s.draw(st.floats(-0.1, 0.1))) for beat in beats
    ]  # late starts, and an eye that is no clock
    assert counted(seen) == (code.long, code.short)


@pytest.mark.parametrize("code", FAULTS)
def test_flashes_of_a_fault_last_long_enough_to_be_counted_by_eye(code: Code) -> None:
    beats = pattern(code)
    assert min(beat.seconds for beat in beats if beat.on) >= 0.2
    assert min(beat.seconds for beat in beats if not beat.on) >= 0.4
    assert beats[-1] == Beat(False, 2.5)


def test_no_two_codes_have_one_rhythm() -> None:
    assert len({pattern(code) for code in Code}) == len(Code)


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.HANGS])
def test_only_what_hangs_is_on_without_a_break(code: Code) -> None:
    beats = pattern(code)
    assert beats[0].on
    assert not beats[-1].on
    assert all(before.on is not after.on for before, after in itertools.pairwise(beats))


def test_what_does_not_hear_goes_before_what_does_and_low_numbers_before_high() -> None:
    assert gravest(reversed(FAULTS)) is Code.SOUND_CARD
    assert gravest([Code.STORE, Code.NO_PULSE]) is Code.NO_PULSE
    assert gravest([Code.NO_PULSE, Code.DISK]) is Code.DISK
    assert gravest([Code.STARTING]) is Code.WELL


@pytest.fixture
def pin() -> Iterator[MockPin]:
    Device.pin_factory = MockFactory()
    yield Device.pin_factory.pin(17)
    Device.pin_factory.reset()
    Device.pin_factory = None


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Play faults at a fifth of their length."""
    for name in ("SHORT_S", "LONG_S", "BETWEEN_S", "AFTER_LONG_S", "PAUSE_S", "COMMA_S"):
        monkeypatch.setattr(light, name, getattr(light, name) / 5)


def played(pin: MockPin) -> list[Beat]:
    """Give what the pin has done: each state and how long it lasted, but for the last."""
    lasted = [state.timestamp for state in pin.states[1:]]
    return [Beat(s.state, seconds) for s, seconds in zip(pin.states, lasted, strict=False)]


def until(light: Light, code: Code) -> None:
    """Wait until a code is played."""
    end_s = time.monotonic() + 10
    while light.shown is not code:
        assert time.monotonic() < end_s, f"still {light.shown}"
        time.sleep(0.005)


def lit(pin: MockPin) -> list[float]:
    """Give how long each flash lasted, the last one's length too if it has ended."""
    return [beat.seconds for beat in played(pin) if beat.on]


def test_it_blinks_fast_from_its_opening_until_something_is_shown(pin: MockPin) -> None:
    shining = Light(LED(17))
    time.sleep(1.1)
    assert shining.shown is Code.STARTING
    shining.close()
    beats = played(pin)[1:-1]  # the last was cut short
    assert 5 <= len(beats) <= 9
    assert all(0.12 < beat.seconds < 0.125 + SLACK_S for beat in beats)


def test_a_fault_is_played_at_its_times(pin: MockPin) -> None:
    shining = Light(LED(17))
    shining.show(Code.NO_PULSE)
    until(shining, Code.NO_PULSE)
    time.sleep(0.05)
    begin = len(pin.states)
    time.sleep(4)
    shining.close()
    expected = [beat for beat in pattern(Code.NO_PULSE) if beat.seconds < 2]
    found = played(pin)[begin - 1 :][: len(expected)]
    assert [beat.on for beat in found] == [beat.on for beat in expected]
    for is_s, should_s in zip(found, expected, strict=True):
        assert should_s.seconds - 0.01 < is_s.seconds < should_s.seconds + SLACK_S


@pytest.mark.usefixtures("quick")
def test_showing_the_same_again_does_not_begin_anew(pin: MockPin) -> None:
    shining = Light(LED(17))
    shining.show(Code.NO_BROKER)
    until(shining, Code.NO_BROKER)
    pin.clear_states()
    for _ in range(60):
        shining.show(Code.NO_BROKER)
        time.sleep(0.05)
    shining.close()
    assert counted(played(pin), quicker=5) == (1, 2)


@pytest.mark.usefixtures("quick")
def test_a_rhythm_ends_before_the_next_begins(pin: MockPin) -> None:
    shining = Light(LED(17))
    shining.show(Code.NO_PULSE)
    until(shining, Code.NO_PULSE)
    pin.clear_states()
    shining.show(Code.WELL)
    assert shining.shown is Code.NO_PULSE
    until(shining, Code.WELL)
    shining.close()
    assert sum(lit(pin)) >= 0.25 + 0.05 - 0.03


@pytest.mark.usefixtures("quick")
def test_what_somebody_at_the_button_waits_for_cuts_in_after_a_moment_of_dark(
    pin: MockPin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(light, "LONG_S", 30.0)
    shining = Light(LED(17))
    shining.show(Code.NO_PULSE)
    until(shining, Code.NO_PULSE)
    pin.clear_states()
    shining.show(Code.SELF_TEST)
    until(shining, Code.SELF_TEST)
    time.sleep(0.3)
    shining.close()
    dark = next(beat for beat in played(pin) if not beat.on and beat.seconds > 0.01)
    assert dark.seconds == pytest.approx(0.12, abs=SLACK_S)


@pytest.mark.usefixtures("quick")
def test_a_passed_self_test_stays_though_the_next_is_shown_at_once(
    pin: MockPin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(light._PLAIN, Code.PASSED, (Beat(True, 1.0), Beat(False, 0.2)))
    shining = Light(LED(17))
    shining.show(Code.PASSED)
    until(shining, Code.PASSED)
    shining.show(Code.WELL)
    until(shining, Code.WELL)
    shining.close()
    assert max(lit(pin)) == pytest.approx(1.0, abs=SLACK_S)


@pytest.mark.usefixtures("quick")
def test_it_stays_on_when_nobody_shows_anything_any_more_and_recovers(
    pin: MockPin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(light, "HANGS_AFTER_S", 0.5)
    shining = Light(LED(17))
    begin_s = time.monotonic()
    shining.show(Code.WELL)
    until(shining, Code.HANGS)
    assert time.monotonic() - begin_s == pytest.approx(0.5, abs=SLACK_S)
    time.sleep(0.1)
    pin.clear_states()
    time.sleep(1.2)  # two rhythms
    assert [state.state for state in pin.states] == [True]  # not a flicker
    shining.show(Code.WELL)
    until(shining, Code.WELL)
    shining.close()
    dark = [beat.seconds for beat in played(pin) if not beat.on]
    assert dark[0] == pytest.approx(0.12, abs=SLACK_S)


def test_a_start_without_an_end_is_a_hang_too(
    pin: MockPin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(light, "STARTS_WITHIN_S", 0.3)
    shining = Light(LED(17))
    until(shining, Code.HANGS)
    time.sleep(0.05)
    assert pin.state
    shining.close()


def test_closed_it_is_dark_and_lets_its_pin_go(pin: MockPin) -> None:
    led = LED(17)
    shining = Light(led)
    shining.close()
    assert not shining.alive
    assert led.closed
    assert (pin.function, pin.state) == ("input", False)


def test_wired_to_the_supply_it_is_lit_when_its_pin_is_low(pin: MockPin) -> None:
    shining = Light(LED(17, active_high=False, initial_value=False))
    time.sleep(0.06)
    assert not pin.state
    shining.close()
