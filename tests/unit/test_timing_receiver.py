"""What a receiver says, and when it is not to be believed."""

from typing import Any

import pytest

from node.examine import is_young, receiver_finding
from node.timing.leap import LeapTable
from node.timing.receiver import Receiver, ReceiverState
from node.types import NS_PER_S
from node.utc import parse_utc_ns, utc_text

START = parse_utc_ns("2026-05-01T12:00:00Z")
WEEKS_NS = 1024 * 7 * 86_400 * NS_PER_S
LAT, LON = 47.85, 106.2
METRE_DEG = 1 / 111_195


def fix(utc_ns: int, **changes: Any) -> dict[str, Any]:
    return {
        "class": "TPV",
        "mode": 3,
        "time": utc_text(utc_ns),
        "lat": LAT,
        "lon": LON,
        "altHAE": 1310.0,
        "epx": 4.0,
        "epy": 5.0,
        "epv": 9.0,
        **changes,
    }


class Played:
    """A receiver that has been fed one report a second, 0.12 s after each second."""

    def __init__(self) -> None:
        self.receiver = Receiver(LeapTable())
        self.second = 0
        self.valid: list[bool] = []

    def play(
        self, seconds: int, *, off_ns: int = 0, host: bool = False, **changes: Any
    ) -> ReceiverState:
        for _ in range(seconds):
            now_ns = self.second * NS_PER_S + 120_000_000
            utc_ns = START + self.second * NS_PER_S
            host_utc_ns = utc_ns + 120_000_000 if host else None
            report = fix(utc_ns + off_ns, **changes)
            reading = self.receiver.take(report, now_ns, host_utc_ns)
            self.valid.append(reading is not None and reading.valid)
            self.second += 1
        return self.receiver.state((self.second - 1) * NS_PER_S + 130_000_000)


def test_it_is_valid_once_it_runs_steadily_with_the_leap_seconds_of_the_table() -> None:
    played = Played()
    state = played.play(10, leapseconds=18)
    assert played.valid == [False] * 5 + [True] * 5
    assert state.utc_valid
    assert state.reason == ""
    assert state.fix == 3


@pytest.mark.parametrize("wrong", [0, 15, 17, 19])
def test_a_cold_receiver_with_a_wrong_leap_count_is_not_valid(wrong: int) -> None:
    played = Played()
    state = played.play(700, off_ns=(18 - wrong) * NS_PER_S, leapseconds=wrong)
    assert not any(played.valid)
    assert f"it has {wrong} leap seconds, not 18" in state.reason
    # It hears the right ones: its time jumps, and it is valid when it has run steadily since.
    played.valid.clear()
    assert played.play(10, leapseconds=18).utc_valid
    assert played.valid[:5] == [False] * 5


@pytest.mark.parametrize("off_s", [-1, 1])
def test_a_time_that_jumps_once_it_was_believed_is_told_until_it_is_believed_again(
    off_s: int,
) -> None:
    played = Played()
    assert played.play(20, host=True).utc_valid
    state = played.play(10, off_ns=off_s * NS_PER_S, host=True)
    assert not state.utc_valid
    assert f"its time has jumped by {off_s:+d} s" in state.reason
    assert receiver_finding(state).verdict == "warn"
    state = played.play(10, host=True)
    assert state.utc_valid


def test_a_cold_receiver_s_jump_is_no_more_than_that_it_is_young() -> None:
    played = Played()
    played.play(100, off_ns=2 * NS_PER_S)
    state = played.play(10)
    assert is_young(state)
    assert receiver_finding(state).verdict == "pass"


def test_nmea_alone_is_valid_after_the_almanac_has_passed_or_where_the_network_agrees() -> None:
    alone = Played()
    alone.play(745)
    assert not any(alone.valid)
    assert alone.play(20).utc_valid
    assert Played().play(10, host=True).utc_valid
    wrong = Played()
    wrong.play(100, host=True, off_ns=-3 * NS_PER_S)
    assert not any(wrong.valid)


def test_a_silence_is_no_time_in_which_it_heard_the_leap_seconds() -> None:
    played = Played()
    played.play(20)
    played.second += 780
    played.play(60)
    assert not any(played.valid)
    # Nor does it forget what it had heard by then.
    played.play(700)
    assert played.valid[-1]


def test_a_jump_begins_the_wait_for_the_almanac_anew() -> None:
    played = Played()
    played.play(800)
    played.valid.clear()
    played.play(700, off_ns=NS_PER_S)
    assert not any(played.valid)


def test_a_rolled_over_week_is_named() -> None:
    played = Played()
    state = played.play(1000, off_ns=-WEEKS_NS, leapseconds=18)
    assert not any(played.valid)
    assert "rolled over" in state.reason


