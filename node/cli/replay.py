"""`gunfire-node replay`: the live pipeline over recordings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np

from node.capture import RecordingSource
from node.classify import TfliteClassifier
from node.cli._shared import Failures, Utc, config_file, progress, recordings, sentence
from node.deliver import BrokerAddress, publish_batch
from node.errors import GunfireNodeError
from node.messages import (
    Detection,
    node_topic,
    numbered,
    replay_json,
    to_json,
    with_transport,
)
from node.plot import plot_recording
from node.replay import Replay
from node.settings import load
from node.timing import utc_now_ns

LONGEST_PLOT_S = 600


@click.command("replay")
@recordings
@click.option("--start", type=Utc(), help="UTC of the first sample, above the .json beside it.")
@click.option("--array", metavar="NAME|FILE", help="Array geometry by name or TOML file.")
@click.option("--site", default="replay", show_default=True, help="Site in the messages.")
@click.option("--broker", metavar="URL", help="Also publish to this broker, mqtt://host:port.")
@click.option("--jsonl", is_flag=True, help="One detection a line as JSON instead of a sentence.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="F.png",
    help="Draw the recording with what was detected (one recording).",
)
@config_file
def command(
    files: tuple[Path, ...],
    start: int | None,
    array: str | None,
    site: str,
    broker: str | None,
    jsonl: bool,
    plot: Path | None,
    path: Path | None,
) -> None:
    """Run the node's pipeline over recordings, faster than real time.

    Node, start and place come from the .json beside a recording (serial_number, timestamp,
    location), or from the options. Two runs print the same bytes.

    Example: gunfire-node replay street.flac --start 2026-07-04T22:00:00Z --plot street.png
    """
    if plot is not None and len(files) > 1:
        raise click.UsageError("--plot draws one recording; name one file")
    settings = load(path).settings
    replay = Replay(
        classifier=TfliteClassifier.load(settings.classify.model),
        detect=settings.detect,
        site=site,
        start_utc_ns=start,
        array=array,
    )
    address = BrokerAddress.from_url(broker) if broker else None
    failures = Failures()
    kept: list[Detection] = []
    with progress(_total_s(files), "replaying") as advance:
        for detection in _detections(replay, files, advance, failures):
            click.echo(replay_json(detection) if jsonl else sentence(detection))
            if address or plot:
                kept.append(detection)
    if address:
        publish_batch(address, (_published(detection) for detection in kept))
    if plot and not failures.count:
        _plot(plot, files[0], kept, start)
    failures.exit()


def _published(detection: Detection) -> tuple[str, bytes]:
    topic = node_topic(detection.site, detection.node_id, "detection")
    return topic, with_transport(to_json(detection), utc_now_ns(), delayed=True)


def _detections(
    replay: Replay, files: tuple[Path, ...], advance: Callable[[float], None], failures: Failures
) -> Iterator[Detection]:
    """Go through the files; number each node's detections on from file to file."""
    seq: dict[str, int] = {}
    for file in files:
        try:
            for detection in replay.detections(file, advance):
                seq[detection.node_id] = seq.get(detection.node_id, 0) + 1
                yield numbered(detection, seq[detection.node_id])
        except GunfireNodeError as error:
            failures.tell(error)


def _total_s(files: tuple[Path, ...]) -> float:
    total = 0.0
    for file in files:
        try:
            source = RecordingSource(file)
        except GunfireNodeError:
            continue  # told when its turn comes
        total += source.frames / source.sample_rate_hz
    return total


def _plot(plot: Path, file: Path, heard: list[Detection], start: int | None) -> None:
    with RecordingSource(file, start_utc_ns=start) as source:
        seconds = source.frames / source.sample_rate_hz
        if seconds > LONGEST_PLOT_S:
            raise GunfireNodeError(
                f"{file}: {seconds:.0f} s are too long for one picture; cut out at most "
                f"{LONGEST_PLOT_S} s"
            )
        samples = [block.samples()[:, 0] for block in source.blocks()]
        plot_recording(
            plot,
            title=file.name,
            samples=np.concatenate(samples),
            sample_rate_hz=source.sample_rate_hz,
            start_utc_ns=source.identity.start_utc_ns or 0,
            detections=heard,
        )
