"""`gunfire-node check`: one screen for the technician."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from node.capture.portaudio import PortAudioSource
from node.check import checks
from node.cli._shared import config_file
from node.settings import load

CLAP_S: Final = 20.0
MARKS = {"pass": "[green]pass[/]", "warn": "[yellow]warn[/]", "fail": "[bold red]FAIL[/]"}


@click.command("check")
@config_file
@click.option("--json", "as_json", is_flag=True, help="JSON instead of lines.")
@click.option("--clap", is_flag=True, help="Wait for a clap, and tell where it came from.")
def command(path: Path | None, as_json: bool, clap: bool) -> None:
    """Test clock, receiver, model, disk, broker, sound card, levels, pulse and channel order.

    Takes up to 20 seconds, and with --clap up to 20 more.

    Each line says pass, warn or FAIL, the figure, and what to do. Exit code 1 if anything failed.

    Example: gunfire-node check --config gunfire-node.toml
    """
    settings = load(path).settings
    console = Console()
    source = PortAudioSource(settings.capture)
    findings = []
    for finding in checks(settings, source, CLAP_S if clap else 0.0):
        findings.append(finding)
        if not as_json:
            console.print(f"{MARKS[finding.verdict]}  {finding.name:<14}", end="")
            console.print(finding.figure, markup=False, highlight=False, soft_wrap=True)
            if finding.advice:
                console.print(f"{'':<20}→ {finding.advice}", highlight=False, soft_wrap=True)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    failed = sum(finding.verdict == "fail" for finding in findings)
    if not as_json:
        console.print(f"{failed} failed" if failed else "this node is ready to be mounted")
    if source.must_exit:
        # PortAudio never lets go of a card that has vanished.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
    sys.exit(1 if failed else 0)
