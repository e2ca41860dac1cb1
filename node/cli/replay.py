"""`gunfire-node replay`: the live pipeline over recordings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np

from node.calibration import calibrate_array, check_output, write_array
from node.capture import RecordingSource
from node.classify import TfliteClassifier
from node.cli._shared import (
    Failures,
    Level,
    Utc,
    config_file,
    progress,
    recordings,
    sentence,
    total_s,
)
from node.deliver import BrokerAddress, check_broker, publish_batch
from node.detect import SitePrior
from node.errors import GunfireNodeError, RecordingError
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
from node.settings import DetectSettings, load
from node.timing import utc_now_ns

LONGEST_PLOT_S = 600


@click.command("replay")
@recordings
@click.option("--start", type=Utc(), help="UTC of the first sample, above the .json beside it.")
@click.option(
    "--array", metavar="NAME|FILE", help="How the microphones stand, above the .json beside it."
)
@click.option(
    "--pps-channel",
    type=click.IntRange(min=0),
    metavar="N",
    help="Channel, from 0, that carries a receiver's pulse, above the .json beside it.",
)
@click.option(
    "--site", default="replay", type=Level(), show_default=True, help="Site in the messages."
)
@click.option(
    "--broker",
    metavar="URL",
    help="Also publish to this broker: mqtt://host:port, or mqtts:// with the settings' "
    "certificates.",
)
@click.option("--jsonl", is_flag=True, help="One detection a line as JSON instead of a sentence.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="F.png",
    help="Draw the recording with what was detected (one recording).",
)
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="OUT.toml",
    help="Write --array anew, as about 100 far impulses from all round and above tell it.",
)
@config_file
def command(
    files: tuple[Path, ...],
    start: int | None,
    array: str | None,
    pps_channel: int | None,
    site: str,
    broker: str | None,
    jsonl: bool,
    plot: Path | None,
    calibrate: Path | None,
    path: Path | None,
) -> None:
    """Run the node's pipeline over recordings, faster than real time.

    Node, start and place come from the .json beside a recording (serial_number, timestamp,
    location), or from the options; so do the array and its heading (array or microphones_m,
    heading_deg, pitch_deg, roll_deg), and the channel of a pulse (pps_channel). Two runs print the
    same bytes.

    Example: gunfire-node replay street.flac --start 2026-07-04T22:00:00Z --plot street.png

    Example: gunfire-node replay range.flac --array tetrahedron_200mm --calibrate mast.toml
    """
    if calibrate is not None:
        if array is None:
            raise click.UsageError("--calibrate needs --array: the array as it was meant")
        if jsonl or broker or plot:
            raise click.UsageError("--calibrate hears no shots: no --jsonl, --broker or --plot")
        _calibrate(files, array, calibrate, load(path).settings.detect)
        return
    if plot is not None and len(files) > 1:
        raise click.UsageError("--plot draws one recording; name one file")
    if plot is not None:
        _check_plot(plot, files[0])
    settings = load(path).settings
    replay = Replay(
        classifier=TfliteClassifier.load(settings.classify.model),
        detect=settings.detect,
        site=site,
        start_utc_ns=start,
        array=array,
        pps_channel=pps_channel,
        prior=SitePrior(
            building_height_m=settings.node.building_height_m,
            sensor_height_m=settings.node.height_m,
        ),
    )
    address = BrokerAddress.from_settings(settings.mqtt, broker) if broker else None
    if address:
        check_broker(address)  # before the work, not after it
    failures = Failures()
    kept: list[Detection] = []
    with progress(total_s(files), "replaying") as advance:
        for detection in _detections(replay, files, advance, failures):
            click.echo(replay_json(detection) if jsonl else sentence(detection))
            if address or plot:
                kept.append(detection)
    if address:
        publish_batch(address, (_published(detection) for detection in kept))
    if plot and failures.count:
        click.echo("gunfire-node: no picture, since the recording is bad", err=True)
    elif plot:
        _plot(plot, files[0], kept, start)
    failures.exit()


def _calibrate(files: tuple[Path, ...], array: str, out: Path, detect: DetectSettings) -> None:
    check_output(out)  # before the work, not after it
    with progress(total_s(files), "calibrating") as advance:
        calibrated = calibrate_array(files, array, detect, advance)
    write_array(out, calibrated)
    for line in calibrated.report():
        click.echo(line)
    click.echo(f"{out}: written; --array {out}, or array in [capture], takes it")


def _published(detection: Detection) -> tuple[str, bytes]:
    topic = node_topic(detection.site, detection.node_id, "detection")
    return topic, with_transport(to_json(detection), utc_now_ns(), delayed=True)


def _detections(
    replay: Replay, files: tuple[Path, ...], advance: Callable[[float], None], failures: Failures
) -> Iterator[Detection]:
    """Go through the files; number each node's detections on from file to file."""
    seq: dict[str, int] = {}
    heard_in: dict[str, Path] = {}
    for file in files:
        heard_before = True
        try:
            for detection in replay.detections(file, advance):
                # Events are named by node and start: a second file of the same would double them.
                first = heard_in.setdefault(detection.boot_id, file)
                if heard_before and first is not file:
                    raise RecordingError(
                        f"{file}: node {detection.node_id} with this start was heard already, in "
                        f"{first}; give each a .json with serial_number and timestamp, or replay "
                        "them apart"
                    )
                heard_before = False
                seq[detection.node_id] = seq.get(detection.node_id, 0) + 1
                yield numbered(detection, seq[detection.node_id])
        except GunfireNodeError as error:
            failures.tell(error)


def _check_plot(plot: Path, file: Path) -> None:
    """Refuse before the work what could not be drawn after it."""
    if not plot.parent.is_dir():
        raise GunfireNodeError(f"{plot.parent}: is not a folder to draw a picture into; make it")
    seconds = total_s((file,))
    if seconds > LONGEST_PLOT_S:
        raise GunfireNodeError(
            f"{file}: {seconds:.0f} s are too long for one picture; cut out at most "
            f"{LONGEST_PLOT_S} s"
        )


def _plot(plot: Path, file: Path, heard: list[Detection], start: int | None) -> None:
    with RecordingSource(file, start_utc_ns=start) as source:
        samples = [block.samples()[:, 0] for block in source.blocks()]
        plot_recording(
            plot,
            title=file.name,
            samples=np.concatenate(samples),
            sample_rate_hz=source.sample_rate_hz,
            start_utc_ns=source.identity.start_utc_ns or 0,
            detections=heard,
        )
