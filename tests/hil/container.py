"""A Debian with systemd as PID 1, in which the real units run; made by tests/hil/make_root.

systemd-nspawn boots it in less than a second, on an overlay: what happens in one is gone with it,
and lies on a disk while it lasts. Everything lives in namespaces of their own that end with the
process that made them, so that nothing is left of it, not even of a test that was killed.

Each container gets a branch of the cgroups to itself, of version 1 or 2, whichever the machine has:
bounds of memory, tasks and processor are enforced in it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, Self

from tests.evidence import ROOT as CHECKOUT
from tests.hil.process import end_with_us

ROOT: Final = CHECKOUT / "build" / "root"
PLACES: Final = CHECKOUT / "build" / "containers"
"""On a disk, where /tmp may be none."""
NODE: Final = "gunfire-node.service"

_CGROUP: Final = Path("/sys/fs/cgroup")
_MEMORY: Final = _CGROUP / "memory"
"""Of version 1."""
_FOR_BRANCHES: Final = _CGROUP / "cgroup.subtree_control"
"""Of version 2, where the machine has nothing else."""
FORGET: Final = Path("/proc/sys/vm/drop_caches")
_CAP_IPC_LOCK: Final = 14  # linux/capability.h
_CAPABILITIES: Final = re.findall(
    r"^CapEff:\s+(\w+)$", Path("/proc/self/status").read_text("utf-8"), re.M
)
CAN_BOUND_MEMORY: Final = (
    (_MEMORY.is_dir() or _FOR_BRANCHES.is_file())
    and os.access(FORGET, os.W_OK)
    and bool(int(_CAPABILITIES[0], 16) >> _CAP_IPC_LOCK & 1)
)
"""Whether a container can be a machine of so much memory: by the cgroups' controller, with files
that no other has read, and programs that may lock it."""
_BRANCH: Final = "gunfire-container-"
_BOOT_S: Final = 60.0
_REBOOTS: Final = 133  # with which nspawn ends where somebody else is to boot anew
_CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
_SIOCSIFFLAGS: Final = 0x8914  # linux/sockios.h
_IFF_UP: Final = 0x1  # linux/if.h

_libc = ctypes.CDLL(None, use_errno=True)

_ENVIRONMENT: Final = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "SYSTEMD_COLORS": "0",
    "SYSTEMD_PAGER": "",
}
_UNSHARE: Final = (
    *("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc"),
    "--kill-child=SIGKILL",
)
_ENTER: Final = ("nsenter", "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--root", "--wd")
# nspawn does not want a /run on a disk, and gives the controllers of cgroup v1 to nobody: whoever
# becomes systemd takes them first. Its filter of system calls lets memory be locked with this
# capability only. It alone is in the branches of cgroups: beside who launches it, it could not hand
# them on. $0 is the container's place, $1 its layers, $2 its branches; then options.
_BOOT: Final = r"""
set -e
mount -t tmpfs tmpfs /run
mount -t overlay overlay -o "lowerdir=$1,upperdir=$0/upper,workdir=$0/work" "$0/root"
for branch in $2; do
  echo 0 >"$branch/cgroup.procs"
done
place=$0
shift 2
exec systemd-nspawn --quiet --register=no --keep-unit --link-journal=no --resolv-conf=off \
  --timezone=off --console=pipe --capability=CAP_IPC_LOCK --directory="$place/root" "$@" \
  /bin/sh -c '
    for controller in memory pids devices cpu blkio; do
      mount -o remount,rw,bind /sys/fs/cgroup/$controller 2>/dev/null || true
    done
    exec /lib/systemd/systemd'
"""


def sweep() -> None:
    """Remove what tests that were killed have left of their containers' disks."""
    for place in filter(_is_left, PLACES.glob("*-*")):
        shutil.rmtree(place, ignore_errors=True)


def missing() -> str | None:
    """Say what a container cannot be made without, or None."""
    if os.geteuid() != 0:
        return "root, to boot a container"
    if not shutil.which("systemd-nspawn"):
        return "systemd-nspawn (apt: systemd-container)"
    if not ROOT.with_name("root.made").exists():
        return "a Debian to boot (make build/root.made)"
    return None


