"""One picture of incidents for people who look: nodes, circles that cross, ellipses, truth.

Used by `gunfire-node demo --city`, `locate --map` and the field benchmark; needs matplotlib, which
the `network` extra brings. All in metres on a plane; whoever has latitudes brings the plane.

A node that heard a shot knows how far off it was, if it knows when it was fired: r = c (t - t0).
So each circle round a node passes through the source, but for the node's error. An incident says by
how much each node was late (`residual_s`); more than that and the nodes' places is not needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from node.errors import GunfireNodeError
from node.messages import Incident
from node.messages.incident import SourceLocal, SourcePosition, Witness
from node.types import Grade

Spot = tuple[float, float]
"""East and north, in m."""
Plane = Callable[[float, float], Spot]
"""Latitude and longitude, in degrees, to a spot."""

SPEED_M_S: Final = 340.0
MOST_CLOSE_UPS: Final = 6
LEAST_CLOSE_UP_M: Final = 4.0
MISSED_M: Final = 100.0
# So many incidents have room for their words, and so many for their letters.
MOST_TOLD: Final = 12
MOST_NAMED: Final = 60
MOST_DOUBTS: Final = 4

_Fill = Literal["full", "left", "none"]
_GRADES: Final[dict[Grade, tuple[str, _Fill]]] = {
    "gunfire": ("#c0392b", "full"),
    "probable_gunfire": ("#b8730a", "left"),
    "not_gunfire": ("#2471a3", "none"),
}
_INK: Final = "#2c3e50"
_DOUBT: Final = "#8e44ad"
_CIRCLE: Final = "#7f8c8d"
_WIDE_IN: Final = 13.0
_HIGH_IN: Final = 8.6

Part = Literal["used", "unused", "silent", "doubted"]
_NODES: Final[dict[Part, dict[str, Any]]] = {
    "used": {"marker": "^", "markerfacecolor": _INK},
    "unused": {"marker": "^", "markerfacecolor": "#bdc3c7"},
    "silent": {"marker": "^", "markerfacecolor": "white"},
    "doubted": {"marker": "X", "markerfacecolor": _DOUBT},
}


@dataclass(frozen=True)
class Truth:
    """What really happened.

    Attributes
    ----------
    spot
        Where.
    is_shot
        Whether it ought to be an incident.
    name
        What to write beside it; nothing if empty.
    """

    spot: Spot
    is_shot: bool = True
    name: str = ""


@dataclass(frozen=True)
class _Found:
    """An incident with a place."""

    letter: str
    incident: Incident
    spot: Spot
    half_axes_m: tuple[float, float]
    bearing_deg: float

    @property
    def colour(self) -> str:
        return _GRADES[self.incident.grade][0]

    @property
    def words(self) -> str:
        rounds = self.incident.round_count
        grade = self.incident.grade.replace("_", " ")
        return f"{grade}, {rounds} round{'s' * (rounds > 1)}"

    @property
    def short_words(self) -> str:
        return self.words.replace("probable gunfire", "probable")


def draw(
    incidents: Sequence[Incident],
    nodes: Mapping[str, Spot],
    path: Path,
    *,
    plane: Plane | None = None,
    truth: Sequence[Truth] = (),
    doubts: Mapping[str, str] | None = None,
    speed_m_s: float = SPEED_M_S,
    title: str = "",
) -> None:
    """Draw incidents on a map.

    Parameters
    ----------
    incidents
        In any revisions: the highest of each counts, and none that was taken back.
    nodes
        Where each node says it stands.
    path
        Picture to write; its ending chooses the format (.png, .svg, .pdf).
    plane
        Lays latitude and longitude on the map's plane, as `node.network.plane.Plane.metres` does;
        incidents in a local frame do without.
    truth
        What really happened, where that is known.
    doubts
        What is wrong with nodes, beside what the incidents say.
    speed_m_s
        Of sound; it only turns how late a node was into metres.
    title
        Above the picture.

    Raises
    ------
    GunfireNodeError
        matplotlib is not installed, or the file cannot be written.
    """
    figure_of = need_matplotlib()
    # Where the truth is known, a look-alike's own mark and name say what it was.
    found = _found(incidents, plane, all_grades=not truth)
    all_doubts = _doubts(incidents) | dict(doubts or {})
    shown = [f for f in found if f.incident.grade != "not_gunfire"] or found
    shown = shown[:MOST_CLOSE_UPS]
    figure = figure_of(figsize=(_WIDE_IN, _HIGH_IN), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.11, w_pad=0.05)
    columns = min(2, len(shown))
    grid = figure.add_gridspec(3, 1 + columns, width_ratios=[3.6, *[1.0] * columns])
    axes = figure.add_subplot(grid[:, 0])
    featured = max(shown, key=lambda f: len(f.incident.nodes), default=None)
    _draw_city(axes, found, featured, nodes, truth, all_doubts, speed_m_s)
    for k, one in enumerate(shown):
        close_up = figure.add_subplot(grid[k // columns, 1 + k % columns])
        _draw_close_up(close_up, one, nodes, truth, all_doubts, speed_m_s)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, weight="bold", color=_INK)
    _draw_legend(figure, featured, bool(truth), nodes, all_doubts)
    try:
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise GunfireNodeError(f"{path}: the picture cannot be written: {error}") from None


def need_matplotlib() -> Any:
    """Give matplotlib's Figure, or say what brings it."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise GunfireNodeError(
            "a map needs matplotlib: pip install 'gunfire-node[network]'"
        ) from None
    return Figure


