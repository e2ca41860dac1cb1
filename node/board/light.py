"""What one light says to somebody on the ground, and the thread that says it.

The daemon shows a `Code` about once a second; `Light` plays its rhythm on the LED. A fault is
counted: long flashes say whether the node hears, short ones which fault it is. The light must not
lie, so it has to be fed: where nobody shows anything any more, it stays on. For those who read it:
docs/do/read-the-light.md; why so: docs/decisions/0022-light-and-button.md.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Final, NamedTuple, Protocol

# As long as people need who count by eye, in sunlight, at some metres.
SHORT_S: Final = 0.25
LONG_S: Final = 1.25
BETWEEN_S: Final = 0.5
AFTER_LONG_S: Final = 0.75
PAUSE_S: Final = 2.5

HANGS_AFTER_S: Final = 5.0
# From opening to the first code: a Zero loads the model and waits for its disk.
STARTS_WITHIN_S: Final = 120.0
# Dark, before what cuts into a rhythm, so that nobody counts both as one.
COMMA_S: Final = 0.6


class Code(Enum):
    """What the light can say.

    Attributes
    ----------
    meaning
        One line.
    first
        What to do first.
    long, short
        Flashes of a fault; 0 for what is none. One long: the node hears. Two: it does not hear, or
        cannot do its job.
    """

    STARTING = "it is starting", "wait two minutes"
    WELL = "it hears, and all is well", "nothing"
    MAINTENANCE = (
        "maintenance: it hears and publishes, and says that somebody is working on it",
        "hold the button for 3 s when done; it ends by itself too",
    )
    SELF_TEST = "the self-test is running", "wait until it ends; keep quiet meanwhile"
    PASSED = "the self-test has passed", "nothing"
    HANGS = (
        "the program hangs, or died and left the light on",
        "wait two minutes, for it is started anew; then switch the power off and on",
    )

    NO_PULSE = (
        "no pulse (PPS) from the receiver",
        "look at the cable of the pulse, then at the antenna",
        1,
        1,
    )
    NO_BROKER = (
        "the broker cannot be reached; what is heard waits on the disk",
        "look at the network: cable, SIM card, aerial",
        1,
        2,
    )
    CLOCK = (
        "the clock cannot be trusted yet",
        "wait 15 minutes under open sky; then see the antenna and the network",
        1,
        3,
    )
    RECEIVER = (
        "no satellites, or the receiver says nothing",
        "give the antenna open sky; look at the serial cable",
        1,
        4,
    )
    MICROPHONE = (
        "a microphone is dead or deaf, or the channels' order is not proven",
        "look for water or insects in the capsules, and at their plugs",
        1,
        5,
    )
    BOARD = (
        "power, heat or cold, an opened lid, a stuck button or a pin",
        "look at the power supply and its cable; shut the lid; free the button",
        1,
        6,
    )
    STORE = (
        "the disk or the outbox is nearly full, or a certificate ends soon",
        "tell the operator: this is mended from the desk",
        1,
        7,
    )

    SOUND_CARD = (
        "no sound card, or it has gone silent",
        "push its plug in; try another socket; switch the power off and on",
        2,
        1,
    )
    MICROPHONES = (
        "no microphone hears anything",
        "look at the plug of the array, and at its power",
        2,
        2,
    )
    SETTINGS = (
        "the settings are wrong",
        "tell the operator; on the node: gunfire-node config check",
        2,
        3,
    )
    MODEL = (
        "the model file cannot be used: sounds are timed, not judged",
        "tell the operator: install the node anew",
        2,
        4,
    )
    KEY = (
        "the signing key or the certificate cannot be used",
        "tell the operator: enrol the node anew",
        2,
        5,
    )
    DISK = (
        "nothing can be written to the disk",
        "switch the power off and on once; then change the card",
        2,
        6,
    )

    def __init__(self, meaning: str, first: str, long: int = 0, short: int = 0) -> None:
        self.meaning = meaning
        self.first = first
        self.long = long
        self.short = short

    @property
    def is_fault(self) -> bool:
        """Whether it is counted."""
        return self.long > 0

    @property
    def is_urgent(self) -> bool:
        """Whether somebody at the button waits for it: it does not wait for a rhythm's end."""
        return self in (Code.MAINTENANCE, Code.SELF_TEST, Code.PASSED)


