"""What can be said of the units and of provisioning/install without systemd."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from node.errors import SettingsError
from node.settings import load
from tests.evidence import ROOT

UNIT = (ROOT / "systemd" / "gunfire-node.service").read_text("utf-8")
INSTALL = ROOT / "provisioning" / "install"
SAMPLE = ROOT / "provisioning" / "gunfire-node.toml"
FRAGMENT = (ROOT / "systemd" / "boot" / "config.txt").read_text("utf-8")
THEIRS = "dtparam=audio=on\n"
CMDLINE = "console=serial0,115200 console=tty1 rootwait\n"
FUNCTIONS = ("without_fragment", "put")
MOST_START_S = 12.0
"""From start to hearing, on the slowest board."""


def seconds(name: str) -> float:
    found = re.search(rf"^{name}=([\d.]+)s$", UNIT, re.M)
    assert found, name
    return float(found[1])


def install(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([INSTALL, *options], capture_output=True, text=True, timeout=20)


def test_a_hang_at_its_longest_leaves_time_to_start_within_30_s() -> None:
    hang_s = seconds("WatchdogSec") + seconds("TimeoutAbortSec") + seconds("RestartSec")
    assert hang_s + MOST_START_S <= 30


def test_wrong_settings_that_are_shown_for_a_minute_never_reach_the_ladder() -> None:
    burst = re.search(r"^StartLimitBurst=(\d+)$", UNIT, re.M)
    assert burst
    assert "StartLimitIntervalSec=5min" in UNIT
    assert int(burst[1]) * (60 + seconds("RestartSec")) > 5 * 60
    assert seconds("TimeoutStartSec") > 60


def test_the_sample_of_settings_is_valid_and_so_is_what_it_offers(tmp_path: Path) -> None:
    assert load(SAMPLE, {}).settings.node.site == "unset"
    offered = tmp_path / "offered.toml"
    offered.write_text(re.sub(r"^#(?=\w+ = )", "", SAMPLE.read_text("utf-8"), flags=re.M))
    # All at once it offers certificates without TLS, and nothing else that is wrong.
    with pytest.raises(SettingsError, match="mqtts") as wrong:
        load(offered, {})
    assert len(str(wrong.value).splitlines()) == 1
    offered.write_text(offered.read_text().replace("mqtt://localhost", "mqtts://localhost"))
    assert load(offered, {}).settings.node.id == "roof-1"


def test_without_a_pulse_the_pi_keeps_no_pin_for_it(tmp_path: Path) -> None:
    """A pin that /dev/pps0 holds is none that a thermometer could be wired to."""
    function = re.search(
        r"^without_fragment\(\) \{.*?^\}$", INSTALL.read_text("utf-8"), re.M | re.S
    )
    assert function
    assert "dtoverlay=pps-gpio,gpiopin=4" in FRAGMENT

    def left(config: str) -> str:
        file = tmp_path / "config.txt"
        file.write_text(config, "utf-8")
        return subprocess.check_output(
            ["bash", "-c", f'{function[0]}\nwithout_fragment "$1"', "-", file], text=True
        )

    theirs = "dtparam=audio=on\n[cm5]\ndtoverlay=dwc2\n"
    assert left(theirs) == theirs
    assert left(theirs + FRAGMENT) == theirs + "[all]\n"
    assert left(FRAGMENT + theirs) == "[all]\n" + theirs
    moved = FRAGMENT.replace("gpiopin=4", "gpiopin=25")
    assert left(theirs + moved + "dtparam=spi=on\n") == theirs + "[all]\ndtparam=spi=on\n"
    assert left(FRAGMENT + theirs + moved) == "[all]\n" + theirs + "[all]\n"
    cut = theirs + FRAGMENT[: FRAGMENT.index("enable_uart")]
    assert left(cut) == cut  # where it ends nobody knows
    last = FRAGMENT.splitlines(keepends=True)[-1]
    assert left(last + cut + theirs) == last + cut + theirs
    assert left(FRAGMENT + cut + theirs) == "[all]\n" + cut + theirs
    assert left(cut + theirs + FRAGMENT) == cut + theirs + "[all]\n"
    assert left("arm_boost=1") == "arm_boost=1"


class Pi:
    """The parts of the install that choose the receiver and write the firmware's files."""

    def __init__(self, folder: Path) -> None:
        self.boot, self.chrony = folder / "boot", folder / "chrony"
        for made in (self.boot, self.chrony, folder / "scratch"):
            made.mkdir()
        (self.boot / "config.txt").write_text(THEIRS)
        (self.boot / "cmdline.txt").write_text(CMDLINE)
        text = INSTALL.read_text("utf-8")
        parts = [re.search(rf"^{name}\(\) {{.*?^}}$", text, re.M | re.S) for name in FUNCTIONS]
        parts += [
            re.search(rf"^# {begin}$.*?(?=^# {end}$)", text, re.M | re.S)
            for begin, end in (
                (r"The receiver\..*?", r"PyAudio is built .*?"),
                (r"The Pi's firmware\.", r"The service\."),
            )
        ]
        paths = f"BOOT={self.boot} CHRONY={self.chrony} scratch={folder / 'scratch'}"
        self._script = "\n".join(
            [
                f"set -euo pipefail; {paths} KEPT=.kept changed=() receiver=$1 boot=$2",
                'say() { echo "$*"; }',
                *(part[0] for part in parts if part),
            ]
        )
        assert all(parts)

    def install(self, receiver: str = "", boot: str = "yes") -> str:
        """Give what is said."""
        return subprocess.check_output(
            ["bash", "-c", self._script, "-", receiver, boot], text=True, cwd=ROOT
        )

    def chose(self, file: str) -> None:
        """Lay out chrony's file as the install leaves it."""
        for other in self.chrony.iterdir():
            other.unlink()
        (self.chrony / file).touch()

    def read(self, name: str) -> str:
        return (self.boot / name).read_text()


