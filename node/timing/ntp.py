"""A second opinion on the host's clock, by asking NTP servers directly.

Stands beside the host clock: it disciplines nothing. What the kernel says of its discipline is
what one daemon told it; a server of another kind that agrees makes a wrong configuration, a
stopped daemon or a spoofed source show. Runs in a thread of its own, since a server may not answer.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import urlsplit

import ntplib

from node.types import NS_PER_S, ClockQuality

log = logging.getLogger(__name__)

NTP_PORT: Final = 123
QUERIES: Final = 4  # one alone was 2.6 ms off under load (platform.md)
PAUSE_S: Final = 0.2
TIMEOUT_S: Final = 2.0
LEAP_NOT_SYNCHRONISED: Final = 3  # RFC 5905, figure 9
HIGHEST_STRATUM: Final = 15
# How an opinion ages: a crystal without discipline wanders by this much at most.
DRIFT: Final = 100e-6
STALE_S: Final = 3 * 3600.0
SIGMAS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a server says of the host's clock.

    Attributes
    ----------
    server
        Whose opinion it is.
    offset_s
        The server's UTC minus the host's.
    uncertainty_s
        A bound: half the way there and back, and the server's own root distance (RFC 5905).
    monotonic_ns
        When it was given.
    """

    server: str
    offset_s: float
    uncertainty_s: float
    monotonic_ns: int


def ask(server: str, *, queries: int = QUERIES) -> Opinion:
    """Ask a server a few times, and keep the answer that was least long under way.

    Parameters
    ----------
    server
        ``host`` or ``host:port``.
    queries
        How often to ask.

    Raises
    ------
    ntplib.NTPException, OSError
        It did not answer even once, or is itself not synchronised.
    """
    host, port = _address(server)
    opinions: list[Opinion] = []
    failure: Exception = ntplib.NTPException("no answer")
    for i in range(queries):
        if i:
            time.sleep(PAUSE_S)
        try:
            reply = ntplib.NTPClient().request(host, version=4, port=port, timeout=TIMEOUT_S)
        except UnicodeError as error:
            # What cannot be written as a name of the DNS ("a..b", a label of 70 letters).
            raise ntplib.NTPException(f"its name cannot be looked up ({error})") from error
        except (ntplib.NTPException, OSError) as error:
            failure = error
            continue
        if reply.leap == LEAP_NOT_SYNCHRONISED or not 0 < reply.stratum <= HIGHEST_STRATUM:
            failure = ntplib.NTPException("it is not synchronised itself")
            continue
        bound_s = max(reply.delay, 0.0) / 2 + reply.root_delay / 2 + reply.root_dispersion
        opinions.append(Opinion(server, reply.offset, bound_s, time.monotonic_ns()))
    if not opinions:
        raise failure
    return min(opinions, key=lambda opinion: opinion.uncertainty_s)


def _address(server: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{server}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host:
        raise ntplib.NTPException("it is not of the form host or host:port")
    return host, port or NTP_PORT


def weigh(
    quality: ClockQuality, opinion: Opinion | None, monotonic_ns: int
) -> tuple[ClockQuality, str | None]:
    """Weigh what the kernel says against a second opinion.

    Parameters
    ----------
    quality
        What the kernel says.
    opinion
        The second opinion, if there is one.
    monotonic_ns
        Now, on CLOCK_MONOTONIC; an opinion of more than three hours ago counts no more.

    Returns
    -------
    tuple of ClockQuality and str or None
        The quality: confirmed where the two agree; where they do not, and where nothing
        disciplines the clock, with a σ that holds the difference. And the reason in words if they
        do not agree.
    """
    if opinion is None:
        return quality, None
    age_s = (monotonic_ns - opinion.monotonic_ns) / NS_PER_S
    if age_s > STALE_S:
        return quality, None
    uncertainty_s = opinion.uncertainty_s + DRIFT * age_s
    apart_s = abs(opinion.offset_s)
    told_s = math.hypot(apart_s, uncertainty_s)
    if quality.source == "free":
        return replace(quality, sigma_s=min(quality.sigma_s, told_s)), None
    if apart_s <= SIGMAS * quality.sigma_s + uncertainty_s:
        return replace(quality, second_confirmed=True), None
    reason = (
        f"the host's clock is {-opinion.offset_s:+.6f} s off by {opinion.server}, "
        f"more than {quality.source} allows for; see `chronyc tracking`"
    )
    return replace(quality, sigma_s=told_s, bound_s=None), reason


class SecondOpinion:
    """Asks the configured servers again and again, in a daemon thread.

    Parameters
    ----------
    servers
        ``host`` or ``host:port`` each; none means that nobody is asked.
    interval_s
        Seconds between rounds.
    """

    def __init__(self, servers: tuple[str, ...], interval_s: float) -> None:
        self._servers = servers
        self._interval_s = interval_s
        self._closing = threading.Event()
        self._latest: Opinion | None = None
        self._failures: dict[str, str] = {}

    @property
    def latest(self) -> Opinion | None:
        """The best opinion of the last round in which anybody answered."""
        return self._latest

    @property
    def failures(self) -> dict[str, str]:
        """Why a server gave no opinion in the last round, by server."""
        return dict(self._failures)

    def start(self) -> None:
        """Begin to ask, if there is anybody to be asked."""
        if self._servers:
            threading.Thread(target=self._run, name="ntp-second-opinion", daemon=True).start()

    def close(self) -> None:
        """Ask no more. Does not wait for a question under way."""
        self._closing.set()

    def ask_all(self) -> Opinion | None:
        """Ask each server once round, and give the least uncertain opinion."""
        opinions: list[Opinion] = []
        failures: dict[str, str] = {}
        for server in self._servers:
            try:
                opinions.append(ask(server))
            except (ntplib.NTPException, OSError) as error:
                failures[server] = str(error)
                log.warning("no second opinion from %s: %s", server, error)
            except Exception as error:
                # A fault of ours. The thread goes on, and asks the others.
                failures[server] = type(error).__name__
                log.exception("no second opinion from %s", server)
        self._failures = failures
        if opinions:
            self._latest = min(opinions, key=lambda opinion: opinion.uncertainty_s)
            log.debug(
                "%s: the host's clock is %.6f s behind, within %.6f s",
                self._latest.server,
                self._latest.offset_s,
                self._latest.uncertainty_s,
            )
        return self._latest if opinions else None

    def _run(self) -> None:
        while not self._closing.is_set():
            self.ask_all()
            self._closing.wait(self._interval_s)
