"""`gunfire-node run`: the daemon."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
from pathlib import Path

import click

from node.board.service import Service
from node.capture.portaudio import PortAudioSource
from node.cli._shared import config_file
from node.daemon import Daemon
from node.errors import GunfireNodeError
from node.memory import lock_memory, steady_heap
from node.settings import load, load_board
from node.vitals import blink_until


@click.command("run")
@config_file
@click.option("--verbose", is_flag=True, help="Log more.")
def command(path: Path | None, verbose: bool) -> None:
    """Hear, judge, time and publish until told to stop (SIGTERM, SIGHUP or Ctrl-C).

    Under a service manager it waits for a sound card that is not there, and shows a fault that it
    cannot go on with by its light for a minute before it ends with code 2.

    Example: gunfire-node run --config /etc/gunfire-node/gunfire-node.toml
    """
    # systemd's watchdog ends what hangs by SIGABRT: say where it was, even once PortAudio is hushed
    faulthandler.enable(os.fdopen(os.dup(sys.stderr.fileno()), "w"))
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(levelname)s %(name)s: %(message)s",
    )
    steady_heap()
    lock_memory()
    service = Service()
    stopped = False
    daemon: Daemon | None = None

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        if daemon is not None:
            daemon.stop()

    ending = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup has it ignored
        ending.append(signal.SIGHUP)
    for number in ending:
        signal.signal(number, stop)
    source: PortAudioSource | None = None
    code = 0
    try:
        settings = load(path).settings
        source = PortAudioSource(settings.capture)
        daemon = Daemon(settings, source, service=service)
        if not stopped:
            daemon.run()
    except GunfireNodeError as error:
        click.echo(f"gunfire-node: {error}", err=True)
        code = 2
        if source is None or not source.must_exit:
            blink_until(lambda: stopped, error, load_board(path), service)
    if source is not None and source.must_exit:
        # PortAudio never lets go of a card that has vanished; systemd starts us anew.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
