"""Whether each microphone works: told from the sound itself, second by second.

Blocks come in beside the pipeline, as the daemon or a check has them; out goes a verdict on each
microphone, with its figures. A second counts against a microphone if it looks broken in it; a
verdict needs several such seconds in a row, and goes once none of the last eight looked so even by
milder bars: one bang, one gust, one passing lorry make none. Pure: no I/O, no threads, no clock;
it keeps a second of sound, four at 2 kHz, and figures.

What one microphone alone tells: silent, stuck, clipped, and humming by its odd lines. That one
carries the same as another takes two. What rests on a comparison with most of the others, noisy,
crackling, drifting, low bits stuck, a level far below theirs, a hum on it alone, takes three.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from node.detect.capsule import Flags, Floats, Second, measure
from node.detect.hum import Hum, HumMeter
from node.detect.order import ChannelOrder
from node.types import Block, PcmArray

MicrophoneVerdict = Literal[
    "unknown",
    "ok",
    "silent",
    "stuck",
    "swapped",
    "clipped",
    "humming",
    "crackling",
    "noisy",
    "drifting",
]

# A card's input settles after it is opened.
SETTLE_S: Final = 1
WINDOW_S: Final = 8
# To compare with most of the others.
FEWEST: Final = 3

# Capsules of one kind agree to ±3 dB, knobs and cables to some more; and what hears so much less
# than the others at an array's size hears nothing of the air.
DEAF_DB: Final = -20.0
NOISY_DB: Final = 15.0
# Half of the range is gone.
RAIL_DC: Final = 0.5
# Four levels above -60 dBFS are no capsule's noise, however coarse the converter.
FEW_VALUES: Final = 4
FEW_VALUES_DBFS: Final = -60.0
# So many of its low bits never move, while those of more than half of all microphones do.
DROPPED_BITS: Final = 4
# What clips in nine of ten twentieths of each of eight seconds is no series of bangs: ten a second
# of half a second's tail, 15 dB beyond full scale, leave more of them free.
CLIPPED_SHARE: Final = 0.01
CLIPPED_SLICES: Final = 0.9
# The lines hold more than all else between 40 Hz and 1 kHz, and stay as loud as they are.
HUM_DB: Final = 0.0
HUM_STEADY_DB: Final = 2.0
HUM_ALONE_DB: Final = 10.0
# A copy, but for what rounding leaves, 60 dB down. Two capsules differ by more even where both
# hear one steady low sound from broadside: 1 mm of way is 41 dB down at 500 Hz, a degree of phase
# 35 dB. So one capsule wired to two inputs is told only where the converter's noise is as far down.
SAME: Final = 1 - 5e-7
CRACKS_PER_S: Final = 2
CRACKS_OF_OTHERS: Final = 4  # a microphone of which the others have a quarter has rain
# Water in the membrane costs 10 dB and more; the sun on one housing, a decibel or two.
DRIFT_DB: Final = 6.0
DRIFT_SPAN_S: Final = 600
DRIFT_SETTLED_SPANS: Final = 3
DRIFT_SPANS: Final = 3
# Milder bars by which a verdict stays.
EASED_DB: Final = 3.0
EASED: Final = 0.5


@dataclass(frozen=True, slots=True)
class MicrophoneState:
    """What is known of one microphone; figures are of the last eight seconds heard.

    Attributes
    ----------
    microphone, channel
        Its place in the array, and the card's channel, from 0.
    verdict
        "unknown" until there was enough sound for a verdict. "silent": no capsule is heard;
        "stuck": a constant, a few values, a bit that never moves, a rail; "swapped": the same as
        another microphone, or the order of the channels is disproven; "clipped": at full scale
        most of the time; "humming": the mains dominate; "crackling": impulses that no other
        hears; "noisy": far louder than the others; "drifting": departs from the others over hours.
    sentence
        Why, in figures.
    rms_dbfs, peak_dbfs
        Without the mean; with it. None where nothing was heard yet.
    dc
        The mean, full scale at 1.
    full_scale_share
        Share of the samples at full scale.
    hum_db, hum_hz
        Power in the mains' lines over all else from 40 Hz to 1 kHz, and the mains' frequency; None
        until four seconds were heard, and without a line.
    over_others_db
        Its background over the median of the others'; None with fewer than three that work.
    drift_db
        By how much that has changed since it settled; None until it has.
    correlation, most_like
        The largest with another microphone, at least so much in each tenth of a second, and that
        microphone; None where there is none.
    """

    microphone: int
    channel: int
    verdict: MicrophoneVerdict
    sentence: str
    rms_dbfs: float | None = None
    peak_dbfs: float | None = None
    dc: float | None = None
    full_scale_share: float | None = None
    hum_db: float | None = None
    hum_hz: float | None = None
    over_others_db: float | None = None
    drift_db: float | None = None
    correlation: float | None = None
    most_like: int | None = None

    @property
    def works(self) -> bool:
        """Whether nothing is held against it."""
        return self.verdict in ("ok", "unknown")


@dataclass(frozen=True, slots=True)
class _Look:
    """A second as it looks: by the bars for a verdict, and by the milder ones to keep it."""

    broken: dict[MicrophoneVerdict, Flags]
    doubtful: dict[MicrophoneVerdict, Flags]


# So many of the last so many seconds must look broken; the gravest first. A hum's second is the
# last of four.
NEEDED: Final[dict[MicrophoneVerdict, tuple[int, int]]] = {
    "stuck": (3, 3),
    "swapped": (8, 8),
    "clipped": (8, 8),
    "silent": (3, 3),
    "humming": (4, 4),
    "crackling": (5, 8),
    "noisy": (8, 8),
}


class MicrophoneWatch:
    """Watches the microphones of a stream.

    Parameters
    ----------
    sample_rate_hz, channels
        Of the blocks to come.
    microphones
        Which channels are microphones, in the array's order; all unless others carry a pulse, or
        nothing.
    order
        What knows whether the channels are in order; somebody else lets it observe.
    """

    def __init__(
        self,
        sample_rate_hz: int,
        channels: int,
        *,
        microphones: Sequence[int] | None = None,
        order: ChannelOrder | None = None,
    ) -> None:
        self._rate = sample_rate_hz
        self._channels = tuple(range(channels) if microphones is None else microphones)
        self._order = order
        self._hum_meter = HumMeter(sample_rate_hz, len(self._channels))
        self._drift = _Drift(len(self._channels))
        self._pcm: PcmArray = np.zeros((len(self._channels), sample_rate_hz), dtype=np.float32)
        self._filled = 0
        self._next: int | None = None
        self._stream: int | None = None
        self._settling = SETTLE_S
        self._forget()

    def _forget(self) -> None:
        n = len(self._channels)
        self._heard_s = 0
        self._states: tuple[MicrophoneState, ...] | None = None  # until the next second
        self._seconds: deque[Second] = deque(maxlen=WINDOW_S)
        self._hums: deque[Hum] = deque(maxlen=4)
        self._looks: deque[_Look] = deque(maxlen=WINDOW_S)
        self._held: dict[MicrophoneVerdict, Flags] = {v: np.zeros(n, dtype=bool) for v in NEEDED}
        self._hum_meter.reset()

    @property
    def heard_s(self) -> int:
        """Whole seconds of sound that were judged since the stream began."""
        return self._heard_s

    @property
    def states(self) -> tuple[MicrophoneState, ...]:
        """What is known of each microphone, in the array's order."""
        if self._states is None:
            self._states = self._told()
        return self._states

    def push(self, sound: Block | PcmArray) -> None:
        """Take the next block: all channels of it, or an array [n, microphones] of those alone.

        A second with a gap in it is not judged; an array is taken to follow what came before it.
        Floats have no bits, so that none can be told to be stuck.
        """
        if isinstance(sound, Block):
            self._follow(sound)
            self._take([sound.frames[:, channel] for channel in self._channels])
        else:
            self._take(list(sound.T))

    def _follow(self, block: Block) -> None:
        """Begin anew where a block does not follow the one before."""
        if block.stream != self._stream:
            self._stream = block.stream
            self._settling = SETTLE_S
            self._filled = 0
            self._forget()
        elif block.lost_before > 0 or block.first_sample != self._next:
            self._filled = 0
            self._hum_meter.reset()
            self._hums.clear()
        self._next = block.end_sample

    def _take(self, rows: Sequence[PcmArray]) -> None:
        frames, at = len(rows[0]), 0
        if self._pcm.dtype != rows[0].dtype:
            self._pcm = _zeros(len(rows), self._rate, rows[0])
            self._filled = 0
        while at < frames:
            n = min(self._rate - self._filled, frames - at)
            for kept, row in zip(self._pcm, rows, strict=True):
                kept[self._filled : self._filled + n] = row[at : at + n]
            self._filled += n
            at += n
            if self._filled == self._rate:
                self._filled = 0
                self._judge(self._pcm)

    def _judge(self, pcm: PcmArray) -> None:
        if self._settling > 0:
            self._settling -= 1
            return
        second, sound = measure(pcm, self._rate)
        self._heard_s += 1
        self._states = None
        self._seconds.append(second)
        hum = self._hum_meter.take(sound)
        if hum is not None:
            self._hums.append(hum)
        self._drift.take(second)
        self._looks.append(self._look(second))
        for verdict, (of, last) in NEEDED.items():
            looks = list(self._looks)
            count = sum(look.broken[verdict].astype(int) for look in looks[-last:])
            doubt = np.any([look.doubtful[verdict] for look in looks], axis=0)
            self._held[verdict] = np.asarray((count >= of) | (self._held[verdict] & doubt))

    def _look(self, second: Second) -> _Look:
        broken, doubtful = (self._by(second, eased) for eased in (False, True))
        return _Look(broken, doubtful)

    def _by(self, second: Second, eased: bool) -> dict[MicrophoneVerdict, Flags]:
        """Say which microphones look broken in a second, and how."""
        ease_db = EASED_DB if eased else 0.0
        ease = EASED if eased else 1.0
        dead = second.dead
        live = ~dead
        over_db = over_others(second.level_db, live)
        rms_dbfs = _db(second.power)
        few = (second.values <= FEW_VALUES) & (rms_dbfs > FEW_VALUES_DBFS)
        at_rail = np.abs(second.dc) >= RAIL_DC * ease
        still = second.constant & (second.dc != 0)
        dropped = _dropped(second.lowest_bit, live)
        stuck = still | at_rail | (live & (few | (second.latched != 0) | dropped))
        clipped = (second.full_scale >= CLIPPED_SHARE * ease) & (
            second.full_scale_slices >= CLIPPED_SLICES * ease
        )
        others = (second.cracks.sum() - second.cracks) / max(1, np.count_nonzero(live) - 1)
        cracks = second.cracks >= max(1, CRACKS_PER_S * ease)
        return {
            "silent": (dead & ~stuck) | (over_db <= DEAF_DB + ease_db),
            "stuck": stuck,
            "swapped": live & (_most_alike(second.alike, live) >= SAME),
            "clipped": clipped,
            "humming": live & self._hums_as(ease_db),
            "crackling": cracks & (second.cracks >= CRACKS_OF_OTHERS * others),
            "noisy": over_db >= NOISY_DB - ease_db,
        }

    def _hums_as(self, ease_db: float) -> Flags:
        """Say which microphones hum: by the mains' own lines, or by what no other one hears."""
        n = len(self._channels)
        if not self._hums:
            return np.zeros(n, dtype=bool)
        levels = np.array([hum.level_db for hum in self._hums])
        steady = np.ptp(levels, axis=0) <= HUM_STEADY_DB + ease_db
        hum = self._hums[-1]
        strong = hum.ratio_db >= HUM_DB - ease_db
        live = ~self._seconds[-1].dead
        alone = over_others(hum.level_db, live) >= HUM_ALONE_DB - ease_db
        return np.asarray(steady & strong & hum.lines & (hum.odd | alone))

    def _told(self) -> tuple[MicrophoneState, ...]:
        if not self._seconds:
            waiting = "nothing was heard long enough yet"
            return tuple(
                MicrophoneState(i, channel, "unknown", waiting)
                for i, channel in enumerate(self._channels)
            )
        seconds = self._seconds
        rms_dbfs = _db(np.mean([s.power for s in seconds], axis=0))
        peak_dbfs = _db(np.square(np.max([s.peak for s in seconds], axis=0)))
        dc = np.mean([s.dc for s in seconds], axis=0)
        full_scale = np.mean([s.full_scale for s in seconds], axis=0)
        over_db = np.median([over_others(s.level_db, ~s.dead) for s in seconds], axis=0)
        alike = np.min([_alike_live(s.alike, ~s.dead) for s in seconds], axis=0)
        hum = self._hums[-1] if self._hums else None
        states = []
        for i, channel in enumerate(self._channels):
            most = int(np.argmax(alike[i]))
            hums = hum is not None and hum.lines[i] and not seconds[-1].dead[i]
            verdict = self._verdict(i)
            figures = MicrophoneState(
                microphone=i,
                channel=channel,
                verdict=verdict,
                sentence="",
                rms_dbfs=float(rms_dbfs[i]),
                peak_dbfs=float(peak_dbfs[i]),
                dc=float(dc[i]),
                full_scale_share=float(full_scale[i]),
                hum_db=float(hum.ratio_db[i]) if hum is not None and hums else None,
                hum_hz=float(hum.mains_hz[i]) if hum is not None and hums else None,
                over_others_db=None if math.isnan(over_db[i]) else float(over_db[i]),
                drift_db=None if math.isnan(self._drift.db[i]) else float(self._drift.db[i]),
                correlation=float(alike[i, most]) if np.isfinite(alike[i, most]) else None,
                most_like=most if np.isfinite(alike[i, most]) else None,
            )
            states.append(replace(figures, sentence=_SENTENCES[verdict](figures, self)))
        return tuple(states)

    def _verdict(self, i: int) -> MicrophoneVerdict:
        disproven = self._order is not None and self._order.state.proven is False
        for verdict, held in self._held.items():
            if held[i] or (verdict == "swapped" and disproven):
                return verdict
        if self._drift.held[i]:
            return "drifting"
        return "ok" if self._heard_s >= WINDOW_S else "unknown"

    def _stuck_how(self, i: int) -> str:
        """Say in which way a microphone is stuck, by its last second that looks so."""
        look = next((s for s in reversed(self._seconds) if self._by(s, True)["stuck"][i]), None)
        second = self._seconds[-1] if look is None else look
        if second.constant[i]:
            return f"delivers {second.dc[i]:+.3f} of full scale and nothing else"
        if abs(second.dc[i]) >= RAIL_DC * EASED:
            return f"stands at {second.dc[i]:+.2f} of full scale in the mean"
        if second.latched[i]:
            bits = [b for b in range(32) if int(second.latched[i]) >> b & 1]
            names = ", ".join(str(31 - b) for b in reversed(bits))
            return f"never moves bit {names}, counted from the sign, though higher and lower ones"
        if second.values[i] <= FEW_VALUES:
            return f"knows {second.values[i]} values only"
        return (
            "never moves the lowest bits that most others do, "
            f"from bit {32 - second.lowest_bit[i]} on"
        )

    def _other(self, i: int | None) -> str:
        return "another" if i is None else f"microphone {self._channels[i]}"


