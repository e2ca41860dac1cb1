"""NODES.toml: where each node stands, by a survey, above what the node says of itself.

    site = "riverside"            # may be left out: then the list is of whatever site is heard

    [[node]]
    id = "roof-1"
    lat_deg = 40.4406248          # or, in a surveyed frame: x_m, y_m, z_m
    lon_deg = -79.9958864
    alt_m = 231.4
    sigma_m = 0.8

`gunfire-node simulate` writes one. A list says which nodes count: one that is not in it is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from node.errors import SettingsError
from node.messages.detection import Local, Position
from node.messages.fields import TOPIC_LEVEL
from node.network.content import place_fault
from node.network.toml_lines import read_toml

MOST_NODES: Final = 100_000

_ON_EARTH: Final = ("lat_deg", "lon_deg", "alt_m")
_SURVEYED: Final = ("x_m", "y_m", "z_m")
_KNOWN: Final = {"id", "site", "frame", "sigma_m", *_ON_EARTH, *_SURVEYED}
_ADVICE: Final = "give lat_deg, lon_deg and alt_m, or x_m, y_m and z_m"


@dataclass(frozen=True, slots=True)
class Places:
    """Where nodes stand, by a list.

    Attributes
    ----------
    table
        By site (None: whatever site is heard) and node.
    sites
        The sites that it names.
    """

    table: dict[tuple[str | None, str], Position | Local]
    sites: frozenset[str] = frozenset()

    def of(self, site: str, node_id: str) -> Position | Local | None:
        """Give a node's place; None where the list does not have it.

        Coordinates without a frame are in that of the site's name, as `gunfire-node replay` has it.
        """
        place = self.table.get((site, node_id)) or self.table.get((None, node_id))
        if isinstance(place, Local) and place.frame == _UNNAMED:
            return place.model_copy(update={"frame": site})
        return place

    def nodes(self, site: str) -> Iterator[str]:
        """Give the names of a site's nodes."""
        for of, node_id in self.table:
            if of in (site, None):
                yield node_id

    def __len__(self) -> int:
        return len(self.table)


_UNNAMED: Final = "\N{REPLACEMENT CHARACTER}"  # no frame of a file is called so


def read_places(path: Path) -> Places:
    """Read a NODES.toml.

    Raises
    ------
    SettingsError
        A line for each fault (of many the first ten): file, line, node, and what to do.
    """
    values, lines = read_toml(path, "the list of nodes, a [[node]] for each")
    faults = [
        f"{lines.get(key) or lines.get(f'{key}.0', path)}: {key}: no such key; there are site, "
        "frame, node"
        for key in values
        if key not in ("site", "frame", "node")
    ]
    try:
        _name(values, "site")
    except _FaultError as fault:
        faults.append(f"{lines.get('site', path)}: {fault}")
        values = {**values, "site": None}  # told once, not of each node
    tables = values.get("node")
    if not isinstance(tables, list) or not tables:
        faults.append(f"{lines.get('node', path)}: lists no node; write a [[node]] for each")
        tables = []
    if len(tables) > MOST_NODES:
        faults.append(f"{path}: lists {len(tables)} nodes; at most {MOST_NODES} go into one")
        tables = []
    of: dict[tuple[str | None, str], Position | Local] = {}
    first: dict[tuple[str | None, str], str] = {}
    for i, table in enumerate(tables):
        where = lines.get(f"node.{i}", f"{path}, node {i + 1}")
        try:
            who, place = _node(table, values)
        except _FaultError as fault:
            faults.append(f"{lines.get(f'node.{i}.{fault.key}', where)}: {fault}")
            continue
        if who in of:
            faults.append(f"{where}: node {who[1]} is listed already, at {first[who]}; keep one")
        of[who], first[who] = place, where
    if faults:
        more = [f"{path}: and {len(faults) - 10} faults more"] if len(faults) > 10 else []
        raise SettingsError("\n".join([*faults[:10], *more]))
    return Places(of, frozenset(site for site, _ in of if site is not None))


class _FaultError(Exception):
    def __init__(self, key: str, sentence: str) -> None:
        super().__init__(sentence)
        self.key = key


def _node(table: Any, defaults: dict[str, Any]) -> tuple[tuple[str | None, str], Position | Local]:
    if not isinstance(table, dict):
        raise _FaultError("", "is no table; write [[node]] on a line of its own, its keys below it")
    node_id = _name(table, "id")
    if node_id is None:
        raise _FaultError("", 'a node without a name; give id = "…", as in its messages')
    site = _name(table if "site" in table else defaults, "site")
    if unknown := sorted(set(table) - _KNOWN):
        known = ", ".join(sorted(_KNOWN))
        raise _FaultError(
            unknown[0], f"node {node_id}: {unknown[0]}: no such key; there are {known}"
        )
    on_earth, surveyed = (sorted(set(keys) & set(table)) for keys in (_ON_EARTH, _SURVEYED))
    if bool(on_earth) == bool(surveyed):
        what = "is given a place twice" if on_earth else "has no place"
        raise _FaultError("", f"node {node_id}: {what}; {_ADVICE}")
    keys = _ON_EARTH if on_earth else _SURVEYED
    for key in keys:
        if key not in table:
            raise _FaultError("", f"node {node_id}: {key} is missing; {_ADVICE}")
    given = {key: table[key] for key in (*keys, "sigma_m") if key in table}
    if on_earth:
        if "sigma_m" not in given:
            raise _FaultError(
                "",
                f"node {node_id}: sigma_m is missing; give the standard error of its place, metres",
            )
        return (site, node_id), _made(Position, given, node_id)
    frame = table.get("frame", defaults.get("frame", _UNNAMED))
    return (site, node_id), _made(Local, {"sigma_m": None, **given, "frame": frame}, node_id)


def _made(model: type[Any], given: dict[str, Any], node_id: str) -> Any:
    for key, value in given.items():
        if key.endswith(("_m", "_deg")) and (isinstance(value, (bool, str)) or value != value):
            raise _FaultError(key, f"node {node_id}: {key} = {value!r:.60}: give a number")
    try:
        made: BaseModel = model.model_validate(given)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = str(problem["loc"][0]) if problem["loc"] else ""
        said = problem["msg"]
        raise _FaultError(
            key,
            f"node {node_id}: {key} = {problem['input']!r:.60}: {said[0].lower()}{said[1:]}; "
            f"{_ADVICE}",
        ) from None
    if isinstance(made, Position | Local) and (fault := place_fault(made)):
        raise _FaultError(fault.partition(" ")[0], f"node {node_id}: {fault}; {_ADVICE}")
    return made


def _name(table: dict[str, Any], key: str) -> str | None:
    name = table.get(key)
    if name is None:
        return None
    if not isinstance(name, str) or not re.fullmatch(TOPIC_LEVEL, name):
        raise _FaultError(
            key,
            f"{key} = {name!r:.80}: is no name of a topic: letters, digits, '.', '_' and '-', at "
            "most 64",
        )
    return name
