"""The pulse's clock: what it makes of pulses, of their absence, and of those who misname them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pytest

from node.ears import Ears
from node.settings import Settings
from node.timing import HostSampleClock, RecordingClock
from node.timing.clock_filter import GATE, HEAD_ROOM, WIDE_GATE_S, ClockFilter
from node.timing.leap import LeapTable
from node.timing.pps import PpsSampleClock
from node.types import (
    NS_PER_S,
    Block,
    ClockQuality,
    ClockSource,
    HostReading,
    ReceiverReading,
    Unplaced,
)
from tests.timing.pps_wave import (
    MONOTONIC_NS,
    RATE_HZ,
    START_UTC_S,
    Crystal,
    HostStamps,
    Input,
    PulseChannel,
    a_message,
    a_reading,
    blocks,
    glimpses,
)

SECONDS = 24
FREE = ClockQuality("free", 3600.0)
JUMPED = "count of samples has jumped"
LEAP_AT_S = 14  # of a run: the second before it is 23:59:60
A_TABLE = LeapTable((*LeapTable().changes, (START_UTC_S + LEAP_AT_S - 1, 38)))


@dataclass
class Heard:
    """What a clock answered at the end of a block."""

    time_s: float
    utc_s: float
    sigma_s: float
    source: str

    @property
    def error_s(self) -> float:
        return self.utc_s - self.time_s


def a_clock(**kwargs: object) -> PpsSampleClock:
    return PpsSampleClock(RATE_HZ, 0, HostSampleClock(RATE_HZ), **kwargs)  # type: ignore[arg-type]


def confirmed(reading: HostReading) -> HostReading:
    return replace(reading, quality=replace(reading.quality, second_confirmed=True))


def says_the_truth(second: int) -> HostReading | None:
    return a_reading(second)


def is_silent(_second: int) -> ReceiverReading | None:
    return None


def play(
    clock: PpsSampleClock,
    pulses_s: np.ndarray,
    *,
    seconds: float = SECONDS,
    line: Input | None = None,
    widths_s: np.ndarray | None = None,
    block: int = 4800,
    lost: dict[int, int] | None = None,
    unplaced: bool = False,
    uncounted: dict[int, int] | None = None,
    host: Callable[[int], HostReading | None] = says_the_truth,
    receiver: Callable[[int], ReceiverReading | None] = is_silent,
    channel: PulseChannel | None = None,
) -> list[Heard]:
    """Let a clock hear pulses by a crystal that is 35 ppm fast and steady."""
    rng = np.random.default_rng(42)
    crystal = Crystal(seconds + 20, rng, changeable=0)
    channel = channel or PulseChannel(
        np.asarray(crystal.sample(pulses_s)), rng, line=line or Input(), widths_s=widths_s
    )
    heard: list[Heard] = []
    said = -1
    stamps = HostStamps(crystal, rng)
    for one, true in blocks(
        channel, seconds, block=block, lost=lost, uncounted=uncounted, host=stamps
    ):
        now_s = float(crystal.time_s(true + block))
        if said < 0 or now_s >= said + 1.2:
            said = int(now_s - 0.1)
            reading = host(said)
            if reading:
                clock.observe_host(reading)
            message = receiver(said)
            if message and heard:
                clock.observe_receiver(message)
        if unplaced and (frames := one.lost_before):
            reach = Unplaced(frames, one.first_sample - frames - block, one.end_sample)
            one = replace(one, unplaced=reach)
        clock.observe_block(one)
        instant = clock.at(one.end_sample)
        utc_s = (instant.utc_ns - START_UTC_S * NS_PER_S) / NS_PER_S
        heard.append(Heard(now_s, utc_s, instant.sigma_s, clock.quality().source))
    return heard


def every_second(seconds: int = SECONDS, jitter_s: float = 0.0) -> np.ndarray:
    return np.arange(1.0, seconds) + np.random.default_rng(8).normal(0, jitter_s, seconds - 1)


def test_a_pulse_a_second_gives_utc_to_a_tenth_of_a_microsecond() -> None:
    heard = play(a_clock(), every_second())
    grown = [h for h in heard if h.time_s > 10]
    assert {h.source for h in grown} == {"pps"}
    assert max(abs(h.error_s) for h in grown) < 0.3e-6
    assert max(h.sigma_s for h in grown) < 1e-6


@pytest.mark.parametrize("block", [480, 997, 4800, 30_000])
def test_blocks_of_any_size_give_the_same_time(block: int) -> None:
    crystal = Crystal(30, np.random.default_rng(42), changeable=0)
    rng = np.random.default_rng(1)
    channel = PulseChannel(np.asarray(crystal.sample(every_second(16))), rng)
    x = np.concatenate([channel.frames(i * 48_000, 48_000) for i in range(16)])
    pcm = np.rint(x * 32_768).astype(np.int16)[:, np.newaxis]
    told = []
    for size in (4096, block):
        coarse = RecordingClock(START_UTC_S * NS_PER_S, RATE_HZ, FREE)
        clock = PpsSampleClock(RATE_HZ, 0, coarse, trust_coarse=True)
        for first in range(0, len(pcm), size):
            clock.observe_block(Block(first, pcm[first : first + size], RATE_HZ))
        told.append((clock.at(15.2 * RATE_HZ), clock.state.pulses))
    assert told[0] == told[1]


def test_missing_pulses_are_counted_and_move_nothing(caplog: pytest.LogCaptureFixture) -> None:
    clock = a_clock()
    heard = play(clock, np.delete(every_second(), [10, 14, 15]))
    assert clock.state.missed == 3
    assert JUMPED not in caplog.text
    assert max(abs(h.error_s) for h in heard if h.time_s > 10) < 0.5e-6


def test_doubled_and_stray_pulses_are_refused_and_move_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = a_clock()
    strays = np.array([9.0 + 0.3, 12.0 + 0.2, 12.0 + 0.6, 15.0 + 0.01])
    pulses = np.sort(np.concatenate([every_second(), strays]))
    heard = play(clock, pulses, widths_s=np.where(pulses % 1 == 0, 0.1, 0.005))
    assert clock.state.refused == len(strays)
    assert JUMPED not in caplog.text
    assert max(abs(h.error_s) for h in heard if h.time_s > 10) < 0.5e-6


@pytest.mark.parametrize("width_s", [0.02, 0.1, 0.3])
@pytest.mark.parametrize("inverted", [False, True])
def test_the_edge_on_the_second_is_found_whichever_way_it_goes(
    inverted: bool, width_s: float
) -> None:
    for free in (False, True):
        clock = a_clock()
        line = Input(width_s=width_s, inverted=inverted)
        heard = play(
            clock,
            every_second(),
            line=line,
            host=lambda s, free=free: a_reading(s, source="free" if free else "ntp"),
            receiver=a_message,
        )
        assert clock.state.rises is not inverted
        assert heard[-1].source == "pps"
        assert abs(heard[-1].error_s) < 0.5e-6


def test_a_receiver_set_to_mark_the_second_with_the_falling_edge_is_told_by_the_host() -> None:
    clock = a_clock()
    width_s = np.full(SECONDS - 1, 0.1 * (1 + 35e-6))  # by a card that is 35 ppm fast
    heard = play(clock, every_second() - 0.1, widths_s=width_s)
    assert clock.state.rises is False
    assert abs(heard[-1].error_s) < 0.5e-6


def test_a_pulse_half_a_second_wide_is_told_by_the_host_alone() -> None:
    line = Input(width_s=0.5, corner_hz=1.0)
    known, unknown = a_clock(), a_clock()
    assert play(known, every_second(), line=line)[-1].source == "pps"
    heard = play(
        unknown,
        every_second(),
        line=line,
        host=lambda s: a_reading(s, source="free"),
        receiver=a_message,
    )
    assert heard[-1].source == "free"
    assert "half a second wide" in unknown.state.reason


def test_a_pulse_that_is_off_the_hosts_second_is_not_used_and_the_reason_is_said() -> None:
    clock = a_clock()
    heard = play(clock, every_second() + 0.3)
    assert {h.source for h in heard} == {"ntp"}
    assert "not on the second" in clock.state.reason


def test_a_jitter_of_200_ns_is_borne_and_told() -> None:
    heard = play(a_clock(), every_second(60, jitter_s=200e-9), seconds=60)
    grown = [h for h in heard if h.time_s > 10]
    assert {h.source for h in grown} == {"pps"}
    assert max(abs(h.error_s) for h in grown) < 1e-6
    assert np.mean([abs(h.error_s) <= 3 * h.sigma_s for h in grown]) >= 0.99


@pytest.mark.parametrize("what", ["silence", "noise", "music", "shots"])
def test_a_channel_without_a_pulse_leaves_the_coarse_clock_and_says_why(what: str) -> None:
    class Sound(PulseChannel):
        def frames(self, first: int, count: int) -> np.ndarray:
            t = (np.arange(count) + first) / RATE_HZ
            rng = np.random.default_rng(first)
            if what == "noise":
                return rng.normal(0, 0.1, count)
            if what == "music":  # notes of four kinds, struck at 100 a minute
                beat = t / 0.6
                note = 220 * 2 ** (np.floor(beat * 7 % 12) / 12)
                return 0.4 * np.exp(-6 * (beat % 1)) * np.sign(np.sin(2 * np.pi * note * t))
            if what == "shots":
                since = t[:, np.newaxis] - np.array([3.1, 3.73, 8.2, 11.9, 12.5, 17.77])
                return (0.8 * np.exp(-300 * np.abs(since)) * (since > 0)).sum(axis=1)
            return np.zeros(count)

    clock = a_clock()
    sound = Sound(np.zeros(0), np.random.default_rng(0))
    heard = play(clock, np.zeros(0), channel=sound, receiver=a_message)
    assert {h.source for h in heard} == {"ntp"}
    assert clock.state.reason


def test_a_reopened_stream_begins_from_nothing() -> None:
    clock = a_clock()
    play(clock, every_second())
    clock.observe_block(Block(10**7, np.zeros((480, 1), np.int16), RATE_HZ, 2000 * NS_PER_S, 0, 1))
    assert clock.quality().source == "ntp"
    assert clock.state.pulses == 0
    assert clock.state.rises is None
    assert "no pulse on channel 0" in clock.state.reason


@pytest.mark.parametrize("frames", [1, 337, 4800, 24_000, 48_000, 480_000 + 1])
def test_frames_lost_and_counted_move_nothing(
    frames: int, caplog: pytest.LogCaptureFixture
) -> None:
    clock = a_clock()
    heard = play(clock, every_second(40), seconds=27, lost={123: frames})
    assert JUMPED not in caplog.text
    assert max(abs(h.error_s) for h in heard if h.time_s > 10) < 1e-6


def test_in_the_blocks_round_an_unseen_loss_a_time_by_the_pulse_may_be_off_by_it() -> None:
    clock = a_clock()
    play(clock, every_second(40), seconds=27, lost={263: 480}, unplaced=True)
    at = 263 * 4800
    assert clock.at(at - 4801).sigma_s < 1e-6
    assert clock.at(at - 4800).sigma_s == pytest.approx(480 / 2 / RATE_HZ, rel=1e-3)
    assert clock.at(at + 480 + 4799).sigma_s == pytest.approx(480 / 2 / RATE_HZ, rel=1e-3)
    assert clock.at(at + 480 + 4800).sigma_s < 1e-6
    assert clock.quality().sigma_s < 1e-6


@pytest.mark.parametrize("frames", [7, 480, 4800, -4800, 14_400, 33_600, 48_000, 96_000])
def test_frames_lost_and_not_counted_are_noticed_and_the_second_is_right_again(
    frames: int, caplog: pytest.LogCaptureFixture
) -> None:
    clock = a_clock()
    heard = play(clock, every_second(60), seconds=50, uncounted={153: frames}, receiver=a_message)
    after_s = heard[153].time_s
    assert caplog.text.count(JUMPED) == 1
    assert abs(heard[-1].error_s) < 0.5e-6
    assert heard[-1].source == "pps"
    if abs(frames) < 40_000:
        false = [h for h in heard if abs(h.error_s) > 3 * h.sigma_s]
        assert max(h.time_s for h in false) < after_s + 1.1 if false else True
    assert all(abs(h.error_s) < 0.5e-6 for h in heard if h.time_s > after_s + 16)


def test_a_jump_that_both_clocks_have_got_over_is_no_doubt_any_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = a_clock()
    heard = play(clock, every_second(60), seconds=50, uncounted={153: 4800})
    assert (caplog.text.count(JUMPED), heard[-1].source) == (1, "pps")
    doubted = [h for h in heard if h.time_s > heard[153].time_s + 4 and h.source != "pps"]
    assert doubted
    assert all(h.sigma_s > 0.05 for h in doubted)
    # The pulse stays away for longer than it is believed, and the host's clock has the word.
    time_s = heard[-1].time_s + 4000
    first = round(time_s * RATE_HZ * (1 + 35e-6)) - 4800  # samples that nobody counted
    stamp_ns = MONOTONIC_NS + round(time_s * NS_PER_S)
    silence = np.zeros((480, 1), np.int16)
    clock.observe_block(Block(first, silence, RATE_HZ, stamp_ns, 1))
    instant = clock.at(first)
    assert "away for too long" in clock.state.reason
    assert abs(instant.utc_ns - START_UTC_S * NS_PER_S - time_s * NS_PER_S) < 10e-3 * NS_PER_S
    assert instant.sigma_s < 10e-3
    assert clock.quality().sigma_s < 10e-3


def test_a_recording_whose_count_has_jumped_is_in_doubt_where_its_pulse_is_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rng = np.random.default_rng(42)
    crystal = Crystal(60, rng, changeable=0)
    channel = PulseChannel(np.asarray(crystal.sample(every_second(40))), rng)
    coarse = RecordingClock(START_UTC_S * NS_PER_S, RATE_HZ, ClockQuality("free", 1e-3))
    clock = PpsSampleClock(RATE_HZ, 0, coarse, trust_coarse=True)
    for one, _ in blocks(channel, 38, uncounted={153: 4800}):
        clock.observe_block(one)
    assert (caplog.text.count(JUMPED), clock.quality().source) == (1, "pps")
    clock.observe_block(Block(4000 * RATE_HZ, np.zeros((480, 1), np.int16), RATE_HZ, None, 1))
    assert clock.quality().source == "free"
    assert clock.at(4000 * RATE_HZ).sigma_s > 0.09  # its stated start knows of no jump


def test_the_host_clock_itself_notices_frames_that_nobody_counted() -> None:
    clock = HostSampleClock(RATE_HZ)
    clock.observe_host(a_reading())
    silence = np.zeros((4800, 1), np.int16)
    for i in range(1000):
        true_s = i * 0.1 + (0.5 if i >= 700 else 0.0)
        clock.observe_block(Block(i * 4800, silence, RATE_HZ, MONOTONIC_NS + round(true_s * 1e9)))
        late = i % 100 == 50  # one late stamp is nothing
        clock.observe_block(
            Block(i * 4800, silence, RATE_HZ, MONOTONIC_NS + round((true_s + 0.03 * late) * 1e9))
        )
        error_s = (clock.at(i * 4800).utc_ns - START_UTC_S * NS_PER_S) / NS_PER_S - true_s
        if not 700 <= i < 750:
            assert abs(error_s) < 1e-4


@pytest.mark.parametrize("off", [-5, 3, 7])
def test_the_host_clock_mends_a_count_that_was_off_by_some_frames(off: int) -> None:
    clock = HostSampleClock(RATE_HZ, device_delay_sigma_s=0.0)
    clock.observe_host(a_reading(sigma_s=0.0))
    rng = np.random.default_rng(9)
    silence = np.zeros((997, 1), np.int16)
    counted = true = 0
    for i in range(48 * 90):
        lost = 9970 if i == 48 * 70 else 0
        true += lost
        counted += lost + off if lost else 0
        stamp_ns = MONOTONIC_NS + round((true / RATE_HZ + rng.uniform(0, 1e-3)) * NS_PER_S)
        clock.observe_block(Block(counted, silence, RATE_HZ, stamp_ns, lost))
        error_s = (clock.at(counted).utc_ns - START_UTC_S * NS_PER_S) / NS_PER_S - true / RATE_HZ
        assert abs(error_s) < 3 * clock.at(counted).sigma_s or i < 48
        if i > 48 * 75:
            assert abs(error_s) < 30e-6
        counted += 997
        true += 997


def test_a_leap_second_is_told_before_at_and_after() -> None:
    def host(second: int) -> HostReading:
        return confirmed(a_reading(second, stepped_s=-1.0 if second >= LEAP_AT_S else 0.0))

    def receiver(second: int) -> ReceiverReading:
        return a_message(second, wrong_s=-1 if second >= LEAP_AT_S else 0)

    clock = a_clock(leaps=A_TABLE)
    heard = play(clock, every_second(), host=host, receiver=receiver)
    by_pulse = [h for h in heard if h.time_s > 10]
    assert {h.source for h in by_pulse} == {"pps"}
    for h in by_pulse:
        leapt = h.time_s >= LEAP_AT_S - 1
        expected_s = h.time_s - (1 if h.time_s >= LEAP_AT_S else 0)
        assert h.utc_s == pytest.approx(expected_s, abs=1e-6) or (
            leapt and h.utc_s == pytest.approx(h.time_s - 1, abs=1e-6)
        )
    assert clock.quality().second_confirmed


def test_the_nodes_own_pulse_clock_knows_a_leap_second_that_the_system_knows_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LeapTable, "load", lambda: A_TABLE)
    settings = Settings.model_validate(
        {
            "node": {"id": "corner", "site": "town"},
            "capture": {"channels": 2, "array": "mono"},
            "timing": {"pps_channel": 0},
        }
    )
    clock = Ears(settings, RATE_HZ).clock
    assert isinstance(clock, PpsSampleClock)
    heard = play(clock, every_second())
    assert heard[-1].source == "pps"
    assert heard[-1].error_s == pytest.approx(-1.0, abs=1e-6)


def test_a_receiver_that_names_every_twentieth_second_wrongly_is_never_followed() -> None:
    rng = np.random.default_rng(5)

    def receiver(second: int) -> ReceiverReading:
        wrong = int(rng.choice([-1, 1])) if rng.random() < 0.05 else 0
        return a_message(second, wrong_s=wrong)

    heard = play(
        a_clock(),
        every_second(90),
        seconds=90,
        host=lambda s: a_reading(s, source="free"),
        receiver=receiver,
    )
    assert heard[-1].source == "pps"
    assert all(abs(h.error_s) < 1e-3 for h in heard if h.source == "pps")


@pytest.mark.parametrize("stepped_s", [1.0, -1.0, 3600.0])
def test_a_step_of_the_hosts_clock_does_not_move_the_second(stepped_s: float) -> None:
    clock = a_clock()
    heard = play(
        clock,
        every_second(60),
        seconds=60,
        host=lambda s: a_reading(s, stepped_s=stepped_s if s > 20 else 0.0),
        receiver=a_message,
    )
    by_pulse = [h for h in heard if h.time_s > 12]
    assert {h.source for h in by_pulse} == {"pps"}
    assert max(abs(h.error_s) for h in by_pulse) < 1e-6


@pytest.mark.parametrize(("seconds", "told"), [(26, False), (32, True)])
def test_a_pulse_that_stops_is_told_after_ten_seconds_while_the_time_is_held(
    seconds: int, told: bool
) -> None:
    clock = a_clock()
    heard = play(clock, every_second(20), seconds=seconds)
    assert heard[-1].source == "pps"
    assert clock.state.ticks
    assert ("no pulse on channel 0 for more than 10 s" in clock.state.warning) is told


@pytest.mark.parametrize(("amplitude", "told"), [(0.5, False), (1.5, True)])
def test_a_pulse_at_full_scale_is_told(amplitude: float, told: bool) -> None:
    clock = a_clock()
    play(clock, every_second(20), seconds=20, line=Input(amplitude=amplitude))
    assert ("at full scale" in clock.state.warning) is told


def test_full_scale_is_forgotten_once_the_pulse_is_weaker() -> None:
    clock = a_clock()
    clock.observe_host(a_reading(0))
    rng = np.random.default_rng(1)
    loud = PulseChannel(np.arange(1.0, 40) * RATE_HZ, rng, line=Input(amplitude=1.5))
    stamps = HostStamps(Crystal(60, rng, changeable=0), rng)
    for one, true in blocks(loud, 36, host=stamps):
        weaker = one.frames if true < 20 * RATE_HZ else (one.frames // 2).astype(np.int16)
        clock.observe_block(replace(one, frames=weaker))
        if true == 20 * RATE_HZ:
            assert clock._now < clock._clipped_until
    assert clock._now >= clock._clipped_until


def test_a_receiver_that_comes_to_name_another_second_is_told_and_moves_nothing() -> None:
    clock = a_clock()
    heard = play(
        clock,
        every_second(60),
        seconds=60,
        host=lambda s: confirmed(a_reading(s)),
        receiver=lambda s: a_message(s, wrong_s=1 if s > 25 else 0),
    )
    assert heard[-1].source == "pps"
    assert abs(heard[-1].error_s) < 1e-6
    assert "1 s apart on the second" in clock.state.warning


def test_host_and_receiver_that_contradict_each_other_are_both_not_trusted() -> None:
    clock = a_clock()
    heard = play(clock, every_second(30), seconds=30, receiver=lambda s: a_message(s, wrong_s=2))
    assert heard[-1].source == "free"
    assert heard[-1].sigma_s >= 2.0
    assert "do not agree" in clock.state.reason


@pytest.mark.parametrize("fault", ["invalid", "weeks ago"])
def test_a_receiver_that_cannot_know_the_time_is_not_heard(fault: str) -> None:
    def receiver(second: int) -> ReceiverReading:
        wrong_s = 2 if fault == "invalid" else -1024 * 7 * 86_400
        return a_message(second, wrong_s=wrong_s, valid=fault != "invalid")

    clock = a_clock()
    heard = play(
        clock, every_second(), host=lambda s: a_reading(s, source="free"), receiver=receiver
    )
    assert {h.source for h in heard} == {"free"}
    assert "which second" in clock.state.reason


def test_a_recordings_stated_start_tells_the_second() -> None:
    rng = np.random.default_rng(42)
    crystal = Crystal(SECONDS + 20, rng, changeable=0)
    coarse = RecordingClock(START_UTC_S * NS_PER_S + 3_000_000, RATE_HZ, ClockQuality("free", 5e-3))
    clock = PpsSampleClock(RATE_HZ, 0, coarse, trust_coarse=True)
    channel = PulseChannel(np.asarray(crystal.sample(every_second())), rng)
    for one, _ in blocks(channel, SECONDS):
        clock.observe_block(one)
    true_s = float(crystal.time_s(one.end_sample))
    found_s = (clock.at(one.end_sample).utc_ns - START_UTC_S * NS_PER_S) / NS_PER_S
    assert found_s == pytest.approx(true_s, abs=0.5e-6)
    assert clock.quality().source == "pps"


def test_a_crystal_that_takes_to_the_sun_stays_within_what_the_filter_tells() -> None:
    # A change of 6 °C that arrives within 300 s: a drift of 1e-8 1/s, all at once.
    seconds = np.arange(0.0, 900.0)
    warm = 3e-6 * (1 - np.exp(-np.maximum(seconds - 300, 0) / 300))
    at = np.concatenate([[0.0], np.cumsum(RATE_HZ * (1 + 35e-6 + warm[:-1]))])
    rng = np.random.default_rng(6)
    clock = ClockFilter(RATE_HZ)
    errors, sigmas = [], []
    for second, (sample, following) in enumerate(pairwise(at)):
        clock.pulse(sample + rng.normal(0, 50e-9) * RATE_HZ)
        if second > 10:
            count = clock.at(following)
            errors.append(count.seconds - second - 1 + count.rest_s)
            sigmas.append(count.sigma_s)
    assert clock.refused == 0
    assert np.mean(np.abs(errors) <= 3 * np.array(sigmas)) >= 0.99
    assert np.max(np.abs(errors)) < 0.5e-6


@pytest.mark.parametrize("away_s", [60, 300, 900, 2113, 3500])
@pytest.mark.parametrize("strays_sigma", [(-5.9,), (3.0,), (-0.3, 4.0)])
def test_an_edge_that_is_none_before_the_pulse_is_back_moves_nothing(
    away_s: int, strays_sigma: tuple[float, ...]
) -> None:
    crystal, rng = Crystal(away_s + 1000, np.random.default_rng(4)), np.random.default_rng(5)
    clock = ClockFilter(RATE_HZ)
    for sample in crystal.sample(np.arange(1.0, 601)):
        clock.pulse(sample + rng.normal(0, 50e-9) * RATE_HZ)
    back_s = 600 + away_s
    gate_s = clock.at(float(crystal.sample(back_s))).sigma_s / HEAD_ROOM
    strays_s = back_s + np.array(strays_sigma) * gate_s
    verdicts = [clock.pulse(sample)[0] for sample in crystal.sample(strays_s)]
    for at_s in back_s + np.arange(1.0, 30):
        verdicts.append(
            clock.pulse(float(crystal.sample(at_s)) + rng.normal(0, 50e-9) * RATE_HZ)[0]
        )
        count = clock.at(float(crystal.sample(at_s)))
        if at_s > back_s + 5:
            assert abs(count.seconds + 1 - at_s + count.rest_s) < 1e-6
    if gate_s > WIDE_GATE_S / GATE:
        assert verdicts == ["refused"] * (len(strays_s) + 2) + ["taken"] * 27


def test_a_cable_that_is_plugged_in_amid_a_pulse_costs_seconds_and_not_the_hour() -> None:
    crystal, rng, back_s = Changed(0.0), np.random.default_rng(3), 2173
    pulses = np.concatenate([np.arange(1.0, 61.0), [back_s - 0.968], back_s + np.arange(30.0)])
    heard = np.concatenate([pulses[:60], np.arange(600.5, back_s - 30, 600), pulses[60:]])
    clock, told = a_clock(), []
    stamps = HostStamps(crystal, rng)
    channel = PulseChannel(crystal.sample(pulses), rng)
    for block, true in glimpses(channel, crystal.sample(heard), host=stamps):
        clock.observe_host(a_reading(float(crystal.time_s(true))))
        clock.observe_block(block)
        now_s = float(crystal.time_s(true + len(block.frames)))
        error_s = (clock.at(block.end_sample).utc_ns - START_UTC_S * NS_PER_S) / NS_PER_S - now_s
        told.append((now_s, clock.quality(), abs(error_s)))
    after = [(quality, error_s) for now_s, quality, error_s in told if now_s > back_s + 5]
    assert len(after) == 25
    assert {quality.source for quality, _ in after} == {"pps"}
    assert max(quality.sigma_s for quality, _ in after) < 1e-6
    assert max(error_s for _, error_s in after) < 1e-6


@pytest.mark.parametrize("locked_s", [30, 600, 7200])
def test_hours_before_the_first_pulse_the_error_that_is_told_holds_the_truth(locked_s: int) -> None:
    before_s = 3 * 3600
    for seed in range(8):
        rng = np.random.default_rng(seed)
        crystal = Crystal(before_s + locked_s, rng)
        clock = ClockFilter(RATE_HZ)
        for sample in crystal.sample(before_s + np.arange(0.0, locked_s)):
            clock.pulse(sample + rng.normal(0, 50e-9) * RATE_HZ)
        for back_s in (60, 1800, before_s):
            count = clock.at(float(crystal.sample(before_s - back_s)))
            error_s = count.seconds + count.rest_s + back_s
            assert abs(error_s) <= 3 * count.sigma_s
            assert abs(error_s) < 0.1  # a crystal's rate wanders by a few ppm, no farther


class Changed(Crystal):
    """A crystal that ran 35 ppm fast for a minute, and since then faster by some more."""

    def __init__(self, more_ppm: float) -> None:
        self._more = more_ppm * 1e-6

    def sample(self, time_s: np.ndarray | float) -> np.ndarray:
        t = np.asarray(time_s, np.float64)
        return RATE_HZ * (t * (1 + 35e-6) + np.maximum(t - 60, 0) * self._more)

    def time_s(self, sample: np.ndarray | float) -> np.ndarray:
        n = np.asarray(sample, np.float64) / RATE_HZ
        early = n / (1 + 35e-6)
        return np.where(early < 60, early, (n + 60 * self._more) / (1 + 35e-6 + self._more))


@pytest.mark.parametrize(("away_s", "more_ppm"), [(8 * 86_400, 1.0), (20 * 86_400, -0.4)])
def test_a_pulse_that_was_away_for_days_begins_the_count_and_the_vote_anew(
    away_s: int, more_ppm: float
) -> None:
    crystal, rng = Changed(more_ppm), np.random.default_rng(3)
    pulses = np.concatenate([np.arange(1.0, 60.0), away_s + np.arange(30.0)])
    heard = np.concatenate([pulses[:59], np.arange(600.5, away_s, 600), pulses[59:]])
    clock = a_clock()
    channel = PulseChannel(crystal.sample(pulses), rng)
    told = []
    stamps = HostStamps(crystal, rng)
    for block, true in glimpses(channel, crystal.sample(heard), host=stamps):
        clock.observe_block(block)
        now_s = float(crystal.time_s(true + len(block.frames)))
        clock.observe_host(confirmed(a_reading(now_s)))
        if now_s % 1 < 0.1:
            clock.observe_receiver(a_message(int(now_s), late_s=now_s % 1))
        error_s = (clock.at(block.end_sample).utc_ns - START_UTC_S * NS_PER_S) / NS_PER_S - now_s
        told.append((now_s, clock.quality().source, abs(error_s)))
    assert max(error_s for now_s, _, error_s in told if now_s > 2) < 5e-3
    assert [source for now_s, source, _ in told if now_s > away_s + 10] == ["pps"] * 20
    assert clock.quality().second_confirmed
    assert clock.state.pulses == 89
    assert clock.state.missed == pytest.approx(away_s, rel=2e-4)


@pytest.mark.parametrize("source", ["gps", "pps", "ntp"])
def test_a_host_whose_second_may_be_the_receivers_own_confirms_nothing(source: ClockSource) -> None:
    clock = a_clock()
    play(
        clock,
        every_second(),
        host=lambda s: a_reading(s, source=source, stepped_s=1.0),
        receiver=lambda s: a_message(s, wrong_s=1),
    )
    assert clock.quality().source == "pps"
    assert not clock.quality().second_confirmed


def test_a_second_that_was_confirmed_stays_so_when_the_host_has_lost_its_servers() -> None:
    clock = a_clock()
    play(
        clock,
        every_second(40),
        seconds=40,
        host=lambda s: confirmed(a_reading(s)) if s < 20 else a_reading(s, source="free"),
        receiver=a_message,
    )
    assert clock.quality().source == "pps"
    assert clock.quality().second_confirmed


def test_a_confirmed_host_confirms_the_pulse_only_where_both_name_the_same_second() -> None:
    def host(second: int) -> HostReading:
        return confirmed(a_reading(second)) if second >= 20 else a_reading(second, stepped_s=1.0)

    clock = a_clock()
    play(clock, every_second(40), seconds=40, host=host, receiver=lambda s: a_message(s, wrong_s=1))
    assert clock.quality().source == "pps"
    assert not clock.quality().second_confirmed
    alone = a_clock()
    play(alone, every_second(40), seconds=40, host=lambda s: confirmed(a_reading(s)))
    assert alone.quality().second_confirmed
