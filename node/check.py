"""The technician's self-test: each part by itself, with its figure and what to do next.

Composes the ends as the daemon does, one at a time, and asks each for proof: a block of sound, an
inference, a connection, a byte on disk.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

import node
from node.capture.devices import list_input_devices
from node.capture.portaudio import PortAudioSource
from node.classify import Abstainer, TfliteClassifier
from node.deliver import BrokerAddress, check_broker
from node.ears import Ears, far_from
from node.errors import BrokerError, GunfireNodeError
from node.identity import load_identity
from node.messages import Origin
from node.messages.signing import Signer
from node.pipeline import Pipeline
from node.settings import Settings, TimingSettings
from node.timing import (
    HostClock,
    HostSampleClock,
    Moment,
    PpsSampleClock,
    ReceiverState,
    Timekeeper,
    utc_now_ns,
)
from node.timing.pps import LOCK
from node.types import AudioSource, Block

LISTEN_S: Final = 3.0
# The order of the channels and a lock need some pulses.
LISTEN_FOR_PULSES_S: Final = 8.0
# chrony, gpsd and NTP servers have answered by then, or do not.
ASK_S: Final = 8.0
ODD_RATE_PPM: Final = 300.0
CLAP_DB: Final = 15.0
# A capsule with its amplifier is never quieter than this; a cable that is off is.
SILENT_DBFS: Final = -110.0
CLIPPED: Final = 0.999
ROOM_BYTES: Final = 256 * 2**20

Verdict = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """What a check found: verdict, figure, and the next step where there is one."""

    name: str
    verdict: Verdict
    figure: str
    advice: str = ""


def checks(settings: Settings, source: PortAudioSource, clap_s: float = 0.0) -> Iterator[Finding]:
    """Check each part in turn, the ear last; a broken one stops no other.

    With `clap_s` it waits so long for a clap, and tells where it came from. `source` is the sound
    card of these settings, not yet entered. Where it vanishes meanwhile, its `must_exit` is true
    after the last finding, and only `os._exit` ends the process. That is why it comes last.
    """
    parts: tuple[tuple[str, Callable[[Settings], Iterator[Finding]]], ...] = (
        ("clock", _clock),
        ("model", _model),
        ("disk", _disk),
        ("broker", _broker),
        ("signing key", _signing_key),
        ("snippets", _snippets),
        ("sound card", partial(_sound, source, clap_s)),
    )
    for name, part in parts:
        try:
            yield from part(settings)
        except GunfireNodeError as error:
            yield Finding(name, "fail", str(error))


def _sound(source: PortAudioSource, clap_s: float, settings: Settings) -> Iterator[Finding]:
    capture = settings.capture
    names = ", ".join(device.stable_name for device in list_input_devices()) or "none"
    yield Finding("sound devices", "fail" if names == "none" else "pass", names)
    ears = Ears(settings, capture.sample_rate_hz)
    ears.clock.observe_host(HostClock().read())
    pipeline = Pipeline(
        origin=Origin("check", "check", str(uuid.uuid4()), node.__version__),
        settings=settings.detect,
        clock=ears.clock,
        classifier=Abstainer(),
        sample_rate_hz=capture.sample_rate_hz,
        channels=capture.channels,
        microphones=ears.microphones,
        array=ears.array,
    )
    listen_s = LISTEN_S if settings.timing.pps_channel is None else LISTEN_FOR_PULSES_S
    with _heard_for(source, listen_s) as blocks:
        heard = []
        for block in blocks:
            heard.append(block)
            pipeline.push(block)
    if not heard:
        figure = f"{source.device_name}: nothing heard in {listen_s:g} s"
        yield Finding("sound card", "fail", figure, "check its cable and power")
        return
    lost = sum(block.lost_before for block in heard)
    heard_s = sum(len(block.frames) for block in heard) / capture.sample_rate_hz
    yield Finding(
        "sound card",
        "fail" if lost else "pass",
        f"{source.device_name}: {capture.channels} channels, {capture.sample_rate_hz} Hz, "
        f"{capture.bits} bit, {heard_s:.1f} s heard, {lost} samples lost",
        "check its cable, its power and the load of this machine" if lost else "",
    )
    sound = np.concatenate([block.samples() for block in heard])[:, list(ears.microphones)]
    yield from _levels(sound, ears.microphones, pipeline.floor_dbfs)
    channel = settings.timing.pps_channel
    pulse = None if channel is None else np.concatenate([b.samples()[:, channel] for b in heard])
    yield from _rate_and_pulse(ears, pulse)
    yield _order(ears, capture.array)
    if clap_s:
        yield from _clap(source, pipeline, ears, clap_s)


@contextmanager
def _heard_for(source: AudioSource, seconds: float) -> Iterator[Iterator[Block]]:
    """Open a source, and close it after so many seconds."""
    with source:
        bell = threading.Timer(seconds, source.close)
        bell.start()
        try:
            yield source.blocks()
        finally:
            bell.cancel()


def _rate_and_pulse(ears: Ears, pulse: npt.NDArray[np.float32] | None) -> Iterator[Finding]:
    """Tell how the pulse does, heard in its channel, or else the card's rate."""
    if isinstance(ears.clock, PpsSampleClock) and pulse is not None:
        state = ears.clock.state
        edge = {True: "rising", False: "falling", None: "unknown"}[state.rises]
        rate = (
            ""
            if state.rate_ppm is None
            else f", card {state.rate_ppm:+.2f} ± {state.rate_sigma_ppm or 0:.2g} ppm"
        )
        peak = float(np.abs(pulse).max(initial=0))
        figure = (
            f"{state.pulses} taken, {state.missed} missed, {state.refused} refused, {edge} edge, "
            f"peak {20 * np.log10(peak + 1e-12):.0f} dBFS{rate}"
        )
        if state.pulses < LOCK:
            advice = "check the receiver's pulse output, its cable and attenuator"
            yield Finding("pulse", "fail", f"{figure}: {state.reason}", advice)
        elif peak >= CLIPPED:
            advice = "at full scale: attenuate it more"
            yield Finding("pulse", "warn", figure, advice)
        else:
            # Which second it marks takes longer than this check listens.
            yield Finding("pulse", "warn" if state.missed or state.refused else "pass", figure)
    elif isinstance(ears.clock, HostSampleClock) and ears.clock.rate_ppm is not None:
        figure = f"{ears.clock.rate_ppm:+.0f} ppm by the host's clock"
        fast = abs(ears.clock.rate_ppm) > ODD_RATE_PPM
        advice = "no crystal is so far off: is sample_rate_hz one that the card can do?"
        yield Finding("card rate", "warn" if fast else "pass", figure, advice if fast else "")


