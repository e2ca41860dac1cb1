"""From messages to the locator: who stands where, who listens, what counts, and what became known.

In come messages as a broker gives them, each with its moment; out come incidents. No I/O and no
clock: the live service and the tests drive it alike.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass
from typing import Final, Protocol

from node.errors import GunfireNodeError
from node.messages import Detection, Incident, Status
from node.messages.detection import Local, Position
from node.network.admission import HARMLESS, MOST_NODES, Admission, Admitted, Refusal, Who
from node.network.medium import Weather
from node.network.notices import Notices
from node.network.weather import read_weather, weather_site
from node.types import NS_PER_S

log = logging.getLogger(__name__)

HELD_S: Final = 15.0
"""So long a detection waits for the birth that brings its node's certificate or place: after a
restart the broker may give first what came meanwhile, and only then what it keeps."""

MOST_HELD: Final = 10_000
_MOST_HELD_OF_ONE: Final = 100


class Locates(Protocol):
    """What detections are handed to: `node.network.incidents.Locator`."""

    def place(self, site: str, node_id: str, place: Position | Local) -> None:
        """Say where a node stands."""

    def up(self, site: str, node_id: str, up: bool) -> None:
        """Say whether a node listens."""

    def weather(self, site: str, weather: Weather) -> None:
        """Say what the weather is."""

    def push(self, detection: Detection, now_ns: int) -> list[Incident]:
        """Take a detection; give what is new."""

    def tick(self, now_ns: int) -> list[Incident]:
        """Let time pass."""

    def finish(self) -> list[Incident]:
        """Settle all."""

    @property
    def doubts(self) -> dict[tuple[str, str], str]:
        """Nodes that do not agree with the others."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message as the broker gave it."""

    topic: str
    payload: bytes
    retained: bool = False


@dataclass(slots=True)
class _Held:
    until_ns: int
    arrival: Arrival
    refusal: Refusal


