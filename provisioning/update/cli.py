"""`gunfire-fleet release`: publish what nodes pull."""

from __future__ import annotations

from pathlib import Path

import click

from provisioning.update.release import Facts
from provisioning.update.repository import Repository, Role

FOLDER = "fleet"
"""As `gunfire-fleet --fleet` has it where nothing is said."""


@click.group("release")
def release() -> None:
    """Publish releases that nodes pull, try, and keep or take back."""


@release.command("init")
@click.pass_obj
@click.option("--passphrase", "closed", is_flag=True, help="Close the keys of root and targets.")
def init(folder: Path | None, closed: bool) -> None:
    """Make the keys that releases are signed with, and an empty place to serve.

    Example: gunfire-fleet release init --passphrase
    """
    passphrase = _ask("root and targets", new=True) if closed else None
    _repository(folder).make(passphrase)
    at = folder or Path(FOLDER)
    click.echo(
        f"made {at}/releases, to be served, and {at}/release-keys, never to be\n"
        "keep a copy of root.pem and targets.pem where this machine cannot reach it"
    )


@release.command("add")
@click.pass_obj
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def add(folder: Path | None, file: Path) -> None:
    """Look into a release, sign it, and offer it to nodes.

    Example: gunfire-fleet release add gunfire-node-1.4.0-trixie-arm64.tar.zst
    """
    facts = _repository(folder).add(file)
    click.echo(f"published {_line(facts)}")


@release.command("withdraw")
@click.pass_obj
@click.argument("version")
def withdraw(folder: Path | None, version: str) -> None:
    """Offer a version no more; nodes that took it keep it until a higher one is published."""
    for facts in _repository(folder).withdraw(version):
        click.echo(f"withdrawn {_line(facts)}")


@release.command("list")
@click.pass_obj
def list_releases(folder: Path | None) -> None:
    """Show what is published, the newest first, and until when the signatures hold."""
    repository = _repository(folder)
    for facts in repository.releases:
        click.echo(_line(facts))
    for role, end in repository.ends.items():
        click.echo(f"{role:<10} signed until {end:%Y-%m-%d}", err=True)


@release.command("refresh")
@click.pass_obj
def refresh(folder: Path | None) -> None:
    """Sign anew what ends soon and needs nobody there; for a daily timer.

    Exit code 1 if something is left that needs a passphrase: `release renew`.
    """
    repository = _repository(folder)
    left = repository.refresh()
    for role in left:
        click.echo(
            f"gunfire-fleet: {role} ends on {repository.ends[role]:%Y-%m-%d}; run "
            "`gunfire-fleet release renew`, with its key and passphrase",
            err=True,
        )
    raise SystemExit(1 if left else 0)


@release.command("renew")
@click.pass_obj
def renew(folder: Path | None) -> None:
    """Sign root and targets anew, for as long as at first."""
    _repository(folder).renew()


@release.command("replace-key")
@click.pass_obj
@click.option("--passphrase", "closed", is_flag=True, help="Close the new key, of targets.")
@click.argument("role", type=click.Choice(["targets", "snapshot", "timestamp"]))
def replace_key(folder: Path | None, closed: bool, role: Role) -> None:
    """Have another key sign for a role, where the old one may be in other hands."""
    passphrase = _ask(role, new=True) if closed and role == "targets" else None
    _repository(folder).replace_key(role, passphrase)
    click.echo(f"{role} has a new key; nodes learn of it when they look next")


@release.command("root")
@click.pass_obj
def root(folder: Path | None) -> None:
    """Print what a node trusts: the root.json that its first-boot file takes."""
    click.echo(_repository(folder).root.decode(), nl=False)


def _repository(folder: Path | None) -> Repository:
    return Repository(folder or Path(FOLDER), lambda role: _ask(f"the {role} key"))


def _ask(whose: str, *, new: bool = False) -> str:
    return str(
        click.prompt(f"Passphrase of {whose}", hide_input=True, confirmation_prompt=new, err=True)
    )


def _line(facts: Facts) -> str:
    return (
        f"{facts.version}  {facts.debian} {facts.architecture}  outbox format "
        f"{facts.outbox_format}  {facts.unpacked_bytes / 2**20:.0f} MB unpacked"
    )
