"""A fleet on loopback: its folder, what `gunfire-fleet serve` runs, and nodes that enrol there."""

from __future__ import annotations

import datetime as dt
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from node.settings import Settings
from provisioning.enrol import Enroller
from provisioning.first_boot_file import EnrolmentSettings
from provisioning.fleet.fleet import Fleet
from provisioning.fleet.server import make_server
from provisioning.invitation import Invitation
from provisioning.memory import Named, read_memory, write_memory
from provisioning.places import Places

NODE_ID, SITE = "node-0001", "riverside"


@dataclass
class SetClock:
    """The host's clock as a test has it: off by so much, and vouched for or not."""

    ahead: dt.timedelta = dt.timedelta()
    trusted: bool = True

    def utc_now_ns(self) -> int:
        return time.time_ns() + round(self.ahead.total_seconds() * 1e9)

    def synchronised(self) -> bool:
        return self.trusted

    def moment(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self.utc_now_ns() // 10**9, dt.UTC)


@dataclass
class Stage:
    """A fleet, and the server that runs on it."""

    fleet: Fleet
    clock: SetClock
    port: int

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def invite(self, node_id: str = NODE_ID, **options: Any) -> Invitation:
        """Invite a node to where the server really is."""
        days, by_hand = options.pop("days", 14), options.pop("by_hand", False)
        invitation = self.fleet.invite(node_id, options.pop("site", None), days, by_hand=by_hand)
        return invitation if by_hand else invitation.model_copy(update={"enrolment_url": self.url})

    def node(self, folder: Path, invitation: Invitation, **options: Any) -> Box:
        """Give a box with that invitation on its card."""
        return Box(folder, options.pop("clock", self.clock), invitation, **options)


@dataclass
class Box:
    """A node's card and disk, as first boot leaves them."""

    folder: Path
    clock: SetClock
    invitation: Invitation | None
    broker: str = "mqtts://localhost:8883"
    places: Places = field(init=False)

    def __post_init__(self) -> None:
        self.places = Places(self.folder)
        for folder in (
            self.places.boot,
            self.places.mqtt_key.parent,
            self.places.settings_file.parent,
        ):
            folder.mkdir(parents=True, exist_ok=True)
        if self.invitation is not None:
            self.put(self.invitation)

    def put(self, invitation: Invitation) -> None:
        """Have first boot take an invitation."""
        table = EnrolmentSettings(
            url=invitation.enrolment_url, token=invitation.token, ca=invitation.ca
        )
        named = Named(id=invitation.node_id, site=invitation.site)
        memory = read_memory(self.places).model_copy(update={"enrolment": table, "node": named})
        write_memory(self.places, memory)

    @property
    def settings(self) -> Settings:
        """The daemon's."""
        places, named = self.places, read_memory(self.places).node
        assert named is not None
        return Settings.model_validate(
            {
                "node": {"id": named.id, "site": named.site},
                "outbox": {"path": self.folder / "outbox.sqlite3"},
                "timing": {"chrony": False},
                "mqtt": {
                    "url": self.broker,
                    "ca_file": places.authority_file,
                    "cert_file": places.mqtt_certificate,
                    "key_file": places.mqtt_key,
                },
                "integrity": {
                    "key_file": places.signing_key,
                    "certificate_file": places.signing_certificate,
                },
                "health": {"setup_folder": places.reports},
            }
        )

    def enroller(self) -> Enroller:
        table = read_memory(self.places).enrolment
        assert table is not None
        return Enroller(self.places, self.settings, table, self.clock)

    def enrol(self) -> int:
        """Run enrolment once; gives its exit code."""
        return self.enroller().run()

    @property
    def told(self) -> dict[str, str]:
        """What it has left for the daemon to tell."""
        return dict(json.loads((self.places.reports / "enrolment.json").read_text()))


@contextmanager
def served(folder: Path, clock: SetClock | None = None) -> Iterator[Stage]:
    """Make a fleet in a folder, and serve it."""
    clock = clock or SetClock()
    fleet = Fleet.make(folder, ["localhost", "127.0.0.1"], SITE, "fleet CA", clock.moment)
    with serving(fleet) as port:
        yield Stage(fleet, clock, port)


@contextmanager
def serving(fleet: Fleet) -> Iterator[int]:
    """Serve a fleet; gives the port."""
    server = make_server(fleet, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server.bind_addr[1]
    finally:
        server.stop()
        thread.join()