class Intake:
    """Feeds a locator.

    Parameters
    ----------
    locator
        Gets what counts.
    admission
        Says what does.
    weather
        Of every site, until something else is told.

    Attributes
    ----------
    incidents, faults
        Revisions that came out; defects of ours that were passed over.
    set_back_s
        How far behind the locator's time the host's clock is, which was set back: for so long
        nothing is due there, and what comes is old.
    """

    def __init__(
        self, locator: Locates, admission: Admission, weather: Weather | None = None
    ) -> None:
        self.locator = locator
        self.admission = admission
        self.incidents = 0
        self.faults = 0
        self.set_back_s = 0.0
        self._weather = weather or Weather()
        self._weather_of: dict[str, Weather] = {}  # by a message, of known sites alone
        self._notices = Notices()
        self._sites: set[str] = set()
        self._nodes: set[Who] = set()
        self._said: OrderedDict[Who, Status] = OrderedDict()
        self._held: deque[_Held] = deque()
        self._held_of: Counter[Who] = Counter()
        self._doubted: set[Who] = set()
        self._now_ns = self._looked_ns = 0

    @property
    def nodes(self) -> int:
        """How many nodes are known."""
        return len(self._nodes)

    def weather(self, weather: Weather) -> None:
        """Say what the weather is at every site that has told none of its own."""
        self._weather = weather
        for site in self._sites - self._weather_of.keys():
            self.locator.weather(site, weather)

    def take(self, arrival: Arrival, now_ns: int) -> list[Incident]:
        """Take a message; what is wrong with it is told and counted, and raises nothing."""
        kind = arrival.topic.rpartition("/")[2]
        if kind == "detection":
            return self._count(self._detection(arrival, now_ns, may_wait=True))
        if kind == "node":
            return self._count(self._birth(arrival, now_ns))
        if kind == "status":
            self._status(arrival, now_ns)
        elif kind == "weather":
            self._take_weather(arrival, now_ns)
        return []

    def turn(self, now_ns: int) -> list[Incident]:
        """Let time pass; call it some ten times a second."""
        while self._held and self._held[0].until_ns <= now_ns:
            held = self._held.popleft()
            self._held_of[held.refusal.who] -= 1
            if not self._held_of[held.refusal.who]:
                del self._held_of[held.refusal.who]
            self._refuse(held.refusal, now_ns)
        try:
            found = self._count(self.locator.tick(self._later(now_ns)))
        except GunfireNodeError:
            raise
        except Exception:
            self._fault()
            found = []
        if self._now_ns - self._looked_ns >= NS_PER_S:
            self._looked_ns = self._now_ns
            self._tell_doubts()
        return found

    def finish(self) -> list[Incident]:
        """Settle all that is open."""
        return self._count(self.locator.finish())

    def report(self) -> str:
        """Say in a line what came and what became of it."""
        refused = ", ".join(
            f"{count} {kind}" for kind, count in sorted(self.admission.refused.items())
        )
        faults = f"; {self.faults} faults, see the log" if self.faults else ""
        return (
            f"{self.incidents} revisions of incidents from {self.admission.taken} detections of "
            f"{self.nodes} nodes; left out: {refused or 'none'}{faults}"
        )

    def _detection(
        self, arrival: Arrival, now_ns: int, *, may_wait: bool = False
    ) -> list[Incident]:
        judged = self.admission.detection(
            arrival.payload, now_ns, arrival.topic, retained=arrival.retained
        )
        if isinstance(judged, Refusal):
            if not (
                may_wait and self._birth_may_tell(judged) and self._hold(arrival, judged, now_ns)
            ):
                self._refuse(judged, now_ns)
            return []
        return self._push(judged, now_ns)

    def _push(self, admitted: Admitted, now_ns: int) -> list[Incident]:
        said = admitted.detection
        who = (said.site, said.node_id)
        is_new = self._know(who)
        if admitted.doubt:
            self._notices.tell("elsewhere", who, admitted.doubt, now_ns)
        try:
            found = self.locator.push(said, self._later(now_ns))
            if is_new:  # a locator that had no place of it knows it only now
                self._say_up(who)
            return found
        except GunfireNodeError:
            raise
        except Exception:
            # One detection that nobody has thought of must not silence a city.
            self._fault()
            return []

    def _birth_may_tell(self, refusal: Refusal) -> bool:
        # Without a list of nodes, one that is unlisted has told no place of its own.
        return refusal.kind == "unknown" or (
            refusal.kind == "unlisted" and self.admission.places is None
        )

    def _hold(self, arrival: Arrival, refusal: Refusal, now_ns: int) -> bool:
        who = refusal.who
        if len(self._held) >= MOST_HELD or self._held_of[who] >= _MOST_HELD_OF_ONE:
            return False
        self._held_of[who] += 1
        self._held.append(_Held(now_ns + round(HELD_S * NS_PER_S), arrival, refusal))
        return True

    def _birth(self, arrival: Arrival, now_ns: int) -> list[Incident]:
        judged = self.admission.birth(arrival.payload, now_ns, arrival.topic)
        if isinstance(judged, Refusal):
            self._refuse(judged, now_ns)
            return []
        who = (judged.node.site, judged.node.node_id)
        self._know(who)
        place = self.admission.place(*who)
        if place is not None:
            self.locator.place(*who, place)
        if not self._held_of[who]:
            return []
        waited = [held for held in self._held if held.refusal.who == who]
        self._held = deque(held for held in self._held if held.refusal.who != who)
        del self._held_of[who]
        return [one for held in waited for one in self._detection(held.arrival, now_ns)]

    def _status(self, arrival: Arrival, now_ns: int) -> None:
        said = self.admission.status(arrival.payload, arrival.topic)
        if isinstance(said, Refusal):
            self._refuse(said, now_ns)
            return
        who = (said.site, said.node_id)
        before = self._said.get(who)
        if said.state == "offline" and before is not None and before.boot_id != said.boot_id:
            return  # the last will of an older run
        self._said[who] = said
        self._said.move_to_end(who)
        if len(self._said) > MOST_NODES:
            self._said.popitem(last=False)
        if who in self._nodes:
            self._say_up(who)

    def _take_weather(self, arrival: Arrival, now_ns: int) -> None:
        site = weather_site(arrival.topic)
        if site is None or (site not in self._sites and len(self._weather_of) >= MOST_NODES):
            return
        if not arrival.payload:  # how a retained message is taken back
            self._weather_of.pop(site, None)
        else:
            try:
                self._weather_of[site] = read_weather(arrival.payload)
            except ValueError as error:
                self._notices.tell("weather", (site, ""), f"{error}; it is passed over", now_ns)
                return
        if site in self._sites:
            self.locator.weather(site, self._weather_of.get(site, self._weather))

    def _know(self, who: Who) -> bool:
        """Tell the locator of a node when a message of it has counted; say whether it is new."""
        if who in self._nodes:
            return False
        site, _ = who
        if site not in self._sites:
            self._sites.add(site)
            self.locator.weather(site, self._weather_of.get(site, self._weather))
        self._nodes.add(who)
        place = self.admission.place(*who)
        if place is not None:
            self.locator.place(*who, place)
        self._say_up(who)
        return True

    def _say_up(self, who: Who) -> None:
        said = self._said.get(who)
        # The silence of a node that says itself that something is wrong tells nothing.
        self.locator.up(*who, said is not None and said.state == "online")

    def _refuse(self, refusal: Refusal, now_ns: int) -> None:
        self.admission.count(refusal)
        if refusal.kind not in HARMLESS:
            self._notices.tell(refusal.kind, refusal.who, refusal.sentence, now_ns)

    def _fault(self) -> None:
        """Log what is being handled, the first, second, fourth … time."""
        self.faults += 1
        if self.faults.bit_count() == 1:
            log.exception("fault in the locator (%d so far)", self.faults)

    def _tell_doubts(self) -> None:
        doubts = self.locator.doubts
        for who in doubts.keys() - self._doubted:
            self._notices.tell("doubt", who, doubts[who], self._now_ns)
        self._doubted = set(doubts)

    def _count(self, found: list[Incident]) -> list[Incident]:
        self.incidents += len(found)
        return found

    def _later(self, now_ns: int) -> int:
        # The locator's time never runs backwards; a host's clock may be set back.
        self._now_ns = max(self._now_ns, now_ns)
        self.set_back_s = (self._now_ns - now_ns) / NS_PER_S
        return self._now_ns
