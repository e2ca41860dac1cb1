"""The pins behind the board: which chip, opened how, and what to do where it cannot be.

The one seam is gpiozero's `Device.pin_factory`: a test sets a `MockFactory` there, or the
environment names one (`GPIOZERO_PIN_FACTORY=mock`); a node uses lgpio, and says why where it
cannot. gpiozero would fall back to three others, one of which writes to the chip's registers.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from node.errors import BoardError

if TYPE_CHECKING:
    from gpiozero import LED, DigitalInputDevice
    from gpiozero.pins import Factory

# A contact has settled that has not moved for so long. Good ones bounce for some ms, old and wet
# ones for some 20; the fastest thumb presses for 80.
SETTLE_S: Final = 0.05
# Of a contact that chatters in water the latest changes do.
MOST_CHANGES: Final = 256

REVISION: Final = Path("firmware/devicetree/base/system/linux,revision")
_INSTALL: Final = (
    "run provisioning/install again, which brings it; into an environment of your own `PYPI=1 pip "
    "install 'gunfire-node[pi]'` does, from Python 3.13 on with swig and a compiler"
)


def open_led(pin: int, active_high: bool) -> LED:
    """Open an LED, dark.

    Raises
    ------
    BoardError
        The pins, or this one, cannot be used; says which, why, and what to do.
    """
    from gpiozero import LED

    _ensure_factory()
    return _opened(pin, "led_pin", lambda: LED(pin, active_high=active_high))


class Change(NamedTuple):
    """When a contact closed or opened, by the monotonic clock."""

    at_s: float
    closed: bool


class Debounce:
    """Tells a contact's changes from its bounce; pure.

    Attributes
    ----------
    closed, since_s
        The settled state, and since when.
    """

    def __init__(self, closed: bool, now_s: float) -> None:
        self.closed = closed
        self.since_s = now_s
        self._last = Change(now_s, closed)

    def settled(self, changes: Iterator[Change], now_s: float) -> Iterator[Change]:
        """Take what the contact did, and give what lasted; it is dated to when it began."""
        for change in changes:
            yield from self._settle(change.at_s)
            if change.closed is not self._last.closed:
                self._last = change
        yield from self._settle(now_s)

    def _settle(self, now_s: float) -> Iterator[Change]:
        last = self._last
        if last.closed is not self.closed and now_s - last.at_s >= SETTLE_S:
            self.closed, self.since_s = last.closed, last.at_s
            yield last


class Contact:
    """A switch or button between a pin and ground, held up by the pin's own resistor.

    gpiozero's thread only notes what happened; all else is done by who polls.

    Parameters
    ----------
    pin
        GPIO number.
    setting
        Name of the setting that gave the pin, for errors.

    Raises
    ------
    BoardError
        As `open_led`.
    """

    def __init__(
        self, pin: int, setting: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        from gpiozero import DigitalInputDevice

        _ensure_factory()
        self._monotonic = monotonic
        self._noted: deque[Change] = deque(maxlen=MOST_CHANGES)
        self._device: DigitalInputDevice = _opened(
            pin, setting, lambda: DigitalInputDevice(pin, pull_up=True)
        )
        self._device.when_activated = lambda: self._note(True)
        self._device.when_deactivated = lambda: self._note(False)
        self._debounce = Debounce(self._device.is_active, monotonic())

    @property
    def closed(self) -> bool:
        """Whether it is settled as closed."""
        return self._debounce.closed

    @property
    def since_s(self) -> float:
        """Since when, by the monotonic clock."""
        return self._debounce.since_s

    def changes(self, now_s: float) -> list[Change]:
        """Give what has settled since the last call, the oldest first."""
        # What it is now, besides: an edge may have been lost.
        self._noted.append(Change(now_s, self._device.is_active))
        return list(self._debounce.settled(_drained(self._noted), now_s))

    def close(self) -> None:
        """Let the pin go."""
        self._device.close()

    def _note(self, closed: bool) -> None:
        self._noted.append(Change(self._monotonic(), closed))


def _drained(noted: deque[Change]) -> Iterator[Change]:
    while noted:
        yield noted.popleft()


def _ensure_factory() -> None:
    """Put a pin factory where gpiozero looks for one.

    Raises
    ------
    BoardError
        There is none to be had.
    """
    from gpiozero import Device

    if Device.pin_factory is not None:
        return
    if "GPIOZERO_PIN_FACTORY" in os.environ:
        try:
            Device.ensure_pin_factory()
        except Exception as error:  # whatever that factory raises
            name = os.environ["GPIOZERO_PIN_FACTORY"]
            raise BoardError(f"no pins by GPIOZERO_PIN_FACTORY={name}: {error}") from error
    else:
        Device.pin_factory = _lgpio_factory()


def _lgpio_factory(sys_root: Path = Path("/sys")) -> Factory:
    lgpio = _import_lgpio()
    from gpiozero.pins.lgpio import LGPIOFactory

    class NodeFactory(LGPIOFactory):  # type: ignore[misc]  # gpiozero is untyped
        def _get_revision(self) -> int:
            # gpiozero asks /proc only, of which a hardened unit sees processes alone
            # (ProcSubset=pid).
            try:
                return int.from_bytes((sys_root / REVISION).read_bytes()[:4], "big")
            except OSError:
                revision: int = super()._get_revision()
                return revision

    try:
        return NodeFactory()
    except lgpio.error as error:
        raise BoardError(f"{_chip_trouble()} (lgpio: {error})") from error
    except Exception as error:
        raise BoardError(
            f"no pins: this is no Raspberry Pi that gpiozero knows ({error}); set board.enabled = "
            "false"
        ) from error


def _import_lgpio() -> Any:
    """Import lgpio, which makes a FIFO in its working directory as it is imported.

    It also changes to that directory. A unit's may be read-only, so it is given one of its own;
    once both ends are open the name is needed no more.
    """
    before, wanted = Path.cwd(), os.environ.get("LG_WD")
    try:
        with tempfile.TemporaryDirectory(prefix="lgpio-") as folder:
            os.environ["LG_WD"] = folder
            try:
                import lgpio
            finally:
                os.chdir(before)
    except ImportError as error:
        raise BoardError(f"no pins: there is no lgpio ({error}); {_INSTALL}") from error
    except OSError as error:
        raise BoardError(
            f"no pins: lgpio needs a folder for temporary files that it can write to ({error}); "
            "give it one by TMPDIR"
        ) from error
    finally:
        if wanted is None:
            os.environ.pop("LG_WD", None)
        else:
            os.environ["LG_WD"] = wanted
    if not hasattr(lgpio, "gpiochip_open"):
        raise BoardError(
            "no pins: lgpio is an empty package (0.0.0.2), which pip takes where there is no wheel "
            f"for this Python, as for 3.13; `pip uninstall lgpio`, then {_INSTALL}"
        )
    return lgpio


def _chip_trouble(devices: Path = Path("/dev")) -> str:
    chips = sorted(devices.glob("gpiochip*"))
    if not chips:
        return (
            f"no pins: there is no {devices}/gpiochip0; under systemd PrivateDevices=yes hides it: "
            "see that the unit has PrivateDevices=no and DeviceAllow=char-gpiochip rw"
        )
    if not any(os.access(chip, os.R_OK | os.W_OK) for chip in chips):
        return (
            f"no pins: {chips[0]} is not for this user; put it into the group gpio "
            "(SupplementaryGroups=gpio in the unit)"
        )
    return (
        f"no pins: {', '.join(map(str, chips))}: not permitted, or not the header's; under systemd "
        "the unit needs DeviceAllow=char-gpiochip rw"
    )


def _opened(pin: int, setting: str, opens: Callable[[], Any]) -> Any:
    try:
        return opens()
    except Exception as error:  # lgpio's own class is no class of gpiozero's
        raise BoardError(
            f"GPIO {pin} (board.{setting}) cannot be used: {error}; if something else has it, "
            f"`gpioinfo` says what: free it, or wire and set another pin"
        ) from error
