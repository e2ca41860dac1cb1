"""`gunfire-card`: make, check and write what a node starts from."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

import click
from rich.console import Console
from rich.table import Table

from node.errors import GunfireNodeError, ProvisioningError
from node.timing.host import utc_now_ns
from node.utc import parse_utc_ns
from provisioning.card.disks import Target, about, cards, not_proposed, target_of
from provisioning.card.image import Image
from provisioning.card.label import Label, draw, need_kind
from provisioning.card.presets import PRESETS, Wish, first_boot_text, wifi_key
from provisioning.card.write import (
    compare_image,
    need_mtools,
    placed,
    put_file,
    spans_bytes,
    write_image,
)
from provisioning.first_boot_file import NAME, FirstBootFile, load, parse
from provisioning.invitation import Invitation
from provisioning.whole import write_whole

PASSPHRASE: Final = "GUNFIRE_CARD_WIFI_PASSPHRASE"  # noqa: S105 - its name
STOPPED: Final = 130

_file = click.argument("file", type=click.Path(path_type=Path), metavar="FILE")
_image = click.argument("image_path", type=click.Path(path_type=Path), metavar="IMAGE")

_force = click.option("--force", is_flag=True, help="Write over a file that is there.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gunfire-node")
def cli() -> None:
    """Make, check and write the card that a node starts from.

    Example: gunfire-card new --invitation node-0001.json --array A
    """


@cli.command()
@click.option(
    "--invitation",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What `gunfire-fleet invite` wrote for this node: name, site, broker, CA, token.",
)
@click.option("--id", "node_id", metavar="NAME", help="The node's name, unique at its broker.")
@click.option("--site", metavar="NAME", help="The name of its site.")
@click.option(
    "--array",
    type=click.Choice(list(PRESETS)),
    help="; ".join(f"{name}: {preset.about}" for name, preset in PRESETS.items()) + ".",
)
@click.option("--device", metavar="NAME", help="The sound card's name, or a part of it.")
@click.option("--broker", metavar="URL", help="The broker, such as mqtts://broker.local:8883.")
@click.option(
    "--receiver",
    type=click.Choice(["pulse", "no-pulse", "none"]),
    help="What tells the time; as the array has it, unless given.",
)
@click.option(
    "--position",
    type=float,
    nargs=4,
    metavar="LAT LON ALT SIGMA",
    help="Surveyed place: degrees, degrees, metres, metres of error.",
)
@click.option(
    "--wifi",
    metavar="SSID",
    help=f"Wi-Fi; its passphrase is asked for, or taken from the environment ({PASSPHRASE}).",
)
@click.option("--wifi-open", is_flag=True, help="That Wi-Fi has no passphrase.")
@click.option("--country", metavar="XX", help="The country's two letters, for Wi-Fi.")
@click.option(
    "--address", metavar="CIDR", help="Fixed address, such as 192.168.1.20/24; else DHCP."
)
@click.option("--gateway", metavar="IP", help="Router of that net.")
@click.option("--dns", multiple=True, metavar="IP", help="Name server; may be given again.")
@click.option("--ntp", multiple=True, metavar="HOST", help="NTP server; may be given again.")
@click.option(
    "--ssh-key",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Public key (.pub) that root may log in with; without, nobody may.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to write it; NAME.toml if absent.",
)
@click.option(
    "--label",
    "drawing",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw the lid's label too; .pdf, .png or .svg, 62 × 29 mm.",
)
@_force
def new(output: Path | None, drawing: Path | None, force: bool, **given: Any) -> None:
    """Make a first-boot file; what is not given is asked for.

    Example: gunfire-card new --invitation node-0001.json --array A --label node-0001.pdf
    """
    wish = _wish(given)
    output = output or Path(f"{wish.node_id}.toml")
    _need_room(output, force)
    if drawing is not None:
        _need_room(drawing, force, by="--label")
        need_kind(drawing)
    text = first_boot_text(wish)
    try:
        file = parse(text.encode(), str(output), utc_now_ns())
    except ProvisioningError as error:
        raise ProvisioningError(
            f"{error}\n{output}: was not written; give it otherwise (gunfire-card new --help)"
        ) from None
    _write_private(output, text)
    if drawing is not None:
        _draw(file, drawing)
    click.echo(_summary(file))
    click.echo(f"wrote {output}; next: sudo .venv/bin/gunfire-card write IMAGE {output}")


def _wish(given: dict[str, Any]) -> Wish:
    invitation = Invitation.read(given["invitation"]) if given["invitation"] else None
    if invitation is not None:
        if _has_ended(invitation):
            raise ProvisioningError(
                f"{given['invitation']}: its token ended on {invitation.expires_utc}; have it made "
                "anew: gunfire-fleet invite"
            )
        for name, mine in (("node_id", "--id"), ("site", "--site"), ("broker", "--broker")):
            theirs = getattr(invitation, name)
            if given[name] not in (None, theirs):
                raise ProvisioningError(
                    f"{mine} {given[name]}: the invitation is for {theirs}; leave {mine} out, or "
                    "have another invitation made"
                )
            given[name] = theirs
    node_id = given["node_id"] or _asked("--id", "Name of the node")
    site = given["site"] or _asked("--site", "Name of its site")
    broker = given["broker"] or _asked("--broker", "Broker (mqtts://…)")
    choices = click.Choice(list(PRESETS))
    preset = PRESETS[given["array"] or _asked("--array", "Set-up of the array", type=choices)]
    return Wish(
        node_id=node_id,
        site=site,
        preset=preset,
        broker=broker,
        receiver=given["receiver"] or preset.receiver,
        device=given["device"],
        position=given["position"],
        network=_network(given),
        invitation=invitation,
    )


def _has_ended(invitation: Invitation) -> bool:
    try:
        return parse_utc_ns(invitation.expires_utc or "") < utc_now_ns()
    except ValueError:  # it says no end
        return False


def _network(given: dict[str, Any]) -> dict[str, Any]:
    network: dict[str, Any] = {}
    if given["wifi"]:
        network["wifi_ssid"] = given["wifi"]
        if given["wifi_open"]:
            network["wifi_open"] = True
        else:
            network["wifi_psk"] = wifi_key(given["wifi"], _passphrase())
        country = given["country"] or _asked("--country", "Country, two letters")
        network["country"] = country.upper()
    for name in ("address", "gateway"):
        if given[name]:
            network[name] = given[name]
    for name in ("dns", "ntp"):
        if given[name]:
            network[name] = list(given[name])
    if given["ssh_key"]:
        try:
            network["ssh_key"] = given["ssh_key"].read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ProvisioningError(
                f"{given['ssh_key']}: cannot be read ({error}); name the .pub file"
            ) from None
    return network


def _passphrase() -> str:
    text = os.environ.get(PASSPHRASE) or _asked(
        PASSPHRASE, "Passphrase of the Wi-Fi", hide_input=True
    )
    if not re.fullmatch(r"[ -~]{8,63}", text):
        raise ProvisioningError(
            f"the Wi-Fi's passphrase has {len(text)} characters; it is 8 to 63 letters, digits and "
            "signs of ASCII: look at the router's label"
        )
    return text


def _asked(option: str, question: str, **how: Any) -> str:
    if not sys.stdin.isatty():
        raise ProvisioningError(f"{option} is missing; give it, as there is no terminal to ask at")
    return str(click.prompt(question, err=True, **how))


def _need_room(path: Path, force: bool, content: bytes | None = None, by: str = "-o") -> None:
    """See that no file is lost: there is none, the same is there, or somebody says so."""
    same = content is not None and path.is_file() and path.read_bytes() == content
    if force or same or not path.exists():
        return
    raise ProvisioningError(f"{path}: is there already; name another by {by}, or say --force")


def _write_private(path: Path, text: str | bytes) -> None:
    """Write a file that is its owner's alone: it may hold a token and a Wi-Fi's key."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        write_whole(path, text, 0o600)
    except OSError as error:
        raise ProvisioningError(
            f"{path}: cannot be written: {error.strerror}; name another place by -o"
        ) from None


