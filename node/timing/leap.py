"""TAI and UTC: the leap seconds between them.

A pulse counter and a receiver count seconds without gaps, as TAI does; UTC repeats one now and then
(POSIX, which has no name for 23:59:60, gives that second the number of the one after it). So time
is kept as TAI, and turned into UTC last.
"""

from __future__ import annotations

import bisect
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from node.types import NS_PER_S

log = logging.getLogger(__name__)

SYSTEM_FILE: Final = Path("/usr/share/zoneinfo/leap-seconds.list")
_NTP_TO_UNIX_S: Final = 2_208_988_800

# TAI - UTC since 1972, by UTC second from which it holds (IERS Bulletin C; no change since 2017).
_BUILT_IN: Final = (
    (63_072_000, 10), (78_796_800, 11), (94_694_400, 12), (126_230_400, 13), (157_766_400, 14),
    (189_302_400, 15), (220_924_800, 16), (252_460_800, 17), (283_996_800, 18), (315_532_800, 19),
    (362_793_600, 20), (394_329_600, 21), (425_865_600, 22), (489_024_000, 23), (567_993_600, 24),
    (631_152_000, 25), (662_688_000, 26), (709_948_800, 27), (741_484_800, 28), (773_020_800, 29),
    (820_454_400, 30), (867_715_200, 31), (915_148_800, 32), (1_136_073_600, 33),
    (1_230_768_000, 34), (1_341_100_800, 35), (1_435_708_800, 36), (1_483_228_800, 37),
)  # fmt: skip
GPS_TO_TAI_S: Final = 19
# No clock of a node was ever right before this: a receiver whose weeks rolled over says so.
OLDEST_UTC_S: Final = _BUILT_IN[-1][0]


@dataclass(frozen=True)
class LeapTable:
    """When TAI - UTC changed.

    Attributes
    ----------
    changes
        UTC second from which, and TAI - UTC in s, ascending.
    """

    changes: tuple[tuple[int, int], ...] = _BUILT_IN

    @classmethod
    def load(cls, file: Path = SYSTEM_FILE) -> Self:
        """Read the system's table (tzdata's leap-seconds.list); the built-in one if it has none."""
        try:
            changes = _parse(file.read_text("ascii"))
        except (OSError, ValueError) as error:
            log.debug("leap seconds from the built-in table: %s", error)
            return cls()
        # An old system knows no more than we do.
        return cls(max(changes, _BUILT_IN, key=len))

    def tai_minus_utc_s(self, utc_s: int) -> int:
        """Give TAI - UTC at a UTC second."""
        at = bisect.bisect_right(self.changes, utc_s, key=lambda change: change[0])
        return self.changes[max(at - 1, 0)][1]

    def gps_minus_utc_s(self, utc_s: int) -> int:
        """Give GPS - UTC at a UTC second: what receivers call leap seconds."""
        return self.tai_minus_utc_s(utc_s) - GPS_TO_TAI_S

    def tai_s(self, utc_s: int) -> int:
        """Turn a UTC second into TAI; of a second that there were two of, the later."""
        return utc_s + self.tai_minus_utc_s(utc_s)

    def tai_ns(self, utc_ns: int) -> int:
        """Turn UTC into TAI, in ns; of a second that there were two of, the later."""
        return utc_ns + self.tai_minus_utc_s(utc_ns // NS_PER_S) * NS_PER_S

    def utc_ns(self, tai_ns: int) -> int:
        """Turn TAI into UTC, in ns; a leap second is told as POSIX does."""
        tai_s = tai_ns // NS_PER_S
        at = bisect.bisect_right(self.changes, tai_s, key=sum)
        return tai_ns - self.changes[max(at - 1, 0)][1] * NS_PER_S


def _parse(text: str) -> tuple[tuple[int, int], ...]:
    changes = []
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if words:
            ntp_s, offset_s = (int(word) for word in words)
            changes.append((ntp_s - _NTP_TO_UNIX_S, offset_s))
    if not changes or changes != sorted(changes):
        raise ValueError("not a table of leap seconds")
    return tuple(changes)
