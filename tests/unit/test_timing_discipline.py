"""What disciplines the clock: falls at once, rises when it has lasted."""

import time
from dataclasses import replace

import numpy as np
import pytest

from node.timing.chrony import ChronyError, ChronyWatch, Tracking, ask, parse
from node.timing.discipline import RECEIVER_SAID_S, RISE_S, Discipline, Evidence
from node.timing.host import FREE
from node.timing.ntp import Opinion
from node.types import NS_PER_S, ClockQuality, HostReading, ReceiverReading

UTC_S = 1_795_642_316
PPS_LINE = (
    "50505300,PPS,1,1795642312.058685243,-0.000150289,0.000000045,0.000000045,0.021,0.000,0.194,"
    "0.000000001,0.000007533,4.0,Normal"
)
NTP_LINE = (
    "C0A80001,192.168.0.1,3,1795642300.5,0.000812,0.0001,0.0004,-12.1,0.01,0.2,0.021,0.0031,64.2,"
    "Normal"
)
NTP = ClockQuality("ntp", 2e-3, 6e-3)


class Node:
    """A host whose clock is read once a second."""

    def __init__(self) -> None:
        self.discipline = Discipline()
        self.second = 0
        self.stepped_s = 0.0
        self.kernel = FREE
        self.tracking: Tracking | None = None
        self.opinion: Opinion | None = None
        self.receiver_off_s: int | None = None
        self.reasons: tuple[str, ...] = ()

    def run(self, seconds: int = 1) -> ClockQuality:
        for _ in range(seconds):
            self.second += 1
            now_ns = self.second * NS_PER_S
            host = HostReading(
                now_ns, UTC_S * NS_PER_S + round(self.stepped_s * 1e9), 50, self.kernel
            )
            said = ()
            if self.receiver_off_s is not None:
                off_ns = self.receiver_off_s * NS_PER_S - NS_PER_S // 8
                utc_ns = UTC_S * NS_PER_S + now_ns + off_ns
                said = (ReceiverReading(now_ns, utc_ns, valid=True),)
            tracking = self.tracking
            if tracking is not None and tracking.synchronised:
                # chrony measures its own host, steps included, every four seconds
                at = UTC_S + self.second - self.second % 4 + self.stepped_s
                tracking = replace(tracking, updated_s=at)
            evidence = Evidence(host, tracking, self.opinion, said)
            quality, self.reasons = self.discipline.judge(evidence)
        return quality


@pytest.fixture
def node() -> Node:
    node = Node()
    node.tracking = replace(parse(PPS_LINE), interval_s=4.0)
    return node


def test_chronys_line_is_read() -> None:
    tracking = parse(PPS_LINE)
    assert tracking.source == "pps"
    assert tracking.offset_s == pytest.approx(-150.289e-6)
    assert tracking.bound_s == pytest.approx(157.8e-6, rel=1e-3)
    network = parse(NTP_LINE)
    assert (network.source, network.stratum) == ("ntp", 3)
    assert network.bound_s == pytest.approx(0.000812 + 0.0031 + 0.0105)
    assert parse(PPS_LINE.replace("50505300,PPS", "4E4D4541,NMEA")).source == "gps"


@pytest.mark.parametrize(
    "line",
    [
        PPS_LINE.replace("Normal", "Not synchronised"),
        NTP_LINE.replace("C0A80001,192.168.0.1", "7F7F0101,127.127.1.1"),
    ],
)
def test_what_chrony_does_not_vouch_for_is_free(line: str) -> None:
    assert parse(line).source == "free"
    assert parse(line).quality() is None


@pytest.mark.parametrize("line", ["", "506 Cannot talk to daemon", NTP_LINE + ",x", "a,b", "nan"])
def test_what_is_not_of_chronys_form_is_refused(line: str) -> None:
    with pytest.raises(ChronyError, match="answered"):
        parse(line)
    for figure in ("0.000007533", "1795642312.058685243", "4.0", "-0.000150289", "0.021"):
        for word in ("nan", "inf"):
            with pytest.raises(ChronyError, match="answered"):
                parse(PPS_LINE.replace(figure, word))


