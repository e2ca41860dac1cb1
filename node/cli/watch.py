"""`gunfire-node watch`: what nodes publish, as it arrives."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import stat
import sys
from pathlib import Path
from typing import Final

import click

from node.cli._shared import Level, config_file, printable, sentence
from node.deliver import BrokerAddress
from node.messages import Detection, Status
from node.network import Subscription
from node.network.subscribe import KINDS, Kind
from node.settings import load

KEPT_S: Final = 14 * 86_400

_BLANKS: Final = bytes.maketrans(b"\r\n\t", b"   ")


@click.command("watch")
@click.option(
    "--broker",
    metavar="URL",
    help="mqtt://host:port, or mqtts:// with the settings' certificates; their broker if absent.",
)
@click.option(
    "--name",
    metavar="NAME",
    help="Our name at the broker: it keeps for a fortnight what comes while we are away.",
)
@click.option("--site", default="+", type=Level(wildcard=True), help="One site only.")
@click.option("--node", "node_id", default="+", type=Level(wildcard=True), help="One node only.")
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(KINDS),
    multiple=True,
    default=("detection", "status"),
    show_default=True,
    help="What to print; give it once for each kind.",
)
@click.option("--jsonl", is_flag=True, help="One message a line as JSON, as it was published.")
@config_file
def command(
    broker: str | None,
    name: str | None,
    site: str,
    node_id: str,
    kinds: tuple[Kind, ...],
    jsonl: bool,
    path: Path | None,
) -> None:
    """Print what nodes publish, each detection once, until Ctrl-C.

    Example: gunfire-node watch --broker mqtt://broker.local:1883 --jsonl

    A log for `gunfire-node verify`:
    --name log --kind detection --kind node --kind checkpoint --jsonl
    """
    address = BrokerAddress.from_settings(load(path).settings.mqtt, broker)
    words = Subscription(
        address,
        kinds=kinds,
        site=site,
        node_id=node_id,
        client_id=name,
        session_expiry_s=KEPT_S if name else 0,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: words.close())
    with words:
        click.echo(f"gunfire-node: connected to {address}", err=True)
        _tell_on_standard_error()
        if jsonl:
            _end_torn_line()
        for word in words:
            if jsonl:
                click.echo(_one_line(word.payload))
            elif isinstance(word.message, Detection):
                click.echo(sentence(word.message))
            elif isinstance(word.message, Status):
                click.echo(_status(word.message))
            else:
                click.echo(printable(f"{word.topic}  {_one_line(word.payload).decode()}"))


def _tell_on_standard_error() -> None:
    """Tell when the broker is gone or back and what cannot be read: it would look like silence."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("gunfire-node: %(message)s"))
    logger = logging.getLogger("node")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def _end_torn_line() -> None:
    """End what a power cut or a full disk has torn in the file that we go on with."""
    with contextlib.suppress(OSError):  # no file, or one that may not be read: nothing to mend
        with open(f"/dev/fd/{sys.stdout.fileno()}", "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return
            file.seek(-1, os.SEEK_END)
            whole = file.read(1) == b"\n"
        if not whole:
            click.echo()


def _one_line(payload: bytes) -> bytes:
    """Put blanks for line ends and tabs.

    They stand between a JSON's tokens alone, where they mean the same.
    """
    return payload.translate(_BLANKS)


def _status(status: Status) -> str:
    said = printable("; ".join(status.reasons))
    return f"{status.utc[:-4]}Z  {status.node_id:<18} {status.state}{': ' if said else ''}{said}"
