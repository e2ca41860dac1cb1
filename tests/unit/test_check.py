"""The self-test, where the sound card itself is what fails."""

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from node.capture.portaudio import PortAudioSource
from node.check import _broker, _levels, _receiver, _signing_key, _snippets, checks
from node.errors import IdentityError
from node.identity import load_identity
from node.network import PrivateBroker
from node.settings import Settings
from node.timing import Fix, ReceiverState


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
            "integrity": {"key_file": tmp_path / "node.key"},
            "capture": {"channels": 1, "array": "mono", "silence_s": 60, "device": "deaf"},
        }
    )
    findings = list(checks(settings, DeafSource(settings.capture)))
    assert findings[-1].name == "sound card"
    assert findings[-1].verdict == "fail"
    assert findings[-1].figure == "deaf: nothing heard in 3 s"
    assert "cable and power" in findings[-1].advice
    names = [name for name, _ in itertools.groupby(finding.name for finding in findings)]
    parts = ["clock", "model", "disk", "broker", "signing key", "snippets"]
    assert names == [*parts, "sound devices", "sound card"]


def state(**changes: object) -> ReceiverState:
    told = ReceiverState(3, 9, 12, True, "", True, Fix(47.8, 106.2, 1310.0, 4.0))
    return replace(told, **changes)  # type: ignore[arg-type]


def test_a_receiver_that_is_well_passes_with_its_figures() -> None:
    receiver, pulse = _receiver(state(), None, needs_pulse=True)
    assert (receiver.verdict, pulse.verdict) == ("pass", "pass")
    assert receiver.figure == "fix, 9 of 12 satellites, position ± 4 m, UTC valid"


def test_a_receiver_that_is_not_says_why_and_what_to_do() -> None:
    cold, pulse = _receiver(
        state(fix=1, utc_valid=False, reason="it has no fix", pps_seen=False, position=None),
        None,
        needs_pulse=True,
    )
    assert (cold.verdict, pulse.verdict) == ("warn", "warn")
    assert cold.figure == "no fix, 9 of 12 satellites, UTC not used: it has no fix"
    assert "open sky" in cold.advice
    assert "ppstest" in pulse.advice
    (absent,) = _receiver(state(), "gpsd at localhost:2947: refused", needs_pulse=True)
    assert (absent.verdict, absent.figure) == ("fail", "gpsd at localhost:2947: refused")


def test_a_microphone_is_judged_by_itself_and_named_by_its_channel() -> None:
    sound = np.zeros((48_000, 3), np.float32)
    sound[:, 1] = 0.01 * np.sin(np.arange(48_000))
    sound[:, 2] = np.clip(3 * np.sin(np.arange(48_000)), -1, 1)
    found = list(_levels(sound, (0, 2, 3), (None, -45.0, -10.0)))
    assert [f.name for f in found] == ["level 0", "level 2", "level 3"]
    assert [f.verdict for f in found] == ["fail", "pass", "warn"]
    assert "floor -45 dBFS" in found[1].figure
    assert "floor" not in found[0].figure


def test_it_tells_whether_sound_leaves_the_node_and_to_whom() -> None:
    key = "age1a43kl5w2ld8yd9vqsk8xp54g394399f03q8zvk624jxk8vnhzpeqkedu96"
    (off,) = _snippets(Settings())
    (on,) = _snippets(
        Settings.model_validate({"snippets": {"enabled": True, "recipient": key, "after_s": 0.5}})
    )
    assert off.figure == "off: no sound leaves this node"
    assert on.figure.startswith("on: 0.75 s round each of gunfire, probable_gunfire")
    assert on.figure.endswith(key)


def test_the_key_that_signs_is_told_by_its_short_name_and_is_not_made_by_looking(
    tmp_path: Path,
) -> None:
    key_file = tmp_path / "node.key"
    settings = Settings.model_validate({"integrity": {"key_file": key_file}})
    (absent,) = _signing_key(settings)
    assert (absent.verdict, key_file.exists()) == ("warn", False)
    load_identity(key_file, None, "node-1", "site")
    (made,) = _signing_key(settings)
    assert re.match("key_id [0-9a-f]{16}, without a certificate", made.figure)
    key_file.chmod(0o644)
    with pytest.raises(IdentityError, match="integrity"):
        list(_signing_key(settings))


def test_of_two_brokers_the_dead_one_is_a_warning_and_two_dead_ones_are_failures() -> None:
    dead = "mqtt://127.0.0.1:1"
    with PrivateBroker() as broker:
        one = list(_broker(Settings.model_validate({"mqtt": {"urls": [dead, broker.url]}})))
    both = list(_broker(Settings.model_validate({"mqtt": {"urls": [dead, broker.url]}})))
    assert [found.verdict for found in one] == ["pass", "warn"]
    assert [found.verdict for found in both] == ["fail", "fail"]
    assert "nothing listens there" in both[0].figure