@pytest.mark.parametrize("stratum", ["-1", "1_0", "٣", " 3", "17", "9" * 5000])
def test_what_is_no_stratum_is_refused(stratum: str) -> None:
    with pytest.raises(ChronyError, match="answered"):
        parse(NTP_LINE.replace(",3,", f",{stratum},", 1))


@pytest.mark.parametrize("figure", ["1e300", "-1e10", "9.5e9", "1.7976931348623157e308"])
def test_a_figure_that_no_clock_has_is_refused_so_that_no_bound_is_infinite(figure: str) -> None:
    for place in range(3, 13):
        fields = NTP_LINE.split(",")
        fields[place] = figure
        with pytest.raises(ChronyError, match="answered"):
            parse(",".join(fields))


@pytest.mark.parametrize("name", ["x" * 65, "a\0b", "a\x1bb"])
def test_a_reference_that_no_message_can_hold_is_refused(name: str) -> None:
    with pytest.raises(ChronyError, match="answered"):
        parse(NTP_LINE.replace("192.168.0.1", name))


def test_chrony_that_is_absent_fails_or_hangs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ChronyError, match="not installed"):
        ask(("no-such-chronyc",))
    with pytest.raises(ChronyError, match="506 Cannot talk"):
        ask(("sh", "-c", "echo 506 Cannot talk to daemon; exit 1"))
    monkeypatch.setattr("node.timing.chrony.TIMEOUT_S", 0.1)
    with pytest.raises(ChronyError, match="does not answer"):
        ask(("sleep", "5"))


def test_what_chronyc_says_in_no_alphabet_is_a_failure_and_no_end_of_asking() -> None:
    with pytest.raises(ChronyError, match="answered"):
        ask(("printf", r"\377\376"))


def test_an_unforeseen_fault_is_told_and_chrony_asked_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    answers = iter([RuntimeError(), RuntimeError(), parse(PPS_LINE)])

    def fault(_command: tuple[str, ...]) -> Tracking:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("node.timing.chrony.ask", fault)
    monkeypatch.setattr("node.timing.chrony.INTERVAL_S", 0.2)
    watch = ChronyWatch()
    watch.start()
    end = time.monotonic() + 10
    told = set()
    while watch.latest is None:
        assert time.monotonic() < end
        told.add(watch.failure)
        time.sleep(0.01)
    watch.close()
    assert "RuntimeError" in str(told)
    assert caplog.text.count("Traceback") == 1


def test_a_source_rises_when_it_has_lasted_and_falls_at_once(node: Node) -> None:
    assert node.run(int(RISE_S)).source == "free"
    assert node.run(2).source == "pps"
    node.tracking = None  # chronyd was stopped; the kernel still says it is disciplined
    node.kernel = NTP
    assert node.run().source == "ntp"
    node.kernel = FREE
    assert node.run().source == "free"
    node.tracking = parse(PPS_LINE)
    assert node.run(5).source == "free"
    node.tracking = None
    node.run()
    node.tracking = parse(PPS_LINE)
    assert node.run(int(RISE_S)).source == "free"  # the wait began anew
    assert node.run(2).source == "pps"


def test_an_error_that_is_told_never_falls_below_what_a_source_can_do(node: Node) -> None:
    node.tracking = replace(parse(PPS_LINE), offset_s=0.0, rms_offset_s=0.0, root_dispersion_s=1e-9)
    quality = node.run(20)
    assert quality.source == "pps"
    assert quality.sigma_s >= 5e-6
    node.tracking = replace(node.tracking, reference="NMEA")
    assert node.run().sigma_s >= 30e-3


@pytest.mark.parametrize("step_s", [1.0, -1.0, 3600.0, -3600.0, 0.01])
def test_a_stepped_clock_is_free_until_it_was_measured_anew(node: Node, step_s: float) -> None:
    before = node.run(20)
    assert before.source == "pps"
    node.stepped_s = step_s
    stepped = node.run()
    assert stepped.source == "free"
    assert stepped.sigma_s >= abs(step_s) / 1.01
    assert "stepped" in node.reasons[0]
    assert node.discipline.steps == 1
    assert node.run(6).source == "free"
    assert node.run(20).source == "pps"


def test_where_only_the_kernel_speaks_a_step_needs_a_second_opinion(node: Node) -> None:
    node.tracking, node.kernel = None, NTP
    node.run(20)
    node.stepped_s = 1.0
    assert node.run(60).source == "free"
    node.opinion = Opinion("here", 0.0, 1e-3, node.second * NS_PER_S)
    assert node.run(20).source == "ntp"


