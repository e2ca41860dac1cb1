"""`gunfire-node locate`: incidents from several nodes' detections, live or from files."""

from __future__ import annotations

import logging
import math
import signal
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Final

import click

from node.cli._shared import Level, printable, progress
from node.deliver import BrokerAddress
from node.errors import GunfireNodeError, SettingsError
from node.messages import Incident, to_json
from node.messages.detection import Local, Position
from node.messages.incident import SourceLocal, SourcePosition
from node.network.admission import Admission
from node.network.intake import Intake, Locates
from node.network.keys import Keys
from node.network.locate_settings import InputSettings, load_locator
from node.network.locator_process import LocatorProcess, Works
from node.network.log_files import LogFiles
from node.network.medium import Weather
from node.network.places import Places, read_places
from node.network.policy import LocateSettings
from node.network.service import LocateService
from node.network.weather import WeatherFile

KEPT_S: Final = 900
"""So long the broker keeps for us what comes while we are away: what is older is not located."""

_PIPED_WIDTH: Final = 180
_METRES_PER_DEGREE: Final = 111_320.0

file_option = click.Path(path_type=Path)


@click.command("locate")
@click.argument("files", nargs=-1, type=file_option, metavar="[FILE...]")
@click.option(
    "--broker",
    metavar="URL",
    help="Live: mqtt://host:port, or mqtts:// with the settings' certificates; their broker if "
    "neither it nor a FILE is given.",
)
@click.option(
    "--nodes",
    type=file_option,
    metavar="NODES.toml",
    help="Where nodes stand, and which count; births and detections say it where there is none.",
)
@click.option("--ca", type=file_option, metavar="PEM", help="Certificate of the fleet's CA.")
@click.option("--crl", type=file_option, metavar="PEM", help="Its revocation list.")
@click.option(
    "--certificates",
    type=file_option,
    metavar="DIR|PEM",
    help="Certificates of nodes, beside those in their own births.",
)
@click.option("--key", type=file_option, metavar="PEM", help="Instead of a CA: one public key.")
@click.option("--unsigned", is_flag=True, help="Take unsigned detections too: for trials.")
@click.option(
    "--weather",
    type=file_option,
    metavar="FILE",
    help="temperature_c, wind_m_s, wind_from_deg, as TOML or JSON.",
)
@click.option("--site", default="+", type=Level(wildcard=True), help="One site only.")
@click.option(
    "--name",
    metavar="NAME",
    help="Live: our name at the broker; it keeps for a quarter of an hour what comes while we are "
    "away.",
)
@click.option("--quiet", is_flag=True, help="Live: publish only, print nothing.")
@click.option("--every", is_flag=True, help="Files: every revision, not each incident's last.")
@click.option(
    "--map",
    "map_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="F.png",
    help="Files: draw nodes and incidents.",
)
@click.option("--jsonl", is_flag=True, help="One incident a line as JSON.")
@click.option(
    "--config",
    "path",
    type=file_option,
    metavar="LOCATE.toml",
    help="Settings (TOML): [locate], [inputs], [weather], [mqtt].",
)
def command(
    files: tuple[Path, ...],
    broker: str | None,
    nodes: Path | None,
    ca: Path | None,
    crl: Path | None,
    certificates: Path | None,
    key: Path | None,
    unsigned: bool,
    weather: Path | None,
    site: str,
    name: str | None,
    quiet: bool,
    every: bool,
    map_file: Path | None,
    jsonl: bool,
    path: Path | None,
) -> None:
    """Place shots by what several nodes heard, and count them.

    A FILE holds a detection a line, as `replay --jsonl`, `watch --jsonl` or `mosquitto_sub -v`
    print them; - is standard input. Without a FILE, nodes are heard at a broker until Ctrl-C, and
    each incident is published there.

    Example: gunfire-node locate night.jsonl --nodes NODES.toml

    Example: gunfire-node locate --broker mqtts://broker.local --ca ca.crt --crl crl.pem --name city
    """
    if files and (broker or name is not None or quiet):
        raise click.UsageError("FILE and --broker, --name, --quiet do not go together")
    if name == "":  # as a unit's variable that is not set gives it: nothing would be kept for us
        raise click.UsageError("--name is empty: give a name, or leave it out")
    if not files and (every or map_file):
        raise click.UsageError("--every and --map go with a FILE")
    _tell_on_standard_error()
    settings = load_locator(path).settings
    inputs = _inputs(settings.inputs, ca, crl, nodes, unsigned=unsigned)
    if key is not None and inputs.ca_file is not None:
        raise click.UsageError("give the fleet's CA, or one public key, not both")
    if inputs.ca_file is None and (inputs.crl_file or certificates):
        raise click.UsageError("--crl and --certificates go with --ca")
    keys = None
    if key is not None or inputs.ca_file is not None:
        keys = Keys(inputs.ca_file, inputs.crl_file, certificates, key)
        if inputs.ca_file is not None and inputs.crl_file is None:
            click.echo(
                "gunfire-node: no revocation list was given (--crl): a key counts here though it "
                "may be revoked",
                err=True,
            )
    places = None if inputs.nodes_file is None else read_places(inputs.nodes_file)
    weather_file = weather or settings.weather.file
    sky = None if weather_file is None else WeatherFile(weather_file)
    make = _locator(settings.locate)
    if files:
        if keys is None:
            inputs = inputs.model_copy(update={"unsigned": True})
        admission = Admission(inputs, keys, places, live=False)
        now = sky.weather if sky is not None else settings.weather.weather
        _locate_files(files, site, make(), admission, now, every, jsonl, map_file)
        return
    if keys is None and not inputs.unsigned:
        raise click.UsageError(
            "whose detections are to count? Give the fleet's CA with --ca (inputs.ca_file), or "
            "--unsigned for a trial, where whoever may publish can move an incident"
        )
    address = BrokerAddress.from_settings(settings.mqtt, broker)
    with LocatorProcess(make) as locator:
        now = sky.weather if sky is not None else settings.weather.weather
        service = LocateService(
            address,
            Intake(locator, Admission(inputs, keys, places), now),
            (lambda _: None) if quiet else _printer(jsonl),
            site=site,
            client_id=name,
            session_expiry_s=KEPT_S if name else 0,
            weather_file=sky,
            weather_topic=settings.weather.topic,
        )
        locator.news = service.wake
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: service.close())
        try:
            service.run()
        finally:
            click.echo(f"gunfire-node: {service.report()}", err=True)


