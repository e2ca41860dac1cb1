"""The units as they are installed, under a real systemd in a container: what they hold, and heal.

Real are systemd, the sandbox, the daemon, Mosquitto and a subscriber outside; the card is virtual.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from node.simulate.render import RenderedNode
from tests.hil import container, virtual_card
from tests.hil.container import NODE, Container
from tests.hil.shots import assert_on_time, detections, street
from tests.hil.unit_stage import (
    INSTALL,
    UNITS,
    Installed,
    Stage,
    exposure,
    hang,
    installed,
    leak,
    recover_from,
    stage,
    stall_disk,
)

MISSING = container.missing() or virtual_card.missing_tools()
RECOVER = "gunfire-node-recover.service"
MOST_EXPOSURE = 1.5
MOST_RECOVERY_S = 30.0
MOST_BYTES = 320 * 2**20
LATE_S = 10.0
"""What a machine with much else to do may add to what a node needs."""

pytestmark = pytest.mark.slow
boots = pytest.mark.skipif(MISSING is not None, reason=f"needs {MISSING}")
Boot = Callable[..., AbstractContextManager[Stage]]


@pytest.fixture(scope="module")
def product() -> Iterator[Installed]:
    with installed() as product:
        yield product


@pytest.fixture
def boot(product: Installed, wavclock_plugin: Path, request: pytest.FixtureRequest) -> Boot:
    """Boot a container whose node hears a shot every three seconds."""

    @contextmanager
    def begin(**options: object) -> Iterator[Stage]:
        sound: RenderedNode = street(120.0)
        with stage(request.node.name, product, wavclock_plugin, sound, **options) as begun:  # type: ignore[arg-type]
            yield begun

    return begin


@pytest.fixture
def machine(product: Installed, request: pytest.FixtureRequest) -> Iterator[Container]:
    """Give a container with the node installed, not booted yet."""
    machine = product.machine(request.node.name)
    with container.own_network():
        yield machine
    machine.discard()


def locks_its_heap(process: Path) -> bool:
    """Say whether a process's memory is locked, and not that of its card alone."""
    heap = process.joinpath("smaps").read_text().split("[heap]\n", 1)[1]
    flags = re.search(r"^VmFlags:(.*)$", heap, re.M)
    assert flags
    return "lo" in flags[1].split()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_the_node_is_exposed_by_no_more_than_it_needs() -> None:
    for unit in UNITS:
        assert exposure(unit) <= MOST_EXPOSURE, unit.name


@boots
def test_systemd_takes_every_unit_and_fragment(machine: Container) -> None:
    with machine:
        for unit in UNITS:
            done = machine.run("systemd-analyze", "verify", "--man=no", unit.name)
            assert done.stderr == ""
        level = machine.run("systemd-analyze", "security", "--no-pager", NODE, check=False).stdout
        assert float(level.split("exposure level for")[1].split()[1]) <= MOST_EXPOSURE
        assert machine.run("journalctl", "--header").stdout.count("/run/log/journal/")
        said = machine.run("journalctl", "--boot", "--output=cat").stdout
    said = said.replace(
        'Duplicate line for path "/run/lock", ignoring', ""
    )  # Debian 13's own files
    for wrong in ("Unknown key", "Unknown lvalue", "Failed to parse", "ignoring"):
        assert wrong not in said


@boots
@pytest.mark.timeout(60)
def test_a_container_ends_with_whoever_made_it_even_killed() -> None:
    boot = (
        "import time; from tests.hil.container import *\n"
        "with own_network(), Container('killed') as machine:\n"
        "    print(machine.path('/').parts[2], flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", boot], cwd=container.CHECKOUT, stdout=subprocess.PIPE, text=True
    ) as test:
        assert test.stdout
        systemd = Path("/proc", test.stdout.readline().strip())
        assert (systemd / "comm").read_text() == "systemd\n"
        test.kill()
    give_up_s = time.monotonic() + LATE_S
    while systemd.exists() and time.monotonic() < give_up_s:
        time.sleep(0.05)
    assert not systemd.exists()
    shutil.rmtree(container.PLACES / f"killed-{test.pid}")