def radius_m(one: Witness, node: Spot, source: Spot, speed_m_s: float) -> float | None:
    """Give how far off a node heard a shot, by its own clock; None where that is not told."""
    if one.residual_s is None:
        return None
    return math.dist(node, source) + speed_m_s * one.residual_s


def _found(incidents: Sequence[Incident], plane: Plane | None, *, all_grades: bool) -> list[_Found]:
    latest: dict[str, Incident] = {}
    for incident in incidents:
        known = latest.get(incident.incident_id)
        if known is None or incident.revision >= known.revision:
            latest[incident.incident_id] = incident
    found: list[_Found] = []
    for incident in sorted(latest.values(), key=lambda incident: incident.utc):
        source = incident.position or incident.local
        if incident.type == "cancel" or source is None:
            continue
        if incident.grade == "not_gunfire" and not all_grades:
            continue
        spot = _spot(source, plane)
        if spot is None:
            continue
        ellipse = source.ellipse_95
        found.append(
            _Found(
                _letter(len(found)), incident, spot,
                (ellipse.major_m, ellipse.minor_m), ellipse.bearing_deg,
            )
        )  # fmt: skip
    return found


def _spot(source: SourcePosition | SourceLocal, plane: Plane | None) -> Spot | None:
    if isinstance(source, SourceLocal):
        return source.x_m, source.y_m
    return None if plane is None else plane(source.lat_deg, source.lon_deg)


def _letter(number: int) -> str:
    """Name an incident: A to Z, then AA and so on."""
    more, last = divmod(number, 26)
    return (_letter(more - 1) if more else "") + chr(ord("A") + last)


def _doubts(incidents: Sequence[Incident]) -> dict[str, str]:
    return {
        witness.node_id: witness.doubt
        for incident in incidents
        for witness in incident.nodes
        if witness.doubt is not None
    }


def _part(node_id: str, featured: _Found | None, doubts: Mapping[str, str]) -> Part:
    """Say what part a node has in the shot whose circles are drawn."""
    if node_id in doubts:
        return "doubted"
    if featured is None:
        return "used"
    used = [witness.used for witness in featured.incident.nodes if witness.node_id == node_id]
    if not used:
        return "silent"
    return "used" if any(used) else "unused"


def _draw_city(
    axes: Any,
    found: Sequence[_Found],
    featured: _Found | None,
    nodes: Mapping[str, Spot],
    truth: Sequence[Truth],
    doubts: Mapping[str, str],
    speed_m_s: float,
) -> None:
    spots = [*nodes.values(), *(f.spot for f in found), *(t.spot for t in truth)] or [(0.0, 0.0)]
    west, east = (end(x for x, _ in spots) for end in (min, max))
    south, north = (end(y for _, y in spots) for end in (min, max))
    margin_m = 0.12 * max(east - west, north - south, 50.0)
    axes.set_xlim(west - margin_m, east + margin_m)
    axes.set_ylim(south - margin_m, north + margin_m)
    axes.set_aspect("equal")
    axes.grid(color="#ecf0f1", zorder=0)
    axes.set_xlabel("east (m)")
    axes.set_ylabel("north (m)")
    if featured is not None:
        _draw_circles(axes, featured, nodes, doubts, speed_m_s)
        axes.set_title(
            f"Each circle: how far off its node heard {featured.letter}. They cross at the source.",
            loc="left", fontsize=10,
        )  # fmt: skip
    for name, spot in nodes.items():
        part = _part(name, featured, doubts)
        axes.plot(
            *spot, linestyle="", markersize=10, markeredgecolor=_INK, zorder=4, **_NODES[part]
        )
        _write(axes, name, spot, (0, -16), colour=_INK, size=8)
    for one in truth:
        if one.is_shot:
            _draw_truth(axes, one, 11)
            if all(math.dist(one.spot, f.spot) > MISSED_M for f in found):
                _write(axes, "a shot, not found", one.spot, (0, 10), colour="black", size=8)
            continue
        axes.plot(*one.spot, "x", color="#7f8c8d", markersize=7, markeredgewidth=1.5, zorder=5)
        if one.name:
            _write(axes, one.name, one.spot, (8, -4), colour="#616a6b", size=8, align="left")
    below_m = 0.03 * (north - south)
    names = [(x, y - below_m) for x, y in nodes.values()]
    for f in found:
        _draw_ellipse(axes, f)
        _draw_source(axes, f, 15)
        if len(found) <= MOST_NAMED:
            words = f"{f.letter}: {f.words}" if len(found) <= MOST_TOLD else f.letter
            side, up = _free_side(axes, words, f.spot, [*spots, *names])
            height = (14 if up else -22) if side == 0 else (8 if up else -15)
            _write(
                axes, words, f.spot, (11 * side, height), colour=f.colour, size=9,
                align=("center", "left", "right")[side], bold=True,
            )  # fmt: skip
    _draw_scale(axes)
    told = [f"{name}: {how}" for name, how in sorted(doubts.items())]
    if told:
        axes.text(
            0.01, 0.01, "\n".join(told[:MOST_DOUBTS]), transform=axes.transAxes, fontsize=9,
            color=_DOUBT, weight="bold", va="bottom", zorder=10,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        )  # fmt: skip


