"""The command `gunfire-node`: one thin file a command, no logic.

What a user can mend is printed in one line and ends with exit code 2; 0 is success, 1 anything
else. Results go to standard output, progress and remarks to standard error.
"""

from __future__ import annotations

import errno
import importlib
import io
import logging
import os
import sys
from typing import Any, Final

import click

from node.errors import GunfireNodeError

STOPPED: Final = 130
"""By Ctrl-C, as a shell has it."""

COMMANDS: Final = {
    "run": "the daemon: hear, judge, time, publish (what systemd starts)",
    "demo": "the main job by itself: a simulated street through the whole node",
    "replay": "the same pipeline over recordings, faster than real time",
    "classify": "calibrated scores of whole files, with no trigger in between",
    "simulate": "recordings of a simulated scene, with truth",
    "check": "the technician's self-test: what works, what does not, what to do",
    "status": "what the node that runs here knows now",
    "watch": "what nodes publish, as it arrives",
    "locate": "incidents from several nodes' detections: live, or over a file",
    "verify": "whether a log of messages is whole, unaltered and of this fleet",
    "config": "the settings: show, check, schema",
}


class _Commands(click.Group):
    """Import a command only when it is called, so that `--help` and errors come at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"node.cli.{cmd_name}")
        command = module.command
        assert isinstance(command, click.Command)  # noqa: S101
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Call a command; Ctrl-C that it does not heed itself is no verdict, as 1 would be."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort):
            click.echo("\ngunfire-node: stopped", err=True)
            sys.exit(STOPPED)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gunfire-node")
def cli() -> None:
    """Open gunfire sensor: hears a shot, judges it, times it, publishes it.

    Example: gunfire-node demo
    """


def main() -> None:
    """Run the command line; the entry point of `gunfire-node`."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # there are terminals without ± and →
    logging.getLogger("node").addHandler(logging.NullHandler())  # errors are told once, by us
    try:
        cli(prog_name="gunfire-node")
    except GunfireNodeError as error:
        for line in str(error).splitlines():
            print(f"gunfire-node: {line}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise
        # Of all the files that we touch, only standard output is not guarded where it is used;
        # a reader that has gone (`| head`) is click's own business.
        print(f"gunfire-node: cannot write the output: {error.strerror}", file=sys.stderr)  # noqa: T201
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(2)
