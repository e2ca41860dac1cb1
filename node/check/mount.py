"""What a mounting proves by sound: levels, which channel is which microphone, and claps.

Behind `check --mount`: blocks of the card come in as somebody on a ladder taps and claps, verdicts
go out; where the array points, `node.check.aim` makes of the claps. Directions are told in the
array's own axes (`node.capture.geometry`), so that what the settings say of its heading and tilt is
compared and not taken for granted. Pure: no terminal, no threads.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from node.board.findings import Finding
from node.check.ear import clap_pipeline, loud_enough
from node.detect.microphones import MicrophoneWatch
from node.ears import Ears
from node.messages import Detection
from node.pipeline import Pipeline
from node.settings import Settings
from node.timing import HostClock
from node.types import Block

Floats = npt.NDArray[np.float64]

FRAME_S: Final = 0.1
QUIET_FRAMES: Final = 50
# A finger on a capsule is as loud as a jet for it, and is heard by the others through the frame.
TAP_DB: Final = 15.0
TAP_ALONE_DB: Final = 6.0
TAPS: Final = 4
TAPS_AGREE: Final = 0.75
CLAPS: Final = 3


class MountEar:
    """Hears for a mounting: levels, verdicts on microphones, claps.

    Parameters
    ----------
    settings
        Of the node.
    channels, sample_rate_hz
        Of the blocks to come.

    Attributes
    ----------
    microphones
        The card's channels that are microphones, in the array's order.
    levels_dbfs
        The last tenth of a second of each.
    """

    def __init__(self, settings: Settings, channels: int, sample_rate_hz: int) -> None:
        self._settings = settings
        self._channels = channels
        self._rate = sample_rate_hz
        ears = Ears(settings, sample_rate_hz)
        self.microphones = ears.microphones
        self.watch = MicrophoneWatch(
            sample_rate_hz, channels, microphones=ears.microphones, order=ears.order
        )
        self.levels_dbfs: Floats = np.full(len(ears.microphones), -math.inf)
        self._quiet: deque[Floats] = deque(maxlen=QUIET_FRAMES)
        self._rest = np.zeros((0, len(ears.microphones)), np.float32)
        self._pipeline: Pipeline | None = None
        self.tap: Tap | None = None
        self.claps: list[Detection] = []

    @property
    def is_point(self) -> bool:
        """Whether no direction can be told by this array."""
        return len(self.microphones) < 2 or self._settings.capture.array == "mono"

    @property
    def quiet_db(self) -> Floats:
        """How loud it usually is for each microphone; a tap stands out of that."""
        if not self._quiet:
            return np.full(len(self.microphones), -120.0)
        return np.asarray(np.median(self._quiet, axis=0))

    def listen_for_claps(self, order_proven: bool) -> None:
        """Tell directions from now on, in the array's own axes.

        Parameters
        ----------
        order_proven
            Whether taps have proven it: then no pulse is waited for.
        """
        level: dict[str, object] = {"heading_deg": 0.0, "pitch_deg": 0.0, "roll_deg": 0.0}
        capture = self._settings.capture.model_copy(
            update=level | ({"order_fixed": True} if order_proven else {})
        )
        ears = Ears(self._settings.model_copy(update={"capture": capture}), self._rate)
        # Each clap is an event of its own.
        detect = self._settings.detect.model_copy(update={"burst_s": 0.0})
        ears.clock.observe_host(HostClock().read())
        self._pipeline = clap_pipeline(ears, detect, self._channels, self._rate)

    def take(self, block: Block) -> None:
        """Take the next block of the card."""
        self.watch.push(block)
        if self._pipeline is not None:
            loud = loud_enough(self._pipeline.push(block))
            self.claps += [d for d in loud if d.revision == 0]
        sound = np.concatenate((self._rest, block.samples()[:, list(self.microphones)]))
        frame = round(FRAME_S * self._rate)
        whole = len(sound) // frame * frame
        self._rest = sound[whole:]
        for piece in sound[:whole].reshape(-1, frame, sound.shape[1]):
            self._frame(piece.astype(np.float64))

    def _frame(self, piece: Floats) -> None:
        # Differences: neither wind nor a lorry is a tap.
        power = np.mean(np.square(np.diff(piece, axis=0)), axis=0)
        level_db = 10 * np.log10(power + 1e-14)
        self.levels_dbfs = 10 * np.log10(np.var(piece, axis=0) + 1e-14)
        if self.tap is not None:
            self.tap.take(level_db - self.quiet_db)
        else:
            self._quiet.append(level_db)


class Tap:
    """Finds the channel of a microphone that is tapped or rubbed.

    Parameters
    ----------
    microphone
        Its place in the array.
    """

    def __init__(self, microphone: int) -> None:
        self.microphone = microphone
        self._votes: list[int] = []
        self._loudest_db = -math.inf

    def take(self, rise_db: Floats) -> None:
        """Take by how much each is louder than usual, for a tenth of a second."""
        ranked = np.argsort(rise_db)[::-1]
        first_db = float(rise_db[ranked[0]])
        self._loudest_db = max(self._loudest_db, first_db)
        second_db = float(rise_db[ranked[1]]) if len(ranked) > 1 else -math.inf
        if first_db >= TAP_DB and first_db - second_db >= TAP_ALONE_DB:
            self._votes.append(int(ranked[0]))

    @property
    def heard(self) -> int | None:
        """The place in the array whose channel hears it; None while that is not sure."""
        if len(self._votes) < TAPS:
            return None
        most = max(set(self._votes), key=self._votes.count)
        return most if self._votes.count(most) >= TAPS_AGREE * len(self._votes) else None

    @property
    def sentence(self) -> str:
        """Say what was heard."""
        if self.heard == self.microphone:
            return "heard in its own channel"
        if self.heard is not None:
            return f"HEARD IN THE CHANNEL OF MICROPHONE {self.heard}"
        if self._loudest_db < TAP_DB:
            return "not heard at all: is it connected?"
        return "not told apart from the others: rub it, and touch nothing else"


def taps_finding(heard: Sequence[int | None], channels: Sequence[int]) -> Finding:
    """Judge the order of the channels by the taps.

    Parameters
    ----------
    heard
        For each microphone the place in the array whose channel heard it.
    channels
        The card's channels of the microphones, in the array's order.
    """
    wrong = [k for k, found in enumerate(heard) if found is not None and found != k]
    unheard = [k for k, found in enumerate(heard) if found is None]
    if not wrong and not unheard:
        figure = f"tapped: all {len(heard)} microphones are in the channels that the array says"
        return Finding("channel order", "pass", figure)
    if not wrong:
        names = ", ".join(map(str, unheard))
        figure = f"tapped: microphone {names} was not heard by itself"
        return Finding("channel order", "warn", figure, "check its plug; tap it again")
    told = ", ".join(f"{k} in channel {channels[heard[k] or 0]}" for k in wrong)
    advice = "plug " + ", ".join(f"{k} into channel {channels[k]}" for k in wrong)
    if not unheard and sorted(f for f in heard if f is not None) == list(range(len(heard))):
        rows = [heard.index(k) for k in range(len(heard))]
        advice += f"; or write the rows of the array's file in the order {rows}"
    return Finding("channel order", "fail", f"tapped: microphone {told}", advice)
