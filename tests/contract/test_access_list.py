"""The broker's access list says what the contract says: who publishes a topic, and who reads it."""

import re
from pathlib import Path

from node.messages.topics import CHANNELS
from node.network.weather import weather_topic

ACL = Path(__file__).parents[2] / "provisioning" / "broker" / "acl"
LINE = re.compile(r"(topic|pattern|user) (?:(read|write|readwrite) )?(\S+)")


def rules() -> list[tuple[str | None, str, str]]:
    """Give (user, access, topic) of each line; None where it is for everybody."""
    given, user = [], None
    for line in ACL.read_text("utf-8").splitlines():
        match = LINE.fullmatch(line)
        assert match or not line or line.startswith("#"), line
        if match and match[1] == "user":
            user = match[3]
        elif match:
            given.append((None if match[1] == "pattern" else user, match[2], match[3]))
    return given


def test_a_node_may_write_each_kind_of_message_under_its_own_name_and_nothing_else() -> None:
    written = {topic for user, access, topic in rules() if user is None and access == "write"}
    kinds = {channel.name for channel in CHANNELS} - {"incident"}
    assert written == {f"gunfire/v1/+/%u/{kind}" for kind in kinds}


def test_what_everybody_may_read_is_what_is_called_open() -> None:
    read = {
        topic.rpartition("/")[2]
        for user, access, topic in rules()
        if (user, access) == (None, "read")
    }
    assert read == {channel.name for channel in CHANNELS if not channel.restricted}


def test_every_restricted_topic_has_its_readers_and_only_incidents_a_named_writer() -> None:
    named = [
        (access, topic.rpartition("/")[2])
        for user, access, topic in rules()
        if user and topic != weather_topic("+")
    ]
    assert {kind for _, kind in named} == {c.name for c in CHANNELS if c.restricted}
    assert {kind for access, kind in named if access != "read"} == {"incident"}


def test_the_weather_is_told_and_read_by_who_locates_alone() -> None:
    about = [(user, access) for user, access, topic in rules() if topic == weather_topic("+")]
    assert about == [("operator", "readwrite")]
