"""Which device a name means, and PCM as a device packs it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.capture.devices import InputDevice, choose
from node.capture.pcm import unpack
from node.errors import DeviceError


def device(index: int, name: str) -> InputDevice:
    return InputDevice(index, name, "ALSA", 4, 48_000)


USB = device(0, "UMC404HD: USB Audio (hw:1,0)")
BUILT_IN = device(1, "HDA Intel: ALC892 Analog (hw:0,0)")
DEFAULT = device(2, "default")
SYSDEFAULT = device(3, "sysdefault")
ALL = [USB, BUILT_IN, DEFAULT, SYSDEFAULT]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("UMC404HD: USB Audio (hw:1,0)", USB),
        ("UMC404HD: USB Audio", USB),  # wherever it was plugged in
        ("umc404", USB),
        ("Intel", BUILT_IN),
        ("default", DEFAULT),  # exact, though it is a part of another too
    ],
)
def test_a_name_means_one_device(name: str, meant: InputDevice) -> None:
    assert choose(name, ALL) is meant


def test_a_name_that_fits_several_lists_them() -> None:
    with pytest.raises(DeviceError) as caught:
        choose("hw:", ALL)
    assert "2 devices" in str(caught.value)
    assert USB.name in str(caught.value)
    assert BUILT_IN.name in str(caught.value)


def test_a_name_that_fits_none_lists_what_there_is() -> None:
    with pytest.raises(DeviceError, match=r"not there.*UMC404HD.*sysdefault"):
        choose("ReSpeaker", ALL)
    with pytest.raises(DeviceError, match="no device that can record"):
        choose("default", [])


def test_a_number_is_no_stable_name() -> None:
    for number in ("0", "1"):
        with pytest.raises(DeviceError):
            choose(number, ALL)


@given(
    samples=st.lists(st.integers(-(2**23), 2**23 - 1), min_size=2, max_size=40),
    channels=st.integers(1, 2),
)
def test_24_packed_bits_stand_in_the_upper_bits_of_32(samples: list[int], channels: int) -> None:
    samples = samples[: len(samples) // channels * channels]
    packed = b"".join(s.to_bytes(3, "little", signed=True) for s in samples)
    frames = unpack(packed, 24, channels)
    assert frames.dtype == np.int32
    assert frames.shape == (len(samples) // channels, channels)
    assert (frames.ravel() >> 8).tolist() == samples
    assert not (frames & 0xFF).any()


def test_16_and_32_bits_are_taken_as_they_are() -> None:
    assert unpack(b"\x01\x00\xff\xff", 16, 2).tolist() == [[1, -1]]
    assert unpack(b"\x01\x00\x00\x80", 32, 1).tolist() == [[-(2**31) + 1]]
    assert unpack(b"\x01\x00\xff\xff", 16, 2).dtype == np.int16
