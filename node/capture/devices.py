"""Which sound devices there are, and which one a stable name means."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyaudio

from node.capture.chatter import chatter_to_log, forget_cards
from node.errors import DeviceError

# ALSA's card number at the end of PortAudio's names changes with the order of plugging in.
_CARD_NUMBER = re.compile(r"\s*\(hw:\d+,\d+\)$")


@dataclass(frozen=True, slots=True)
class InputDevice:
    """A sound device that can record.

    `index` is PortAudio's number, good only until devices come or go.
    """

    index: int
    name: str
    host_api: str
    max_channels: int
    default_rate_hz: int

    @property
    def stable_name(self) -> str:
        """The name without the card's number, which moves."""
        return _CARD_NUMBER.sub("", self.name)


def open_portaudio() -> pyaudio.PyAudio:
    """Start PortAudio; the caller ends it with `terminate`.

    Raises
    ------
    DeviceError
        PortAudio itself does not start.
    """
    forget_cards()
    try:
        with chatter_to_log():
            return pyaudio.PyAudio()
    except OSError as error:
        raise DeviceError(
            f"PortAudio does not start ({_reason(error)}); see that libportaudio2 is whole and "
            "that no other program holds the sound system"
        ) from error


def input_devices(audio: pyaudio.PyAudio) -> list[InputDevice]:
    """List the devices that can record, as a started PortAudio sees them."""
    found = []
    for index in range(audio.get_device_count()):
        info = audio.get_device_info_by_index(index)
        if int(info["maxInputChannels"]) > 0:
            api = audio.get_host_api_info_by_index(int(info["hostApi"]))
            found.append(
                InputDevice(
                    index=index,
                    name=str(info["name"]),
                    host_api=str(api["name"]),
                    max_channels=int(info["maxInputChannels"]),
                    default_rate_hz=round(float(info["defaultSampleRate"])),
                )
            )
    return found


def list_input_devices() -> list[InputDevice]:
    """List the devices that can record; for `gunfire-node check`."""
    audio = open_portaudio()
    try:
        return input_devices(audio)
    finally:
        audio.terminate()


def choose(name: str, devices: list[InputDevice]) -> InputDevice:
    """Find the device that a name means: the exact name, else the only one that it is a part of.

    Raises
    ------
    DeviceError
        None or several fit; the message lists the names there are.
    """
    if not devices:
        raise DeviceError(
            f"sound device {name!r}: no device that can record is there; plug one in and see "
            "`arecord -l`"
        )
    wanted = name.casefold()
    exact = [d for d in devices if wanted in (d.name.casefold(), d.stable_name.casefold())]
    # A bare number would fit the card's, which moves.
    parts = [d for d in devices if wanted in d.name.casefold() and not wanted.isdecimal()]
    fitting = exact or parts
    if len(fitting) == 1:
        return fitting[0]
    if not fitting:
        raise DeviceError(
            f"sound device {name!r} is not there; set capture.device to one of: " + _quoted(devices)
        )
    raise DeviceError(
        f"sound device {name!r} fits {len(fitting)} devices; set capture.device to more of the "
        "name of one: " + _quoted(fitting)
    )


def _quoted(devices: list[InputDevice]) -> str:
    return ", ".join(repr(d.name) for d in devices)


def _reason(error: Exception) -> str:
    texts = [str(a) for a in error.args if isinstance(a, str)]
    return " ".join(texts[-1].split()) if texts else type(error).__name__
