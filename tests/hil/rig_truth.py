"""When a rig's shots truly were: measured beside the pulse, so that no player has to be punctual.

The player has one output more than the node has microphones, and plays a mark in it as each shot
begins. A second sound card, the witness, hears a receiver's pulse in its first input and the marks
in its second. Outputs of a card begin together, and inputs of a card are converted together: where
a mark stands between two pulses is when the shot began, whatever the player's latency, its crystal
and the witness's own delay may be.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import IO, Final, Self

import numpy as np

from tests.hil.rig_command import Command, RigError
from tests.hil.rig_marks import BELL, FULL, SLOPE, Finder, Floats
from tests.hil.unit_stage import RATE

CHECK_S: Final = 15.0
"""In which two pulses or marks have to come."""
LATENCY_S: Final = 0.2
"""From a mark at the witness until it is known here, about."""
BLOCK: Final = 4800
PULSES, MARKS = 0, 1
"""Inputs of the witness."""

_LONGEST_GAP_S: Final = 90
_CRYSTAL: Final = 300e-6
"""The most that a card's clock may be off, and by which a pulse is known from a click."""
_CLOCK_S: Final = 0.35
"""By so much this machine's clock may be off, the witness's delay too: it numbers the seconds."""
_DELAYS: Final = 300


class Seconds:
    """Puts marks between pulses, and so into UTC.

    A pulse that is no whole number of seconds after the last one is a click, or the witness has
    lost samples: the next pulse tells which. Marks of a stretch in which samples were lost have no
    time.

    Parameters
    ----------
    late_s
        By how much the sound comes later than its mark.
    """

    def __init__(self, late_s: float = 0.0) -> None:
        self._late_s = late_s
        self._last: tuple[float, int] | None = None
        self._doubt: tuple[float, int] | None = None
        self._waiting: list[float] = []
        self.onsets_utc_ns: list[int] = []
        self.clicks = 0
        self.ppm = 0.0
        """By how much the witness's crystal ran fast from one pulse to the next."""

    @property
    def known_utc_ns(self) -> int:
        """Until when everything is known."""
        return self._last[1] * 1_000_000_000 if self._last else 0

    def mark(self, frame: float) -> None:
        """Take a mark."""
        self._waiting.append(frame)

    def pulse(self, frame: float, near_utc_s: float) -> None:
        """Take a pulse, and what this machine's clock says of it."""
        this = frame, round(near_utc_s)
        if self._last is None or _follows(self._last, this):
            self._take(this)
        elif self._doubt is not None and _follows(self._doubt, this):
            first, self._last = self._doubt[0], self._doubt
            self._waiting = [mark for mark in self._waiting if mark > first]
            self._take(this)
        else:
            self._doubt = this
            self.clicks += 1

    def _take(self, this: tuple[float, int]) -> None:
        if self._last is not None:
            (from_frame, from_s), (to_frame, to_s) = self._last, this
            self.ppm = ((to_frame - from_frame) / (to_s - from_s) / RATE - 1) * 1e6
            for mark in self._waiting:
                if from_frame <= mark < to_frame:
                    share = (mark - from_frame) / (to_frame - from_frame)
                    off_s = share * (to_s - from_s) + self._late_s
                    self.onsets_utc_ns.append(from_s * 1_000_000_000 + round(off_s * 1e9))
        self._waiting = [mark for mark in self._waiting if mark >= this[0]]
        self._last, self._doubt = this, None


def _follows(one: tuple[float, int], other: tuple[float, int]) -> bool:
    frames, seconds = other[0] - one[0], other[1] - one[1]
    return (
        0 < seconds <= _LONGEST_GAP_S and abs(frames / RATE - seconds) < _CRYSTAL * seconds + 1e-4
    )


def _dbfs(height: float) -> float:
    return 20 * float(np.log10(max(height, 1e-6)))


