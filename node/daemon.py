"""The composition root: builds the ends, runs the pure middle, shuts down in order.

One thread (the caller's) takes blocks from the source, runs the pipeline and commits what it
finds to the outbox; the publisher sends from there on a thread of its own. Nothing that happens to
the broker, the disk or the clock stops the hearing: it is told in the status instead.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt

import node
from node.classify import TfliteClassifier
from node.deliver import BrokerAddress, MqttPublisher, Outbox, SessionOptions
from node.errors import DeviceError, ModelError, OutboxError
from node.messages import (
    Detection,
    Origin,
    OutboxStatus,
    Position,
    build_status,
    node_topic,
    numbered,
    to_json,
    with_transport,
)
from node.pipeline import Pipeline
from node.settings import Settings
from node.timing import (
    HostClock,
    HostClockReader,
    HostSampleClock,
    SecondOpinion,
    utc_now_ns,
    weigh,
)
from node.types import (
    AudioSource,
    Classifier,
    Judgement,
    ModelIdentity,
    SampleClock,
    Scores,
)
from node.utc import parse_utc_ns

log = logging.getLogger(__name__)

READ_CLOCK_S: Final = 1.0
STATUS_S: Final = 60.0
# A loss is a reason for as long as a technician would need to see it.
TELL_LOSS_S: Final = 600.0
# What could not be written to a full disk waits in memory: a day of a busy street, some 10 MB.
MOST_UNSAVED: Final = 10_000
DRAIN_S: Final = 5.0
MOST_REASONS: Final = 32  # that a status may hold


class Daemon:
    """A node at work, from its source of sound to its broker.

    Parameters
    ----------
    settings
        As loaded.
    source
        Where samples come from; the daemon opens and closes it.
    host_clock
        What time it is; the host's own clocks unless a test or a demo has others.

    Raises
    ------
    OutboxError, BrokerError, DeviceError
        From `run`: what cannot be mended from inside. The status has said so by then.
    """

    def __init__(
        self, settings: Settings, source: AudioSource, host_clock: HostClockReader | None = None
    ) -> None:
        self._settings = settings
        self._source = source
        self._host_clock = host_clock or HostClock()
        self._origin = _origin(settings)
        self._trouble: dict[str, str] = {}
        self._lost_samples = 0
        self._loss_told_until_s = 0.0
        self._unsaved: deque[Detection] = deque(maxlen=MOST_UNSAVED)
        self._read_clock_again_s = 0.0
        self._status_again_s = 0.0
        self._status_said: object = None
        self._stopping = False
        timing = settings.timing
        self._second_opinion = SecondOpinion(timing.ntp_servers, timing.ntp_interval_s)

    @property
    def boot_id(self) -> str:
        """Names this run: a new one at each start, since the sample counter starts anew."""
        return self._origin.boot_id

    def stop(self) -> None:
        """End `run` in order; from a signal handler or another thread."""
        self._stopping = True
        self._source.close()

    def run(self) -> None:
        """Hear until the source ends or `stop` is called; then send what can be sent, and leave."""
        classifier = self._classifier()
        self._second_opinion.start()
        with (
            closing(self._second_opinion),
            Outbox(self._settings.outbox.path, self._settings.outbox.max_bytes) as outbox,
            self._publishing(outbox) as publisher,
        ):
            clock = HostSampleClock(self._source.sample_rate_hz)
            try:
                self._hear(classifier, clock, outbox, publisher)
            except DeviceError as error:
                self._trouble["device"] = str(error)
                raise
            finally:
                self._save(outbox)
                self._tell(clock, outbox, publisher, at_once=True)
                for detection in self._unsaved:
                    log.error("detection could not be saved: %s", to_json(detection).decode())

    def _hear(
        self,
        classifier: Classifier,
        clock: HostSampleClock,
        outbox: Outbox,
        publisher: MqttPublisher,
    ) -> None:
        self._read_clock(clock)
        with self._source as source:
            pipeline = Pipeline(
                origin=self._origin,
                settings=self._settings.detect,
                clock=clock,
                classifier=classifier,
                sample_rate_hz=source.sample_rate_hz,
                channels=source.channels,
            )
            try:
                for block in () if self._stopping else source.blocks():
                    self._read_clock(clock)
                    self._count_loss(block.lost_before)
                    self._take(pipeline.push(block))
                    self._save(outbox)
                    self._tell(clock, outbox, publisher)
            finally:
                self._take(pipeline.flush())

    def _take(self, detections: list[Detection]) -> None:
        for detection in detections:
            rejected = detection.grade == "not_gunfire" and not detection.abstained
            if rejected and not self._settings.classify.publish_rejected:
                continue
            if len(self._unsaved) == MOST_UNSAVED:
                log.error("detection could not be saved: %s", to_json(self._unsaved[0]).decode())
            self._unsaved.append(detection)

    def _save(self, outbox: Outbox) -> None:
        """Make durable what was heard; what cannot be is kept, told, and tried again."""
        while self._unsaved:
            detection = self._unsaved[0]
            try:
                appended = outbox.append(
                    detection.event_id,
                    detection.revision,
                    parse_utc_ns(detection.onset_utc),
                    partial(_numbered_json, detection),
                )
            except OutboxError as error:
                if "outbox" not in self._trouble:
                    log.error("%s", error)
                self._trouble["outbox"] = f"{len(self._unsaved)} detections wait in memory: {error}"
                return
            self._unsaved.popleft()
            log.info(
                "%s seq %d at %s, scores.gunfire %.3f",
                detection.grade,
                appended.seq,
                detection.onset_utc,
                detection.scores.gunfire,
            )
        self._trouble.pop("outbox", None)

    def _read_clock(self, clock: SampleClock) -> None:
        if time.monotonic() < self._read_clock_again_s:
            return
        self._read_clock_again_s = time.monotonic() + READ_CLOCK_S
        reading = self._host_clock.read()
        opinion = self._second_opinion.latest
        quality, disagreement = weigh(reading.quality, opinion, reading.monotonic_ns)
        silent = self._second_opinion.failures.items()
        reasons = [disagreement] if disagreement else []
        reasons += [f"no second opinion from {server}: {failure}" for server, failure in silent]
        self._trouble.pop("ntp", None)
        if reasons:
            self._trouble["ntp"] = "; ".join(reasons)
        reading = replace(reading, quality=quality)
        clock.observe_host(reading)
        if reading.quality.source == "free":
            self._trouble["clock"] = (
                "nothing disciplines the clock: set up chrony, or connect a GPS receiver"
            )
        else:
            self._trouble.pop("clock", None)

    def _count_loss(self, lost: int) -> None:
        if lost:
            self._lost_samples += lost
            self._loss_told_until_s = time.monotonic() + TELL_LOSS_S
            self._trouble["lost_samples"] = (
                f"{self._lost_samples} samples lost so far: check cable and power of the sound "
                "card, and the load of this machine"
            )
        elif "lost_samples" in self._trouble and time.monotonic() > self._loss_told_until_s:
            del self._trouble["lost_samples"]

    def _tell(
        self,
        clock: SampleClock,
        outbox: Outbox,
        publisher: MqttPublisher,
        *,
        at_once: bool = False,
    ) -> None:
        """Publish the status when what it says has changed, and once a minute."""
        reasons = (
            *self._trouble.values(),
            *outbox.notices,
            *self._publisher_trouble(publisher),
        )[:MOST_REASONS]
        news = (reasons, clock.quality().source)
        if news == self._status_said and time.monotonic() < self._status_again_s and not at_once:
            return
        self._status_said = news
        self._status_again_s = time.monotonic() + STATUS_S
        for reason in reasons:
            log.debug("degraded: %s", reason)
        status = build_status(
            self._origin,
            "degraded" if reasons else "online",
            utc_ns=self._host_clock_utc_ns(),
            reasons=reasons,
            clock=clock.quality(),
            lost_samples=self._lost_samples,
            outbox=OutboxStatus(depth=outbox.depth, dropped=outbox.dropped),
        )
        publisher.set_status(to_json(status))

    def _publisher_trouble(self, publisher: MqttPublisher) -> tuple[str, ...]:
        delivery = publisher.delivery()
        return delivery.reasons if delivery.connected else ()

    def _host_clock_utc_ns(self) -> int:
        reading = self._host_clock.read()
        return reading.monotonic_ns + reading.utc_minus_monotonic_ns

    @contextmanager
    def _publishing(self, outbox: Outbox) -> Iterator[MqttPublisher]:
        mqtt = self._settings.mqtt
        site, node_id = self._origin.site, self._origin.node_id
        publisher = MqttPublisher(
            outbox,
            BrokerAddress.from_settings(mqtt),
            node_id,
            SessionOptions(keepalive_s=mqtt.keepalive_s, reconnect_max_s=mqtt.reconnect_max_s),
            detection_topic=node_topic(site, node_id, "detection"),
            status_topic=node_topic(site, node_id, "status"),
            offline=self._offline,
            stamp=with_transport,
            utc_now_ns=utc_now_ns,
        )
        publisher.start()
        try:
            yield publisher
        finally:
            publisher.close(DRAIN_S)

    def _offline(self, why: str) -> bytes:
        reasons = (why, *self._trouble.copy().values())  # on the publisher's thread
        utc_ns = self._host_clock_utc_ns()
        return to_json(build_status(self._origin, "offline", utc_ns=utc_ns, reasons=reasons))

    def _classifier(self) -> Classifier:
        try:
            return TfliteClassifier.load(self._settings.classify.model)
        except ModelError as error:
            log.error("%s", error)
            self._trouble["model"] = f"{error}; until then impulses are timed, not judged"
            return Abstainer()


class Abstainer:
    """Stands in where there is no model: every event is timed and published, none is judged."""

    identity = ModelIdentity("none", "0", "0" * 64, gunfire_threshold=1.0, probable_threshold=1.0)

    def window(self, sample_rate_hz: int) -> tuple[int, int]:
        """Want nothing but the onset."""
        return 0, 1

    def judge(self, windows: list[npt.NDArray[np.float32]], sample_rate_hz: int) -> Judgement:
        """Abstain."""
        return self.verdict(Scores(0.25, 0.25, 0.25, 0.25))

    def verdict(self, scores: Scores) -> Judgement:
        """Abstain."""
        return Judgement(scores, "other", True, "not_gunfire")


def _numbered_json(detection: Detection, seq: int) -> bytes:
    return to_json(numbered(detection, seq))


def _origin(settings: Settings) -> Origin:
    where = settings.node.position
    return Origin(
        site=settings.node.site,
        node_id=settings.node.id,
        boot_id=str(uuid.uuid4()),
        firmware=node.__version__,
        position=None if where is None else Position(**where.model_dump()),
    )
