"""What chrony and gpsd say: lines of `chronyc -c tracking`, sessions with gpsd over its socket."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, Final
from unittest.mock import patch

from node.timing import chrony
from node.timing import gpsd as gpsd_module
from node.timing.gpsd import GpsdListener
from node.timing.leap import LeapTable
from node.timing.receiver import MADE_UTC_S, Receiver
from node.types import NS_PER_S, ReceiverReading
from node.utc import LATEST_UTC_NS, parse_utc_ns, utc_text
from tests.fuzz import mutate
from tests.fuzz.engine import Target, WrongError

LARGEST_S: Final = 1e10
"""No time, offset or delay that a clock may say is as large, but for the time of day itself."""

TRACKING: Final = [
    b"50505300,PPS,1,1795500000.123,-0.000000123,0.0000001,0.0000002,-12.345,0.001,0.012,"
    b"0.000000001,0.000011,16.0,Normal\n",
    b"C0A80001,192.168.0.1,3,1795500000.123,0.000523,0.0001,0.0002,3.4,-0.001,0.12,0.0231,0.0021,"
    b"64.2,Normal\n",
    b"47505300,GPS,1,1795500000.5,0.012,0.003,0.004,1.1,0.0,0.5,0.2,0.1,8.0,Insert second\n",
    b"00000000,,0,0.000000000,0.0,0.0,0.0,0.0,0.0,0.0,1.0,1.0,0.0,Not synchronised\n",
    b"7F7F0101,,10,1795500000.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0,Normal\n",
]


def _make_tracking(rng: Random, corpus: list[bytes]) -> bytes:
    text = rng.choice(corpus)
    pick = rng.random()
    if pick < 0.85:
        changed = mutate.fields(rng, text.decode().strip(), ",")
        text = changed.encode("utf-8", "surrogatepass") + rng.choice((b"\n", b"", b"\r\n"))
    return text if pick < 0.75 else mutate.raw(rng, text, rng.choice(corpus))


def _check_tracking(data: bytes, _folder: Path) -> bool:
    line = data.decode("utf-8", "replace")
    try:
        said = chrony.parse(line)
    except chrony.ChronyError:
        return False
    fields = line.strip().split(",")
    if len(fields) != 14:
        raise WrongError("not 14 fields")
    if not (fields[2].isascii() and fields[2].isdigit() and 0 <= said.stratum == int(fields[2])):
        raise WrongError("stratum")
    figures = (said.offset_s, said.rms_offset_s, said.rate_ppm, said.root_delay_s)
    for figure in (*figures, said.root_dispersion_s, said.interval_s):
        if not abs(figure) < LARGEST_S:
            raise WrongError("a figure that no clock has")
    if not 0 <= said.updated_s < LATEST_UTC_NS / NS_PER_S:
        raise WrongError("a time that no clock has")
    if [said.updated_s, said.offset_s, said.rate_ppm] != [float(fields[i]) for i in (3, 4, 7)]:
        raise WrongError("figures of other fields")
    if said.root_delay_s < 0 or said.root_dispersion_s < 0:
        raise WrongError("negative distance")
    if len(said.reference) > 64 or not said.reference.isprintable():
        raise WrongError("a reference that no health message can hold")
    quality = said.quality()
    if (quality is None) != (said.source == "free"):
        raise WrongError("a clock vouched for by nothing")
    if fields[13] == "Not synchronised" and quality is not None:
        raise WrongError("not synchronised, and vouched for")
    if quality is not None and quality.bound_s is not None:
        for seconds in (quality.sigma_s, quality.bound_s):
            if not (math.isfinite(seconds) and seconds > 0):
                raise WrongError("an error that is no number")
    return True


def _tpv(second: int, **more: Any) -> dict[str, Any]:
    time = utc_text((MADE_UTC_S + 10_000_000 + second) * NS_PER_S)
    return {"class": "TPV", "device": "/dev/ttyAMA0", "mode": 3, "time": time} | more


_PLACE: Final = {"lat": 47.9, "lon": 106.9, "altHAE": 1300.0, "epx": 3.1, "epy": 4.2, "epv": 9.0}
_VERSION: Final = {"class": "VERSION", "release": "3.25", "proto_major": 3, "proto_minor": 15}
_SKY: Final = {
    "class": "SKY",
    "nSat": 3,
    "uSat": 2,
    "satellites": [{"PRN": 1, "used": True}, {"PRN": 2, "used": False}, {"PRN": 3, "used": True}],
}
_DEVICE: Final = {"class": "DEVICE", "path": "/dev/ttyAMA0", "activated": 0}
_PPS: Final = {"class": "PPS", "real_sec": 1795500000, "clock_sec": 1795500000, "shm": 0}


def _session(step_s: int, reports: list[Any]) -> bytes:
    # The first byte is how many seconds pass from line to line, and whether the host knows UTC.
    lines = (json.dumps(report, separators=(",", ":")).encode() for report in reports)
    return bytes([step_s]) + b"\n".join(lines) + b"\n"


def _sessions() -> list[bytes]:
    steady = [_tpv(s, leapseconds=18, **_PLACE) for s in range(1, 13)]
    moved = [_tpv(s, **(_PLACE | {"lat": 48.9})) for s in range(30, 200, 5)]
    return [
        _session(1, [_VERSION, _DEVICE, _SKY, *steady, _PPS]),
        _session(
            1, [_VERSION, _SKY, *(_tpv(s, mode=2, alt=12.0, lat=1.0, lon=2.0) for s in (1, 2))]
        ),
        _session(1, [_VERSION, *(_tpv(s, **_PLACE) for s in (1, 2, 3, 99, 100, 101))]),
        _session(5, [_VERSION, *(_tpv(s, **_PLACE) for s in range(5, 25, 5)), *moved]),
        _session(5, [_VERSION, *(_tpv(s, lat=1.0, lon=180.0, alt=3.0) for s in range(5, 900, 5))]),
        _session(1, [_VERSION, {"class": "TPV", "mode": 1}, _tpv(2, mode=0), {"class": "TOFF"}]),
        _session(128 + 1, [_VERSION, *(_tpv(s, leapseconds=17, **_PLACE) for s in range(1, 11))]),
        _session(1, [_VERSION, *({**t, "time": "2006-01-01T00:00:00Z"} for t in steady)]),
        _session(1, [_VERSION, *(_tpv(s, leapseconds=17, **_PLACE) for s in range(1, 11))]),
        _session(9, [_VERSION, _SKY, *(_tpv(s, mode=2, lat=1.0, lon=2.0) for s in (9, 18))]),
    ]


def _make_session(rng: Random, corpus: list[bytes]) -> bytes:
    data = rng.choice(corpus if rng.random() < 0.1 else corpus[:3] + corpus[5:])
    pick = rng.random()
    step, lines = data[:1], data[1:].splitlines()
    known = frozenset(lines)
    if pick < 0.85:
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(lines)) if rng.random() < 0.05 else rng.randrange(1, len(lines))
            other = rng.choice(rng.choice(corpus)[1:].splitlines())
            if rng.random() < 0.2:
                lines.insert(at, other)
            elif lines[at] in known:
                lines[at] = mutate.json_text(rng, [lines[at]])
    data = step + b"\n".join(lines) + b"\n"
    return data if pick < 0.8 else mutate.raw(rng, data, rng.choice(corpus))


class _Watched(Receiver):
    """A receiver that is looked at after each report."""

    def take(
        self, report: Mapping[str, Any], monotonic_ns: int, host_utc_ns: int | None = None
    ) -> ReceiverReading | None:
        reading = super().take(report, monotonic_ns, host_utc_ns)
        if reading is not None:
            _judge_reading(reading, report, monotonic_ns)
        return reading


def _judge_reading(reading: ReceiverReading, report: Mapping[str, Any], now_ns: int) -> None:
    if reading.monotonic_ns != now_ns or not 0 <= reading.utc_ns <= LATEST_UTC_NS:
        raise _SeenError("a reading of another time")
    if reading.utc_ns != parse_utc_ns(report["time"]):
        raise _SeenError("a second that was not said")
    if reading.valid and not (type(report.get("mode")) is int and report["mode"] >= 2):
        raise _SeenError("valid without a fix")
    if reading.valid and reading.utc_ns < MADE_UTC_S * NS_PER_S:
        raise _SeenError("valid before this software was made")


class _SeenError(BaseException):
    """As `WrongError`, past the listener's net for faults."""