@pytest.fixture
def pi(tmp_path: Path) -> Pi:
    return Pi(tmp_path)


def test_the_fragment_is_appended_to_a_last_line_that_does_not_end(pi: Pi) -> None:
    (pi.boot / "config.txt").write_text("[cm5]\ndtoverlay=dwc2")
    pi.install("pulse")
    assert pi.read("config.txt") == "[cm5]\ndtoverlay=dwc2\n" + FRAGMENT
    pi.install("none")
    assert pi.read("config.txt") == "[cm5]\ndtoverlay=dwc2\n[all]\n"


def test_what_is_said_of_the_firmware_s_file_from_before_stays_true(pi: Pi) -> None:
    kept = f"{pi.boot}/config.txt as it was before the first change is in {pi.boot}/config.txt.kept"
    assert kept in pi.install("pulse")
    assert kept in pi.install("none")
    assert pi.read("config.txt.kept") == THEIRS


@pytest.mark.parametrize("before", ["", "gunfire-node-no-receiver.conf"])
def test_a_fragment_appended_by_hand_stays_where_no_receiver_was_chosen(
    pi: Pi, before: str
) -> None:
    """No receiver is what an install without a word of one takes, too."""
    if before:
        pi.chose(before)
    (pi.boot / "config.txt").write_text(THEIRS + FRAGMENT)
    pi.install()
    assert pi.read("config.txt") == THEIRS + FRAGMENT
    told = pi.install("none", boot="")
    assert "config.txt is not as the node needs it; --receiver none --boot makes this" in told
    assert f"-{FRAGMENT.splitlines()[0]}" in told
    pi.install("none")
    assert pi.read("config.txt") == THEIRS + "[all]\n"


def test_a_fragment_is_taken_out_where_a_receiver_without_a_pulse_was_chosen_before(pi: Pi) -> None:
    pi.chose("gunfire-node-no-pulse.conf")
    (pi.boot / "config.txt").write_text(THEIRS + FRAGMENT)
    pi.install()
    assert pi.read("config.txt") == THEIRS + "[all]\n"


def test_that_the_console_stays_off_the_serial_line_is_said_once(pi: Pi) -> None:
    said = "console=serial0"
    assert said not in pi.install("pulse")
    assert said not in pi.read("cmdline.txt")
    pi.chose("gunfire-node.conf")
    assert said not in pi.install()
    assert pi.install("no-pulse").count(said) == 1
    pi.chose("gunfire-node-no-pulse.conf")
    assert said not in pi.install()


def test_of_a_console_that_was_never_on_the_serial_line_nothing_is_said(pi: Pi) -> None:
    (pi.boot / "cmdline.txt").write_text("console=tty1\n")
    pi.install("pulse")
    pi.chose("gunfire-node.conf")
    assert "console=serial0" not in pi.install("none")


def test_the_install_has_help_with_an_example() -> None:
    done = install("--help")
    assert done.returncode == 0
    assert "Example: sudo provisioning/install" in done.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--reciever", "pulse"], "no such option: --reciever"),
        (["--receiver"], "--receiver needs a value"),
        (["--receiver", "gps"], "must be pulse, no-pulse or none"),
        (["--purge"], "--purge goes with --uninstall"),
        (["--wheels", "/no/such/folder"], "there is no such folder"),
    ],
)
def test_what_the_install_does_not_understand_it_says_and_ends_with_2(
    options: list[str], said: str
) -> None:
    done = install(*options)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""
