"""A node under load: the daemon itself on a sound device, told from inside where its time goes.

As a program: `hearing_node.py SETTINGS LOG`. It writes JSON lines into the log:

- `at`: once a second: the sample heard up to, frames lost so far, those of them that the node let
  go since its own queue was full, by how many seconds the pipeline is behind the card, the longest
  that it was since the line before; processor seconds of the thread that hears, of the process, and
  of each stage;
- `told`: a detection as it was made: its event's name, revision, grade, whether it abstains, and in
  samples its impulses and its rounds.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TextIO

import node.pipeline
from node.capture.portaudio import PortAudioSource
from node.daemon import Daemon
from node.deliver import Outbox
from node.detect import ChannelOrder, Detector
from node.messages import Detection, build_detection
from node.pipeline import Pipeline
from node.settings import load
from node.types import NS_PER_S, Block, Event, Rounds
from node.vitals import Vitals

TELL_S: Final = 1.0
STAGES: Final[tuple[tuple[type, str, str], ...]] = (
    (Detector, "push", "detector"),
    (ChannelOrder, "observe", "channel order"),
    (Pipeline, "_located", "direction"),
    (Pipeline, "_count", "rounds"),
    (Pipeline, "_repeated", "rounds"),
    (Pipeline, "_judge", "classification"),
    (Outbox, "append", "signing and outbox"),
    (Vitals, "heard", "microphone watch"),
    (Vitals, "show", "status file"),
)
"""What is timed; the time of a stage within another counts for the inner one."""


class Ledger:
    """Processor time of the thread that hears, by stage."""

    def __init__(self) -> None:
        self.spent_s: dict[str, float] = {}
        self._inner_s: list[float] = []

    def timed(self, stage: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """Give the same function, timed."""

        def run(*arguments: Any, **options: Any) -> Any:
            begun_s = time.thread_time()
            self._inner_s.append(0.0)
            try:
                return work(*arguments, **options)
            finally:
                whole_s = time.thread_time() - begun_s
                own_s = whole_s - self._inner_s.pop()
                self.spent_s[stage] = self.spent_s.get(stage, 0.0) + own_s
                if self._inner_s:
                    self._inner_s[-1] += whole_s

        return run


class Dropped(logging.Handler):
    """Counts what capture lets go, which it tells in its log."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line of the log."""
        if record.msg.startswith("dropped %d frames") and isinstance(record.args, tuple):
            self.frames += int(str(record.args[0]))


class Witness:
    """Writes down what the pipeline does."""

    def __init__(self, log: TextIO) -> None:
        self._log = log
        self._dropped = Dropped()
        self._ledger = Ledger()
        self._again_s = 0.0
        self._lost = 0
        self._behind_s = 0.0

    def watch(self) -> None:
        """Put timers and notes round the stages of every pipeline to come."""
        for kind, name, stage in STAGES:
            setattr(kind, name, self._ledger.timed(stage, getattr(kind, name)))
        logging.getLogger("node.capture.portaudio").addHandler(self._dropped)
        push = Pipeline.push

        def pushed(pipeline: Pipeline, block: Block) -> list[Detection]:
            detections = push(pipeline, block)
            self._at(block, pipeline.hasty)
            return detections

        setattr(Pipeline, "push", pushed)  # noqa: B010 - mypy lets no method be assigned to
        setattr(node.pipeline, "build_detection", self._built)  # noqa: B010

    def _at(self, block: Block, hasty: int) -> None:
        assert block.host_time_ns is not None
        now_ns = time.monotonic_ns()
        end_ns = block.host_time_ns + len(block.frames) * NS_PER_S // block.sample_rate_hz
        behind_s = (now_ns - end_ns) / NS_PER_S
        self._behind_s = max(self._behind_s, behind_s)
        self._lost += block.lost_before
        if now_ns / NS_PER_S < self._again_s:
            return
        self._again_s = now_ns / NS_PER_S + TELL_S
        self._say(
            "at",
            now_ns / NS_PER_S,
            block.end_sample,
            self._lost,
            self._dropped.frames,
            behind_s,
            self._behind_s,
            time.thread_time(),
            time.process_time(),
            self._ledger.spent_s,
            hasty,
        )
        self._behind_s = 0.0

    def _built(self, *, event: Event, rounds: Rounds, **options: Any) -> Detection:
        detection = build_detection(event=event, rounds=rounds, **options)
        onsets = [round(impulse.onset_sample, 1) for impulse in event.impulses]
        self._say(
            "told",
            detection.event_id,
            detection.revision,
            detection.grade,
            detection.abstained,
            onsets,
            [onsets[i] for i in rounds.shots],
        )
        return detection

    def _say(self, *words: Any) -> None:
        self._log.write(json.dumps(words) + "\n")
        self._log.flush()


def main() -> None:
    """Be the node."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("settings", type=Path)
    parser.add_argument("log", type=Path)
    given = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
    )
    settings = load(given.settings).settings
    with given.log.open("w", encoding="utf-8") as log:
        Witness(log).watch()
        daemon = Daemon(settings, PortAudioSource(settings.capture))
        signal.signal(signal.SIGTERM, lambda *_: daemon.stop())
        daemon.run()


if __name__ == "__main__":
    main()
