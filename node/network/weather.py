"""Where the weather comes from: a file that may change, or a message. Out goes a `Weather`.

Three figures, any of which may be left out: `temperature_c`, `wind_m_s`, `wind_from_deg`.
"""

from __future__ import annotations

import logging
import os
import re
import tomllib
from pathlib import Path
from typing import Any, Final

from pydantic import ConfigDict, Field, ValidationError

from node.errors import SettingsError
from node.messages.fields import TOPIC_LEVEL
from node.messages.signing import read_object
from node.messages.topics import ROOT
from node.network.medium import Weather
from node.settings import Section

log = logging.getLogger(__name__)

LONGEST_BYTES: Final = 4096
"""Three figures, and what else a weather station may say of itself."""

_TOPIC: Final = re.compile(rf"{re.escape(ROOT)}/([^/]+)/weather")


class WeatherReport(Section):
    """The three figures."""

    temperature_c: float | None = Field(
        default=None, ge=-60, le=60, description="Temperature of the air, degrees Celsius."
    )
    wind_m_s: float | None = Field(
        default=None, ge=0, le=60, description="Speed of the wind, metres a second."
    )
    wind_from_deg: float | None = Field(
        default=None,
        ge=0,
        le=360,
        description="Where the wind comes from, degrees clockwise from true north.",
    )

    @property
    def weather(self) -> Weather:
        """The figures as the locator takes them."""
        return Weather(self.temperature_c, self.wind_m_s, self.wind_from_deg)


class _Report(WeatherReport):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)  # a station's words


def read_weather(payload: bytes) -> Weather:
    """Read a weather message: JSON; keys that are not known are passed over.

    Raises
    ------
    ValueError
        If it is none; the sentence says which figure and why.
    """
    if len(payload) > LONGEST_BYTES:
        raise ValueError("is longer than any report of the weather")
    return _weather(read_object(payload))


def weather_topic(site: str) -> str:
    """Give the topic of a site's weather; '+' filters every one's."""
    return f"{ROOT}/{site}/weather"


def weather_site(topic: str) -> str | None:
    """Give the site that a topic tells the weather of; None if it is no such topic."""
    found = _TOPIC.fullmatch(topic)
    return found[1] if found and re.fullmatch(TOPIC_LEVEL, found[1]) else None


class WeatherFile:
    """A file of the three figures, read again when it has changed.

    Parameters
    ----------
    path
        JSON or TOML, whatever its name.

    Raises
    ------
    SettingsError
        At once, if it cannot be read. When it spoils later, that is told and the last good figures
        stand: a weather service that writes it should not stop the locator.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int, int] | None = None
        self._told = ""
        self.weather = self._read()

    def renewed(self) -> bool:
        """Look whether it has changed; say whether `weather` is new."""
        try:
            if self._stamped() == self._stamp:
                return False
            before, self.weather = self.weather, self._read()
        except SettingsError as error:
            if str(error) != self._told:
                self._told = str(error)
                log.warning("%s; the weather before it stands", error)
            return False
        self._told = ""
        return self.weather != before

    def _stamped(self) -> tuple[int, int, int]:
        try:
            found = os.stat(self.path)
        except OSError as error:
            raise SettingsError(
                f"{self.path}: cannot be read: {error.strerror}; name the file of the weather"
            ) from None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def _read(self) -> Weather:
        stamp = self._stamped()
        try:
            with self.path.open("rb") as file:
                data = file.read(LONGEST_BYTES + 1)
        except OSError as error:
            raise SettingsError(
                f"{self.path}: cannot be read: {error.strerror}; name the file of the weather"
            ) from None
        self._stamp = stamp  # also of one that is wrong: it is told once
        try:
            if len(data) > LONGEST_BYTES:
                raise ValueError("is longer than any report of the weather")
            text = data.decode("utf-8-sig")
            values = read_object(text) if text.lstrip().startswith("{") else tomllib.loads(text)
            found = _weather(values.get("weather", values))
            if found == Weather():
                raise ValueError("says nothing of the weather")
            return found
        except (ValueError, RecursionError, AttributeError) as error:
            raise SettingsError(
                f"{self.path}: {error}; it is to hold temperature_c, wind_m_s and wind_from_deg, "
                "as TOML or JSON"
            ) from None


def _weather(values: dict[str, Any]) -> Weather:
    try:
        return _Report.model_validate(values, strict=True).weather
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(map(str, problem["loc"])) or "the weather"
        said = problem["msg"]
        raise ValueError(f"{key}: {said[0].lower()}{said[1:]}") from None
