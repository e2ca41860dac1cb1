"""A card whose driver has stamped nothing yet, as a virtual machine's: it is heard all the same."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from node.capture.portaudio import PortAudioSource
from node.settings import CaptureSettings

FRAMES = 4096


class Stream:
    """PyAudio's, on a card that has no time: asked for it, the stream closes itself."""

    def __init__(self, callback: Callable[..., Any]) -> None:
        self.closed = False
        times = {"input_buffer_adc_time": 0.0, "current_time": 0.0}
        for _ in range(3):
            callback(bytes(2 * FRAMES), FRAMES, times, 0)

    def get_time(self) -> float:
        self.closed = True
        raise OSError(-9986, "Internal Error")

    def stop_stream(self) -> None:
        assert not self.closed

    def close(self) -> None:
        self.closed = True


def test_a_stream_without_a_time_is_not_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    device = {
        **{"index": 0, "name": "card", "maxInputChannels": 1, "hostApi": 0},
        "defaultSampleRate": 48e3,
    }
    audio = SimpleNamespace(
        get_device_count=lambda: 1,
        get_device_info_by_index=lambda _: device,
        get_host_api_info_by_index=lambda _: {"name": "ALSA"},
        open=lambda stream_callback, **_: Stream(stream_callback),
        terminate=lambda: None,
    )
    monkeypatch.setattr("node.capture.portaudio.open_portaudio", lambda: audio)
    settings = CaptureSettings(channels=1, bits=16, array="mono", device="card")
    with PortAudioSource(settings) as source:
        source.close()  # once all is delivered
        assert [block.frames.shape for block in source.blocks()] == [(FRAMES, 1)] * 3
