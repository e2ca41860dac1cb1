"""A node's update, from the question to the verdict; run by the release that is to be replaced.

Beside the daemon, as root (systemd/image: gunfire-node-update.service): pulls, unpacks, sees that
it starts at all, switches, watches, and keeps it or takes it back. Each step leaves a node that
starts, whenever the power goes: docs/decisions/0029-updates.md.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from node.board.findings import Verdict as Grade
from node.errors import GunfireNodeError, ProvisioningError
from node.settings import load
from node.timing import chrony
from node.timing.host import kernel_quality, utc_now_ns
from node.utc import utc_text
from provisioning import report
from provisioning.places import Places
from provisioning.update.manager import Manager
from provisioning.update.memory import Memory, Refusal, Standing, Trial
from provisioning.update.pull import Offer, Puller, Running, UnreachableError, choose
from provisioning.update.release import READS, architecture_here, debian_here
from provisioning.update.releases import Releases
from provisioning.update.trial import HOLD_S, WITHIN_S, Judge, Verdict, best, floor_after

log = logging.getLogger(__name__)

LOOK_S: Final = 1.0
CLOCK_PATIENCE_S: Final = 600.0
MOST_BOOTS: Final = 2
"""A trial that was cut off so often is over; update-guard, which switches then, has the same."""
MOST_TRIES: Final = 3
"""Of a release that was taken back while the old one did no better either, or by cuts of power."""
CUT_OFF: Final = "the machine was started anew twice while it was tried"
BY_HAND: Final = "by hand"
UNHEARD_OF_S: Final = 14 * 86400.0
"""A server that was not reached for so long is worth a look."""
_SMOKE_S: Final = 300.0
_LONGEST: Final = 300
# Before what to do about it.
_TO_DO: Final = re.compile("[;:,] (?=boot |give |look |publish |run |take |and look )")
_NS_PER_S: Final = 1e9
_SMOKE: Final = """
import pathlib, sys
import node.cli, node.daemon
import provisioning.enrol, provisioning.first_boot, provisioning.update.node_side
from node.settings import load
if sys.argv[1:]:
    load(pathlib.Path(sys.argv[1]))