@boots
@pytest.mark.timeout(180)
def test_in_its_whole_sandbox_the_node_hears_times_and_publishes(boot: Boot) -> None:
    with boot(receiver=True) as stage, stage.subscribed() as words:
        heard = detections(words, 30, wanted=3)
        assert len(heard) == 3, stage.machine.journal()[-4000:]
        while heard[-1].clock.source != "pps" and len(heard) < 12:
            heard += detections(words, 30, wanted=1)
        assert heard[-1].clock.source == "pps", stage.machine.journal()[-4000:]
        assert_on_time(heard, stage.onset_errors_ns(heard))
        assert stage.machine.show(NODE, "ActiveState") == "active"
        assert "hears" in stage.machine.show(NODE, "StatusText")
        process = Path(f"/proc/{stage.machine.pid()}")
        status = process.joinpath("status").read_text()
        user = stage.machine.run("id", "-u", "gunfire-node").stdout.strip()
        assert re.search(rf"^Uid:\s+{user}\s", status, re.M)
        assert re.search(r"^CapEff:\s+0+$", status, re.M)
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.M)
        assert re.search(r"^Seccomp:\s+2$", status, re.M)
        assert stage.machine.show(NODE, "LimitMEMLOCK") == "infinity"
        # Where systemd may raise that limit at all; where it may not, the node says so.
        limits = process.joinpath("limits").read_text()
        raised = re.search(r"^Max locked memory\s+unlimited\s", limits, re.M) is not None
        assert locks_its_heap(process) is raised
        refused = "memory is not locked (the limit of locked memory is too low)"
        assert (refused in stage.machine.journal()) is not raised
        plugins = stage.machine.run("ls", "/etc/alsa/conf.d").stdout
        assert "pulseaudio" in plugins  # what a desktop has: 18 MB of libraries, none for the node
        assert "libpulse" not in process.joinpath("maps").read_text()
        kept = stage.machine.run("stat", "-c", "%U %a", "/var/lib/gunfire-node").stdout
        assert kept == "gunfire-node 700\n"
        took_s = time.monotonic()
        stage.machine.systemctl("stop", NODE)
        assert time.monotonic() - took_s < 10 + LATE_S
        assert stage.machine.show(NODE, "Result") == "success"


@boots
@pytest.mark.timeout(180)
def test_a_node_that_hangs_is_told_and_hears_again_within_30_s(boot: Boot) -> None:
    with boot() as stage:
        recovery = recover_from(stage, lambda: hang(stage))
        said = stage.machine.journal()
    assert recovery.told_s is not None
    assert recovery.hearing_s is not None, said[-4000:]
    assert recovery.hearing_s < MOST_RECOVERY_S + LATE_S
    assert "Watchdog timeout" in said
    assert "the last run hung" in said


@boots
@pytest.mark.timeout(180)
def test_a_card_that_stalls_is_told_and_the_node_hears_again(boot: Boot) -> None:
    with boot() as stage:
        recovery = recover_from(stage, stage.card.stall)
        said = stage.machine.journal()
    assert recovery.told_s is not None
    assert "has delivered nothing" in said
    assert recovery.hearing_s is not None, said[-4000:]
    assert recovery.hearing_s < MOST_RECOVERY_S + LATE_S


@boots
@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
@pytest.mark.timeout(180)
def test_a_disk_that_stalls_for_longer_than_the_watchdog_waits_loses_nothing(boot: Boot) -> None:
    with boot() as stage:
        heard = stall_disk(stage, 18.0, catch_up_s=12.0)
        assert len(heard) >= 6, stage.machine.journal()[-4000:]
        assert stage.unheard(heard) == 0
        assert stage.machine.show(NODE, "NRestarts") == "0"


@boots
@pytest.mark.timeout(180)
def test_a_card_that_comes_back_under_another_number_is_heard_again(boot: Boot) -> None:
    def unplug() -> None:
        stage.card.hide()
        stage.card.unplug()

    with boot() as stage:
        with stage.subscribed() as words:
            assert detections(words, 30, wanted=1)
            unplug()
            stage.machine.until(NODE, "activating/start", 20)
            time.sleep(3.0)  # it waits, and goes on waiting
            assert stage.machine.show(NODE, "ActiveState") == "activating"
            restarts = stage.machine.show(NODE, "NRestarts")
            before = len(detections(words, 0.5, wanted=100))
            stage.card.show(before=2)
            took_s = stage.machine.until(NODE, "active", 30)
            assert detections(words, 30, wanted=1), (before, stage.machine.journal()[-4000:])
        assert stage.machine.show(NODE, "NRestarts") == restarts == "1"
    assert took_s < 10 + LATE_S


