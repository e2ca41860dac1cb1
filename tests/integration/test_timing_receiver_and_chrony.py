"""Time from a real gpsd and a real chronyd, with the faults that they have."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node.settings import TimingSettings
from node.timing import HostClock, Moment, ReceiverState, Timekeeper
from node.timing.chrony import ChronyWatch
from node.utc import parse_utc_ns
from tests.evidence import ROOT
from tests.hil import virtual_chrony, virtual_receiver
from tests.hil.virtual_chrony import VirtualChrony
from tests.hil.virtual_receiver import Gpsd, VirtualReceiver, free_port

GNSS = Path(os.environ.get("GUNFIRE_NODE_DATA", ROOT.parent / "shared" / "data")) / "gnss"
OFFSET_S = 250e-6

needs_gpsd = pytest.mark.skipif(
    virtual_receiver.missing_tools() is not None, reason=f"needs {virtual_receiver.missing_tools()}"
)
needs_chrony = pytest.mark.skipif(
    virtual_chrony.missing_tools() is not None, reason=f"needs {virtual_chrony.missing_tools()}"
)
pytestmark = pytest.mark.slow


def settings(**given: object) -> TimingSettings:
    return TimingSettings(**{"chrony": False, **given})  # type: ignore[arg-type]


def until(
    keeper: Timekeeper, wanted: Callable[[Moment], object], deadline_s: float = 30.0
) -> Moment:
    """Read the time as the daemon does, until it is as wanted."""
    end = time.monotonic() + deadline_s
    while True:
        moment = keeper.read()
        if wanted(moment):
            return moment
        assert time.monotonic() < end, moment
        time.sleep(0.25)


def receiver(moment: Moment) -> ReceiverState:
    assert moment.receiver is not None
    return moment.receiver


@pytest.fixture
def sky() -> Iterator[VirtualReceiver]:
    with VirtualReceiver() as running:
        yield running


@needs_gpsd
def test_a_receiver_over_a_real_gpsd_tells_second_fix_and_place(sky: VirtualReceiver) -> None:
    with Gpsd(sky.device) as gpsd, Timekeeper(settings(gpsd=gpsd.address), HostClock()) as keeper:
        moment = until(keeper, lambda m: m.receiver_readings and receiver(m).position)
        said = moment.receiver_readings[-1]
        host_ns = said.monotonic_ns + moment.host.utc_minus_monotonic_ns
        assert 0.05 <= (host_ns - said.utc_ns) / 1e9 <= 0.9
        assert not said.valid
        assert "leap seconds" in receiver(moment).reason or "steadily" in receiver(moment).reason
        state = receiver(until(keeper, lambda m: receiver(m).satellites_used))
        assert (state.fix, state.satellites_used, state.satellites_seen) == (3, 9, 9)
        assert state.position is not None
        assert state.position.metres_to(47.85, 106.2) < 1.0
        sky.fix = False
        moment = until(keeper, lambda m: receiver(m).fix == 1)
        assert "it has no fix" in " ".join(moment.reasons)


@needs_gpsd
def test_gpsd_absent_hung_and_restarted_is_told_and_found_again(
    sky: VirtualReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.timing.gpsd.SILENCE_S", 2.5)
    monkeypatch.setattr("node.timing.gpsd.PAUSE_S", 0.2)
    gpsd = Gpsd(sky.device)

    def says(word: str) -> Callable[[Moment], bool]:
        return lambda moment: word in " ".join(moment.reasons)

    with Timekeeper(settings(gpsd=gpsd.address), HostClock()) as keeper:
        until(keeper, says("refused"))
        with gpsd:
            until(keeper, lambda m: receiver(m).fix == 3)
            gpsd.send(signal.SIGSTOP)
            moment = until(keeper, says("says nothing"))
            until(keeper, lambda m: receiver(m).fix == 0)
            gpsd.send(signal.SIGCONT)
            until(keeper, lambda m: receiver(m).fix == 3)
            gpsd.stop()
            moment = until(keeper, lambda m: not receiver(m).utc_valid and receiver(m).fix == 0)
            assert "gpsd at localhost" in " ".join(moment.reasons)
            gpsd.start()
            until(keeper, lambda m: receiver(m).fix == 3)
            sky.silent = True
            until(keeper, says("is a receiver connected?"))


@needs_gpsd
@pytest.mark.skipif(not GNSS.is_dir(), reason=f"needs recordings in {GNSS}")
@pytest.mark.skipif(shutil.which("gpsfake") is None, reason="needs gpsfake (apt: gpsd-tools)")
@pytest.mark.parametrize(
    ("log", "earliest", "fix"),
    [
        ("ublox-8-time.log", "2017-01-01T00:00:00Z", 2),
        ("ublox-zed-f9p-nmea.log", "2019-01-01T00:00:00Z", 3),
    ],
)
def test_recorded_receivers_are_old_and_so_not_believed(log: str, earliest: str, fix: int) -> None:
    """By its own date no record is right today; told to be of its time, it is read."""
    for made_utc_s in (None, parse_utc_ns(earliest) // 10**9):
        port = free_port()
        with (
            played(GNSS / log, port),
            Timekeeper(
                settings(gpsd=f"localhost:{port}"), HostClock(), made_utc_s=made_utc_s
            ) as keeper,
        ):
            moment = until(keeper, lambda m: receiver(m).fix == fix and m.receiver_readings)
            assert not any(reading.valid for reading in moment.receiver_readings)
            if made_utc_s is None:
                assert "rolled over" in receiver(moment).reason
            else:
                # Played faster than time runs, its time does not run steadily.
                assert "steadily" in receiver(moment).reason
            assert receiver(moment).position is not None


@contextmanager
def played(log: Path, port: int) -> Iterator[None]:
    with subprocess.Popen(
        ["gpsfake", "-q", "-c", "0.05", "-P", str(port), log],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@needs_chrony
def test_a_real_chrony_with_a_pulse_is_believed_falls_and_rises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.timing.chrony.INTERVAL_S", 0.5)
    monkeypatch.setattr("node.timing.chrony.TIMEOUT_S", 1.0)
    monkeypatch.setattr("node.timing.discipline.RISE_S", 2.0)
    with VirtualChrony(tmp_path / "chrony", OFFSET_S) as chrony:
        monkeypatch.setattr(
            "node.timing.timekeeper.ChronyWatch", lambda: ChronyWatch(chrony.command)
        )
        with Timekeeper(settings(chrony=True), HostClock()) as keeper:
            assert keeper.read().host.quality.source == "free"
            moment = until(keeper, lambda m: m.host.quality.source == "pps")
            assert moment.tracking is not None
            assert (moment.tracking.reference, moment.tracking.stratum) == ("PPS", 1)
            assert moment.tracking.offset_s == pytest.approx(-OFFSET_S, abs=30e-6)
            quality = moment.host.quality
            assert quality.bound_s is not None
            assert OFFSET_S < quality.bound_s < 10 * OFFSET_S
            assert 3 * quality.sigma_s >= OFFSET_S
            chrony.send(signal.SIGSTOP)
            moment = until(keeper, lambda m: m.host.quality.source == "free")
            assert "chrony" in " ".join(moment.reasons)
            chrony.send(signal.SIGCONT)
            until(keeper, lambda m: m.host.quality.source == "pps")
            chrony.stop()
            until(keeper, lambda m: m.host.quality.source == "free", 5.0)
            chrony.start()
            until(keeper, lambda m: m.host.quality.source == "pps")


@pytest.mark.skipif(shutil.which("faketime") is None, reason="needs faketime (apt: faketime)")
@pytest.mark.parametrize("step_s", [1, 3600, -3600])
def test_a_step_of_the_hosts_clock_is_seen_by_the_real_clock_reader(
    tmp_path: Path, step_s: int
) -> None:
    """A libfaketime steps what this process reads; only the discipline that was told is made up."""
    moved = tmp_path / "faketimerc"
    moved.write_text("+0s")
    program = """
