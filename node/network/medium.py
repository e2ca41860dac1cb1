"""The air between a shot and the nodes: how fast sound goes, and how well that is known.

In comes what somebody measured of the weather, or nothing; out go a speed of sound and a wind, each
with its standard error, for the solver to start from: it settles both anew for every shot.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

# c = 331.3 √(1 + T/273.15) for dry air (ISO 9613-1); humidity adds up to 0.3 %.
_C_AT_0_M_S: Final = 331.3
_ZERO_C_K: Final = 273.15
_DC_DT: Final = 0.6  # m/s for each kelvin

# A thermometer of the town is good to a few kelvin at the roof where a node stands.
_THERMOMETER_K: Final = 2.5
_HUMIDITY_M_S: Final = 0.3
# Without one: any day from 11 °C below to above 15 °C, 1 % of c in each case (signal.md §4: "1 %").
_UNKNOWN_C: Final = 15.0
_UNKNOWN_K: Final = 11.0
# Gusts and streets against an airfield's vane; without one, a breeze from anywhere.
_VANE_M_S: Final = 1.5
_NO_VANE_M_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Weather:
    """What somebody measured; None for what nobody did.

    Attributes
    ----------
    temperature_c
        Temperature of the air, degrees Celsius.
    wind_m_s
        Speed of the wind, m/s.
    wind_from_deg
        Where it comes from, degrees clockwise from true north.
    """

    temperature_c: float | None = None
    wind_m_s: float | None = None
    wind_from_deg: float | None = None


@dataclass(frozen=True, slots=True)
class Medium:
    """What is thought of the air before any shot: means and standard errors, m/s.

    `wind_m_s` is (east, north) of where it blows to.
    """

    speed_m_s: float
    speed_sigma_m_s: float
    wind_m_s: tuple[float, float]
    wind_sigma_m_s: float


def medium(weather: Weather = Weather()) -> Medium:
    """Give the speed of sound and the wind that a weather makes likely."""
    known = weather.temperature_c is not None
    temperature_c = weather.temperature_c if weather.temperature_c is not None else _UNKNOWN_C
    speed = _C_AT_0_M_S * math.sqrt(1 + temperature_c / _ZERO_C_K)
    sigma = math.hypot(_DC_DT * (_THERMOMETER_K if known else _UNKNOWN_K), _HUMIDITY_M_S)
    wind, wind_sigma = (0.0, 0.0), _NO_VANE_M_S
    if weather.wind_m_s is not None and (weather.wind_from_deg is not None or not weather.wind_m_s):
        towards = math.radians((weather.wind_from_deg or 0.0) + 180)
        wind = (weather.wind_m_s * math.sin(towards), weather.wind_m_s * math.cos(towards))
        wind_sigma = math.hypot(_VANE_M_S, 0.3 * weather.wind_m_s)
    return Medium(speed, sigma, wind, wind_sigma)
