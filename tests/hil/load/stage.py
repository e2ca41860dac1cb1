"""One node under load on a virtual card, in a process of its own, and what came of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from tests.hil.load.display import ARRAY, RATE_HZ, Pcm
from tests.hil.load.throttle import Throttle, throttle
from tests.hil.process import end_with_us
from tests.hil.virtual_card import VirtualCard

START_S: Final = 60.0
END_S: Final = 60.0
SITE: Final = "new-year"
SAME_S: Final = 0.005
"""An onset this close to a shot's is the shot's."""

HEARING: Final = "tests.hil.load.hearing_node"
_ENVIRONMENT: Final = {"OPENBLAS_NUM_THREADS": "1"}  # as the unit has it
_SETTINGS: Final = """
[node]
id = "{name}"
site = "{site}"
[capture]
device = "{device}"
channels = 4
array = "{array}"
order_fixed = true
[timing]
chrony = false
[outbox]
path = "{folder}/outbox.sqlite3"
[integrity]
key_file = "{folder}/node.key"
[health]
status_file = "{folder}/status.json"
[mqtt]
url = "{url}"
"""


@dataclass(frozen=True)
class At:
    """How far a node has come: its line `at` (see `tests.hil.load.hearing_node`)."""

    monotonic_s: float
    end_sample: int
    lost: int
    dropped: int
    behind_s: float
    most_behind_s: float
    hearing_s: float
    process_s: float
    stages_s: dict[str, float]
    hasty: int


@dataclass(frozen=True)
class Need:
    """The processor time that a node takes for a second of sound, where nothing holds it back.

    Attributes
    ----------
    hearing_s
        Of the thread that hears and judges.
    process_s
        Of all threads.
    """

    hearing_s: float
    process_s: float


@dataclass(frozen=True)
class Told:
    """A detection as it was made: its line `told`."""

    event_id: str
    revision: int
    grade: str
    abstained: bool
    impulses: tuple[float, ...]
    rounds: tuple[float, ...]


@dataclass(frozen=True)
class Record:
    """All that a node told of itself."""

    at: tuple[At, ...]
    told: tuple[Told, ...]


@dataclass(frozen=True)
class Shots:
    """What became of the shots that reached a node, as counts.

    Attributes
    ----------
    fired
        That reached the microphone.
    found
        At whose moment the trigger told an impulse, in an event that was published.
    inside
        Whose moment lies within a published event.
    timed
        That are a round of a published detection, at their moment.
    graded
        Of these, in a detection graded gunfire or probable gunfire.
    """

    fired: int
    found: int
    inside: int
    timed: int
    graded: int


@dataclass
class LoadedNode:
    """A node on a card of its own that plays a stretch of sound over and over.

    Parameters
    ----------
    folder
        For its files; made if absent.
    name
        Its name.
    frames, plugin
        What the card plays, and the plug-in that is the card.
    url
        The broker.
    """

    folder: Path
    name: str
    frames: Pcm
    plugin: Path
    url: str
    _open: ExitStack = field(default_factory=ExitStack, init=False)
    _throttle: Throttle | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True)
        self._card = VirtualCard(
            self.folder / "card", self.plugin, self.frames, RATE_HZ, loop=True, name=self.name
        )
        settings = self.folder / "node.toml"
        settings.write_text(
            _SETTINGS.format(
                name=self.name,
                site=SITE,
                device=self.name,
                array=ARRAY,
                folder=self.folder,
                url=self.url,
            )
        )
        self._log = self.folder / "log.jsonl"
        said = self._open.enter_context((self.folder / "stderr").open("w"))
        self._process = subprocess.Popen(
            # The card is in this process, and does not wait for what else this machine has to do.
            ["nice", "-n", "-10", sys.executable, "-m", HEARING, str(settings), str(self._log)],
            env=os.environ | self._card.environment | _ENVIRONMENT,
            stderr=said,
            preexec_fn=end_with_us,
        )
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def wait_until_it_hears(self) -> None:
        """Wait for its first word."""
        until_s = time.monotonic() + START_S
        while not (self._log.exists() and self._log.stat().st_size):
            if self._process.poll() is not None or time.monotonic() > until_s:
                raise RuntimeError(f"does not hear: {(self.folder / 'stderr').read_text()}")
            time.sleep(0.1)

    def need_since(self, monotonic_s: float) -> Need:
        """Give what it has needed from then until now."""
        return need([at for at in read(self._log).at if at.monotonic_s >= monotonic_s])

    def slow_down(self, need: Need) -> str:
        """Let it have so much of a core from now on; say by what."""
        self._throttle = self._open.enter_context(
            throttle(self._process.pid, need.hearing_s, need.process_s)
        )
        return self._throttle.how

    def end(self) -> Record:
        """Let it judge all that waits, as fast as it can, and end; give what it told."""
        if self._throttle is not None:
            self._throttle.lift()
        self._process.send_signal(signal.SIGTERM)
        if self._process.wait(END_S) != 0:
            raise RuntimeError(f"ended badly: {(self.folder / 'stderr').read_text()}")
        return read(self._log)


def read(log: Path) -> Record:
    """Read what a node told of itself; a last line that was cut off is left out."""
    at, told = [], []
    for line in log.read_text("utf-8").split("\n")[:-1]:
        kind, *words = json.loads(line)
        if kind == "at":
            at.append(At(*words))
        else:
            told.append(Told(*words[:4], *map(tuple, words[4:])))
    return Record(tuple(at), tuple(told))


def need(course: Sequence[At]) -> Need:
    """Say what a node needed on its way from the first line to the last."""
    first, last = course[0], course[-1]
    return Need(
        (last.hearing_s - first.hearing_s) / heard_s(course),
        (last.process_s - first.process_s) / heard_s(course),
    )


def heard_s(course: Sequence[At]) -> float:
    """Say how much sound a node heard from the first line to the last."""
    return (course[-1].end_sample - course[0].end_sample) / RATE_HZ


def follow(shots: Sequence[float], told: Sequence[Told]) -> Shots:
    """Say what became of shots.

    Parameters
    ----------
    shots
        Their onsets, in samples.
    told
        What was received, each as its node made it.
    """
    same = SAME_S * RATE_HZ

    def near(onset: float, others: Sequence[float]) -> bool:
        return any(abs(onset - other) <= same for other in others)

    def any_told(holds: Any) -> int:
        return sum(any(holds(shot, one) for one in told) for shot in shots)

    return Shots(
        fired=len(shots),
        found=any_told(lambda shot, one: near(shot, one.impulses)),
        inside=any_told(lambda s, o: o.impulses[0] - same <= s <= o.impulses[-1] + same),
        timed=any_told(lambda shot, one: near(shot, one.rounds)),
        graded=any_told(lambda s, o: o.grade != "not_gunfire" and near(s, o.rounds)),
    )
