"""A node's update from pull to verdict, over real files and a real server; the daemon is played.

And what a cut of power leaves at each step: a node that starts, and an update that comes to an end.
"""

import errno
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from tuf.api.metadata import Snapshot, Timestamp

from node.errors import ProvisioningError
from node.vitals import TELL_LAST_RUN_S
from provisioning.places import Places
from provisioning.update import node_side
from provisioning.update.archive import Entry
from provisioning.update.manager import FakeManager
from provisioning.update.memory import Memory, Refusal, Standing
from provisioning.update.node_side import CUT_OFF, MOST_BOOTS, MOST_TRIES, Update, alone, smoke
from provisioning.update.pull import Puller, Source
from provisioning.update.releases import Releases
from provisioning.update.repository import Repository
from provisioning.update.trial import MOST_ENDS
from tests.evidence import ROOT
from tests.hil.fleet_ca import FleetCa
from tests.hil.release_server import ReleaseServer, small_release

GUARD: Final = ROOT / "systemd/image/usr/lib/gunfire-node/update-guard"
WITHIN_S: Final = 600.0
WELL: Final[dict[str, Any]] = {
    "hears": True,
    "clock": "pps",
    "connected": True,
    "condition": "ok",
}
DEAF: Final = {**WELL, "hears": False}
OFFLINE: Final = {**WELL, "connected": False}
CRASHES: Final[dict[str, Any]] = {}


class PowerCutError(BaseException):
    """The machine is off: nothing catches it."""


@dataclass
class Machine:
    """A flashed node: files below a folder, and a daemon that does as its release would.

    Attributes
    ----------
    does
        How the daemon does, by its version.
    """

    places: Places
    source: Source | None = None
    does: dict[str, dict[str, Any]] = field(default_factory=dict)
    within_s: float = WITHIN_S
    manager: FakeManager = field(default_factory=FakeManager)
    now_s: float = 0.0
    starts: int = 0
    crashed_s: float = -math.inf
    moods: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.manager.restart = self.start  # type: ignore[method-assign]

    @property
    def version(self) -> str:
        return Releases(self.places).current.name

    @property
    def told(self) -> dict[str, str]:
        return json.loads((self.places.reports / "update.json").read_text())

    @property
    def warned(self) -> bool:
        """Whether the daemon tells of something: of an update, or of how its last run ended."""
        told = self.places.reports / "update.json"
        crashed_s = self.now_s - self.crashed_s
        return crashed_s < TELL_LAST_RUN_S or (told.exists() and self.told["verdict"] == "warn")

    @property
    def memory(self) -> Memory:
        return Memory.load(self.places.memory)

    def update(self) -> Update:
        return Update(
            self.places,
            self.manager,
            within_s=self.within_s,
            hold_s=self.within_s / 10,
            monotonic_s=lambda: self.now_s,
            sleep=self.sleep,
        )

    def puller(self) -> Puller:
        assert self.source
        return Puller(self.places, self.source, self.places.releases / ".incoming", lambda _: 2**40)

    def run(self) -> None:
        """Run the service as its timer does."""
        update = self.update()
        resumed = update.resume()
        while self.manager.reboots:
            self.manager.reboots = 0
            self.boot()
            self.update().resume()
        if not resumed:
            try:
                update.look(self.puller(), trusted=True)
            except (ProvisioningError, OSError) as error:
                update.fail(error)

    def start(self) -> None:
        self.starts += 1
        self.manager.ended = 0
        self.show()

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        for at_s, mood in list(self.moods):
            if self.now_s >= at_s:
                self.moods.remove((at_s, mood))
                mood()
        self.show()

    def show(self) -> None:
        """Have the daemon write its status."""
        version = self.version
        stands = self.does.get(version, WELL)
        file = self.places.status_file
        if not stands:
            self.manager.ended += 1
            self.crashed_s = self.now_s
            file.unlink(missing_ok=True)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            json.dumps(
                {
                    "written_monotonic_s": time.monotonic(),
                    "pid": os.getpid(),
                    "checks": [],
                    "hears": stands["hears"],
                    "condition": "degraded" if self.warned else stands["condition"],
                    "clock": {"source": stands["clock"]},
                    "broker": {"connected": stands["connected"]},
                    "firmware": version,
                    "boot_id": f"run {self.starts}",
                }
            )
        )

    def boot(self) -> None:
        """Start the machine after a cut: guard, daemon, resume."""
        guard = subprocess.run(
            [GUARD, self.places.root], capture_output=True, text=True, timeout=20
        )
        assert guard.returncode == 0, guard.stderr
        self.start()


