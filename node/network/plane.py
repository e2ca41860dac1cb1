"""A flat frame for a site: metres east and north of its first node, for what is told as WGS 84.

Azimuthal equidistant (pyproj): within 50 km of the origin lengths are right to 10 mm a kilometre,
and its north turns from true north by less than half a degree below 60° of latitude.
"""

from __future__ import annotations

import math
from typing import Final

from node.errors import SettingsError

try:
    from pyproj import Transformer
    from pyproj.enums import TransformDirection
except ImportError as error:  # pragma: no cover - a node has no use for it
    raise SettingsError(
        "locating needs pyproj, which a node does not have: pip install 'gunfire-node[network]'"
    ) from error

_WGS_84: Final = "EPSG:4326"


class Plane:
    """A flat frame round a place.

    Parameters
    ----------
    lat_deg, lon_deg
        Its origin (WGS 84).
    """

    def __init__(self, lat_deg: float, lon_deg: float) -> None:
        self._flat = Transformer.from_crs(
            _WGS_84,
            f"+proj=aeqd +lat_0={lat_deg!r} +lon_0={lon_deg!r} +datum=WGS84 +units=m",
            always_xy=True,
        )

    def metres(self, lat_deg: float, lon_deg: float) -> tuple[float, float]:
        """Give east and north of the origin, metres; NaN for what is on the other side of Earth."""
        east, north = self._flat.transform(lon_deg, lat_deg)
        return (east, north) if math.isfinite(east + north) else (math.nan, math.nan)

    def degrees(self, east_m: float, north_m: float) -> tuple[float, float]:
        """Give latitude and longitude of a place on the plane."""
        lon, lat = self._flat.transform(east_m, north_m, direction=TransformDirection.INVERSE)
        return lat, lon
