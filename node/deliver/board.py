"""What a node says beside its detections: the newest word on each topic, until the broker has it.

Beside the outbox, in memory: of these words only the newest matters, and after a restart the node
says them anew. The publisher sends from here and hands back the broker's answers.
"""

import threading
from typing import Final, NamedTuple

REFUSED_PAUSE_S: Final = 60.0
"""How long a word that the broker refused waits before it is sent again."""


class Word(NamedTuple):
    """One word: kept words stay retained at the broker, told ones pass."""

    topic: str
    payload: bytes
    retain: bool
    expiry_s: int | None


class Board:
    """The newest word on each topic, and what the broker said to it.

    `put` may be called from any thread; all else belongs to the sending one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._words: dict[str, Word] = {}
        self._had: dict[str, Word] = {}  # the newest of each topic that was acknowledged
        self._under_way: dict[int, Word] = {}
        self._not_before_s: dict[str, float] = {}

    def put(self, word: Word) -> None:
        """Have a word said in place of the one before on its topic."""
        with self._lock:
            self._words[word.topic] = word

    def begin(self) -> None:
        """Start a connection: what is kept is said again, and what was not acknowledged."""
        self._under_way = {}
        self._not_before_s = {}
        self._had = {topic: word for topic, word in self._had.items() if not word.retain}

    @property
    def under_way(self) -> tuple[Word, ...]:
        """Words sent and not answered yet."""
        return tuple(self._under_way.values())

    def due(self, now_s: float) -> Word | None:
        """Give the next word to send; one at a time, so that a newer one cannot be overtaken."""
        if self._under_way:
            return None
        with self._lock:
            words = tuple(self._words.values())
        for word in words:
            if self._had.get(word.topic) is not word and (
                self._not_before_s.get(word.topic, now_s) <= now_s
            ):
                return word
        return None

    def sent(self, mid: int, word: Word) -> None:
        """Note that a word is under way."""
        self._under_way[mid] = word

    def answered(self, mid: int, *, refused: bool, now_s: float) -> Word | None:
        """Take the broker's answer; give the word, or None if it was to none of ours."""
        word = self._under_way.pop(mid, None)
        if word is None:
            return None
        if refused:
            self._not_before_s[word.topic] = now_s + REFUSED_PAUSE_S
        else:
            self._had[word.topic] = word
            self._not_before_s.pop(word.topic, None)
        return word

    def give_up(self, word: Word) -> None:
        """Say a word no more: the broker can never take it. The next one on its topic is tried."""
        with self._lock:
            if self._words.get(word.topic) is word:
                del self._words[word.topic]
