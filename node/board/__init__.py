"""What is on a node beside its microphones: a light, a button, a lid, its power and its warmth.

Stands beside the pipeline: the daemon shows a `Code` and polls a `BoardReading` about once a
second. Nothing here ever stops the hearing; what cannot be opened is told as trouble.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from node.board.button import Button, ButtonReading
from node.board.light import Code, Light
from node.board.pins import Contact, open_led
from node.board.power import PowerReading, power
from node.board.tamper import Tamper, TamperReading
from node.board.temperature import Thermometer, soc_c
from node.errors import BoardError
from node.settings import BoardSettings

__all__ = [
    "Board",
    "BoardReading",
    "ButtonReading",
    "Code",
    "PowerReading",
    "TamperReading",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BoardReading:
    """All that the board knows; None is what is not fitted, or could not be read.

    Attributes
    ----------
    light
        What the light says now, which may lag behind what was shown last.
    button, tamper
        The contacts.
    enclosure_c, soc_c
        Temperatures of the enclosure and of the chip, in degrees Celsius.
    power
        The supply.
    trouble
        What is configured and cannot be used: a sentence each, with what to do.
    """

    light: Code | None
    button: ButtonReading | None
    tamper: TamperReading | None
    enclosure_c: float | None
    soc_c: float | None
    power: PowerReading
    trouble: tuple[str, ...]


class Board:
    """The board of a node, opened as a context.

    With `board.enabled = false` no pin is touched and gpiozero is never imported; temperatures and
    power are read all the same.

    Parameters
    ----------
    settings
        Which pins.
    sys_root
        Where sysfs is.
    monotonic
        What dates presses and openings, in seconds.
    """

    def __init__(
        self,
        settings: BoardSettings,
        sys_root: Path = Path("/sys"),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._sys_root = sys_root
        self._monotonic = monotonic
        self._light: Light | None = None
        self._button: Button | None = None
        self._tamper: Tamper | None = None
        self._trouble: list[str] = []
        self._thermometer = Thermometer(settings.thermometer, settings.thermometer_id, sys_root)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._open.enter_context(self._thermometer)
        if self._settings.enabled:
            for opens in (self._open_light, self._open_button, self._open_tamper):
                try:
                    opens()
                except BoardError as error:
                    if str(error) not in self._trouble:  # one reason for all pins
                        log.error("%s", error)
                        self._trouble.append(str(error))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._open.close()

    def show(self, code: Code) -> None:
        """Say it by the light; call it about once a second, or the light says that the node hangs.

        See `Light.show`.
        """
        if self._light is not None:
            self._light.show(code)

    def take_self_test(self) -> bool:
        """Say once whether somebody has asked for a self-test by a short press."""
        return self._button is not None and self._button.take_self_test(self._monotonic())

    def reading(self) -> BoardReading:
        """Read all that is known; takes well below a millisecond, and never raises."""
        now_s = self._monotonic()
        light = self._light
        trouble = [*self._trouble]
        if light is not None and not light.alive:
            trouble.append(f"the light (GPIO {self._settings.led_pin}) has failed: see the log")
        warmth_c = soc_c(self._sys_root)
        return BoardReading(
            light=light.shown if light is not None and light.alive else None,
            button=None if self._button is None else self._button.reading(now_s),
            tamper=None if self._tamper is None else self._tamper.reading(now_s),
            enclosure_c=self._thermometer.celsius,
            soc_c=warmth_c,
            power=power(self._sys_root, warmth_c),
            trouble=tuple(trouble),
        )

    def _open_light(self) -> None:
        led = open_led(self._settings.led_pin, self._settings.led_active_high)
        self._light = Light(led)
        self._open.callback(self._light.close)

    def _open_button(self) -> None:
        contact = Contact(self._settings.button_pin, "button_pin", self._monotonic)
        self._button = Button(contact, self._settings.hold_s, self._settings.maintenance_s)
        self._open.callback(self._button.close)

    def _open_tamper(self) -> None:
        if self._settings.tamper_pin is not None:
            self._tamper = Tamper(Contact(self._settings.tamper_pin, "tamper_pin", self._monotonic))
            self._open.callback(self._tamper.close)
