"""Detections in files to incidents: what a subscriber has kept, located as if it came anew.

In come lines in any order, as `replay --jsonl`, `watch --jsonl` and `mosquitto_sub -v` print them;
they are read twice: first for certificates, places and the moments at which each became known, then
in that order. Memory holds a few numbers of each line.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, cast

from node.errors import SettingsError
from node.messages import Detection, Incident
from node.messages.detection import DETECTION_SCHEMA, Local, Position
from node.messages.verify import LONGEST_LINE
from node.messages.verify import _split as split_line
from node.network.admission import HARMLESS, Admission, Refusal, Who
from node.network.intake import Locates
from node.network.medium import Weather
from node.network.notices import printable
from node.network.places import Places
from node.types import NS_PER_S
from node.utc import parse_utc_ns

log = logging.getLogger(__name__)

_KNOWN_AFTER_NS: Final = NS_PER_S  # a node tells an event about a second after its last round
_PACKED: Final = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")  # gzip bzip2 xz zstd
_NODE: Final = b"gunfire.node/"
_DETECTION: Final = b"gunfire.detection/"
_MOST_TOLD: Final = 20
_TICK_NS: Final = NS_PER_S // 2
_OF_A_NODE: Final = frozenset({"elsewhere", "unlisted", "clock"})
"""What is so in each line of a node: told at the first."""


class _Line(NamedTuple):
    """Where a detection stands, and when it became known."""

    known_ns: int
    source: int
    offset: int
    length: int
    number: int
    was_sent: bool


@dataclass(frozen=True, slots=True)
class _Source:
    name: str
    file: BinaryIO


class LogFiles:
    """Files of detections; a context manager.

    Parameters
    ----------
    files
        Their paths; '-' is standard input.
    stdin
        Standard input.
    site
        Of one site only; '+' for every one.

    Attributes
    ----------
    others, unreadable
        Messages of other kinds or sites, and lines that are none.
    stands
        Where each node of a detection that counted stands, in every form that it is known.

    Raises
    ------
    SettingsError
        On entering, if a file cannot be read or is none of ours.
    """

    def __init__(
        self, files: tuple[Path, ...], stdin: BinaryIO | None = None, site: str = "+"
    ) -> None:
        self._files = files
        self._site = site
        self._stdin = stdin
        self._open = ExitStack()
        self._sources: list[_Source] = []
        self._lines: list[_Line] = []
        self._births: list[_Line] = []
        self._names: dict[Who, None] = {}
        self._told = 0
        self._told_of: set[tuple[str, str]] = set()
        self.stands: dict[Who, tuple[Position | None, Local | None]] = {}
        self.others = 0
        self.unreadable = 0

    @property
    def detections(self) -> int:
        """How many there are."""
        return len(self._lines)

    @property
    def sites(self) -> tuple[str, ...]:
        """Sites of the detections, as they say themselves."""
        return tuple(sorted({site for site, _ in self._names}))

    def __enter__(self) -> LogFiles:
        try:
            for path in self._files:
                self._sources.append(self._source(path))
            for number, source in enumerate(self._sources):
                self._read(number, source)
        except BaseException:
            self._open.close()
            raise
        self._lines.sort()
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    def locate(
        self,
        locator: Locates,
        admission: Admission,
        weather: Weather,
        places: Places | None,
        progress: Callable[[float], None] = lambda _: None,
    ) -> Iterator[Incident]:
        """Give every revision of every incident, in the order in which they would have come.

        Parameters
        ----------
        locator, admission
            What locates, and what says which detections count.
        weather
            Of all sites.
        places
            Where nodes stand; without a list, births and detections say it.
        progress
            Called with the number of detections done since the last call.
        """
        for line in self._births:
            judged = admission.birth(self._payload(line), None)
            if isinstance(judged, Refusal):
                self._refuse(admission, judged, line)
        for site in self.sites:
            locator.weather(site, weather)
            for node_id in places.nodes(site) if places is not None else ():
                self._stands(locator, admission, site, node_id)
        for site, node_id in self._names:
            if places is None:
                self._stands(locator, admission, site, node_id)
        ticked_ns = 0
        for line in self._lines:
            if line.known_ns - ticked_ns >= _TICK_NS:
                ticked_ns = line.known_ns
                yield from locator.tick(ticked_ns)
            judged_one = admission.detection(
                self._payload(line), line.known_ns if line.was_sent else None
            )
            progress(1)
            if isinstance(judged_one, Refusal):
                self._refuse(admission, judged_one, line)
                continue
            if judged_one.doubt:
                of = f"{judged_one.detection.site}/{judged_one.detection.node_id}"
                self._tell(line, "elsewhere", of, judged_one.doubt)
            self._note_place(admission, judged_one.detection)
            yield from locator.push(judged_one.detection, line.known_ns)
        yield from locator.finish()

    def _stands(self, locator: Locates, admission: Admission, site: str, node_id: str) -> None:
        place = admission.place(site, node_id)
        if place is not None:
            locator.place(site, node_id, place)
        locator.up(site, node_id, True)  # a log does not say who was away

    def _note_place(self, admission: Admission, said: Detection) -> None:
        who = (said.site, said.node_id)
        if who in self.stands:
            return
        place = admission.place(*who)
        position = place if isinstance(place, Position) else said.position
        self.stands[who] = (position, place if isinstance(place, Local) else said.local)

    def _source(self, path: Path) -> _Source:
        try:
            if str(path) == "-":
                if self._stdin is None:
                    raise SettingsError("-: there is no standard input")
                file = self._open.enter_context(_kept(self._stdin))
                name = "standard input"
            else:
                if path.is_dir():
                    raise SettingsError(f"{path}: is a folder: name the files in it")
                if not path.is_file():
                    what = "is no regular file" if path.exists() else "is not there"
                    raise SettingsError(f"{path}: {what}: give a file, or - for standard input")
                file = self._open.enter_context(path.open("rb"))
                name = str(path)
            if file.read(6).startswith(_PACKED):
                raise SettingsError(f"{name}: is compressed: unpack it first")
            file.seek(0)
        except OSError as error:
            raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
        return _Source(name, file)

    def _read(self, number: int, source: _Source) -> None:
        count = offset = 0
        has_any = has_ours = False
        for line in _lines(source.file):
            count += 1
            at, offset = offset, source.file.tell()
            if not line.strip():
                continue
            has_any = True
            has_ours = has_ours or b"gunfire." in line
            place = _Line(0, number, at, len(line), count, was_sent=False)
            if len(line) > LONGEST_LINE:
                self._unreadable(place, "is longer than any message")
            elif _DETECTION in line:
                self._take(place, line)
            elif _NODE in line:
                self._births.append(place)
            elif b"gunfire." in line:
                self.others += 1
            else:
                self._unreadable(place, "is no message of ours")
        if has_any and not has_ours:
            raise SettingsError(
                f"{source.name}: holds no message of ours: give what gunfire-node replay --jsonl, "
                "watch --jsonl or mosquitto_sub -v printed"
            )

    def _take(self, place: _Line, line: bytes) -> None:
        """Note when a detection became known; all else is judged later."""
        try:
            said = json.loads(split_line(line)[1])
            if said["schema"] != DETECTION_SCHEMA:
                self.others += 1
                return
            who = (str(said["site"])[:64], str(said["node_id"])[:64])
            if self._site not in ("+", who[0]):
                self.others += 1
                return
            transport = said.get("transport")
            if transport is None:
                known_ns = parse_utc_ns(said["rounds"][-1]["utc"]) + _KNOWN_AFTER_NS
            else:
                known_ns = parse_utc_ns(transport["published_utc"])
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            self._unreadable(place, "is no detection")
            return
        self._names[who] = None
        self._lines.append(place._replace(known_ns=known_ns, was_sent=transport is not None))

    def _payload(self, line: _Line) -> bytes:
        file = self._sources[line.source].file
        file.seek(line.offset)
        return split_line(file.read(line.length))[1]

    def _unreadable(self, line: _Line, sentence: str) -> None:
        self.unreadable += 1
        self._tell(line, "unreadable", "", sentence)

    def _refuse(self, admission: Admission, refusal: Refusal, line: _Line) -> None:
        admission.count(refusal)
        if refusal.kind not in HARMLESS:
            self._tell(line, refusal.kind, "/".join(filter(None, refusal.who)), refusal.sentence)

    def _tell(self, line: _Line, kind: str, who: str, sentence: str) -> None:
        if kind in _OF_A_NODE:
            if (kind, who) in self._told_of:
                return
            self._told_of.add((kind, who))
        self._told += 1
        if self._told <= _MOST_TOLD:
            where = f"{self._sources[line.source].name}, line {line.number}"
            log.warning("%s: %s", where, printable(": ".join(filter(None, (kind, who, sentence)))))
        elif self._told == _MOST_TOLD + 1:
            log.warning("and more like these: they are counted at the end")


def _kept(stream: BinaryIO) -> BinaryIO:
    """Keep what comes once in a file without a name, since it is read twice."""
    file = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115 - the caller closes it
    shutil.copyfileobj(stream, file)
    file.seek(0)
    return file


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """Give lines; of one that is longer than any message only so much that this shows."""
    while line := file.readline(LONGEST_LINE + 1):
        whole = line
        while len(line) > LONGEST_LINE and not line.endswith(b"\n"):
            line = file.readline(LONGEST_LINE + 1)
            if not line:
                break
        yield whole
