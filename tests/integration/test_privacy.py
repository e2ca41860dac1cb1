"""No sound leaves the node, traced at the system calls; with snippets, only what its owner opens.

The daemon is the real one, so are outbox and Mosquitto; `make faults` does the same for an hour.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator

import numpy as np
import pyrage
import pytest
import soundfile

from node.messages import parse_detection, parse_snippet
from tests.faults.noisy_street import LEAKS, MINUTE, RATE_HZ, minute
from tests.faults.privacy import EVENT_BYTES, Run, frames_found, leaks_found, run
from tests.faults.syscalls import why_not

REASON = why_not()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(REASON is not None, reason=f"needs strace: {REASON}"),
]

MINUTES = 2
OWNER = pyrage.x25519.Identity.generate()


@pytest.fixture(scope="module")
def by_default(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(tmp_path_factory.mktemp("default"), MINUTES)


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(tmp_path_factory.mktemp("leaky"), 1, leak=True)


@pytest.fixture(scope="module")
def with_snippets(tmp_path_factory: pytest.TempPathFactory) -> Run:
    extra = f'[snippets]\nenabled = true\nrecipient = "{OWNER.to_public()}"\n'
    return run(tmp_path_factory.mktemp("snippets"), 1, extra=extra)


def test_by_default_no_sample_reaches_disk_or_network(by_default: Run) -> None:
    assert len(by_default.heard.of("detection")) >= 5 * MINUTES, "there was something to tell"
    assert by_default.trace.stored()
    assert by_default.trace.sent()
    assert frames_found(by_default, MINUTES) == set()
    assert by_default.trace.unseen == []


def test_by_default_all_that_is_sent_is_messages_with_no_room_for_sound(by_default: Run) -> None:
    assert by_default.strangers == []
    assert by_default.unaccounted == 0
    assert by_default.heard.of("snippet") == []


def test_by_default_little_more_is_stored_than_what_was_told(by_default: Run) -> None:
    assert by_default.stored_per_event <= EVENT_BYTES


@pytest.mark.parametrize("name", LEAKS)
def test_a_planted_leak_is_found(leaky: Run, found: set[str], name: str) -> None:
    assert name in found


@pytest.fixture(scope="module")
def found(leaky: Run) -> set[str]:
    return leaks_found(leaky)


def test_a_planted_leak_that_leaves_no_sample_as_it_was_is_told_by_its_size(leaky: Run) -> None:
    assert leaky.stored_per_event > EVENT_BYTES


def test_a_message_of_no_known_form_and_a_mapped_file_are_told(leaky: Run) -> None:
    assert {topic.rpartition("/")[2] for topic in leaky.strangers} == {"debug"}
    assert any("mapped.raw" in call for call in leaky.trace.unseen)


def test_with_snippets_sound_is_in_the_clear_neither_on_disk_nor_on_the_network(
    with_snippets: Run,
) -> None:
    sealed = [parse_snippet(payload).data for payload in with_snippets.heard.of("snippet")]
    assert sealed
    # Those that are left over were still on their way from the disk.
    sealed += [parse_snippet(file).data for file in left_to_send(with_snippets)]
    assert frames_found(with_snippets, 1, sealed) == set()
    assert with_snippets.trace.unseen == []
    assert with_snippets.strangers == []
    assert with_snippets.unaccounted == 0


def left_to_send(run_: Run) -> list[bytes]:
    return [data for name, data in run_.left.items() if ".snippets/" in name]


def opened(run_: Run) -> Iterator[tuple[str, int, np.ndarray]]:
    """Give of each snippet event, the hash of what arrived and its samples of 24 bits."""
    for payload in run_.heard.of("snippet"):
        message = parse_snippet(payload)
        sealed = base64.b64decode(message.data)
        sound, rate = soundfile.read(io.BytesIO(pyrage.decrypt(sealed, [OWNER])), dtype="int32")
        assert rate == RATE_HZ
        yield message.event_id, hashlib.sha256(sealed).hexdigest(), sound >> 8


def test_each_shot_has_its_snippet_and_the_owner_opens_the_very_samples(
    with_snippets: Run,
) -> None:
    told = {
        detection.event_id: detection.snippet
        for detection in map(parse_detection, with_snippets.heard.of("detection"))
        if detection.grade != "not_gunfire"
    }
    street = minute(0)[:, 0] >> 8
    count = 0
    for event_id, digest, sound in opened(with_snippets):
        snippet = told[event_id]
        assert snippet is not None
        assert snippet.sha256 == digest
        assert snippet.seconds * RATE_HZ == len(sound) == 1.25 * RATE_HZ
        starts = np.flatnonzero(street[: MINUTE - len(sound)] == sound[0])
        assert any(np.array_equal(street[at : at + len(sound)], sound) for at in starts)
        count += 1
    assert count == len(told) > 0
