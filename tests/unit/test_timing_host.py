"""What the host says of its own clocks."""

import ctypes
import logging
import time

import pytest

from node.timing import FakeHostClock, HostClock, host, utc_now_ns
from node.timing.host import FREE_SIGMA_S, kernel_quality
from node.types import NS_PER_S, ClockQuality


def answer(monkeypatch: pytest.MonkeyPatch, state: int = 0, **fields: int) -> None:
    timex = host._Timex(**fields)
    monkeypatch.setattr(host, "_adjtimex", lambda: (state, timex))


def test_a_reading_is_sharp_and_agrees_with_the_wall_clock() -> None:
    reading = HostClock().read()
    assert 0 <= reading.width_ns < 1_000_000
    now_ns = time.monotonic_ns() + reading.utc_minus_monotonic_ns
    assert abs(now_ns - time.time_ns()) < 1_000_000
    assert abs(utc_now_ns() - now_ns) < 50_000_000


def test_the_kernels_structure_has_the_kernels_size() -> None:
    assert ctypes.sizeof(host._Timex) == (208 if ctypes.sizeof(ctypes.c_long) == 8 else 128)
    assert kernel_quality().source in ("ntp", "free")


def test_a_clock_that_nothing_disciplines_is_free_and_claims_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer(monkeypatch, state=5, status=0x40, maxerror=16_000_000)
    assert kernel_quality() == ClockQuality(source="free", sigma_s=FREE_SIGMA_S)


def test_a_disciplined_clock_carries_the_kernels_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, status=0x2001, maxerror=30_000, esterror=400)
    quality = kernel_quality()
    assert quality.source == "ntp"
    assert quality.bound_s == pytest.approx(30e-3)
    assert quality.sigma_s == pytest.approx(10e-3)


def test_an_error_of_nothing_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, status=0x2001, maxerror=0, esterror=0)  # as systemd-timesyncd tells it
    assert kernel_quality().sigma_s >= 1e-3


def test_a_sandbox_that_forbids_to_ask_leaves_the_clock_free(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise PermissionError(1, "adjtimex: Operation not permitted")

    monkeypatch.setattr(host, "_adjtimex", refuse)
    caplog.set_level(logging.INFO)
    clock = HostClock()
    assert clock.read().quality.source == "free"
    clock.read()
    assert caplog.text.count("not permitted") == 1
    assert [record.levelname for record in caplog.records] == ["INFO"]  # each run of the unit is so


def test_the_shipped_fake_says_what_it_is_told() -> None:
    quality = ClockQuality("ntp", 1e-3)
    fake = FakeHostClock(5 * NS_PER_S, quality, monotonic_ns=lambda: 7)
    fake.step(0.25)
    reading = fake.read()
    assert (reading.monotonic_ns, reading.utc_minus_monotonic_ns) == (7, 5_250_000_000)
    assert reading.quality is quality