@boots
@pytest.mark.timeout(180)
@pytest.mark.parametrize("bound", ["MemoryMax", "LimitDATA"])
def test_a_leak_ends_at_the_bound_and_the_node_hears_again(boot: Boot, bound: str) -> None:
    # Raspberry Pi OS has the controller off: there MemoryMax= is as if it were not.
    other = {"MemoryMax": "LimitDATA", "LimitDATA": "MemoryMax"}[bound]
    with boot(drop_ins={"off": f"[Service]\n{other}=infinity\n"}) as stage:
        if bound == "MemoryMax" and not stage.machine.bounds_memory():
            pytest.skip("no controller of memory here that a container may have")
        recovery, most_bytes = leak(stage)
        said = stage.machine.journal()
    assert recovery.hearing_s is not None, said[-4000:]
    assert most_bytes <= MOST_BYTES
    # By the kernel, or by an allocation that failed.
    assert ("status=9/KILL" in said) is (bound == "MemoryMax")


@boots
@pytest.mark.timeout(120)
def test_a_node_that_does_not_stay_up_leads_to_one_reboot_and_only_of_a_machine_long_up(
    machine: Container,
) -> None:
    ladder = "/opt/gunfire-node/libexec/gunfire-node-recover"

    def least_uptime(seconds: int) -> None:
        command = f"ExecStart={ladder} {seconds} 2 systemctl reboot"
        machine.drop_in(RECOVER, "soon", f"[Service]\nExecStart=\n{command}\n")

    machine.drop_in(NODE, "ends", "[Service]\nExecStart=\nExecStart=/bin/false\n")
    least_uptime(1_000_000_000)
    with machine:
        machine.until(RECOVER, "activating", 60)
        machine.until(RECOVER, "inactive", 30)
        assert "is started again in 2 s" in machine.journal(RECOVER)
        machine.until(NODE, "activating", 10)
        machine.drop_in(NODE, "sooner", "[Unit]\nStartLimitBurst=3\n")
        least_uptime(0)
        machine.until_rebooted()
        # An end by itself calls nobody.
        machine.until(NODE, "activating/auto-restart", 30)
        assert machine.show(RECOVER, "ActiveState") == "inactive"


@boots
@pytest.mark.timeout(120)
def test_sound_is_reached_by_group_and_other_devices_are_not(machine: Container) -> None:
    # Users of the unit's namespace are not the machine's, its group audio among them; what counts
    # is who may open.
    tries = " ".join(
        f"ExecStart=-/bin/sh -c ': <>/dev/snd/{name} && echo {name} opens'\n"
        for name in ("ours", "theirs")
    )
    machine.drop_in(
        NODE,
        "tries",
        f"[Service]\nType=oneshot\nRestart=no\nExecStart=\n{tries}DeviceAllow=/dev/zero rw\n",
    )
    with machine:
        machine.systemctl("stop", NODE)
        machine.run(
            "sh",
            "-c",
            "mkdir -p /dev/snd && cd /dev/snd && mknod ours c 1 5 && mknod theirs c 1 5"
            " && chgrp audio ours && chgrp video theirs && chmod 660 ours theirs",
        )
        machine.systemctl("start", NODE)
        said = machine.journal()
    assert "ours opens" in said
    assert "theirs opens" not in said


@boots
@pytest.mark.timeout(120)
def test_the_broker_s_key_comes_as_a_credential_and_may_be_absent(machine: Container) -> None:
    show = "cat $CREDENTIALS_DIRECTORY/gunfire-node.mqtt.key || echo none"
    machine.drop_in(
        NODE,
        "shows",
        f"[Service]\nType=oneshot\nRestart=no\nExecStart=\nExecStart=/bin/sh -c '{show}'\n",
    )
    with machine:
        machine.systemctl("restart", NODE)
        machine.write("/etc/credstore/gunfire-node.mqtt.key", "the key\n", 0o600)
        assert "none" in machine.journal()
        machine.systemctl("restart", NODE)
        assert "the key" in machine.journal()
    machine.path("/etc/credstore/gunfire-node.mqtt.key").unlink()