def _order(ears: Ears, array: str) -> Finding:
    if ears.order is None:
        return Finding("channel order", "pass", f"array {array}: nothing to be proven")
    state = ears.order.state
    if state.proven is True:
        return Finding("channel order", "pass", f"array {array}: {state.reason}")
    verdict: Verdict = "warn" if state.proven is None else "fail"
    return Finding(
        "channel order",
        verdict,
        f"array {array}: {state.reason}",
        "until the order is proven no direction is told",
    )


def _clap(source: AudioSource, pipeline: Pipeline, ears: Ears, seconds: float) -> Iterator[Finding]:
    """Tell where the first clap came from, once the order of the channels is proven again."""
    heard = None
    rate = source.sample_rate_hz
    asked: int | None = None
    with _heard_for(source, LISTEN_FOR_PULSES_S + seconds) as blocks:
        for block in blocks:
            told = [d for d in pipeline.push(block) if d.rounds[0].snr_db >= CLAP_DB]
            if asked is None:
                ready = ears.array is None or ears.array.ready
                if ready or block.end_sample > LISTEN_FOR_PULSES_S * rate:
                    asked = block.end_sample
                    figure = f"clap once, some metres from the array, within {seconds:g} s"
                    yield Finding("clap", "pass", figure)
                continue
            heard = told[0] if told else heard
            located = heard is not None and (heard.direction is not None or ears.array is None)
            if located or block.end_sample > asked + seconds * rate:
                break
    if heard is None:
        advice = "clap louder or nearer; check the levels above"
        yield Finding("clap", "fail", f"no clap heard in {seconds:g} s", advice)
        return
    figure = f"heard, {heard.rounds[0].snr_db:.0f} dB over the background"
    direction = heard.direction
    if direction is None:
        advice = "" if ears.array is None else "no bearing: see the channel order and the levels"
        yield Finding("clap", "pass" if ears.array is None else "warn", figure, advice)
        return
    height = (
        "elevation not known"
        if direction.elevation_deg is None
        else f"elevation {direction.elevation_deg:+.0f}°"
    )
    yield Finding(
        "clap",
        "pass",
        f"{figure}, from azimuth {direction.azimuth_deg:.0f}° (0 north, 90 east), {height}, "
        f"± {direction.sigma_deg:.1f}°; if that is not where it was, mend capture.heading_deg",
    )


