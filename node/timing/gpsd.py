"""The line to gpsd: a thread that listens, connects anew, and hands reports to the receiver.

At the live end of timing, with gpsdclient for the protocol. gpsd may be absent, hang, be restarted,
or send nothing since no receiver is plugged in: each is told, and none stops anything.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from gpsdclient.client import GPSDClient

from node.timing.receiver import Receiver, ReceiverState
from node.types import ReceiverReading

log = logging.getLogger(__name__)

SILENCE_S: Final = 10.0
PAUSE_S: Final = 3.0
MOST_READINGS: Final = 64
PULSES_TOO: Final = b'?WATCH={"enable":true,"json":true,"pps":true};\n'


class GpsdListener:
    """Listens to gpsd in a daemon thread.

    Parameters
    ----------
    address
        ``host:port``.
    receiver
        Makes sense of what comes.
    host_utc_ns
        Gives UTC at a CLOCK_MONOTONIC by a clock that others than the receiver discipline; None
        where there is none.
    """

    def __init__(
        self, address: str, receiver: Receiver, host_utc_ns: Callable[[int], int | None]
    ) -> None:
        self._address = address
        self._receiver = receiver
        self._host_utc_ns = host_utc_ns
        self._lock = threading.Lock()
        self._readings: deque[ReceiverReading] = deque(maxlen=MOST_READINGS)
        self._closing = threading.Event()
        self._failure: str | None = f"gpsd at {address} is being asked"

    @property
    def failure(self) -> str | None:
        """Why nothing comes from gpsd; None while something does."""
        return self._failure

    def start(self) -> None:
        """Begin to listen."""
        threading.Thread(target=self._run, name="gpsd-listener", daemon=True).start()

    def close(self) -> None:
        """Listen no more. Does not wait for what is under way."""
        self._closing.set()

    def take_readings(self) -> tuple[ReceiverReading, ...]:
        """Give the readings since the last call, oldest first."""
        with self._lock:
            readings = tuple(self._readings)
            self._readings.clear()
        return readings

    def state(self, kernel_pulse: bool) -> ReceiverState:
        """Say how the receiver does; `kernel_pulse` is whether the kernel has seen its pulse."""
        now_ns = time.monotonic_ns()
        with self._lock:
            if kernel_pulse:
                self._receiver.pulse_seen(now_ns)
            return self._receiver.state(now_ns)

    def _run(self) -> None:
        while not self._closing.is_set():
            fault: Exception | None = None
            try:
                self._listen()
                failure = f"gpsd at {self._address} has hung up"
            except TimeoutError:
                failure = (
                    f"gpsd at {self._address} says nothing: is a receiver connected? "
                    "See `gpsmon` or `cgps`"
                )
            except (OSError, ValueError, RecursionError) as error:
                reason = getattr(error, "strerror", None) or _said(error)
                failure = f"gpsd at {self._address}: {reason}"
            except Exception as error:
                # A fault of ours. Without this thread nobody would learn of it, nor hear gpsd.
                fault = error
                failure = f"gpsd at {self._address} was not understood: {_said(error)}"
            if failure != self._failure:
                log.warning("%s", failure, exc_info=fault)
            self._failure = failure
            self._closing.wait(PAUSE_S)

    def _listen(self) -> None:
        host, _, port = self._address.rpartition(":")
        client: Any = GPSDClient(host.strip("[]"), port, timeout=SILENCE_S)
        with self._lock:
            self._receiver.forget()
        first = True
        try:
            for line in client.json_stream():
                now_ns = time.monotonic_ns()
                if self._closing.is_set():
                    return
                if first:
                    client.sock.sendall(PULSES_TOO)
                    first = False
                self._take(line, now_ns)
        finally:
            client.close()

    def _take(self, line: str, now_ns: int) -> None:
        report = json.loads(line)
        if not isinstance(report, dict):
            return
        host_utc_ns = self._host_utc_ns(now_ns)
        with self._lock:
            reading = self._receiver.take(report, now_ns, host_utc_ns)
            if reading is not None:
                self._readings.append(reading)
        if report.get("class") in ("TPV", "SKY", "PPS", "TOFF"):
            self._failure = None


def _said(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