@cli.command()
@_file
def check(file: Path) -> None:
    """Check a first-boot file: exit 0, or a line for each mistake and exit 2.

    Example: gunfire-card check node-0001.toml
    """
    click.echo(_summary(load(file, utc_now_ns())))


def _summary(file: FirstBootFile) -> str:
    """Say what a node will be, for somebody to nod at."""
    settings = file.settings
    network, enrolment = settings.network, settings.enrolment
    way = "Ethernet" if network.wifi_ssid is None else f"Wi-Fi {network.wifi_ssid!r} and Ethernet"
    way += f", {network.address}" if network.address else ", DHCP"
    if enrolment is None:
        enrolled = "none: no certificates"
    elif enrolment.url is None:
        enrolled = "by hand: its request will lie on the card"
    else:
        token = (
            "with a token" if enrolment.token else "without a token: for a node that has its own"
        )
        enrolled = f"{enrolment.url}, {token}"
    count = settings.capture.channels
    channels = f"{count} channel{'s' * (count > 1)}"
    rows = {
        "node": f"{settings.node.id}, site {settings.node.site}",
        "sound": f"{settings.capture.device!r}, {channels}, {settings.capture.array}",
        "time": {"pulse": "receiver with its pulse", "no-pulse": "receiver without its pulse"}.get(
            settings.receiver.kind, "the network's servers"
        ),
        "network": way,
        "broker": ", ".join(re.sub("//.*@", "//***@", url) for url in settings.mqtt.brokers),
        "enrolment": enrolled,
        "updates": settings.update.url if settings.update else "none",
        "log-in": "root, by ssh key" if network.ssh_key else "nobody",
    }
    lines = [f"  {name:<10} {what}" for name, what in rows.items()]
    return "\n".join(["the file is right:", *lines])


