"""The composition root: builds the ends, runs the pure middle, shuts down in order.

One thread (the caller's) takes blocks from the source, runs the pipeline and commits what it
finds to the outbox; the publisher sends from there on a thread of its own. Nothing that happens to
the broker, the disk or the clock stops the hearing: it is told in the status instead.
"""

from __future__ import annotations

import logging
import math
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Final

from pydantic import ValidationError

import node
from node.board.findings import Finding
from node.board.service import Service
from node.classify import Abstainer, TfliteClassifier
from node.deliver import (
    BrokerAddress,
    MqttPublisher,
    Outbox,
    SessionOptions,
)
from node.ears import Ears, far_from
from node.errors import DeviceError, ModelError
from node.examine import receiver_finding, receiver_pulse_finding
from node.figures import health
from node.identity import CertificateWatch, load_identity
from node.keeper import Keeper
from node.messages import (
    Origin,
    OutboxStatus,
    Position,
    Privacy,
    build_status,
    node_topic,
    to_json,
    with_transport,
)
from node.pipeline import Pipeline
from node.settings import Settings, hide_password
from node.timing import (
    Fix,
    HostClock,
    HostClockReader,
    Moment,
    PpsSampleClock,
    Timekeeper,
    utc_now_ns,
)
from node.types import (
    AudioSource,
    Classifier,
    ModelIdentity,
)
from node.utc import utc_text
from node.vitals import Vitals
from node.witness import Witness

log = logging.getLogger(__name__)