def test_without_a_fix_its_clock_is_a_battery_and_a_lost_fix_falls_at_once() -> None:
    played = Played()
    played.play(20, leapseconds=18)
    assert played.valid[-1]
    state = played.play(1, mode=1, leapseconds=18)
    assert not played.valid[-1]
    assert state.reason == "it has no fix"
    silent = played.receiver.take({"class": "TPV", "mode": 1}, played.second * NS_PER_S)
    assert silent is None
    assert not played.play(3, leapseconds=18).utc_valid
    assert played.play(4, leapseconds=18).utc_valid


def test_a_silent_receiver_is_told_to_be_silent() -> None:
    played = Played()
    played.play(20, leapseconds=18)
    states = [played.receiver.state((played.second + after) * NS_PER_S) for after in (8, 30, 300)]
    assert not any(state.utc_valid or state.fix for state in states)
    # One word for all of it: a status is told anew when its words change.
    assert {state.reason for state in states} == {"silent for more than 5 s"}


def test_pulse_and_satellites_are_told() -> None:
    receiver = Receiver(LeapTable())
    used = [{"PRN": n, "used": n < 7} for n in range(11)]
    receiver.take({"class": "SKY", "satellites": used}, NS_PER_S)
    receiver.take({"class": "PPS", "real_sec": 1}, NS_PER_S)
    state = receiver.state(2 * NS_PER_S)
    assert (state.satellites_used, state.satellites_seen, state.pps_seen) == (7, 11, True)
    assert not receiver.state(5 * NS_PER_S).pps_seen
    receiver.take({"class": "SKY", "nSat": 20, "uSat": 9}, NS_PER_S)
    state = receiver.state(2 * NS_PER_S)
    assert (state.satellites_used, state.satellites_seen) == (9, 20)


def test_the_place_is_averaged_and_its_error_falls_slower_than_by_white_noise() -> None:
    played = Played()
    for k in range(60):
        off = (k % 7 - 3) * METRE_DEG
        played.play(60, leapseconds=18, lat=LAT + off)
    position = played.receiver.state(played.second * NS_PER_S).position
    assert position is not None
    assert position.metres_to(LAT, LON) < 0.2
    assert position.alt_m == pytest.approx(1310.0)
    assert 3.0 < position.sigma_m < 6.0  # an hour is three times the correlation, not 3600 fixes


def test_a_node_that_was_moved_averages_anew_and_one_wild_fix_is_nothing() -> None:
    played = Played()
    played.play(600, leapseconds=18)
    played.play(30, leapseconds=18, lat=LAT + 1000 * METRE_DEG)
    at_home = played.receiver.state(played.second * NS_PER_S).position
    assert at_home is not None
    assert at_home.metres_to(LAT, LON) < 0.1
    played.play(100, leapseconds=18, lat=LAT + 1000 * METRE_DEG)
    moved = played.receiver.state(played.second * NS_PER_S).position
    assert moved is not None
    assert moved.metres_to(LAT, LON) == pytest.approx(1000, abs=1)


@pytest.mark.parametrize(
    "report",
    [
        {"class": "TPV"},
        {"class": "TPV", "mode": "three", "time": 5},
        {"class": "TPV", "mode": 3, "time": "yesterday"},
        {"class": "SKY", "satellites": "many"},
        {"class": "SKY", "nSat": -1, "uSat": "x"},
        fix(START, lat=None, lon="east", altHAE=float("nan")),
        fix(START, lat=91.0),
        {},
    ],
)
def test_a_mad_report_is_passed_over(report: dict[str, Any]) -> None:
    receiver = Receiver(LeapTable())
    receiver.take(report, NS_PER_S)
    state = receiver.state(NS_PER_S)
    assert not state.utc_valid
    assert state.position is None


def test_a_place_at_the_date_line_is_averaged_to_one_that_can_be_told() -> None:
    played = Played()
    for k in range(20):
        off = (k % 5 - 1.0) * METRE_DEG  # mostly beyond the line
        lon = (179.999995 + off + 180) % 360 - 180
        position = played.play(10, leapseconds=18, lat=0.0, lon=lon).position
        assert position is not None
        assert -180 <= position.lon_deg <= 180
        assert position.metres_to(0.0, 180.0) < 3


@pytest.mark.parametrize("alt_m", [-6_371_000.0, -500.1, 9000.1, 20_000.0, 1e308])
def test_a_fix_at_a_height_where_no_node_stands_is_passed_over(alt_m: float) -> None:
    played = Played()
    assert played.play(100, leapseconds=18, altHAE=alt_m).position is None
    position = played.play(100, leapseconds=18).position
    assert position is not None
    assert position.alt_m == pytest.approx(1310.0)