@dataclass
class World:
    machine: Machine
    fleet: Path
    built: Path

    def publish(self, version: str, **options: Any) -> None:
        archive = small_release(self.built, version, **options)
        Repository(self.fleet, lambda role: "").add(archive)


def flashed(root: Path) -> Places:
    places = Places(root)
    factory = places.factory / "1.0.0"
    (factory / "bin").mkdir(parents=True)
    for name in ("bin/python", "bin/gunfire-node"):
        (factory / name).write_text("#!/bin/sh\necho 1.0.0\n")
        (factory / name).chmod(0o755)
    (factory / "pyvenv.cfg").touch()
    places.releases.mkdir(parents=True)
    places.memory.mkdir(mode=0o700)
    (places.releases / "current").symlink_to(factory)
    return places


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_side, "debian_here", lambda: "trixie")
    monkeypatch.setattr(node_side, "architecture_here", lambda: "arm64")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, FleetCa, str]]:
    folder = tmp_path_factory.mktemp("owner")
    ca = FleetCa(folder / "ca")
    with ReleaseServer(folder, ca) as server:
        yield folder, ca, server.url


@pytest.fixture
def world(tmp_path: Path, served: tuple[Path, FleetCa, str]) -> World:
    folder, ca, url = served
    fleet = folder / tmp_path.name
    repository = Repository(fleet, lambda role: "")
    repository.make()
    machine = Machine(flashed(tmp_path / "node"))
    machine.places.authority_file.parent.mkdir(parents=True)
    shutil.copy(ca.certificate_file, machine.places.authority_file)
    machine.source = Source(f"{url}/{tmp_path.name}/releases", repository.root)
    machine.start()
    return World(machine, fleet, tmp_path / "built")


def whole(folder: Path) -> bool:
    return (folder / "bin/python").exists() and (folder / "pyvenv.cfg").exists()


def test_a_good_release_is_kept_and_told(world: World) -> None:
    world.publish("1.1.0")
    world.machine.run()
    assert world.machine.version == "1.1.0"
    assert Releases(world.machine.places).good.name == "1.1.0"
    assert world.machine.told["verdict"] == "pass"
    assert "1.1.0, in place of 1.0.0" in world.machine.told["figure"]
    assert world.machine.memory.trial is None
    assert not (world.machine.places.releases / ".trial-boots").exists()
    assert not (world.machine.places.releases / ".incoming").exists()
    assert world.machine.now_s < 120  # a release that is well needs no ten minutes


def test_files_have_the_age_that_python_compiled_them_at(world: World) -> None:
    world.publish("1.1.0")
    world.machine.run()
    file = world.machine.places.releases / "1.1.0" / "pyvenv.cfg"
    assert file.stat().st_mtime == 1_700_000_000
    assert (file.parent / "bin/python").stat().st_mode & 0o777 == 0o755
    assert file.stat().st_mode & 0o777 == 0o644


