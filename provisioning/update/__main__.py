"""`python -m provisioning.update`: what the units of systemd/image run, as root."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click

from node.errors import GunfireNodeError
from provisioning.places import Places
from provisioning.update.manager import Systemd
from provisioning.update.node_side import CLOCK_PATIENCE_S, Update, alone, clock_is_trusted
from provisioning.update.pull import Puller, Source
from provisioning.update.releases import INCOMING
from provisioning.update.trial import HOLD_S, WITHIN_S

log = logging.getLogger(__name__)


@click.command()
@click.option("--resume", is_flag=True, help="Finish a trial that was cut off, and nothing else.")
@click.option("--back", is_flag=True, help="Take the release in use back.")
@click.option(
    "--within", "within_s", default=WITHIN_S, show_default=True, help="A trial's seconds."
)
@click.option(
    "--hold", "hold_s", default=HOLD_S, show_default=True, help="Seconds without a break."
)
@click.option("--patience", "patience_s", default=CLOCK_PATIENCE_S, show_default=True)
@click.option(
    "--root", type=click.Path(path_type=Path), default=Path("/"), help="Where / is, for tests."
)
def main(
    resume: bool, back: bool, within_s: float, hold_s: float, patience_s: float, root: Path
) -> None:
    """Pull a release, try it, and keep it or take it back.

    Where first boot was told nothing of updates, nothing is done. An option may stand in the
    environment too: GUNFIRE_UPDATE_WITHIN_S=1200.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    places = Places(root)
    try:
        source = Source.load(places)
        if not (places.releases / "current").exists():
            log.info("this is no node that was flashed with the image: nothing to do")
            return
        with alone(places) as mine:
            if not mine:
                log.info("another process is at it: it goes on")
                return
            update = Update(places, Systemd(), within_s=within_s, hold_s=hold_s)
            try:
                if update.resume() or resume:
                    return
                if back:
                    update.back()
                elif source is not None:
                    incoming = places.releases / INCOMING
                    puller = Puller(places, source, incoming)
                    update.look(puller, trusted=clock_is_trusted(patience_s))
            except (GunfireNodeError, OSError) as error:
                update.fail(error)
                raise
    except (GunfireNodeError, OSError) as error:
        print(f"gunfire-node-update: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


if __name__ == "__main__":
    main(auto_envvar_prefix="GUNFIRE_UPDATE")
