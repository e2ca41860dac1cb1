"""Snippets: made only when asked, of the very sound, for one key, within a budget."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyrage
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from node.errors import SettingsError
from node.messages import Detection, SnippetMessage
from node.messages.detection import Snippet
from node.settings import SnippetSettings, load
from node.snippets import HOUR_S, MOST_WAITING, Snippets, flac
from tests.unit.test_pipeline import RATE_HZ, Clock, run, street

KEY = pyrage.x25519.Identity.generate()


def for_owner(**options: Any) -> SnippetSettings:
    return SnippetSettings(enabled=True, recipient=str(KEY.to_public()), **options)


def opened(message: bytes | None) -> npt.NDArray[np.int32]:
    """Decrypt a snippet's message as its owner does; samples of 24 bits."""
    assert message is not None
    data = base64.b64decode(json.loads(message)["data"])
    sound, rate = soundfile.read(io.BytesIO(pyrage.decrypt(data, [KEY])), dtype="int32")
    assert rate == RATE_HZ
    return sound >> 8


def heard(
    sound: npt.NDArray[Any], snippets: Snippets, grade: Any = "gunfire", **options: Any
) -> list[Detection]:
    return run(sound, list(range(1024, len(sound), 1024)), grade, sealer=snippets, **options)[0]


@pytest.mark.parametrize("bits", [16, 24])
def test_the_owner_gets_the_very_samples_round_the_first_round(bits: int) -> None:
    sound = street((1.0,)).astype(np.int32) << (bits - 16)
    sound[:] += np.random.default_rng(5).integers(0, 2 ** (bits - 16), sound.shape)
    snippets = Snippets(for_owner(before_s=0.25, after_s=1.0))
    (detection,) = heard(sound << (32 - bits), snippets)
    got = opened(snippets.message(detection))
    assert detection.snippet is not None
    assert detection.snippet.seconds == len(got) / RATE_HZ == 1.25
    wanted = sound[:, 0] << (24 - bits)
    places = range(len(wanted) - len(got))
    (first,) = (i for i in places if np.array_equal(wanted[i : i + len(got)], got))
    assert first + 0.25 * RATE_HZ == pytest.approx(1.0 * RATE_HZ, abs=RATE_HZ * 0.003)