import select, sys, time
from dataclasses import replace
from pathlib import Path
from node.timing import HostClock
from node.timing.discipline import Discipline, Evidence
from node.types import ClockQuality
good, moved, step_s = ClockQuality("ntp", 1e-3, 3e-3), Path(sys.argv[1]), int(sys.argv[2])
clock, discipline = HostClock(), Discipline()
def judge():
    return discipline.judge(Evidence(replace(clock.read(), quality=good)))
end = time.monotonic() + 12
while time.monotonic() < end:
    quality, _ = judge()
    select.select([], [], [], 0.2)  # libfaketime breaks sleep
print(quality.source)
moved.write_text(f"{step_s:+d}s")
select.select([], [], [], 1.2)
quality, reasons = judge()
print(quality.source, quality.sigma_s >= abs(step_s) * 0.99, discipline.steps, reasons[0])
"""
    done = subprocess.run(
        [
            "faketime",
            "-f",
            "+0s",
            "env",
            "-u",
            "FAKETIME",
            sys.executable,
            "-c",
            program,
            moved,
            str(step_s),
        ],
        env={
            **os.environ,
            "FAKETIME_TIMESTAMP_FILE": str(moved),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    before, after = done.stdout.splitlines()
    assert before == "ntp"
    assert after.startswith("free True 1 the host's clock was stepped by"), after
