"""Self-test of the ear: card, samples, each microphone, pulse or rate, order of the channels.

Listens once, to all of them, for as long as a microphone's verdict takes; a clap is waited for in
the same stream, since the order of the channels was proven in it.
"""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

import node
from node.board.findings import Finding, Verdict
from node.capture.devices import list_input_devices
from node.capture.portaudio import PortAudioSource
from node.check.bounded import failure
from node.check.holder import holder_of
from node.classify import Abstainer
from node.detect.microphones import MicrophoneState, MicrophoneWatch
from node.ears import Ears
from node.errors import DeviceError
from node.examine import microphone_findings
from node.messages import Detection, Origin
from node.pipeline import Pipeline
from node.settings import DetectSettings, Settings
from node.timing import HostClock, PpsSampleClock
from node.timing.pps import CLIPPED, LOCK
from node.types import AudioSource, Block

# A second to settle, eight for a verdict, and some; and as many pulses.
LISTEN_S: Final = 11.0
# For opening, and for what an opened card keeps back.
SLACK_S: Final = 4.0
# Opening looks through all devices, and a card that has vanished is given up on as it is closed.
EAR_S: Final = 30.0
ODD_RATE_PPM: Final = 300.0
CLAP_DB: Final = 15.0
# What is heard becomes a detection once it has been quiet for a while.
TOLD_AFTER_S: Final = 2.0


@dataclass
class _Heard:
    """What was heard until now."""

    seconds: float = 0.0
    lost: int = 0
    pulse_peak: float = 0.0
    clap: Detection | None = None
    states: tuple[MicrophoneState, ...] = ()
    floors_dbfs: tuple[float | None, ...] = ()
    order: Finding | None = None
    of_clock: tuple[Finding, ...] = ()


class Ear:
    """Listens by the settings' own card.

    Parameters
    ----------
    settings
        Of this node.
    source
        The card, not yet entered.
    clap_s
        So long it waits for a clap, after all else; 0 does not.

    Attributes
    ----------
    waits_for_clap
        Whether somebody should clap now.
    """

    def __init__(self, settings: Settings, source: PortAudioSource, clap_s: float) -> None:
        self.waits_for_clap = False
        self._settings = settings
        self._source = source
        self._clap_s = clap_s
        self._rate = source.sample_rate_hz

    @property
    def seconds(self) -> float:
        """The most that it takes."""
        return EAR_S + self._clap_s

    def find(self) -> Iterator[Finding]:
        """Listen, and judge all that was heard."""
        others = [device.stable_name for device in list_input_devices()]
        ears = Ears(self._settings, self._rate)
        heard = _Heard()
        try:
            self._listen(ears, heard)
        except DeviceError as error:
            yield self._lost(error)
            return
        yield from self._card(heard, others)
        if not heard.seconds:
            return
        yield from self._microphones(heard)
        yield from heard.of_clock
        if heard.order is not None:
            yield heard.order
        if self._clap_s:
            yield clap_heard(heard.clap, self._clap_s, ears.array is not None)

    def _listen(self, ears: Ears, heard: _Heard) -> None:
        ears.clock.observe_host(HostClock().read())
        watch = MicrophoneWatch(
            self._rate, self._source.channels, microphones=ears.microphones, order=ears.order
        )
        pipeline = clap_pipeline(ears, self._settings.detect, self._source.channels, self._rate)
        asked = self._settings.timing.pps_channel
        with _open_for(self._source, LISTEN_S + SLACK_S + self._clap_s + TOLD_AFTER_S) as blocks:
            for block in blocks:
                told = pipeline.push(block)
                if heard.seconds < LISTEN_S:
                    watch.push(block)
                    heard.lost += block.lost_before
                    if asked is not None:
                        peak = np.abs(block.samples()[:, asked]).max(initial=0)
                        heard.pulse_peak = max(heard.pulse_peak, float(peak))
                    heard.seconds += len(block.frames) / self._rate
                    if heard.seconds >= LISTEN_S:
                        self._judge(ears, watch, pipeline, heard)
                        if not self._clap_s:
                            return
                        self.waits_for_clap = True
                    continue
                heard.seconds += len(block.frames) / self._rate
                loud = loud_enough(told)
                heard.clap = loud[0] if loud else heard.clap
                located = heard.clap is not None and heard.clap.direction is not None
                if located or (heard.clap is not None and ears.array is None):
                    return
                if heard.seconds >= LISTEN_S + self._clap_s + TOLD_AFTER_S:
                    return
        if heard.order is None:  # it ended before
            self._judge(ears, watch, pipeline, heard)

    def _judge(self, ears: Ears, watch: MicrophoneWatch, pipeline: Pipeline, heard: _Heard) -> None:
        heard.states = watch.states
        heard.floors_dbfs = pipeline.floor_dbfs
        heard.of_clock = tuple(_rate_and_pulse(ears, heard.pulse_peak, heard.lost))
        heard.order = order_finding(ears, self._settings.capture.array)

    def _lost(self, error: DeviceError) -> Finding:
        """Tell of a card that does not open, or has gone: by who holds it, where somebody does."""
        holder = None if self._source.must_exit else holder_of(self._settings.capture.device)
        if holder is not None:
            return Finding("sound card", "fail", holder.figure, holder.advice)
        return failure("sound card", error)

    def _card(self, heard: _Heard, others: list[str]) -> Iterator[Finding]:
        capture, name = self._settings.capture, self._source.device_name
        if not heard.seconds:
            yield Finding("sound card", "fail", f"{name}: opens, but delivers nothing")
            return
        beside = [other for other in others if other not in name]
        also = f"; also there: {', '.join(beside)}" if beside else ""
        if self._source.must_exit:
            yield Finding("sound card", "fail", f"{name}: does not let itself be closed")
        else:
            yield Finding(
                "sound card",
                "pass",
                f"{name}: {capture.channels} channels, {capture.sample_rate_hz} Hz, "
                f"{capture.bits} bit{also}",
            )
        yield Finding(
            "samples",
            "warn" if heard.lost else "pass",
            f"{heard.lost} of {round(heard.seconds * self._rate) + heard.lost} lost",
        )

    def _microphones(self, heard: _Heard) -> Iterator[Finding]:
        floors = dict(zip((s.channel for s in heard.states), heard.floors_dbfs, strict=True))
        for finding in microphone_findings(heard.states):
            floor = floors.get(int(finding.which)) if finding.which else None
            if floor is None or finding.verdict != "pass":
                yield finding
            else:
                more = f", floor {floor:.0f} dBFS in the trigger's band"
                yield replace(finding, figure=finding.figure + more)