def test_the_two_latest_stay_and_the_images_own(world: World) -> None:
    for version in ("1.1.0", "1.2.0", "1.3.0"):
        world.publish(version)
        world.machine.run()
    kept = {f.name for f in world.machine.places.releases.iterdir() if f.is_dir()}
    assert kept == {"1.2.0", "1.3.0", "current", "good"}
    assert (world.machine.places.factory / "1.0.0").exists()


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (DEAF, "does not hear"),
        (OFFLINE, "does not reach the broker"),
        ({**WELL, "clock": "free"}, "by free"),
        ({**WELL, "condition": "degraded"}, "is degraded"),
        (CRASHES, f"ended {MOST_ENDS} times"),
    ],
)
def test_a_bad_release_is_taken_back_told_and_not_taken_again(
    world: World, bad: dict[str, Any], word: str
) -> None:
    world.publish("1.1.0")
    world.machine.does["1.1.0"] = bad
    world.machine.run()
    assert world.machine.version == "1.0.0"
    assert world.machine.manager.ended == 0
    standing = Standing.read(world.machine.places.status_file)
    assert standing is not None
    assert standing.hears
    assert world.machine.told["verdict"] == "warn"
    assert word in world.machine.told["figure"]
    assert "does no better" not in world.machine.told["figure"]
    assert not world.machine.memory.refused["1.1.0"].again
    assert not (world.machine.places.releases / "1.1.0").exists()
    starts = world.machine.starts
    world.machine.run()
    assert world.machine.starts == starts
    assert "1.1.0 was taken back" in world.machine.told["figure"]
    world.publish("1.1.1")
    world.machine.run()
    assert world.machine.version == "1.1.1"
    assert world.machine.told["verdict"] == "pass"


def test_a_crashing_release_is_gone_before_systemd_gives_the_node_up(world: World) -> None:
    world.publish("1.1.0")
    world.machine.does["1.1.0"] = CRASHES
    world.machine.moods.append((8.0, lambda: pytest.fail("eight ends")))
    began_s = world.machine.now_s
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Update, "_after_going_back", lambda *_: None)
        world.machine.run()
    assert world.machine.now_s - began_s <= MOST_ENDS


def test_a_broker_that_was_away_before_is_not_the_releases_fault(world: World) -> None:
    world.machine.does = {"1.0.0": OFFLINE, "1.1.0": OFFLINE}
    world.machine.start()
    world.publish("1.1.0")
    world.machine.run()
    assert world.machine.version == "1.1.0"
    assert world.machine.now_s >= WITHIN_S


def test_what_fails_the_old_release_too_is_tried_again_but_not_for_ever(world: World) -> None:
    """The broker goes away in the midst of the trial."""
    world.publish("1.1.0")
    for times in range(1, MOST_TRIES + 1):
        world.machine.does = {"1.0.0": WELL, "1.1.0": OFFLINE}
        world.machine.start()
        world.machine.moods = [
            (world.machine.now_s + 5, lambda: world.machine.does.update({"1.0.0": OFFLINE}))
        ]
        world.machine.run()
        assert world.machine.version == "1.0.0"
        refusal = world.machine.memory.refused["1.1.0"]
        assert (refusal.times, refusal.again) == (times, times < MOST_TRIES)
        assert "1.0.0 does no better now" in world.machine.told["figure"]
    starts = world.machine.starts
    world.machine.run()
    assert world.machine.starts == starts


@pytest.mark.parametrize(
    ("script", "word"),
    [
        ("#!/bin/sh\necho 1.2.0\n", "says that it is '1.2.0'"),
        ("#!/bin/sh\necho 'ModuleNotFoundError: no numpy' >&2; exit 1\n", "ends with ModuleNot"),
        ("#!/bin/nobody\n", "interpreter does not start"),
    ],
)
def test_what_does_not_start_at_all_never_takes_the_nodes_place(
    world: World, script: str, word: str
) -> None:
    world.publish("1.1.0", script=script)
    starts = world.machine.starts
    world.machine.run()
    assert (world.machine.version, world.machine.starts) == ("1.0.0", starts)
    assert word in world.machine.told["figure"]
    assert not (world.machine.places.releases / "1.1.0").exists()
    world.machine.run()
    assert "was taken back" in world.machine.told["figure"]


