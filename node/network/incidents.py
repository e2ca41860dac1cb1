"""Detections in, incidents out: the whole of the subscriber's side that is pure.

`Locator` takes what is known of nodes, weather and detections, of all sites, and hands each to its
site (node/network/site.py). No clock, no I/O: live, over a file and in tests it is the same.
"""

from __future__ import annotations

from collections import defaultdict

from node.messages import Detection, Incident
from node.messages.detection import Local, Position
from node.network.doubts import Doubts
from node.network.medium import Weather, medium
from node.network.policy import LocateSettings
from node.network.site import Site


class Locator:
    """Detections in, incidents out.

    Times are the caller's: `now_ns` is when something became known here (UTC, ns), and never runs
    backwards. Over a file it is when the node published, or the onset.
    """

    def __init__(self, settings: LocateSettings | None = None) -> None:
        self.settings = settings or LocateSettings()
        self._sites: dict[str, dict[str | None, Site]] = defaultdict(dict)
        self._weather: dict[str, Weather] = {}
        self._doubts: dict[str, Doubts] = defaultdict(Doubts)

    def place(self, site: str, node_id: str, place: Position | Local) -> None:
        """Say where a node stands, by its birth message or a list; above what detections say."""
        self._site(site, place).place(node_id, place, given=True)

    def up(self, site: str, node_id: str, up: bool) -> None:
        """Say whether a node listens: one that does not, is not silent."""
        for one in self._sites[site].values():
            one.up(node_id, up)

    def weather(self, site: str, weather: Weather) -> None:
        """Say what the weather is at a site from now on."""
        self._weather[site] = weather
        for one in self._sites[site].values():
            one.medium = medium(weather)

    def push(self, detection: Detection, now_ns: int) -> list[Incident]:
        """Do what is due; take a detection, or a later revision of one; give what is new."""
        return self.tick(now_ns) + self.hear(detection, now_ns)

    def tick(self, now_ns: int) -> list[Incident]:
        """Let time pass: what waited for later nodes is settled."""
        told: list[Incident] = []
        while (new := self.work(now_ns)) is not None:
            told += new
        return told

    def hear(self, detection: Detection, now_ns: int) -> list[Incident]:
        """Take a detection as `push` does; what is due is left to `work`.

        For who must not let a first word wait because of what is known better meanwhile.
        """
        for one in self._sites[detection.site].values():
            if one.is_given(detection.node_id):
                return one.hear(detection, now_ns)
        place = detection.position or detection.local
        if place is None:
            return []
        site = self._site(detection.site, place)
        site.place(detection.node_id, place, given=False)
        return site.hear(detection, now_ns)

    def work(self, now_ns: int) -> list[Incident] | None:
        """Do one of the things that are due; None where nothing is."""
        for one in self._all():
            if (told := one.work(now_ns)) is not None:
                return told
        return None

    def finish(self) -> list[Incident]:
        """Settle all; nothing more comes."""
        return [incident for one in self._all() for incident in one.finish()]

    @property
    def doubts(self) -> dict[tuple[str, str], str]:
        """Nodes (site, node) whose clock or place does not agree with the others, and how."""
        return {
            (site, node): said
            for site, doubts in self._doubts.items()
            for node, said in doubts.told().items()
        }

    def _all(self) -> list[Site]:
        return [one for frames in self._sites.values() for one in frames.values()]

    def _site(self, site: str, place: Position | Local) -> Site:
        frame = place.frame if isinstance(place, Local) else None
        if frame not in self._sites[site]:
            air = medium(self._weather.get(site, Weather()))
            self._sites[site][frame] = Site(site, frame, self.settings, air, self._doubts[site])
        return self._sites[site][frame]
