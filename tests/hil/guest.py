"""The image as a machine: QEMU boots a card's file, and nothing is typed.

Real are the image's kernel, its systemd, its programs, arm64 (emulated). What a Pi has and QEMU's
`virt` board has not is put beside it: a serial line with a receiver's NMEA, a pulse on a GPIO that
the kernel's pps-gpio takes, a sound card that plays a file of ours. The Pi's own firmware, its DTB
and its pins are not in it.

QEMU is that of the image's tools (Debian 13's), in a chroot: Debian 12's has no such sound card.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from tests.evidence import ROOT as CHECKOUT

BUILD: Final = CHECKOUT / "build" / "image"
TOOLS: Final = BUILD / "tools"
BOOT_AT: Final = "1M"
"""Where the FAT partition begins."""
MEMORY_MB: Final = 1024
HOST: Final = "10.0.2.2"
"""This machine, as the guest sees it."""
_ESCAPES: Final = re.compile(rb"\x1b\[[0-9;?]*[a-zA-Z]|\r")
_KERNEL_LINE_MAX: Final = 2000


def missing_tools() -> str | None:
    """Say what is missing to boot the image, or None."""
    if os.geteuid() != 0:
        return "root, to enter the tools' root"
    if not (TOOLS / "usr/bin/qemu-system-aarch64").exists():
        return "the image's tools (make image)"
    return None


def tool(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run a program of the image's tools, the checkout at its own path."""
    return subprocess.run([*_inside(), *command], check=True, **options)


def _inside() -> list[str]:
    """Enter the tools' root in a mount namespace of one's own."""
    binds = " && ".join(
        f'mkdir -p "{TOOLS}{place}" && mount --rbind "{place}" "{TOOLS}{place}"'
        for place in ("/dev", "/proc", str(CHECKOUT))
    )
    return [
        *("unshare", "--mount", "--propagation", "private", "sh", "-c"),
        f'{binds} && exec chroot "{TOOLS}" "$@"',
        "sh",
    ]


@dataclass
class Card:
    """A card's file: its FAT partition can be read and written as a laptop does."""

    file: Path

    def copy(self, to: Path) -> Card:
        """Make another card of the same content, as `dd` would."""
        subprocess.run(["cp", "--sparse=always", self.file, to], check=True)
        return Card(to)

    def read(self, name: str) -> bytes | None:
        """Give a file of the FAT partition; None where there is none."""
        done = subprocess.run(
            ["mtype", "-i", f"{self.file}@@{BOOT_AT}", f"::{name}"], capture_output=True
        )
        return done.stdout if done.returncode == 0 else None

    def write(self, name: str, content: bytes) -> None:
        """Put a file there."""
        subprocess.run(
            ["mcopy", "-o", "-i", f"{self.file}@@{BOOT_AT}", "-", f"::{name}"],
            input=content,
            check=True,
        )

    def partition(self, number: int, to: Path) -> Path:
        """Copy a partition out into a file of its own, its journal played back as a boot does."""
        table = json.loads(
            subprocess.run(["sfdisk", "--json", self.file], capture_output=True, check=True).stdout
        )["partitiontable"]
        part = table["partitions"][number - 1]
        subprocess.run(
            [
                *("dd", f"if={self.file}", f"of={to}", "bs=512", "conv=sparse", "status=none"),
                *(f"skip={part['start']}", f"count={part['size']}"),
            ],
            check=True,
        )
        done = subprocess.run(["e2fsck", "-fy", to], capture_output=True)
        if done.returncode > 1:
            raise RuntimeError(done.stdout.decode())
        return to

    def data(self, folder: Path) -> Path:
        """Give the data partition's content, in a folder."""
        image = self.partition(3, folder / "data.ext4")
        content = folder / "data"
        content.mkdir()
        subprocess.run(
            ["debugfs", "-R", f"rdump / {content}", image], capture_output=True, check=True
        )
        return content