def _levels(
    sound: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    channels: tuple[int, ...],
    floor_dbfs: tuple[float | None, ...],
) -> Iterator[Finding]:
    """Judge each microphone by itself; shape [n, microphones], full scale at 1."""
    settled = sound[len(sound) // 4 :]
    noise = settled - settled.mean(axis=0)
    for i, channel in enumerate(channels):
        rms = float(np.sqrt(np.mean(np.square(noise[:, i], dtype=np.float64))))
        level_db = 20 * np.log10(rms + 1e-12)
        peak = float(np.abs(settled[:, i]).max(initial=0))
        floor = floor_dbfs[i]
        figure = f"{level_db:.0f} dBFS rms, peak {20 * np.log10(peak + 1e-12):.0f} dBFS"
        figure += "" if floor is None else f", floor {floor:.0f} dBFS in the trigger's band"
        name = f"level {channel}"
        if level_db < SILENT_DBFS:
            advice = "silent: check the plug and the supply of this microphone"
            yield Finding(name, "fail", figure, advice)
        elif peak >= CLIPPED:
            yield Finding(name, "warn", figure, "at full scale: turn the gain of the card down")
        else:
            yield Finding(name, "pass", figure)


def _clock(settings: Settings) -> Iterator[Finding]:
    timing = settings.timing
    with Timekeeper(timing, HostClock()) as keeper:
        end = time.monotonic() + ASK_S
        moment = keeper.read()
        while time.monotonic() < end and not _all_said(moment, keeper, timing):
            time.sleep(0.2)
            moment = keeper.read()
        opinions = keeper.opinion
        failures = keeper.opinion_failures
    yield _disciplined(moment, keeper)
    for doubt in moment.doubts:
        yield Finding("clock", "warn", doubt, "until that is mended clock.source is free")
    if moment.receiver is not None:
        yield from _receiver(moment.receiver, keeper.gpsd_failure, timing.pps_channel is None)
        fix, surveyed = moment.receiver.position, settings.node.position
        elsewhere = far_from(fix, surveyed) if fix and surveyed else ""
        if elsewhere:
            yield Finding("position", "fail", elsewhere, "mend node.position, or take it out")
    for server in timing.ntp_servers:
        if server in failures:
            advice = "check the name, and the network"
            yield Finding("second opinion", "warn", f"{server}: {failures[server]}", advice)
    if opinions is not None:
        off_s, within_s = opinions.offset_s, opinions.uncertainty_s
        right = abs(off_s) <= within_s + 0.1
        yield Finding(
            "second opinion",
            "pass" if right else "fail",
            f"{opinions.server}: the host's clock is {-off_s:+.4f} s off, ± {within_s:.2g} s",
            "" if right else "one of the two is wrong: see `chronyc sources`",
        )


def _all_said(moment: Moment, keeper: Timekeeper, timing: TimingSettings) -> bool:
    """Whether everybody who was asked has answered."""
    chrony = moment.tracking is not None or keeper.chrony_failure is not None
    receiver = moment.receiver is None or (
        moment.receiver.utc_valid and moment.receiver.satellites_used is not None
    )
    opinion = keeper.opinion is not None or len(keeper.opinion_failures) == len(timing.ntp_servers)
    return (chrony or not timing.chrony) and receiver and opinion


def _disciplined(moment: Moment, keeper: Timekeeper) -> Finding:
    tracking = moment.tracking
    if tracking is not None:
        quality = tracking.quality()
        said = (
            f"chrony follows {tracking.reference} (stratum {tracking.stratum}), "
            f"offset {tracking.offset_s:+.2g} s, bound {tracking.bound_s:.2g} s, "
            f"{tracking.rate_ppm:+.2f} ppm"
            if quality is not None
            else "chrony runs, but is not synchronised"
        )
    else:
        quality = HostClock().read().quality
        why = f"; chrony: {keeper.chrony_failure}" if keeper.chrony_failure else ""
        said = f"by the kernel: source {quality.source}, σ {quality.sigma_s:.2g} s{why}"
    source = "free" if quality is None else quality.source
    disciplined = source != "free"
    return Finding(
        "clock",
        "pass" if disciplined else "warn",
        f"{source}: {said}",
        "" if disciplined else "nothing disciplines it: set up chrony, or connect a GPS receiver",
    )


def _receiver(state: ReceiverState, failure: str | None, needs_pulse: bool) -> Iterator[Finding]:
    if failure is not None:
        advice = "check gpsd's service, timing.gpsd and the receiver's cable"
        yield Finding("receiver", "fail", failure, advice)
        return
    fix = ("fix not known", "no fix", "fix without height", "fix")[state.fix]
    used, seen = state.satellites_used, state.satellites_seen
    parts = [fix, f"{'?' if used is None else used} of {'?' if seen is None else seen} satellites"]
    if state.position is not None:
        parts.append(f"position ± {state.position.sigma_m:.0f} m")
    parts.append("UTC valid" if state.utc_valid else f"UTC not used: {state.reason}")
    advice = "" if state.utc_valid else "give it open sky, and a cold receiver 15 minutes"
    yield Finding("receiver", "pass" if state.utc_valid else "warn", ", ".join(parts), advice)
    if needs_pulse:
        yield Finding(
            "receiver pulse",
            "pass" if state.pps_seen else "warn",
            "seen by gpsd or the kernel"
            if state.pps_seen
            else "neither gpsd nor the kernel sees it",
            "" if state.pps_seen else "see docs/do/discipline-the-clock.md, or `ppstest /dev/pps0`",
        )


def _model(settings: Settings) -> Iterator[Finding]:
    classifier = TfliteClassifier.load(settings.classify.model)
    rate = settings.capture.sample_rate_hz
    before, after = classifier.window(rate)
    noise = np.random.default_rng(0).normal(0, 1e-3, (before + after, 1)).astype(np.float32)
    scores = classifier.judge([noise], rate).scores
    identity = classifier.identity
    fooled = scores.gunfire >= identity.gunfire_threshold
    yield Finding(
        "model",
        "fail" if fooled else "pass",
        f"{identity.name} {identity.version}, noise gives gunfire {scores.gunfire:.2f}",
        "the model hears gunfire in noise: install the shipped one" if fooled else "",
    )


def _disk(settings: Settings) -> Iterator[Finding]:
    folder = settings.outbox.path.absolute().parent
    while not folder.exists():
        folder = folder.parent  # the daemon makes what is missing
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        advice = "make it writable for this user, or set outbox.path"
        yield Finding("disk", "fail", f"{folder}: {error.strerror}", advice)
        return
    free = shutil.disk_usage(folder).free
    enough = free > settings.outbox.max_bytes + ROOM_BYTES
    yield Finding(
        "disk",
        "pass" if enough else "warn",
        f"{folder}: {free / 2**30:.1f} GiB free",
        "" if enough else "free some space: the outbox may not find room",
    )


def _snippets(settings: Settings) -> Iterator[Finding]:
    snippets = settings.snippets
    if not snippets.enabled:
        yield Finding("snippets", "pass", "off: no sound leaves this node")
        return
    seconds = snippets.before_s + snippets.after_s
    yield Finding(
        "snippets",
        "pass",
        f"on: {seconds:g} s round each of {', '.join(snippets.grades)} go out, encrypted to "
        f"{snippets.recipient}",
    )


def _broker(settings: Settings) -> Iterator[Finding]:
    """Try each broker; where several are named, one that answers will do."""
    now_ns = utc_now_ns()
    addresses = BrokerAddress.all_from_settings(settings.mqtt)
    failures: list[Finding] = []
    for address in addresses:
        try:
            check_broker(address)
        except BrokerError as error:
            failures.append(Finding("broker", "fail", str(error)))
        else:
            yield Finding(
                "broker", "pass", f"{address}: lets this node in, MQTT {address.protocol}"
            )
    some_answer = len(failures) < len(addresses)
    yield from (replace(found, verdict="warn") if some_answer else found for found in failures)
    tls = addresses[0].tls
    for validity in () if tls is None else tls.validities():
        if trouble := validity.trouble(now_ns):
            yield Finding("broker", "warn", trouble)


def _signing_key(settings: Settings) -> Iterator[Finding]:
    integrity, who = settings.integrity, settings.node
    if integrity.certificate_file is None and not os.path.lexists(integrity.key_file):
        figure = f"{integrity.key_file}: not there yet; the first start makes it"
        yield Finding(
            "signing key", "warn", figure, "enrol this node then: docs/do/verify-a-log.md"
        )
        return
    identity = load_identity(integrity.key_file, integrity.certificate_file, who.id, who.site)
    key_id = Signer(identity.private_key).key.key_id
    trouble = identity.reason(utc_now_ns())
    if trouble:
        yield Finding("signing key", "warn", f"key_id {key_id}: {trouble}")
    elif identity.certificate is None:
        yield Finding(
            "signing key",
            "warn",
            f"key_id {key_id}, without a certificate: nobody else can tell whose it is",
            "have the fleet's CA certify it: docs/do/verify-a-log.md",
        )
    else:
        yield Finding("signing key", "pass", f"key_id {key_id}, certified as {who.id}")