@contextmanager
def own_network() -> Iterator[None]:
    """Give this thread, and whatever it starts, a network with nothing but a loopback.

    In it a container, a broker and a subscriber meet on 127.0.0.1, and nobody else does: gpsd and
    chronyd have their usual ports.
    """
    with Path(f"/proc/self/task/{_libc.gettid()}/ns/net").open() as before:
        _checked(_libc.unshare(_CLONE_NEWNET))
        try:
            with socket.socket() as any_socket:
                request = struct.pack("16sH14x", b"lo", _IFF_UP)
                fcntl.ioctl(any_socket, _SIOCSIFFLAGS, request)
            yield
        finally:
            _checked(_libc.setns(before.fileno(), _CLONE_NEWNET))


class Container:
    """A disposable machine; a context manager that boots it.

    Parameters
    ----------
    name
        Of its place under build/containers; made anew each time.
    layers
        What lies under it, the uppermost first: the `upper` of other containers, and `ROOT`.
    binds
        nspawn's `--bind=` options: `/here:/there`.

    Attributes
    ----------
    memory_bytes
        How much memory it has from the next boot on, only where `CAN_BOUND_MEMORY`; all of the
        host's if 0.
    """

    def __init__(
        self, name: str, layers: Sequence[Path] = (ROOT,), binds: Sequence[str] = ()
    ) -> None:
        self.memory_bytes = 0
        # Short: paths of sockets in it have 107 characters at most.
        self.place = PLACES / f"{name.removeprefix('test_')[:16]}-{os.getpid()}"
        self._layers = layers
        self.binds = list(binds)
        self._launcher: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self._branches: list[Path] = []
        shutil.rmtree(self.place, ignore_errors=True)
        for part in ("upper", "work", "root"):
            (self.place / part).mkdir(parents=True)

    @property
    def upper(self) -> Path:
        """All that was written in it; a layer for others once it has ended."""
        return self.place / "upper"

    def path(self, inside: str) -> Path:
        """Give a path of it as it is seen from here; before the boot, for writing only."""
        top = Path(f"/proc/{self._leader}/root") if self._leader else self.upper
        return top / inside.lstrip("/")

    def write(self, inside: str, text: str, mode: int = 0o644) -> None:
        """Write a file, before the boot or after."""
        file = self.path(inside)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def drop_in(self, unit: str, name: str, text: str) -> None:
        """Write a drop-in of a unit; after the boot, systemd reads it."""
        self.write(f"/etc/systemd/system/{unit}.d/{name}.conf", text)
        if self._leader:
            self.run("systemctl", "daemon-reload")

    def start(self) -> None:
        """Boot it, and wait until systemd has started what it is to start."""
        branches = self._branches = _branches(self.place.name)
        if self.memory_bytes:
            (bound,) = (
                bound
                for branch in branches
                for name in ("memory.limit_in_bytes", "memory.max")
                if (bound := branch / name).exists()
            )
            bound.write_text(str(self.memory_bytes))

        layers = ":".join(map(str, self._layers))
        among = " ".join(map(str, branches))
        binds = [f"--bind={bind}" for bind in self.binds]
        with (self.place / "console.log").open("wb") as console:
            self._launcher = subprocess.Popen(
                [*_UNSHARE, "sh", "-c", _BOOT, self.place, layers, among, *binds],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                preexec_fn=partial(end_with_us, signal.SIGKILL),
            )
        self._leader = _until(self._find_leader, _BOOT_S, self._console)
        _until(self._is_up, _BOOT_S, self._console)

    def until_rebooted(self, deadline_s: float = 60.0) -> None:
        """Wait for it to reboot of itself, and boot it again."""
        assert self._launcher
        assert self._launcher.wait(deadline_s) == _REBOOTS, self._console()
        self.stop()
        self.start()

    def stop(self) -> None:
        """End it at once, as a pulled plug would."""
        self._leader = 0
        if self._launcher is not None:
            self._launcher.kill()
            self._launcher.wait()
            self._launcher = None
        _prune(self._branches)
        self._branches = []

    def power_off(self, deadline_s: float = 60.0) -> None:
        """Shut it down in order."""
        assert self._launcher
        with suppress(subprocess.CalledProcessError):
            self.run("systemctl", "--no-block", "poweroff")
        self._launcher.wait(deadline_s)
        self.stop()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def discard(self) -> None:
        """Remove what was written in it."""
        shutil.rmtree(self.place, ignore_errors=True)

    def run(
        self, *command: str, check: bool = True, timeout_s: float = 120.0
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in it as root."""
        done = subprocess.run(
            [*_ENTER, f"--target={self._leader}", *command],
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done

    def systemctl(self, *words: str) -> str:
        """Run systemctl, and give what it says."""
        return self.run("systemctl", *words).stdout.strip()

    def show(self, unit: str, name: str) -> str:
        """Give a property of a unit."""
        return self.systemctl("show", "--value", "--property", name, unit)

    def journal(self, unit: str = NODE) -> str:
        """Give what a unit has logged since the boot."""
        self.run("journalctl", "--sync")
        return self.run("journalctl", "--output=cat", "--unit", unit).stdout

    def until(self, unit: str, state: str, deadline_s: float = 60.0) -> float:
        """Wait for a unit's ActiveState, or `Active/sub`; give the seconds that it took."""
        began_s = time.monotonic()
        names = ("ActiveState", "SubState") if "/" in state else ("ActiveState",)

        def is_so() -> bool:
            return "/".join(self.show(unit, name) for name in names) == state

        _until(is_so, deadline_s, lambda: f"{unit} is not {state}:\n{self.journal(unit)[-4000:]}")
        return time.monotonic() - began_s

    def bounds_memory(self) -> bool:
        """Say whether MemoryMax= has anything to bound with."""
        return self.show(NODE, "MemoryCurrent").isdigit()

    def pid(self, unit: str = NODE) -> int:
        """Give the main process of a unit as this machine numbers it; 0 without one."""
        inside = int(self.show(unit, "MainPID"))
        return self._outside(inside) if inside else 0

    def _outside(self, inside: int) -> int:
        namespace = os.readlink(f"/proc/{self._leader}/ns/pid")
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (
                    os.readlink(process / "ns" / "pid") == namespace
                    and _numbers(process)[-1] == inside
                ):
                    return int(process.name)
        return 0

    def _find_leader(self) -> int:
        """Find its systemd: the first process of a namespace within the launcher's."""
        assert self._launcher
        if self._launcher.poll() is not None:
            raise AssertionError(f"the container does not boot: {self._console()}")
        for shell in _children(self._launcher.pid):
            for child in _children(shell):
                with suppress(OSError):
                    # Once it is systemd it has taken what it is to take.
                    if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                        return child
        return 0

    def _is_up(self) -> bool:
        # Not `is-system-running`: the node starts for as long as it has no card.
        return not self.run("systemctl", "is-active", "basic.target", check=False).returncode

    def _console(self) -> str:
        return (self.place / "console.log").read_text(errors="replace")[-4000:]


def _until(ask: Callable[[], int], deadline_s: float, why: Callable[[], str]) -> int:
    give_up_s = time.monotonic() + deadline_s
    while not (answer := ask()):
        if time.monotonic() > give_up_s:
            raise AssertionError(f"not within {deadline_s:g} s: {why()}")
        time.sleep(0.05)
    return answer


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _numbers(process: Path) -> list[int]:
    """Give a process's numbers, in its outermost namespace first."""
    for line in (process / "status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return [int(number) for number in line.split()[1:]]
    return [0]


def _is_left(named: Path) -> bool:
    """Say whether the process whose number a container's name ends with is gone."""
    owner = named.name.rpartition("-")[2]
    return owner.isdigit() and not Path("/proc", owner).exists()


def _branches(name: str) -> list[Path]:
    """Make a branch of each hierarchy of cgroups, for a container alone."""
    made = []
    for at in _ours():
        _prune(list(filter(_is_left, at.glob(f"{_BRANCH}*"))))
        branch = at / f"{_BRANCH}{name}"
        branch.mkdir(exist_ok=True)
        made.append(branch)
    return made


def _ours() -> list[Path]:
    """Give where our branches grow from."""
    if _FOR_BRANCHES.is_file():
        # From the root: no other cgroup that has processes may have branches with controllers.
        with suppress(OSError):
            _FOR_BRANCHES.write_text("+cpu +memory +pids")
        return [_CGROUP]
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, ours = line.split(":", 2)
        top = _CGROUP / (controllers.removeprefix("name=") or "unified")
        if top.is_dir() and controllers != "cpuset":  # where nobody may be before it is set up
            found.append(top / ours.lstrip("/"))
    return found


def _prune(branches: Sequence[Path]) -> None:
    """Remove branches in which nobody is any more."""
    for branch in branches:
        for folder, _, _ in os.walk(branch, topdown=False):
            for _ in range(100):
                try:
                    os.rmdir(folder)
                    break
                except OSError:
                    time.sleep(0.02)  # the last of its processes is being reaped


def _checked(answer: int) -> None:
    if answer != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