@dataclass
class Guest:
    """A machine with a card in it.

    Attributes
    ----------
    card
        What it boots from; written to.
    folder
        For its files and logs.
    utc
        What its clock says as the power comes on, such as 2023-01-01T00:00:00: a Pi has no battery.
    nmea
        A terminal with a receiver at its other end.
    pulse
        Whether the receiver's pulse is wired.
    sound
        The environment in which ALSA has a card `name` to be heard with.
    mac
        Of its network card, by which one board differs from another.
    units
        Units to add for this boot alone, by name: a look from inside, without a login.
    """

    card: Card
    folder: Path
    utc: str | None = None
    nmea: str | None = None
    pulse: bool = False
    sound: Mapping[str, str] | None = None
    sound_name: str = "microphones"
    mac: str = "52:54:00:12:34:56"
    units: Mapping[str, str] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._stop = threading.Event()
        self._console = bytearray()
        self._threads: list[threading.Thread] = []
        self._process: subprocess.Popen[bytes] | None = None
        self.power_on()
        return self

    def __exit__(self, *exc: object) -> None:
        self.cut_power()

    @property
    def console(self) -> str:
        """What the serial console has said."""
        return _ESCAPES.sub(b"", bytes(self._console)).decode(errors="replace")

    def power_on(self) -> None:
        """Switch it on."""
        self._stop.clear()
        self._console.clear()
        kernel, initrd = self.folder / "vmlinuz", self.folder / "initrd.img"
        for file in (kernel, initrd):
            content = self.card.read(file.name)
            assert content, f"the card has no {file.name}"
            file.write_bytes(content)
        arguments = [
            *("qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a72", "-smp", "2"),
            *("-m", str(MEMORY_MB), "-accel", "tcg,thread=multi", "-display", "none"),
            *("-kernel", str(kernel), "-initrd", str(initrd), "-append", self._kernel_line()),
            *("-drive", f"file={self.card.file},format=raw,if=none,id=card"),
            *("-device", "virtio-blk-pci,drive=card"),
            *("-netdev", "user,id=net"),
            *("-device", f"virtio-net-pci,netdev=net,romfile=,mac={self.mac}"),
            *("-device", "virtio-rng-pci", "-monitor", "none", "-no-reboot"),
            *("-qmp", f"unix:{self._monitor},server=on,wait=off", "-serial", "stdio"),
        ]
        if self.utc is not None:
            arguments += ["-rtc", f"base={self.utc}"]
        if self.nmea is not None:
            arguments += ["-chardev", f"serial,id=gps,path={self.nmea}"]
            arguments += ["-device", "pci-serial,chardev=gps"]
        if self.pulse:
            arguments += ["-dtb", str(self._board_with_pulse())]
        environment = dict(os.environ)
        if self.sound is not None:
            environment |= self.sound
            arguments += [
                "-audiodev",
                f"alsa,id=card0,in.dev={self.sound_name},in.try-poll=off,in.mixing-engine=off,"
                # What is not fetched in time is lost; an emulator on a busy machine is often late.
                "in.buffer-length=1000000,in.period-length=20000,out.dev=null",
                *("-device", "virtio-sound-pci,audiodev=card0,streams=2"),
            ]
        self._monitor.unlink(missing_ok=True)
        log = (self.folder / "qemu.log").open("ab")
        self._process = subprocess.Popen(
            [*_inside(), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
        )
        self.on_s = time.monotonic()
        self._threads = [threading.Thread(target=self._read, name="guest-console")]
        if self.pulse:
            self._threads.append(threading.Thread(target=self._pulses, name="guest-pulse"))
        for thread in self._threads:
            thread.start()

    def cut_power(self) -> None:
        """Take the power away, whatever it is doing."""
        self._stop.set()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        for thread in self._threads:
            thread.join()
        self._threads = []

    def wait_off(self, deadline_s: float) -> None:
        """Wait until it has switched itself off, or wants to boot anew."""
        assert self._process is not None
        self._process.wait(deadline_s)
        self.cut_power()

    def wait_for(self, words: str, deadline_s: float) -> re.Match[str]:
        """Wait until the console says something.

        Raises
        ------
        TimeoutError
            It has not; with the last that it said.
        """
        until_s = time.monotonic() + deadline_s
        while time.monotonic() < until_s:
            if found := re.search(words, self.console):
                return found
            assert self._process is not None
            if self._process.poll() is not None:
                break
            time.sleep(0.2)
        raise TimeoutError(f"the console never said {words!r}:\n{self.console[-3000:]}")

    @property
    def _monitor(self) -> Path:
        return self.folder / "qmp"

    def _kernel_line(self) -> str:
        """Give the card's own kernel command line, with the console where we hear it."""
        line = (self.card.read("cmdline.txt") or b"").decode().split()
        words = [word for word in line if not word.startswith("console=")]
        words.append("console=ttyAMA0")
        for name, unit in self.units.items():
            text = base64.b64encode(unit.encode()).decode()
            words.append(f"systemd.set_credential_binary=systemd.extra-unit.{name}:{text}")
            words.append(f"systemd.wants={name}")
        whole = " ".join(words)
        assert len(whole) < _KERNEL_LINE_MAX, "the kernel takes no line as long as this"
        return whole

    def _read(self) -> None:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        with (self.folder / "console.log").open("ab") as log:
            while said := os.read(process.stdout.fileno(), 65536):
                self._console += said
                log.write(said)
                log.flush()

    def _board_with_pulse(self) -> Path:
        """Wire the line by which QEMU's power button works to the kernel's pps-gpio."""
        board, wired = self.folder / "virt.dtb", self.folder / "pulse.dtb"
        tool(
            *("qemu-system-aarch64", "-M", f"virt,dumpdtb={board}", "-cpu", "cortex-a72"),
            *("-smp", "2", "-m", str(MEMORY_MB), "-nic", "none", "-display", "none"),
            capture_output=True,
        )
        shutil.copy(board, wired)
        # dumpdtb bakes this call's empty command line and random seeds in; QEMU sets them anew.
        pins = subprocess.run(
            ["fdtget", "-t", "x", wired, "/pl061@9030000", "phandle"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for change in (
            ("-r", wired, "/gpio-keys"),
            ("-c", wired, "/pps"),
            ("-t", "s", wired, "/pps", "compatible", "pps-gpio"),
            ("-t", "x", wired, "/pps", "gpios", pins, "3", "0"),
        ):
            subprocess.run(["fdtput", *change], check=True)
        return wired

    def _pulses(self) -> None:
        """Give a pulse as each second of this machine's clock begins."""
        while not self._monitor.exists():
            if self._stop.wait(0.05):
                return
        with socket.socket(socket.AF_UNIX) as monitor, contextlib.suppress(OSError):
            monitor.connect(str(self._monitor))
            answers = monitor.makefile("r")
            monitor.sendall(b'{"execute": "qmp_capabilities"}\n')
            while True:
                # Late by the scheduler's whim alone: the last of it is waited for awake.
                left_s = 1 - time.time() % 1
                if self._stop.wait(max(0.0, left_s - 0.003)):
                    return
                second = int(time.time() + 0.01)
                while time.time() < second:
                    pass
                monitor.sendall(b'{"execute": "system_powerdown"}\n')
                answers.readline()
