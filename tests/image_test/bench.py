"""One set-up for every part: an office, a card written as the pages say, a machine to put it in."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.evidence import ROOT
from tests.hil.guest import BUILD, Card, Guest
from tests.hil.virtual_card import VirtualCard, build_plugin
from tests.hil.virtual_receiver import VirtualReceiver
from tests.image_test.office import CARD, Office
from tests.image_test.sound import Sound, recorded

WORK: Final = ROOT / "build" / "image-test"
NO_BATTERY: Final = "2023-01-01T00:00:00"
"""What the machine's clock says as the power comes on, unless a part says otherwise."""
OF_EMULATION: Final = (
    # Its serial line is no Pi's.
    ("[receiver]\n", '[receiver]\ndevice = "/dev/ttyS0"\n'),
    # Its card waits for the emulator, which at times does something else for seconds.
    ("[capture]\n", "[capture]\nsilence_s = 20.0\n"),
    # It has neither light nor button.
    ("enabled = true\n", "enabled = false\n"),
)
"""What a technician would not write."""
ON_S: Final = 300.0
"""In so long an emulated machine is to be at the broker."""


def image() -> Path:
    """Give the image that was built last; raise where it is not of what is checked out."""
    built = sorted(
        BUILD.glob("gunfire-node-*-arm64.img.zst"), key=lambda file: file.stat().st_mtime
    )
    assert built, "make image"
    manifest = built[-1].with_name(built[-1].name.replace(".img.zst", ".manifest.json"))
    of, wanted = json.loads(manifest.read_text("utf-8"))["commit"], _commit_of_inputs()
    if of != wanted:
        raise RuntimeError(f"{built[-1]} is of commit {of}, not of {wanted}: make image")
    return built[-1]


def _commit_of_inputs() -> str:
    """Give the commit that last changed what an image is made of, as its manifest names it."""
    build = ROOT / "provisioning" / "image" / "build"
    inputs = re.search(r"^INPUTS=\((.*?)\)", build.read_text("utf-8"), re.M | re.S)
    assert inputs is not None, build
    git = ("git", "-c", "safe.directory=*", "log", "-1", "--format=%h", "--", *inputs[1].split())
    done = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@dataclass
class Bench:
    """What nodes are made from and put to."""

    folder: Path
    office: Office
    receiver: VirtualReceiver
    sound: Sound
    plugin: Path
    _guests: int = 0

    def file_for(self, node_id: str) -> Path:
        """Invite a node, and make its first-boot file: the commands of docs/do/flash-a-node.md."""
        invitation = self.folder / f"{node_id}.json"
        self.office.fleet("invite", node_id, "-o", invitation)
        file = self.folder / f"{node_id}.toml"
        run_card(
            *("new", "--invitation", invitation, "--array", "C", "--device", "VirtIO"),
            *("--receiver", "pulse", "-o", file),
        )
        text = file.read_text("utf-8")
        for shipped, here in OF_EMULATION:
            assert text.count(shipped) == 1, shipped
            text = text.replace(shipped, here)
        file.write_text(text, "utf-8")
        return file

    def card(self, node_id: str) -> Card:
        """Write a card for a node, as a laptop does; to a file."""
        card = self.folder / f"{node_id}.img"
        run_card("write", image(), self.file_for(node_id), "--to", card, "--yes")
        return Card(card)

    def refused_by_laptop(self, text: str) -> str:
        """Give what gunfire-card check says of a first-boot file."""
        file = self.folder / "spoilt.toml"
        file.write_text(text, "utf-8")
        done = subprocess.run([*CARD, "check", file], capture_output=True, text=True)
        assert done.returncode == 2, done.stdout + done.stderr
        return done.stderr

    @contextmanager
    def guest(self, card: Card, **options: Any) -> Iterator[tuple[Guest, VirtualCard]]:
        """Put a card into a machine, and switch it on."""
        self._guests += 1
        folder = self.folder / f"guest-{self._guests}"
        heard = self.sound.card(folder / "sound", self.plugin)
        settings: dict[str, Any] = {
            "utc": NO_BATTERY,
            "nmea": self.receiver.device,
            "pulse": True,
            "sound": heard.environment,
        }
        with Guest(card, folder, **settings | options) as guest:
            yield guest, heard


@contextmanager
def bench(name: str) -> Iterator[Bench]:
    """Set all up in a folder made anew."""
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with ExitStack() as open_:
        office = open_.enter_context(Office(folder / "office"))
        receiver = open_.enter_context(VirtualReceiver())
        yield Bench(folder, office, receiver, recorded(), build_plugin(folder))


def run_card(*arguments: str | Path) -> str:
    """Run gunfire-card, and give what it prints."""
    done = subprocess.run([*CARD, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"gunfire-card {arguments}: {done.stderr}")
    return done.stdout


def is_online(status: Mapping[str, Any]) -> bool:
    """Say whether a word is the status of a node that is there."""
    return status.get("state") in ("online", "degraded")


def by_pulse(status: Mapping[str, Any]) -> bool:
    """Say whether a status is of a node whose clock a receiver's pulse disciplines."""
    return is_online(status) and status["clock"]["source"] == "pps"