def over_others(level_db: Floats, live: Flags) -> Floats:
    """Give each level over the median of the others that live; NaN where fewer than two do."""
    over = np.full(len(level_db), np.nan)
    levels = level_db.tolist()  # a few: quicker than arrays
    alive = np.flatnonzero(live).tolist()
    if len(alive) < FEWEST:
        return over
    for i in alive:
        over[i] = levels[i] - median(levels[other] for other in alive if other != i)
    return over


def _alike_live(alike: Floats, live: Flags) -> Floats:
    """Give the correlations of different microphones that live; -inf for the others."""
    mask = live[:, None] & live[None, :] & ~np.eye(len(live), dtype=bool)
    return np.where(mask, alike, -np.inf)


def _most_alike(alike: Floats, live: Flags) -> Floats:
    return np.asarray(_alike_live(alike, live).max(axis=1))


def _dropped(lowest_bit: npt.NDArray[np.int64], live: Flags) -> Flags:
    known = live & (lowest_bit >= 0) & (lowest_bit < 32)
    if not known.any():
        return np.zeros(len(live), dtype=bool)
    # Of more than half of all: channels that a mixer has turned down have bits that no converter
    # gave, and of two, or of two against two, nobody knows which are right.
    finer = lowest_bit[None, :] <= lowest_bit[:, None] - DROPPED_BITS
    by_others = (finer & known[None, :]).sum(axis=1)
    return np.asarray(known & (2 * by_others > np.count_nonzero(known)))


