"""What was heard, until it is durable: what of it goes out, in what order, and what gives way.

Under the daemon, between pipeline and outbox. Detections come in as they are made; each is
published or not, numbered and signed inside the outbox's own transaction, and its encrypted snippet
is put beside it. What a full disk does not take waits in memory; snippets make way for it.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from node.board.findings import Book
from node.board.service import Service
from node.deliver import Link, Outbox, Rendered, Spool, is_full
from node.errors import OutboxError
from node.messages import Detection, to_json
from node.pipeline import MOST_UNTRUSTED
from node.settings import Settings, SnippetSettings
from node.utc import parse_utc_ns

if TYPE_CHECKING:
    from node.snippets import Snippets

log = logging.getLogger(__name__)

# Of so many events it is known that something was published: all that may be told again, and more.
MOST_PUBLISHED: Final = 4 * MOST_UNTRUSTED
# What could not be written to a full disk waits in memory: a day of a busy street, some 10 MB.
MOST_UNSAVED: Final = 10_000
# What has waited too long is looked for so often; it is a matter of days.
EXPIRE_S: Final = 600.0
# A worn SD card may take so long for a commit; the sound of half of it waits in the card's queue.
MOST_STALL_S: Final = 60.0
# What waits in memory is written for so long at a time, and after a failure again in so long.
SAVE_S: Final = 1.0
SAVE_AGAIN_S: Final = 1.0
MOST_LATEST: Final = 20  # detections that `status` shows


class Keeper:
    """Makes durable what is to be published.

    Parameters
    ----------
    settings
        Of this node.
    book
        Where it is told how the outbox does.
    service
        Whose watchdog is to wait for a slow disk; nobody's unless given.

    Attributes
    ----------
    snippets
        What encrypts the sound of a detection; None where that is not switched on.
    latest
        The detections that were saved last, the newest at the end.
    """

    def __init__(self, settings: Settings, book: Book, service: Service | None = None) -> None:
        self.snippets = _sealer(settings.snippets)
        self.latest: deque[Detection] = deque(maxlen=MOST_LATEST)
        self._settings = settings
        self._book = book
        self._service = service or Service({})
        self._spool: Spool | None = None
        self._unsaved: deque[Detection] = deque(maxlen=MOST_UNSAVED)
        self._published: dict[str, bool] = {}  # events, the latest last
        self._expire_again_s = self._save_again_s = 0.0

    def open_spool(self) -> Spool | None:
        """Give the place of the snippets that wait, beside an outbox that is ours by now."""
        if self.snippets is not None:
            beside = self._settings.outbox.path
            folder = beside.with_name(beside.name + ".snippets")
            self._spool = Spool(folder, self._settings.snippets.max_waiting_bytes)
        return self._spool

    def take(self, detections: list[Detection]) -> None:
        """Take what the pipeline has made; a verdict that went out is taken back in any case."""
        for detection in detections:
            if not self._to_be_published(detection):
                continue
            if len(self._unsaved) == MOST_UNSAVED:
                _give_up(self._unsaved[0])
            self._unsaved.append(detection)

    def save(
        self, outbox: Outbox, render: Callable[[Detection, Link], Rendered], *, last: bool = False
    ) -> None:
        """Make durable what was heard; what cannot be is kept, told, and tried again.

        Between two blocks of sound, and so for `SAVE_S` at a time; what is left then lets as much
        time go to sound.

        Parameters
        ----------
        outbox
            Where to.
        render
            Makes a detection what it is for good, once its place in the chain is known.
        last
            Whether there is no next time.
        """
        now_s = time.monotonic()
        if self._unsaved and now_s < self._save_again_s and not last:
            return
        until_s = math.inf if last else now_s + SAVE_S
        while self._unsaved and time.monotonic() < until_s:
            with self._service.patient(MOST_STALL_S):
                saved = self._write(outbox, render, self._unsaved[0])
            if not saved:
                self._save_again_s = time.monotonic() + SAVE_AGAIN_S
                return
            self._unsaved.popleft()
        if self._unsaved:
            self._save_again_s = 2 * time.monotonic() - now_s
        else:
            self._book.settle(
                "outbox", f"{outbox.depth} wait for the broker, {outbox.dropped} dropped"
            )

    def expire(self, outbox: Outbox, utc_ns: int) -> None:
        """Drop what has waited for weeks by now, in ns since 1970; looked for every `EXPIRE_S`."""
        now_s = time.monotonic()
        if now_s < self._expire_again_s:
            return
        self._expire_again_s = now_s + EXPIRE_S
        max_age_s = self._settings.outbox.max_age_days * 86_400
        with self._service.patient(MOST_STALL_S):
            if self.snippets is not None and self._spool is not None:
                dropped = self._spool.expire(utc_ns, max_age_s)
                self.snippets.keep_back("they had waited too long: outbox.max_age_days", dropped)
            try:
                outbox.expire(utc_ns, max_age_s)
            except OutboxError as error:
                log.warning("%s", error)  # the next detection tells it in the status

    def close(self) -> None:
        """Put into the log what could not be saved to the end."""
        for detection in self._unsaved:
            _give_up(detection)

    def _write(
        self,
        outbox: Outbox,
        render: Callable[[Detection, Link], Rendered],
        detection: Detection,
    ) -> bool:
        """Write one; whether the disk has taken it."""
        try:
            appended = outbox.append(
                detection.event_id,
                detection.revision,
                parse_utc_ns(detection.onset_utc),
                partial(render, detection),
            )
        except OutboxError as error:
            full = is_full(error)
            if full and self._make_way():
                return self._write(outbox, render, detection)
            if not self._book.says("outbox"):
                log.error("%s", error)
            # Room can be made from a desk, and nothing is lost until then; a disk that is broken
            # wants somebody there.
            tell = self._book.warn if full else self._book.fail
            tell("outbox", f"{len(self._unsaved)} detections wait in memory: {error}")
            return False
        self.latest.append(detection)
        self._save_snippet(detection)
        log.info(
            "%s seq %d at %s, scores.gunfire %.3f",
            detection.grade,
            appended.seq,
            detection.onset_utc,
            detection.scores.gunfire,
        )
        return True

    def _to_be_published(self, detection: Detection) -> bool:
        rejected = detection.grade == "not_gunfire" and not detection.abstained
        known = self._published.pop(detection.event_id, False)
        if rejected and not known and not self._settings.classify.publish_rejected:
            return False
        self._published[detection.event_id] = True
        if len(self._published) > MOST_PUBLISHED:
            del self._published[next(iter(self._published))]
        return True

    def _save_snippet(self, detection: Detection) -> None:
        """Make a detection's snippet durable, encrypted as it is; what cannot be is given up."""
        snippets, spool = self.snippets, self._spool
        message = None if snippets is None else snippets.message(detection)
        if snippets is None or spool is None or message is None:
            return
        try:
            dropped = spool.add(message)
        except OutboxError as error:
            snippets.keep_back(f"it could not be written ({error})")
        else:
            snippets.keep_back("too many wait: snippets.max_waiting_bytes", dropped)
        snippets.saved(detection)

    def _make_way(self) -> bool:
        """Drop the snippets that wait, for a detection that finds the disk full."""
        if self.snippets is None or self._spool is None:
            return False
        dropped = self._spool.clear()
        self.snippets.keep_back("the disk was full, and detections come first", dropped)
        return dropped > 0


def _give_up(detection: Detection) -> None:
    log.error("detection could not be saved: %s", to_json(detection).decode())


def _sealer(settings: SnippetSettings) -> Snippets | None:
    if not settings.enabled:
        return None
    from node.snippets import Snippets  # a node without them has no use for what it brings

    return Snippets(settings)