@cli.command()
@_image
@_file
@click.option(
    "--to",
    "target_path",
    type=click.Path(path_type=Path),
    metavar="DEVICE|FILE",
    help="The card, such as /dev/sdb or /dev/mmcblk0; or a file. The one card that is in a reader "
    "if absent.",
)
@click.option("--yes", is_flag=True, help="Erase what is there without asking.")
def write(image_path: Path, file: Path, target_path: Path | None, yes: bool) -> None:
    """Write image and first-boot file to a card, and read both back.

    The file is checked first, and the image by the checksum beside it (IMAGE.sha256); where a map
    lies beside it (.bmap) only what is used is written. What is not removable is refused.

    Example: sudo .venv/bin/gunfire-card write gunfire-node.img.zst node-0001.toml
    """
    need_mtools()
    text = _whole(file)
    parse(text, str(file), utc_now_ns())
    image = Image.of(image_path)
    if target_path is None and yes:
        raise ProvisioningError("--to is missing; with --yes, nobody is asked: name the card")
    target = target_of(target_path or _the_card(image.size_bytes), image.size_bytes)
    for mine in (file, *image.files):
        if mine.exists() and target.path.exists() and mine.samefile(target.path):
            raise ProvisioningError(
                f"{target.path}: is what is written from ({mine}); name another by --to"
            )
    image.need_ours()
    _confirm(target, yes)
    with _progress() as stage:
        known = image.check_sum(stage("image: checksum", image.packed_bytes))
        with placed(target) as card:
            spans = write_image(image, card, stage("card: writing", image.packed_bytes))
            compare_image(card, spans, stage("card: reading back", spans_bytes(spans)))
            put_file(card, text)
    size = spans_bytes(spans)
    click.echo(
        f"wrote {size / 1e6:.0f} MB and {file.name} to {target.path}, and read both back: the same"
    )
    _say_checked(image_path, known)
    if target.is_device:
        click.echo("take the card out, and put it into the node")


def _the_card(image_bytes: int | None) -> Path:
    """Give the one disk that can be taken out; where there are several, whoever sits here chooses.

    One that may not be written to counts: what is left beside it need not be the card.
    """
    seen = [(str(disk["path"]), about(disk), not_proposed(disk, image_bytes)) for disk in cards()]
    told = [f"{path} ({what})" + (f": {why}" if why else "") for path, what, why in seen]
    fit = [path for path, _, why in seen if not why]
    if not fit:
        raise ProvisioningError(
            "\n".join(told or ["there is no card in a reader; put it in, or name a disk by --to"])
        )
    if len(seen) == 1:
        return Path(fit[0])
    for line in told:
        click.echo(line)
    return Path(_asked("--to", "Which is the card", type=click.Choice(fit)))


def _say_checked(image: Path, known: bool) -> None:
    if not known:
        click.echo(f"the image itself was not checked: no {image.name}.sha256 lies beside it")