def clap_pipeline(
    ears: Ears, detect: DetectSettings, channels: int, sample_rate_hz: int
) -> Pipeline:
    """Give what hears a clap as the node hears a shot, but judges nothing."""
    return Pipeline(
        origin=Origin("check", "check", str(uuid.uuid4()), node.__version__),
        settings=detect,
        clock=ears.clock,
        classifier=Abstainer(),
        sample_rate_hz=sample_rate_hz,
        channels=channels,
        microphones=ears.microphones,
        array=ears.array,
    )


def loud_enough(detections: Sequence[Detection]) -> list[Detection]:
    """Give those that may be the clap."""
    return [d for d in detections if d.rounds[0].snr_db >= CLAP_DB]


@contextmanager
def _open_for(source: AudioSource, seconds: float) -> Iterator[Iterator[Block]]:
    """Open a source, and close it after so many seconds at the latest."""
    with source:
        bell = threading.Timer(seconds, source.close)
        bell.daemon = True
        bell.start()
        try:
            yield source.blocks()
        finally:
            bell.cancel()


def _rate_and_pulse(ears: Ears, peak: float, lost: int) -> Iterator[Finding]:
    """Tell how the pulse does, heard in its channel, or else the card's rate."""
    if isinstance(ears.clock, PpsSampleClock):
        if ears.order is not None and ears.order.state.proven is False:
            return  # it is in another channel, which the order's own line says
        state = ears.clock.state
        edge = {True: "rising", False: "falling", None: "unknown"}[state.rises]
        rate = (
            ""
            if state.rate_ppm is None
            else f", card {state.rate_ppm:+.2f} ± {state.rate_sigma_ppm or 0:.2g} ppm"
        )
        figure = (
            f"{state.pulses} taken, {state.missed} missed, {state.refused} refused, {edge} edge, "
            f"peak {20 * np.log10(peak + 1e-12):.0f} dBFS{rate}"
        )
        if state.pulses < LOCK:
            yield Finding("pulse", "fail", f"{figure}: {state.reason}")
        elif peak >= CLIPPED:
            yield Finding("pulse", "warn", figure, "at full scale: attenuate it more")
        else:
            # Which second it marks takes longer than this check listens. Where samples were lost,
            # pulses come at other ones than they should.
            uneven = (state.missed or state.refused) and not lost
            yield Finding("pulse", "warn" if uneven else "pass", figure)
    elif ears.clock.rate_ppm is not None:
        figure = f"{ears.clock.rate_ppm:+.0f} ppm by the host's clock"
        fast = abs(ears.clock.rate_ppm) > ODD_RATE_PPM
        advice = "no crystal is so far off: is capture.sample_rate_hz one that the card can do?"
        yield Finding("card rate", "warn" if fast else "pass", figure, advice)


def order_finding(ears: Ears, array: str) -> Finding:
    """Tell whether each channel is the microphone that the array says."""
    if ears.order is None:
        return Finding("channel order", "pass", f"array {array}: nothing to be proven")
    state = ears.order.state
    verdicts: dict[bool | None, Verdict] = {True: "pass", None: "warn", False: "fail"}
    reason, *rest = re.split(r"; |: (?=see |set |shield )", state.reason, maxsplit=1)
    figure = reason if state.proven else f"array {array}: {reason}"
    advice = "".join(rest)
    if advice.startswith("they are in order again"):
        advice = f"start anew: {advice}"
    return Finding("channel order", verdicts[state.proven], figure, advice)


def clap_heard(clap: Detection | None, seconds: float, has_array: bool) -> Finding:
    """Tell where a clap came from."""
    if clap is None:
        return no_clap(seconds)
    direction = clap.direction
    return clap_told(
        None if direction is None else direction.model_dump(), clap.rounds[0].snr_db, has_array
    )


def no_clap(seconds: float) -> Finding:
    """Tell that nobody clapped, or it was not heard."""
    advice = "clap louder or nearer; check the levels above"
    return Finding("clap", "fail", f"no clap heard in {seconds:g} s", advice)


def clap_told(direction: dict[str, float | None] | None, snr_db: float, has_array: bool) -> Finding:
    """Tell where a clap came from, by a detection's own fields."""
    figure = f"heard, {snr_db:.0f} dB over the background"
    if direction is None:
        advice = "no bearing: see the channel order and the levels"
        return Finding("clap", "warn" if has_array else "pass", figure, advice)
    up = direction["elevation_deg"]
    height = "elevation not known" if up is None else f"elevation {up:+.0f}°"
    return Finding(
        "clap",
        "pass",
        f"{figure}, from azimuth {direction['azimuth_deg']:.0f}° (0 north, 90 east), {height}, "
        f"± {direction['sigma_deg']:.1f}°; if that is not where it was, mend capture.heading_deg",
    )