def _inputs(
    inputs: InputSettings, ca: Path | None, crl: Path | None, nodes: Path | None, *, unsigned: bool
) -> InputSettings:
    """Put what the command line says above the settings."""
    said = {"ca_file": ca, "crl_file": crl, "nodes_file": nodes, "unsigned": unsigned or None}
    return inputs.model_copy(
        update={key: value for key, value in said.items() if value is not None}
    )


def _locator(settings: LocateSettings) -> Callable[[], Works]:
    try:
        from node.network.incidents import Locator  # a node has no use for what it needs
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] == "node":
            raise  # a defect of ours
        raise GunfireNodeError(
            f"locating needs {error.name}: pip install 'gunfire-node[network]'"
        ) from None
    return partial(Locator, settings)


def _printer(jsonl: bool) -> Callable[[Incident], None]:
    if jsonl:
        return lambda incident: click.echo(to_json(incident))
    return lambda incident: click.echo(sentence(incident))


def _locate_files(
    files: tuple[Path, ...],
    site: str,
    locator: Locates,
    admission: Admission,
    weather: Weather,
    every: bool,
    jsonl: bool,
    map_file: Path | None,
) -> None:
    draw = None if map_file is None else _drawing(map_file)  # before the work, not after it
    last: dict[str, Incident] = {}
    with LogFiles(files, sys.stdin.buffer, site) as logs:
        _check_sites(admission.places, logs)
        with progress(logs.detections, "locating") as advance:
            for incident in logs.locate(locator, admission, weather, admission.places, advance):
                last[incident.incident_id] = incident
                if every:
                    _printer(jsonl)(incident)
    standing = sorted(
        (incident for incident in last.values() if incident.type != "cancel"),
        key=lambda incident: (incident.utc, incident.incident_id),
    )
    if not every and jsonl:
        for incident in standing:
            click.echo(to_json(incident))
    elif not every:
        _table(standing)
    for (of, node_id), doubt in sorted(locator.doubts.items()):
        click.echo(f"gunfire-node: {of}/{node_id}: {printable(doubt)}", err=True)
    click.echo(f"gunfire-node: {_summary(standing, admission, logs)}", err=True)
    if admission.unverified:
        click.echo(
            f"gunfire-node: {admission.unverified} detections are not signed, or no CA was given "
            "to check them by: nobody vouches for them",
            err=True,
        )
    if draw is not None:
        assert map_file is not None  # noqa: S101
        draw(standing, logs.stands, map_file, locator.doubts)


def _check_sites(places: Places | None, logs: LogFiles) -> None:
    if places is not None and not places.sites and len(logs.sites) > 1:
        raise SettingsError(
            f"the list of nodes names no site, and detections are of {', '.join(logs.sites)}: "
            "choose one with --site, or give each [[node]] its site"
        )