def _zeros(rows: int, n: int, like: PcmArray) -> PcmArray:
    if like.dtype == np.int16:
        return np.zeros((rows, n), dtype=np.int16)
    if like.dtype == np.int32:
        return np.zeros((rows, n), dtype=np.int32)
    return np.zeros((rows, n), dtype=np.float32)


def _db(power: npt.ArrayLike) -> Floats:
    return np.asarray(10 * np.log10(np.maximum(power, 1e-20)))


def _silent(figures: MicrophoneState, watch: MicrophoneWatch) -> str:
    last = watch._seconds[-1]
    if last.dead[figures.microphone]:
        rms_dbfs = _db(last.power)[figures.microphone]
        return f"silent: {rms_dbfs:.0f} dBFS; see its plug and its supply"
    if figures.over_others_db is None or figures.over_others_db > DEAF_DB + EASED_DB:
        return "was silent just now: see its plug and its supply"  # its figures are of before
    return (
        f"hears {-figures.over_others_db:.0f} dB less than the others: see its plug, its "
        "supply and its gain"
    )


def _swapped(figures: MicrophoneState, watch: MicrophoneWatch) -> str:
    if (figures.correlation or 0.0) >= SAME:
        other = watch._other(figures.most_like)
        return f"carries the same as {other}: see the card's mixer and the cables"
    if watch._order is not None and watch._order.state.proven is False:
        return f"is in another order: {watch._order.state.reason}"
    return "carried the same as another: see the card's mixer and the cables"


