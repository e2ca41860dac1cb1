#!/usr/bin/env python3
"""In the tools: say what the image consists of, as JSON.

Usage: manifest.py VERSION COMMIT KERNEL FOLDER   FOLDER: what goes to the FAT partition
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

SHOWN = "--showformat=${Package} ${Version}\n"


def packages(command: list[str]) -> dict[str, str]:
    """Give the versions that dpkg says, by name."""
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603
    return dict(line.split(" ", 1) for line in told.splitlines())


def sums(folder: Path) -> dict[str, str]:
    """Give the sha256 of every file in a folder, by its path there."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


version, commit, kernel, folder = sys.argv[1:]
debian = packages(["dpkg-query", "--admindir=/work/root/var/lib/dpkg", "--show", SHOWN])
for deb in Path("/work/debs/boot").glob("*.deb"):
    if deb.name.startswith(("linux-image-6", "raspi-firmware_")):
        debian |= packages(["dpkg-deb", "--show", SHOWN, str(deb)])
json.dump(
    {
        "version": version,
        "commit": commit,
        "source_date_epoch": int(os.environ["SOURCE_DATE_EPOCH"]),
        "architecture": "arm64",
        "debian": "trixie",
        "kernel": kernel,
        "debian_packages": debian,
        "wheels": sums(Path("/work/wheels")),
        "boot_partition": sums(Path(folder)),
    },
    sys.stdout,
    indent=1,
    sort_keys=True,
)
