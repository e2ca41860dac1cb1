"""Snippets: the sound round a shot, sealed so that its owner alone can hear it. Off by default.

Beside the pipeline, which hands in the sound of one microphone round the first round of an event;
out come a hash for the detection and a message for the outbox. Sound becomes FLAC and then
ciphertext (age, X25519) in memory: it is in the clear nowhere else. Without `[snippets]` switched
on, nobody makes a `Snippets`, and the pipeline has nobody to hand sound to.
"""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
import pyrage
import soundfile

from node.messages import Detection, SnippetMessage, to_json
from node.messages.detection import Snippet
from node.messages.snippet import SNIPPET_SCHEMA
from node.settings import SnippetSettings

log = logging.getLogger(__name__)

HOUR_S: Final = 3600.0
# Sealed ones wait in memory only until their detection is on disk; that is at once but where the
# disk is full, and then the detections are worth more.
MOST_WAITING: Final = 8
# The most that FLAC holds and the most that float32 carries: a 16-bit card's samples are as exact
# in it, and the encoder leaves out the bits that are always zero.
_FULL_SCALE: Final = 2**23


class Snippets:
    """Seal the sound of events for one owner, within a budget.

    Parameters
    ----------
    settings
        With a recipient.
    monotonic_s
        A clock for the budget, in seconds.
    """

    def __init__(
        self, settings: SnippetSettings, monotonic_s: Callable[[], float] = time.monotonic
    ) -> None:
        if settings.recipient is None:
            raise ValueError("snippets without a recipient could be opened by nobody")
        self._settings = settings
        self._recipient = pyrage.x25519.Recipient.from_str(settings.recipient)
        self._monotonic_s = monotonic_s
        self._made_s: deque[float] = deque()
        self._waiting: dict[str, SnippetMessage] = {}
        self._kept_back = 0
        self._kept_back_s = 0.0
        self._why = ""

    @property
    def kept_back(self) -> int:
        """Snippets that were asked for and not sent, since the start."""
        return self._kept_back

    @property
    def reason(self) -> str | None:
        """A sentence on the latest that was kept back, for an hour; None where there is none."""
        if not self._kept_back or self._monotonic_s() - self._kept_back_s > HOUR_S:
            return None
        return f"{self._kept_back} snippets were kept back so far, the latest since {self._why}"

    def window(self, sample_rate_hz: int) -> tuple[int, int]:
        """Give the frames wanted before and after the first round."""
        settings = self._settings
        return round(settings.before_s * sample_rate_hz), round(settings.after_s * sample_rate_hz)

    def wants(self, detection: Detection) -> bool:
        """Whether the owner has asked for the sound of such a detection."""
        return not detection.abstained and detection.grade in self._settings.grades

    def seal(
        self, detection: Detection, sound: npt.NDArray[np.float32], sample_rate_hz: int
    ) -> Snippet | None:
        """Encrypt the sound of an event; give what its detection is to say of it.

        Parameters
        ----------
        detection
            The event.
        sound
            One microphone, shape [n], full scale 1.

        Returns
        -------
        Snippet
            Hash and length; None where the budget leaves no room or the libraries refuse, which
            is counted.
        """
        now_s = self._monotonic_s()
        while self._made_s and now_s - self._made_s[0] >= HOUR_S:
            self._made_s.popleft()
        if len(self._made_s) >= self._settings.max_per_hour:
            self.keep_back(f"there were {len(self._made_s)} within an hour: snippets.max_per_hour")
            return None
        try:
            data = bytes(pyrage.encrypt(flac(sound, sample_rate_hz), [self._recipient]))
        except (soundfile.SoundFileError, pyrage.EncryptError) as error:
            self.keep_back(f"it could not be made ({error})")  # hearing goes on without
            return None
        if len(data) > self._settings.max_bytes:
            self.keep_back(f"it was of {len(data)} bytes: snippets.max_bytes")
            return None
        self._made_s.append(now_s)
        if len(self._waiting) == MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]
            self.keep_back("its detection could not be made durable yet")
        said = Snippet(sha256=hashlib.sha256(data).hexdigest(), seconds=len(sound) / sample_rate_hz)
        self._waiting[said.sha256] = SnippetMessage(
            schema=SNIPPET_SCHEMA,
            site=detection.site,
            node_id=detection.node_id,
            event_id=detection.event_id,
            revision=detection.revision,
            sha256=said.sha256,
            seconds=said.seconds,
            media="audio/flac",
            encryption="age",
            data=base64.b64encode(data).decode(),
        )
        return said

    def message(self, detection: Detection) -> bytes | None:
        """Give the message with a detection's snippet while it waits to be made durable.

        None for a detection without one, for a later revision of one that is out, and where the
        snippet had to give way.
        """
        if detection.snippet is None:
            return None
        waiting = self._waiting.get(detection.snippet.sha256)
        return None if waiting is None else to_json(waiting)

    def saved(self, detection: Detection) -> None:
        """Forget a detection's snippet: it is on disk, or cannot be."""
        if detection.snippet is not None:
            self._waiting.pop(detection.snippet.sha256, None)

    def keep_back(self, why: str, count: int = 1) -> None:
        """Count snippets that do not go out, and why."""
        if not count:
            return
        self._kept_back += count
        self._kept_back_s = self._monotonic_s()
        self._why = why
        log.warning("snippets kept back: %d, since %s", count, why)


def flac(sound: npt.NDArray[np.float32], sample_rate_hz: int) -> bytes:
    """Write one channel as FLAC of 24 bits, in memory; exact for cards of up to 24 bits.

    libsndfile's own way from floats scales by 2²³ - 1, which moves every sample a little.
    """
    scaled = np.rint(sound.astype(np.float64) * _FULL_SCALE)
    pcm = np.clip(scaled, -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int32) << 8
    file = io.BytesIO()
    soundfile.write(file, pcm, sample_rate_hz, format="FLAC", subtype="PCM_24")
    return file.getvalue()
