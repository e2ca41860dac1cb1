"""A card whose driver has stamped nothing yet, as a virtual machine's: it is heard all the same."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from node.capture.portaudio import PortAudioSource
from node.settings import CaptureSettings


def test_a_stream_without_a_time_is_timed_by_its_callbacks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def get_time() -> float:
        raise OSError(-9986, "Internal Error")

    stream = SimpleNamespace(get_time=get_time, stop_stream=lambda: None, close=lambda: None)
    device = {
        "index": 0,
        "name": "card",
        "maxInputChannels": 1,
        "hostApi": 0,
        "defaultSampleRate": 48e3,
    }
    audio = SimpleNamespace(
        get_device_count=lambda: 1,
        get_device_info_by_index=lambda _: device,
        get_default_input_device_info=lambda: device,
        get_host_api_info_by_index=lambda _: {"name": "ALSA"},
        open=lambda **_: stream,
        terminate=lambda: None,
    )
    monkeypatch.setattr("node.capture.portaudio.open_portaudio", lambda: audio)
    with PortAudioSource(CaptureSettings(channels=1, array="mono", device="card")) as source:
        assert source.channels == 1
    assert "using the callbacks' times" in caplog.text
