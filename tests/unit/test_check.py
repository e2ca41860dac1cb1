"""The self-test, where the sound card itself is what fails."""

import itertools
from pathlib import Path
from typing import Self

from node.capture.portaudio import PortAudioSource
from node.check import checks
from node.settings import Settings


class DeafSource(PortAudioSource):
    """A card that opens and delivers nothing: the source as it is, without PortAudio."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


def test_a_card_that_delivers_nothing_fails_and_comes_last(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {
            "outbox": {"path": tmp_path / "o.sqlite3"},
            "mqtt": {"url": "mqtt://127.0.0.1:1"},
            "capture": {"channels": 1, "array": "mono", "silence_s": 60, "device": "deaf"},
        }
    )
    findings = list(checks(settings, DeafSource(settings.capture)))
    assert findings[-1].name == "sound card"
    assert findings[-1].verdict == "fail"
    assert findings[-1].figure == "deaf: nothing heard in 3 s"
    assert "cable and power" in findings[-1].advice
    names = [name for name, _ in itertools.groupby(finding.name for finding in findings)]
    assert names == ["clock", "model", "disk", "broker", "sound devices", "sound card"]
