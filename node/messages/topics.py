"""The topics: gunfire/v1/<site>/<node>/<kind> of a node, gunfire/v1/<site>/incident of the network.

Names are fixed; subscribers hang on them.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

from node.messages.fields import TOPIC_LEVEL

ROOT: Final = "gunfire/v1"

Kind = Literal["detection", "status", "health", "node", "checkpoint", "snippet"]


@dataclass(frozen=True, slots=True)
class Channel:
    """How a kind of message is sent, and whether the broker keeps it from most.

    Attributes
    ----------
    name
        A node's kind of message, or "incident" of the network.
    restricted
        Whether the access list lets only named subscribers read it.
    """

    name: Kind | Literal["incident"]
    qos: Literal[0, 1]
    retained: bool
    restricted: bool


CHANNELS: Final = (
    Channel("detection", qos=1, retained=False, restricted=True),
    Channel("status", qos=1, retained=True, restricted=False),
    Channel("health", qos=0, retained=False, restricted=True),
    Channel("node", qos=1, retained=True, restricted=True),
    Channel("checkpoint", qos=1, retained=False, restricted=True),
    Channel("snippet", qos=1, retained=False, restricted=True),
    Channel("incident", qos=1, retained=False, restricted=True),
)
"""Every topic there is; docs/look-up/messages.md and asyncapi.json say the same of them."""


def node_topic(site: str, node_id: str, kind: Kind) -> str:
    """Give the topic that a node publishes a kind of message on.

    Raises
    ------
    ValueError
        If `site` or `node_id` is not one level of a topic.
    """
    for level in (site, node_id):
        if not _is_level(level):
            raise ValueError(f"{level!r} is not one level of a topic: letters, digits, . _ -")
    return f"{ROOT}/{site}/{node_id}/{kind}"


def subscription(kind: Kind, site: str = "+", node_id: str = "+") -> str:
    """Give the filter that subscribes to a kind of message; '+' stands for every one.

    Raises
    ------
    ValueError
        If `site` or `node_id` is neither '+' nor one level of a topic: such a filter would match
        nothing, or more than was asked for.
    """
    for level in (site, node_id):
        if level != "+" and not _is_level(level):
            raise ValueError(
                f"{level!r} is neither '+' nor one level of a topic: letters, digits, . _ -"
            )
    return f"{ROOT}/{site}/{node_id}/{kind}"


def incident_topic(site: str) -> str:
    """Give the topic that a site's network publishes incidents on; '+' filters every one's.

    Raises
    ------
    ValueError
        If `site` is neither '+' nor one level of a topic.
    """
    if site != "+" and not _is_level(site):
        raise ValueError(f"{site!r} is not one level of a topic: letters, digits, . _ -")
    return f"{ROOT}/{site}/incident"


def _is_level(text: str) -> bool:
    return re.fullmatch(TOPIC_LEVEL, text) is not None