@boots
@pytest.mark.timeout(180)
def test_a_receiver_is_set_up_and_the_pi_s_firmware_too_and_all_of_it_is_given_back(
    machine: Container,
) -> None:
    boot = {
        "config.txt": "dtparam=audio=on\n",
        "cmdline.txt": "console=serial0,115200 console=tty1 root=/dev/mmcblk0p2 rootwait\n",
    }
    for name, text in boot.items():
        machine.write(f"/boot/firmware/{name}", text)
    with machine:
        gpsd_before = machine.path("/etc/default/gpsd").read_text()

        def install(*options: str) -> str:
            return machine.run(*INSTALL, *options).stdout

        def firmware(name: str) -> str:
            return machine.path(f"/boot/firmware/{name}").read_text()

        assert "+dtoverlay=pps-gpio,gpiopin=4" in install("--receiver", "pulse")
        assert {name: firmware(name) for name in boot} == boot
        install("--boot")
        assert firmware("cmdline.txt") == (
            "console=tty1 root=/dev/mmcblk0p2 rootwait cgroup_enable=memory\n"
        )
        assert firmware("config.txt").startswith(boot["config.txt"])
        assert firmware("config.txt").count("dtoverlay=pps-gpio") == 1
        assert firmware("config.txt.before-gunfire-node") == boot["config.txt"]
        assert "nothing was changed" in install("--boot")
        assert "/dev/ttyAMA0 /dev/pps0" in machine.path("/etc/default/gpsd").read_text()

        install("--receiver", "no-pulse")
        assert 'DEVICES="/dev/ttyACM0"' in machine.path("/etc/default/gpsd").read_text()
        fragments = sorted(file.name for file in machine.path("/etc/chrony/conf.d").glob("*.conf"))
        assert fragments == ["gunfire-node-no-pulse.conf"]

        machine.run("/src/provisioning/install", "--uninstall")
        assert machine.path("/etc/default/gpsd").read_text() == gpsd_before
        assert not list(machine.path("/etc/chrony/conf.d").glob("*.conf"))


@boots
@pytest.mark.timeout(180)
def test_installed_again_nothing_changes_and_taken_away_nothing_but_what_was_asked_stays(
    machine: Container,
) -> None:
    with machine:
        machine.write("/etc/gunfire-node/gunfire-node.toml", '[node]\nsite = "mine"\n')
        again = [option for option in INSTALL if option != "--no-start"]
        assert "up to date; nothing was changed" in machine.run(*again).stdout
        assert machine.show(NODE, "ActiveState") == "activating"  # waits for a card, as before
        # What touches keys and outbox runs as the user whose they are.
        machine.write("/var/lib/gunfire-node/node.toml", '[node]\nsite = "own"\n', 0o600)
        machine.run("chown", "gunfire-node:", "/var/lib/gunfire-node/node.toml")
        read = ("/usr/local/bin/gunfire-node", "config", "check", "--config")
        own = (*read, "/var/lib/gunfire-node/node.toml")
        assert "valid" in machine.run(*own).stdout
        machine.run("chown", "root:", "/var/lib/gunfire-node/node.toml")
        assert machine.run(*own, check=False).returncode == 2
        machine.run("/src/provisioning/install", "--uninstall")
        settings = machine.path("/etc/gunfire-node/gunfire-node.toml")
        assert settings.read_text() == '[node]\nsite = "mine"\n'
        assert machine.path("/var/lib/gunfire-node").exists()
        for gone in (
            "/opt/gunfire-node",
            "/usr/local/bin/gunfire-node",
            "/etc/systemd/system/gunfire-node.service",
        ):
            assert not machine.path(gone).exists()
        assert machine.run("systemctl", "cat", NODE, check=False).returncode != 0
        # "exec": it is that user's once systemd-run returns; systemd 257 would return sooner.
        as_node = ("--uid=gunfire-node", "--property=Type=exec")
        machine.run("systemd-run", "--unit=other", *as_node, "sleep", "infinity")
        purge = ("/src/provisioning/install", "--uninstall", "--purge")
        held = machine.run(*purge, check=False)
        assert held.returncode == 2
        assert "the user gunfire-node could not be removed" in held.stderr
        machine.systemctl("stop", "other")
        machine.run(*purge)
        left = machine.run("find", "/etc", "/opt", "/var/lib", "-name", "*gunfire*").stdout
        assert left == ""
        assert machine.run("id", "gunfire-node", check=False).returncode != 0


@boots
@pytest.mark.timeout(180)
def test_an_install_whose_environment_was_cut_short_is_mended_by_the_next(
    machine: Container,
) -> None:
    with machine:
        machine.run("rm", "-r", "/opt/gunfire-node")
        machine.run("/usr/bin/python3", "-m", "venv", "--without-pip", "/opt/gunfire-node")
        assert "making a virtual environment" in machine.run(*INSTALL).stdout
        assert "nothing was changed" in machine.run(*INSTALL).stdout