print(node.__version__)
"""


class Update:
    """One run of the service.

    Parameters
    ----------
    places, manager
        Of this node.
    within_s, hold_s
        See provisioning/update/trial.py.
    monotonic_s, sleep
        The clock of trials.
    """

    def __init__(
        self,
        places: Places,
        manager: Manager,
        *,
        within_s: float = WITHIN_S,
        hold_s: float = HOLD_S,
        monotonic_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._places = places
        self._manager = manager
        self._within_s = within_s
        self._hold_s = hold_s
        self._monotonic_s = monotonic_s
        self._sleep = sleep
        self._releases = Releases(places)

    def resume(self) -> bool:
        """Finish a trial that was cut off; say whether there was one."""
        memory = Memory.load(self._places.memory)
        current, good = self._releases.current, self._releases.good
        trial = memory.trial
        if current != good:
            # The links say what is so; the memory, what it was like before.
            known = [t for t in (trial, memory.unbooted) if t is not None]
            fits = [t for t in known if (t.old, t.new) == (good.name, current.name)]
            trial = fits[0] if fits else Trial(old=good.name, new=current.name)
            if trial.back:
                self._go_back(trial, trial.back)
            else:
                log.info("goes on trying %s", trial.new)
                self._tell_trial(trial)
                self._finish(trial)
            return True
        if trial is None and memory.unbooted is not None and memory.unbooted.old == good.name:
            trial = memory.unbooted  # the guard has taken it back
        if trial is None:
            self._releases.end_counting_boots()
            return False
        if trial.new == good.name and trial.back:  # an end by hand that was never begun
            memory.with_trial(None).save(self._places.memory)
        elif trial.new == good.name:  # it was kept
            self._keep(trial)
        elif trial.back or self._releases.boots >= MOST_BOOTS:
            self._after_going_back(trial, trial.back or CUT_OFF)
        else:  # the switch never came
            memory.with_trial(None).save(self._places.memory)
            self._releases.end_counting_boots()
        return True

    def look(self, puller: Puller, *, trusted: bool) -> None:
        """Ask for a release, and try one that is new.

        Raises
        ------
        ProvisioningError
            Nothing was changed: there is no room, it is not what was signed, or is no good.
        """
        if not trusted:
            self._tell("pass", f"{self._version}, waits for a clock that can be trusted")
            return
        before = Standing.read(self._places.status_file)
        now_s = utc_now_ns() / _NS_PER_S
        since_s = self._since_reached_s(now_s)
        self._releases.tidy()
        if since_s > UNHEARD_OF_S:  # before it is asked: it may hold the node up until it is killed
            self._tell_unreachable(since_s, "the server of releases was not reached")
        try:
            offers, wrong = puller.offers()
        except UnreachableError as error:
            log.warning("%s", error)
            self._tell_unreachable(since_s, str(error))
            return
        memory = Memory.load(self._places.memory).model_copy(update={"looked_utc_s": now_s})
        memory.save(self._places.memory)
        running = Running(self._version, debian_here(), architecture_here(), READS)
        offer, why_not = choose(offers, running, memory.refused)
        why_not += wrong
        if offer is None:
            if why_not:
                self._tell("warn", f"{self._version} stays: {why_not[0]}")
            else:
                self._tell("pass", f"{self._version}, the newest")
            return
        self._try(puller, offer, before)

    def back(self) -> None:
        """Take the release in use back by hand.

        Raises
        ------
        ProvisioningError
            There is none below it.
        """
        current = self._releases.current
        old = self._releases.before(current.name)
        if old is None:
            raise ProvisioningError(f"{current.name}: there is no release below it on this node")
        standing = Standing.read(self._places.status_file)
        trial = Trial(
            old=old.name,
            new=current.name,
            since=utc_text(utc_now_ns()),
            before=best(standing, None),
            back=BY_HAND,
        )
        Memory.load(self._places.memory).with_trial(trial).save(self._places.memory)
        self._releases.lead("good", old)
        self._go_back(trial, trial.back)

    def fail(self, error: GunfireNodeError | OSError) -> None:
        """Tell why nothing was done; what is half done gives its room back."""
        self._releases.tidy()
        to_do = ": look for room on /data, or give the node another card"
        said = f"{error}{to_do if isinstance(error, OSError) else ''}"
        self._tell("warn", f"{self._version} stays: {said}")

    @property
    def _version(self) -> str:
        return self._releases.current.name

    def _try(self, puller: Puller, offer: Offer, before: Standing | None) -> None:
        """Pull, unpack, see that it starts at all, and switch."""
        version = offer.facts.version
        log.info("pulls %s, %d bytes", version, offer.target.length)
        self._tell("pass", f"{self._version}, pulls {version}")
        if puller.room_wanted(offer):
            self._releases.prune()  # the one before gives way
        archive = puller.pull(offer)
        folder = self._releases.unpack(archive, version, offer.facts.unpacked_bytes)
        archive.unlink()
        settings = self._places.settings_file
        if why := smoke(folder, version, settings if _is_taken(settings) else None):
            self._refuse(version, Refusal(why=why))
            self._releases.tidy()
            raise ProvisioningError(f"{version} does not start: {why}: publish a mended one")
        folder = self._releases.keep(folder)
        self._releases.tidy()
        now = Standing.read(self._places.status_file)
        trial = Trial(
            old=self._version, new=version, since=utc_text(utc_now_ns()), before=best(before, now)
        )
        self._switch(trial, folder)
        self._finish(trial)

    def _switch(self, trial: Trial, folder: Path) -> None:
        log.info("tries %s in place of %s", trial.new, trial.old)
        self._releases.lead("good", self._releases.current)
        Memory.load(self._places.memory).with_trial(trial).save(self._places.memory)
        self._releases.begin_counting_boots()
        self._tell_trial(trial)
        self._releases.lead("current", folder)
        self._manager.restart()

    def _finish(self, trial: Trial) -> None:
        verdict = self._watch(trial.new, trial.before)
        if verdict.good:
            log.info("keeps %s: %s", trial.new, verdict.why)
            self._keep(trial)
        else:
            self._go_back(trial, verdict.why)

    def _keep(self, trial: Trial) -> None:
        """Keep it; where the machine was not booted within its trial, but for the next boot."""
        old = self._releases.at(trial.old)
        unbooted = trial if old is not None and self._releases.boots == 0 else None
        self._releases.lead("good", self._releases.current)
        if unbooted is not None:
            self._releases.has_yet_to_boot(trial.old)
        memory = Memory.load(self._places.memory).with_trial(None, unbooted)
        memory.with_refusal(trial.new, None).save(self._places.memory)
        self._releases.end_counting_boots()
        self._releases.prune(*(() if old is None else (old,)))
        self._tell("pass", f"{trial.new}, in place of {trial.old}")

    def _go_back(self, trial: Trial, why: str) -> None:
        log.error("takes %s back: %s", trial.new, why)
        self._releases.tidy()  # room, above all
        with suppress(OSError):  # going back matters more than remembering why
            memory = Memory.load(self._places.memory)
            back = trial.model_copy(update={"back": why})
            memory.with_trial(back).save(self._places.memory)
        self._releases.lead("current", self._releases.good)
        if self._releases.boots:
            # It was the new one that has set up this boot, its network too: the old one gets one
            # of its own, and `resume` comes after.
            self._manager.reboot()
            return
        self._manager.restart()
        self._after_going_back(trial, why)

    def _after_going_back(self, trial: Trial, why: str) -> None:
        """See that the old one does better, else it was not the new one's fault; tell."""
        said = f"{trial.old} is back: {trial.new} was taken back ({why})"
        self._tell("pass", said)  # a warning would have the old one do worse than before
        known = Memory.load(self._places.memory).refused.get(trial.new)
        times = 1 if known is None else known.times + 1
        again = times < MOST_TRIES
        self._refuse(trial.new, Refusal(why=why, times=times, again=again and why == CUT_OFF))
        self._remove(trial.new)
        verdict = self._watch(trial.old, floor_after(why, trial.before))
        if not verdict.good:
            said += f"; {trial.old} does no better now: {verdict.why}"
            log.error("%s does no better: %s", trial.old, verdict.why)
            again = again and why != BY_HAND
            self._refuse(trial.new, Refusal(why=why, times=times, again=again))
        Memory.load(self._places.memory).with_trial(None).save(self._places.memory)
        self._releases.end_counting_boots()
        self._tell("warn", said)

    def _refuse(self, version: str, refusal: Refusal) -> None:
        memory = Memory.load(self._places.memory)
        memory.with_refusal(version, refusal).save(self._places.memory)

    def _remove(self, version: str) -> None:
        folder = self._places.releases / version
        if folder.is_dir() and folder not in (self._releases.current, self._releases.good):
            self._releases.remove(folder)

    def _watch(self, version: str, before: Standing) -> Verdict:
        judge = Judge(version, before, self._monotonic_s(), self._within_s, self._hold_s)
        while True:
            standing = Standing.read(self._places.status_file)
            verdict = judge.look(self._monotonic_s(), standing, self._manager.ends())
            if verdict is not None:
                return verdict
            self._sleep(LOOK_S)

    def _tell_trial(self, trial: Trial) -> None:
        self._tell("pass", f"tries {trial.new} in place of {trial.old}, since {trial.since}")

    def _since_reached_s(self, now_s: float) -> float:
        """Say for how long the server was not reached; from now on, where that is not known.

        Nor is it where the clock was wrong, and ahead.
        """
        memory = Memory.load(self._places.memory)
        if 0 < memory.looked_utc_s <= now_s:
            return now_s - memory.looked_utc_s
        memory.model_copy(update={"looked_utc_s": now_s}).save(self._places.memory)
        return 0.0

    def _tell_unreachable(self, since_s: float, why: str) -> None:
        if since_s > UNHEARD_OF_S:
            self._tell("warn", f"{self._version}; for {since_s / 86400:.0f} d {why}")
        else:
            self._tell("pass", f"{self._version}; {why}")

    def _tell(self, grade: Grade, said: str) -> None:
        """Leave it for the daemon, short and printable: some of it may be a server's own words."""
        said = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in said)
        figure, *advice = _TO_DO.split(said, maxsplit=1)
        report.write(self._places, "update", grade, figure[:_LONGEST], "".join(advice)[:_LONGEST])


