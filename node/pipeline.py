"""The pure middle: blocks in, detections out; live, replay and the tests all run this very code.

No I/O, no threads, no wall clock. `push` hands a block to the clock and the detector, keeps the
last seconds of sound, and once the sound after an event's last impulse has arrived, says where it
came from, which of its impulses are shots and what it was, and builds the message. Later knowledge,
more rounds of the same burst or a clock that can be trusted at last, makes a revision. What comes
out goes to the outbox (live) or to a line of JSON (replay).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, Self

import numpy as np
import numpy.typing as npt

from node.capture import ArrayGeometry
from node.detect import (
    ChannelOrder,
    Detector,
    DirectionFinder,
    JudgedMisses,
    NearMiss,
    PutDownToEcho,
    PutDownToSeam,
    Rejected,
    SitePrior,
    count_rounds,
    repeats,
    seam,
    weigh_elevation,
)
from node.detect.direction import DELAY_SIGMA_S, POSITION_SIGMA_M, sound_speed_m_s
from node.detect.rounds import LEAD_S, TAIL_S, rounds_of, same_bearing
from node.history import History
from node.messages import Detection, Origin, build_detection
from node.messages.detection import Snippet
from node.settings import DetectSettings
from node.timing import Misplaced
from node.types import (
    Block,
    Classifier,
    Direction,
    Event,
    Impulse,
    Instant,
    Judgement,
    Rounds,
    SampleClock,
)

# An urban shot brings dozens of echoes. The strongest few tell what it was; judging them all would
# make the cost of an event depend on the street.
MAX_WINDOWS: Final = 6
# So long after a moment at most, the detector knows of all impulses that began before it: two of
# its steps, a quarter second for the floor of a new channel, and by what an onset leads its peak.
JUDGED_S: Final = 0.5
# A longer block is taken in parts, or what it completes would find its sound forgotten.
PART_S: Final = 1.0
# So many detections told by a clock that could not be trusted yet may be told again.
MOST_UNTRUSTED: Final = 1000
# An echo comes no later than this after the last shot (a wall at half a kilometre), and weaker than
# any of them; within the larger figure it may be another gun, and the count is a minimum.
LATEST_ECHO_S: Final = 3.0
ECHO_DB: Final = 3.0
PERHAPS_A_GUN_DB: Final = 6.0
# So many shots of the burst before tell what bearing and which response is the gun's.
CONTEXT: Final = 4
# A node that is behind its card by so much understands an event by its first loud impulse alone,
# until it is behind by less: on a display of fireworks that takes a third of the time.
HURRY_S: Final = 2.0
# Of an event understood in haste, what is weaker than its loudest by more does not lead it.
LOUD_DB: Final = 6.0
# So many of them in a second of sound: each is a commit to disk on the thread that hears, which on
# an SD card takes up to 50 ms.
AGAIN_PER_S: Final = 8


@dataclass(frozen=True)
class Array:
    """What direction rests on.

    Attributes
    ----------
    finder
        Knows where the microphones are.
    order
        Knows whether the channels are in order; None where there is nothing to be proven (a
        recording's word is taken).
    """

    finder: DirectionFinder
    order: ChannelOrder | None = None

    @classmethod
    def of(
        cls,
        geometry: ArrayGeometry,
        sample_rate_hz: int,
        *,
        settings: DetectSettings,
        prior: SitePrior | None = None,
        order: ChannelOrder | None = None,
    ) -> Self | None:
        """Make one of a mounted geometry; None where all its microphones are at one place."""
        if geometry.is_point:
            return None
        position_sigma_m, delay_sigma_s = POSITION_SIGMA_M, DELAY_SIGMA_S
        if geometry.timing_sigma_s is not None:
            # It is of places and delays together.
            position_sigma_m, delay_sigma_s = 0.0, geometry.timing_sigma_s
        finder = DirectionFinder(
            geometry.positions_m,
            sample_rate_hz,
            delays_s=geometry.delays_s,
            position_sigma_m=position_sigma_m,
            delay_sigma_s=delay_sigma_s,
            sound_speed_m_s=sound_speed_m_s(settings.air_temperature_c),
            prior=prior,
        )
        return cls(finder, order)

    @property
    def ready(self) -> bool:
        """Whether a direction may be told."""
        return self.order is None or self.order.state.proven is True


class Sealer(Protocol):
    """Encrypts the sound of an event for its owner; there is none unless that is switched on."""

    def window(self, sample_rate_hz: int) -> tuple[int, int]:
        """Give the frames wanted before and after the first round."""

    def wants(self, detection: Detection) -> bool:
        """Say whether to seal the sound of such a detection."""

    def seal(
        self, detection: Detection, sound: npt.NDArray[np.float32], sample_rate_hz: int
    ) -> Snippet | None:
        """Seal one microphone's sound, shape [n]; give what the detection is to say of it."""


@dataclass(eq=False)
class _Told:
    """An event as it was told last."""

    event: Event
    rounds: Rounds
    judgement: Judgement
    direction: Direction | None
    revision: int = 0
    told_free: bool = False
    heard_until: float = 0.0  # onset of its last impulse, late echoes included
    echoes: tuple[float, ...] = ()  # onsets of late echoes
    sealed: bool = False  # or given up
    snippet: Snippet | None = None

    @property
    def shots(self) -> tuple[Impulse, ...]:
        """Its impulses that are shots."""
        return tuple(self.event.impulses[i] for i in self.rounds.shots)

    def slim(self) -> None:
        """Forget the impulses that no message needs: echoes, but for the one that names it."""
        first = self.event.impulses[0]
        shots = [self.event.impulses[i] for i in self.rounds.shots]
        others = () if shots[0] is first else (first,)
        clipped = any(impulse.clipped for impulse in self.event.impulses)
        kept = (*others, *shots)
        kept = (replace(kept[0], clipped=clipped), *kept[1:])
        self.event = replace(self.event, impulses=kept)
        self.rounds = replace(self.rounds, shots=tuple(range(len(others), len(kept))))


def _parts(block: Block, frames: int) -> Iterator[Block]:
    """Cut a block into parts of so many frames at most."""
    for first in range(0, max(1, len(block.frames)), frames):
        yield replace(
            block,
            first_sample=block.first_sample + first,
            frames=block.frames[first : first + frames],
            lost_before=0 if first else block.lost_before,
        )


def _bearing(shots: Sequence[Impulse]) -> Direction | None:
    """Give the surest bearing of some shots; None where it may be an echo's.

    Of shots whose first has none, one alone is not believed: what leads is no echo, what follows
    may be one.
    """
    located = [shot for shot in shots if shot.direction is not None]
    if not located:
        return None
    led = shots[0].direction is not None
    agree = len(located) > 1 and all(same_bearing(located[0], shot) for shot in located)
    if not led and not agree:
        return None
    return min(
        (shot.direction for shot in located if shot.direction is not None),
        key=lambda direction: direction.sigma_deg,
    )


def _may_be_echo(leading: _Told, event: Event) -> bool:
    """Whether an event that holds no shot of a burst is to be put down to that burst.

    Only to gunfire: a weak shot soon after a firework must not be taken for its echo.
    """
    gunfire = leading.judgement.grade != "not_gunfire"
    return gunfire and _weaker_db(leading, event) >= ECHO_DB


def _weaker_db(leading: _Told, event: Event) -> float:
    """Give by how much the loudest of an event is weaker than the weakest shot of a burst."""
    return min(s.snr_db for s in leading.shots) - max(i.snr_db for i in event.impulses)


class Pipeline:
    """From blocks of sound to detections.

    Parameters
    ----------
    origin
        Who hears: site, node, boot, position. May be set anew when the position is better known.
    settings
        When a sound is an impulse and which impulses are one event.
    clock
        Maps the sample counter to UTC; it learns from every block that is pushed.
    classifier
        Judges the sound round each impulse.
    sample_rate_hz, channels
        Of the blocks to come.
    microphones
        Which channels are microphones, in the array's order; all unless others carry a pulse, or
        nothing.
    array
        What direction rests on; None where there is one microphone, or no geometry.
    sealer
        Is given the sound of the first microphone round an event's first round; None, and no sound
        is given to anybody, unless the owner has switched snippets on.
    """

    def __init__(
        self,
        *,
        origin: Origin,
        settings: DetectSettings,
        clock: SampleClock,
        classifier: Classifier,
        sample_rate_hz: int,
        channels: int,
        microphones: Sequence[int] | None = None,
        array: Array | None = None,
        sealer: Sealer | None = None,
    ) -> None:
        self.origin = origin
        self._clock = clock
        self._classifier = classifier
        self._rate = sample_rate_hz
        chosen = list(range(channels) if microphones is None else microphones)
        self._microphones = None if chosen == list(range(channels)) else chosen
        self._channels = len(chosen)
        self._array = array
        self._sealer = sealer
        self._sealed_before, self._sealed_after = (
            (0, 0) if sealer is None else sealer.window(sample_rate_hz)
        )
        self._detector = Detector(
            settings,
            sample_rate_hz,
            self._channels,
            crossing_s=0.0 if array is None else array.finder.crossing_s,
        )
        self._before, self._after = classifier.window(sample_rate_hz)
        self._burst = round(settings.burst_s * sample_rate_hz)
        self._longest = round(settings.event_s * sample_rate_hz)
        window_s = (self._before + self._after) / sample_rate_hz
        # An event is handed on when its gap has passed, and may go on as a burst for as long as an
        # event may be. What begins just before that has to end, too, before the burst is closed,
        # by the sound from before its first shot.
        kept_s = settings.event_s + settings.gap_s + window_s + TAIL_S + JUDGED_S + PART_S
        if self._burst:
            kept_s += settings.event_s + repeats.LEAD_S
        kept_s += (self._sealed_before + self._sealed_after) / sample_rate_hz
        self._history = History(kept_s, sample_rate_hz, self._channels)
        self._waiting: deque[Event] = deque()
        self._open: list[_Told] = []  # bursts that may still go on, oldest first
        self._ended: list[_Told] = []  # of which echoes may still come
        self._untrusted: deque[_Told] = deque(maxlen=MOST_UNTRUSTED)
        self._missed = JudgedMisses()
        self._misplaced = Misplaced(sample_rate_hz)
        self._again_at = 0  # on the sample counter
        self._stream = 0
        self._waiting_s = 0.0
        self._hasty = 0

    @property
    def hasty(self) -> int:
        """How many events were understood by one impulse each, since there was no time for more."""
        return self._hasty

    @property
    def floor_dbfs(self) -> tuple[float | None, ...]:
        """The background of each microphone in the trigger band; None where there is none yet."""
        return self._detector.floor_dbfs

    def near_misses(self) -> tuple[NearMiss, ...]:
        """Give what came close of late, at most a hundred, the newest last: why it did not fire.

        Their samples are of the stream that was pushed last.
        """
        misses = (*self._detector.near_misses, *self._missed.latest)
        return tuple(sorted(misses, key=lambda miss: miss.sample))

    def push(self, block: Block) -> list[Detection]:
        """Take the next block; give the detections that it completes.

        New ones come in order of onset; revisions of earlier ones come between them.
        """
        detections: list[Detection] = []
        if block.stream != self._stream:
            # Sample indices mean something else from here on.
            detections = self.flush()
            self._stream = block.stream
            self._untrusted.clear()
            self._ended.clear()
            self._missed.forget()
            self._again_at = 0
        self._waiting_s = block.waiting_s
        self._clock.observe_block(block)
        self._misplaced.observe(block)
        if self._array is not None and self._array.order is not None:
            self._array.order.observe(block)
        detections += self._tell_some_again(block.end_sample)
        for part in _parts(self._heard(block), round(PART_S * self._rate)):
            self._history.push(part)
            self._waiting.extend(self._detector.push(part))
            while self._waiting and self._heard_out(self._waiting[0]):
                detections += self._tell_next()
            detections += self._close_bursts(self._all_told_before())
        return detections

    def flush(self) -> list[Detection]:
        """Give what is still open; the stream has ended."""
        self._waiting.extend(self._detector.flush())
        detections: list[Detection] = []
        while self._waiting:
            detections += self._tell_next()
        detections += self._close_bursts(math.inf)
        return detections + self._tell_again(MOST_UNTRUSTED)

    def _heard(self, block: Block) -> Block:
        if self._microphones is None:
            return block
        return replace(block, frames=block.frames[:, self._microphones])

    def _heard_out(self, event: Event) -> bool:
        after = max(self._after, self._sealed_after, math.ceil(TAIL_S * self._rate))
        return self._history.end_sample >= event.impulses[-1].onset_sample + after

    def _tell_next(self) -> list[Detection]:
        """Tell the event that has waited longest, after the bursts that ended before it began.

        In this order, whatever the blocks were: a large one may complete many events at once.
        """
        event = self._waiting.popleft()
        closed = self._close_bursts(event.impulses[0].onset_sample)
        sounds = tuple(impulse for impulse in event.impulses if not self._is_seam(impulse))
        return [*closed, *self._tell(replace(event, impulses=sounds))] if sounds else closed

    def _is_seam(self, impulse: Impulse) -> bool:
        """Whether it is no sound, but where frames were lost unseen; note it then."""
        onset = math.floor(impulse.onset_sample)
        if not self._misplaced.sigma_s(onset):
            return False
        first = onset - math.ceil(seam.BEFORE_S * self._rate)
        end = min(onset + math.ceil(seam.AFTER_S * self._rate), self._history.end_sample)
        if not seam.is_seam(self._history.window(first, end)):
            return False
        self._missed.keep(PutDownToSeam(onset))
        return True

    def _tell(self, event: Event) -> list[Detection]:
        if self._waiting_s >= HURRY_S:
            hasty = self._at_a_glance(event)
            detection = self._message(hasty)
            hasty.slim()
            return [detection]
        event = self._with_directions(event)
        told = self._gone_on(event)
        if told is not None:
            return [self._message(told)]
        leading = self._leading(event)
        rounds = None if leading is None else self._count_after(leading, event)
        if leading is not None and rounds is None and _may_be_echo(leading, event):
            return self._echo(leading, event)
        told = self._understand(event, rounds or self._count(event))
        if not self._burst:
            told.slim()
        else:
            self._open.append(told)
        return [self._message(told)]

    def _at_a_glance(self, event: Event) -> _Told:
        """Understand an event by one impulse, where there is no time for more.

        It stands by itself: it is no echo, has none, and does not go on.
        """
        loudest_db = max(impulse.snr_db for impulse in event.impulses)
        at = next(i for i, one in enumerate(event.impulses) if one.snr_db >= loudest_db - LOUD_DB)
        shot = self._located(event.impulses[at])
        self._hasty += 1
        return _Told(
            replace(event, impulses=(*event.impulses[:at], shot, *event.impulses[at + 1 :])),
            Rounds((at,), is_minimum=True),
            self._judge(Event((shot,)), shot.direction),
            shot.direction,
        )

    def _leading(self, event: Event) -> _Told | None:
        """Give the burst that an event comes so soon after that it may be its echo."""
        first = event.impulses[0].onset_sample
        self._ended = [t for t in self._ended if first - t.heard_until <= self._burst]
        for told in (*self._ended, *self._open):
            late_s = (first - told.shots[-1].onset_sample) / self._rate
            soon = first - told.heard_until <= self._burst and late_s <= LATEST_ECHO_S
            if soon:
                return told
        return None

    def _count_after(self, leading: _Told, event: Event) -> Rounds | None:
        """Say which impulses of an event are shots, knowing those before it; None if none is.

        What leads a burst is no echo, but what leads the rest of a burst that was too long for
        one event may be.
        """
        before = leading.shots[-CONTEXT:]
        rounds = self._count(Event(before + event.impulses))
        shots = [i - len(before) for i in rounds.shots if i >= len(before)]
        if not shots:
            return None
        return rounds_of(event.impulses, shots, rounds.is_minimum, self._rate)

    def _echo(self, leading: _Told, event: Event) -> list[Detection]:
        """Put an event down to the burst before it: late echoes, or perhaps a second gun."""
        after_s = (event.impulses[0].onset_sample - leading.shots[-1].onset_sample) / self._rate
        self._missed.keep(
            PutDownToEcho(
                sample=event.first_sample,
                kind="echo",
                of_sample=leading.event.first_sample,
                after_s=after_s,
                weaker_db=_weaker_db(leading, event),
            )
        )
        leading.heard_until = event.impulses[-1].onset_sample
        leading.echoes += tuple(impulse.onset_sample for impulse in event.impulses)
        if leading.rounds.is_minimum or _weaker_db(leading, event) >= PERHAPS_A_GUN_DB:
            return []
        leading.rounds = replace(leading.rounds, is_minimum=True)
        leading.revision += 1
        return [self._message(leading)]

    def _gone_on(self, event: Event) -> _Told | None:
        """Give an open burst together with an event, if the event is the rest of that burst.

        It is if it comes soon enough and holds rounds of the same burst: told by their bearing, or
        by the street's response to them.
        """
        for told in self._open:  # the oldest first: what leads is no echo
            before, after = told.event.impulses, event.impulses
            if (
                after[0].onset_sample - before[-1].onset_sample > self._burst
                or after[-1].onset_sample - before[0].onset_sample > self._longest
            ):
                continue
            both = self._with_directions(
                Event(before + after, told.event.lost_samples + event.lost_samples)
            )
            rounds = self._count(both)
            if rounds.shots[-1] >= len(before):
                joined = self._understand(both, rounds)
                told.event, told.rounds = joined.event, joined.rounds
                told.judgement, told.direction = joined.judgement, joined.direction
                told.heard_until = joined.heard_until
                told.revision += 1
                return told
        return None

    def _close_bursts(self, before: float) -> list[Detection]:
        """Close the bursts that ended before a sample, in that order.

        Each is looked at once more for rounds, and revised if it had more.
        """
        revised = []
        while self._open:
            told = min(self._open, key=self._until)
            until = self._until(told)
            if until > before:
                break
            in_time = self._waiting_s < HURRY_S
            if in_time and self._repeated(told, min(until, self._history.end_sample)):
                told.revision += 1
                revised.append(self._message(told))
            if self._until(told) == until:
                self._open.remove(told)
                self._ended.append(told)
                told.slim()
        return revised

    def _until(self, told: _Told) -> int:
        """Give until when a burst may go on: nothing that begins later can join it."""
        first, last = told.event.impulses[0].onset_sample, told.event.impulses[-1].onset_sample
        return math.ceil(min(last + self._burst + TAIL_S * self._rate, first + self._longest))

    def _all_told_before(self) -> float:
        """Give a sample such that all that began before it has been told."""
        begun = [event.impulses[0].onset_sample for event in self._waiting]
        if self._detector.open_since is not None:
            begun.append(self._detector.open_since)
        return min([self._history.end_sample - JUDGED_S * self._rate, *begun])

    def _repeated(self, told: _Told, until: int) -> bool:
        """Add to a burst what repeats its first shot; say whether there was any."""
        if told.judgement.grade == "not_gunfire":
            return False
        shot = told.event.impulses[told.rounds.shots[0]]
        first = math.floor(shot.onset_sample - repeats.LEAD_S * self._rate)
        sound = self._history.window(first, until)
        others = [i.onset_sample for o in self._open if o is not told for i in o.event.impulses]
        others += told.echoes
        more = repeats.with_repeats(told.event, told.rounds, sound, first, self._rate, others)
        if more is None:
            return False
        event, rounds = more
        event = self._with_directions(event)
        # What repeats the first from elsewhere is an echo of it.
        shots = [i for i in rounds.shots if same_bearing(shot, event.impulses[i])]
        if len(shots) <= len(told.rounds.shots):
            return False
        told.event = event
        told.rounds = rounds_of(event.impulses, shots, rounds.is_minimum, self._rate)
        return True

    def _tell_some_again(self, now_sample: int) -> list[Detection]:
        if now_sample < self._again_at:
            return []
        again = self._tell_again(AGAIN_PER_S)
        if again:
            self._again_at = now_sample + self._rate
        return again

    def _tell_again(self, most: int) -> list[Detection]:
        """Revise what was told before the clock could be trusted, now that it can be."""
        again: list[Detection] = []
        if self._clock.quality().source == "free":
            return again
        while self._untrusted and len(again) < most:
            told = self._untrusted.popleft()
            if told.told_free:  # no other revision has told it since
                told.revision += 1
                again.append(self._message(told))
        return again

    def _with_directions(self, event: Event) -> Event:
        return replace(event, impulses=tuple(self._located(i) for i in event.impulses))

    def _count(self, event: Event) -> Rounds:
        """Say which impulses of an event are shots."""
        first = math.floor(event.impulses[0].onset_sample - LEAD_S * self._rate)
        end = math.ceil(event.impulses[-1].onset_sample + TAIL_S * self._rate)
        sound = self._history.window(first, end)
        return count_rounds(event.impulses, sound, first, self._rate)

    def _understand(self, event: Event, rounds: Rounds) -> _Told:
        """Say where the shots of an event came from, and what they were."""
        direction = _bearing([event.impulses[i] for i in rounds.shots])
        return _Told(
            event,
            rounds,
            self._judge(event, direction),
            direction,
            heard_until=event.impulses[-1].onset_sample,
        )

    def _located(self, impulse: Impulse) -> Impulse:
        if self._array is None or not self._array.ready or impulse.direction is not None:
            return impulse
        before, after = self._array.finder.window()
        onset = math.floor(impulse.onset_sample)
        sound = self._history.window(onset - before, onset + after)
        at = impulse.onset_sample - (onset - before)
        return replace(impulse, direction=self._array.finder.find(sound, at))

    def _judge(self, event: Event, direction: Direction | None) -> Judgement:
        strongest = sorted(event.impulses, key=lambda impulse: -impulse.snr_db)[:MAX_WINDOWS]
        strongest.sort(key=lambda impulse: impulse.onset_sample)
        onsets = [math.floor(impulse.onset_sample) for impulse in strongest]
        # One at a time: six of them are six megabytes.
        windows = (self._history.window(o - self._before, o + self._after) for o in onsets)
        judgement = self._classifier.judge(windows, self._rate)
        if direction is None or direction.airborne_probability is None or judgement.abstained:
            return judgement
        scores = weigh_elevation(judgement.scores, direction.airborne_probability)
        return self._classifier.verdict(scores)

    def _note(self, told: _Told) -> None:
        """Keep in mind an event that is told, but not as gunfire."""
        sample, judgement = told.event.first_sample, told.judgement
        if judgement.grade != "not_gunfire":
            self._missed.drop(sample)
        elif told.revision == 0 or self._missed.knows(sample):
            self._missed.keep(
                Rejected(
                    sample=sample,
                    kind="abstained" if judgement.abstained else "rejected",
                    label=judgement.label,
                    scores=judgement.scores,
                    asked=self._classifier.identity.probable_threshold,
                    snr_db=max(impulse.snr_db for impulse in told.event.impulses),
                )
            )

    def _message(self, told: _Told) -> Detection:
        self._note(told)
        shots = [told.event.impulses[i] for i in told.rounds.shots]
        quality = self._clock.quality()
        if quality.source != "free":
            told.told_free = False
        elif not told.told_free:
            told.told_free = True
            self._untrusted.append(told)
        detection = build_detection(
            origin=self.origin,
            event=told.event,
            rounds=told.rounds,
            instants=[self._instant(shot) for shot in shots],
            clock=quality,
            judgement=told.judgement,
            model=self._classifier.identity,
            direction=told.direction,
            sample_rate_hz=self._rate,
            channels=self._channels,
            revision=told.revision,
        )
        return detection if self._sealer is None else self._sealed(self._sealer, told, detection)

    def _sealed(self, sealer: Sealer, told: _Told, detection: Detection) -> Detection:
        """Name in a detection the snippet of its event: made once, the same in every revision."""
        if not told.sealed and sealer.wants(detection):
            told.sealed = True
            onset = math.floor(told.shots[0].onset_sample)
            first = max(0, onset - self._sealed_before)
            end = min(onset + self._sealed_after, self._history.end_sample)
            sound = self._history.window(first, end)[:, 0]
            told.snippet = sealer.seal(detection, sound, self._rate)
        return detection.model_copy(update={"snippet": told.snippet})

    def _instant(self, shot: Impulse) -> Instant:
        """Give when a shot arrived; its error is the clock's and the onset's."""
        instant = self._clock.at(shot.onset_sample)
        onset_s = shot.sigma_samples / self._rate
        return replace(instant, sigma_s=math.hypot(instant.sigma_s, onset_s))