def test_a_step_within_the_error_that_was_told_is_no_news(node: Node) -> None:
    node.tracking, node.kernel = None, NTP
    node.run(20)
    node.stepped_s = 1e-3
    assert node.run().source == "ntp"
    assert node.discipline.steps == 1


@pytest.mark.parametrize("off_s", [1, -1, 3600])
def test_a_receiver_that_contradicts_the_second_makes_it_free(node: Node, off_s: int) -> None:
    node.tracking = parse(NTP_LINE)
    node.receiver_off_s = 0
    quality = node.run(20)
    assert (quality.source, quality.second_confirmed) == ("ntp", True)
    node.receiver_off_s = off_s
    node.run(2)  # one wrong word moves nothing
    quality = node.run()
    assert (quality.source, quality.second_confirmed) == ("free", False)
    assert quality.sigma_s >= abs(off_s) - 1
    assert "off by the receiver" in node.reasons[0]
    node.receiver_off_s = 0
    assert node.run(20).source == "ntp"


def test_a_receiver_that_has_fallen_silent_contradicts_no_longer_than_it_agrees(node: Node) -> None:
    node.tracking, node.kernel = None, NTP
    node.run(20)
    node.receiver_off_s = 1
    assert node.run(3).source == "free"
    node.receiver_off_s = None
    assert node.run(int(RECEIVER_SAID_S) - 1).source == "free"
    assert node.run(int(RISE_S) + 1).source == "ntp"
    assert node.reasons == ()
    # What it said before it fell silent does not count with what it says now.
    node.receiver_off_s = 1
    assert node.run(2).source == "ntp"
    assert node.run().source == "free"


def test_its_own_receiver_does_not_confirm_a_second_but_a_server_does(node: Node) -> None:
    node.receiver_off_s = 0
    assert not node.run(20).second_confirmed
    node.opinion = Opinion("elsewhere", 1e-3, 5e-3, node.second * NS_PER_S)
    assert node.run().second_confirmed
    node.opinion = Opinion("elsewhere", -1.0, 5e-3, node.second * NS_PER_S)
    quality = node.run()
    assert (quality.source, quality.second_confirmed) == ("free", False)
    assert quality.sigma_s >= 1.0
    assert "elsewhere" in node.reasons[0]


def test_a_receiver_does_not_confirm_a_kernel_that_may_follow_it(node: Node) -> None:
    node.tracking, node.kernel = None, NTP  # chronyc is not asked, or silent
    node.receiver_off_s = 0
    quality = node.run(20)
    assert (quality.source, quality.second_confirmed) == ("ntp", False)
    node.opinion = Opinion("elsewhere", 1e-3, 5e-3, node.second * NS_PER_S)
    assert node.run().second_confirmed


@pytest.mark.parametrize("step_s", [1.0, -3600.0, 0.05])
def test_a_step_while_a_source_rises_makes_the_rise_begin_anew(step_s: float) -> None:
    node = Node()
    node.tracking, node.kernel = None, NTP
    node.run(5)
    node.stepped_s = step_s
    assert node.run().source == "free"
    assert "stepped" in node.reasons[0]
    assert node.run(60).source == "free"
    node.opinion = Opinion("here", 0.0, 1e-3, node.second * NS_PER_S)
    assert node.run(int(RISE_S)).source == "free"
    assert node.run(2).source == "ntp"


def test_who_steps_the_clock_as_he_takes_it_over_is_not_suspected() -> None:
    node = Node()
    node.run(20)
    node.stepped_s, node.kernel = 1e6, NTP  # timesyncd, when the network came up
    assert node.run(int(RISE_S) + 2).source == "ntp"


