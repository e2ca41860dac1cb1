"""The technician's self-test: each part by itself, with its figure and what to do next.

Composes the ends as the daemon does, one at a time, and asks each for proof: a block of sound, an
inference, a connection, a byte on disk.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import numpy as np

from node.capture import load_geometry
from node.capture.devices import list_input_devices
from node.capture.portaudio import PortAudioSource
from node.classify import TfliteClassifier
from node.deliver import BrokerAddress
from node.errors import GunfireNodeError
from node.network import Subscription
from node.settings import Settings
from node.timing import HostClock
from node.types import AudioSource, Block

LISTEN_S: Final = 3.0
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


def checks(settings: Settings, source: PortAudioSource) -> Iterator[Finding]:
    """Check each part in turn, the ear last; a broken one stops no other.

    `source` is the sound card of these settings, not yet entered. Where it vanishes meanwhile, its
    `must_exit` is true after the last finding, and only `os._exit` ends the process. That is why
    it comes last.
    """
    parts: tuple[tuple[str, Callable[[Settings], Iterator[Finding]]], ...] = (
        ("clock", _clock),
        ("model", _model),
        ("disk", _disk),
        ("broker", _broker),
        ("sound card", partial(_sound, source)),
    )
    for name, part in parts:
        try:
            yield from part(settings)
        except GunfireNodeError as error:
            yield Finding(name, "fail", str(error))


def _sound(source: PortAudioSource, settings: Settings) -> Iterator[Finding]:
    capture = settings.capture
    names = ", ".join(device.stable_name for device in list_input_devices()) or "none"
    yield Finding("sound devices", "fail" if names == "none" else "pass", names)
    array = load_geometry(capture.array, capture.channels)
    blocks = _listen(source)
    if not blocks:
        heard = f"{source.device_name}: nothing heard in {LISTEN_S:g} s"
        yield Finding("sound card", "fail", heard, "check its cable and power")
        return
    lost = sum(block.lost_before for block in blocks)
    heard_s = sum(len(block.frames) for block in blocks) / capture.sample_rate_hz
    yield Finding(
        "sound card",
        "fail" if lost else "pass",
        f"{source.device_name}: {capture.channels} channels, {capture.sample_rate_hz} Hz, "
        f"{capture.bits} bit, {heard_s:.1f} s heard, {lost} samples lost",
        "check its cable, its power and the load of this machine" if lost else "",
    )
    yield from _levels(np.concatenate([block.samples() for block in blocks]))
    order_known = array.channels == 1
    yield Finding(
        "channel order",
        "pass" if order_known else "warn",
        f"array {array.name}" + ("" if order_known else ": order not proven, no direction is told"),
    )


def _listen(source: AudioSource) -> list[Block]:
    blocks: list[Block] = []
    with source:
        bell = threading.Timer(LISTEN_S, source.close)
        bell.start()
        try:
            blocks.extend(source.blocks())
        finally:
            bell.cancel()
    return blocks


def _levels(sound: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Iterator[Finding]:
    """Judge each channel by itself; shape [n, channels], full scale at 1."""
    settled = sound[len(sound) // 4 :]
    noise = settled - settled.mean(axis=0)
    for channel in range(sound.shape[1]):
        rms = float(np.sqrt(np.mean(np.square(noise[:, channel], dtype=np.float64))))
        level_db = 20 * np.log10(rms + 1e-12)
        peak = float(np.abs(settled[:, channel]).max(initial=0))
        figure = f"{level_db:.0f} dBFS rms, peak {20 * np.log10(peak + 1e-12):.0f} dBFS"
        name = f"level {channel}"
        if level_db < SILENT_DBFS:
            advice = "silent: check the plug and the supply of this microphone"
            yield Finding(name, "fail", figure, advice)
        elif peak >= CLIPPED:
            yield Finding(name, "warn", figure, "at full scale: turn the gain of the card down")
        else:
            yield Finding(name, "pass", figure)


def _clock(settings: Settings) -> Iterator[Finding]:
    quality = HostClock().read().quality
    disciplined = quality.source != "free"
    bound = "" if quality.bound_s is None else f", bound {quality.bound_s:.2g} s"
    yield Finding(
        "clock",
        "pass" if disciplined else "warn",
        f"source {quality.source}, σ {quality.sigma_s:.2g} s{bound}",
        "" if disciplined else "nothing disciplines it: set up chrony, or connect a GPS receiver",
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


def _broker(settings: Settings) -> Iterator[Finding]:
    address = BrokerAddress.from_settings(settings.mqtt)
    with Subscription(address, site=settings.node.site, node_id=settings.node.id):
        yield Finding("broker", "pass", f"{address}: connected and subscribed")