class Witness:
    """The card beside the node, as it is heard all the while; a context manager.

    Parameters
    ----------
    command
        Writes what the witness hears to its output: two inputs, 48 kHz, 32-bit little-endian.
    late_s
        By how much the sound comes later than its mark.

    Attributes
    ----------
    pulses
        How many came.
    off_s
        By how much this machine's clock and the last pulse differ, the witness's delay included.
    """

    def __init__(self, command: Command, late_s: float = 0.0) -> None:
        self._command = command
        self._seconds = Seconds(late_s)
        self._finders = Finder(SLOPE), Finder(BELL)
        self._delays_s: deque[float] = deque(maxlen=_DELAYS)
        self._news = threading.Condition()
        self._frames = 0
        self.pulses = 0
        self._last_mark: float | None = None
        self.off_s = 0.0
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._command.start(piped=True)
        heard = (self._command.output,)
        self._thread = threading.Thread(target=self._listen, args=heard, name="witness")
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._command.end()
        assert self._thread
        self._thread.join()

    @property
    def marks(self) -> int:
        """How many marks have their time."""
        return len(self._seconds.onsets_utc_ns)

    def __str__(self) -> str:
        with self._news:
            pulses, marks = (f"{_dbfs(finder.height):.1f} dBFS" for finder in self._finders)
            return (
                f"{self.pulses} pulses, {pulses}, {self._seconds.clicks} clicks; crystal "
                f"{self._seconds.ppm:+.2f} ppm; this machine's clock {self.off_s:+.3f} s; "
                f"{self.marks} marks, {marks}"
            )

    @property
    def since_mark_s(self) -> float | None:
        """How long ago the last mark was, in s."""
        with self._news:
            if self._last_mark is None:
                return None
            return (self._frames - self._last_mark) / RATE + LATENCY_S

    def check_pulses(self) -> None:
        """See that pulses come, and that this machine's clock can number them.

        Raises
        ------
        RigError
            If that is not so.
        """
        wanted = self.pulses + 2
        with self._news:
            if not self._news.wait_for(lambda: self.pulses >= wanted, CHECK_S):
                self._command.see()
                raise RigError(
                    "the witness hears no pulse in its first input: a receiver with a fix, a "
                    "divider before the input, and GUNFIRE_RIG_LISTEN with two inputs are needed"
                )
            if abs(self.off_s) > _CLOCK_S:
                raise RigError(
                    f"this machine's clock and the witness's pulse are {self.off_s:+.2f} s apart, "
                    "so that its seconds cannot be numbered: let chrony or NTP discipline it"
                )

    def check_marks(self) -> None:
        """See that marks come.

        Raises
        ------
        RigError
            If that is not so.
        """
        wanted = self.marks + 2
        with self._news:
            if not self._news.wait_for(lambda: self.marks >= wanted, CHECK_S):
                raise RigError(
                    "the witness hears no marks in its second input: the player's output after "
                    "those of the microphones belongs there, and GUNFIRE_RIG_PLAY has to play it"
                )

    def onsets_utc_ns(self, from_utc_ns: int, to_utc_ns: int, patience_s: float) -> list[int]:
        """Give when shots began in a stretch of time, once a pulse came after it."""
        self._command.see()
        with self._news:
            self._news.wait_for(lambda: self._seconds.known_utc_ns >= to_utc_ns, patience_s)
            return [o for o in self._seconds.onsets_utc_ns if from_utc_ns <= o < to_utc_ns]

    def _listen(self, output: IO[bytes]) -> None:
        with output:
            while data := output.read(BLOCK * 8):
                now_s = time.time()
                whole = np.frombuffer(data[: len(data) // 8 * 8], "<i4").reshape(-1, 2) / FULL
                with self._news:
                    self._hear(whole, now_s)
                    self._news.notify_all()

    def _hear(self, block: Floats, read_utc_s: float) -> None:
        first, self._frames = self._frames, self._frames + len(block)
        # A block comes late, and never early.
        self._delays_s.append(read_utc_s - self._frames / RATE)
        zero_utc_s = min(self._delays_s)
        for mark in self._finders[MARKS].find(block[:, MARKS], first):
            self._seconds.mark(mark)
            self._last_mark = mark
        for pulse in self._finders[PULSES].find(block[:, PULSES], first):
            near_utc_s = zero_utc_s + pulse / RATE
            self.off_s = near_utc_s - round(near_utc_s)
            self.pulses += 1
            self._seconds.pulse(pulse, near_utc_s)
