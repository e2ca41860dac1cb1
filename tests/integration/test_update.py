"""An update on a real node: systemd, daemon, chain and outbox, a broker, and an owner's server.

The container is laid out as the image is: the program's prefix a link, releases beside it. The
releases are the installed node itself under higher versions: one as it is, one that is deaf, one
that does not stay up.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

import node
from node.network import Subscription
from provisioning.update.release import architecture_here, debian_here
from provisioning.update.repository import Repository
from tests.hil import container, virtual_card
from tests.hil.container import CHECKOUT, NODE
from tests.hil.fleet_ca import FleetCa
from tests.hil.release_server import DEAF, SUPERVISED, ReleaseServer, pack, renumbered
from tests.hil.shots import street
from tests.hil.unit_stage import Installed, Stage, exposure, installed, stage

MISSING = container.missing() or virtual_card.missing_tools()
FACTORY: Final = f"/usr/lib/gunfire-node/releases/{node.__version__}"
UPDATE: Final = "gunfire-node-update.service"
RESUME: Final = "gunfire-node-update-resume.service"
WITHIN_S: Final = 30.0
HOLD_S: Final = 3.0
MOST_EXPOSURE: Final = 1.8
"""Root, for links and folders that are root's, and /proc, to see whether the daemon lives."""
CRASHES: Final = {"crash.pth": SUPERVISED + "os._exit(3)\n"}
# What no node needs; half of the bytes.
LEFT_OUT: Final = {"scipy", "scipy.libs", "pip", "setuptools", "tests"}
LAY_OUT: Final = f"""
set -e
mkdir -p /usr/lib/gunfire-node/releases /data/releases /data/setup
chmod 700 /data/setup
cp -a /opt/gunfire-node {FACTORY}
rm -r /opt/gunfire-node
ln -s /data/releases/current /opt/gunfire-node
ln -s {FACTORY} /data/releases/current
cp /src/systemd/image/etc/systemd/system/gunfire-node-update* /etc/systemd/system/
cp /src/systemd/image/usr/lib/gunfire-node/update-guard /usr/lib/gunfire-node/
systemctl daemon-reload
systemctl enable --quiet gunfire-node-update-guard.service {RESUME}
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MISSING is not None, reason=f"needs {MISSING}"),
]


@dataclass(frozen=True)
class Flashed:
    """A container laid out as the image is, and the folder of its program."""

    layers: Installed
    tree: Path

    def pack(self, folder: Path, version: str, more: dict[str, str] | None = None) -> Path:
        """Pack its program under another version, with other files besides."""
        name = f"gunfire-node-{version}-{debian_here()}-{architecture_here()}.tar.zst"
        return pack(folder / name, renumbered(self._members(), version, more))

    def _members(self) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
        for path in sorted(self.tree.rglob("*")):
            inside = path.relative_to(self.tree)
            if LEFT_OUT & set(inside.parts):
                continue
            info = tarfile.TarInfo(str(inside))
            info.mode, info.mtime = path.lstat().st_mode, path.lstat().st_mtime
            content = b""
            if path.is_symlink():
                info.type, info.linkname = tarfile.SYMTYPE, str(path.readlink())
            elif path.is_dir():
                info.type = tarfile.DIRTYPE
            else:
                content = path.read_bytes()
            yield info, content


@pytest.fixture(scope="module")
def flashed() -> Iterator[Flashed]:
    with installed() as product:
        machine = product.machine("flashed")
        source = product.source
        subprocess.run(["cp", "-a", "--parents", "systemd/image", source], cwd=CHECKOUT, check=True)
        try:
            with machine:
                machine.systemctl("stop", NODE)
                machine.run("sh", "-c", LAY_OUT)
            layers = Installed((machine.upper, *product.layers), source)
            yield Flashed(layers, machine.upper / FACTORY.lstrip("/"))
        finally:
            machine.discard()


@dataclass
class Node:
    """A node that hears, its owner's server, and the log that a city keeps of it."""

    stage: Stage
    fleet: Path
    flashed: Flashed
    log: list[bytes] = field(default_factory=list)

    @property
    def status(self) -> dict[str, Any]:
        file = self.stage.machine.path("/run/gunfire-node/status.json")
        try:
            return json.loads(file.read_text())
        except (OSError, ValueError):
            return {}

    @property
    def current(self) -> str:
        return self.link("current")

    def link(self, name: str) -> str:
        return self.stage.machine.path(f"/data/releases/{name}").readlink().name

    @property
    def told(self) -> dict[str, str]:
        file = self.stage.machine.path("/run/gunfire-node-setup/update.json")
        return json.loads(file.read_text()) if file.exists() else {}

    @property
    def key(self) -> bytes:
        return self.stage.machine.path("/var/lib/gunfire-node/node.key").read_bytes()

    def publish(self, version: str, more: dict[str, str] | None = None) -> None:
        archive = self.flashed.pack(self.fleet.parent / "built", version, more)
        Repository(self.fleet, lambda role: "").add(archive)
        archive.unlink()

    def until(self, is_so: Callable[[], bool], deadline_s: float, what: str) -> float:
        began_s = time.monotonic()
        while not is_so():
            if time.monotonic() - began_s > deadline_s:
                logs = "".join(
                    self.stage.machine.journal(unit)[-3000:] for unit in (UPDATE, RESUME, NODE)
                )
                raise AssertionError(f"{what}: not within {deadline_s:g} s\n{self.told}\n{logs}")
            time.sleep(0.1)
        return time.monotonic() - began_s

    def hears(self, version: str) -> bool:
        status = self.status
        return bool(
            status.get("firmware") == version
            and status.get("hears")
            and status["clock"]["source"] == "pps"
            and status["broker"]["connected"]
        )

    def update(self, deadline_s: float = 90.0) -> None:
        """Run the update's service to its end."""
        self.stage.machine.systemctl("start", UPDATE)
        self.stage.machine.until(UPDATE, "inactive", deadline_s)

    def verify(self, folder: Path) -> str:
        """Have the city verify all that it has heard of the node."""
        public = load_pem_private_key(self.key, None).public_key()
        (folder / "node.pem").write_bytes(
            public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
        (folder / "log.jsonl").write_bytes(b"\n".join(self.log) + b"\n")
        done = subprocess.run(
            [
                *(Path(sys.executable).with_name("gunfire-node"), "verify", folder / "log.jsonl"),
                *("--key", folder / "node.pem", "--json"),
            ],
            capture_output=True,
            text=True,
            cwd=CHECKOUT,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@contextmanager
def kept(words: Subscription, log: list[bytes]) -> Iterator[None]:
    """Write down all that comes."""

    def keep() -> None:
        log.extend(word.payload for word in words)

    reader = threading.Thread(target=keep)
    reader.start()
    try:
        yield
    finally:
        words.close()
        reader.join()


@pytest.fixture
def begin(
    flashed: Flashed, wavclock_plugin: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Node]:
    """Boot a flashed node, and wait until it hears, times and delivers."""
    ca = FleetCa(tmp_path / "ca")
    fleet = tmp_path / "fleet"
    repository = Repository(fleet, lambda role: "")
    repository.make()
    name = request.node.name[:16]
    with (
        stage(
            name, flashed.layers, wavclock_plugin, street(60.0), loop=True, receiver=True
        ) as begun,
        ReleaseServer(fleet, ca) as server,
    ):
        machine = begun.machine
        for unit in (UPDATE, RESUME):
            machine.drop_in(
                unit,
                "bounds",
                f"[Service]\nEnvironment=GUNFIRE_UPDATE_WITHIN_S={WITHIN_S} "
                f"GUNFIRE_UPDATE_HOLD_S={HOLD_S}\n",
            )
        machine.write("/etc/gunfire-node/ca.crt", ca.certificate_file.read_text())
        source = {"url": f"{server.url}/releases", "root": repository.root.decode()}
        machine.write("/data/setup/first-boot.json", json.dumps({"update": source}), 0o600)
        node_ = Node(begun, fleet, flashed)
        words = begun.subscribed(kinds=("detection", "node", "checkpoint"))
        with words as subscription, kept(subscription, node_.log):
            node_.until(lambda: node_.hears(node.__version__), 60, "hears")
            yield node_


@pytest.mark.timeout(400)
def test_a_good_release_stays_a_crashing_one_goes_and_the_chain_holds(
    begin: Node, tmp_path: Path
) -> None:
    key = begin.key
    for unit in sorted((CHECKOUT / "systemd/image/etc/systemd/system").glob("*-update*.service")):
        assert exposure(unit) <= MOST_EXPOSURE, unit.name
        verified = begin.stage.machine.run("systemd-analyze", "verify", "--man=no", unit.name)
        assert unit.name not in verified.stderr, verified.stderr
    begin.publish("0.2.0")
    begin.update()
    assert (begin.current, begin.link("good")) == ("0.2.0", "0.2.0"), begin.told
    assert begin.told["figure"] == f"0.2.0, in place of {node.__version__}"
    assert begin.hears("0.2.0")
    machine = begin.stage.machine
    machine.stop()  # it has yet to show that it boots
    machine.start()
    assert begin.link("good") == node.__version__
    begin.until(lambda: begin.link("good") == "0.2.0", 60, "has booted")
    machine.until(RESUME, "inactive", 60)
    begin.publish("0.3.0", CRASHES)
    begin.update()
    assert begin.current == "0.2.0"
    assert "0.3.0 was taken back (the daemon ended 3 times)" in begin.told["figure"]
    assert "does no better" not in begin.told["figure"]
    assert begin.hears("0.2.0")
    began = len(begin.log)
    begin.until(lambda: len(begin.log) > began + 2, 30, "publishes")
    machine.systemctl("stop", NODE)  # its last checkpoint
    begin.until(lambda: begin.log[-1].count(b"checkpoint") > 0, 20, "vouches")
    assert begin.key == key
    report = json.loads(begin.verify(tmp_path))
    assert report["holds"]
    assert report["nodes"][0]["gaps"] == []
    assert report["nodes"][0]["first_seq"] == 1
    firmware = {json.loads(line).get("firmware") for line in begin.log}
    assert {node.__version__, "0.2.0"} <= firmware


@pytest.mark.timeout(400)
def test_a_deaf_release_goes_though_the_power_is_cut_within_its_trial_once_or_twice(
    begin: Node,
) -> None:
    machine = begin.stage.machine
    begin.publish("0.4.0", DEAF)
    machine.systemctl("start", UPDATE)
    begin.until(lambda: begin.current == "0.4.0", 60, "is tried")
    begin.until(lambda: begin.status.get("firmware") == "0.4.0", 30, "starts")
    machine.stop()
    machine.start()
    assert begin.current == "0.4.0"
    assert machine.path("/data/releases/.trial-boots").read_text() == "1\n"
    machine.until_rebooted(WITHIN_S + 60)  # taken back, and a boot that the old one sets up
    assert begin.current == node.__version__
    begin.until(lambda: begin.hears(node.__version__), 30, "hears again")
    machine.until(RESUME, "inactive", 60)
    assert "0.4.0 was taken back (it does not hear" in begin.told["figure"]
    begin.publish("0.5.0", DEAF)
    machine.systemctl("start", UPDATE)
    begin.until(lambda: begin.current == "0.5.0", 60, "is tried")
    for _ in range(2):
        machine.stop()
        machine.start()
    assert begin.current == node.__version__
    begin.until(lambda: begin.hears(node.__version__), 30, "hears again")
    machine.until(RESUME, "inactive", 60)
    assert "started anew twice" in begin.told["figure"]