def _summary(standing: list[Incident], admission: Admission, logs: LogFiles) -> str:
    left_out = [f"{count} {kind}" for kind, count in sorted(admission.refused.items())]
    if logs.unreadable:
        left_out.append(f"{logs.unreadable} lines that are no messages")
    if logs.others:
        left_out.append(f"{logs.others} messages of other kinds or sites")
    return (
        f"{len(standing)} incidents from {admission.taken} detections of {len(logs.stands)} nodes; "
        f"left out: {', '.join(left_out) or 'none'}"
    )


def _drawing(map_file: Path) -> Callable[..., None]:
    from node.network.map import draw, need_matplotlib

    need_matplotlib()
    if not map_file.parent.is_dir():
        raise GunfireNodeError(f"{map_file.parent}: is not a folder to draw a map into; make it")

    def picture(
        standing: list[Incident],
        stands: dict[tuple[str, str], tuple[Position | None, Local | None]],
        path: Path,
        doubts: dict[tuple[str, str], str],
    ) -> None:
        on_earth = any(incident.position is not None for incident in standing)
        plane = (
            _plane(position for position, _ in stands.values() if position) if on_earth else None
        )
        spots = {}
        for (_, node_id), (position, local) in stands.items():
            if plane is not None and position is not None:
                spots[node_id] = plane(position.lat_deg, position.lon_deg)
            elif plane is None and local is not None:
                spots[node_id] = (local.x_m, local.y_m)
        told = {node_id: doubt for (_, node_id), doubt in doubts.items()}
        draw(standing, spots, path, plane=plane, doubts=told)

    return picture


def _plane(positions: Iterable[Position]) -> Callable[[float, float], tuple[float, float]]:
    """Lay a town on a plane, for a picture: good to a metre in a few kilometres."""
    known = list(positions)
    lat_deg = sum(p.lat_deg for p in known) / max(1, len(known))
    lon_deg = sum(p.lon_deg for p in known) / max(1, len(known))
    shrink = math.cos(math.radians(lat_deg))

    def spot(lat: float, lon: float) -> tuple[float, float]:
        turn = (lon - lon_deg + 180) % 360 - 180
        return turn * shrink * _METRES_PER_DEGREE, (lat - lat_deg) * _METRES_PER_DEGREE

    return spot


def sentence(incident: Incident) -> str:
    """Say an incident in one line for people."""
    taken_back = "taken back: " if incident.type == "cancel" else ""
    again = f", revision {incident.revision}" if incident.revision else ""
    return (
        f"{incident.utc[:-7]}Z  {incident.site:<12} {taken_back}"
        f"{incident.grade.replace('_', ' '):<16} {_rounds(incident)}  {_where(incident)}  "
        f"{_nodes(incident)}{again}: {printable(incident.why or '')}"
    )


def _table(incidents: list[Incident]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not incidents:
        click.echo("no incident")
        return
    table = Table(box=None, pad_edge=False)
    for head in ("when (UTC)", "where, 95 %", "rounds", "grade", "nodes", "why"):
        table.add_column(head, no_wrap=head != "why")
    for one in incidents:
        cells = (
            f"{one.utc[:10]} {one.utc[11:-7]}",
            _where(one),
            _rounds(one),
            one.grade.replace("_", " "),
            _nodes(one),
            printable(one.why or ""),
        )
        table.add_row(*(Text(cell) for cell in cells))
    console = Console()
    Console(width=None if console.is_terminal else _PIPED_WIDTH).print(table)


def _where(incident: Incident) -> str:
    place: SourcePosition | SourceLocal | None = incident.position or incident.local
    if place is None:
        return "place not known"
    ellipse = place.ellipse_95
    size = f"±{ellipse.major_m:.0f} × {ellipse.minor_m:.0f} m"
    if isinstance(place, SourcePosition):
        return f"{place.lat_deg:.5f}, {place.lon_deg:.5f} {size}"
    return f"{place.x_m:.1f}, {place.y_m:.1f} m {size}"


def _rounds(incident: Incident) -> str:
    cadence = "" if incident.cadence_rpm is None else f" at {incident.cadence_rpm:.0f}/min"
    return f"{incident.round_count} round{'s' * (incident.round_count > 1)}{cadence}"


def _nodes(incident: Incident) -> str:
    used = sum(witness.used for witness in incident.nodes)
    unused = len(incident.nodes) - used
    parts = [f"{used} heard"]
    if unused:
        parts.append(f"{unused} not used")
    if incident.silent_nodes:
        parts.append(f"{len(incident.silent_nodes)} silent")
    return ", ".join(parts)


def _tell_on_standard_error() -> None:
    """Tell what does not count, and when the broker is gone or back: it would look like silence."""
    handler: logging.Handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("gunfire-node: %(message)s"))
    logger = logging.getLogger("node")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