def _free_side(
    axes: Any, words: str, spot: Spot, others: Sequence[Spot]
) -> tuple[Literal[-1, 0, 1], bool]:
    """Say on which side of a spot there is most room for words: left to right, and above it."""
    (west, east), (south, north) = axes.get_xlim(), axes.get_ylim()
    half_wide_m = 0.0045 * len(words) * (east - west)  # a letter of 9 points, by eye
    away = [other for other in others if other != spot]

    def room_m(side: int, up: bool) -> float:
        x = spot[0] + side * (half_wide_m + 0.015 * (east - west))
        y = spot[1] + (1 if up else -1) * (0.018 if side else 0.035) * (north - south)
        if not west + half_wide_m <= x <= east - half_wide_m:
            return -1.0
        return min(
            (math.hypot(max(abs(ox - x) - half_wide_m, 0.0), oy - y) for ox, oy in away),
            default=0.0,
        )

    sides: list[tuple[Literal[-1, 0, 1], bool]] = [
        (side, up) for side in (1, -1, 0) for up in (True, False)
    ]
    return max(sides, key=lambda one: room_m(*one))


def _draw_close_up(
    axes: Any,
    one: _Found,
    nodes: Mapping[str, Spot],
    truth: Sequence[Truth],
    doubts: Mapping[str, str],
    speed_m_s: float,
) -> None:
    shots = [t for t in truth if t.is_shot]
    nearest = min(shots, key=lambda t: math.dist(t.spot, one.spot), default=None)
    off_m = None if nearest is None else math.dist(nearest.spot, one.spot)
    half_m = max(LEAST_CLOSE_UP_M, 1.5 * one.half_axes_m[0])
    if off_m is not None and off_m < 10 * half_m:
        half_m = max(half_m, 1.4 * off_m)
    else:
        nearest = off_m = None
    axes.set_xlim(one.spot[0] - half_m, one.spot[0] + half_m)
    axes.set_ylim(one.spot[1] - half_m, one.spot[1] + half_m)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    _draw_circles(axes, one, nodes, doubts, speed_m_s)
    _draw_ellipse(axes, one)
    _draw_source(axes, one, 9)
    if nearest is not None:
        _draw_truth(axes, nearest, 18)
    major_m, minor_m = one.half_axes_m
    used = sum(witness.used for witness in one.incident.nodes)
    off = f", {off_m:.1f} m off" if off_m is not None else ""
    axes.set_title(
        f"{one.letter}: {one.short_words}", fontsize=9, loc="left", color=one.colour, weight="bold"
    )
    axes.set_xlabel(
        f"by {used} nodes{off}\n95 %: ± {major_m:.1f} × {minor_m:.1f} m", fontsize=8, loc="left"
    )
    _draw_scale(axes)


def _draw_circles(
    axes: Any,
    one: _Found,
    nodes: Mapping[str, Spot],
    doubts: Mapping[str, str],
    speed_m_s: float,
) -> None:
    from matplotlib.patches import Circle

    for witness in one.incident.nodes:
        node = nodes.get(witness.node_id)
        radius = None if node is None else radius_m(witness, node, one.spot, speed_m_s)
        if node is None or radius is None or radius <= 0:
            continue
        doubted = witness.node_id in doubts
        used = witness.used and not doubted
        axes.add_patch(
            Circle(
                node, radius, fill=False, zorder=2, clip_on=True,
                edgecolor=_DOUBT if doubted else _CIRCLE,
                linestyle="-" if used else (0, (6, 4)) if doubted else ":",
                linewidth=0.9 if used else 1.6,
            )
        )  # fmt: skip


