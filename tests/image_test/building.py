"""The image from nothing, in a folder of its own, against the one that the other parts boot."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Final

from tests.evidence import ROOT, Claim, Detail
from tests.hil.guest import BUILD
from tests.image_test.bench import WORK, image
from tests.parts import Part, Tell

LARGEST_MB: Final = 700.0
PIECE: Final = 1 << 22
"""Bytes compared at a time."""
SHOWN: Final = 200
"""Characters of a difference."""


def measure(tell: Tell) -> Part:
    """Build all anew, from what Debian's mirrors have today, and compare byte by byte."""
    folder = WORK / "building"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began_s = time.monotonic()
    try:
        with subprocess.Popen(
            [ROOT / "provisioning/image/build", "--out", folder],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        ) as build:  # fmt: skip
            assert build.stdout is not None
            said = []
            for line in build.stdout:
                said.append(line.strip())
                tell(line.strip())
        if build.returncode:
            raise RuntimeError(f"provisioning/image/build: {' / '.join(said[-5:])}")
        took_s = time.monotonic() - began_s
        ours = _raw(image().name, folder)
        size_mb = ours.with_suffix(".img.zst").stat().st_size / 1e6
        same = _same(ours, _raw(image().name, BUILD))
        differ = _differences(_manifest(ours), _manifest(_raw(image().name, BUILD)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    named = same or bool(differ)
    return Part(
        (
            Claim("image from nothing, compressed", size_mb, "MB", f"≤ {LARGEST_MB:.0f}",
                  size_mb <= LARGEST_MB),
            Claim("image from nothing, two cores", took_s / 60, "min"),
            Claim("two builds in two folders: the same bytes, or the manifest names what differs",
                  int(named), "", "1", named),
            Claim("differences in the manifest", len(differ), ""),
        ),
        (
            Detail("Against the other build", ("what", "here", "there"),
                   tuple(differ) or (("every byte", "the same", "the same"),)),
        ),
    )  # fmt: skip


def _raw(compressed: str, folder: Path) -> Path:
    return folder / compressed.removesuffix(".zst")


def _manifest(raw: Path) -> dict[str, Any]:
    file = raw.with_name(raw.name.removesuffix(".img") + ".manifest.json")
    manifest: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return manifest


def _same(one: Path, other: Path) -> bool:
    with one.open("rb") as here, other.open("rb") as there:
        while (piece := here.read(PIECE)) == there.read(PIECE):
            if not piece:
                return True
    return False


def _differences(one: dict[str, Any], other: dict[str, Any]) -> list[tuple[str, str, str]]:
    """List what two manifests say differently: a package, a wheel, a file of the FAT partition."""
    rows = []
    for key in sorted(one.keys() | other.keys()):
        here, there = one.get(key), other.get(key)
        if here == there:
            continue
        if isinstance(here, dict) and isinstance(there, dict):
            rows += [(f"{key}: {what}", *pair) for what, *pair in _differences(here, there)]
        else:
            rows.append((key, str(here)[:SHOWN], str(there)[:SHOWN]))
    return rows
