"""The fragments that a technician copies to a node, read by the programs that they are for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from node.timing.chrony import LEAST_SIGMA_S, parse
from tests.evidence import ROOT

SYSTEMD = ROOT / "systemd"
CHRONY = sorted((SYSTEMD / "chrony").glob("*.conf"))
WITH_PULSE = SYSTEMD / "chrony" / "gunfire-node.conf"
DROP_INS = sorted(SYSTEMD.glob("*/*.service.d/*.conf"))
GPSD = SYSTEMD / "gpsd" / "gpsd"
BOOT = SYSTEMD / "boot" / "config.txt"
I2S = range(18, 22)  # BCM numbers of the PCM/I2S pins of the header
REFERENCES = {
    "gunfire-node.conf": {"NMEA": "gps", "PPS": "pps"},
    "gunfire-node-no-pulse.conf": {"NMEA": "gps"},
    "gunfire-node-no-receiver.conf": {},
}

each_chrony = pytest.mark.parametrize("fragment", CHRONY, ids=lambda path: path.stem)


def in_force(fragment: Path) -> list[str]:
    """Give its lines without comments."""
    lines = (line.strip() for line in fragment.read_text("utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def parsed(configuration: Path) -> subprocess.CompletedProcess[str]:
    chronyd = shutil.which("chronyd") or shutil.which("chronyd", path="/usr/sbin")
    if not chronyd:
        pytest.skip("needs chronyd (apt: chrony)")
    done = subprocess.run(
        [chronyd, "-p", "-f", configuration], capture_output=True, text=True, timeout=10
    )
    if "invalid option" in done.stderr:
        pytest.skip("needs a chronyd that prints its configuration (4.0 or later)")
    return done


@each_chrony
def test_chronyd_takes_each_line(fragment: Path) -> None:
    done = parsed(fragment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == in_force(fragment)


def test_chronyd_does_not_take_a_line_that_is_wrong(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.conf"
    wrong.write_text(CHRONY[0].read_text("utf-8") + "refclock PPS /dev/pps0 locked NMEA\n")
    assert parsed(wrong).returncode != 0


@each_chrony
def test_chronyd_would_take_the_lines_that_are_commented_out(
    fragment: Path, tmp_path: Path
) -> None:
    directive = re.compile(r"^#(?=[a-z])", re.MULTILINE)
    everything = tmp_path / "everything.conf"
    everything.write_text(directive.sub("", fragment.read_text("utf-8")))
    done = parsed(everything)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) > len(in_force(fragment))


def test_the_node_knows_each_reference_by_its_name() -> None:
    found = {}
    for fragment in CHRONY:
        names = re.findall(r"^refclock .*\brefid (\w+)", "\n".join(in_force(fragment)), re.M)
        found[fragment.name] = {}
        for name in names:
            number = name.encode().ljust(4, b"\0").hex().upper()
            line = f"{number},{name},1,1780000000.5,1e-6,2e-6,3e-6,-8.1,0.01,0.1,1e-9,2e-5,8.0"
            tracking = parse(f"{line},Normal")
            assert tracking.is_refclock
            found[fragment.name][name] = tracking.source
    assert found == REFERENCES
    assert all(source in LEAST_SIGMA_S for kinds in found.values() for source in kinds.values())


def test_a_pulse_is_locked_to_a_reference_that_is_there() -> None:
    lines = [line for fragment in CHRONY for line in in_force(fragment)]
    pulses = [line for line in lines if line.startswith("refclock PPS")]
    assert pulses
    for line in pulses:
        locked = re.search(r"\block (\w+)", line)
        assert locked
        assert any(f"refid {locked[1]} noselect" in other for other in lines)


def test_gpsd_s_defaults_are_shell_and_name_the_devices() -> None:
    subprocess.run(["sh", "-n", GPSD], check=True, timeout=10)
    asked = '. "$0"; printf "%s|%s|%s" "$DEVICES" "$GPSD_OPTIONS" "$USBAUTO"'
    done = subprocess.run(
        ["sh", "-eu", "-c", asked, GPSD], capture_output=True, text=True, check=True, timeout=10
    )
    devices, options, usb = done.stdout.split("|")
    serial, pulse = devices.split()
    assert serial.startswith("/dev/tty")  # first: it fills segment 0
    assert any(f"refclock PPS {pulse} " in line for line in in_force(WITH_PULSE))
    assert options.split() == ["-n"]
    assert usb == "false"


def test_nothing_is_put_on_a_pin_of_the_sound() -> None:
    pins = [int(pin) for pin in re.findall(r"pin=(\d+)", "\n".join(in_force(BOOT)))]
    assert pins
    assert not set(pins) & set(I2S)
    # What names no pin takes the overlay's default, which is 18.
    for line in in_force(BOOT):
        assert "pps-gpio" not in line or "gpiopin=" in line


def test_the_boot_fragment_is_sections_and_settings() -> None:
    for line in in_force(BOOT):
        assert re.fullmatch(r"\[(all|pi\d+)\]|[a-z_]+=[\w,=-]+", line), line
    assert in_force(BOOT)[0] == "[all]"  # whatever section it is appended to
    assert [line for line in in_force(BOOT) if line.startswith("[")][-1] == "[all]"


@pytest.mark.parametrize("drop_in", DROP_INS, ids=lambda path: path.stem)
def test_systemd_takes_each_drop_in(drop_in: Path, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if not analyze:
        pytest.skip("needs systemd-analyze (apt: systemd)")
    for unit in ("chrony", "gpsd"):
        service = f"[Unit]\nDescription={unit}\n[Service]\nExecStart=/bin/true\n"
        (tmp_path / f"{unit}.service").write_text(service)
    unit_name = drop_in.parent.name.removesuffix(".d")
    folder = tmp_path / drop_in.parent.name
    folder.mkdir()

    def complaints(text: str) -> list[str]:
        (folder / drop_in.name).write_text(text)
        done = subprocess.run(
            [analyze, "verify", "--man=no", tmp_path / unit_name],
            env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        return [line for line in done.stderr.splitlines() if str(tmp_path) in line]

    text = drop_in.read_text("utf-8")
    if not complaints(f"{text}Nonsense=1\n"):
        pytest.skip("systemd-analyze does not read units here")
    assert complaints(text) == []


def test_gpsd_waits_for_chrony_by_the_name_of_debian_s_unit() -> None:
    lines = in_force(SYSTEMD / "gpsd" / "gpsd.service.d" / "after-chrony.conf")
    assert {"After=chrony.service", "Wants=chrony.service"} <= set(lines)


def test_each_fragment_says_where_it_goes_and_that_no_node_has_it_yet() -> None:
    for fragment in (*CHRONY, *DROP_INS, GPSD, BOOT):
        text = " ".join(fragment.read_text("utf-8").replace("#", "").split())
        assert re.search(r"(Copy|Append) to /", text), fragment
        assert "Not yet tried on hardware." in text, fragment