def _draw_ellipse(axes: Any, one: _Found) -> None:
    from matplotlib.patches import Ellipse

    major_m, minor_m = one.half_axes_m
    axes.add_patch(
        Ellipse(
            one.spot, 2 * major_m, 2 * minor_m, angle=90 - one.bearing_deg, zorder=3,
            facecolor=(*_rgb(one.colour), 0.18), edgecolor=one.colour, linewidth=1.4,
        )
    )  # fmt: skip


def _draw_source(axes: Any, one: _Found, size: float) -> None:
    axes.plot(
        *one.spot, "o", markersize=size, color=one.colour, markeredgecolor=one.colour,
        markerfacecoloralt="white", fillstyle=_GRADES[one.incident.grade][1], zorder=6,
    )  # fmt: skip


def _draw_truth(axes: Any, one: Truth, size: float) -> None:
    axes.plot(*one.spot, "+", color="white", markersize=size + 3, markeredgewidth=4, zorder=7)
    axes.plot(*one.spot, "+", color="black", markersize=size, markeredgewidth=1.8, zorder=8)


def _draw_scale(axes: Any) -> None:
    """Draw a bar of a round length, a fifth of the width or less."""
    (west, east), (south, north) = axes.get_xlim(), axes.get_ylim()
    wide_m = east - west
    power = 10.0 ** math.floor(math.log10(wide_m / 4))
    length_m = max(n * power for n in (1, 2, 5) if n * power <= wide_m / 4)
    x, y = east - 0.04 * wide_m - length_m, south + 0.035 * (north - south)
    axes.plot(
        [x, x + length_m], [y, y], color="black", linewidth=3, solid_capstyle="butt", zorder=9
    )
    _write(axes, f"{length_m:g} m", (x + length_m / 2, y), (0, 5), colour="black", size=8)


def _write(
    axes: Any,
    words: str,
    spot: Spot,
    offset: tuple[float, float],
    *,
    colour: str,
    size: float,
    align: str = "center",
    bold: bool = False,
) -> None:
    axes.annotate(
        words, spot, xytext=offset, textcoords="offset points", color=colour, fontsize=size,
        ha=align, weight="bold" if bold else "normal", zorder=3.5, annotation_clip=True,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
    )  # fmt: skip


def _draw_legend(
    figure: Any,
    featured: _Found | None,
    truth: bool,
    nodes: Mapping[str, Spot],
    doubts: Mapping[str, str],
) -> None:
    from matplotlib.lines import Line2D

    letter = featured.letter if featured else "it"
    words: dict[Part, str] = {
        "used": f"node that heard {letter}",
        "unused": f"heard {letter}, not used",
        "silent": f"did not hear {letter}",
        "doubted": "node not believed",
    }
    parts = {_part(name, featured, doubts) for name in nodes}
    marks = [
        (Line2D([], [], linestyle="", markersize=9, markeredgecolor=_INK, **style), words[part])
        for part, style in _NODES.items()
        if part in parts
    ]
    marks += [
        (
            Line2D([], [], marker="o", linestyle="", markersize=9, color=colour,
                   markeredgecolor=colour, markerfacecoloralt="white", fillstyle=fill),
            grade.replace("_", " "),
        )
        for grade, (colour, fill) in _GRADES.items()
        if not (truth and grade == "not_gunfire")
    ]  # fmt: skip
    marks.append((Line2D([], [], color=_CIRCLE, linewidth=0.9), "heard from so far off"))
    if "doubted" in parts:
        marks.append(
            (
                Line2D([], [], color=_DOUBT, linewidth=1.6, linestyle=(0, (6, 4))),
                "the same, not believed",
            )
        )
    if truth:
        plus = Line2D([], [], marker="+", linestyle="", markersize=12, color="black")
        plus.set_markeredgewidth(1.8)
        cross = Line2D([], [], marker="x", linestyle="", markersize=7, color="#7f8c8d")
        cross.set_markeredgewidth(1.5)
        marks += [(plus, "true place of a shot"), (cross, "what was no shot")]
    figure.legend(
        [mark for mark, _ in marks], [word for _, word in marks],
        ncols=5, loc="outside lower left", fontsize=9, frameon=False,
    )  # fmt: skip


def _rgb(colour: str) -> tuple[float, float, float]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))  # type: ignore[return-value]
