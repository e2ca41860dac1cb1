"""When a release that is being tried is good, when bad: rules over looks, with no clock of its own.

It is good once the node does all that it should, for a while without a break. What the node did
not do before either (deaf by a broken card, no broker in reach) is hoped for until the time is up,
and then not laid at the release's door. It is bad when something is worse than before at the end,
or at once when it does not stay up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from node.board.findings import Condition
from node.types import ClockSource
from provisioning.update.memory import Standing

WITHIN_S: Final = 600.0
"""So long a release has (the one place where that is set)."""
HOLD_S: Final = 60.0
"""So long everything has to be well without a break."""
MOST_ENDS: Final = 3
"""A daemon that ended so often does not stay up; systemd gives it up at eight."""
CLOCKS: Final[tuple[ClockSource, ...]] = ("free", "ntp", "gps", "pps")
_CONDITION: Final = "it is "
CONDITIONS: Final[tuple[Condition, ...]] = ("failed", "degraded", "ok")


@dataclass(frozen=True)
class Verdict:
    """How a trial ended, and why in words."""

    good: bool
    why: str


def best(one: Standing | None, other: Standing | None) -> Standing:
    """Give the better of two looks in each respect; nobody's look counts nothing."""
    looks = [look for look in (one, other) if look is not None]
    if not looks:
        return Standing()
    return looks[-1].model_copy(
        update={
            "hears": any(look.hears for look in looks),
            "connected": any(look.connected for look in looks),
            "clock": max((look.clock for look in looks), key=CLOCKS.index),
            "condition": max((look.condition for look in looks), key=CONDITIONS.index),
        }
    )


def lacks(now: Standing | None, version: str, floor: Standing) -> list[str]:
    """Say in what a node does worse than it should."""
    if now is None or now.firmware != version:
        return ["the daemon does not tell how it does"] if floor.hears else []
    found = []
    if floor.hears and not now.hears:
        found.append("it does not hear")
    if CLOCKS.index(now.clock) < CLOCKS.index(floor.clock):
        found.append(f"its time is by {now.clock}, and was by {floor.clock}")
    if floor.connected and not now.connected:
        found.append("it does not reach the broker")
    if CONDITIONS.index(now.condition) < CONDITIONS.index(floor.condition):
        found.append(f"{_CONDITION}{now.condition}, and was {floor.condition}")
    return found


def floor_after(why: str, before: Standing) -> Standing:
    """Say how the old one has to do after a trial that ended so, for the new one to be at fault.

    A daemon that starts after one that crashed or hung tells for ten minutes how that ended, and is
    degraded by it: only where nothing else was wrong with the new one does the condition count.
    """
    if why.startswith(_CONDITION):
        return before
    return before.model_copy(update={"condition": CONDITIONS[0]})


class Judge:
    """Judges one trial by looks at the node, about one a second.

    Parameters
    ----------
    version
        That is to run.
    before
        How the node did before.
    began_s
        When it was started.
    within_s, hold_s
        See `WITHIN_S`, `HOLD_S`.
    """

    def __init__(
        self,
        version: str,
        before: Standing,
        began_s: float,
        within_s: float = WITHIN_S,
        hold_s: float = HOLD_S,
    ) -> None:
        self._version = version
        self._floor = before
        self._goal = before.model_copy(update={"hears": True, "connected": True})
        self._ends_s = began_s + within_s
        self._hold_s = hold_s
        self._well_since_s: float | None = None
        self._boot_id = ""

    def look(self, now_s: float, standing: Standing | None, ends: int = 0) -> Verdict | None:
        """Take a look, and how often the daemon has ended; None while it is open."""
        if ends >= MOST_ENDS:
            return Verdict(False, f"the daemon ended {ends} times")
        wanting = lacks(standing, self._version, self._goal)
        boot_id = "" if standing is None else standing.boot_id
        if wanting or boot_id != self._boot_id:
            self._well_since_s = None
        self._boot_id = boot_id
        if not wanting:
            if self._well_since_s is None:
                self._well_since_s = now_s
            if now_s - self._well_since_s >= self._hold_s:
                return Verdict(True, "it hears, keeps time and delivers as before")
        if now_s < self._ends_s:
            return None
        worse = lacks(standing, self._version, self._floor)
        if worse:
            return Verdict(False, ", ".join(worse))
        if wanting:
            return Verdict(True, f"{', '.join(wanting)}, as was so before")
        return Verdict(True, "it does as before")
