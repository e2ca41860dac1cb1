"""What can be said of the image without building it."""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.evidence import ROOT

IMAGE = ROOT / "provisioning" / "image"
OWN = ROOT / "systemd" / "image"
UNITS = OWN / "etc" / "systemd" / "system"
PRESET = OWN / "usr" / "lib" / "systemd" / "system-preset" / "10-gunfire-node.preset"
NODE = {
    "python_version": "3.13",
    "python_full_version": "3.13.5",
    "platform_machine": "aarch64",
    "sys_platform": "linux",
    "os_name": "posix",
    "platform_system": "Linux",
    "implementation_name": "cpython",
    "extra": "",
}
BOARD = """
/dts-v1/;
/ {
    compatible = "raspberrypi,3-model-b", "brcm,bcm2837";
    soc {
        gpio: gpio@7e200000 { #gpio-cells = <2>; };
        uart0: serial@7e201000 { status = "okay"; bluetooth { compatible = "brcm,bcm43438-bt"; }; };
        uart1: serial@7e215040 { status = "okay"; };
    };
};
"""
"""What the overlays ask of a device tree of Debian's, by the names that it has."""


def sections(unit: Path) -> list[str]:
    return re.findall(r"^\[(\w+)\]$", unit.read_text("utf-8"), re.M)


def test_the_lock_names_every_dependency_at_a_version_that_is_allowed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lock = (IMAGE / "requirements.lock").read_text("utf-8")
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+) \\$", lock, re.M))
    wanted = [*project["dependencies"], *project["optional-dependencies"]["pi"]]
    for text in wanted:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate(NODE):
            version = locked.get(requirement.name.lower())
            assert version, f"{requirement.name}: run provisioning/image/lock"
            assert version in requirement.specifier, f"{text}: run provisioning/image/lock"


def test_nothing_is_installed_but_by_its_hash() -> None:
    lock = (IMAGE / "requirements.lock").read_text("utf-8")
    for entry in re.split(r"^(?=[a-z0-9])", lock, flags=re.M)[1:]:
        assert "--hash=sha256:" in entry, entry


def test_each_unit_of_the_image_is_enabled_by_the_preset_and_nothing_else_is() -> None:
    lines = [
        line.split() for line in PRESET.read_text("utf-8").splitlines() if line and line[0] != "#"
    ]
    assert lines[-1] == ["disable", "*"]
    enabled = [words[1] for words in lines[:-1] if words[0] == "enable"]
    for unit in UNITS.iterdir():
        if unit.is_file() and not unit.is_symlink() and "Install" in sections(unit):
            assert any(fnmatch.fnmatch(unit.name, pattern) for pattern in enabled), unit.name


def test_what_the_units_of_the_image_run_is_in_the_image() -> None:
    for unit in UNITS.rglob("*"):
        if unit.is_file() and not unit.is_symlink():
            for path in re.findall(
                r"^Exec\w+=\S*?(/usr/lib/gunfire-node/\S+)", unit.read_text(), re.M
            ):
                script = OWN / path.lstrip("/")
                assert script.stat().st_mode & 0o111, f"{unit.name}: {path}"


def test_nobody_is_asked_for_a_password() -> None:
    for unit in ("getty@.service", "serial-getty@.service"):
        assert (UNITS / unit).readlink() == Path("/dev/null")
    ssh = (OWN / "etc/ssh/sshd_config.d/10-gunfire-node.conf").read_text("utf-8")
    assert "AuthenticationMethods publickey" in ssh
    assert "PasswordAuthentication no" in ssh


def test_a_folder_of_the_data_partition_stands_behind_each_bind() -> None:
    fstab = (OWN / "etc" / "fstab").read_text("utf-8")
    script = (OWN / "usr/lib/gunfire-node/data").read_text("utf-8")
    binds = re.findall(r"^/data/(\w+)\s+\S+\s+none\s+bind", fstab, re.M)
    assert binds
    for folder in binds:
        assert f'"$1/{folder}"' in script


def test_the_card_has_the_partitions_that_the_system_looks_for() -> None:
    card = (IMAGE / "genimage.cfg").read_text("utf-8")
    build = (IMAGE / "steps" / "root").read_text("utf-8")
    fstab = (OWN / "etc" / "fstab").read_text("utf-8")
    signature = re.search(r"disk-signature = 0x(\w+)", card)
    assert signature
    assert f"PARTUUID={signature[1]}-03" in fstab
    assert signature[1] in (UNITS / "gunfire-node-data.service").read_text("utf-8")
    assert "gunfire-root" in build
    assert "root=LABEL=gunfire-root ro" in (IMAGE / "boot" / "cmdline.txt").read_text("utf-8")


@pytest.mark.skipif(not shutil.which("fdtoverlay"), reason="needs device-tree-compiler")
def test_the_overlays_move_the_pulse_and_the_serial_line(tmp_path: Path) -> None:
    def tool(*words: str | Path) -> str:
        return subprocess.check_output(words, text=True, stderr=subprocess.STDOUT)

    board = tmp_path / "board.dts"
    board.write_text(BOARD, "utf-8")
    tool("dtc", "-q", "-@", "-O", "dtb", "-o", tmp_path / "board.dtb", board)
    overlays = []
    for source in sorted((IMAGE / "overlays").glob("*.dts")):
        overlays.append(tmp_path / f"{source.stem}.dtbo")
        tool("dtc", "-q", "-@", "-O", "dtb", "-o", overlays[-1], source)
        assert f"dtoverlay={source.stem}" in (IMAGE / "boot" / "config.txt").read_text("utf-8")
    merged = tmp_path / "merged.dtb"
    tool("fdtoverlay", "-i", tmp_path / "board.dtb", "-o", merged, *overlays)

    def told(node: str, name: str) -> str:
        return tool("fdtget", merged, node, name).strip()

    assert told("/gunfire-pps", "compatible") == "pps-gpio"
    assert told("/gunfire-pps", "gpios").split()[1:] == ["4", "0"]
    assert told("/soc/serial@7e215040", "status") == "disabled"
    assert told("/soc/serial@7e201000/bluetooth", "status") == "disabled"
