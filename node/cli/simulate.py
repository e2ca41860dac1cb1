"""`gunfire-node simulate`: recordings of a scene, with truth."""

from __future__ import annotations

from pathlib import Path

import click

from node.capture import built_in_arrays
from node.cli._shared import progress
from node.simulate.render import render, write
from node.simulate.scene import load as load_scene


@click.command("simulate")
@click.argument("scene", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "directory",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the recordings; made if absent.",
)
def command(scene: Path, directory: Path) -> None:
    """Write what each node of a scene would record, and what really happened.

    For each node a WAV with a .json beside it that `replay` reads; truth.json; NODES.toml.

    Example: gunfire-node simulate street.toml -o street/
    """
    rendered = render(load_scene(scene), built_in_arrays())
    with progress(1.0, "simulating") as advance:
        done = 0.0

        def tell(share: float) -> None:
            nonlocal done
            advance(share - done)
            done = share

        write(rendered, directory, tell)
    names = ", ".join(f"{node.node.id}.wav" for node in rendered.nodes)
    click.echo(f"{directory}: {names}, truth.json, NODES.toml")