class _Gpsd:
    """A socket that a gpsd has said its session into, and hung up."""

    def __init__(self, said: bytes, closing: Any) -> None:
        self._said = said
        self._closing = closing

    def send(self, _data: bytes) -> None: ...

    def sendall(self, _data: bytes) -> None: ...

    def close(self) -> None: ...

    def makefile(self, _mode: str, encoding: str) -> Iterator[str]:
        try:
            for line in self._said.split(b"\n"):
                yield line.decode(encoding) + "\n"
        finally:
            self._closing.set()


def _check_session(data: bytes, _folder: Path) -> bool:
    step, said = data[:1] or b"\1", data[1:]
    step_ns = (step[0] & 127) * NS_PER_S
    now_ns = NS_PER_S

    def monotonic_ns() -> int:
        nonlocal now_ns
        now_ns += step_ns
        return now_ns

    def host_utc_ns(monotonic_ns: int) -> int | None:
        began_ns = (MADE_UTC_S + 10_000_000 - 1) * NS_PER_S
        return began_ns + monotonic_ns if step[0] & 128 else None

    receiver = _Watched(LeapTable())
    listener = GpsdListener("localhost:2947", receiver, host_utc_ns)
    closing = listener._closing
    with (
        patch.object(gpsd_module, "time", SimpleNamespace(monotonic_ns=monotonic_ns)),
        patch("gpsdclient.client.socket.create_connection", lambda **_: _Gpsd(said, closing)),
        patch.object(gpsd_module.log, "level", logging.CRITICAL + 1),
        patch.object(gpsd_module.log, "_cache", {}),
    ):
        try:
            listener._run()
        except _SeenError as error:
            raise WrongError(str(error)) from error
        if "was not understood" in str(listener.failure):
            raise WrongError(listener.failure)
        _judge_state(listener)
        return bool(listener.take_readings())


def _judge_state(listener: GpsdListener) -> None:
    state = listener.state(kernel_pulse=False)
    if state.fix not in (0, 1, 2, 3) or (state.utc_valid and (state.fix < 2 or state.reason)):
        raise WrongError("a fix that is none")
    for count in (state.satellites_seen, state.satellites_used):
        if count is not None and not (type(count) is int and 0 <= count < LARGEST_S):
            raise WrongError("a number of satellites that is none")
    place = state.position
    if place is None:
        return
    if not (abs(place.lat_deg) <= 90 and abs(place.lon_deg) <= 180):
        raise WrongError("a place off the Earth")
    if not (-500 <= place.alt_m <= 9000 and 0 < place.sigma_m < LARGEST_S):
        raise WrongError("a height or an error that no node has")


TARGETS: Final = (
    Target(
        "chrony",
        200_000,
        ("node.timing.chrony",),
        lambda: list(TRACKING),
        _make_tracking,
        _check_tracking,
    ),
    Target(
        "gpsd",
        120_000,
        ("node.timing.gpsd", "node.timing.receiver"),
        _sessions,
        _make_session,
        _check_session,
    ),
)