def smoke(folder: Path, version: str, settings: Path | None) -> str:
    """See whether a release starts here at all; give what is wrong with it, else nothing.

    It is run from where it lies: an environment is found by its interpreter's place, and what else
    knows the prefix it was built for is only the first line of its scripts.
    """
    with tempfile.TemporaryDirectory() as scratch:  # lgpio leaves a FIFO where it is imported
        command: list[str | Path] = [folder / "bin/python", "-I", "-c", _SMOKE]
        if settings is not None:
            command.append(settings)
        try:
            done = subprocess.run(  # noqa: S603 - no shell; the release is signed
                command,
                cwd=scratch,
                env={**os.environ, "LG_WD": scratch},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SMOKE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"it takes more than {_SMOKE_S:.0f} s to start"
        except OSError as error:
            return f"its interpreter does not start ({error.strerror})"
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no word"])[-1]
        return f"it ends with {last[:200]}"
    said = done.stdout.strip()
    return "" if said == version else f"it says that it is {said[:40]!r}"


def clock_is_trusted(patience_s: float = CLOCK_PATIENCE_S) -> bool:
    """Wait until something vouches for this machine's clock: signatures end by it."""
    give_up_s = time.monotonic() + patience_s
    while not _vouched():
        if time.monotonic() >= give_up_s:
            return False
        time.sleep(LOOK_S)
    return True


@contextmanager
def alone(places: Places) -> Iterator[bool]:
    """Hold the releases; yields False where another process does."""
    places.releases.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(places.releases, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)


def _vouched() -> bool:
    try:
        return chrony.ask().quality() is not None
    except chrony.ChronyError:
        pass
    try:
        return kernel_quality().source != "free"
    except OSError:
        return False


def _is_taken(settings: Path) -> bool:
    """Whether this release takes the node's settings: else the new one need not either."""
    try:
        load(settings)
    except GunfireNodeError:
        return False
    return True
