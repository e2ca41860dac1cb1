"""`gunfire-node run`: the daemon."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

import click

from node.capture.portaudio import PortAudioSource
from node.cli._shared import config_file
from node.daemon import Daemon
from node.errors import GunfireNodeError
from node.settings import load


@click.command("run")
@config_file
@click.option("--verbose", is_flag=True, help="Log more.")
def command(path: Path | None, verbose: bool) -> None:
    """Hear, judge, time and publish until told to stop (SIGTERM, SIGHUP or Ctrl-C).

    Example: gunfire-node run --config /etc/gunfire-node/gunfire-node.toml
    """
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(levelname)s %(name)s: %(message)s",
    )
    settings = load(path).settings
    source = PortAudioSource(settings.capture)
    daemon = Daemon(settings, source)
    ending = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup has it ignored
        ending.append(signal.SIGHUP)
    for number in ending:
        signal.signal(number, lambda *_: daemon.stop())
    code = 0
    try:
        daemon.run()
    except GunfireNodeError as error:
        click.echo(f"gunfire-node: {error}", err=True)
        code = 2
    if source.must_exit:
        # PortAudio never lets go of a card that has vanished; systemd starts us anew.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
