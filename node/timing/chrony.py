"""What chrony says of the host's clock: its reference, and how far off it may be.

Beside the host clock: the daemon that disciplines knows more than the kernel does, above all
whether it follows a pulse, a receiver's messages or a network. Asked through `chronyc -c tracking`,
the interface that chrony keeps stable for programs.
"""

from __future__ import annotations

import logging
import math
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import Final

from node.timing.host import SIGMAS_IN_BOUND
from node.types import ClockQuality, ClockSource

log = logging.getLogger(__name__)

COMMAND: Final = ("chronyc", "-c", "-n", "tracking")
TIMEOUT_S: Final = 3.0
INTERVAL_S: Final = 4.0
STALE_S: Final = 10.0
FIELDS: Final = 14
LAST_STRATUM: Final = 16  # not synchronised (RFC 5905)
MOST: Final = 9e9  # no figure is as large: time itself ends there, in 63 bits of ns since 1970
LONGEST_NAME: Final = 64
NOT_SYNCHRONISED: Final = "Not synchronised"
LOCAL_REFERENCE: Final = "7F7F0101"  # chrony serving its own clock, which nothing disciplines
# What chrony cannot know of: a network's two ways differ by some ms, a receiver's messages come
# late by tens of ms (platform.md), a pulse passes the kernel's interrupt in some µs.
LEAST_SIGMA_S: Final[dict[ClockSource, float]] = {"pps": 5e-6, "gps": 30e-3, "ntp": 1e-3}
# A reference clock of a pulse is named so in systemd/chrony: PPS, or PPS and a number.
PULSE: Final = "PPS"


@dataclass(frozen=True, slots=True)
class Tracking:
    """`chronyc tracking` (chronyc(1)).

    Attributes
    ----------
    reference
        The name of a reference clock, or a server's address.
    is_refclock
        Whether it is a reference clock on this machine.
    stratum
        1 beside a reference clock.
    updated_s
        UTC, s since 1970, of the last measurement that counted, by the host's clock.
    offset_s
        By how much the host's clock is still to be corrected; positive if it is fast.
    rms_offset_s
        Long-term mean of what each measurement found.
    rate_ppm
        By how much the host's crystal runs fast.
    root_delay_s, root_dispersion_s
        RFC 5905.
    interval_s
        Between the last two measurements.
    synchronised
        Whether chrony vouches for it.
    """

    reference: str
    is_refclock: bool
    stratum: int
    updated_s: float
    offset_s: float
    rms_offset_s: float
    rate_ppm: float
    root_delay_s: float
    root_dispersion_s: float
    interval_s: float
    synchronised: bool

    @property
    def source(self) -> ClockSource:
        """What stands behind the reference."""
        if not self.synchronised:
            return "free"
        if not self.is_refclock:
            return "ntp"
        return "pps" if self.reference.startswith(PULSE) else "gps"

    @property
    def bound_s(self) -> float:
        """The most that the host's clock may be off by: RFC 5905's root distance."""
        return abs(self.offset_s) + self.root_dispersion_s + self.root_delay_s / 2

    def quality(self) -> ClockQuality | None:
        """Say how good the host's clock is; None where chrony does not vouch for it."""
        if self.source == "free":
            return None
        least_s = LEAST_SIGMA_S[self.source]
        bound_s = max(self.bound_s, SIGMAS_IN_BOUND * least_s)
        sigma_s = max(math.hypot(self.offset_s, self.rms_offset_s), bound_s / SIGMAS_IN_BOUND)
        return ClockQuality(source=self.source, sigma_s=sigma_s, bound_s=bound_s)


class ChronyError(Exception):
    """Why chrony said nothing, in a sentence."""


def ask(command: tuple[str, ...] = COMMAND) -> Tracking:
    """Ask chrony how it does.

    Raises
    ------
    ChronyError
        It is not installed, does not run, hangs, or answers something else.
    """
    try:
        done = subprocess.run(  # noqa: S603 - no shell; the command is ours
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise ChronyError(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise ChronyError(f"chronyd does not answer within {TIMEOUT_S:g} s") from None
    except OSError as error:
        raise ChronyError(f"{command[0]} cannot be run: {error.strerror}") from None
    if done.returncode:
        said = (done.stdout.strip() or done.stderr.strip()).splitlines()
        raise ChronyError(said[0] if said else f"{command[0]} ended with {done.returncode}")
    return parse(done.stdout)


def parse(line: str) -> Tracking:
    """Read a line of `chronyc -c tracking`.

    Raises
    ------
    ChronyError
        It is not of that form.
    """
    fields = line.strip().split(",")
    try:
        identifier, name, stratum, *figures, leap = fields
        if len(fields) != FIELDS:
            raise ValueError(f"{len(fields)} fields")
        updated, offset, _, rms, rate, _, _, delay, dispersion, interval = map(float, figures)
        if not (stratum.isascii() and stratum.isdigit() and int(stratum) <= LAST_STRATUM):
            raise ValueError("no stratum")
        # Written so that what is no number is out of range too.
        if not all(abs(float(figure)) < MOST for figure in figures) or updated < 0:
            raise ValueError("out of range")
        if len(name or identifier) > LONGEST_NAME or not (name or identifier).isprintable():
            raise ValueError("no reference")
        tracking = Tracking(
            reference=name or identifier,
            is_refclock=_spells(identifier, name),
            stratum=int(stratum),
            updated_s=updated,
            offset_s=offset,
            rms_offset_s=rms,
            rate_ppm=rate,
            root_delay_s=max(delay, 0.0),
            root_dispersion_s=max(dispersion, 0.0),
            interval_s=interval,
            synchronised=leap != NOT_SYNCHRONISED and identifier != LOCAL_REFERENCE,
        )
    except ValueError as error:
        raise ChronyError(f"chronyc answered {line.strip()[:80]!r} ({error})") from None
    return tracking


def _spells(identifier: str, name: str) -> bool:
    """Whether a reference's number is its name's letters: a reference clock's is."""
    try:
        spelt = bytes.fromhex(identifier).rstrip(b"\0").decode("ascii")
    except ValueError:
        return False
    return bool(spelt) and spelt == name


class ChronyWatch:
    """Asks chrony every few seconds, in a daemon thread, since it may hang.

    Parameters
    ----------
    command
        What asks it.
    """

    def __init__(self, command: tuple[str, ...] = COMMAND) -> None:
        self._command = command
        self._closing = threading.Event()
        self._latest: tuple[float, Tracking] | None = None
        self._failure: str | None = None

    @property
    def latest(self) -> Tracking | None:
        """What it said last; None where it says nothing now."""
        latest = self._latest
        if latest is None or self._failure or time.monotonic() - latest[0] > STALE_S:
            return None
        return latest[1]

    @property
    def failure(self) -> str | None:
        """Why it says nothing; None where it does, or was not asked yet."""
        return self._failure

    def start(self) -> None:
        """Begin to ask."""
        threading.Thread(target=self._run, name="chrony-watch", daemon=True).start()

    def close(self) -> None:
        """Ask no more. Does not wait for a question under way."""
        self._closing.set()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                tracking = ask(self._command)
            except ChronyError as error:
                if self._failure is None:
                    log.info("chrony: %s", error)
                self._failure = str(error)
            except Exception as error:
                # A fault of ours. Without this thread chrony's last word would only grow stale.
                failure = f"chronyc was not understood: {type(error).__name__}"
                if self._failure != failure:
                    log.exception("chrony-watch")
                self._failure = failure
            else:
                self._latest, self._failure = (time.monotonic(), tracking), None
            self._closing.wait(INTERVAL_S)