def _humming(figures: MicrophoneState, _watch: MicrophoneWatch) -> str:
    if figures.hum_db is None:
        return "hummed until just now: see its shield and the grounds"
    return (
        f"hums: {figures.hum_hz:.1f} Hz and its multiples are {figures.hum_db:+.0f} dB against all "
        "else up to 1 kHz; see its shield and the grounds"
    )


_SENTENCES: Final[dict[MicrophoneVerdict, Callable[[MicrophoneState, MicrophoneWatch], str]]] = {
    "unknown": lambda _figures, watch: f"not known yet after {watch.heard_s} s of sound",
    "ok": lambda figures, _watch: (
        f"hears: {figures.rms_dbfs:.0f} dBFS rms, peak {figures.peak_dbfs:.0f} dBFS"
    ),
    "silent": _silent,
    "stuck": lambda figures, watch: (
        f"stuck: it {watch._stuck_how(figures.microphone)}; see its converter and its cable"
    ),
    "swapped": _swapped,
    "clipped": lambda figures, _watch: (
        f"at full scale for {100 * (figures.full_scale_share or 0.0):.0f} % of the time: turn "
        "its gain down"
    ),
    "humming": _humming,
    "crackling": lambda _figures, _watch: (
        "crackles: impulses, time and again, that no other hears; see its plug"
    ),
    "noisy": lambda figures, _watch: (
        f"{figures.over_others_db or 0.0:.0f} dB louder than the others: see its gain and its "
        "supply, and what touches it"
    ),
    "drifting": lambda figures, _watch: (
        f"drifted by {figures.drift_db or 0.0:+.0f} dB from the others: water, ice or dirt in "
        "the membrane?"
    ),
}


