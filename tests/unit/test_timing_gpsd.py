"""The line to gpsd outlives whatever comes over it."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import pytest

from node.timing.gpsd import GpsdListener
from node.timing.leap import LeapTable
from node.timing.receiver import Receiver
from node.types import ReceiverReading

VERSION = '{"class":"VERSION","release":"3.25"}'
TPV = {"class": "TPV", "mode": 3, "time": "2026-05-01T12:00:00.000Z", "lat": 47.0, "lon": 106.0}


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.timing.gpsd.PAUSE_S", 0.05)


@contextmanager
def a_gpsd(say: Callable[[], str]) -> Iterator[str]:
    """Say a line to each who connects, and hang up on him."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client:
                    client.recv(100)
                    client.sendall(f"{VERSION}\n{say()}\n".encode())
                    client.recv(100)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def listening(address: str, receiver: Receiver) -> Iterator[GpsdListener]:
    listener = GpsdListener(address, receiver, lambda _: None)
    with closing(listener):
        listener.start()
        yield listener


def until(wanted: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not wanted():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("key", ["altHAE", "lat", "epx"])
def test_a_number_that_no_float_holds_is_no_number(key: str) -> None:
    line = json.dumps({**TPV, "altHAE": 1.0, key: 10**400})
    with a_gpsd(lambda: line) as address, listening(address, Receiver(LeapTable())) as listener:
        until(listener.take_readings)
        until(listener.take_readings)
        position = listener.state(kernel_pulse=False).position
        assert (position is None) == (key != "epx")


class Broken(Receiver):
    """A receiver's reader with a fault in it."""

    def take(
        self, report: Mapping[str, Any], monotonic_ns: int, host_utc_ns: int | None = None
    ) -> ReceiverReading | None:
        if report.get("mode") == 0:
            raise RuntimeError  # without a word
        return super().take(report, monotonic_ns, host_utc_ns)


def test_an_unforeseen_fault_is_told_and_the_listener_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lines = [json.dumps({**TPV, "mode": 0})]
    with a_gpsd(lambda: lines[0]) as address, listening(address, Broken(LeapTable())) as listener:
        until(lambda: "RuntimeError" in (listener.failure or ""))
        time.sleep(0.5)
        assert caplog.text.count("Traceback") == 1  # told once, however often it comes
        lines[0] = json.dumps(TPV)
        until(listener.take_readings)
        lines[0] = json.dumps({**TPV, "mode": 0})
        until(lambda: caplog.text.count("Traceback") == 2)  # after a recovery it is news again


def test_nesting_without_end_is_no_fault_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    lines = ["[" * 100_000]
    with a_gpsd(lambda: lines[0]) as address, listening(address, Receiver(LeapTable())) as listener:
        until(lambda: "recursion" in (listener.failure or ""))
        assert "Traceback" not in caplog.text
        lines[0] = json.dumps(TPV)
        until(listener.take_readings)