class Beat(NamedTuple):
    """A stretch of a rhythm: whether the light is on, and for how long."""

    on: bool
    seconds: float


_PLAIN: Final = {
    Code.STARTING: (Beat(True, 0.125), Beat(False, 0.125)),
    Code.WELL: (Beat(True, 0.125), Beat(False, 2.875)),
    Code.MAINTENANCE: (Beat(True, 1.0), Beat(False, 1.0)),
    Code.SELF_TEST: (Beat(True, 0.125), Beat(False, 0.125), Beat(True, 0.125), Beat(False, 0.625)),
    Code.PASSED: (Beat(True, 5.0), Beat(False, 1.0)),
    Code.HANGS: (Beat(True, HANGS_AFTER_S),),
}


def pattern(code: Code) -> tuple[Beat, ...]:
    """Give the rhythm of a code; it is repeated for as long as the code is shown."""
    if not code.is_fault:
        return _PLAIN[code]
    long = (Beat(True, LONG_S), Beat(False, BETWEEN_S)) * code.long
    short = (Beat(True, SHORT_S), Beat(False, BETWEEN_S)) * code.short
    return (*long[:-1], Beat(False, AFTER_LONG_S), *short[:-1], Beat(False, PAUSE_S))


def gravest(faults: Iterable[Code]) -> Code:
    """Give the fault to show first, or `WELL` where there is none; the lower number goes first."""
    return min(
        (code for code in faults if code.is_fault),
        key=lambda code: (-code.long, code.short),
        default=Code.WELL,
    )


class Led(Protocol):
    """What `gpiozero.LED` offers, and is used of it."""

    def on(self) -> None:
        """Switch it on."""

    def off(self) -> None:
        """Switch it off."""

    def close(self) -> None:
        """Let the pin go; the light is dark then."""


class Light:
    """Plays codes on an LED until it is closed; begins with `STARTING`.

    Parameters
    ----------
    led
        The LED; closed with the light.
    """

    def __init__(self, led: Led, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._led = led
        self._monotonic = monotonic
        self._wanted = self._shown = Code.STARTING
        self._fed_until_s = monotonic() + STARTS_WITHIN_S
        self._cut_in = False
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="light", daemon=True)
        self._thread.start()

    @property
    def shown(self) -> Code:
        """What it says now."""
        return self._shown

    @property
    def alive(self) -> bool:
        """Whether it still plays what it is given."""
        return self._thread.is_alive()

    def show(self, code: Code) -> None:
        """Say this from the end of the running rhythm on; and feed the light.

        The same code again changes nothing. What somebody at the button waits for cuts in.
        """
        with self._changed:
            self._fed_until_s = self._monotonic() + HANGS_AFTER_S
            if self._shown is Code.HANGS or (code.is_urgent and code is not self._wanted):
                self._cut_in = True
            self._wanted = code
            self._changed.notify()

    def close(self) -> None:
        """Go dark."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._led.off()
        self._led.close()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._closing:
                    return
                self._shown, self._cut_in = self._wanted, False
                if self._monotonic() >= self._fed_until_s:
                    self._shown = Code.HANGS
            for beat in pattern(self._shown):
                if not self._play(beat):
                    break

    def _play(self, beat: Beat) -> bool:
        """Play a beat; False if the rest of its rhythm is no longer wanted."""
        (self._led.on if beat.on else self._led.off)()
        if self._passes(beat.seconds):
            return True
        with self._changed:
            if self._cut_in:
                self._led.off()
                self._changed.wait_for(lambda: self._closing, COMMA_S)
        return False

    def _passes(self, seconds: float) -> bool:
        """Wait; False if closed, starved or cut into meanwhile."""
        end_s = self._monotonic() + seconds
        with self._changed:
            while not (self._closing or self._cut_in):
                now_s = self._monotonic()
                hungry_s = self._fed_until_s
                if now_s >= hungry_s and self._shown is not Code.HANGS:
                    return False
                if now_s >= end_s:
                    return True
                until_s = end_s if self._shown is Code.HANGS else min(end_s, hungry_s)
                self._changed.wait(until_s - now_s)
        return False
