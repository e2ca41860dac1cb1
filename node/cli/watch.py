"""`gunfire-node watch`: what nodes publish, as it arrives."""

from __future__ import annotations

import signal
from pathlib import Path

import click

from node.cli._shared import Level, config_file, sentence
from node.deliver import BrokerAddress
from node.messages import Detection, Status
from node.network import Subscription
from node.settings import load


@click.command("watch")
@click.option("--broker", metavar="URL", help="mqtt://host:port; the settings' broker if absent.")
@click.option("--site", default="+", type=Level(wildcard=True), help="One site only.")
@click.option("--node", "node_id", default="+", type=Level(wildcard=True), help="One node only.")
@click.option("--jsonl", is_flag=True, help="One message a line as JSON, as it was published.")
@config_file
def command(broker: str | None, site: str, node_id: str, jsonl: bool, path: Path | None) -> None:
    """Print detections and statuses as nodes publish them, each once, until Ctrl-C.

    Example: gunfire-node watch --broker mqtt://broker.local:1883 --jsonl
    """
    if broker is None:
        address = BrokerAddress.from_settings(load(path).settings.mqtt)
    else:
        address = BrokerAddress.from_url(broker)
    words = Subscription(address, site=site, node_id=node_id)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: words.close())
    with words:
        for word in words:
            if jsonl:
                click.echo(word.payload)
            elif isinstance(word.message, Detection):
                click.echo(sentence(word.message))
            else:
                click.echo(_status(word.message))


def _status(status: Status) -> str:
    said = "; ".join(status.reasons)
    return f"{status.utc[:-4]}Z  {status.node_id:<18} {status.state}{': ' if said else ''}{said}"