@pytest.mark.parametrize("source", ["free", "ntp"])
def test_an_opinion_from_before_a_step_says_nothing_of_the_clock_after_it(source: str) -> None:
    node = Node()
    node.kernel = NTP if source == "ntp" else FREE
    node.opinion = Opinion("here", 1e-3, 4e-3, 0)
    before = node.run(20)
    assert (before.source, before.second_confirmed) == (source, source == "ntp")
    assert before.sigma_s < 10e-3
    node.stepped_s = 3600.0
    for _ in range(60):
        after = node.run()
        assert after.sigma_s >= 3600
        assert not after.second_confirmed
    # What was asked before the step may be told after it.
    node.opinion = Opinion("there", 1e-3, 4e-3, 19 * NS_PER_S)
    assert node.run().sigma_s >= 3600
    node.opinion = Opinion("here", -3600.0, 4e-3, node.second * NS_PER_S)
    assert node.run().sigma_s >= 3600
    node.stepped_s = 0.0
    node.run()
    node.opinion = Opinion("here", 1e-3, 4e-3, (node.second + 1) * NS_PER_S)
    assert node.run(12).sigma_s < 10e-3


def test_an_opinion_outlives_a_step_within_its_own_error() -> None:
    node = Node()
    node.opinion = Opinion("here", 1e-3, 50e-3, 0)
    node.run(5)
    node.stepped_s = 20e-3
    assert node.run().sigma_s < 0.1


def test_a_better_error_is_told_with_the_better_source_and_not_before_it(node: Node) -> None:
    node.tracking, node.kernel = None, NTP
    assert node.run(20) == NTP
    node.tracking = replace(parse(PPS_LINE), interval_s=4.0)
    for _ in range(int(RISE_S)):
        quality = node.run()
        assert (quality.source, quality.sigma_s, quality.bound_s) == ("ntp", 2e-3, 6e-3)
    quality = node.run(2)
    assert quality.source == "pps"
    assert quality.sigma_s < 1e-3


def test_what_is_wrong_is_told_in_words_that_do_not_change_with_each_message() -> None:
    discipline, rng = Discipline(), np.random.default_rng(1)
    told = set()
    for second in range(60):
        late_ns = round(rng.uniform(0.05, 0.95) * NS_PER_S)
        now_ns = second * NS_PER_S + late_ns
        said = ReceiverReading(now_ns, (UTC_S + second - 1) * NS_PER_S, valid=True)
        host = HostReading(now_ns, UTC_S * NS_PER_S, 50, NTP)
        told.add(discipline.judge(Evidence(host, receiver=(said,)))[1])
    assert len(told - {()}) == 1
    assert "+1 s off by the receiver" in str(told)


def test_a_reference_that_is_gone_leaves_holdover_with_a_growing_error() -> None:
    discipline = Discipline()
    tracking = parse(PPS_LINE)

    def at(age_s: float) -> ClockQuality:
        now_s = tracking.updated_s + age_s
        host = HostReading(round(now_s * NS_PER_S), 0, 50, FREE)
        grown = replace(tracking, root_dispersion_s=tracking.root_dispersion_s + 1e-6 * age_s)
        return discipline.judge(Evidence(host, grown))[0]

    for age_s in range(12):
        held = at(age_s)
    assert (held.source, held.holdover_s) == ("pps", 0.0)
    held = at(600.0)
    assert (held.source, held.holdover_s) == ("pps", pytest.approx(600.0))
    assert held.bound_s is not None
    assert held.bound_s > 600e-6
    assert at(3700.0).source == "free"


@pytest.mark.parametrize("age_s", [-100.0, 3500.0])
def test_a_clock_that_is_not_the_one_that_chrony_measures_is_free(age_s: float) -> None:
    tracking = parse(PPS_LINE)
    discipline = Discipline()
    for second in range(30):
        host_ns = round((tracking.updated_s + age_s + second) * NS_PER_S)
        quality, _ = discipline.judge(Evidence(HostReading(host_ns, 0, 50, FREE), tracking))
        assert quality.source == "free"


def test_the_kernels_step_at_a_leap_second_is_no_suspicion() -> None:
    leap_s = 1_483_228_800  # 2017-01-01T00:00:00Z
    good = ClockQuality("ntp", 1e-3, 3e-3)

    def source_after_step_at(utc_s: int) -> str:
        discipline = Discipline()
        for second in range(30):
            offset_ns = (utc_s - 20 - (second > 20)) * NS_PER_S
            host = HostReading(second * NS_PER_S, offset_ns, 50, good)
            quality, _ = discipline.judge(Evidence(host))
        return quality.source

    assert source_after_step_at(leap_s) == "ntp"
    assert source_after_step_at(leap_s + 86_400) == "free"