READ_CLOCK_S: Final = 1.0
STATUS_S: Final = 60.0
HEALTH_S: Final = 60.0
# A loss is a reason for as long as a technician would need to see it.
TELL_LOSS_S: Final = 600.0
# A reason may hold a number that changes each second; what is new but for that is told at once.
REWORD_S: Final = 10.0
HASTE_ADVICE: Final = (
    "see what else runs on this machine, and whether heat or a weak supply slows it down"
)
DRAIN_S: Final = 5.0
MOST_REASONS: Final = 32  # that a status may hold
# A card that is not there is looked for so often; after so long a new process looks.
TRY_CARD_S: Final = 3.0
WAIT_FOR_CARD_S: Final = 3600.0
IDLE_S: Final = 0.25
# A near miss may still be replaced by a better one, or be told after all, for so long.
NEAR_SETTLED_S: Final = 10.0


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
    service
        Who started it and starts it anew when it ends; nobody unless given. With one, it waits for
        a card that is not there.

    Raises
    ------
    SceneError
        At once: the array is not what the settings say.
    IdentityError
        From `run`, before anything else: its signing key or certificate cannot be used.
    OutboxError, BrokerError, DeviceError
        From `run`: what cannot be mended from inside. The status has said so by then.
    """

    def __init__(
        self,
        settings: Settings,
        source: AudioSource,
        host_clock: HostClockReader | None = None,
        service: Service | None = None,
    ) -> None:
        self._settings = settings
        self._source = source
        self._host_clock = host_clock or HostClock()
        self._origin = _origin(settings)
        self._ears = Ears(settings, source.sample_rate_hz)
        self._witness: Witness | None = None
        self._certificate: CertificateWatch | None = None
        self._was_connected = False
        self._vitals = Vitals(settings, self._ears, service or Service({}))
        self._book = self._vitals.book
        self._keeper = Keeper(settings, self._book, self._vitals.service)
        self._end_sample = 0
        self._near_told = -1  # sample of the latest near miss that was logged
        # Of those that are settled, by sample: to ask the clock of a hundred each second was a
        # sixth of all that the node does.
        self._near_utc: dict[int, str] = {}
        self._lost_samples = 0
        self._loss_told_until_s = 0.0
        self._hasty = 0
        self._haste_told_until_s = 0.0
        self._read_clock_again_s = 0.0
        self._status_said_s = -math.inf
        self._status_news: object = None
        self._status_reasons: tuple[str, ...] = ()
        self._stopping = False
        self._timekeeper = Timekeeper(settings.timing, self._host_clock)
        self._moment: Moment | None = None
        self._started_s = time.monotonic()
        self._health_again_s = self._started_s + HEALTH_S

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
        self._witness = self._sworn()
        classifier = self._classifier()
        with (
            self._vitals,
            self._timekeeper,
            Outbox(self._settings.outbox.path, self._settings.outbox.max_bytes) as outbox,
            self._publishing(outbox) as publisher,
        ):
            try:
                self._hear(classifier, outbox, publisher)
            except DeviceError as error:
                self._book.fail("sound card", str(error))
                raise
            finally:
                self._save(outbox, last=True)
                self._tell(outbox, publisher, at_once=True)
                self._vouch(outbox, publisher, at_once=True)
                self._keeper.close()

    def _hear(self, classifier: Classifier, outbox: Outbox, publisher: MqttPublisher) -> None:
        self._read_clock()  # also what is said by a node that is stopped before it hears has a time
        with ExitStack() as opened:
            source = self._open(opened, classifier, outbox, publisher)
            if source is None or self._stopping:  # a card forgets what came before it was opened
                return
            pipeline = Pipeline(
                origin=self._origin,
                settings=self._settings.detect,
                clock=self._ears.clock,
                classifier=classifier,
                sample_rate_hz=source.sample_rate_hz,
                channels=source.channels,
                microphones=self._ears.microphones,
                array=self._ears.array,
                sealer=self._keeper.snippets,
            )
            try:
                for block in source.blocks():
                    self._read_clock()
                    pipeline.origin = self._origin
                    self._count_loss(block.lost_before)
                    self._keeper.take(pipeline.push(block))
                    self._tell_load(block.waiting_s, pipeline.hasty)
                    self._vitals.heard(block)
                    self._end_sample = block.end_sample
                    self._keep_up(classifier, outbox, publisher, pipeline)
            finally:
                self._keeper.take(pipeline.flush())

    def _open(
        self,
        opened: ExitStack,
        classifier: Classifier,
        outbox: Outbox,
        publisher: MqttPublisher,
    ) -> AudioSource | None:
        """Open the card, and wait for one that is not there; None if told to stop meanwhile.

        It may come back under another number, which its name does not hold. Whoever started the
        node by hand is told at once.
        """
        give_up_s = time.monotonic() + WAIT_FOR_CARD_S
        told = ""
        while not self._stopping:
            self._read_clock()
            self._keep_up(classifier, outbox, publisher)
            try:
                source = opened.enter_context(self._source)
                self._book.settle("sound card", f"{self._device} delivers")
                return source
            except DeviceError as error:
                if not self._vitals.service.supervised or time.monotonic() > give_up_s:
                    raise
                if str(error) != told:
                    told = str(error)
                    log.error("waiting for the sound card: %s", error)
                self._book.fail("sound card", str(error))
            again_s = time.monotonic() + TRY_CARD_S
            while time.monotonic() < again_s and not self._stopping:
                self._read_clock()
                self._keep_up(classifier, outbox, publisher)
                time.sleep(IDLE_S)
        return None

    def _keep_up(
        self,
        classifier: Classifier,
        outbox: Outbox,
        publisher: MqttPublisher,
        pipeline: Pipeline | None = None,
    ) -> None:
        """Do what is due beside hearing: keep, vouch, tell, show; without a pipeline it is deaf."""
        self._save(outbox)
        if self._vitals.take_self_test():
            log.info("somebody asked for a self-test: telling how this node is")
            self._status_said_s = -math.inf
            self._health_again_s = -math.inf
        self._vitals.show(partial(self._facts, outbox, publisher, pipeline))
        self._tell(outbox, publisher)
        self._vouch(outbox, publisher)
        self._tell_birth(classifier.identity, publisher)
        self._tell_health(pipeline, outbox, publisher)
        self._expire(outbox)

    def _save(self, outbox: Outbox, *, last: bool = False) -> None:
        assert self._witness is not None  # noqa: S101 - `run` has made it
        self._keeper.save(outbox, self._witness.render, last=last)

    def _sworn(self) -> Witness:
        """Read or make the key that this node signs with."""
        node, integrity = self._settings.node, self._settings.integrity
        snippets = self._settings.snippets
        identity = load_identity(integrity.key_file, integrity.certificate_file, node.id, node.site)
        self._certificate = CertificateWatch(
            identity, integrity.certificate_file, node.id, node.site
        )
        privacy = Privacy(
            snippets=snippets.enabled,
            snippet_seconds=snippets.before_s + snippets.after_s if snippets.enabled else 0.0,
            publish_rejected=self._settings.classify.publish_rejected,
        )
        return Witness(identity, self._ears.described, privacy)

    def _vouch(self, outbox: Outbox, publisher: MqttPublisher, *, at_once: bool = False) -> None:
        """Publish how far the chain has come, when that is due and after each connection."""
        witness, connected = self._witness, publisher.delivery().connected
        assert witness is not None  # noqa: S101 - `run` has made it
        if connected and not self._was_connected:
            witness.forget()
        self._was_connected = connected
        checkpoint = witness.checkpoint(
            self._origin,
            outbox.chain,
            utc_ns=self._host_clock_utc_ns(),
            now_s=time.monotonic(),
            at_once=at_once,
        )
        if checkpoint is not None:
            topic = node_topic(self._origin.site, self._origin.node_id, "checkpoint")
            publisher.tell(topic, checkpoint)

    def _tell_birth(self, model: ModelIdentity, publisher: MqttPublisher) -> None:
        """Publish what this node is, at first and when something of it has changed."""
        assert self._witness is not None  # noqa: S101 - `run` has made it
        birth = self._witness.birth(
            self._origin, model, utc_ns=self._host_clock_utc_ns(), now_s=time.monotonic()
        )
        if birth is not None:
            publisher.keep(node_topic(self._origin.site, self._origin.node_id, "node"), birth)

    @property
    def _device(self) -> str:
        return getattr(self._source, "device_name", type(self._source).__name__)

    def _facts(
        self, outbox: Outbox, publisher: MqttPublisher, pipeline: Pipeline | None
    ) -> dict[str, Any]:
        """Give what `gunfire-node status` shows beside the checks."""
        clock, delivery = self._ears.clock.quality(), publisher.delivery()
        return {
            "site": self._origin.site,
            "node_id": self._origin.node_id,
            "boot_id": self._origin.boot_id,
            "firmware": self._origin.firmware,
            "utc": utc_text(self._host_clock_utc_ns()),
            "uptime_s": time.monotonic() - self._started_s,
            "clock": asdict(clock),
            "device": self._device,
            "lost_samples": self._lost_samples,
            "floor_dbfs": None if pipeline is None else pipeline.floor_dbfs,
            "outbox": _waiting(outbox).model_dump(),
            "broker": {
                "url": [hide_password(url) for url in self._settings.mqtt.brokers],
                "connected": delivery.connected,
                "acknowledged": delivery.acknowledged,
            },
            "detections": [
                detection.model_dump(
                    mode="json",
                    include={"onset_utc", "grade", "label", "round_count", "scores", "direction"},
                )
                | {"snr_db": detection.rounds[0].snr_db}
                # Of an event what was told last.
                for detection in {told.event_id: told for told in self._keeper.latest}.values()
            ],
            "near_misses": [] if pipeline is None else self._near_misses(pipeline),
        }

    def _near_misses(self, pipeline: Pipeline) -> list[dict[str, Any]]:
        """Give what did not fire, with when it was and why; log what is settled and new."""
        told: list[dict[str, Any]] = []
        timed: dict[int, str] = {}
        settled = self._end_sample - NEAR_SETTLED_S * self._source.sample_rate_hz
        for miss in pipeline.near_misses():
            utc = self._near_utc.get(miss.sample) or utc_text(
                self._ears.clock.at(miss.sample).utc_ns
            )
            if miss.sample <= settled:
                timed[miss.sample] = utc
            told.append({"utc": utc, "kind": miss.kind, "sentence": miss.sentence})
            if self._near_told < miss.sample <= settled:
                self._near_told = miss.sample
                log.info("near miss at %s: %s", utc, miss.sentence)
        self._near_utc = timed
        return told

    def _expire(self, outbox: Outbox) -> None:
        """Drop what has waited for weeks, by a clock that something vouches for."""
        if self._clock_trusted():
            self._keeper.expire(outbox, self._host_clock_utc_ns())

    def _read_clock(self) -> None:
        """Let the sample clock learn what is known of the time, about once a second."""
        if time.monotonic() < self._read_clock_again_s:
            return
        self._read_clock_again_s = time.monotonic() + READ_CLOCK_S
        moment = self._moment = self._timekeeper.read()
        self._ears.clock.observe_host(moment.host)
        for reading in moment.receiver_readings:
            self._ears.clock.observe_receiver(reading)
        self._place(moment.receiver.position if moment.receiver else None)
        self._judge(moment)

    def _judge(self, moment: Moment) -> None:
        """Write down how time, order and what rests on them do."""
        clock, order, book = self._ears.clock, self._ears.order, self._book
        of_receiver = moment.receiver_reason
        quality = moment.host.quality
        doubts = [reason for reason in moment.reasons if reason != of_receiver]
        if moment.gpsd_failure is not None:
            book.warn("receiver", moment.gpsd_failure)
        elif moment.receiver is not None:
            book.write(receiver_finding(moment.receiver))
        if isinstance(clock, PpsSampleClock):
            pulse = clock.state
            if order is not None and order.state.proven is False:
                book.settle("pulse")  # it is in another channel, which the order's own line says
            else:
                trouble = pulse.warning if pulse.ticks else pulse.reason
                book.judge("pulse", trouble, f"{pulse.pulses} taken")
            doubts += [pulse.reason] if pulse.ticks and pulse.reason else []
        elif moment.receiver is not None and moment.kernel_pulse is not None:
            book.write(receiver_pulse_finding(moment.receiver.pps_seen))
        book.judge("clock", "; ".join(doubts), f"{quality.source}, ± {quality.sigma_s:.2g} s")
        book.judge("signing key", self._certificate_reason(moment), "signs")
        if self._keeper.snippets is not None:
            book.judge("snippets", self._keeper.snippets.reason or "", "on, encrypted")
        if order is not None:
            unproven = order.state.proven is not True
            no_direction = f"no direction is told: {order.state.reason}" if unproven else ""
            book.judge("channel order", no_direction, order.state.reason)

    def _certificate_reason(self, moment: Moment) -> str:
        """Take up a certificate that has come or was renewed, and say what is wrong with it."""
        if self._witness is None or self._certificate is None:
            return ""
        if (identity := self._certificate.look()) is not None:
            self._witness.certify(identity)
            log.info("the certificate of the signing key is taken up")
        if moment.host.quality.source == "free":
            return self._witness.identity.lacks or self._certificate.trouble
        reason = self._witness.identity.reason(self._host_clock_utc_ns())
        return reason or self._certificate.trouble

    def _place(self, fix: Fix | None) -> None:
        """Take the receiver's averaged place where none was surveyed, and compare where one was."""
        self._book.settle("position")
        if fix is None:
            return
        try:
            averaged = Position(
                lat_deg=fix.lat_deg, lon_deg=fix.lon_deg, alt_m=fix.alt_m, sigma_m=fix.sigma_m
            )
        except ValidationError:
            self._book.warn(
                "position",
                f"the receiver's place is not used, since no node stands at {fix.lat_deg:g}, "
                f"{fix.lon_deg:g} degrees, {fix.alt_m:g} ± {fix.sigma_m:g} m: see its antenna",
            )
            return
        surveyed = self._settings.node.position
        if surveyed is None:
            self._origin = replace(self._origin, position=averaged)
            return
        elsewhere = far_from(fix, surveyed)
        self._book.judge("position", elsewhere, f"as surveyed, ± {surveyed.sigma_m:g} m")

    def _count_loss(self, lost: int) -> None:
        if lost:
            self._lost_samples += lost
            self._loss_told_until_s = time.monotonic() + TELL_LOSS_S
            self._book.warn(
                "samples",
                f"{self._lost_samples} samples lost so far: check cable and power of the sound "
                "card, and the load of this machine",
            )
        elif time.monotonic() > self._loss_told_until_s:
            self._book.settle("samples", f"{self._lost_samples} lost")

    def _tell_load(self, waiting_s: float, hasty: int) -> None:
        """Say so where sound comes faster than it is judged, for a while after it did."""
        if hasty != self._hasty:
            self._hasty = hasty
            self._haste_told_until_s = time.monotonic() + TELL_LOSS_S
        if not hasty:
            return
        told = f"{hasty} events judged by one impulse each"
        if time.monotonic() > self._haste_told_until_s:
            self._book.settle("samples", told, which="waiting")
            return
        figure = f"sound comes faster than it is judged, {waiting_s:.0f} s wait: so far {told}"
        self._book.write(Finding("samples", "warn", figure, HASTE_ADVICE, which="waiting"))

    def _tell(self, outbox: Outbox, publisher: MqttPublisher, *, at_once: bool = False) -> None:
        """Publish the status when what it says has changed, and once a minute."""
        for number, notice in enumerate(outbox.notices, 1):
            self._book.write(Finding("outbox", "warn", notice, which=str(number)))
        delivery = publisher.delivery()
        self._vitals.connected(delivery.connected, delivery.reasons)
        wrong = self._book.wrong()
        reasons = tuple(finding.figure for finding in wrong)[:MOST_REASONS]
        source = self._ears.clock.quality().source
        news = (frozenset(finding.name for finding in wrong), source)
        old_s = time.monotonic() - self._status_said_s
        reworded = reasons != self._status_reasons and old_s >= REWORD_S
        if not (at_once or news != self._status_news or reworded or old_s >= STATUS_S):
            return
        self._status_said_s = time.monotonic()
        self._status_news, self._status_reasons = news, reasons
        for reason in reasons:
            log.debug("degraded: %s", reason)
        status = build_status(
            self._origin,
            "degraded" if reasons else "online",
            utc_ns=self._host_clock_utc_ns(),
            reasons=reasons,
            clock=self._ears.clock.quality(),
            lost_samples=self._lost_samples,
            outbox=_waiting(outbox),
        )
        publisher.set_status(to_json(status))

    def _tell_health(
        self, pipeline: Pipeline | None, outbox: Outbox, publisher: MqttPublisher
    ) -> None:
        """Publish once a minute the figures behind the status."""
        if time.monotonic() < self._health_again_s or self._moment is None:
            return
        self._health_again_s = time.monotonic() + HEALTH_S
        try:
            figures = health(
                self._origin,
                self._moment,
                self._ears,
                utc_ns=self._host_clock_utc_ns(),
                uptime_s=time.monotonic() - self._started_s,
                host_steps=self._timekeeper.steps,
                sample_rate_hz=self._source.sample_rate_hz,
                lost_samples=self._lost_samples,
                floor_dbfs=pipeline.floor_dbfs
                if pipeline is not None
                else (None,) * len(self._ears.microphones),
                findings=tuple(self._book),
                board=self._vitals.board,
                outbox=_waiting(outbox),
            )
        except ValidationError as error:
            log.warning("no health is told, since chrony or the receiver says oddities: %s", error)
            return
        publisher.say(
            node_topic(self._origin.site, self._origin.node_id, "health"), to_json(figures)
        )

    def _host_clock_utc_ns(self) -> int:
        reading = self._host_clock.read()
        return reading.monotonic_ns + reading.utc_minus_monotonic_ns

    @contextmanager
    def _publishing(self, outbox: Outbox) -> Iterator[MqttPublisher]:
        mqtt = self._settings.mqtt
        site, node_id = self._origin.site, self._origin.node_id
        publisher = MqttPublisher(
            outbox,
            BrokerAddress.all_from_settings(mqtt, may_come=True),
            node_id,
            SessionOptions(keepalive_s=mqtt.keepalive_s, reconnect_max_s=mqtt.reconnect_max_s),
            detection_topic=node_topic(site, node_id, "detection"),
            status_topic=node_topic(site, node_id, "status"),
            offline=self._offline,
            stamp=with_transport,
            utc_now_ns=utc_now_ns,
            expiry_s=mqtt.expiry_s,
            clock_trusted=self._clock_trusted,
            spool=self._keeper.open_spool(),
            spool_topic=node_topic(site, node_id, "snippet"),
        )
        publisher.start()
        try:
            yield publisher
        finally:
            publisher.close(DRAIN_S)

    def _clock_trusted(self) -> bool:
        moment = self._moment  # also on the publisher's thread
        return moment is not None and moment.host.quality.source != "free" and not moment.doubts

    def _offline(self, why: str) -> bytes:
        reasons = (why, *(f.figure for f in self._book.wrong()))  # on the publisher's thread
        utc_ns = self._host_clock_utc_ns()
        return to_json(build_status(self._origin, "offline", utc_ns=utc_ns, reasons=reasons))

    def _classifier(self) -> Classifier:
        try:
            return TfliteClassifier.load(self._settings.classify.model)
        except ModelError as error:
            log.error("%s", error)
            self._book.fail("model", f"{error}; until then impulses are timed, not judged")
            return Abstainer()


def _origin(settings: Settings) -> Origin:
    where = settings.node.position
    return Origin(
        site=settings.node.site,
        node_id=settings.node.id,
        boot_id=str(uuid.uuid4()),
        firmware=node.__version__,
        position=None if where is None else Position(**where.model_dump()),
    )


def _waiting(outbox: Outbox) -> OutboxStatus:
    return OutboxStatus(depth=outbox.depth, dropped=outbox.dropped)
