"""A card whose driver has stamped nothing yet, as a virtual machine's: it is heard all the same."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from node.capture.portaudio import PortAudioSource
from node.settings import CaptureSettings

FRAMES = 4096
TIMES = {"input_buffer_adc_time": 0.0, "current_time": 0.0}


class Stream:
    """PyAudio's, on a card that has no time: asked for it, the stream closes itself."""

    def __init__(self, callback: Callable[..., Any]) -> None:
        self.closed = False
        for _ in range(3):
            callback(bytes(2 * FRAMES), FRAMES, TIMES, 0)

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
        blocks = list(source.blocks())
    assert [block.frames.shape for block in blocks] == [(FRAMES, 1)] * 3


def test_a_block_says_how_much_waits_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = CaptureSettings(channels=1, bits=16, array="mono", device="card")
    source = PortAudioSource(settings)
    monkeypatch.setattr(source, "_compare_clocks", lambda: False)
    for _ in range(25):
        source._callback(bytes(2 * FRAMES), FRAMES, TIMES, 0)
    source.close()
    blocks = list(source.blocks())
    waiting = [block.waiting_frames // FRAMES for block in blocks]
    assert len(blocks) == 25
    assert waiting == sorted(waiting, reverse=True)
    assert waiting[0] >= 15  # the first come together, once the line of their stamps is begun
    assert waiting[-1] <= 1  # the word to end waits too
