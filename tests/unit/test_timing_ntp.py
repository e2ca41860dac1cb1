"""What a second opinion does to what is claimed of the clock."""

import ntplib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.timing.ntp import Opinion, SecondOpinion, ask, weigh
from node.types import NS_PER_S, ClockQuality

NTP = ClockQuality("ntp", sigma_s=2e-3, bound_s=6e-3)
FREE = ClockQuality("free", sigma_s=3600.0)


def test_no_opinion_changes_nothing() -> None:
    assert weigh(NTP, None, 0) == (NTP, None)


def test_a_server_that_differs_is_named_in_the_reason() -> None:
    _, reason = weigh(NTP, Opinion("a.example", 1.5, 0.002, 0), 0)
    assert reason is not None
    assert "a.example" in reason
    assert "-1.5" in reason


def test_an_old_opinion_counts_no_more() -> None:
    wrong = Opinion("a", 10.0, 0.001, 0)
    assert weigh(NTP, wrong, 4 * 3600 * NS_PER_S) == (NTP, None)


def test_a_free_clock_is_as_far_off_as_the_opinion_says_and_stays_free() -> None:
    quality, reason = weigh(FREE, Opinion("a", -0.3, 0.01, 0), 0)
    assert quality.source == "free"
    assert quality.sigma_s == pytest.approx(0.3, rel=0.01)
    assert not quality.second_confirmed
    assert reason is None


@given(offset_s=st.floats(-10, 10), uncertainty_s=st.floats(0, 1))
def test_sigma_never_stays_below_a_difference_that_is_told(
    offset_s: float, uncertainty_s: float
) -> None:
    quality, reason = weigh(NTP, Opinion("a", offset_s, uncertainty_s, 0), 0)
    assert quality.second_confirmed == (reason is None)
    if reason is None:
        assert abs(offset_s) <= 3 * NTP.sigma_s + uncertainty_s
    else:
        assert quality.sigma_s >= abs(offset_s)
        assert quality.bound_s is None


@pytest.mark.parametrize("server", ["", "a:b", "a:99999"])
def test_a_server_that_is_no_address_is_a_reason_and_no_crash(server: str) -> None:
    with pytest.raises(ntplib.NTPException, match="host:port"):
        ask(server)


def test_a_server_that_does_not_answer_is_told_and_the_last_opinion_kept() -> None:
    second = SecondOpinion(("bad:port",), 16)
    assert second.ask_all() is None
    assert second.latest is None
    assert "bad:port" in second.failures


@pytest.mark.parametrize("server", ["a..b", "x" * 70 + ".example"])
def test_a_server_whose_name_no_dns_can_hold_is_a_failure_of_that_server(server: str) -> None:
    second = SecondOpinion((server,), 16)
    assert second.ask_all() is None
    assert "cannot be looked up" in second.failures[server]


def test_an_unforeseen_fault_is_a_failure_of_that_server_and_the_others_are_asked(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fault(server: str) -> Opinion:
        if server == "broken":
            raise RuntimeError
        return Opinion(server, 0.0, 1e-3, 0)

    monkeypatch.setattr("node.timing.ntp.ask", fault)
    second = SecondOpinion(("broken", "good"), 16)
    assert second.ask_all() == Opinion("good", 0.0, 1e-3, 0)
    assert second.failures == {"broken": "RuntimeError"}
    assert "Traceback" in caplog.text