def _whole(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        load(file, 0)  # says what is wrong
        raise


def _confirm(target: Target, yes: bool) -> None:
    if not target.path.exists():
        return
    click.echo(f"{target.path}: {target.about}")
    if yes:
        return
    if not sys.stdin.isatty():
        raise ProvisioningError(
            f"{target.path}: would be erased; say --to {target.path} --yes if that is meant"
        )
    if not click.confirm("Erase all that is on it?", default=False):
        raise click.Abort


@contextmanager
def _progress() -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """Show bars on standard error, if that is a terminal; yields stage(what, bytes)."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:

        def stage(what: str, total: int) -> Callable[[int], None]:
            task = bar.add_task(what, total=total)
            return lambda count: bar.advance(task, count)

        yield stage


@cli.command()
@_file
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="Where to draw it; .pdf, .png or .svg, 62 × 29 mm.",
)
@_force
def label(file: Path, output: Path, force: bool) -> None:
    """Draw the label of a node's lid: name, site and a QR code; no secret.

    Example: gunfire-card label node-0001.toml -o node-0001.pdf
    """
    said = load(file, utc_now_ns())
    _need_room(output, force)
    _draw(said, output)


def _draw(file: FirstBootFile, output: Path) -> None:
    said = Label.of(file)
    draw(said, output)
    click.echo(f"drew {output}; its code says: {said.code}")


@cli.command()
@_image
@_file
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FOLDER",
    help="Where to put them; made if absent.",
)
@click.option(
    "--raspberry-pi-os",
    is_flag=True,
    help="IMAGE is Raspberry Pi OS (trixie or later): cloud-init installs the node on it.",
)
@click.option(
    "--source", metavar="URL", help="With --raspberry-pi-os: where git finds this software."
)
@click.option(
    "--version",
    default="main",
    show_default=True,
    metavar="TAG",
    help="With --raspberry-pi-os: which branch or tag.",
)
@_force
def imager(
    image_path: Path,
    file: Path,
    output: Path,
    force: bool,
    raspberry_pi_os: bool,
    source: str | None,
    version: str,
) -> None:
    """Make what Raspberry Pi Imager takes: a manifest of a local image, and cloud-init's files.

    Example: gunfire-card imager gunfire-node.img.xz node-0001.toml -o imager
    """
    from provisioning.card import imager as make

    text = _whole(file)
    said = parse(text, str(file), utc_now_ns())
    if raspberry_pi_os and not source:
        raise ProvisioningError("--source is missing; give the URL that git clones this from")
    image = Image.of(image_path)
    with _progress() as stage:
        known = image.check_sum(stage("image: checksum", image.packed_bytes))
        manifest = make.manifest(
            image,
            said,
            output / make.ICON,
            raspberry_pi_os=raspberry_pi_os,
            read=stage("image: unpacking", image.packed_bytes),
        )
    files = {make.MANIFEST: make.text_of(manifest), NAME: text.decode("utf-8-sig")}
    if raspberry_pi_os:
        files["user-data"] = make.user_data(said, str(source), version)
        files["network-config"] = make.network_config(said)
        files["meta-data"] = make.meta_data(said)
    contents = {name: content.encode() for name, content in files.items()}
    contents[make.ICON] = make.icon(Label.of(said))
    for name, content in contents.items():
        _need_room(output / name, force, content)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProvisioningError(
            f"{output}: cannot be made: {error.strerror}; name another by -o"
        ) from None
    for name, content in contents.items():
        _write_private(output / name, content)
    _say_checked(image_path, known)
    table = Table("file", "goes", box=None, header_style="bold")
    table.add_row(make.MANIFEST, "into Imager: App Options, Content Repository, Use custom file")
    for name in sorted({*files} - {make.MANIFEST}):
        table.add_row(name, "onto the card's first partition, after Imager has written it")
    Console().print(table)


def main() -> None:
    """Run the command line; the entry point of `gunfire-card`."""
    try:
        cli(prog_name="gunfire-card", standalone_mode=False)
    except GunfireNodeError as error:
        _end(str(error))
    except UnicodeError as error:
        _end(f"what was given is no text ({error}); give it in UTF-8")
    except OSError as error:
        _end(": ".join(str(part) for part in (error.filename, error.strerror or error) if part))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort) as error:
        click.echo("\ngunfire-card: stopped", err=True)
        _end(str(error.__cause__ or ""), STOPPED)  # click makes its own of a Ctrl-C


def _end(said: str, code: int = 2) -> NoReturn:
    for line in said.splitlines():
        click.echo(f"gunfire-card: {line}", err=True)
    sys.exit(code)
