"""`gunfire-node status`: what this node knows now."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.live import Live

from node.cli._shared import config_file
from node.errors import StatusError
from node.settings import load
from node.status import LocalStatus, screen

AGAIN_S: Final = 1.0


@click.command("status")
@config_file
@click.option("--watch", "-w", is_flag=True, help="Go on, a new look each second, until Ctrl-C.")
@click.option("--why", is_flag=True, help="What nearly fired, and what was heard and rejected.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a screen.")
def command(path: Path | None, watch: bool, why: bool, as_json: bool) -> None:
    """Show what the node that runs here knows of itself, each second anew with --watch.

    Exit code 0 if it hears and nothing failed, 1 otherwise, 2 if no node runs here.

    Example: gunfire-node status --watch
    """
    file = load(path).settings.health.status_file
    status = LocalStatus.read(file)
    if as_json:
        click.echo(status.text)
        while watch:
            time.sleep(AGAIN_S)
            click.echo(LocalStatus.read(file).text)
    elif watch:
        with Live(screen(status, why), screen=sys.stdout.isatty(), auto_refresh=False) as live:
            try:
                while True:
                    time.sleep(AGAIN_S)
                    try:
                        status = LocalStatus.read(file)
                        live.update(screen(status, why), refresh=True)
                    except StatusError as error:  # it may be starting anew
                        live.update(str(error), refresh=True)
            except KeyboardInterrupt:
                pass
    else:
        Console().print(screen(status, why))
    sys.exit(0 if status.well else 1)