def test_what_is_told_is_short_and_printable_with_what_to_do_beside(world: World) -> None:
    update = world.machine.update()
    update.fail(ProvisioningError("there is \x1b[31mno room\n" + "x" * 9999))
    assert len((world.machine.places.reports / "update.json").read_bytes()) < 4096
    assert "\x1b" not in world.machine.told["figure"]
    update.fail(ProvisioningError("1.1.0 does not start: no numpy: publish a mended one"))
    assert world.machine.told["figure"] == "1.0.0 stays: 1.1.0 does not start: no numpy"
    assert world.machine.told["advice"] == "publish a mended one"


def test_a_release_is_seen_to_start_from_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    python = tmp_path / "bin/python"
    python.write_text(f'#!/bin/sh\nshift\nPYTHONPATH={ROOT} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    settings = tmp_path / "settings.toml"
    settings.write_text('[node]\nid = "roof-1"\nsite = "test"\n')
    import node

    assert smoke(tmp_path, node.__version__, settings) == ""
    settings.write_text("[node]\nidd = 1\n")
    assert "idd" in smoke(tmp_path, node.__version__, settings)


def test_a_server_that_is_away_is_no_alarm_for_two_weeks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.machine.run()
    assert world.machine.told == {"verdict": "pass", "figure": "1.0.0, the newest", "advice": ""}
    shutil.rmtree(world.fleet / "releases")
    world.machine.run()
    assert world.machine.told["verdict"] == "pass"
    assert "answers 404" in world.machine.told["figure"]
    later = time.time_ns() + 15 * 86400 * 10**9
    monkeypatch.setattr(node_side, "utc_now_ns", lambda: later)
    world.machine.run()
    assert world.machine.told["verdict"] == "warn"
    assert "for 15 d" in world.machine.told["figure"]


def test_a_server_that_holds_the_node_up_is_told_before_it_is_asked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.machine.run()
    later = time.time_ns() + 15 * 86400 * 10**9
    monkeypatch.setattr(node_side, "utc_now_ns", lambda: later)

    class KilledError(BaseException):
        pass

    def held_up(puller: Puller) -> None:
        raise KilledError

    monkeypatch.setattr(Puller, "offers", held_up)
    with pytest.raises(KilledError):
        world.machine.run()
    assert world.machine.told["verdict"] == "warn"
    assert "for 15 d" in world.machine.told["figure"]


def test_a_server_that_was_never_reached_is_told_after_two_weeks_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(world.fleet / "releases")
    world.machine.run()
    assert world.machine.told["verdict"] == "pass"
    later = time.time_ns() + 15 * 86400 * 10**9
    monkeypatch.setattr(node_side, "utc_now_ns", lambda: later)
    world.machine.run()
    assert world.machine.told["verdict"] == "warn"


def test_a_clock_that_was_years_ahead_once_hides_no_server_that_is_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns()
    ahead = now + 14 * 365 * 86400 * 10**9
    monkeypatch.setattr(node_side, "utc_now_ns", lambda: ahead)
    world.machine.run()
    shutil.rmtree(world.fleet / "releases")
    for days, verdict in ((0, "pass"), (15, "warn")):
        monkeypatch.setattr(node_side, "utc_now_ns", lambda s=days: now + s * 86400 * 10**9)
        world.machine.run()
        assert world.machine.told["verdict"] == verdict


def test_signatures_that_have_ended_are_told(world: World) -> None:
    for role, kind in (("snapshot", Snapshot), ("timestamp", Timestamp)):
        repository = Repository(world.fleet, lambda role: "")
        held = repository._load(role, kind)
        held.signed.expires -= timedelta(days=400)
        repository._sign(role, held, repository._signer(role, None))
    world.machine.run()
    assert world.machine.version == "1.0.0"
    assert world.machine.told["verdict"] == "warn"
    assert "its signatures have ended" in world.machine.told["figure"]
    assert "release refresh" in world.machine.told["advice"]


def test_nothing_is_asked_by_a_clock_that_nobody_vouches_for(world: World) -> None:
    world.publish("1.1.0")
    world.machine.update().look(world.machine.puller(), trusted=False)
    assert world.machine.version == "1.0.0"
    assert "waits for a clock" in world.machine.told["figure"]


def test_no_room_is_told_and_the_one_before_gives_way_first(world: World) -> None:
    for version in ("1.1.0", "1.2.0", "1.3.0"):
        world.publish(version)
        if version != "1.3.0":
            world.machine.run()
    before = world.machine.places.releases / "1.1.0"
    assert before.exists()
    source = world.machine.source
    assert source
    full = Puller(
        world.machine.places,
        source,
        world.machine.places.releases / ".incoming",
        lambda _: 10**9 if not before.exists() else 100,
    )
    world.machine.update().look(full, trusted=True)
    assert world.machine.version == "1.3.0"
    world.publish("1.4.0")
    none = Puller(
        world.machine.places, source, world.machine.places.releases / ".incoming", lambda _: 100
    )
    with pytest.raises(ProvisioningError, match="there is no room"):
        world.machine.update().look(none, trusted=True)
    assert world.machine.version == "1.3.0"


@pytest.mark.parametrize("at", [1, 5, 9])
def test_a_disk_that_is_full_in_the_midst_is_told_and_gets_its_room_back(
    world: World, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    world.publish("1.1.0")
    placed: list[Path] = []
    place = Releases.unpack.__globals__["_place"]

    def full(path: Path, entry: Entry) -> None:
        placed.append(path)
        if len(placed) == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        place(path, entry)

    monkeypatch.setattr("provisioning.update.releases._place", full)
    world.machine.run()
    assert world.machine.version == "1.0.0"
    assert "No space left" in world.machine.told["figure"]
    assert "look for room on /data" in world.machine.told["advice"]
    assert not (world.machine.places.releases / ".incoming").exists()
    monkeypatch.undo()
    monkeypatch.setattr(node_side, "debian_here", lambda: "trixie")
    monkeypatch.setattr(node_side, "architecture_here", lambda: "arm64")
    world.machine.run()
    assert world.machine.version == "1.1.0"


def test_by_hand_the_one_before_comes_back_and_stays(world: World) -> None:
    for version in ("1.1.0", "1.2.0"):
        world.publish(version)
        world.machine.run()
    world.machine.update().back()
    assert world.machine.version == "1.1.0"
    assert world.machine.memory.refused["1.2.0"] == Refusal(why="by hand")
    world.machine.run()
    assert world.machine.version == "1.1.0"
    world.machine.update().back()
    assert world.machine.version == "1.0.0"
    with pytest.raises(ProvisioningError, match="no release below"):
        world.machine.update().back()


def test_two_are_never_at_it(tmp_path: Path) -> None:
    places = Places(tmp_path)
    with alone(places) as mine, alone(places) as other:
        assert (mine, other) == (True, False)


# Cuts of power.

_hook: Callable[[str], None] | None = None
_WRITES: Final = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.truncate"}
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def _audit(event: str, args: tuple[Any, ...]) -> None:
    if _hook is None:
        return
    if event in _WRITES or (event == "open" and args[2] & _WRITING):
        _hook(str(args[0]))


sys.addaudithook(_audit)


@dataclass
class Plug:
    """Pulls the plug before the nth change of a file below a folder; from then on none happens."""

    below: Path
    at: int
    changes: int = 0

    def __call__(self, path: str) -> None:
        if not path.startswith(str(self.below)) or "/run/" in path:
            return
        self.changes += 1
        if self.changes >= self.at:
            raise PowerCutError(path)


def cut(machine: Machine, at: int, work: Callable[[], None]) -> bool:
    """Do some work with a plug that is pulled; say whether it was."""
    global _hook
    plug = Plug(machine.places.root, at)
    _hook = plug
    try:
        work()
    except PowerCutError:
        pass
    finally:
        _hook = None
    return plug.changes >= at


def copy_of(machine: Machine, folder: Path) -> Machine:
    """Give another node that is as this one."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(machine.places.root, folder, symlinks=True)
    places = Places(folder)
    for link in ("current", "good"):
        at = places.releases / link
        if at.is_symlink() and at.readlink().is_absolute():
            to = places.factory / at.readlink().name
            at.unlink()
            at.symlink_to(to)
    other = Machine(places, machine.source, dict(machine.does), within_s=10.0)
    other.start()
    return other


@pytest.mark.parametrize("good", [True, False], ids=["kept", "taken back"])
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_cut_at_any_step_leaves_a_node_that_starts_and_ends_its_update(
    world: World, tmp_path: Path, good: bool
) -> None:
    world.publish("1.1.0")
    world.machine.run()
    world.publish("1.2.0")
    world.machine.does["1.2.0"] = WELL if good else DEAF
    at = 0
    while True:
        at += 1
        machine = copy_of(world.machine, tmp_path / "cut")
        if not cut(machine, at, machine.run):
            break
        machine.boot()
        assert whole(Releases(machine.places).current), at
        assert machine.version in ("1.1.0", "1.2.0"), at
        machine.run()  # the trial goes on, where there is one
        machine.run()  # the timer
        machine.run()
        assert machine.version == ("1.2.0" if good else "1.1.0"), at
        assert whole(Releases(machine.places).current), at
        assert machine.memory.trial is None, at
        assert ("1.2.0" in machine.memory.refused) is not good, at
        assert not (machine.places.releases / ".trial-boots").exists(), at
        assert Releases(machine.places).good == Releases(machine.places).current, at
    print(f"{at - 1} points")
    assert at > 40


def test_a_release_that_is_well_until_the_next_boot_is_taken_back_then(world: World) -> None:
    """First boot and enrolment run at a boot alone."""
    world.publish("1.1.0")
    world.machine.run()
    assert world.machine.version == "1.1.0"
    world.machine.does["1.1.0"] = OFFLINE  # its first boot sets up no network
    world.machine.boot()
    world.machine.run()
    assert world.machine.version == "1.0.0"
    assert world.machine.memory.refused["1.1.0"].again is False
    assert "does not reach the broker" in world.machine.told["figure"]
    world.machine.boot()
    world.machine.run()
    assert world.machine.version == "1.0.0"
    assert world.machine.memory.trial is None


def test_a_release_that_came_through_a_boot_is_not_tried_again(world: World) -> None:
    world.publish("1.1.0")
    world.machine.run()
    world.machine.boot()
    world.machine.run()
    world.machine.does["1.1.0"] = OFFLINE  # the broker's, a month later
    for _ in range(3):
        world.machine.boot()
        world.machine.run()
    assert world.machine.version == "1.1.0"


def test_a_release_that_two_cuts_have_ended_may_come_again(world: World) -> None:
    """A technician who switches a node off and on twice proves nothing about its release."""
    world.publish("1.1.0")
    world.machine.run()
    for _ in range(2):
        world.machine.boot()
    assert world.machine.version == "1.0.0"
    world.machine.run()
    assert world.machine.memory.refused["1.1.0"] == Refusal(why=CUT_OFF, again=True)
    world.machine.run()
    assert world.machine.version == "1.1.0"


def test_the_next_release_may_come_before_any_boot(world: World) -> None:
    for version in ("1.1.0", "1.2.0"):
        world.publish(version)
        world.machine.run()
    assert world.machine.version == "1.2.0"
    world.machine.does["1.2.0"] = OFFLINE
    world.machine.boot()
    world.machine.run()
    assert world.machine.version == "1.1.0"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_cut_at_any_step_of_what_follows_a_cut_does_no_harm_either(
    world: World, tmp_path: Path
) -> None:
    world.publish("1.1.0")
    world.machine.does["1.1.0"] = DEAF
    switched = copy_of(world.machine, tmp_path / "switched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Update, "_finish", lambda *_: None)
        switched.run()
    assert switched.version == "1.1.0"
    at = 0
    while True:
        at += 1
        machine = copy_of(switched, tmp_path / "cut")
        machine.boot()
        if not cut(machine, at, machine.run):
            break
        machine.boot()
        assert machine.version == "1.0.0", at  # by the guard, or before the cut
        machine.run()
        assert machine.memory.trial is None, at
        assert "1.1.0" in machine.memory.refused, at
        assert machine.told["verdict"] == "warn", at
        machine.run()
        assert machine.version == "1.0.0", at
    print(f"{at - 1} points")
    assert at > 8


def test_the_second_boot_within_a_trial_ends_it_without_any_python(world: World) -> None:
    world.publish("1.1.0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Update, "_finish", lambda *_: None)
        world.machine.run()
    for boot in range(1, MOST_BOOTS + 1):
        assert world.machine.version == "1.1.0"
        world.machine.boot()
        assert Releases(world.machine.places).boots == boot
    assert world.machine.version == "1.0.0"
    world.machine.run()
    assert "started anew twice" in world.machine.told["figure"]
    assert world.machine.memory.trial is None


@pytest.mark.parametrize("spoil", ["empty", "python", "dangling", "gone", "loop"])
@pytest.mark.parametrize("with_good", [True, False])
def test_the_guard_finds_a_release_that_starts(tmp_path: Path, spoil: str, with_good: bool) -> None:
    places = flashed(tmp_path)
    shutil.copytree(places.factory / "1.0.0", places.releases / "1.1.0")
    shutil.copytree(places.factory / "1.0.0", places.releases / "1.2.0")
    releases = Releases(places)
    releases.lead("current", places.releases / "1.2.0")
    if with_good:
        releases.lead("good", places.releases / "1.1.0")
    current = places.releases / "current"
    if spoil == "empty":
        shutil.rmtree(places.releases / "1.2.0")
        (places.releases / "1.2.0").mkdir()
    elif spoil == "python":
        (places.releases / "1.2.0/bin/python").unlink()
    elif spoil == "dangling":
        shutil.rmtree(places.releases / "1.2.0")
    elif spoil == "gone":
        current.unlink()
    else:
        current.unlink()
        current.symlink_to("current")
    Machine(places).boot()
    assert releases.current.name == ("1.1.0" if with_good else "1.0.0")


def test_the_guard_leaves_a_node_alone_that_is_well(world: World) -> None:
    world.publish("1.1.0")
    world.machine.run()
    world.machine.boot()
    world.machine.run()
    for _ in range(3):
        world.machine.boot()
    assert world.machine.version == "1.1.0"


def test_a_memory_that_is_lost_within_a_trial_keeps_nothing_from_ending_it(world: World) -> None:
    world.publish("1.1.0")
    world.machine.does["1.1.0"] = DEAF
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Update, "_finish", lambda *_: None)
        world.machine.run()
    (world.machine.places.memory / "update.json").write_text("{")
    world.machine.run()
    assert world.machine.version == "1.0.0"
    assert "1.1.0" in world.machine.memory.refused


def test_a_release_is_on_the_disk_before_it_has_its_name(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.publish("1.1.0")
    done: list[str] = []
    rename, sync = Path.rename, Releases.keep.__globals__["_sync_disk"]
    monkeypatch.setattr(
        "provisioning.update.releases._sync_disk",
        lambda folder: (done.append("sync"), sync(folder))[1],
    )
    monkeypatch.setattr(
        Path,
        "rename",
        lambda one, other: (done.append(f"to {Path(other).name}"), rename(one, other))[1],
    )
    world.machine.run()
    assert done.index("sync") < done.index("to 1.1.0")
