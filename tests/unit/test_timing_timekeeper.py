"""Who may vouch for a receiver: a host that follows a network, not one that may follow it."""

import time

import pytest

from node.settings import TimingSettings
from node.timing import FakeHostClock, Timekeeper
from node.timing.chrony import ChronyWatch
from node.timing.ntp import Opinion, SecondOpinion
from node.types import NS_PER_S, ClockQuality

UTC_S = 1_795_642_316
NTP_LINE = (
    f"C0A80001,192.168.0.1,3,{UTC_S}.5,0.000812,0.0001,0.0004,-12.1,0.01,0.2,0.021,0.0031,64.2,"
    "Normal"
)


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> FakeHostClock:
    monkeypatch.setattr("node.timing.discipline.RISE_S", 0.0)
    offset_ns = UTC_S * NS_PER_S - time.monotonic_ns()
    return FakeHostClock(offset_ns, ClockQuality("ntp", 2e-3, 6e-3))


def test_the_kernels_word_alone_does_not_vouch_for_the_receiver(host: FakeHostClock) -> None:
    keeper = Timekeeper(TimingSettings(chrony=False), host)
    assert keeper.read().host.quality.source == "ntp"
    assert keeper._utc_by_network(time.monotonic_ns()) is None


def test_a_server_that_agrees_lets_the_host_vouch_for_the_receiver(
    host: FakeHostClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    opinion = Opinion("here", 1e-3, 5e-3, time.monotonic_ns())
    monkeypatch.setattr(SecondOpinion, "latest", opinion)
    keeper = Timekeeper(TimingSettings(chrony=False), host)
    keeper.read()
    assert keeper._utc_by_network(7) == 7 + host.utc_minus_monotonic_ns


def test_a_host_that_follows_servers_by_chrony_vouches_for_the_receiver(
    host: FakeHostClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = ChronyWatch(("printf", "%s", NTP_LINE))
    monkeypatch.setattr("node.timing.timekeeper.ChronyWatch", lambda: watch)
    with Timekeeper(TimingSettings(), host) as keeper:
        end = time.monotonic() + 10
        while watch.latest is None:
            assert time.monotonic() < end
            time.sleep(0.02)
        assert keeper.read().host.quality.source == "ntp"
        assert keeper._utc_by_network(7) == 7 + host.utc_minus_monotonic_ns