def test_only_the_first_microphone_is_in_it() -> None:
    one = street((1.0,))
    snippets = Snippets(for_owner())
    (detection,) = heard(np.hstack([one, one // 2]), snippets)
    alone = Snippets(for_owner())
    (same,) = heard(one, alone)
    assert np.array_equal(opened(snippets.message(detection)), opened(alone.message(same)))


def test_the_detection_names_the_hash_of_the_ciphertext() -> None:
    snippets = Snippets(for_owner())
    (detection,) = heard(street((1.0,)), snippets)
    message = SnippetMessage.model_validate_json(snippets.message(detection) or b"")
    assert detection.snippet is not None
    assert hashlib.sha256(base64.b64decode(message.data)).hexdigest() == detection.snippet.sha256
    assert (message.event_id, message.sha256) == (detection.event_id, detection.snippet.sha256)


def test_no_other_key_opens_it() -> None:
    snippets = Snippets(for_owner())
    (detection,) = heard(street((1.0,)), snippets)
    data = base64.b64decode(json.loads(snippets.message(detection) or b"")["data"])
    with pytest.raises(pyrage.DecryptError):
        pyrage.decrypt(data, [pyrage.x25519.Identity.generate()])


@pytest.mark.parametrize(
    ("grade", "grades", "made"),
    [
        ("gunfire", ("gunfire", "probable_gunfire"), True),
        ("probable_gunfire", ("gunfire", "probable_gunfire"), True),
        ("probable_gunfire", ("gunfire",), False),
        ("not_gunfire", ("gunfire", "probable_gunfire"), False),
    ],
)
def test_only_grades_that_the_owner_asked_for_get_one(
    grade: str, grades: tuple[str, ...], made: bool
) -> None:
    (detection,) = heard(street((1.0,)), Snippets(for_owner(grades=grades)), grade)
    assert (detection.snippet is not None) is made


def test_what_is_not_gunfire_cannot_even_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"snippets\.grades"):
        load(written(tmp_path, 'grades = ["not_gunfire"]'), {})


def test_a_revision_with_more_rounds_names_the_same_snippet_made_once() -> None:
    snippets = Snippets(for_owner())
    detections = heard(street((1.0, 2.2), 8.0), snippets)
    assert [d.revision for d in detections] == [0, 1]
    assert [d.round_count for d in detections] == [1, 2]
    assert detections[0].snippet is not None
    assert detections[0].snippet == detections[1].snippet


def test_a_revision_by_a_better_clock_names_the_same_snippet() -> None:
    snippets = Snippets(for_owner())
    detections = heard(street((1.0,), 9.0), snippets, clock=Clock(trusted_from=6 * RATE_HZ))
    assert [d.revision for d in detections] == [0, 1]
    assert detections[0].snippet is not None
    assert detections[0].snippet == detections[1].snippet


@settings(max_examples=15)
@given(st.lists(st.integers(1, 6 * RATE_HZ - 1), max_size=8))
def test_how_the_sound_is_cut_into_blocks_changes_no_snippet(cuts: list[int]) -> None:
    sound = street((1.0, 3.0, 5.7))
    whole, pieces = Snippets(for_owner(after_s=1.7)), Snippets(for_owner(after_s=1.7))
    first = run(sound, [], "gunfire", sealer=whole)[0]
    second = run(sound, cuts, "gunfire", sealer=pieces)[0]
    assert len(first) == len(second) == 3
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(opened(whole.message(one)), opened(pieces.message(other)))


def test_those_above_the_number_for_an_hour_are_not_made_and_are_counted() -> None:
    now_s = [0.0]
    snippets = Snippets(for_owner(max_per_hour=2), lambda: now_s[0])
    detections = heard(street((1.0, 4.0, 7.0), 9.0), snippets)
    assert [d.snippet is not None for d in detections] == [True, True, False]
    assert snippets.kept_back == 1
    assert snippets.reason is not None
    assert "snippets.max_per_hour" in snippets.reason
    now_s[0] = HOUR_S
    (again,) = heard(street((1.0,)), snippets)
    assert again.snippet is not None
    now_s[0] = 2 * HOUR_S
    assert snippets.reason is None, "what was long ago is no trouble now"


def test_one_that_is_too_large_is_not_sent_and_is_counted() -> None:
    snippets = Snippets(for_owner(max_bytes=4096))
    (detection,) = heard(street((1.0,)), snippets)
    assert (detection.snippet, snippets.kept_back) == (None, 1)
    assert snippets.reason is not None
    assert "snippets.max_bytes" in snippets.reason


def test_one_that_the_library_cannot_write_is_counted_and_stops_nothing() -> None:
    snippets = Snippets(for_owner())
    (shot,) = heard(street((1.0,)), snippets)
    assert snippets.seal(shot, np.zeros(100, np.float32), 1_000_000) is None  # above FLAC's
    assert "could not be made" in str(snippets.reason)


def test_while_no_detection_can_be_made_durable_a_few_wait_in_memory_and_the_oldest_give_way() -> (
    None
):
    snippets = Snippets(for_owner())
    (shot,) = heard(street((1.0,)), snippets)
    sound = np.zeros(1000, np.float32)
    later = [
        shot.model_copy(update={"snippet": snippets.seal(shot, sound, RATE_HZ)})
        for _ in range(MOST_WAITING)
    ]
    assert snippets.message(shot) is None
    assert all(snippets.message(detection) for detection in later)
    assert snippets.kept_back == 1
    snippets.saved(later[0])
    assert snippets.message(later[0]) is None


def test_without_a_sealer_a_detection_names_no_snippet() -> None:
    assert [d.snippet for d in run(street((1.0,)), [], "gunfire")[0]] == [None]


@given(st.lists(st.integers(-(2**23), 2**23 - 1), min_size=1, max_size=2000))
def test_flac_keeps_every_sample_of_24_bits(samples: list[int]) -> None:
    sound = np.array(samples, np.float64) / 2**23
    back, _ = soundfile.read(io.BytesIO(flac(sound.astype(np.float32), 48_000)), dtype="int32")
    assert (back >> 8).tolist() == samples


def test_full_scale_is_clipped_not_wrapped() -> None:
    loud = np.array([1.0, 1.5, -1.0, -1.5], np.float32)
    back, _ = soundfile.read(io.BytesIO(flac(loud, 48_000)), dtype="int32")
    assert (back >> 8).tolist() == [2**23 - 1, 2**23 - 1, -(2**23), -(2**23)]


def written(tmp_path: Path, lines: str) -> Path:
    file = tmp_path / "node.toml"
    file.write_text(f"[snippets]\n{lines}\n")
    return file


SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHsKLqeplhpW+uObz5dvMgjz1OxfM/XXUB+VHtZ6isGN"
YUBIKEY = "age1yubikey1q2w7u3vpya839jxxuq8g0sedh3d740d4xvn639sqhr95ejj8vu3hyfumptt"
GOOD = str(KEY.to_public())


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("enabled = true", "needs snippets.recipient: make a key with `age-keygen"),
        (f'enabled = true\nrecipient = "{GOOD[:-1]}"', "is no X25519 key of age"),
        (f'recipient = "{SSH_KEY}"', "is no X25519 key of age"),
        (f'recipient = "{YUBIKEY}"', "is no X25519 key of age"),
        ('recipient = ""', "is no X25519 key of age"),
        (f'recipient = "{GOOD}"\nbefore_s = 0.6\nafter_s = 1.5', "= 2.1; a snippet is 2 s at most"),
        ("max_bytes = 1000000", "snippets.max_bytes"),
        ("grades = []", "snippets.grades"),
    ],
    ids=["none", "cut short", "ssh", "yubikey", "empty", "too long", "too large", "no grade"],
)
def test_a_wrong_setting_is_refused_in_a_sentence(
    tmp_path: Path, lines: str, sentence: str
) -> None:
    with pytest.raises(SettingsError) as error:
        load(written(tmp_path, lines), {})
    assert sentence in str(error.value)


@pytest.mark.parametrize("write", [str, lambda key: str(key).lower()])
def test_a_private_key_is_refused_and_not_shown(tmp_path: Path, write: Any) -> None:
    secret = write(KEY)
    with pytest.raises(SettingsError) as error:
        load(written(tmp_path, f'recipient = "{secret}"'), {})
    assert "this is the private key" in str(error.value)
    assert secret[16:] not in str(error.value)


def test_snippets_are_off_unless_switched_on() -> None:
    assert load(None, {}).settings.snippets.enabled is False


def test_the_seconds_of_a_detection_and_its_message_agree() -> None:
    snippets = Snippets(for_owner(before_s=0.1, after_s=0.3))
    (detection,) = heard(street((1.0,)), snippets)
    message = SnippetMessage.model_validate_json(snippets.message(detection) or b"")
    assert detection.snippet == Snippet(sha256=message.sha256, seconds=0.4)
