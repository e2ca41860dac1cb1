"""The sounds of Debian packages, laid out to learn from: real packages, made here."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner

from models.evaluation.recordings import read_folder
from models.training import debian

PACKAGE = debian.Package(
    "some-game", "GPL-2+", {"rifle": ("sound/rifle-*",)}, {"door_close": ("sound/door*",)}
)


def _sound(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.linspace(0, 0.5, 4000), 8000)


def _deb(folder: Path, archived: bool) -> Path:
    """Make a package of three sounds and a broken one, in a zip archive or as files."""
    root = folder / "root"
    for name in ("rifle-1.wav", "rifle-2.wav", "door.wav"):
        _sound(root / "usr" / "sound" / name)
    (root / "usr" / "sound" / "door-broken.wav").write_bytes(b"RIFF")
    if archived:
        with zipfile.ZipFile(root / "usr" / debian.ARCHIVES[0], "w") as archive:
            for path in sorted((root / "usr" / "sound").iterdir()):
                archive.write(path, f"sound/{path.name}")
                path.unlink()
    (root / "DEBIAN").mkdir()
    (root / "DEBIAN" / "control").write_text(
        "Package: some-game\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\n"
        "Description: sounds\n"
    )
    package = folder / "some-game_1_all.deb"
    subprocess.run(["dpkg-deb", "-b", root, package], check=True, capture_output=True)
    return package


def _laid_out(folder: Path, rows: list[dict[str, str]]) -> None:
    lines = [",".join(debian.COLUMNS), *(",".join(row.values()) for row in rows)]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")


def test_a_package_becomes_a_data_folder(tmp_path: Path) -> None:
    unpacked = debian.unpack(_deb(tmp_path, archived=True), tmp_path / "unpacked")
    rows = debian.lay_out(PACKAGE, unpacked, tmp_path / "data")
    _laid_out(tmp_path / "data", rows)
    clips = read_folder(tmp_path / "data")
    assert [(clip.label, clip.sound, clip.group) for clip in clips] == [
        ("gunfire", "gunshot", "debian:some-game/rifle"),
        ("gunfire", "gunshot", "debian:some-game/rifle"),
        ("other", "door_close", "debian:some-game/door_close"),
    ]
    assert {clip.seconds for clip in clips} == {0.5}
    assert {clip.tier for clip in clips} == {"A"}


def test_sounds_that_lie_in_no_archive_are_found_too(tmp_path: Path) -> None:
    unpacked = debian.unpack(_deb(tmp_path, archived=False), tmp_path / "unpacked")
    package = debian.Package("some-game", "GPL-2+", {"rifle": ("usr/sound/rifle*",)}, {})
    assert len(debian.lay_out(package, unpacked, tmp_path / "data")) == 2


def test_a_pattern_that_meets_nothing_is_named(tmp_path: Path) -> None:
    unpacked = debian.unpack(_deb(tmp_path, archived=True), tmp_path / "unpacked")
    package = debian.Package("some-game", "GPL-2+", {"pistol": ("sound/pistol*",)}, {})
    with pytest.raises(debian.PackageError, match=r"some-game: holds no sound/pistol\*"):
        debian.lay_out(package, unpacked, tmp_path / "data")


def test_what_is_no_package_is_told(tmp_path: Path) -> None:
    (tmp_path / "some-game_1_all.deb").write_text("no package")
    with pytest.raises(debian.PackageError, match="dpkg-deb says"):
        debian.unpack(tmp_path / "some-game_1_all.deb", tmp_path / "unpacked")


def test_a_folder_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("")
    ended = CliRunner().invoke(debian.main, ["--out", str(tmp_path)])
    assert (ended.exit_code, ended.output) == (0, "")


def test_without_the_archive_of_debian_the_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = CliRunner().invoke(debian.main, ["--out", str(tmp_path / "debian")])
    assert ended.exit_code == 2
    assert "ufoai-sound: not to be had" in ended.output
    assert not (tmp_path / "debian").exists()


def test_a_folder_that_holds_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    ended = CliRunner().invoke(debian.main, ["--out", str(tmp_path)])
    assert ended.exit_code == 2
    assert f"{tmp_path}: holds something else" in ended.output
    assert (tmp_path / "mine.txt").read_text() == "mine"