class _Drift:
    """How each level departs over hours from the others', against its own settled offset.

    Of each ten minutes the louder half counts: a capsule that loses its ear keeps its own noise,
    and shows it only when there is something to be heard.
    """

    def __init__(self, microphones: int) -> None:
        self._offsets: list[Floats] = []
        self._loud: list[float] = []
        self._settling: list[Floats] = []
        self._latest: deque[Floats] = deque(maxlen=DRIFT_SPANS)
        self.db: Floats = np.full(microphones, np.nan)
        self.held: Flags = np.zeros(microphones, dtype=bool)

    def take(self, second: Second) -> None:
        """Take the next second's levels."""
        live = ~second.dead
        if np.count_nonzero(live) < FEWEST:
            return
        self._offsets.append(over_others(second.level_db, live))
        self._loud.append(float(np.median(second.level_db[live])))
        if len(self._offsets) < DRIFT_SPAN_S:
            return
        loud = np.array(self._loud) >= np.median(self._loud)
        offsets = np.array(self._offsets)[loud]
        known = np.count_nonzero(~np.isnan(offsets), axis=0) > len(offsets) // 2
        span = np.full(len(known), np.nan)
        span[known] = np.nanmedian(offsets[:, known], axis=0)
        self._offsets, self._loud = [], []
        if len(self._settling) < DRIFT_SETTLED_SPANS:
            self._settling.append(span)
            return
        self._latest.append(span)
        if len(self._latest) < DRIFT_SPANS:
            return
        self.db = np.median(self._latest, axis=0) - np.median(self._settling, axis=0)
        size = np.abs(np.nan_to_num(self.db))
        self.held = np.asarray((size >= DRIFT_DB) | (self.held & (size >= DRIFT_DB - EASED_DB)))
